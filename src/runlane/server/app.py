"""The application: routes, the table of errors, and what wraps every request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from runlane.agents.encode import Unserialisable
from runlane.agents.langgraph_json import read_graphs_file
from runlane.agents.registry import Registry
from runlane.errors import RunlaneError
from runlane.server.api import routes
from runlane.server.auth.loopback import in_process_clients
from runlane.server.auth.middleware import AuthMiddleware
from runlane.server.config.http_section import http_section
from runlane.server.front import Front, custom_app
from runlane.server.http.errors import on_error, on_http_error
from runlane.server.http.origin_middleware import OriginMiddleware
from runlane.server.http.response_middleware import ResponseMiddleware
from runlane.server.http.route import RouteTable
from runlane.server.routes import crons
from runlane.server.routes.metrics import Metrics, MetricsMiddleware
from runlane.server.service import open_service
from runlane.settings import Settings


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
        routes=[RouteTable(routes(section))],
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
