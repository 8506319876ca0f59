"""The durable log of events. A row is a segment: consecutive events of one run, committed together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from runlane.records import Lease, StreamEvent
from runlane.store.conditions import ENDED_LONG_AGO
from runlane.store.statements import Row, Transaction, statement

# A batch that is appended again, since the answer to its commit was lost, is there already: what has its number is it,
# as the lease held all the time.
INSERT_SEGMENT = statement(
    "insert_segment",
    """INSERT INTO events (run_seq, last_seq, first_seq, frames) VALUES (:run_seq, :last_seq, :first_seq, :frames)
       ON CONFLICT (run_seq, last_seq) DO NOTHING""",
)
READ_SEGMENTS = statement(
    "read_segments",
    """SELECT first_seq, last_seq, frames FROM events WHERE run_seq = :run_seq AND last_seq > :after
       ORDER BY last_seq LIMIT :limit""",
)
# Read from the index of runs whose log was not purged yet: those that were are many.
OLD_LOGS = statement(
    "old_logs",
    f"""SELECT seq AS run_seq FROM runs WHERE ended_at IS NOT NULL AND log_purged = 0
          AND {ENDED_LONG_AGO} ORDER BY ended_at LIMIT :limit""",
)
# Both are for runs that have ended: nobody appends to their logs any more.
MARK_PURGED = statement("mark_purged", "UPDATE runs SET log_purged = 1 WHERE seq = :run_seq")
DELETE_EVENTS = statement("delete_events", "DELETE FROM events WHERE run_seq = :run_seq")

#: Several flushes of a busy stream at its usual pace.
SEGMENT_BYTES = 256 * 1024
#: Read before it is known how large segments are.
FIRST_SEGMENTS = 4

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[str, bytes]])
LAST_EVENT = statement("last_event", "SELECT MAX(last_seq) AS last_seq FROM events WHERE run_seq = :run_seq")


def insert_events(lease: Lease, events: Sequence[StreamEvent]) -> Transaction[None]:
    """Append *events*, consecutive and following the log's last one, in a transaction that has checked the lease.

    Appending them again changes nothing.
    """
    for part in _segments(events):
        yield INSERT_SEGMENT(
            run_seq=lease.seq,
            first_seq=part[0].seq,
            last_seq=part[-1].seq,
            frames=_encoder.encode([(event.name, event.data) for event in part]),
        )


def _segments(events: Sequence[StreamEvent]) -> Iterator[Sequence[StreamEvent]]:
    """Split *events* so that a segment is large only if one event is: a reader holds a whole one in memory."""
    begin = size = 0
    for place, event in enumerate(events):
        if size and size + len(event.data) > SEGMENT_BYTES:
            yield events[begin:place]
            begin, size = place, 0
        size += len(event.data)
    yield events[begin:]


def read_events(run_seq: int, after: int, max_segments: int, max_bytes: int) -> Transaction[tuple[StreamEvent, ...]]:
    """Return events with numbers above *after*, oldest first, of at most *max_segments* segments.

    It stops once that is *max_bytes*, as nearly as segments of like sizes let it. The first one's number is above
    ``after + 1`` if retention removed what lies between.
    """
    events: list[StreamEvent] = []
    cursor, size, done = after, 0, 0
    take = max(1, min(FIRST_SEGMENTS, max_bytes // SEGMENT_BYTES))
    while size < max_bytes and done < max_segments:
        take = min(take, max_segments - done)
        segments = yield READ_SEGMENTS(run_seq=run_seq, after=cursor, limit=take)
        for segment in segments:
            events += _events_of(segment, after)
            size += len(segment["frames"])
        done += len(segments)
        if len(segments) < take:
            break
        cursor = segments[-1]["last_seq"]
        take = max(1, min(2 * take, (max_bytes - size) * done // size))
    return tuple(events)


def _events_of(segment: Row, after: int) -> Iterator[StreamEvent]:
    first = segment["first_seq"]
    for offset, (name, data) in enumerate(_decoder.decode(segment["frames"])):
        if first + offset > after:
            yield StreamEvent(seq=first + offset, name=name, data=data)


def purge_events(older_than_s: float, limit: int) -> Transaction[int]:
    """Remove the events of up to *limit* runs that ended more than *older_than_s* ago; return of how many."""
    old = yield OLD_LOGS(age_us=int(older_than_s * 1_000_000), limit=limit)
    if old:
        yield DELETE_EVENTS.many(old)
        yield MARK_PURGED.many(old)
    return len(old)


def last_event(run_seq: int) -> Transaction[int]:
    """Return the number of the newest event in a run's log; 0 if there is none."""
    rows = yield LAST_EVENT(run_seq=run_seq)
    newest: int = rows[0]["last_seq"] or 0
    return newest
