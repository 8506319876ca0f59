"""One stream of events of many runs, for a page that shows them; and pages of what a run has streamed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import InvalidRequest
from runlane.records import RunRecord
from runlane.server.auth.access import Access
from runlane.server.http import answers
from runlane.server.http.payload import HIDES_PAYLOAD
from runlane.server.http.queries import QueryModel
from runlane.server.http.requests import Body, Limit, canonical_uuid
from runlane.server.http.responses import (
    HEARTBEAT,
    SSE_HEADERS,
    Last,
    Piece,
    StreamingBody,
    cursor_of,
    event_id,
    raw_json,
)
from runlane.server.http.route import Resource, Route
from runlane.server.http.stream_items import PLACE_CHARS, Cursor, ItemWriter
from runlane.server.routes.authorization import authorize, reach_run, reach_runs, service_of
from runlane.server.service import Service
from runlane.store.filters import contains
from runlane.store.transactions.run_states import RunState, StreamedRun
from runlane.streams.batches import EventBatch, LargePiece, ends
from runlane.streams.multiplex import Frame
from runlane.streams.watch import place_after

_BEGIN: Final = b"event: items\r\ndata: ["
#: Of a number that the ledger can compare.
_NUMBER_CHARS: Final = 18
#: Runs that one stream may have.
MAX_RUNS: Final = 200
#: Changes that one frame may have.
MAX_CHANGES: Final = 200
Id = Annotated[str, msgspec.Meta(max_length=64)]


class WatchedRun(Body):
    run_id: Id
    thread_id: Id | None = None
    after: Id | None = None


class RunsWatch(Body):
    runs: Annotated[tuple[WatchedRun, ...], msgspec.Meta(max_length=MAX_RUNS)] = ()
    changes: bool = False
    cursor: Annotated[str, msgspec.Meta(max_length=MAX_RUNS * PLACE_CHARS)] | None = None


async def watch_runs(request: Request, body: RunsWatch) -> StreamingBody:
    """Stream the events of many runs, and which runs change.

    A run is read after the event with the id ``after``; ``-`` is all of its events, and none is from now on.

    Each event of this stream is called ``items`` and has a JSON array of items: what there is, up to 64 KiB of data.
    Its id is the ``cursor`` with which another stream goes on, for the runs that it knows. An item is ``{"run_id",
    "id", "event", "data"}`` with the id that it has in the run's own stream; without ``data`` if the sender may not
    see payload. The last one of a run is ``end`` with ``{"status", "end_reason"}``. ``gap`` with ``{"resumes_at"}``
    means that retention has removed what came next; ``not_found``, that there is no such run.

    With ``changes``, ``changed`` with ``{"thread_id", "status", "end_reason", "updated_at"}`` is told of every run that
    the sender may read and that is admitted, starts, is handed back or ends after the first event of this stream;
    ``changes_missed``, which has no ``run_id``, means that there were too many. Without, it closes when all runs have
    ended.
    """
    service, wanted = service_of(request), _by_id(body.runs)
    if not wanted and not body.changes:
        raise InvalidRequest("There is nothing to watch: name 'runs', or ask for 'changes'.")
    known = Cursor(body.cursor)
    found = await reach_runs(request, list(wanted)) if wanted else []
    runs = [run for run in found if _is_on(run, wanted[run.run_id].thread_id)]
    cursor = await _places(service, runs, wanted, known)
    missing, hides = wanted.keys() - {run.run_id for run in runs}, bool(request.scope.get(HIDES_PAYLOAD))
    search: dict[str, Any] = {"metadata": {}}  # which the application's handler may narrow
    access = await authorize(request, "threads", "search", search) if body.changes else None
    reader = service.streams.multiplex({run: cursor.number(run.seq) for run in runs if not cursor.ended(run.seq)})
    changes = None if access is None else _Changes(service, access, search["metadata"], reader.wake)
    writers = {run.seq: ItemWriter(run, protocol=run.protocol, hides_payload=hides) for run in runs}
    frames = _Frames(
        reader.frames(go_on_without_runs=body.changes),
        writers,
        cursor,
        missing,
        changes,
        heartbeat_s=service.streams.heartbeat_s,
    )

    def close() -> None:
        reader.close()
        if changes is not None:
            changes.close()

    return StreamingBody(frames, media_type="text/event-stream; charset=utf-8", headers=SSE_HEADERS, on_close=close)


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


class _Changes:
    """Items of runs that change, as far as the sender may know of them."""

    def __init__(
        self, service: Service, access: Access, metadata: Mapping[str, Any], on_news: Callable[[], None]
    ) -> None:
        """Args:
        metadata: What the thread's metadata has to contain.
        """
        self._store = service.store
        self._access = access
        self._metadata = metadata
        self._feed = service.streams.changes
        self._reader = self._feed.join(access.reads, on_news)

    def close(self) -> None:
        """Be told of no more; a second call does nothing."""
        self._feed.leave(self._reader)

    async def items(self) -> list[bytes]:
        """Return what there is to tell, up to a frame."""
        items = [b'{"event":"changes_missed"}'] if self._reader.take_missed() else []
        return items + [_changed(run) for run in await self._permitted(self._reader.take(MAX_CHANGES))]

    async def _permitted(self, runs: Sequence[RunState]) -> Sequence[RunState]:
        if not runs or not (self._access.where or self._metadata):
            return runs
        threads = await self._store.threads.metadata({run.thread_id for run in runs})
        seen = {
            thread_id
            for thread_id, metadata in threads.items()
            if self._access.permits(metadata) and contains(metadata, self._metadata)
        }
        return [run for run in runs if run.thread_id in seen]


def _changed(run: RunState) -> bytes:
    data = {
        "thread_id": run.thread_id,
        "status": run.status,
        "end_reason": run.end_reason,
        "updated_at": run.updated_at,
    }
    return orjson.dumps({"run_id": run.run_id, "event": "changed", "data": data})


class _Frames:
    """The pieces of a stream of many runs. It is no generator, which would keep each piece until it has been taken."""

    def __init__(
        self,
        frames: AsyncIterator[Frame[StreamedRun]],
        writers: Mapping[int, ItemWriter],
        cursor: Cursor,
        missing: Iterable[str],
        changes: _Changes | None,
        *,
        heartbeat_s: float,
    ) -> None:
        """Args:
        writers: By the number of the run.
        missing: Ids of runs that were not found.
        """
        self._frames = frames
        self._writers = writers
        self._cursor = cursor
        self._changes = changes
        self._quiet_s = heartbeat_s / 2  # there is an empty frame after each ``heartbeat_s``, but not as exactly
        self._time = asyncio.get_running_loop().time
        self._quiet_since = self._time()
        self._pieces: deque[Piece] = deque()
        # Sent at once: it has the places of runs that are read from now on.
        told = [b'{"run_id":"%s","event":"not_found"}' % run_id.encode() for run_id in sorted(missing)]
        self._pieces.append(self._framed(told))

    def __aiter__(self) -> _Frames:
        return self

    async def __anext__(self) -> Piece:
        while not self._pieces:
            self._put([] if self._changes is None else await self._changes.items())
            if not self._pieces:
                try:
                    self._take(await anext(self._frames))
                except StopAsyncIteration:
                    if self._changes is not None or not all(map(self._cursor.ended, self._writers)):
                        raise  # the process closes
                    return Last(b"")
            if not self._pieces and self._time() - self._quiet_since >= self._quiet_s:
                self._pieces.append(HEARTBEAT)
        self._quiet_since = self._time()
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
            self._pieces.append(self._framed(items))

    def _framed(self, items: Sequence[bytes]) -> bytes:
        return _BEGIN + b",".join(items) + self._end()

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
