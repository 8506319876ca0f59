"""The size of a thread's checkpoints, in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from runlane.store.statements import Transaction, statement
from runlane.store.transactions.sizes import Size, size_of

_CHECKPOINTS: Final = statement(
    "checkpoints.bytes",
    """SELECT count(*) AS n, coalesce(sum(length(checkpoint) + length(metadata)), 0) AS bytes
       FROM checkpoints WHERE thread_id = :thread_id""",
)
_CHANNELS: Final = statement(
    "checkpoints.channel_bytes",
    """SELECT channel, count(*) AS n, sum(length(value) + coalesce(length(refs), 0)) AS bytes
       FROM checkpoint_blobs WHERE thread_id = :thread_id GROUP BY channel ORDER BY channel""",
)
_WRITES: Final = statement(
    "checkpoints.write_bytes",
    """SELECT count(*) AS n, coalesce(sum(length(writes) + coalesce(length(refs), 0)), 0) AS bytes
       FROM checkpoint_writes WHERE thread_id = :thread_id""",
)


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
        checkpoints=size_of(checkpoints[0]),
        channels={row["channel"]: size_of(row) for row in channels},
        writes=size_of(writes[0]),
    )
