"""The id of every request, and its record in the log once it was answered."""

from __future__ import annotations

import logging
import re
import time
from typing import Final
from urllib.parse import quote
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runlane.telemetry.context import REQUEST_ID

log = logging.getLogger("runlane.http")

#: Ids that are taken from clients and proxies; they are written into logs and rows as they are.
_SANE: Final = re.compile(rb"[A-Za-z0-9._~:/+=@,-]{1,128}")
_HEADER: Final = b"x-request-id"
#: What load balancers and Prometheus ask every few seconds; logged as DEBUG.
HEALTH_CHECKS: Final = ("/ok", "/metrics")


class AccessLogMiddleware:
    """Gives every request an id, its own ``X-Request-Id`` or a new one, and logs it when its answer is complete."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = _id_of(scope)
        token = REQUEST_ID.set(request_id)
        header, status, began_s = (_HEADER, request_id.encode("ascii")), 500, time.perf_counter()

        async def send_on(message: Message) -> None:
            nonlocal status
            kind = message["type"]
            if kind in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), header]
            elif kind == "websocket.accept":
                status = 101
            elif kind == "websocket.close" and status != 101:
                status = 403
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        finally:
            REQUEST_ID.reset(token)
            path = scope["path"]
            level = logging.DEBUG if path.endswith(HEALTH_CHECKS) and status < 400 else logging.INFO
            if log.isEnabledFor(level):
                _log(level, scope, status, time.perf_counter() - began_s, request_id)


def _id_of(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == _HEADER and _SANE.fullmatch(value):
            return str(value, "ascii")
    return str(uuid4())


def _log(level: int, scope: Scope, status: int, duration_s: float, request_id: str) -> None:
    """Log without the query, which may hold what it pleases."""
    method = scope.get("method", "WEBSOCKET")
    client = (scope.get("client") or ("-",))[0]
    log.log(
        level,
        "http.request method=%s path=%s status=%d duration_s=%s client=%s request_id=%s",
        method,
        quote(scope["path"]),
        status,
        round(duration_s, 4),
        client,
        request_id,
    )
