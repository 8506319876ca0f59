"""The size of a thread's checkpoints, in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from runlane.store.statements import Row, Transaction, statement

_CHECKPOINTS: Final = statement(
    "checkpoints.bytes",
    """SELECT count(*) AS n, coalesce(sum(length(checkpoint) + length(metadata)), 0) AS bytes
       FROM checkpoints WHERE thread_id = :thread_id""",
)
_CHANNELS: Final = statement(
    "checkpoints.channel_bytes",
    """SELECT channel, count(*) AS n, sum(length(value)) AS bytes
       FROM checkpoint_blobs WHERE thread_id = :thread_id GROUP BY channel ORDER BY channel""",
)
_WRITES: Final = statement(
    "checkpoints.write_bytes",
    """SELECT count(*) AS n, coalesce(sum(length(writes)), 0) AS bytes
       FROM checkpoint_writes WHERE thread_id = :thread_id""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Rows, and the bytes of the serialised values in them."""

    count: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """The size of a thread: its checkpoints, the channels' values in all versions that are kept, and tasks' writes."""

    checkpoints: Size
    channels: Mapping[str, Size]
    writes: Size


def storage(thread_id: str) -> Transaction[Storage]:
    """Measure a thread; this looks at each of its rows."""
    checkpoints = yield _CHECKPOINTS(thread_id=thread_id)
    channels = yield _CHANNELS(thread_id=thread_id)
    writes = yield _WRITES(thread_id=thread_id)
    return Storage(
        checkpoints=_size(checkpoints[0]),
        channels={row["channel"]: _size(row) for row in channels},
        writes=_size(writes[0]),
    )


def _size(row: Row) -> Size:
    return Size(count=row["n"], bytes=row["bytes"])
