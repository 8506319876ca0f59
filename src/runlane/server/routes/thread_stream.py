"""The stream of a thread: the events of all its runs, and of its state."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Final, Literal

import orjson
from starlette.requests import Request

from runlane.agents.protocol_events import run_api_event
from runlane.errors import InvalidRequest, NotFound
from runlane.records import ANY_OWNER, RunRecord, StreamEnd, StreamEvent, Thread
from runlane.server.auth.access import Access
from runlane.server.http import answers
from runlane.server.http.queries import QueryModel
from runlane.server.http.responses import FROM_START, HEARTBEAT, SSE_HEADERS, Last, Piece, StreamingBody, wire_name
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import reach_thread, service_of
from runlane.server.service import Service
from runlane.streams.batches import EventBatch, LargeEvent, LargePiece
from runlane.streams.threads import START, Position, newest_position, past, read_thread, start_of, state_of

ThreadStreamMode = Literal["run_modes", "lifecycle", "state_update"]
_POSITION: Final = re.compile(r"(\d{1,18})-(\d{1,18})\Z")


class ThreadStreamQuery(QueryModel):
    stream_mode: tuple[ThreadStreamMode, ...] = ()
    stream_modes: tuple[ThreadStreamMode, ...] = ()


async def join_thread(request: Request, query: ThreadStreamQuery) -> StreamingBody:
    """Stream the events of all the thread's runs, after ``Last-Event-ID`` or from now on, until the client leaves."""
    service = service_of(request)
    modes = frozenset([*query.stream_mode, *query.stream_modes] or ["run_modes"])
    access, thread = await reach_thread(request, "read")
    after = _position(request.headers.get("last-event-id"))
    if after is None:
        after = await newest_position(service.store, thread)
    return StreamingBody(
        _ThreadReader(service, access, thread.thread_id, modes, after).pieces(),
        media_type="text/event-stream; charset=utf-8",
        headers=SSE_HEADERS,
    )


def _position(last_event_id: str | None) -> Position | None:
    if not last_event_id:
        return None
    if last_event_id in FROM_START:
        return START
    match = _POSITION.match(last_event_id)
    if match is None:
        raise InvalidRequest(
            f"Last-Event-ID {last_event_id!r} is no id of a thread's stream; use '-' for all that is retained."
        )
    return Position(*(int(part) for part in match.groups()))


def _frame(name: str, data: bytes, at: Position) -> bytes:
    """Return an event whose id says where its reader goes on; ids of one stream never repeat, and sort as text."""
    return b"event: %s\r\ndata: %s\r\nid: %012d-%08d\r\n\r\n" % (name.encode(), data, at.order, at.seq)


class _ThreadReader:
    """One reader of a thread's stream."""

    def __init__(
        self, service: Service, access: Access, thread_id: str, modes: frozenset[str], after: Position
    ) -> None:
        self._service = service
        self._thread_id = thread_id
        self._modes = modes
        self._after = after
        self._access = access
        self._reading: str | None = None
        self._quiet_since = asyncio.get_running_loop().time()
        self._known_state = START

    async def pieces(self) -> AsyncIterator[Piece]:
        streams, store = self._service.streams, self._service.store
        yield HEARTBEAT
        with streams.thread_news(self._thread_id) as news:
            async for found in read_thread(streams, store, self._thread_id, self._after, news):
                if found is None or found[0].run_id != self._reading:
                    still = await self._thread()
                    if still is None:
                        yield Last(b"")
                        return
                    thread = still
                data: Piece
                if found is not None:
                    self._reading = found[0].run_id
                    data = self._run_piece(*found)
                else:
                    data = await self._state_frame(thread) or await self._wait(news)
                if data := data or self._heartbeat_if_quiet():
                    self._quiet_since = asyncio.get_running_loop().time()
                    yield data

    async def _thread(self) -> Thread | None:
        """Return the thread, or ``None`` if it was deleted, or created again by somebody else."""
        try:
            thread = await self._service.store.threads.get(self._thread_id, owner=ANY_OWNER, with_values=False)
        except NotFound:
            return None
        return thread if self._access.sees(thread) else None

    def _heartbeat_if_quiet(self) -> bytes:
        quiet_s = asyncio.get_running_loop().time() - self._quiet_since
        return HEARTBEAT if quiet_s >= self._service.streams.heartbeat_s else b""

    async def _wait(self, news: asyncio.Event) -> bytes:
        try:
            async with asyncio.timeout(self._service.streams.heartbeat_s):
                await news.wait()
        except TimeoutError:
            return HEARTBEAT
        return b""

    def _run_piece(self, run: RunRecord, part: EventBatch | LargeEvent) -> Piece:
        kind, make = ("thread", self._modes), partial(self._run_frames, run)
        if isinstance(part, LargeEvent):
            return LargePiece(event=part, kind=kind, make=make)
        return part.made(kind, make) if part else HEARTBEAT

    def _run_frames(self, run: RunRecord, batch: EventBatch) -> bytes:
        order, frames = start_of(run).order, []
        for logged in batch:
            item = run_api_event(run, logged) if isinstance(logged, StreamEvent) else logged
            if item is None:
                continue
            if isinstance(item, StreamEvent):
                if "run_modes" in self._modes or (item.name == "metadata" and "lifecycle" in self._modes):
                    frames.append(_frame(wire_name(item.name), item.data, Position(order, item.seq)))
            elif self._modes & {"run_modes", "lifecycle"}:
                if isinstance(item, StreamEnd):
                    done = orjson.dumps({"status": "run_done", "run_id": run.run_id})
                    frames.append(_frame("metadata", done, past(run)))
                else:
                    frames.append(b'event: gap\r\ndata: {"run_id":"%s"}\r\n\r\n' % run.run_id.encode())
        return b"".join(frames)

    async def _state_frame(self, thread: Thread) -> bytes:
        """Return the newest state as an event, if it was written outside of a run and has not been told."""
        at, service = state_of(thread), self._service
        graph_id = service.graph_of(thread)
        if "state_update" not in self._modes or at <= max(self._after, self._known_state) or graph_id is None:
            return b""
        self._known_state = at
        states, saver = await service.states_of(thread.owner, thread, graph_id), service.saver
        state = orjson.loads(await service.on_agents(lambda: states.get(graph_id, saver, thread.thread_id, None)))
        if (state["metadata"] or {}).get("source") != "update":
            return b""  # a run wrote it, which is told by the run's own events
        return _frame("state_update", orjson.dumps({"state": state, "thread_id": thread.thread_id}), at)


THREAD_STREAM = Resource(
    tag="Threads",
    group="threads",
    routes=(Route("GET /threads/{thread_id}/stream", join_thread, answer=answers.Event, errors=(404,)),),
)
