"""The OpenAPI document, made of the declarations of routes; see :mod:`runlane.server.http.route`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from importlib.metadata import version
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

import msgspec

from runlane.server.http.answers import Event
from runlane.server.http.route import SOCKET, Resource, Route

OPENAPI: Final = "3.1.0"
_COMPONENTS: Final = "#/components/schemas/"
_REF: Final = f"{_COMPONENTS}{{name}}"
#: ``WireThread`` describes the component ``Thread``, which generated clients name their type by.
_PREFIX: Final = "Wire"
_ERROR: Final = {
    "description": "Error",
    "content": {"application/json": {"schema": {"$ref": f"{_COMPONENTS}Error"}}},
}
_ERROR_SCHEMA: Final = {
    "type": "object",
    "properties": {"detail": {"type": "string"}, "code": {"type": "string"}},
    "required": ["detail"],
}


def document(resources: Iterable[Resource]) -> dict[str, Any]:
    """Return the OpenAPI document of *resources*."""
    paths: dict[str, Any] = {}
    types: list[Any] = []
    for resource in resources:
        types += resource.models
        for route in resource.routes:
            if route.documented and route.method != SOCKET:
                types += _types(route)
                paths.setdefault(_template(route), {})[route.method.lower()] = _operation(route, resource.tag)
    _, schemas = msgspec.json.schema_components(types, ref_template=_REF)
    return {
        "openapi": OPENAPI,
        "info": {"title": "Runlane", "version": version("runlane")},
        "paths": paths,
        "components": {"schemas": {**_renamed(schemas), "Error": _ERROR_SCHEMA}},
    }


def merged(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, without: Set[str] = frozenset()) -> dict[str, Any]:
    """Return *ours* with the paths and schemas of another application's document.

    Args:
        without: Paths that the other application does not serve here.
    """
    paths = {path: item for path, item in theirs.get("paths", {}).items() if path not in without}
    components = ours["components"]
    schemas = {**theirs.get("components", {}).get("schemas", {}), **components["schemas"]}
    return {**ours, "paths": {**ours["paths"], **paths}, "components": {**components, "schemas": schemas}}


def _template(route: Route) -> str:
    return route.path.replace(":path}", "}")


def _types(route: Route) -> Iterator[Any]:
    """Yield every type that the route's entry refers to."""
    arguments = route.arguments
    if arguments.query is not None:
        yield from (field.type for field in msgspec.structs.fields(arguments.query))
    yield from (one for one in (arguments.body, route.reads, route.answer) if one is not None)
    yield from route.refusals.values()


def _operation(route: Route, tag: str) -> dict[str, Any]:
    text = inspect.getdoc(route.handler) or ""
    operation: dict[str, Any] = {
        "tags": [tag],
        "summary": text.partition("\n")[0],
        "description": text,
        # As FastAPI names operations, which generated clients name their methods by.
        "operationId": re.sub(r"\W", "_", f"{route.handler.__name__}{_template(route)}_{route.method.lower()}"),
        "responses": {str(status): response for status, response in _responses(route).items()},
    }
    if parameters := list(_parameters(route)):
        operation["parameters"] = parameters
    body = _body(route)
    if body is not None:
        operation["requestBody"] = {"content": {"application/json": body}, "required": True}
    return operation


def _parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in route.parameters:
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    if route.arguments.query is None:
        return
    for field in msgspec.structs.fields(route.arguments.query):
        schema = _schema(_present(field.type))
        if field.default not in (None, msgspec.NODEFAULT):
            schema["default"] = msgspec.to_builtins(field.default)
        yield {"name": field.encode_name, "in": "query", "required": field.required, "schema": schema}


def _present(kind: Any) -> Any:
    """Return *kind* without ``None``: a query has no way to say null."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    return Union[tuple(one for one in get_args(kind) if one is not type(None))]  # noqa: UP007 - made from values


def _body(route: Route) -> dict[str, Any] | None:
    arguments = route.arguments
    model = arguments.body or route.reads
    if model is None:
        return None
    schema = _schema(model)
    if arguments.array is not None:
        bounds = {"minItems": arguments.array.min_length, "maxItems": arguments.array.max_length}
        schema = {"type": "array", "items": schema, **{name: n for name, n in bounds.items() if n is not None}}
    return {"schema": schema} if route.example is None else {"schema": schema, "example": route.example}


def _responses(route: Route) -> dict[int, dict[str, Any]]:
    statuses = [*(() if route.public else (401, 403)), 422, 503, *route.errors]
    if route.arguments.body is not None or route.reads is not None:
        statuses += [413, 415]
    found: dict[int, dict[str, Any]] = {status: {"description": "Done"} for status in route.success}
    found |= dict.fromkeys(statuses, _ERROR)
    if route.answer is not None:
        found[route.success[0]]["content"] = _content(route.answer, route.texts)
    refusals = {status: _content(kind, ()) for status, kind in route.refusals.items()}
    return found | {status: {"description": "Error", "content": content} for status, content in refusals.items()}


def _content(answer: Any, texts: tuple[str, ...]) -> dict[str, Any]:
    if answer is Event:
        return {"text/event-stream": {"schema": _schema(answer)}}
    return {"application/json": {"schema": _schema(answer)}, **{kind: {"schema": {"type": "string"}} for kind in texts}}


def _schema(kind: Any) -> dict[str, Any]:
    [schema], _ = msgspec.json.schema_components([kind], ref_template=_REF)
    return dict(_renamed(schema))


def _component(name: str) -> str:
    return name.removeprefix(_PREFIX)


def _renamed(schema: Any) -> Any:
    """Return *schema*, or a mapping of schemas by their names, with the names of components."""
    if isinstance(schema, list):
        return [_renamed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {_component(name): _renamed(one) for name, one in schema.items()}
    if "$ref" in found:
        found["$ref"] = _COMPONENTS + _component(found["$ref"].removeprefix(_COMPONENTS))
    if isinstance(found.get("title"), str):
        found["title"] = _component(found["title"])
    return found
