"""A path is matched by its segments, whatever the order of declaration, and a handler's signature says what is read."""

from __future__ import annotations

from typing import Annotated, Any
from weakref import ref

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Mount
from starlette.types import Receive, Scope, Send

from runlane.server.http.queries import Page, QueryModel
from runlane.server.http.requests import Body
from runlane.server.http.responses import json_response
from runlane.server.http.route import ROUTE, Route, RouteTable
from runlane.settings import Settings


class Note(Body):
    text: str


class Notes(Page):
    tag: tuple[str, ...] = ()


async def answer(request: Request) -> Response:
    return json_response({"route": request.scope[ROUTE], "path": request.path_params})


async def search(request: Request, query: Notes, body: Note) -> Response:
    return json_response({"limit": query.limit, "tag": query.tag, "text": body.text})


async def many(request: Request, body: Annotated[list[Note], msgspec.Meta(min_length=1, max_length=2)]) -> Response:
    return json_response([one.text for one in body])


class Long(Body, weakref=True):
    text: str


class Lasting(Response):
    """Answers whether the body of its request is still in memory."""

    def __init__(self, body: Long) -> None:
        super().__init__()
        self._request_body = ref(body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await json_response({"kept": self._request_body() is not None})(scope, receive, send)


async def last(request: Request, body: Long) -> Response:
    return Lasting(body)


NAMES = (
    "GET /notes/{note_id}",
    "GET /notes/newest",
    "POST /notes/{note_id}",
    "GET /notes/{note_id}/lines/{line}",
    "GET /notes/newest/words",
    "GET /files",
    "GET /files/{path:path}",
    "GET /",
)


def matched(method: str, path: str, names: tuple[str, ...] = NAMES, **scope: Any) -> tuple[Match, str | None, Any]:
    table = RouteTable(Route(name, answer) for name in names)
    match, found = table.matches({"type": "http", "method": method, "path": path, **scope})
    return match, found.get(ROUTE), found.get("path_params")


@pytest.mark.parametrize(
    ("path", "route", "params"),
    [
        ("/", "/", {}),
        ("/notes/1", "/notes/{note_id}", {"note_id": "1"}),
        ("/notes/1/", "/notes/{note_id}", {"note_id": "1"}),
        ("/notes/newest", "/notes/newest", {}),
        ("/notes/newest/lines/2", "/notes/{note_id}/lines/{line}", {"note_id": "newest", "line": "2"}),
        ("/notes/newest/words", "/notes/newest/words", {}),
        ("/files/", "/files", {}),
        ("/files/a/b", "/files/{path:path}", {"path": "a/b"}),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_a_literal_comes_before_a_parameter_in_any_order_of_declaration(
    path: str, route: str, params: dict[str, str], order: int
) -> None:
    assert matched("GET", path, NAMES[::order]) == (Match.FULL, route, params)


@pytest.mark.parametrize("path", ["//", "/notes", "/notes/", "/notes//", "/notes/1/lines", "/notes/1/2", "/other"])
def test_a_path_without_a_route_is_not_matched(path: str) -> None:
    assert matched("GET", path)[0] is Match.NONE


def test_a_method_of_a_less_literal_route_is_found() -> None:
    assert matched("POST", "/notes/newest") == (Match.FULL, "/notes/{note_id}", {"note_id": "newest"})


def test_a_path_is_matched_below_the_mount() -> None:
    assert matched("GET", "/api/notes/1", root_path="/api")[1] == "/notes/{note_id}"
    assert matched("GET", "/apinotes/1", root_path="/api")[0] is Match.NONE


def test_a_socket_is_not_a_method_of_its_path() -> None:
    table = RouteTable([Route("WS /notes", answer)])
    assert table.matches({"type": "websocket", "path": "/notes"})[0] is Match.FULL
    assert table.matches({"type": "http", "method": "GET", "path": "/notes"})[0] is Match.NONE


@pytest.mark.parametrize("second", ["GET /notes/{note_id}", "GET /notes/{note_id}/", "POST /notes/{name}"])
def test_two_routes_for_one_path_are_refused(second: str) -> None:
    with pytest.raises(ValueError, match="the same route"):
        RouteTable([Route("GET /notes/{note_id}", answer), Route(second, answer)])


async def test_another_method_is_405_and_says_which_there_are() -> None:
    app = Starlette(routes=[Mount("/api", routes=[RouteTable(Route(name, answer) for name in NAMES)])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        refused = await client.delete("/api/notes/1")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, POST")
        assert (await client.head("/api/notes/1")).status_code == 200
        assert (await client.get("/api/notes/1")).json() == {"route": "/notes/{note_id}", "path": {"note_id": "1"}}


def test_what_is_read_is_what_the_handler_takes() -> None:
    assert Route("GET /", answer).arguments.query is None
    one, several = Route("POST /search", search).arguments, Route("POST /many", many).arguments
    assert (one.query, one.body, one.array) == (Notes, Note, None)
    assert (several.query, several.body) == (None, Note)
    assert several.array is not None
    assert several.array.max_length == 2


def test_a_query_model_has_no_field_of_its_own() -> None:
    assert msgspec.structs.fields(QueryModel) == ()


async def test_the_body_of_a_request_is_not_kept_while_its_answer_lasts() -> None:
    app = Starlette(routes=[RouteTable([Route("POST /last", last)])])
    app.state.settings = Settings()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.post("/last", json={"text": "long"})).json() == {"kept": False}
