"""How a resource declares its routes: handlers of a request, documented by their body's model."""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import parse_qsl

import msgspec
from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from runlane.errors import NotFound
from runlane.lifecycle import RunStatus
from runlane.records import RunRecord, Thread
from runlane.server.auth.access import OPEN, Access, User
from runlane.server.auth.middleware import EXEMPT, USER
from runlane.server.http.answers import Answer, Event
from runlane.server.http.requests import Body, ignore, path_uuid
from runlane.server.service import Service
from runlane.store.transactions.webhooks import DeliveryStatus

#: Everything that a query may have.
QUERY: Mapping[str, dict[str, Any]] = {
    **{key: {"type": "integer", "minimum": 0} for key in ("limit", "offset")},
    **{
        key: {"type": "boolean"}
        for key in ("cancel_on_disconnect", "check_db", "delete_threads", "recurse", "subgraphs", "wait")
    },
    **{key: {"type": "array", "items": {"type": "string"}} for key in ("select", "stream_mode", "stream_modes")},
    **{key: {"type": "string"} for key in ("key", "namespace")},
    "refresh_ttl": {"type": "boolean"},
    "action": {"type": "string", "enum": ["interrupt", "rollback"]},
    "assistant_id": {"type": "string"},
    "before": {"type": "string", "format": "uuid"},
    "include": {"type": "array", "items": {"type": "string", "enum": ["ttl"]}},
    "delivery_status": {"type": "string", "enum": [status.value for status in DeliveryStatus]},
    "run_id": {"type": "string", "format": "uuid"},
    "status": {"type": "string", "enum": [status.value for status in RunStatus]},
    "format": {"type": "string", "enum": ["prometheus", "json"]},
    "xray": {"oneOf": [{"type": "boolean"}, {"type": "integer", "minimum": 1}]},
}
Handler = Callable[[Request], Awaitable[Any]]
#: In the scope of a request: the path of its route, with the names of its parameters.
ROUTE = "runlane.route"
REF = "#/components/schemas/{name}"
ERROR = {"content": {"application/json": {"schema": {"$ref": REF.format(name="Error")}}}}


class NamedRoute(Route):
    """A route that says in the request's scope which it is. A slash at the end of a path makes no difference."""

    def __init__(self, path: str, endpoint: Handler, *, methods: list[str]) -> None:
        super().__init__(path, endpoint, methods=methods)
        if not path.endswith(("/", ":path}")):
            self.path_regex = re.compile(self.path_regex.pattern.removesuffix("$") + "/?$")

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[ROUTE] = self.path
        await super().handle(scope, receive, send)


def service_of(connection: HTTPConnection) -> Service:
    return cast(Service, connection.app.state.service)


def _known(connection: HTTPConnection) -> User:
    user = cast(User | None, connection.scope.get(USER))
    if user is None:  # a route that needs a user where the gate asks for none
        raise HTTPException(401, "Unauthorized")
    return user


async def authorize(
    connection: HTTPConnection, resource: str, action: str, value: dict[str, Any] | None = None
) -> Access:
    """Return what the request may touch of *resource* with *action*; a handler may change *value* in place.

    Resources and actions are those of ``langgraph_sdk.Auth``. A socket's handshake is authorised in the same way.

    Raises:
        HTTPException: Nothing (403), or what the application's handler raised.
    """
    authority = service_of(connection).authority
    if authority is None:
        return OPEN
    return await authority.access(_known(connection), resource, action, {} if value is None else value)


async def reach_thread(request: Request, action: str, value: dict[str, Any] | None = None) -> tuple[Access, Thread]:
    """Return the thread that the path names, if *action* on it is allowed; a handler may change *value* in place.

    Raises:
        NotFound: There is none, or the request may not touch it.
        HTTPException: *action* is not allowed at all.
    """
    thread_id = path_uuid(request, "thread")
    given: dict[str, Any] = {} if value is None else value
    given["thread_id"] = thread_id
    access = await authorize(request, "threads", action, given)
    thread = await service_of(request).store.threads.get(thread_id, owner=access.reads)
    if not access.permits(thread.metadata):
        raise NotFound("thread", thread_id)
    return access, thread


