"""The official client without a URL, within a graph: its requests reach this server's API without a network.

A request is made in the name of the user whose run the graph executes, so that a graph sees and makes what its user
may. Outside of a run nobody is known, and the request is authenticated like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import httpx
from langgraph.config import get_config
from langgraph_sdk._async import client as async_client
from langgraph_sdk._shared import utilities
from langgraph_sdk.client import configure_loopback_transports
from starlette.authentication import AuthCredentials
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runlane.agents.users import USER_KEY, RunUser
from runlane.server.auth.access import User
from runlane.server.auth.middleware import USER

#: The server whose runs go on in this context: with several in a process, a graph calls its own.
_SERVING: Final[ContextVar[Loopback]] = ContextVar("runlane_serving")


class Loopback:
    """Calls *app* on the loop that it is served on, whichever loop the client is on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._loop = asyncio.get_running_loop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        made = {**scope, "root_path": "", **_authenticated()}
        theirs = asyncio.get_running_loop()
        if theirs is self._loop:
            await self._app(made, receive, send)
            return

        async def received() -> MutableMapping[str, Any]:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_received(receive), theirs))

        async def sent(message: Message) -> None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_sent(send, message), theirs))

        await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(_called(self._app, made, received, sent), self._loop)
        )


async def _received(receive: Receive) -> Message:
    return await receive()


async def _sent(send: Send, message: Message) -> None:
    await send(message)


async def _called(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def _authenticated() -> dict[str, Any]:
    """Return what the scope of a request has once its sender is known: the user of the run that goes on here."""
    try:
        found = get_config()["configurable"].get(USER_KEY)
    except (RuntimeError, KeyError):  # this is not a run
        return {}
    if not isinstance(found, RunUser):
        return {}
    user = User(found.identity, found.permissions, found)
    return {USER: user, "user": user, "auth": AuthCredentials(user.permissions)}


class _Connected(list[httpx.ASGITransport]):
    """Takes the place of the SDK's list of clients without a URL, and connects each as it is made."""

    def __init__(self, otherwise: Loopback) -> None:
        super().__init__()
        self._otherwise = otherwise

    def append(self, transport: httpx.ASGITransport) -> None:
        transport.app = self.call

    async def call(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the server of the run that goes on here; outside of a run, the one that began last."""
        await _SERVING.get(self._otherwise)(scope, receive, send)


@contextmanager
def in_process_clients(app: ASGIApp) -> Iterator[None]:
    """Connect the clients without a URL that there are, and those that are made meanwhile, to *app*.

    The SDK's own hook connects those that were made before, as when the graphs were imported; for those that nodes make
    it has none, but a list that it adds them to. Tasks that are started meanwhile belong to this server.
    """
    mine = Loopback(app)
    _SERVING.set(mine)
    ours = _Connected(mine)
    configure_loopback_transports(ours.call)
    before = utilities._registered_transports
    utilities._registered_transports = ours
    async_client._registered_transports = ours  # type: ignore[attr-defined]  # the same list, under the same name
    try:
        yield
    finally:
        if utilities._registered_transports is ours:
            utilities._registered_transports = before
            async_client._registered_transports = before  # type: ignore[attr-defined]  # as above
