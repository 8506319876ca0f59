"""Deleting the checkpoints of a thread that its latest ones can do without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from runlane.checkpoints.transactions import DELETE_ORPHANED_WRITES, Loads, get, versions_of
from runlane.errors import ThreadChanged
from runlane.journal.rows import Params
from runlane.store.conditions import RUNNING
from runlane.store.statements import Row, Transaction, statement
from runlane.store.transactions.parts import HOLD_PARTS, sweep_now

_KEYS: Final = statement(
    "checkpoints.keys",
    """
    SELECT seq, checkpoint_ns, checkpoint_id, run_id FROM checkpoints WHERE thread_id = :thread_id
    ORDER BY checkpoint_ns, checkpoint_id, seq
    """,
)
# What an attempt stores meanwhile might use a value that is to be deleted; its fence waits for this lock.
_HOLD_RUN: Final = statement(
    "checkpoints.hold_run",
    "",
    postgres=f"SELECT 1 AS held FROM runs WHERE thread_id = :thread_id AND status = {RUNNING} FOR UPDATE",
)
_BLOB_KEYS: Final = statement(
    "checkpoints.blob_keys", "SELECT checkpoint_ns, channel, version FROM checkpoint_blobs WHERE thread_id = :thread_id"
)
_DELETE_CHECKPOINT: Final = statement(
    "checkpoints.delete_checkpoint",
    """
    DELETE FROM checkpoints WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
      AND checkpoint_id = :checkpoint_id AND seq = :seq
    """,
)
_DELETE_BLOB: Final = statement(
    "checkpoints.delete_blob",
    """
    DELETE FROM checkpoint_blobs WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
      AND channel = :channel AND version = :version
    """,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan of deletions, and the checkpoints of the thread for which it is valid.

    Their number and the newest ``seq`` do not identify them: SQLite gives row ids again after a rollback.
    """

    thread_id: str
    seen: tuple[Row, ...]
    checkpoints: tuple[Params, ...]
    blobs: tuple[Params, ...]


def plan(thread_id: str, loads: Loads) -> Transaction[Plan]:
    """Find what the latest checkpoint of each namespace can do without.

    It needs its ancestors as far as a channel is kept as changes since a snapshot (LangGraph's ``DeltaChannel``).
    """
    keys = yield _KEYS(thread_id=thread_id)
    kept: set[tuple[str, str]] = set()
    used: set[tuple[str, str, str]] = set()
    for checkpoint_ns in {row["checkpoint_ns"] for row in keys}:
        checkpoint_id: str | None = None
        unresolved: set[str] | None = None
        while unresolved is None or (unresolved and checkpoint_id):
            stored = yield from get(thread_id, checkpoint_ns, checkpoint_id, loads)
            if stored is None:
                break
            kept.add((checkpoint_ns, stored.row["checkpoint_id"]))
            used |= {(checkpoint_ns, *pair) for pair in versions_of(stored.checkpoint)}
            if unresolved is None:
                unresolved = set(stored.metadata.get("counters_since_delta_snapshot") or ())
            unresolved -= {channel for channel, _ in stored.blobs}
            checkpoint_id = stored.row["parent_id"]
    blobs = yield _BLOB_KEYS(thread_id=thread_id)
    return Plan(
        thread_id=thread_id,
        seen=tuple(keys),
        checkpoints=tuple(
            _params(row, thread_id) for row in keys if (row["checkpoint_ns"], row["checkpoint_id"]) not in kept
        ),
        blobs=tuple(
            _params(row, thread_id)
            for row in blobs
            if (row["checkpoint_ns"], row["channel"], row["version"]) not in used
        ),
    )


def apply(planned: Plan) -> Transaction[None]:
    """Delete what was planned.

    Raises:
        ThreadChanged: A checkpoint was stored or removed since; nothing was deleted.
    """
    yield _HOLD_RUN(thread_id=planned.thread_id)
    yield HOLD_PARTS(thread_id=planned.thread_id)
    keys = yield _KEYS(thread_id=planned.thread_id)
    if tuple(keys) != planned.seen:
        raise ThreadChanged(planned.thread_id)
    if planned.checkpoints:
        yield _DELETE_CHECKPOINT.many(planned.checkpoints)
        yield DELETE_ORPHANED_WRITES.many(planned.checkpoints)
    if planned.blobs:
        yield _DELETE_BLOB.many(planned.blobs)
    yield from sweep_now(planned.thread_id)


def _params(row: Row, thread_id: str) -> Mapping[str, Any]:
    return {**row, "thread_id": thread_id}
