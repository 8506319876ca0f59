"""One stream of events of many runs, for a page that shows them; and pages of what a run has streamed."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Annotated, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import InvalidRequest
from runlane.records import RunRecord
from runlane.server.http import answers
from runlane.server.http.payload import HIDES_PAYLOAD
from runlane.server.http.queries import QueryModel
from runlane.server.http.requests import Body, Limit, canonical_uuid
from runlane.server.http.responses import (
    HEARTBEAT,
    SSE_HEADERS,
    Piece,
    StreamingBody,
    cursor_of,
    event_id,
    raw_json,
)
from runlane.server.http.route import Resource, Route
from runlane.server.http.stream_items import PLACE_CHARS, Cursor, ItemWriter
from runlane.server.routes.authorization import reach_run, reach_runs, service_of
from runlane.server.service import Service
from runlane.store.transactions.run_states import StreamedRun
from runlane.streams.batches import EventBatch, LargePiece, ends
from runlane.streams.multiplex import Frame
from runlane.streams.watch import place_after

_BEGIN: Final = b"event: items\r\ndata: ["
#: Of a number that the ledger can compare.
_NUMBER_CHARS: Final = 18
#: Runs that one stream may have.
MAX_RUNS: Final = 200
Id = Annotated[str, msgspec.Meta(max_length=64)]


class WatchedRun(Body):
    run_id: Id
    thread_id: Id | None = None
    after: Id | None = None


class RunsWatch(Body):
    runs: Annotated[list[WatchedRun], msgspec.Meta(min_length=1, max_length=MAX_RUNS)]
    cursor: Annotated[str, msgspec.Meta(max_length=MAX_RUNS * PLACE_CHARS)] | None = None


async def watch_runs(request: Request, body: RunsWatch) -> StreamingBody:
    """Stream the events of many runs.

    Each of a run is read after the event with the id ``after``; ``-`` is all of its events, and none is from now on.

    Each event of this stream is called ``items`` and has a JSON array of items: what there is, up to 64 KiB. Its id is
    the ``cursor`` with which another stream goes on, for the runs that it knows. An item is ``{"run_id", "id", "event",
    "data"}`` with the id that it has in the run's own stream; without ``data`` if the sender may not see payload. The
    last one of a run is ``end`` with ``{"status", "end_reason"}``. ``gap`` with ``{"resumes_at"}`` says that retention
    has removed what came next; ``not_found``, that there is no such run. The stream closes when all runs have ended.
    """
    service, wanted = service_of(request), _by_id(body.runs)
    known = Cursor(body.cursor)
    found = await reach_runs(request, list(wanted))
    runs = [run for run in found if _is_on(run, wanted[run.run_id].thread_id)]
    cursor = await _places(service, runs, wanted, known)
    missing = wanted.keys() - {run.run_id for run in runs}
    reader = service.streams.multiplex({run: cursor.number(run.seq) for run in runs if not cursor.ended(run.seq)})
    frames = _Frames(reader.frames(), runs, cursor, missing, hides_payload=bool(request.scope.get(HIDES_PAYLOAD)))
    return StreamingBody(
        frames, media_type="text/event-stream; charset=utf-8", headers=SSE_HEADERS, on_close=reader.close
    )


def _by_id(runs: Sequence[WatchedRun]) -> dict[str, WatchedRun]:
    found = {canonical_uuid("run", one.run_id): one for one in runs}
    if len(found) < len(runs):
        raise InvalidRequest("A run is named twice in 'runs'; name each once.")
    return found


def _is_on(run: StreamedRun, thread_id: str | None) -> bool:
    return thread_id is None or run.thread_id == canonical_uuid("thread", thread_id)


async def _places(
    service: Service, runs: Iterable[StreamedRun], wanted: Mapping[str, WatchedRun], known: Cursor
) -> Cursor:
    """Return where each of *runs* is read on: where *known* says it, or else as was *wanted*."""
    cursor, from_now = Cursor(), list[int]()
    for run in runs:
        if run.seq in known:
            cursor.put(run.seq, known.number(run.seq), ended=known.ended(run.seq))
        elif (after := cursor_of(run, wanted[run.run_id].after, name="after")) is not None:
            cursor.put(run.seq, after)
        else:
            from_now.append(run.seq)
    if from_now:
        for run_seq, news in (await service.store.events.news(dict.fromkeys(from_now))).items():
            cursor.put(run_seq, news.last)
    return cursor


class _Frames:
    """The pieces of a stream of many runs. It is no generator, which would keep each piece until it has been taken."""

    def __init__(
        self,
        frames: AsyncIterator[Frame[StreamedRun]],
        runs: Iterable[StreamedRun],
        cursor: Cursor,
        missing: Iterable[str],
        *,
        hides_payload: bool,
    ) -> None:
        """Args:
        missing: Ids of runs that were not found.
        """
        self._frames = frames
        self._writers = {run.seq: ItemWriter(run, protocol=run.protocol, hides_payload=hides_payload) for run in runs}
        self._cursor = cursor
        self._pieces: deque[Piece] = deque()
        # The first frame tells where runs are read on that were to be read from now on.
        told = [b'{"run_id":"%s","event":"not_found"}' % run_id.encode() for run_id in sorted(missing)]
        self._pieces.append(_BEGIN + b",".join(told) + self._end())

    def __aiter__(self) -> _Frames:
        return self

    async def __anext__(self) -> Piece:
        while not self._pieces:
            frame = await anext(self._frames)
            if frame:
                self._take(frame)
            else:
                return HEARTBEAT
        return self._pieces.popleft()

    def _take(self, frame: Frame[StreamedRun]) -> None:
        """Put *frame* in line; a large event, which comes last in it, becomes a frame of its own."""
        items: list[bytes] = []
        for run, part in frame:
            piece = self._writers[run.seq](part)
            if isinstance(piece, LargePiece):
                self._put(items)
                items = []
            self._cursor.put(run.seq, place_after(part), ended=ends(part))
            if isinstance(piece, LargePiece):
                self._pieces.extend((_BEGIN, piece, self._end()))
            elif piece:
                items.append(piece)
        self._put(items)

    def _put(self, items: Sequence[bytes]) -> None:
        if items:
            self._pieces.append(_BEGIN + b",".join(items) + self._end())

    def _end(self) -> bytes:
        return b"]\r\nid: %s\r\n\r\n" % bytes(self._cursor)


class EventsQuery(QueryModel):
    after: str | None = None
    before: str | None = None
    limit: Limit = 100


async def list_events(request: Request, query: EventsQuery) -> Response:
    """Return a page of what a run has streamed, oldest first: from its first event on, after an event, or before one.

    ``after`` and ``before`` are ids of events, or their numbers from 1; a number beyond the end stands for the end.
    X-Pagination-Total is the number of the newest event; X-Pagination-Next is the next page's ``after``, or ``before``,
    while there is more. A page has fewer events than ``limit`` if they are large.
    """
    _, run = await reach_run(request, "read")
    if query.after is not None and query.before is not None:
        raise InvalidRequest("Give either 'after' or 'before', not both.")
    events = service_of(request).store.events
    newest = await events.last(run.seq)
    if query.before is not None:
        page = await events.read_before(run.seq, before=_number(run, "before", query.before), limit=query.limit)
        next_from = page[0].seq if page and page[0].seq > 1 else None
    else:
        page = await events.read(run.seq, after=_number(run, "after", query.after or "0"))
        page = page[: query.limit]
        next_from = page[-1].seq if page and page[-1].seq < newest else None
    headers = {"X-Pagination-Total": str(newest)}
    if next_from is not None:
        headers["X-Pagination-Next"] = event_id(run, next_from)
    items = ItemWriter(run, protocol=run.request.protocol is not None)(EventBatch(page))
    assert isinstance(items, bytes), "only a large event is more than that"
    return raw_json(b"[%s]" % items, headers)


def _number(run: RunRecord, name: str, text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= _NUMBER_CHARS:
        return int(text)
    return cursor_of(run, text, name=name) or 0


WATCH = Resource(
    tag="Runs",
    group="runs",
    routes=(
        Route(
            "POST /watch",
            watch_runs,
            answer=answers.Event,
            hides_payload=True,
            example={"runs": [{"run_id": "01a20b3b-6c1f-7a8e-9b63-0242ac120002", "after": "-"}]},
        ),
        Route("GET /runs/{run_id}/events", list_events, answer=list[answers.LoggedEvent], errors=(404,)),
    ),
)
