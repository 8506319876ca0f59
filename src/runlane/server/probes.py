"""The health and the numbers of a worker, which has no API: two paths for those that watch processes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

PATHS: Final = frozenset({"/ok", "/metrics"})


class Probes:
    """What *app* answers on :data:`PATHS`, and nothing else of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in PATHS:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            text = "A worker has no API. It answers GET /ok and GET /metrics.\n"
            await PlainTextResponse(text, status_code=404)(scope, receive, send)
        else:
            await send({"type": "websocket.close"})


@asynccontextmanager
async def answering(listener: socket.socket | None, new_server: Callable[[], uvicorn.Server]) -> AsyncIterator[None]:
    """Answer on *listener*, if there is one, until the block ends."""
    if listener is None:
        yield
        return
    server = new_server()
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving
