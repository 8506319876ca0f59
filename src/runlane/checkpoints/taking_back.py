"""Taking back the newest of what a run wrote on a thread, which its graph cannot read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runlane.checkpoints.transactions import DELETE_ORPHANED_WRITES, WRITTEN, Loads, get, versions_of
from runlane.journal.rows import Params
from runlane.store.statements import Transaction, statement
from runlane.store.transactions.parts import mark_due

_DELETE_WRITES: Final = statement(
    "checkpoints.take_back_writes",
    """
    DELETE FROM checkpoint_writes WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
      AND checkpoint_id = :checkpoint_id AND run_id = :run_id
    """,
)
_DELETE_CHECKPOINT: Final = statement(
    "checkpoints.take_back",
    """
    DELETE FROM checkpoints WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
      AND checkpoint_id = :checkpoint_id AND run_id = :run_id
    """,
)
_DELETE_BLOB: Final = statement(
    "checkpoints.take_back_value",
    """
    DELETE FROM checkpoint_blobs WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
      AND channel = :channel AND version = :version AND run_id = :run_id
    """,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBack:
    """A rollback's target: a run's writes beside a checkpoint, and that checkpoint itself unless it is ``None``."""

    writes: Params
    checkpoint: Params | None = None
    values: tuple[Params, ...] = ()

    def __call__(self) -> Transaction[None]:
        if self.checkpoint is not None:
            yield _DELETE_CHECKPOINT(**self.checkpoint)
            yield DELETE_ORPHANED_WRITES(**self.checkpoint)
        if self.values:
            yield _DELETE_BLOB.many(self.values)
        yield _DELETE_WRITES(**self.writes)
        yield from mark_due(self.writes["thread_id"])


def newest(thread_id: str, checkpoint_ns: str, run_id: str, loads: Loads) -> Transaction[TakenBack | None]:
    """Return the newest that a run wrote in a namespace; ``None`` if the newest there is not of that run.

    That is what it wrote beside the newest checkpoint, or that checkpoint with the writes that led to it. An input goes
    with what became of it.
    """
    stored = yield from get(thread_id, checkpoint_ns, None, loads)
    if stored is None:
        return None
    place = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns, "run_id": run_id}
    at = {**place, "checkpoint_id": stored.row["checkpoint_id"]}
    written = yield WRITTEN(**at)
    own = stored.row["run_id"] == run_id
    if any(row["run_id"] == run_id for row in written) and not (own and stored.metadata.get("source") == "input"):
        return TakenBack(writes=at)
    if not own:
        return None
    before = None
    if stored.row["parent_id"]:
        before = yield from get(thread_id, checkpoint_ns, stored.row["parent_id"], loads)
    kept = set() if before is None else set(versions_of(before.checkpoint))
    values = [pair for pair in versions_of(stored.checkpoint) if pair not in kept]
    return TakenBack(
        writes={**place, "checkpoint_id": stored.row["parent_id"] or ""},
        checkpoint=at,
        values=tuple({**place, "channel": channel, "version": version} for channel, version in values),
    )
