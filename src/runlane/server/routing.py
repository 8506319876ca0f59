"""How a resource declares its routes: handlers of a request, documented by their body's model."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runlane.records import NO_OWNER
from runlane.server.requests import Body
from runlane.server.service import Service

Handler = Callable[[Request], Awaitable[Any]]
REF = "#/components/schemas/{name}"
ERROR = {"content": {"application/json": {"schema": {"$ref": REF.format(name="Error")}}}}


def service_of(request: Request) -> Service:
    return cast(Service, request.app.state.service)


def owner_of(request: Request) -> str:
    """Return whose things the request is about; there is one owner until authentication names others."""
    return NO_OWNER


def direct(router: APIRouter) -> list[Route]:
    """Return the plain routes of *router*: what serves, while FastAPI's twins are what is documented.

    FastAPI resolves dependencies around every handler, of which ours have none; that costs more than admitting a run.
    """
    found: list[Route] = vars(router).setdefault("direct_routes", [])
    return found


def route(
    router: APIRouter,
    method: str,
    path: str,
    *,
    body: type[Body] | None = None,
    summary: str = "",
    statuses: tuple[int, ...] = (),
) -> Callable[[Handler], Handler]:
    """Register a handler; *statuses* are the error statuses beside 422 and 503."""

    def register(handler: Handler) -> Handler:
        extra: dict[str, Any] = {"parameters": [_path_parameter(name) for name in re.findall(r"{(\w+)", path)]}
        if body is not None:
            reference = {"$ref": REF.format(name=body.__name__)}
            extra["requestBody"] = {"content": {"application/json": {"schema": reference}}, "required": True}
        responses: dict[int | str, dict[str, Any]] = {
            status: {"description": "Error", **ERROR} for status in (422, 503, *statuses)
        }
        if body is not None:
            responses[413] = {"description": "Error", **ERROR}
        direct(router).append(Route(path, handler, methods=[method]))
        router.add_api_route(
            path,
            handler,
            methods=[method],
            summary=summary or (handler.__doc__ or "").split("\n")[0],
            description=handler.__doc__,
            openapi_extra=extra,
            responses=responses,
            response_class=Response,
            response_model=None,
        )
        return handler

    return register


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def schemas() -> dict[str, Any]:
    """Return the JSON Schemas of all bodies."""
    _, components = msgspec.json.schema_components(Body.__subclasses__(), ref_template="#/components/schemas/{name}")
    error = {
        "type": "object",
        "properties": {"detail": {"type": "string"}, "code": {"type": "string"}},
        "required": ["detail"],
    }
    return {**components, "Error": error}
