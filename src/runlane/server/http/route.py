"""Declare a route once.

A :class:`Route` serves, reads and validates requests, is described in the OpenAPI document, belongs to a group that a
project can disable, and says what the tenancy test sends. Nothing else in the server lists routes.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, Final, get_args, get_origin

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, NoMatchFound, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from runlane.server.config.http_section import Group
from runlane.server.http.payload import HIDES_PAYLOAD, can_be_hidden, hidden
from runlane.server.http.queries import QueryModel, read_query
from runlane.server.http.requests import Body, read_bodies, read_body

#: Called with the request and, if it has parameters of these names, the validated ``query`` and ``body``.
Handler = Callable[..., Awaitable[Any]]
#: Key in a request's scope: the path template of its route.
ROUTE: Final = "runlane.route"
#: Method of a WebSocket's route.
SOCKET: Final = "WS"


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a handler beside the request, read from its signature."""

    query: type[QueryModel] | None
    body: type[Body] | None
    #: Whether the body is an array of *body*, with these bounds.
    array: msgspec.Meta | None


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the API, named like ``GET /threads/{thread_id}``.

    Args:
        name: Method and path template; ``{name:path}`` at the end matches the rest of a path.
        handler: Its parameters ``query`` and ``body``, if it has them, are read and validated as their types say.
        answer: Type of the answer with the first of *success*; ``Event`` for a stream of them.
        texts: Other media types of the same answer.
        success: Statuses; the first one has the answer.
        errors: Statuses of errors beside those of every route.
        refusals: Errors of another shape than all others, with their types.
        reads: Body of a handler that reads the request itself.
        example: A body that is accepted, for the document and the tenancy test. A route whose path has an id and that
            takes a body has to have one; fields that are called like an id name things of the tenant.
        hides_payload: Whether the handler leaves payload out by itself where the sender may not see it.
        public: Whether anybody may ask, known or not.
        documented: Whether the OpenAPI document has it.
    """

    name: str
    handler: Handler
    _: KW_ONLY
    answer: Any = None
    texts: tuple[str, ...] = ()
    success: tuple[int, ...] = (200,)
    errors: tuple[int, ...] = ()
    refusals: Mapping[int, Any] = field(default_factory=lambda: MappingProxyType({}))
    reads: type[Body] | None = None
    example: Any = None
    hides_payload: bool = False
    public: bool = False
    documented: bool = True

    @property
    def method(self) -> str:
        return self.name.partition(" ")[0]

    @property
    def path(self) -> str:
        return self.name.partition(" ")[2]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names in the path."""
        return tuple(part[1:-1].partition(":")[0] for part in self.path.split("/") if part.startswith("{"))

    @property
    def arguments(self) -> Arguments:
        return _arguments(self.handler)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """The routes of one resource.

    Args:
        tag: Heading in the OpenAPI document.
        group: ``http.disable_<group>`` switches them off; ``None``: nothing does.
        models: Bodies that no route takes as a whole, for the document: parameters of commands.
    """

    tag: str
    group: Group | None
    routes: tuple[Route, ...]
    models: tuple[type[Body], ...] = ()


@cache
def _arguments(handler: Handler) -> Arguments:
    taken = {name: one.annotation for name, one in inspect.signature(handler, eval_str=True).parameters.items()}
    query, body = taken.get("query"), taken.get("body")
    bounds = next((meta for meta in getattr(body, "__metadata__", ()) if isinstance(meta, msgspec.Meta)), None)
    listed = get_args(body)[0] if bounds is not None else body
    if get_origin(listed) is list:
        return Arguments(query, get_args(listed)[0], bounds or msgspec.Meta())
    return Arguments(query, body, None)


