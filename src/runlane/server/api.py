"""The API: every resource, which of its routes a project has, and the document that describes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from runlane.server.auth.handlers import secured
from runlane.server.config.http_section import HttpSection
from runlane.server.http.custom_app import RESERVED
from runlane.server.http.route import Resource, Route
from runlane.server.openapi import document, merged
from runlane.server.protocols.a2a.routes import A2A
from runlane.server.protocols.mcp import MCP
from runlane.server.protocols.v2.routes import PROTOCOL
from runlane.server.routes.assistants import ASSISTANTS
from runlane.server.routes.batch import BATCH
from runlane.server.routes.bulk import BULK
from runlane.server.routes.configuration import CONFIGURATION
from runlane.server.routes.console import CONSOLE
from runlane.server.routes.crons import CRONS
from runlane.server.routes.doctor import DOCTOR
from runlane.server.routes.explain import EXPLAIN
from runlane.server.routes.interrupts import INTERRUPTS
from runlane.server.routes.items import ITEMS
from runlane.server.routes.me import ME
from runlane.server.routes.metrics import METRICS
from runlane.server.routes.operators import OPERATORS
from runlane.server.routes.retries import RETRIES
from runlane.server.routes.run_logs import RUN_LOGS
from runlane.server.routes.run_search import RUN_SEARCH
from runlane.server.routes.runs import RUNS
from runlane.server.routes.saved_views import SAVED_VIEWS
from runlane.server.routes.system import HEALTH, META
from runlane.server.routes.thread_extras import THREAD_EXTRAS
from runlane.server.routes.thread_states import THREAD_STATES
from runlane.server.routes.thread_stream import THREAD_STREAM
from runlane.server.routes.threads import THREADS
from runlane.server.routes.totals import TOTALS
from runlane.server.routes.watch import WATCH
from runlane.server.routes.webhooks import WEBHOOKS
from runlane.server.routes.workers import WORKERS


async def _openapi(request: Request) -> Response:
    """Return this document."""
    state = request.app.state
    if not hasattr(state, "openapi"):  # it takes a moment, and few ask
        section: HttpSection = state.service.section
        hidden = section.enable_custom_route_auth and state.service.authority is not None
        described = None if hidden or state.custom is None else state.custom.openapi()
        found = openapi_document(section, described)
        state.openapi = orjson.dumps(secured(found, state.service.authority))
    return Response(state.openapi, media_type="application/json")


_DOCUMENT: Final = Resource(
    tag="System", group="meta", routes=(Route("GET /openapi.json", _openapi, public=True, documented=False),)
)
#: Everything that is served, in the order of the document.
RESOURCES: Final = (
    HEALTH,
    META,
    METRICS,
    ASSISTANTS,
    THREADS,
    THREAD_STATES,
    THREAD_EXTRAS,
    THREAD_STREAM,
    RUNS,
    RUN_SEARCH,
    WATCH,
    RUN_LOGS,
    EXPLAIN,
    RETRIES,
    INTERRUPTS,
    BATCH,
    BULK,
    CRONS,
    ITEMS,
    WEBHOOKS,
    ME,
    OPERATORS,
    SAVED_VIEWS,
    WORKERS,
    CONFIGURATION,
    DOCTOR,
    TOTALS,
    PROTOCOL,
    MCP,
    A2A,
    CONSOLE,
    _DOCUMENT,
)
#: Paths that need no authentication.
PUBLIC: Final = frozenset(route.path for resource in RESOURCES for route in resource.routes if route.public)


def resources(section: HttpSection) -> Iterator[Resource]:
    """Yield what *section* does not disable."""
    return (resource for resource in RESOURCES if resource.group not in section.disabled)


def routes(section: HttpSection) -> Iterator[Route]:
    """Yield the routes of what *section* does not disable."""
    return (route for resource in resources(section) for route in resource.routes)


def openapi_document(section: HttpSection | None = None, custom: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the OpenAPI document of the routes that there are.

    Args:
        custom: Document of the project's own application, whose routes are listed too.
    """
    found = document(resources(section or HttpSection()))
    return found if custom is None else merged(found, custom, without=RESERVED)
