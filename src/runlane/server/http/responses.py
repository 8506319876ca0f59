"""Responses: JSON in the wire's shapes, server-sent events, and long answers with heartbeats."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from runlane.agents.invocation import request_id
from runlane.agents.protocol_events import run_api_event
from runlane.errors import InvalidRequest, NotFound, StoreUnavailable
from runlane.records import (
    Assistant,
    CancelReceipt,
    RunError,
    RunRecord,
    StreamEnd,
    StreamEvent,
    StreamGap,
    StreamItem,
    Thread,
    Usage,
    WaitingOn,
)
from runlane.streams.batches import EventBatch, LargeEvent, LargePiece
from runlane.streams.budget import UNTAKEN_BYTES
from runlane.streams.watch import Streamed
from runlane.telemetry.prices import Prices, cost_of

log = logging.getLogger("runlane.server")

HEARTBEAT = b": heartbeat\r\n\r\n"
_CURSOR = re.compile(r"(\d{1,19})-(\d{1,19})\Z")
#: Values of ``Last-Event-ID`` that ask for everything.
FROM_START = frozenset({"-1", "0", "-"})


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")


def raw_json(data: bytes, headers: Mapping[str, str] | None = None) -> Response:
    return Response(data, 200, headers, "application/json")


def error_wire(error: RunError | None) -> dict[str, str] | None:
    return None if error is None else {"error": error.error, "message": error.message}


def assistant_wire(assistant: Assistant) -> dict[str, Any]:
    return {
        "assistant_id": assistant.assistant_id,
        "graph_id": assistant.graph_id,
        "config": assistant.config,
        "context": assistant.context,
        "metadata": assistant.metadata,
        "name": assistant.name,
        "description": assistant.description,
        "version": assistant.version,
        "created_at": assistant.created_at,
        "updated_at": assistant.updated_at,
    }


def thread_wire(thread: Thread) -> dict[str, Any]:
    return {
        "thread_id": thread.thread_id,
        "created_at": thread.created_at,
        "updated_at": thread.updated_at,
        "state_updated_at": thread.state_updated_at,
        "metadata": thread.metadata,
        "status": thread.status,
        "config": thread.config,
        "values": thread.values,
        "interrupts": thread.interrupts,
        "error": error_wire(thread.error),
    }


def ttl_wire(thread: Thread) -> dict[str, Any] | None:
    ttl = thread.ttl
    if ttl is None:
        return None
    return {"strategy": ttl.strategy, "ttl_minutes": ttl.ttl_s / 60, "expires_at": thread.expires_at}


def run_wire(run: RunRecord) -> dict[str, Any]:
    asked = run.stored.shown
    return {
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "assistant_id": run.assistant_id,
        "metadata": run.metadata,
        "status": run.status,
        "kwargs": {
            "input": orjson.Fragment(bytes(asked.input)),
            "command": asked.command,
            "config": _config_wire(run, asked.config or {}),
            "context": asked.context or asked.configurable,
            "stream_mode": asked.stream_mode,
            "interrupt_before": asked.interrupt_before,
            "interrupt_after": asked.interrupt_after,
            "webhook": run.webhook,
            "feedback_keys": None,
            "temporary": run.temporary,
            "subgraphs": asked.stream_subgraphs,
            "resumable": True,
            "checkpoint_during": asked.durability != "exit",
            "durability": asked.durability or "async",
        },
        "multitask_strategy": run.multitask_strategy,
        "created_at": max(run.created_at, run.not_before),
        "updated_at": run.updated_at,
        "end_reason": run.end_reason,
        "error": error_wire(run.error),
        "attempt": run.attempt,
        "model_name": run.model_name,
        "cancel": None if run.cancel is None else receipt_wire(run.cancel),
        "cancel_reason": None if run.cancel is None else run.cancel.reason,
        "usage": run.usage,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
    }


def _config_wire(run: RunRecord, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration as the run's graph finds it, but for its user."""
    ids = {
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "graph_id": run.graph_id,
        "assistant_id": run.assistant_id,
        "user_id": run.owner,
        "langgraph_auth_user_id": run.owner,
        "langgraph_request_id": request_id(run),
    }
    return {**config, "configurable": {**(config.get("configurable") or {}), **ids}, "metadata": run.metadata}


