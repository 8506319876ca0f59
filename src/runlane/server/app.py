"""The application: routes, the table of errors, and what wraps every request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from runlane.agents.encode import Unserialisable
from runlane.agents.langgraph_json import read_graphs_file
from runlane.agents.registry import Registry
from runlane.errors import RunlaneError
from runlane.server.api import PUBLIC, routes
from runlane.server.auth.loopback import in_process_clients
from runlane.server.auth.middleware import AuthMiddleware
from runlane.server.config.http_section import HttpSection, http_section
from runlane.server.http.access_log import AccessLogMiddleware
from runlane.server.http.custom_app import CustomApp, CustomAppMiddleware, MountPrefixMiddleware, load_custom_app
from runlane.server.http.errors import on_error, on_http_error
from runlane.server.http.origin_middleware import OriginMiddleware
from runlane.server.http.response_middleware import ResponseMiddleware
from runlane.server.http.route import RouteTable
from runlane.server.routes.cron_runs import scheduler_of
from runlane.server.routes.metrics import Metrics, MetricsMiddleware
from runlane.server.startup import open_service
from runlane.settings import Settings
from runlane.telemetry.prices import load_prices


def create_app(
    config: Path | None, settings: Settings, *, registry: Registry | None = None, loopback: bool = False
) -> Starlette:
    """Return the application for the graphs of *config* (a langgraph.json) or *registry*.

    Its lifespan opens the runtime; ``app.state.service`` is the :class:`~runlane.server.service.Service` meanwhile.
    Serve ``app.state.front``: it has the project's own application beside the API, and what comes before both.

    Args:
        loopback: It is served on an address of this machine only.

    Raises:
        ConfigurationError: The section ``http`` cannot be honoured.
    """
    file = None if config is None else read_graphs_file(config)
    section = http_section(file)
    custom = load_custom_app(file, section)
    counts = Metrics(load_prices(settings.prices))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.enter_context(in_process_clients(app))
            service = await stack.enter_async_context(
                open_service(
                    config,
                    settings,
                    registry,
                    section=section,
                    post_locally=None if custom is None else custom.post,
                    observers=counts.observers,
                )
            )
            app.state.service = service
            app.state.crons = await stack.enter_async_context(scheduler_of(service, poll_s=settings.poll_s))
            if custom is not None:
                await stack.enter_async_context(custom.lifespan())
            yield

    app = Starlette(
        routes=[RouteTable(routes(section))],
        exception_handlers={RunlaneError: on_error, Unserialisable: on_error, HTTPException: on_http_error},
        middleware=[
            Middleware(MetricsMiddleware, metrics=counts),
            Middleware(ResponseMiddleware, cors=section.cors),
            Middleware(AuthMiddleware, exempt=PUBLIC),
        ],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.settings = settings
    app.state.metrics = counts
    app.state.custom = custom
    app.state.front = _wrapped(app, _before_the_api(app, section, settings, custom, loopback=loopback))
    return app


def _before_the_api(
    app: Starlette, section: HttpSection, settings: Settings, custom: CustomApp | None, *, loopback: bool
) -> list[Middleware]:
    """Return what wraps the API and the project's own application alike, the outermost first."""
    found = [
        Middleware(AccessLogMiddleware),
        Middleware(
            OriginMiddleware,
            api=app,
            cors=section.cors,
            loopback=loopback,
            allowed_hosts=settings.allowed_hosts.split(),
        ),
    ]
    if section.mount_prefix:
        found.append(Middleware(MountPrefixMiddleware, prefix=section.mount_prefix))
    if custom is not None:
        found.append(
            Middleware(
                CustomAppMiddleware,
                custom=custom,
                counted=partial(MetricsMiddleware, metrics=app.state.metrics),
                api=app,
                guard_routes=_guard_routes if section.enable_custom_route_auth else None,
                guard_all=partial(AuthMiddleware, exempt=PUBLIC) if section.middleware_order == "auth_first" else None,
            )
        )
    return found


def _guard_routes(app: ASGIApp) -> ASGIApp:
    """Ask who calls routes of the project's own application, whatever their paths."""
    return AuthMiddleware(app, exempt=frozenset())


def _wrapped(app: ASGIApp, middleware: list[Middleware]) -> ASGIApp:
    for kind, args, kwargs in reversed(middleware):
        app = kind(app, *args, **kwargs)
    return app
