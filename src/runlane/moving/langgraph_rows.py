"""From the rows of LangGraph's PostgreSQL checkpointer to those of the ledger. Pure.

Values stay the bytes that they are, so that no class of theirs is needed. Scalars, which that checkpointer keeps within
the checkpoint, become values of their own.

Source: ``langgraph-checkpoint-postgres``, ``base.py``: its migrations, and how it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from langgraph.checkpoint.serde.base import SerializerProtocol

from runlane.checkpoints.serializer import KINDS
from runlane.checkpoints.values import MessagePack
from runlane.errors import CheckpointUnreadable
from runlane.journal.rows import CheckpointRows, Params
from runlane.store.statements import Row

#: The kind of a channel without a value, which has no row in the ledger.
_EMPTY: Final = "empty"
_MSGPACK: Final = "msgpack"
#: How MessagePack begins a list of two.
_PAIR: Final = b"\x92"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredThread:
    """All rows of a thread: checkpoints by namespace and id, writes by checkpoint, task and place."""

    thread_id: str
    checkpoints: Sequence[Row]
    blobs: Sequence[Row]
    writes: Sequence[Row]


class Converter:
    """Makes rows of the ledger, which belong to no run."""

    def __init__(self, serde: SerializerProtocol) -> None:
        self._serde = serde
        self._codec = MessagePack(serde)

    def rows(self, thread: StoredThread) -> CheckpointRows:
        """Return what the ledger stores of *thread*.

        Raises:
            CheckpointUnreadable: A value is of a kind that Runlane does not read, such as a pickle.
        """
        at = {"thread_id": thread.thread_id, "run_id": ""}
        blobs = {(row["checkpoint_ns"], row["channel"], row["version"]): row for row in thread.blobs}
        return CheckpointRows(
            checkpoints=[self._checkpoint(at, row) for row in thread.checkpoints],
            blobs=[*self._blobs(at, thread.blobs), *self._inline(at, thread.checkpoints, blobs)],
            writes=list(self._calls(at, thread.writes)),
        )

    def _checkpoint(self, at: Params, row: Row) -> Params:
        body = {name: value for name, value in row["checkpoint"].items() if name != "channel_values"}
        kind, data = self._serde.dumps_typed(body)
        metadata_kind, metadata = self._serde.dumps_typed(row["metadata"])
        return {
            **at,
            "checkpoint_ns": row["checkpoint_ns"],
            "checkpoint_id": row["checkpoint_id"],
            "parent_id": row["parent_checkpoint_id"],
            "type": kind,
            "checkpoint": data,
            "metadata_type": metadata_kind,
            "metadata": metadata,
        }

    def _blobs(self, at: Params, rows: Iterable[Row]) -> Iterator[Params]:
        for row in rows:
            if row["type"] != _EMPTY:
                _check(row["type"])
                yield self._blob(at, row["checkpoint_ns"], row["channel"], row["version"], row["type"], row["blob"])

    def _inline(self, at: Params, checkpoints: Iterable[Row], blobs: Mapping[Any, Row]) -> Iterator[Params]:
        seen = set(blobs)
        for row in checkpoints:
            versions = row["checkpoint"]["channel_versions"]
            for channel, value in row["checkpoint"].get("channel_values", {}).items():
                # One that has a row too is the mark of a snapshot, which is in the row.
                key = (row["checkpoint_ns"], channel, str(versions.get(channel)))
                if channel in versions and key not in seen:
                    seen.add(key)
                    yield self._blob(at, *key, *self._serde.dumps_typed(value))

    def _blob(self, at: Params, checkpoint_ns: str, channel: str, version: str, kind: str, data: bytes) -> Params:
        address = {**at, "checkpoint_ns": checkpoint_ns, "channel": channel, "version": version}
        return {**address, "type": kind, "value": data, "refs": None}

    def _calls(self, at: Params, rows: Iterable[Row]) -> Iterator[Params]:
        """Yield one row for each task: what it wrote in the order of its places, special channels last."""
        for key, group in groupby(rows, key=_call):
            found = list(group)
            writes = [row for row in found if row["idx"] >= 0] + [row for row in found if row["idx"] < 0]
            pairs = [_PAIR + self._codec.encode(row["channel"]) + self._nested(row) for row in writes]
            yield {
                **at,
                **dict(zip(("checkpoint_ns", "checkpoint_id", "task_id", "task_path"), key, strict=True)),
                "type": _MSGPACK,
                "writes": self._codec.begin(pairs) + b"".join(pairs),
                "refs": None,
            }

    def _nested(self, row: Row) -> bytes:
        """Return the value of *row* as MessagePack within another."""
        _check(row["type"])
        if row["type"] == _MSGPACK:
            return bytes(row["blob"])
        return self._codec.encode(self._serde.loads_typed((row["type"], row["blob"])))


def _call(row: Row) -> tuple[str, str, str, str]:
    return row["checkpoint_ns"], row["checkpoint_id"], row["task_id"], row["task_path"]


def _check(kind: str) -> None:
    if kind not in KINDS:
        raise CheckpointUnreadable(kind)