def cost_wire(prices: Prices, usage: Usage) -> dict[str, Any]:
    costs = prices.costs(usage.by_model)
    return {"cost": cost_of(costs), "cost_by_model": costs}


def waiting_wire(waiting: WaitingOn | None) -> dict[str, Any] | None:
    if waiting is None:
        return None
    found = {"reason": waiting.reason, "run_id": waiting.run_id, "until": waiting.until}
    return {name: value for name, value in found.items() if value is not None}


def receipt_wire(receipt: CancelReceipt) -> dict[str, Any]:
    return {
        "action": receipt.action,
        "reason": receipt.reason,
        "requested_by": receipt.requested_by,
        "source": receipt.source,
        "requested_at": receipt.requested_at,
        "observed_at": receipt.observed_at,
        "stopped_at": receipt.stopped_at,
        "blocked_at": receipt.blocked_at,
    }


def selected(
    value: dict[str, Any], select: Sequence[str] | None, *, legacy: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Return *value* with the *select*-ed keys only; those of *legacy* may be asked for beside its own.

    Raises:
        InvalidRequest: There is no such key.
    """
    if not select:
        return value
    known = {**legacy, **value}
    unknown = sorted(set(select) - known.keys())
    if unknown:
        raise InvalidRequest(f"Cannot select {', '.join(unknown)}; there are {', '.join(sorted(known))}.")
    return {name: known[name] for name in select}


def event_id(run: Streamed, seq: int) -> str:
    """Return the id of an event on the wire: its run's number and its own. Ids of one stream sort as text."""
    return f"{run.seq:010d}-{seq:08d}"


def cursor_of(run: Streamed, last_event_id: str | None, *, name: str = "Last-Event-ID") -> int | None:
    """Return the number after which a reader goes on; ``None`` without an id. *name* is what the client calls it.

    Raises:
        InvalidRequest: The id is malformed, or another run's.
    """
    if last_event_id is None or last_event_id == "":
        return None
    if last_event_id in FROM_START:
        return 0
    match = _CURSOR.match(last_event_id)
    if match is None or int(match[1]) != run.seq:
        raise InvalidRequest(f"{name} {last_event_id!r} is no id of this run's events; use '-1' for all of them.")
    return int(match[2])


def wire_name(name: str) -> str:
    """Return what clients call an event: accumulated messages have one name, whichever graph they come from."""
    return name.partition("|")[0] if name.startswith("messages/") else name


#: A piece of a body; a large one is made again for each part of it that is sent.
Piece = bytes | LargePiece


class EventWriter:
    """Turns items of one run's stream into frames, those of *modes* only; ``metadata``-less if modes are given."""

    def __init__(self, run: RunRecord, modes: Sequence[str] = ()) -> None:
        self._prefix = f"\r\nid: {run.seq:010d}-".encode()
        self._run = run
        self._names = frozenset("messages" if mode == "messages-tuple" else mode for mode in modes)

    def __call__(self, part: EventBatch | LargeEvent) -> Piece:
        """Return *part* as bytes, which readers of the same modes share; an empty one is a heartbeat."""
        kind = "run", self._names
        if isinstance(part, LargeEvent):
            return LargePiece(event=part, kind=kind, make=self._frames)
        return part.made(kind, self._frames) if part else HEARTBEAT

    def _frames(self, batch: EventBatch) -> bytes:
        shown = [run_api_event(self._run, item) if isinstance(item, StreamEvent) else item for item in batch]
        return b"".join([self._frame(item) for item in shown if item is not None and self._wanted(item)])

    def _wanted(self, item: StreamItem) -> bool:
        if not self._names or not isinstance(item, StreamEvent) or item.name == "error":
            return True
        return item.name.partition("|")[0].partition("/")[0] in self._names

    def _frame(self, item: StreamItem) -> bytes:
        if isinstance(item, StreamEvent):
            name = wire_name(item.name).encode()
            return b"event: %s\r\ndata: %s%s%08d\r\n\r\n" % (name, item.data, self._prefix, item.seq)
        if isinstance(item, StreamGap):
            return b'event: gap\r\ndata: {"resumes_at":"%s"}\r\n\r\n' % event_id(self._run, item.resumes_at).encode()
        return self._end(item)

    def _end(self, end: StreamEnd) -> bytes:
        data = orjson.dumps({"status": end.status, "end_reason": end.end_reason})
        return b"event: end\r\ndata: %s%s%08d\r\n\r\n" % (data, self._prefix, end.seq)


class Last(bytes):
    """The last piece of a body, which is sent together with its end."""


class _Removed(Exception):  # an outcome, not an error
    """The rest of a large event is not kept any more."""


class StreamingBody(Response):
    """An answer in pieces: status and headers at once, then what *pieces* yields.

    Only with a :class:`Last` is it whole. If *pieces* end without, as when the process closes, the connection is cut:
    nothing else tells a client that has a status already, and one that is told an end asks how the run is instead of
    reading on where it was.

    *on_leave* is awaited if the client goes away before the end. Source: ASGI 3, ``http.disconnect``.
    """

    def __init__(
        self,
        pieces: AsyncIterator[Piece],
        *,
        media_type: str,
        headers: Mapping[str, str],
        on_leave: Callable[[], Awaitable[None]] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._pieces = pieces
        self._on_leave = on_leave
        self._on_close = on_close
        self._raw_headers = [
            (b"content-type", media_type.encode()),
            *((k.encode(), v.encode()) for k, v in headers.items()),
        ]
        self.status_code = 200
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        me = asyncio.current_task()
        assert me is not None
        leaving, left = asyncio.ensure_future(_left(receive)), False

        def stop(_: asyncio.Future[None]) -> None:
            nonlocal left
            left = True
            me.cancel()

        leaving.add_done_callback(stop)
        try:
            await self._send(send)
        except asyncio.CancelledError:
            if not left or me.uncancel():
                raise
            if self._on_leave is not None:
                await self._on_leave()
        finally:
            leaving.remove_done_callback(stop)
            leaving.cancel()
            if self._on_close is not None:
                self._on_close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._raw_headers})
        out = _Connection(send)
        try:
            async for piece in self._pieces:
                if isinstance(piece, LargePiece):
                    await out.write_large(piece)
                elif isinstance(piece, Last):
                    await send({"type": "http.response.body", "body": piece, "more_body": False})
                    return
                else:
                    await out.write(piece)
                del piece  # the next one may be long in coming
                await out.taken()
        except _Removed:
            pass  # the client comes back with its last id, and is told
        except StoreUnavailable as error:
            log.warning("stream.broken_off why=%s", error)
        # Not whole: the server closes the connection of a response that was not completed.


class _Connection:
    """What a body is written to: never much more than the client takes."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._untaken = 0

    async def write(self, data: bytes) -> None:
        self._untaken += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def write_large(self, piece: LargePiece) -> None:
        begin, more = 0, True
        while more:
            await self.taken()
            try:
                data, more = await piece.part(begin)
            except NotFound:
                raise _Removed from None
            begin += len(data)
            await self.write(data)
            del data

    async def taken(self) -> None:
        """Wait until the connection has taken most of what was written; a little is not waited for.

        Source: uvicorn sends a message only when its connection is below the high-water mark.
        """
        if self._untaken >= UNTAKEN_BYTES:
            self._untaken = 0
            await self._send({"type": "http.response.body", "body": b"", "more_body": True})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


SSE_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
