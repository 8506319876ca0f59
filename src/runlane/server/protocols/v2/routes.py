"""Routes of the event-streaming protocol: commands, and events over SSE; the socket is its own module."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import InvalidRequest, NotFound
from runlane.server.http import answers
from runlane.server.http.json_bodies import read_json
from runlane.server.http.requests import RUN_EXAMPLE, BadRequest, Body, ignore, path_uuid
from runlane.server.http.responses import HEARTBEAT, SSE_HEADERS, Last, Piece, StreamingBody, json_response
from runlane.server.http.route import Resource, Route
from runlane.server.protocols.v2.commands import InputRespond, RunStart, StateFork, execute
from runlane.server.protocols.v2.events import Subscription, WireEvent, subscription
from runlane.server.protocols.v2.inspection import GetTree, ListCheckpoints, StateGet
from runlane.server.protocols.v2.refusals import CommandRefused
from runlane.server.protocols.v2.socket import serve_socket
from runlane.server.protocols.v2.thread import ThreadEvents
from runlane.server.routes.authorization import authorize, service_of
from runlane.streams.batches import LargePiece

#: A heartbeat is due after this part of its time: timers are not exact.
_NEARLY = 0.9


class ProtocolCommand(Body):
    """A command and its parameters."""

    id: Annotated[int, msgspec.Meta(ge=0)]
    method: str
    params: Any = None


async def post_command(request: Request) -> Response:
    """Execute one command of the event-streaming protocol; what cannot be done is answered with 200 and an error."""
    value = await _object(request, ProtocolCommand)
    command_id, method = value.get("id"), value.get("method")
    if type(command_id) is not int or command_id < 0:
        raise BadRequest("'id' is required: a number of the client's own that is not negative.")
    if not isinstance(method, str):
        raise BadRequest("'method' is required: the name of a command.")
    try:
        result = await execute(request, path_uuid(request, "thread"), method, value.get("params"))
    except CommandRefused as refused:
        return json_response({"type": "error", "id": command_id, "error": refused.code, "message": refused.message})
    meta = {"applied_through_seq": 0}
    return json_response({"type": "success", "id": command_id, "result": result, "meta": meta})


async def stream_events(request: Request) -> StreamingBody:
    """Stream the events of all runs of a thread that match a filter, from the first that is kept on, without end."""
    value = await _object(request, Subscription)
    try:
        wanted = subscription(value)
    except InvalidRequest as error:
        raise BadRequest(str(error)) from None
    service, thread_id = service_of(request), path_uuid(request, "thread")
    access = await authorize(request, "threads", "read", {"thread_id": thread_id})
    events = ThreadEvents(service.store, service.streams, thread_id, wanted, access=access, now=_now)
    await events.exists()
    return StreamingBody(
        _frames(events, service.streams.heartbeat_s), media_type="text/event-stream; charset=utf-8", headers=SSE_HEADERS
    )


async def _object(request: Request, model: type[Body]) -> dict[str, Any]:
    """Return the body, an object like *model*; 400 rather than 422 is what clients of the protocol know."""
    try:
        value = await read_json(request, request.app.state.settings.max_body_bytes)
    except InvalidRequest as error:
        if type(error) is InvalidRequest:
            raise BadRequest(str(error)) from None
        raise
    if not isinstance(value, dict):
        raise BadRequest(f"The body must be a JSON object, not {type(value).__name__}.")
    ignore(request, value.keys() - model.__struct_encode_fields__, "fields")
    return value


async def _frames(events: ThreadEvents, heartbeat_s: float) -> AsyncIterator[Piece]:
    """Yield events as server-sent ones, and a heartbeat whenever nothing else was sent for long."""
    yield HEARTBEAT
    loop = asyncio.get_running_loop()
    spoken_at = loop.time()
    try:
        async with aclosing(events.batches()) as batches:
            async for batch in batches:
                if batch:
                    small = b"".join([_frame(event, event.text) for event in batch if event.large is None])
                    if small:
                        yield small
                    for event in batch:
                        if event.large is not None:  # it is the only one
                            yield _large_frame(event, event.large)
                elif loop.time() - spoken_at < heartbeat_s * _NEARLY:
                    continue
                else:
                    yield HEARTBEAT
                spoken_at = loop.time()
    except NotFound as error:  # the thread was deleted meanwhile
        text = orjson.dumps({"type": "error", "id": None, "error": "no_such_thread", "message": str(error)})
        yield Last(b"event: error\r\ndata: %s\r\n\r\n" % text)


def _frame(event: WireEvent, text: bytes) -> bytes:
    return b"event: %s\r\ndata: %s\r\nid: %d\r\n\r\n" % (event.method.encode(), text, event.seq)


def _large_frame(event: WireEvent, large: LargePiece) -> LargePiece:
    return replace(large, kind=stream_events, make=lambda batch: _frame(event, large.make(batch)))


def _now() -> datetime:
    return datetime.now(UTC)


PROTOCOL = Resource(
    tag="Protocol",
    group="event_streaming",
    models=(RunStart, InputRespond, StateFork, GetTree, StateGet, ListCheckpoints),
    routes=(
        Route("WS /threads/{thread_id}/stream/events", serve_socket),
        Route(
            "POST /threads/{thread_id}/commands",
            post_command,
            answer=answers.CommandAnswer,
            errors=(400, 404),
            reads=ProtocolCommand,
            example={"id": 1, "method": "run.start", "params": RUN_EXAMPLE},
        ),
        Route(
            "POST /threads/{thread_id}/stream/events",
            stream_events,
            answer=answers.Event,
            errors=(400, 404),
            reads=Subscription,
            example={"channels": ["values"]},
        ),
    ),
)
