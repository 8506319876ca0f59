"""Authentication before every route: who sends a request, and whether they are still known while it goes on."""

from __future__ import annotations

import asyncio
import logging
import time
from http import HTTPStatus
from typing import Final, cast

from starlette.authentication import AuthCredentials
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runlane.errors import InvalidRequest, StoreUnavailable
from runlane.server.auth.access import Authority, User
from runlane.server.auth.acts import Refusals, act_of_request
from runlane.server.auth.grants import Grant, Grants
from runlane.server.http.errors import close_reason, error_response
from runlane.server.http.json_bodies import EncodedBody, PayloadTooLarge
from runlane.server.http.payload import HIDES_PAYLOAD
from runlane.server.http.route import ROUTE
from runlane.store.ledger import RunStore
from runlane.store.resources.audit import Audit
from runlane.store.transactions.audit import USED_EVERY_S

log = logging.getLogger("runlane.auth")

#: Where a request has its :class:`User`; ``user`` beside it may be replaced by an application's middleware.
USER: Final = "runlane.user"
#: Where a request has the ids of the acts that the audit has of it.
ACTS: Final = "runlane.acts"
#: Where a request has what its act came to, beside its status.
RESULT: Final = "runlane.result"
#: With ``omit`` an operator who may see payload asks for an answer without it, which is not recorded.
PAYLOAD_HEADER: Final = "runlane-payload"
#: A socket is closed with this and an HTTP status, as a page cannot read the status of a handshake.
SOCKET_STATUS: Final = 4000


class AuthMiddleware:
    """Lets nothing through to a route, known or not, that the process's authority does not know the sender of.

    What goes on after that, a stream or a socket, ends when its sender is not known any more.

    Args:
        exempt: Paths that anybody may ask.
    """

    def __init__(self, app: ASGIApp, *, exempt: frozenset[str]) -> None:
        self._app = app
        self._exempt = exempt
        self._used: dict[str, float] = {}
        self._refusals = Refusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        authority = _authority(scope, self._exempt) if scope["type"] in ("http", "websocket") else None
        if authority is None or USER in scope:
            await self._app(scope, receive, send)
            return
        asked = dict(scope)  # as it came, for a later time: routing changes it
        received = _Received(receive, scope["app"].state.settings.max_body_bytes) if authority.reads_body else None
        try:
            user = await authority.authenticate(_connection(scope, receive, received))
        except HTTPException as error:
            await _refuse(scope, receive, send, error)
            return
        except InvalidRequest as error:  # the body that the handler wanted to see
            status = 413 if isinstance(error, PayloadTooLarge) else 415 if isinstance(error, EncodedBody) else 422
            await _refuse(scope, receive, send, HTTPException(status, str(error)))
            return
        scope[USER] = scope["user"] = user
        scope["auth"] = AuthCredentials(user.permissions)
        if user.key_id is not None:
            await self._record_use(user.key_id, scope["app"].state.service.store)
        if user.scopes:
            scope[HIDES_PAYLOAD] = not user.sees_payload or HTTPConnection(scope).headers.get(PAYLOAD_HEADER) == "omit"
            send = self._recording(scope, user, send)
        grants: Grants = scope["app"].state.service.grants
        with grants.held(user, lambda: authority.authenticate(_connection(asked, receive, received))) as grant:
            await self._admitted(scope, receive if received is None else received.reader(), send, grant)

    async def _record_use(self, key_id: str, store: RunStore) -> None:
        """Record that a key is in use, unless this process has done so within the hour."""
        now = time.monotonic()
        if now < self._used.get(key_id, 0.0):
            return
        self._used[key_id] = now + USED_EVERY_S
        try:
            await store.audit.key_used(key_id)
        except StoreUnavailable:
            del self._used[key_id]  # the next request tries again

    def _recording(self, scope: Scope, user: User, send: Send) -> Send:
        """Return *send*, which records the status of an operator's request in the audit before it is sent."""

        async def recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                audit: Audit = scope["app"].state.service.store.audit
                try:
                    for act in scope.get(ACTS) or await self._refused(scope, user, message["status"], audit):
                        await audit.complete(act, message["status"], scope.get(RESULT))
                except StoreUnavailable as error:  # what was done stays recorded, without its result
                    log.warning("audit.result_not_recorded actor=%s why=%s", user.identity, error)
            await send(message)

        return recorded

    async def _refused(self, scope: Scope, user: User, status: int, audit: Audit) -> list[str]:
        """Record that a request was refused, unless others like it were lately; return the id of the record."""
        if status != HTTPStatus.FORBIDDEN:
            return []
        count = self._refusals.count(user.identity, scope.get(ROUTE, ""))
        if count is None:
            return []
        return [await audit.record(act_of_request(HTTPConnection(scope), user, "refused", {"count": str(count)}))]

    async def _admitted(self, scope: Scope, receive: Receive, send: Send, grant: Grant) -> None:
        wire = _Wire(receive, send, grant)
        checked = wire.receive if scope["type"] == "websocket" else receive
        try:
            await self._app(scope, checked, wire.send)
        except asyncio.CancelledError:
            if grant.over is None or grant.task.uncancel():
                raise
        if scope["type"] == "websocket":
            await wire.close()  # an answer that is not whole is cut by the server


