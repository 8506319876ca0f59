"""Pages of other origins: what they may send, and under which names a server of this machine may be asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from auth_kit import keyed_server
from runlane.errors import ConfigurationError
from runlane.server.app import create_app
from runlane.settings import Settings
from server_kit import NOWHERE, PATIENCE_S, PROJECT, Server, running_server

GOOD, BAD = "https://good.example", "https://bad.example"
APP = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

async def mine(request):
    return PlainTextResponse("done")

async def talk(socket):
    await socket.accept()
    await socket.close()

app = Starlette(routes=[Route("/mine", mine, methods=["GET", "POST"]), WebSocketRoute("/talk", talk)])
"""


def written(folder: Path, **http: Any) -> Path:
    (folder / "own_app.py").write_text(APP)
    path = folder / "langgraph.json"
    graphs = {"chat": f"{PROJECT.parent}/graphs.py:chat"}
    path.write_text(json.dumps({"graphs": graphs, "http": {"app": "./own_app.py:app", **http}}))
    return path


@contextmanager
def served(folder: Path, **settings: Any) -> Iterator[Server]:
    config = written(folder, cors={"allow_origins": [GOOD]})
    with running_server(f"sqlite:///{folder}/runlane.db", config, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server that names one origin."""
    with served(tmp_path_factory.mktemp("origins")) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/threads"),
        ("POST", "/runs/stream"),
        ("PATCH", f"/threads/{NOWHERE}"),
        ("DELETE", f"/threads/{NOWHERE}"),
        ("PUT", "/store/items"),
        ("POST", "/mcp"),
        ("GET", "/mcp"),
        ("POST", "/mine"),
        ("POST", "/nothing/here"),
    ],
)
async def test_a_page_of_another_origin_changes_nothing(http: httpx.AsyncClient, method: str, path: str) -> None:
    refused = await http.request(method, path, headers={"origin": BAD}, json={})
    assert (refused.status_code, refused.json()["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in refused.headers
    for origin in (GOOD, str(http.base_url).rstrip("/")):
        assert (await http.request(method, path, headers={"origin": origin}, json={})).status_code != 403
    assert (await http.request(method, path, json={})).status_code != 403


@pytest.mark.parametrize(
    "kind", ["text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_a_body_that_needs_no_preflight_comes_from_allowed_origins_only(
    http: httpx.AsyncClient, kind: str
) -> None:
    body = json.dumps({"metadata": {"planted": kind}})
    for origin in (BAD, "null"):
        headers = {"origin": origin, "content-type": kind}
        assert (await http.post("/threads", headers=headers, content=body)).status_code == 403
    assert (await http.post("/threads/search", json={"metadata": {"planted": kind}})).json() == []
    headers = {"origin": GOOD, "content-type": kind}
    assert (await http.post("/threads", headers=headers, content=body)).status_code == 200


async def test_what_changes_nothing_is_answered_and_not_readable(http: httpx.AsyncClient) -> None:
    for path in ("/info", "/mine"):
        answer = await http.get(path, headers={"origin": BAD})
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", [f"/threads/{uuid4()}/stream/events", "/talk"])
async def test_a_page_of_another_origin_opens_no_socket(server: Server, path: str) -> None:
    address = f"ws{server.url.removeprefix('http')}{path}"
    with pytest.raises(InvalidStatus) as refused:
        await connect(address, origin=BAD)  # type: ignore[arg-type]  # a NewType of the library's
    assert refused.value.response.status_code == 403
    for origin in (GOOD, server.url, None):
        async with connect(address, origin=origin):  # type: ignore[arg-type]  # as above
            pass


@pytest.mark.parametrize("host", ["evil.example", "evil.example:2024", "localhost.evil.example"])
async def test_a_server_of_this_machine_is_asked_under_no_foreign_name(server: Server, host: str) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
        for method, path in (("GET", "/threads/search"), ("GET", "/ok"), ("GET", "/mine"), ("POST", "/threads")):
            rebound = {"host": host, "origin": f"http://{host}"}
            refused = await http.request(method, path, headers=rebound, json={})
            assert (refused.status_code, refused.json()["code"]) == (421, "host_not_allowed")
    with pytest.raises(InvalidStatus) as closed:
        await connect(f"ws://{host}/threads/{uuid4()}/stream/events", host="127.0.0.1", port=server.port)
    assert closed.value.response.status_code == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:2024", "app.localhost"])
async def test_a_server_of_this_machine_is_asked_under_its_own_names(http: httpx.AsyncClient, host: str) -> None:
    assert (await http.get("/info", headers={"host": host})).status_code == 200


def test_names_of_a_proxy_can_be_allowed(tmp_path: Path) -> None:
    with served(tmp_path, allowed_hosts="agents.example *.tunnel.example") as server:
        for host, status in (("agents.example", 200), ("a.tunnel.example:443", 200), ("other.example", 421)):
            assert httpx.get(f"{server.url}/info", headers={"host": host}).status_code == status


def test_a_server_that_asks_who_calls_is_asked_under_any_name(tmp_path: Path) -> None:
    with keyed_server(tmp_path, "ann") as (server, _):
        assert httpx.get(f"{server.url}/info", headers={"host": "agents.example"}).status_code == 200
        assert httpx.post(f"{server.url}/threads", headers={"host": "agents.example"}).status_code == 401


def _private(url: str, origin: str) -> str | None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Private-Network": "true"}
    answer = httpx.options(f"{url}/threads", headers={"Origin": origin, **asked})
    assert answer.status_code == 200
    return answer.headers.get("access-control-allow-private-network")


def test_a_private_network_is_reached_by_named_origins_or_with_authentication(server: Server, tmp_path: Path) -> None:
    assert _private(server.url, GOOD) == "true"
    assert _private(server.url, BAD) is None
    with running_server("memory://", graphs={}) as open_to_all:
        assert _private(open_to_all.url, GOOD) is None
    with keyed_server(tmp_path, "ann") as (guarded, _):
        assert _private(guarded.url, GOOD) == "true"


@pytest.mark.parametrize("cors", [{}, {"allow_origins": ["*"]}, {"allow_origins": [], "allow_origin_regex": ".*"}])
def test_credentials_with_every_origin_are_refused_before_the_server_starts(
    tmp_path: Path, cors: dict[str, Any]
) -> None:
    config = written(tmp_path, cors={**cors, "allow_credentials": True})
    with pytest.raises(ConfigurationError, match="allow_credentials"):
        create_app(config, Settings(database="memory://"))