class _Endpoint:
    """Serves one route. Errors go to the application's table of errors, as nothing of an answer was sent by then."""

    def __init__(self, route: Route) -> None:
        self._handler = route.handler
        self._answer = route.answer
        self._hides_payload = route.hides_payload
        self._query = route.arguments.query or QueryModel
        self._passes_query = route.arguments.query is not None
        self._body = route.arguments.body
        self._array = route.arguments.array

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        hides = scope.get(HIDES_PAYLOAD, False) and not self._hides_payload
        if hides and not can_be_hidden(self._answer):
            raise HTTPException(403, "Forbidden: this answer is payload, which needs the scope payload:read.")
        given: dict[str, Any] = {}
        if self._passes_query or scope["query_string"]:
            query = read_query(request, self._query)
            if self._passes_query:
                given["query"] = query
        if self._body is not None:
            if self._array is None:
                given["body"] = await read_body(request, self._body)
            else:
                given["body"] = await read_bodies(request, self._body, self._array)
        response: Response = await self._handler(request, **given)
        given.clear()  # an answer may take as long as a run, whose input would be kept twice
        if hides:
            response = hidden(response, self._answer)
        await response(scope, receive, send)


class _OtherMethod:
    """Answers 405 on a path that other methods have."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._headers = {"Allow": ", ".join(sorted(allowed))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise HTTPException(405, headers=self._headers)


@dataclass(frozen=True, slots=True)
class _Leaf:
    path: str
    names: tuple[str, ...]
    #: By method.
    served: dict[str, ASGIApp] = field(default_factory=dict)


@dataclass(slots=True)
class _Node:
    """A place in the tree of paths, whose branches are the segments that may come next."""

    literals: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    #: What takes the rest of a path.
    rest: _Leaf | None = None
    leaf: _Leaf | None = None

    def leaves(
        self, segments: Sequence[str], at: int, values: tuple[str, ...]
    ) -> Iterator[tuple[_Leaf, tuple[str, ...]]]:
        """Yield what matches the segments from *at* on, literal segments before parameters."""
        if at == len(segments):
            if self.leaf is not None:
                yield self.leaf, values
            return
        segment = segments[at]
        literal = self.literals.get(segment)
        if literal is not None:
            yield from literal.leaves(segments, at + 1, values)
        if self.parameter is not None and segment:
            yield from self.parameter.leaves(segments, at + 1, (*values, segment))
        if self.rest is not None:
            yield self.rest, (*values, "/".join(segments[at:]))


class RouteTable(BaseRoute):
    """All routes as one: a tree of path segments, in which the order of declarations makes no difference.

    A slash at the end of a path makes no difference either.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        node, leaf = self._root, _Leaf(route.path, route.parameters)
        segments = _segments(route.path)
        rest = segments[-1].endswith(":path}")
        for segment in segments[:-1] if rest else segments:
            if not segment.startswith("{"):
                node = node.literals.setdefault(segment, _Node())
            else:
                node.parameter = node.parameter or _Node()
                node = node.parameter
        if rest:
            leaf = node.rest = node.rest or leaf
        else:
            leaf = node.leaf = node.leaf or leaf
        if route.method in leaf.served or leaf.path != route.path:
            raise ValueError(f"{route.name} and {leaf.path} are the same route")
        if route.method == SOCKET:
            leaf.served[SOCKET] = WebSocketRoute(route.path, route.handler).app
            return
        leaf.served[route.method] = _Endpoint(route)
        if route.method == "GET":
            leaf.served["HEAD"] = leaf.served["GET"]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] not in ("http", "websocket"):
            return Match.NONE, {}
        method = scope["method"] if scope["type"] == "http" else SOCKET
        partial: Scope = {}
        for leaf, values in self._root.leaves(_segments(_path_in_app(scope)), 0, ()):
            found = {ROUTE: leaf.path, "path_params": dict(zip(leaf.names, values, strict=True))}
            endpoint = leaf.served.get(method)
            if endpoint is not None:
                return Match.FULL, {**found, "endpoint": endpoint}
            others = leaf.served.keys() - {SOCKET}
            if not partial and method != SOCKET and others:
                partial = {**found, "endpoint": _OtherMethod(others)}
        return (Match.PARTIAL, partial) if partial else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await scope["endpoint"](scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        raise NoMatchFound(name, path_params)


def _segments(path: str) -> list[str]:
    return path[1 : -1 if len(path) > 2 and path.endswith("/") else None].split("/")


def _path_in_app(scope: Scope) -> str:
    """Return the path below the one that the application is mounted under. Source: ASGI 3, ``root_path``."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :] or "/"
    return path
