"""Rows of LangGraph's checkpoints, and the transaction that writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

from runlane.documents.compression import packed
from runlane.documents.parts import split_refs
from runlane.store.statements import Transaction, statement
from runlane.store.transactions.parts import put_parts

Params = Mapping[str, Any]

_CHECKPOINT: Final = """INTO checkpoints (
        thread_id, checkpoint_ns, checkpoint_id, run_id, parent_id, type, checkpoint, metadata_type, metadata
    ) VALUES (
        :thread_id, :checkpoint_ns, :checkpoint_id, :run_id, :parent_id, :type, :checkpoint, :metadata_type, :metadata
    )"""
PUT_CHECKPOINT: Final = statement(
    "checkpoints.put",  # replaces the run's own, as the newest
    f"INSERT OR REPLACE {_CHECKPOINT}",
    postgres=f"""
    WITH before AS (
        DELETE FROM checkpoints WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
          AND checkpoint_id = :checkpoint_id AND run_id = :run_id)
    INSERT {_CHECKPOINT}
    """,
)
PUT_BLOB: Final = statement(
    "checkpoints.put_blob",  # a version is written once
    """
    INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, run_id, type, value, refs)
    VALUES (:thread_id, :checkpoint_ns, :channel, :version, :run_id, :type, :value, :refs)
    ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING
    """,
)
PUT_WRITES: Final = statement(
    "checkpoints.put_writes",  # as the newest of the checkpoint
    """
    INSERT INTO checkpoint_writes (
        thread_id, checkpoint_ns, checkpoint_id, seq, run_id, task_id, task_path, type, writes, refs
    ) VALUES (
        :thread_id, :checkpoint_ns, :checkpoint_id,
        (SELECT 1 + coalesce(max(seq), 0) FROM checkpoint_writes
         WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns AND checkpoint_id = :checkpoint_id),
        :run_id, :task_id, :task_path, :type, :writes, :refs
    )
    """,
    postgres="""
    INSERT INTO checkpoint_writes (
        thread_id, checkpoint_ns, checkpoint_id, run_id, task_id, task_path, type, writes, refs
    ) VALUES (
        :thread_id, :checkpoint_ns, :checkpoint_id, :run_id, :task_id, :task_path, :type, :writes, :refs
    )
    """,
)


@dataclass(slots=True)
class CheckpointRows:
    """Rows to be written together, after the ``changes``; mutable, owned by whoever fills it."""

    changes: list[Callable[[], Transaction[None]]] = field(default_factory=list)
    checkpoints: list[Params] = field(default_factory=list)
    blobs: list[Params] = field(default_factory=list)
    writes: list[Params] = field(default_factory=list)
    #: Parts of values, by thread and reference.
    parts: dict[str, dict[str, bytes]] = field(default_factory=dict)
    #: Bytes of the serialised values.
    size: int = 0

    def __bool__(self) -> bool:
        return bool(self.changes or self.checkpoints or self.writes)

    @property
    def address(self) -> dict[str, Any]:
        """Where its first checkpoint is, as LangGraph's ``configurable`` says it."""
        return {key: self.checkpoints[0][key] for key in ("thread_id", "checkpoint_ns", "checkpoint_id")}

    def extend(self, other: CheckpointRows) -> None:
        """Append the changes and rows of *other*."""
        self.changes += other.changes
        self.checkpoints += other.checkpoints
        self.blobs += other.blobs
        self.writes += other.writes
        for thread_id, parts in other.parts.items():
            self.parts.setdefault(thread_id, {}).update(parts)
        self.size += other.size

    def touches(self, thread_id: str, checkpoint_ns: str) -> bool:
        """Return whether a reader of this thread and namespace would see a difference."""
        return any(
            row["thread_id"] == thread_id and row["checkpoint_ns"] == checkpoint_ns
            for row in chain(self.checkpoints, self.writes)
        )


def put(rows: CheckpointRows) -> Transaction[None]:
    """Make the changes of *rows*, then write them."""
    for change in rows.changes:
        yield from change()
    yield from _put_parts(rows)
    if rows.blobs:
        yield PUT_BLOB.many([{**row, "value": packed(row["value"])} for row in rows.blobs])
    if rows.checkpoints:
        yield PUT_CHECKPOINT.many(
            [
                {**row, "checkpoint": packed(row["checkpoint"]), "metadata": packed(row["metadata"])}
                for row in rows.checkpoints
            ]
        )
    if rows.writes:
        yield PUT_WRITES.many([{**row, "writes": packed(row["writes"])} for row in rows.writes])


def _put_parts(rows: CheckpointRows) -> Transaction[None]:
    refs: dict[str, set[str]] = {thread_id: set() for thread_id in rows.parts}
    for row in chain(rows.blobs, rows.writes):
        if row["refs"] is not None:
            refs.setdefault(row["thread_id"], set()).update(split_refs(row["refs"]))
    for thread_id, wanted in refs.items():
        yield from put_parts(thread_id, wanted, rows.parts.get(thread_id, {}))
