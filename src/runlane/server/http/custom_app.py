"""The project's own application beside the API: the key ``http.app`` of langgraph.json.

It is any ASGI application. One of Starlette's or FastAPI's says which routes it has: these come before the API's, its
middleware wraps the API too, and its routes are listed in the OpenAPI document. Any other gets the requests for which
the API has no route.

Source: ASGI specification 3.0, HTTP, WebSocket and lifespan protocols.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, runtime_checkable

import httpx
import orjson
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runlane.agents.langgraph_json import GraphsFile
from runlane.agents.registry import import_object
from runlane.errors import ConfigurationError
from runlane.server.config.http_section import HttpSection
from runlane.server.http.route import ROUTE
from runlane.webhooks.policy import Target
from runlane.webhooks.sender import WebhookResponse

#: Paths that no application may take over.
RESERVED: Final = frozenset({"/ok", "/metrics", "/docs", "/openapi.json"})
#: Stands for the paths of an application that does not say which routes it has.
ANY_PATH: Final = "http.app"
#: How long the application may take to answer a webhook.
POST_TIMEOUT_S: Final = 30.0
#: What the application sees as its own address; nothing resolves it.
_BASE_URL: Final = "http://localhost"

#: Wraps an application, such as to ask who calls it.
Guard = Callable[[ASGIApp], ASGIApp]


@runtime_checkable
class DescribesItself(Protocol):
    """An application with an OpenAPI document, as FastAPI's are."""

    def openapi(self) -> dict[str, Any]: ...


class CustomApp:
    """An application of the user's."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        #: ``None`` if it does not say which routes it has.
        self.routes: Sequence[BaseRoute] | None = app.routes if isinstance(app, Starlette) else None

    def openapi(self) -> Mapping[str, Any]:
        """Return the OpenAPI document of its routes: its own, or one with their methods and docstrings."""
        if isinstance(self.app, DescribesItself):
            return self.app.openapi()
        paths: dict[str, dict[str, Any]] = {}
        from starlette.schemas import SchemaGenerator  # noqa: PLC0415  # brings PyYAML, for such applications only

        for endpoint in SchemaGenerator({}).get_endpoints(list(self.routes or ())):
            text = inspect.cleandoc(endpoint.func.__doc__ or "")
            summary = text.partition("\n")[0] or endpoint.func.__name__.replace("_", " ").capitalize()
            described = {"summary": summary, "responses": {"200": {"description": "Done"}}}
            paths.setdefault(endpoint.path, {})[endpoint.http_method] = described
        return {"paths": paths}

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Start it on entering, and shut it down on leaving.

        Raises:
            ConfigurationError: It says that it cannot start.
        """
        if isinstance(self.app, Starlette):
            async with self.app.router.lifespan_context(self.app):
                yield
            return
        async with _lifespan(self.app):
            yield

    async def post(self, target: Target, headers: Sequence[tuple[str, str]], body: bytes) -> WebhookResponse:
        """Send a webhook to one of its routes, and to nothing else: the API asks who calls.

        Whatever goes wrong is part of the answer.
        """
        path = target.target.partition(b"?")[0].decode("ascii")
        scope: Scope = {"type": "http", "method": "POST", "path": path, "root_path": ""}
        if self.routes is not None and not _has_route(self.routes, scope, Match.FULL):
            return WebhookResponse(error="The project's own application takes no POST under this path.")
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=_BASE_URL) as client:
            try:
                async with asyncio.timeout(POST_TIMEOUT_S):
                    answer = await client.post(target.target.decode("ascii"), content=body, headers=list(headers))
            except TimeoutError:
                return WebhookResponse(error=f"There was no answer within {POST_TIMEOUT_S:g} s.")
        return WebhookResponse(
            status_code=answer.status_code, retry_after=answer.headers.get("retry-after", "")[:100] or None
        )


def load_custom_app(file: GraphsFile | None, section: HttpSection) -> CustomApp | None:
    """Import the application that ``http.app`` names. Blocks; runs the user's code.

    Raises:
        ConfigurationError: It cannot be imported, or is no ASGI application.
    """
    if file is None or section.app is None:
        return None
    file.apply()
    found = import_object(file, "http.app", section.app)
    if not _is_asgi(found):
        raise ConfigurationError(
            f"{file.path}: http.app {section.app!r} is a {type(found).__name__}; it must be an ASGI application: "
            "one of Starlette, FastAPI or another framework, or an async function of scope, receive and send."
        )
    return CustomApp(found)