async def reach_run(request: Request, action: str, value: dict[str, Any] | None = None) -> tuple[Access, RunRecord]:
    """Return the run that the path names, on the thread that it names, if *action* on that thread is allowed.

    Raises:
        NotFound: There is none, or the request may not touch its thread.
        HTTPException: *action* is not allowed at all.
    """
    run_id, store = path_uuid(request, "run"), service_of(request).store
    given: dict[str, Any] = {} if value is None else value
    given["run_id"] = run_id
    if "thread_id" in request.path_params:
        given["thread_id"] = path_uuid(request, "thread")
    access = await authorize(request, "threads", action, given)
    run = await store.runs.get(run_id, owner=access.reads)
    if "thread_id" in request.path_params and run.thread_id != path_uuid(request, "thread"):
        raise NotFound("run", run_id)
    if access.where and not access.permits((await store.threads.get(run.thread_id, owner=access.reads)).metadata):
        raise NotFound("run", run_id)
    return access, run


def direct(router: APIRouter) -> list[BaseRoute]:
    """Return the plain routes of *router*: what serves, while FastAPI's twins are what is documented.

    FastAPI resolves dependencies around every handler, of which ours have none; that costs more than admitting a run.
    """
    found: list[BaseRoute] = vars(router).setdefault("direct_routes", [])
    return found


def route(
    router: APIRouter,
    method: str,
    path: str,
    *,
    body: type[Body] | None = None,
    many: bool = False,
    summary: str = "",
    answer: Any = None,
    texts: tuple[str, ...] = (),
    success: tuple[int, ...] = (200,),
    statuses: tuple[int, ...] = (),
    refusals: Mapping[int, Any] = MappingProxyType({}),
    query: tuple[str, ...] = (),
) -> Callable[[Handler], Handler]:
    """Register a handler.

    Args:
        answer: The type of what is answered with the first of *success*; ``Event`` for a stream of them.
        texts: Media types in which the same may be answered as a text.
        statuses: Errors beside those of every route.
        refusals: Errors of another shape than all others, with their types.
        query: What the query may have.
    """

    def register(handler: Handler) -> Handler:
        extra: dict[str, Any] = {"parameters": _parameters(path, query)}
        if body is not None:
            reference: dict[str, Any] = {"$ref": REF.format(name=body.__name__)}
            if many:
                reference = {"type": "array", "items": reference}
            extra["requestBody"] = {"content": {"application/json": {"schema": reference}}, "required": True}
        responses: dict[int | str, dict[str, Any]] = {
            status: {"description": "Error", **ERROR}
            for status in (*((401, 403) if path not in EXEMPT else ()), 422, 503, *statuses)
        }
        responses |= {status: {"description": "Done"} for status in success}
        if answer is not None:
            responses[success[0]]["content"] = _content(answer, texts)
        if body is not None:
            responses |= {status: {"description": "Error", **ERROR} for status in (413, 415)}
        responses |= {
            status: {"description": "Error", "content": _content(shape, ())} for status, shape in refusals.items()
        }
        direct(router).append(NamedRoute(path, _with_known_query(handler, frozenset(query)), methods=[method]))
        router.add_api_route(
            path,
            handler,
            methods=[method],
            summary=summary or (handler.__doc__ or "").split("\n")[0],
            description=handler.__doc__,
            openapi_extra=extra,
            status_code=success[0],
            responses=responses,
            response_class=Response,
            response_model=None,
        )
        return handler

    return register


def _with_known_query(handler: Handler, known: frozenset[str]) -> Handler:
    @functools.wraps(handler)
    async def checked(request: Request) -> Any:
        if text := request.scope["query_string"]:
            given = {name for name, _ in parse_qsl(text.decode("latin-1"), keep_blank_values=True)}
            ignore(request, given - known, "query parameters")
        return await handler(request)

    return checked


def _content(answer: Any, texts: tuple[str, ...]) -> dict[str, Any]:
    [schema], _ = msgspec.json.schema_components([answer], ref_template=REF)
    if answer is Event:
        return {"text/event-stream": {"schema": schema}}
    return {"application/json": {"schema": schema}, **{kind: {"schema": {"type": "string"}} for kind in texts}}


def _parameters(path: str, query: tuple[str, ...]) -> list[dict[str, Any]]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)", path)
    ]
    return [*in_path, *({"name": name, "in": "query", "schema": QUERY[name]} for name in query)]


def schemas() -> dict[str, Any]:
    """Return the JSON Schemas of all bodies and answers."""
    _, components = msgspec.json.schema_components([*_models(Body), *_models(Answer)], ref_template=REF)
    error = {
        "type": "object",
        "properties": {"detail": {"type": "string"}, "code": {"type": "string"}},
        "required": ["detail"],
    }
    return {**components, "Error": error}


def _models(base: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    return [model for direct in base.__subclasses__() for model in (direct, *_models(direct))]
