"""The durable log of events. A row is a segment: consecutive events of one run, committed together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
import orjson

from runlane.documents.document import Body, Document
from runlane.documents.parts import REF_CHARS
from runlane.records import Lease, StreamEvent
from runlane.store.conditions import ENDED_LONG_AGO
from runlane.store.statements import Query, Row, Transaction, statement
from runlane.store.transactions.purges import mark_all_due, purges_alone
from runlane.store.transactions.run_logs import DELETE_LOG
from runlane.store.transactions.values import Assembly, put_documents

# A batch that is appended again, since the answer to its commit was lost, is there already: what has its number is it,
# as the lease held all the time.
INSERT_SEGMENT = statement(
    "insert_segment",
    """INSERT INTO events (run_seq, last_seq, first_seq, frames, refs)
       VALUES (:run_seq, :last_seq, :first_seq, :frames, :refs) ON CONFLICT (run_seq, last_seq) DO NOTHING""",
    together="""INSERT INTO events (run_seq, last_seq, first_seq, frames, refs)
       SELECT run_seq, last_seq, first_seq, frames, refs
       FROM unnest(CAST(:run_seq AS BIGINT[]), CAST(:last_seq AS BIGINT[]), CAST(:first_seq AS BIGINT[]),
         CAST(:frames AS BYTEA[]), CAST(:refs AS TEXT[])) AS each (run_seq, last_seq, first_seq, frames, refs)
       ON CONFLICT (run_seq, last_seq) DO NOTHING""",
)
READ_SEGMENTS = statement(
    "read_segments",
    """SELECT first_seq, last_seq, frames, refs FROM events WHERE run_seq = :run_seq AND last_seq > :after
       ORDER BY last_seq LIMIT :limit""",
)
THREAD_OF_LOG = statement("thread_of_log", "SELECT thread_id FROM runs WHERE seq = :run_seq")
# Read from the index of runs whose log was not purged yet: those that were are many. Those that others work on are left
# for later.
OLD_LOGS = statement(
    "old_logs",
    f"""SELECT seq AS run_seq, thread_id FROM runs WHERE ended_at IS NOT NULL AND log_purged = 0
          AND {ENDED_LONG_AGO} ORDER BY ended_at LIMIT :limit {{skip_locked}}""",
)
# Both are for runs that have ended: nobody appends to their logs any more.
MARK_PURGED = statement("mark_purged", "UPDATE runs SET log_purged = 1 WHERE seq = :run_seq")
DELETE_EVENTS = statement("delete_events", "DELETE FROM events WHERE run_seq = :run_seq")

#: Several flushes of a busy stream at its usual pace.
SEGMENT_BYTES = 256 * 1024
#: Read before it is known how large segments are.
FIRST_SEGMENTS = 4

_encoder = msgspec.msgpack.Encoder()
#: A frame is the name of an event, and its text or the body of its document.
_decoder = msgspec.msgpack.Decoder(list[tuple[str, bytes | list[bytes | int]]])
NO_DOCUMENTS: Final[Mapping[int, Document]] = {}
LAST_EVENT = statement("last_event", "SELECT MAX(last_seq) AS last_seq FROM events WHERE run_seq = :run_seq")


#: The name of the event that tells of the start of an attempt.
START_EVENT: Final = "metadata"


def start_event(lease: Lease, before: int) -> StreamEvent:
    """Return the event that tells of the start of an attempt, to follow event number *before*."""
    data = orjson.dumps({"run_id": lease.run_id, "attempt": lease.attempt})
    # The copy is not as large as the buffer of 4 KiB that orjson has written into; it is kept while the run executes.
    return StreamEvent(seq=before + 1, name=START_EVENT, data=bytes(memoryview(data)))


def insert_events(
    lease: Lease,
    events: Sequence[StreamEvent],
    documents: Mapping[int, Document] = NO_DOCUMENTS,
    *,
    fence: Transaction[None] | None = None,
) -> Transaction[None]:
    """Append *events*, consecutive and following the log's last one, in a transaction that has checked the lease.

    Those that are *documents*, by number, are stored so; as a whole if parts of them are not there. Appending them
    again changes nothing.

    Args:
        fence: Checks the lease. It locks the run's row, so that everything is encoded before.
    """
    segments = _segments(lease, events, documents)
    if fence is not None:
        yield from fence
    if documents and not (yield from put_documents(lease.thread_id, documents.values())):
        segments = _segments(lease, events, NO_DOCUMENTS)
    for segment in segments:  # noqa: UP028 - a list cannot be sent the answers
        yield segment


def _segments(lease: Lease, events: Sequence[StreamEvent], documents: Mapping[int, Document]) -> list[Query]:
    segments = []
    for part in _parts(events):
        cut = [documents[event.seq] for event in part if event.seq in documents]
        segment = INSERT_SEGMENT(
            run_seq=lease.seq,
            first_seq=part[0].seq,
            last_seq=part[-1].seq,
            frames=_encoder.encode([(event.name, _body(event, documents)) for event in part]),
            refs="".join(document.ref_text for document in cut) or None,
        )
        segments.append(segment)
    return segments


def _body(event: StreamEvent, documents: Mapping[int, Document]) -> Body | bytes:
    return documents[event.seq].body if event.seq in documents else event.data


def _parts(events: Sequence[StreamEvent]) -> Iterator[Sequence[StreamEvent]]:
    """Split *events* so that a segment is large only if one event is: a reader holds a whole one in memory."""
    begin = size = 0
    for place, event in enumerate(events):
        if size and size + len(event.data) > SEGMENT_BYTES:
            yield events[begin:place]
            begin, size = place, 0
        size += len(event.data)
    if events:
        yield events[begin:]


def read_events(run_seq: int, after: int, max_segments: int, max_bytes: int) -> Transaction[tuple[StreamEvent, ...]]:
    """Return events with numbers above *after*, oldest first, of at most *max_segments* segments.

    It stops once that is *max_bytes*, as nearly as segments of like sizes let it. The first one's number is above
    ``after + 1`` if retention removed what lies between.
    """
    events: list[StreamEvent] = []
    reading: Assembly | None = None
    cursor, size, done = after, 0, 0
    take = max(1, min(FIRST_SEGMENTS, max_bytes // SEGMENT_BYTES))
    while size < max_bytes and done < max_segments:
        take = min(take, max_segments - done)
        segments = yield READ_SEGMENTS(run_seq=run_seq, after=cursor, limit=take)
        refs = "".join([segment["refs"] for segment in segments if segment["refs"]])
        if refs:
            reading = reading or Assembly((yield THREAD_OF_LOG(run_seq=run_seq))[0]["thread_id"])
            yield from reading.read(refs)
        for segment in segments:
            found = list(events_of(segment, reading))
            events += [event for event in found if event.seq > after]
            size += sum([len(event.data) for event in found])
        done += len(segments)
        if len(segments) < take:
            break
        cursor = segments[-1]["last_seq"]
        take = max(1, min(2 * take, (max_bytes - size) * done // max(1, size)))
    return tuple(events)


def events_of(segment: Row, reading: Assembly | None) -> Iterator[StreamEvent]:
    refs, at = segment["refs"] or "", 0
    for seq, (name, body) in enumerate(_decoder.decode(segment["frames"]), segment["first_seq"]):
        if isinstance(body, bytes):
            yield StreamEvent(seq=seq, name=name, data=body)
            continue
        assert reading is not None  # a segment with documents has references
        end = at + REF_CHARS * sum([each for each in body if isinstance(each, int)])
        yield StreamEvent(seq=seq, name=name, data=reading.bytes_of(body, refs[at:end]))
        at = end


def purge_events(older_than_s: float, limit: int) -> Transaction[int]:
    """Remove events and log records of up to *limit* runs that ended more than *older_than_s* ago; return of how many.

    None while another process does.
    """
    if not (yield from purges_alone("events")):
        return 0
    old = yield OLD_LOGS(age_us=int(older_than_s * 1_000_000), limit=limit)
    if old:
        yield DELETE_EVENTS.many(old)
        yield DELETE_LOG.many(old)
        yield MARK_PURGED.many(old)
        yield from mark_all_due(old)
    return len(old)


def last_event(run_seq: int) -> Transaction[int]:
    """Return the number of the newest event in a run's log; 0 if there is none."""
    rows = yield LAST_EVENT(run_seq=run_seq)
    newest: int = rows[0]["last_seq"] or 0
    return newest
