"""The application: routes, the table of errors, and what wraps every request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from runlane.agents.encode import Unserialisable
from runlane.agents.langgraph_json import read_graphs_file
from runlane.agents.registry import Registry
from runlane.errors import RunlaneError
from runlane.server.auth.handlers import secured
from runlane.server.auth.loopback import in_process_clients
from runlane.server.auth.middleware import AuthMiddleware
from runlane.server.config.http_section import HttpSection, http_section
from runlane.server.front import RESERVED, Front, custom_app
from runlane.server.http.errors import on_error, on_http_error
from runlane.server.http.origin_middleware import OriginMiddleware
from runlane.server.http.response_middleware import ResponseMiddleware
from runlane.server.protocols import a2a, mcp
from runlane.server.protocols import v2 as protocol
from runlane.server.routes import (
    assistants,
    batch,
    crons,
    items,
    metrics,
    runs,
    system,
    thread_extras,
    thread_stream,
    threads,
    webhooks,
)
from runlane.server.routes.metrics import Metrics, MetricsMiddleware
from runlane.server.routes.routing import direct, schemas
from runlane.server.service import open_service
from runlane.settings import Settings

#: The order in which routes are tried, each with the group that can be disabled: those of runs first, which are used
#: most; then fixed paths before those with ids in the same place.
ROUTED = (
    (runs, "runs"),
    (crons, "runs"),
    (batch, "runs"),
    (thread_stream, "threads"),
    (thread_extras, "threads"),
    (threads, "threads"),
    (assistants, "assistants"),
    (items, "store"),
    (protocol, "event_streaming"),
    (webhooks, "webhooks"),
    (mcp, "mcp"),
    (a2a, "a2a"),
    (metrics, "meta"),
    (system, ""),
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


def create_app(
    config: Path | None, settings: Settings, *, registry: Registry | None = None, loopback: bool = False
) -> Starlette:
    """Return the application for the graphs of *config* (a langgraph.json) or *registry*.

    Its lifespan opens the runtime; ``app.state.service`` is the :class:`~runlane.server.service.Service` meanwhile.
    Serve ``app.state.front``, which has the application's own routes and the path that all is mounted under, and
    refuses what pages of other origins may not send.

    Args:
        loopback: It is served on an address of this machine only.

    Raises:
        ConfigurationError: The section ``http`` cannot be honoured.
    """
    file = None if config is None else read_graphs_file(config)
    section = http_section(file)
    custom = custom_app(file, section)
    counts = Metrics()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.enter_context(in_process_clients(app))
            opened = open_service(config, settings, registry, custom, counts.observers)
            service = await stack.enter_async_context(opened)
            service.crons = await stack.enter_async_context(crons.scheduler_of(service, poll_s=settings.poll_s))
            service.section = section
            app.state.service = service
            if custom is not None:
                await stack.enter_async_context(custom.router.lifespan_context(custom))
            yield

    app = Starlette(
        routes=_routes(section),
        exception_handlers={RunlaneError: on_error, Unserialisable: on_error, HTTPException: on_http_error},
        middleware=[
            Middleware(MetricsMiddleware, metrics=counts),
            Middleware(ResponseMiddleware, cors=section.cors),
            Middleware(AuthMiddleware),
        ],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.settings, app.state.metrics, app.state.custom = settings, counts, custom
    front = app if custom is None and not section.mount_prefix else Front(app, custom, section)
    app.state.front = OriginMiddleware(
        front, app, section.cors, loopback=loopback, allowed_hosts=settings.allowed_hosts.split()
    )
    return app


def _routes(section: HttpSection) -> list[BaseRoute]:
    found = [route for module, group in ROUTED if group not in section.disabled for route in direct(module.router)]
    if section.disable_meta:
        return [route for route in found if getattr(route, "path", "") != "/info"]
    return [*found, Route("/openapi.json", _openapi), Route("/docs", system.docs)]


def openapi_document(section: HttpSection | None = None, custom: Starlette | None = None) -> dict[str, Any]:
    """Return the OpenAPI description of the routes that there are, those of *custom* too if it describes them."""
    described, groups = FastAPI(title="Runlane", version=version("runlane")), dict(ROUTED)
    for module in DOCUMENTED:
        if section is None or groups[module] not in section.disabled:
            described.include_router(module.router)
    document = described.openapi()
    found = document.setdefault("components", {}).setdefault("schemas", {})
    found.update(schemas())
    if isinstance(custom, FastAPI):
        own = custom.openapi()
        document["paths"] |= {path: item for path, item in own.get("paths", {}).items() if path not in RESERVED}
        document["components"]["schemas"] = {**own.get("components", {}).get("schemas", {}), **found}
    return document


async def _openapi(request: Request) -> Response:
    state = request.app.state
    if not hasattr(state, "openapi"):  # it takes a moment, and few ask
        section: HttpSection = state.service.section
        hidden = section.enable_custom_route_auth and state.service.authority is not None
        document = openapi_document(section, None if hidden else state.custom)
        state.openapi = orjson.dumps(secured(document, state.service.authority))
    return Response(state.openapi, media_type="application/json")