def _is_asgi(found: object) -> bool:
    """Return whether *found* is an application of version 3 of ASGI; one of WSGI is not."""
    if isinstance(found, type):
        return False
    return callable(found) and (inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(found.__call__))


class CustomAppMiddleware:
    """Serves *custom* beside the API.

    An application that says which routes it has gets all requests, and passes on to the API those that it has no route
    for. Any other gets what the API has no route for.
    """

    def __init__(
        self,
        app: ASGIApp,
        custom: CustomApp,
        *,
        api: Starlette,
        counted: Guard,
        guard_routes: Guard | None,
        guard_all: Guard | None,
    ) -> None:
        """Args:
        api: Knows who is asked, and which routes the API has.
        counted: Wraps what the application's own routes are served by, and counts their requests.
        guard_routes: Wraps what the application's own routes are served by.
        guard_all: Wraps what reaches the API through the application's middleware.
        """
        self._app = app
        self._api = api
        self._routes = custom.routes
        self._own = counted(custom.app if guard_routes is None else guard_routes(custom.app))
        self._other = app
        if isinstance(custom.app, Starlette):
            custom.app.router.default = app
            self._other = custom.app if guard_all is None else guard_all(custom.app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or _route_path(scope) in RESERVED:
            await self._app(scope, receive, send)
            return
        path = self._own_path(scope)
        if path is None:
            await self._other({**scope, "app": self._api}, receive, send)
        else:
            await self._own({**scope, "app": self._api, ROUTE: path}, receive, send)

    def _own_path(self, scope: Scope) -> str | None:
        """Return the path of the application's own route that serves a request; ``None``: the API does."""
        if self._routes is None:
            return None if _has_route(self._api.routes, scope) else ANY_PATH
        for route in self._routes:
            if route.matches(scope)[0] is not Match.NONE:
                return str(getattr(route, "path", ANY_PATH))
        return None


class MountPrefixMiddleware:
    """Serves everything under a path, ``http.mount_prefix``, and nothing elsewhere."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            path = scope["path"].removeprefix(self._prefix)
            if path == scope["path"] or (path and not path.startswith("/")):
                await _not_here(self._prefix)(scope, receive, send)
                return
            scope = {**scope, "root_path": scope.get("root_path", "") + self._prefix}
        await self._app(scope, receive, send)


def _route_path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _has_route(routes: Sequence[BaseRoute], scope: Scope, least: Match = Match.PARTIAL) -> bool:
    return any(route.matches(scope)[0].value >= least.value for route in routes)


def _not_here(prefix: str) -> Response:
    body = orjson.dumps({"detail": f"Not Found: the API is mounted under {prefix}.", "code": "http"})
    return Response(body, 404, None, "application/json")


@asynccontextmanager
async def _lifespan(app: ASGIApp) -> AsyncIterator[None]:
    """Take *app* through the lifespan protocol; one that does not speak it is left alone."""
    said: asyncio.Queue[Message] = asyncio.Queue()
    heard: asyncio.Queue[Message] = asyncio.Queue()
    task = asyncio.create_task(_speak(app, said, heard), name="lifespan of http.app")
    try:
        await said.put({"type": "lifespan.startup"})
        started = await heard.get()
        if started["type"] == "lifespan.startup.failed":
            raise ConfigurationError(f"http.app does not start: {started.get('message') or 'it does not say why'}.")
        yield
        if started["type"] == "lifespan.startup.complete":
            await said.put({"type": "lifespan.shutdown"})
            await heard.get()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _speak(app: ASGIApp, said: asyncio.Queue[Message], heard: asyncio.Queue[Message]) -> None:
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
    try:
        await app(scope, said.get, heard.put)
    except Exception as error:  # noqa: BLE001 - an application that raises at once does not speak the protocol
        if said.empty():
            message = f"{type(error).__name__}: {error}"
            heard.put_nowait({"type": "lifespan.startup.failed", "message": message})
    finally:
        heard.put_nowait({"type": "lifespan.over"})
