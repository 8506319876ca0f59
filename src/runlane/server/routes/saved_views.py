"""Routes of saved views: queries of the console's pages, kept for the people who look at them."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import InvalidRequest
from runlane.server.auth.access import Access
from runlane.server.http.queries import QueryModel
from runlane.server.http.requests import Body
from runlane.server.http.responses import json_response
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import authorize_own, service_of
from runlane.store.transactions.saved_views import SavedView, ViewOwner

_PAGE: Final = re.compile(r"[a-z][a-z-]{0,31}")
_MAX_NAME: Final = 128


class ViewsQuery(QueryModel):
    page: str | None = None


class ViewPut(Body):
    """A view. ``revision`` is the one that was seen, 0 if there was none; ``shared`` shows it to all operators."""

    query: Annotated[str, msgspec.Meta(max_length=4096)]
    shared: bool = False
    revision: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0


async def list_views(request: Request, query: ViewsQuery) -> Response:
    """Return one's own views and, for operators, those that others share; of one page, or of all."""
    access = await authorize_own(request, None)
    found = await service_of(request).store.saved_views.list(_owner(access), page=query.page)
    return json_response(found)


async def put_view(request: Request, body: ViewPut) -> Response:
    """Save a view of one's own. 409: it has been changed since the ``revision`` that was seen."""
    page, name = _named(request)
    access = await authorize_own(request, "view.save")
    if body.shared and not (access.operates or access.user is None):
        raise InvalidRequest("Views are shared among operators: leave 'shared' out.")
    saved = await service_of(request).store.saved_views.put(
        _owner(access), page=page, name=name, query=body.query, shared=body.shared, revision=body.revision
    )
    return json_response(saved)


async def delete_view(request: Request) -> Response:
    """Delete a view of one's own."""
    page, name = _named(request)
    access = await authorize_own(request, "view.delete")
    await service_of(request).store.saved_views.delete(_owner(access), page=page, name=name)
    return Response(status_code=204)


def _owner(access: Access) -> ViewOwner:
    return ViewOwner(name=access.owner, operates=access.operates)


def _named(request: Request) -> tuple[str, str]:
    page, name = request.path_params["page"], request.path_params["name"]
    if not _PAGE.fullmatch(page):
        raise InvalidRequest(f"{page!r} names no page: it must be lower-case letters and '-', at most 32.")
    if not name.strip() or len(name) > _MAX_NAME or not name.isprintable():
        raise InvalidRequest(f"A view's name must have 1 to {_MAX_NAME} characters, all of them printable.")
    if request.url.path.endswith("/"):  # as in any path, it would make no difference
        raise InvalidRequest("A view's name cannot end with '/'.")
    return page, name


SAVED_VIEWS: Final = Resource(
    tag="Operators",
    group=None,
    routes=(
        Route("GET /views", list_views, answer=list[SavedView]),
        Route(
            "PUT /views/{page}/{name:path}",
            put_view,
            answer=SavedView,
            errors=(404, 409),
            example={"query": "status=error&since=1d", "shared": False},
        ),
        Route("DELETE /views/{page}/{name:path}", delete_view, success=(204,), errors=(404,)),
    ),
)
