"""The event-streaming protocol over a WebSocket: commands and the events of subscriptions on one connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import orjson
from starlette.exceptions import HTTPException
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from runlane.errors import InvalidRequest, NotFound, RunlaneError, StoreUnavailable
from runlane.server.http.bounded_socket import FRAGMENT, FRAGMENTS
from runlane.server.http.errors import close_reason
from runlane.server.http.json_bodies import parse_json
from runlane.server.protocols.v2.commands import execute
from runlane.server.protocols.v2.events import Subscription, WireEvent, subscription
from runlane.server.protocols.v2.refusals import CommandRefused, refusal
from runlane.server.protocols.v2.thread import ThreadEvents
from runlane.server.routes.authorization import authorize, service_of

#: Subscriptions of one socket; a page has a few for each part of it.
MAX_SUBSCRIPTIONS: Final = 256
#: A status is told after the handshake, as a browser cannot read the status of a refused one: 4404 and so on.
_STATUS: Final = 4000
#: Close codes of the IANA's registry for WebSockets, all of which make clients connect again.
_FAILED, _RESTARTING, _TRY_AGAIN = 1011, 1012, 1013

log = logging.getLogger("runlane.protocol")


class _Incomplete(Exception):  # a way out of a message that cannot be ended
    pass


async def serve_socket(socket: WebSocket) -> None:
    """Serve one client of one thread until it leaves or the process closes."""
    await socket.accept()
    try:
        UUID(socket.path_params["thread_id"])
        await authorize(socket, "threads", "read", {"thread_id": socket.path_params["thread_id"]})
    except ValueError:
        await socket.close(_STATUS + 422, "Invalid thread ID: must be a UUID")
        return
    except HTTPException as error:
        await socket.close(_STATUS + error.status_code, close_reason(str(error.detail)))
        return
    session = Session(socket, str(UUID(socket.path_params["thread_id"])))
    try:
        await session.run()
    except WebSocketDisconnect:
        return
    finally:
        await session.aclose()


class Session:
    """One connection: its subscriptions, each a task that reads the thread for itself."""

    def __init__(self, socket: WebSocket, thread_id: str) -> None:
        self._socket = socket
        self._thread_id = thread_id
        self._sending = asyncio.Lock()
        self._subscriptions: dict[str, asyncio.Task[None]] = {}
        self._subscribed = self._sent_seq = 0

    async def run(self) -> None:
        """Execute commands one after the other.

        Raises:
            WebSocketDisconnect: The client left, or the socket was closed.
        """
        while self._socket.application_state is WebSocketState.CONNECTED:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            await self._execute(message.get("text") or message.get("bytes") or b"")

    async def aclose(self) -> None:
        """Stop all subscriptions; a second call does nothing."""
        tasks = list(self._subscriptions.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _execute(self, text: str | bytes) -> None:
        """Answer a command; what it starts tells nothing before, as sending is in the order of asking."""
        command_id, closes = None, False
        try:
            command_id, method, params = self._parsed(text)
            answer: dict[str, Any] = {"type": "success", "id": command_id, "result": await self._done(method, params)}
        except (CommandRefused, RunlaneError, HTTPException) as error:
            refused = error if isinstance(error, CommandRefused) else refusal(error)
            answer = {"type": "error", "id": command_id, "error": refused.code, "message": refused.message}
            closes = isinstance(error, NotFound) and method == "subscription.subscribe"
        await self._send(orjson.dumps({**answer, "meta": {"applied_through_seq": self._sent_seq}}))
        if closes:  # a client that only listens knows no other answer than the end of the connection
            await self._close(_STATUS + 404, answer["message"])

    def _parsed(self, text: str | bytes) -> tuple[int, str, Any]:
        raw = text.encode() if isinstance(text, str) else text
        if len(raw) > self._socket.app.state.settings.max_body_bytes:
            raise InvalidRequest("The command is larger than the server takes.")
        value = parse_json(raw, "command")
        if not isinstance(value, dict) or type(value.get("id")) is not int or not isinstance(value.get("method"), str):
            raise InvalidRequest("A command is an object with an 'id', a number, and a 'method'.")
        return value["id"], value["method"], value.get("params")

    async def _done(self, method: str, params: Any) -> Mapping[str, Any]:
        if method == "subscription.subscribe":
            return await self._subscribe(subscription(params))
        if method == "subscription.unsubscribe":
            return await self._unsubscribe(params)
        if method == "subscription.reconnect":
            raise CommandRefused("not_supported", "Subscribe again, with 'since' for what came after an event's 'seq'.")
        return await execute(self._socket, self._thread_id, method, params)

    async def _subscribe(self, wanted: Subscription) -> Mapping[str, Any]:
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise CommandRefused(
                "invalid_argument", f"A socket has at most {MAX_SUBSCRIPTIONS} subscriptions; drop some."
            )
        access = await authorize(self._socket, "threads", "read", {"thread_id": self._thread_id})
        service = service_of(self._socket)
        events = ThreadEvents(service.store, service.streams, self._thread_id, wanted, access=access, now=_now)
        await events.exists()
        self._subscribed += 1
        subscription_id = f"subscription-{self._subscribed}"
        self._subscriptions[subscription_id] = asyncio.ensure_future(self._pump(events))
        return {"subscription_id": subscription_id}

    async def _unsubscribe(self, params: Any) -> Mapping[str, Any]:
        subscription_id = params.get("subscription_id") if isinstance(params, dict) else None
        task = self._subscriptions.pop(subscription_id, None) if isinstance(subscription_id, str) else None
        if task is None:
            raise CommandRefused(
                "no_such_subscription", f"There is no subscription {subscription_id!r} on this socket."
            )
        async with self._sending:  # between messages, each of which has to be whole
            task.cancel()
        return {}

    async def _pump(self, events: ThreadEvents) -> None:
        """Send the events of one subscription until it is dropped or the process closes."""
        try:
            async with aclosing(events.batches()) as batches:
                async for batch in batches:
                    for event in batch:
                        await self._send_event(event)
                        self._sent_seq = max(self._sent_seq, event.seq)
            await self._close(_RESTARTING, "The server closes; connect again.")
        except NotFound as error:  # the thread was deleted, or is another owner's
            await self._close(_STATUS + 404, str(error))
        except _Incomplete:
            await self._close(_TRY_AGAIN, "The event was removed while it was sent; connect again.")
        except StoreUnavailable:
            await self._close(_TRY_AGAIN, "The ledger is unavailable; connect again.")
        except WebSocketDisconnect:
            return
        except Exception:  # the supervisor of this task: nobody awaits it
            log.exception("protocol.subscription_failed thread_id=%s", self._thread_id)
            await self._close(_FAILED, "Internal server error; the server's log has the cause.")

    async def _send_event(self, event: WireEvent) -> None:
        if event.large is None or FRAGMENTS not in self._socket.scope.get("extensions", {}):
            await self._send(await event.whole())
            return
        async with self._sending:
            begin, more = 0, True
            while more and self._socket.application_state is WebSocketState.CONNECTED:
                try:
                    data, more = await event.large.part(begin)
                except NotFound:
                    raise _Incomplete from None
                bounds = {"first": not begin, "last": not more}
                await self._socket.send({"type": "websocket.send", "bytes": data, FRAGMENT: bounds})
                begin += len(data)

    async def _send(self, text: bytes) -> None:
        async with self._sending:
            if self._socket.application_state is WebSocketState.CONNECTED:
                await self._socket.send_text(text.decode())

    async def _close(self, code: int, reason: str) -> None:
        async with self._sending:
            if self._socket.application_state is WebSocketState.CONNECTED:
                await self._socket.close(code, close_reason(reason))


def _now() -> datetime:
    return datetime.now(UTC)
