"""Pages of a run's log, read backwards."""

from __future__ import annotations

from typing import Final

from runlane.records import StreamEvent
from runlane.store.statements import Transaction, statement
from runlane.store.transactions.events import THREAD_OF_LOG, events_of
from runlane.store.transactions.values import Assembly

#: Read at once.
_SEGMENTS: Final = 4
# From the segment that has the event before the given number on; before the end, from the last one.
SEGMENTS_BEFORE = statement(
    "segments_before",
    """SELECT first_seq, last_seq, frames, refs FROM events
       WHERE run_seq = :run_seq AND first_seq < :before AND last_seq <= COALESCE(
         (SELECT MIN(last_seq) FROM events WHERE run_seq = :run_seq AND last_seq >= :before - 1), :before)
       ORDER BY last_seq DESC LIMIT :limit""",
)


def read_events_before(run_seq: int, before: int, limit: int, max_bytes: int) -> Transaction[tuple[StreamEvent, ...]]:
    """Return the last *limit* events with numbers below *before*, oldest first.

    They have no more than *max_bytes*, unless it is a single one.
    """
    newest_first: list[StreamEvent] = []
    size, at = 0, before
    while len(newest_first) < limit and size < max_bytes:
        segments = yield SEGMENTS_BEFORE(run_seq=run_seq, before=at, limit=_SEGMENTS)
        refs = "".join([segment["refs"] for segment in segments if segment["refs"]])
        reading = Assembly((yield THREAD_OF_LOG(run_seq=run_seq))[0]["thread_id"]) if refs else None
        if reading is not None:
            yield from reading.read(refs)
        for segment in segments:
            for event in reversed(list(events_of(segment, reading))):
                if event.seq >= before:
                    continue
                size += len(event.data)
                if len(newest_first) == limit or (newest_first and size > max_bytes):
                    return tuple(reversed(newest_first))
                newest_first.append(event)
        if len(segments) < _SEGMENTS:
            break
        at = segments[-1]["first_seq"]
    return tuple(reversed(newest_first))
