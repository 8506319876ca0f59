"""The application: routes, the table of errors, and what wraps every request."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runlane.agents.encode import Unserialisable
from runlane.agents.registry import Registry
from runlane.errors import (
    AdmissionClosed,
    AlreadyExists,
    ConflictError,
    CronChanged,
    EmbeddingFailed,
    IllegalTransition,
    InvalidRequest,
    KeyReused,
    NotFound,
    RunlaneError,
    StoreUnavailable,
    ThreadChanged,
)
from runlane.server import (
    a2a,
    assistants,
    batch,
    crons,
    items,
    mcp,
    metrics,
    protocol,
    runs,
    system,
    thread_extras,
    thread_stream,
    threads,
    webhooks,
)
from runlane.server.auth import Gate
from runlane.server.requests import BadRequest, PayloadTooLarge
from runlane.server.routing import direct, schemas
from runlane.server.service import open_service
from runlane.settings import Settings

log = logging.getLogger("runlane.server")

#: The first class that fits decides; its texts are written for clients.
STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (PayloadTooLarge, 413),
    (BadRequest, 400),
    (InvalidRequest, 422),
    (NotFound, 404),
    (ConflictError, 409),
    (AlreadyExists, 409),
    (CronChanged, 409),
    (ThreadChanged, 409),
    (IllegalTransition, 409),
    (KeyReused, 409),
    (AdmissionClosed, 503),
    (StoreUnavailable, 503),
    (Unserialisable, 422),
    (EmbeddingFailed, 502),
)
RETRY_AFTER_S = "1"
#: The order in which routes are tried: fixed paths before those with ids in the same place, then the most used.
ROUTED = (
    crons,
    batch,
    thread_stream,
    thread_extras,
    runs,
    threads,
    assistants,
    items,
    protocol,
    webhooks,
    mcp,
    a2a,
    metrics,
    system,
)
DOCUMENTED = (
    system,
    metrics,
    assistants,
    threads,
    thread_extras,
    thread_stream,
    runs,
    batch,
    crons,
    items,
    webhooks,
    protocol,
    mcp,
    a2a,
)
EXPOSED = "content-location, location, x-pagination-total, x-pagination-next, runlane-ignored"


def create_app(config: Path | None, settings: Settings, *, registry: Registry | None = None) -> Starlette:
    """Return the application for the graphs of *config* (a langgraph.json) or *registry*.

    Its lifespan opens the runtime; ``app.state.service`` is the :class:`~runlane.server.service.Service` meanwhile.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            service = await stack.enter_async_context(open_service(config, settings, registry))
            service.crons = await stack.enter_async_context(crons.scheduler_of(service, poll_s=settings.poll_s))
            app.state.service = service
            yield

    app = Starlette(
        routes=[
            *(route for module in ROUTED for route in direct(module.router)),
            Route("/openapi.json", _openapi),
            Route("/docs", system.docs),
        ],
        exception_handlers={RunlaneError: _on_error, Unserialisable: _on_error, HTTPException: _on_http_error},
        middleware=[Middleware(Edge), Middleware(Gate)],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.settings = settings
    return app


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI description of all routes."""
    described = FastAPI(title="Runlane", version=version("runlane"))
    for module in DOCUMENTED:
        described.include_router(module.router)
    document = described.openapi()
    document.setdefault("components", {}).setdefault("schemas", {}).update(schemas())
    return document


async def _openapi(request: Request) -> Response:
    state = request.app.state
    if not hasattr(state, "openapi"):  # it takes a moment, and few ask
        state.openapi = orjson.dumps(openapi_document())
    return Response(state.openapi, media_type="application/json")


def _error(status: int, detail: str, code: str, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps({"detail": detail, "code": code}), status, headers, "application/json")


async def _on_error(request: Request, error: Exception) -> Response:
    for kind, status in STATUSES:
        if isinstance(error, kind):
            code = error.code if isinstance(error, RunlaneError) else "unserialisable"
            return _error(status, str(error), code, {"Retry-After": RETRY_AFTER_S} if status == 503 else None)
    return await _on_defect(request, error)


async def _on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail), "http", dict(error.headers or {}))


async def _on_defect(request: Request, error: Exception) -> Response:
    log.error("request.failed method=%s path=%s", request.method, request.url.path, exc_info=error)
    return _error(500, "Internal server error; the server's log has the cause.", "internal")


class Edge:
    """Wraps every request: CORS for any origin, the header that names ignored fields, and the answer to a defect.

    Source: Fetch standard, CORS protocol; private network access preflights are answered too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await _preflight(headers)(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        cross_origin, started = "origin" in headers, False

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if cross_origin:
                    found = MutableHeaders(scope=message)
                    found["access-control-allow-origin"] = "*"
                    found["access-control-expose-headers"] = EXPOSED
                if "ignored" in state:
                    MutableHeaders(scope=message)["runlane-ignored"] = _header_text(state["ignored"])
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception as error:  # supervisor: whatever a handler did, its client is told
            if started:
                raise
            await (await _on_defect(Request(scope), error))(scope, receive, send_on)


def _header_text(names: list[str]) -> str:
    """Return *names* in a form that a header can carry, however a client spelt them."""
    return ", ".join(name.encode("unicode_escape").decode() for name in names)[:1000].strip()


def _preflight(headers: Headers) -> Response:
    allowed = {
        "access-control-allow-origin": "*",
        "access-control-allow-methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
        "access-control-allow-headers": headers.get("access-control-request-headers", "*"),
        "access-control-max-age": "600",
    }
    if headers.get("access-control-request-private-network") == "true":
        allowed["access-control-allow-private-network"] = "true"
    return Response(status_code=200, headers=allowed)
