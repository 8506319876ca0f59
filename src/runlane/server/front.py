"""What stands before the API: the path that it is mounted under, and the application's own routes and middleware."""

from __future__ import annotations

import orjson
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from runlane.agents.langgraph_json import GraphsFile
from runlane.agents.registry import import_object
from runlane.errors import ConfigurationError
from runlane.server.auth.middleware import AuthMiddleware
from runlane.server.config.http_section import HttpSection

#: What no application may take the place of.
RESERVED = frozenset({"/ok", "/metrics", "/docs", "/openapi.json"})


def custom_app(file: GraphsFile | None, section: HttpSection) -> Starlette | None:
    """Import the application that ``http.app`` names. Blocks; runs the user's code.

    Raises:
        ConfigurationError: It cannot be imported, or is no Starlette or FastAPI application.
    """
    if file is None or section.app is None:
        return None
    file.apply()
    found = import_object(file, "http.app", section.app)
    if not isinstance(found, Starlette):
        raise ConfigurationError(
            f"{file.path}: http.app {section.app!r} is a {type(found).__name__}; it must be a Starlette or FastAPI app."
        )
    return found


class Front:
    """Serves the API beside an application of the user's.

    The application's routes come first, its middleware wraps the API too, and what it has no route for is the API's.
    Its routes are open to all; with ``enable_custom_route_auth`` none is, whatever its path. With ``auth_first`` its
    middleware sees only requests of users who are known.
    """

    def __init__(self, api: Starlette, custom: Starlette | None, section: HttpSection) -> None:
        self._api = api
        self._custom = custom
        self._prefix = section.mount_prefix
        beside: ASGIApp = api
        if custom is not None:
            custom.router.default = api
            beside = custom
        auth_first = section.middleware_order == "auth_first" and custom is not None
        self._beside = AuthMiddleware(beside) if auth_first else beside
        self._own = AuthMiddleware(beside, exempt=frozenset()) if section.enable_custom_route_auth else beside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._api(scope, receive, send)
            return
        scope = {**scope, "app": self._api}
        path = scope["path"]
        if self._prefix:
            path = path.removeprefix(self._prefix)
            if path == scope["path"] or (path and not path.startswith("/")):
                await _not_here(self._prefix)(scope, receive, send)
                return
            scope["root_path"] = scope.get("root_path", "") + self._prefix
        if self._custom is None or path in RESERVED:
            await self._api(scope, receive, send)
        elif any(route.matches(scope)[0] is not Match.NONE for route in self._custom.routes):
            await self._own(scope, receive, send)
        else:
            await self._beside(scope, receive, send)


def _not_here(prefix: str) -> Response:
    body = orjson.dumps({"detail": f"Not Found: the API is mounted under {prefix}.", "code": "http"})
    return Response(body, 404, None, "application/json")