def _connection(scope: Scope, receive: Receive, received: _Received | None) -> HTTPConnection:
    if scope["type"] != "http":
        return HTTPConnection(scope)
    return Request(scope, receive if received is None else received.reader())


def _authority(scope: Scope, exempt: frozenset[str]) -> Authority | None:
    if isinstance(scope.get("user"), User):
        return None  # known already: the application beside the API has asked before
    authority = cast(Authority | None, scope["app"].state.service.authority)
    if authority is None:
        return None
    path = scope["path"].removeprefix(scope.get("root_path", "")).removesuffix("/") or "/"
    return None if path in exempt else authority


class _Wire:
    """The application's ``send`` and ``receive`` while its grant is valid."""

    def __init__(self, receive: Receive, send: Send, grant: Grant) -> None:
        self._receive = receive
        self._send = send
        self._grant = grant
        self._closed = False

    async def receive(self) -> Message:
        """Return what a socket's client says; every message of theirs is a request, and authenticated as one."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._closed = True
        elif message["type"] == "websocket.receive" and self._grant.over is None:
            try:
                await self._grant.confirm()
            except HTTPException as error:
                self._grant.over = error.status_code
        if self._grant.over is not None:
            return {"type": "websocket.disconnect", "code": SOCKET_STATUS + self._grant.over}
        return message

    async def send(self, message: Message) -> None:
        """Pass *message* on, unless the sender is not known any more."""
        if self._grant.over is not None:
            return
        self._grant.open = True
        self._closed = self._closed or message["type"] == "websocket.close"
        await self._send(message)

    async def close(self) -> None:
        """Tell a socket's client why it is over, if it is and they are there."""
        if self._grant.over is not None and not self._closed:
            reason = "Not authenticated any more."
            await self._send({"type": "websocket.close", "code": SOCKET_STATUS + self._grant.over, "reason": reason})


class _Received:
    """A request's body, read by the authentication and again by the route."""

    def __init__(self, receive: Receive, limit_bytes: int) -> None:
        self._receive = receive
        self._limit_bytes = limit_bytes
        self._size = 0
        self._messages: list[Message] = []

    def reader(self) -> Receive:
        """Return a way to receive all of the request, from its beginning."""
        position = 0

        async def read() -> Message:
            nonlocal position
            if position == len(self._messages):
                await self._take()
            position += 1
            return self._messages[position - 1]

        return read

    async def _take(self) -> None:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > self._limit_bytes:
            raise PayloadTooLarge(self._limit_bytes)
        self._messages.append(message)


async def _refuse(scope: Scope, receive: Receive, send: Send, error: HTTPException) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        reason = close_reason(str(error.detail))
        await send({"type": "websocket.close", "code": SOCKET_STATUS + error.status_code, "reason": reason})
        return
    answer = error_response(error.status_code, str(error.detail), "http", dict(error.headers or {}))
    await answer(scope, receive, send)
