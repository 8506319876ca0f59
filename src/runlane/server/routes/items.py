"""Routes of the long-term store: items in namespaces."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from langgraph.store.base import NOT_PROVIDED, InvalidNamespaceError, Item, ListNamespacesOp, MatchCondition
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import InvalidRequest
from runlane.server.http import answers
from runlane.server.http.queries import QueryModel
from runlane.server.http.requests import Body, Limit, Object, Offset, ignore
from runlane.server.http.responses import json_response
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import authorize, service_of

T = TypeVar("T")
Labels = list[str]


class ItemQuery(QueryModel):
    key: str
    #: Labels that are joined with periods.
    namespace: str = ""
    refresh_ttl: bool | None = None


class StorePut(Body):
    namespace: Labels
    key: str
    value: Object
    index: bool | Annotated[list[str], msgspec.Meta(max_length=100)] | None = None
    ttl: float | msgspec.UnsetType | None = msgspec.UNSET

    nullable: ClassVar[frozenset[str]] = frozenset({"index", "ttl"})


class StoreDelete(Body):
    key: str
    namespace: Labels = msgspec.field(default_factory=list)


class StoreSearch(Body):
    namespace_prefix: Labels = msgspec.field(default_factory=list)
    filter: Object | None = None
    limit: Limit = 10
    offset: Offset = 0
    query: str | None = None
    refresh_ttl: bool | None = None

    nullable: ClassVar[frozenset[str]] = frozenset({"filter", "query", "refresh_ttl"})


class StoreNamespaces(Body):
    prefix: Labels | None = None
    suffix: Labels | None = None
    max_depth: Annotated[int, msgspec.Meta(ge=1)] | None = None
    limit: Limit = 100
    offset: Offset = 0

    nullable: ClassVar[frozenset[str]] = frozenset({"prefix", "suffix", "max_depth"})


async def put_item(request: Request, body: StorePut) -> Response:
    """Write an item; ``ttl`` is in minutes, ``null`` for ever, by default what the configuration says."""
    if body.index is True:
        raise InvalidRequest("'index' is false, or the list of the fields to embed; leave it out for the default.")
    value: dict[str, Any] = {
        "namespace": tuple(body.namespace),
        "key": body.key,
        "value": body.value,
        "index": body.index,
    }
    store = await _store(request, "put", value)
    if body.index and not store.indexed:
        ignore(request, {"index"}, "fields")
    ttl = NOT_PROVIDED if body.ttl is msgspec.UNSET else body.ttl
    await _checked(store.aput(tuple(value["namespace"]), value["key"], value["value"], value["index"], ttl=ttl))
    return Response(status_code=204)


async def get_item(request: Request, query: ItemQuery) -> Response:
    """Return an item, or ``null``; the labels of the namespace are joined with periods."""
    namespace = tuple(query.namespace.split(".")) if query.namespace else ()
    value: dict[str, Any] = {"namespace": namespace, "key": query.key}
    store = await _store(request, "get", value)
    item = await _checked(store.aget(tuple(value["namespace"]), value["key"], refresh_ttl=query.refresh_ttl))
    return json_response(None if item is None else item.dict())


async def delete_item(request: Request, body: StoreDelete) -> Response:
    """Delete an item, if it is there."""
    value: dict[str, Any] = {"namespace": tuple(body.namespace), "key": body.key}
    store = await _store(request, "delete", value)
    await _checked(store.adelete(tuple(value["namespace"]), value["key"]))
    return Response(status_code=204)


async def search_items(request: Request, body: StoreSearch) -> Response:
    """Find items by what their values say, and rank them by similarity to ``query``."""
    value: dict[str, Any] = {
        "namespace": tuple(body.namespace_prefix),
        "filter": body.filter,
        "limit": body.limit,
        "offset": body.offset,
        "query": body.query,
    }
    store = await _store(request, "search", value)
    if body.query and not store.indexed:
        ignore(request, {"query"}, "fields")
    given = {name: value[name] for name in ("filter", "limit", "offset", "query")}
    prefix = tuple(value["namespace"])
    found: list[Item] = await _checked(store.asearch(prefix, refresh_ttl=body.refresh_ttl, **given))
    return json_response({"items": [item.dict() for item in found]})


async def list_namespaces(request: Request, body: StoreNamespaces) -> Response:
    """List the namespaces that have items; ``*`` stands for any one label."""
    value: dict[str, Any] = {
        "namespace": None if body.prefix is None else tuple(body.prefix),
        "suffix": None if body.suffix is None else tuple(body.suffix),
        "max_depth": body.max_depth,
        "limit": body.limit,
        "offset": body.offset,
    }
    store = await _store(request, "list_namespaces", value)
    prefix, suffix = value["namespace"] or (), value["suffix"] or ()
    given = {name: value[name] for name in ("max_depth", "limit", "offset")}
    conditions = (MatchCondition("prefix", tuple(prefix)), MatchCondition("suffix", tuple(suffix)))
    [found] = await _checked(store.abatch([ListNamespacesOp(match_conditions=conditions, **given)]))
    return json_response({"namespaces": [list(namespace) for namespace in found]})


async def _store(request: Request, action: str, value: dict[str, Any]) -> Any:
    """Return the store of the request's owner; an application's handler may change *value* before it is used.

    An owner's items are apart from all others', whatever the handler lets the owner read elsewhere: they have no
    metadata that a filter could match.
    """
    access = await authorize(request, "store", action, value)
    store = service_of(request).runtime.long_term_store
    assert store is not None, "the server has the extra 'agents', and so a store"
    return store.for_owner(access.owner)


async def _checked(operation: Awaitable[T]) -> T:
    try:
        return await operation
    except InvalidNamespaceError as error:
        raise InvalidRequest(str(error)) from None


ITEMS = Resource(
    tag="Store",
    group="store",
    routes=(
        Route("PUT /store/items", put_item, success=(204,), errors=(502,)),
        Route("GET /store/items", get_item, answer=answers.StoreItem | None),
        Route("DELETE /store/items", delete_item, success=(204,)),
        Route("POST /store/items/search", search_items, answer=answers.FoundItems, errors=(502,)),
        Route("POST /store/namespaces", list_namespaces, answer=answers.Namespaces),
    ),
)
