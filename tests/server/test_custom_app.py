"""The section ``http`` of langgraph.json: routes beside the API, who may call, what graphs see of a request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from runlane.errors import ConfigurationError
from runlane.server.app import create_app
from runlane.server.config.http_section import HeadersSection
from runlane.server.http.custom_app import CustomApp
from runlane.settings import Settings
from runlane.webhooks.policy import Target
from server_kit import Server, running_server

GRAPHS = """
from langgraph.graph import END, START, StateGraph
from langchain_core.runnables import RunnableConfig
from typing import TypedDict

class Seen(TypedDict, total=False):
    seen: dict

def node(state: Seen, config: RunnableConfig):
    return {"seen": {k: v for k, v in config["configurable"].items() if k.startswith(("x-", "auth", "cookie"))}}

graph = StateGraph(Seen).add_node("node", node).add_edge(START, "node").add_edge("node", END).compile()
"""
APP = """
from contextlib import asynccontextmanager
from fastapi import FastAPI, Request

opened = []

@asynccontextmanager
async def lifespan(app):
    opened.append("opened")
    yield

app = FastAPI(lifespan=lifespan)
seen = []

@app.middleware("http")
async def mark(request: Request, call_next):
    seen.append(request.url.path)
    response = await call_next(request)
    response.headers["x-marked"] = "yes"
    return response

@app.get("/mine")
def mine():
    return {"opened": opened, "seen": seen}

@app.get("/info")
def info():
    return {"version": "mine"}

@app.get("/ok")
def ok():
    return {"ok": "shadowed"}

not_an_app = object()
"""
OPEN_APP = """
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

async def mine(request):
    return PlainTextResponse("mine")

async def talk(socket):
    await socket.accept()
    await socket.send_text("mine")
    await socket.close()

app = FastAPI()
app.router.routes[:0] = [
    Route("/", mine),
    Route("/info", mine),
    WebSocketRoute("/info", talk),
    Mount("/below", routes=[Route("/info", mine)]),
]
app.add_api_route("/own", lambda: "mine")
"""
STARLETTE_APP = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

async def greet(request):
    \"\"\"Greet whoever asks.

    In plain text.
    \"\"\"
    return PlainTextResponse("hello")

async def say_bye(request):
    return PlainTextResponse("bye")

app = Starlette(routes=[
    Route("/greet", greet, methods=["GET", "POST"]),
    Mount("/below", routes=[Route("/bye", say_bye)]),
    Route("/ok", greet),
])
"""
BARE_APP = """
events = []

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        events.append((await receive())["type"])
        await send({"type": "lifespan.startup.complete"})
        events.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "bare"})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": f"bare {scope['method']} {scope['path']}".encode()})

async def http_only(scope, receive, send):
    assert scope["type"] == "http"
    await app(scope, receive, send)

class Framework:
    async def __call__(self, scope, receive, send):
        await app(scope, receive, send)

framework = Framework()

async def fails(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no licence"})

async def breaks(scope, receive, send):
    await receive()
    raise RuntimeError("no database")

def wsgi(environ, start_response):
    return [b""]
"""
AUTH = """
from langgraph_sdk import Auth
auth = Auth()

@auth.authenticate
async def authenticate(authorization: str | None):
    if authorization != "Bearer good":
        raise Auth.exceptions.HTTPException(status_code=401, detail="who are you?")
    return "somebody"
"""


def written(folder: Path, **sections: Any) -> Path:
    """Write a project whose ``http`` section has what is given, and return its langgraph.json."""
    (folder / "seen_graph.py").write_text(GRAPHS)
    (folder / "own_app.py").write_text(APP)
    (folder / "open_app.py").write_text(OPEN_APP)
    (folder / "starlette_app.py").write_text(STARLETTE_APP)
    (folder / "bare_app.py").write_text(BARE_APP)
    (folder / "own_auth.py").write_text(AUTH)
    auth = sections.pop("auth", None)
    config = {"graphs": {"seen": "./seen_graph.py:graph"}, "http": sections, **({"auth": auth} if auth else {})}
    path = folder / "langgraph.json"
    path.write_text(json.dumps(config))
    return path


@contextmanager
def served(folder: Path, **sections: Any) -> Iterator[Server]:
    with running_server("memory://", written(folder, **sections)) as server:
        yield server


@contextmanager
def calling(server: Server, **options: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20, **options) as client:
        yield client


def test_an_application_s_routes_come_first_and_its_middleware_wraps_the_api(tmp_path: Path) -> None:
    with served(tmp_path, app="./own_app.py:app") as server, calling(server) as http:
        mine = http.get("/mine")
        assert mine.json()["opened"] == ["opened"]
        assert http.get("/info").json() == {"version": "mine"}
        answer = http.post("/threads", json={})
        assert answer.status_code == 200
        assert answer.headers["x-marked"] == "yes"
        assert "/threads" in http.get("/mine").json()["seen"]
        assert http.get("/no-such-path").json() == {"detail": "Not Found", "code": "http"}


def test_the_routes_that_there_are_are_described_and_no_others(tmp_path: Path) -> None:
    with served(tmp_path, app="./own_app.py:app", disable_store=True) as server, calling(server) as http:
        paths = http.get("/openapi.json").json()["paths"]
        assert {"/mine", "/threads", "/runs/crons"} <= paths.keys()
        assert "/store/items" not in paths
        assert paths["/info"]["get"]["summary"] == "Info"  # the application's, which is served
        assert paths["/ok"]["get"]["summary"].startswith("Report that the server answers")


def test_health_cannot_be_taken_over_by_an_application(tmp_path: Path) -> None:
    with served(tmp_path, app="./own_app.py:app") as server, calling(server) as http:
        assert http.get("/ok").json()["ok"] is True


def test_starlette_s_routes_are_served_and_described(tmp_path: Path) -> None:
    with served(tmp_path, app="./starlette_app.py:app") as server, calling(server) as http:
        assert http.get("/greet").text == "hello"
        assert http.get("/below/bye").text == "bye"
        counted = http.get("/metrics").text
        for path in ("/greet", "/below"):
            assert f'runlane_http_requests_total{{method="GET",path="{path}",status="200"}} 1.0' in counted
        assert http.get("/ok").json()["ok"] is True
        paths = http.get("/openapi.json").json()["paths"]
        assert {path: sorted(item) for path, item in paths.items() if path in ("/greet", "/below/bye")} == {
            "/greet": ["get", "post"],
            "/below/bye": ["get"],
        }
        assert paths["/greet"]["get"]["summary"] == "Greet whoever asks."
        assert paths["/below/bye"]["get"]["summary"] == "Say bye"
        assert paths["/ok"]["get"]["summary"].startswith("Report that the server answers")


@pytest.mark.parametrize("name", ["app", "framework", "http_only"])
async def test_any_asgi_application_gets_what_the_api_has_no_route_for(tmp_path: Path, name: str) -> None:
    with served(tmp_path, app=f"./bare_app.py:{name}", mount_prefix="/agents") as server, calling(server) as http:
        assert http.get("/agents/mine/a").text == "bare GET /agents/mine/a"
        assert http.get("/agents/ok").json()["ok"] is True
        assert http.post("/agents/threads", json={}).status_code == 200
        assert http.put("/agents/threads").status_code == 405
        assert http.get("/agents/openapi.json").status_code == 200
        if name != "http_only":
            async with connect(f"ws{server.url.removeprefix('http')}/agents/talk") as socket:
                assert await socket.recv() == "bare"


def test_any_asgi_application_is_started_and_shut_down(tmp_path: Path) -> None:
    with served(tmp_path, app="./bare_app.py:app") as server:
        events = server.app.state.custom.app.__globals__["events"]
        assert events == ["lifespan.startup"]
    assert events == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.parametrize(("name", "says"), [("fails", "no licence"), ("breaks", "RuntimeError: no database")])
async def test_an_application_that_does_not_start_keeps_the_server_from_starting(
    tmp_path: Path, name: str, says: str
) -> None:
    app = create_app(written(tmp_path, app=f"./bare_app.py:{name}"), Settings(database="memory://"))
    with pytest.raises(ConfigurationError, match=f"http.app does not start: {says}"):
        async with app.router.lifespan_context(app):
            pass


def test_any_asgi_application_asks_who_calls_only_if_that_is_wanted(tmp_path: Path) -> None:
    auth = {"path": "./own_auth.py:auth"}
    sections = {"app": "./bare_app.py:app", "enable_custom_route_auth": True, "auth": auth}
    with served(tmp_path, **sections) as server, calling(server) as http:
        assert http.get("/mine").status_code == 401
        assert http.get("/mine", headers={"authorization": "Bearer good"}).text == "bare GET /mine"
        assert http.post("/threads", json={}).status_code == 401


@pytest.mark.parametrize("gated", [False, True])
def test_an_application_s_routes_ask_who_calls_only_if_that_is_wanted(tmp_path: Path, gated: bool) -> None:
    auth = {"path": "./own_auth.py:auth"}
    sections = {"app": "./own_app.py:app", "enable_custom_route_auth": gated, "auth": auth}
    with served(tmp_path, **sections) as server, calling(server) as http:
        assert http.get("/mine").status_code == (401 if gated else 200)
        assert http.get("/mine", headers={"authorization": "Bearer good"}).status_code == 200
        assert http.post("/threads", json={}).status_code == 401
        assert http.post("/threads", json={}, headers={"authorization": "Bearer good"}).status_code == 200


async def test_nothing_of_an_application_is_exempt_from_authentication(tmp_path: Path) -> None:
    auth = {"path": "./own_auth.py:auth"}
    sections = {"app": "./open_app.py:app", "enable_custom_route_auth": True, "auth": auth}
    with served(tmp_path, **sections) as server, calling(server) as http:
        for path in ("/", "/info", "/below/info"):
            assert http.get(path).status_code == 401, path
            assert http.get(path, headers={"authorization": "Bearer good"}).text == "mine", path
        with pytest.raises(ConnectionClosed) as closed:
            async with connect(f"ws{server.url.removeprefix('http')}/info") as socket:
                await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401
        assert "/own" not in http.get("/openapi.json").json()["paths"]
        assert http.get("/ok").status_code == 200


@pytest.mark.parametrize(("order", "sees"), [("auth_first", False), ("middleware_first", True)])
def test_middleware_sees_strangers_unless_authentication_comes_first(tmp_path: Path, order: str, sees: bool) -> None:
    auth = {"path": "./own_auth.py:auth"}
    sections = {"app": "./own_app.py:app", "middleware_order": order, "auth": auth}
    with served(tmp_path, **sections) as server, calling(server) as http:
        assert http.post("/threads/search", json={}).status_code == 401
        assert ("/threads/search" in http.get("/mine").json()["seen"]) is sees


async def test_the_official_client_works_under_a_mount_prefix(tmp_path: Path) -> None:
    with served(tmp_path, mount_prefix="/agents/v1") as server, calling(server) as http:
        client = get_client(url=f"{server.url}/agents/v1", api_key=None)
        thread = await client.threads.create()
        parts = [part.event async for part in client.runs.stream(thread["thread_id"], "seen", input={})]
        assert parts[-1] == "end"
        await client.aclose()
        outside = http.get("/ok")
        assert (outside.status_code, outside.json()["detail"]) == (
            404,
            "Not Found: the API is mounted under /agents/v1.",
        )
        assert http.get("/agents/v1x/ok").status_code == 404


def test_only_pages_of_allowed_origins_may_read_answers(tmp_path: Path) -> None:
    cors = {"allow_origins": ["https://good.example"], "allow_credentials": True, "expose_headers": ["x-mine"]}
    with served(tmp_path, cors=cors) as server, calling(server) as http:
        good = http.get("/info", headers={"origin": "https://good.example"})
        assert good.headers["access-control-allow-origin"] == "https://good.example"
        assert good.headers["access-control-allow-credentials"] == "true"
        assert "content-location" in good.headers["access-control-expose-headers"]
        assert "x-mine" in good.headers["access-control-expose-headers"]
        bad = http.get("/info", headers={"origin": "https://bad.example"})
        assert "access-control-allow-origin" not in bad.headers
        asked = {"origin": "https://bad.example", "access-control-request-method": "POST"}
        assert "access-control-allow-origin" not in http.options("/threads", headers=asked).headers


async def test_chosen_headers_reach_the_graph_and_secret_ones_never(tmp_path: Path) -> None:
    chosen = {"includes": ["x-*", "a*"], "excludes": ["x-private"]}
    with served(tmp_path, configurable_headers=chosen) as server:
        headers = {"X-Team": "red", "X-Private": "no", "X-Api-Key": "secret", "Authorization": "Bearer secret"}
        with calling(server, headers=headers) as http:
            run = {"assistant_id": "seen", "input": {}}
            seen = http.post("/runs/wait", json=run).json()["seen"]
    assert seen == {"x-team": "red"}


@pytest.mark.parametrize(
    ("chosen", "seen"), [(["*"], set()), (["x-*"], set()), (["*", "X-Auth-Token"], {"x-auth-token"})]
)
def test_no_pattern_means_a_header_that_carries_a_secret(chosen: list[str], seen: set[str]) -> None:
    secrets = {
        "x-auth-token": "t",
        "x-amz-security-token": "t",
        "X-Forwarded-Authorization": "t",
        "x-upstream": "Bearer abcdefgh",
        "cookie": "a=b",
    }
    passed = HeadersSection(includes=tuple(chosen)).passed({**secrets, "x-team": "red"})
    assert set(passed) == {"x-team", *seen}


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"logging_headers": {"includes": ["*"]}}, "no request headers are logged"),
        ({"no_such_key": True}, "no_such_key"),
        ({"mount_prefix": "agents"}, "mount_prefix"),
        ({"configurable_headers": {"includes": ["Authorization"]}}, "authorization"),
        ({"cors": {"allow_origin_regex": "("}}, "allow_origin_regex"),
        ({"app": "./own_app.py:missing"}, "missing"),
        ({"app": "./own_app.py:not_an_app"}, "is a object; it must be an ASGI application"),
        ({"app": "./bare_app.py:wsgi"}, "is a function; it must be an ASGI application"),
        ({"app": "./bare_app.py:Framework"}, "is a type; it must be an ASGI application"),
    ],
)
def test_what_cannot_be_honoured_is_named_before_the_server_starts(
    tmp_path: Path, sections: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"langgraph\.json") as raised:
        create_app(written(tmp_path, **sections), Settings(database="memory://"))
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("group", "method", "path"),
    [
        ("assistants", "POST", "/assistants/search"),
        ("threads", "POST", "/threads"),
        ("runs", "POST", "/runs/wait"),
        ("runs", "POST", "/runs/crons/search"),
        ("store", "POST", "/store/items/search"),
        ("meta", "GET", "/info"),
        ("meta", "GET", "/openapi.json"),
        ("event_streaming", "POST", "/threads/01890f3e-0000-7000-8000-000000000000/commands"),
    ],
)
def test_a_disabled_group_of_routes_is_not_there(tmp_path: Path, group: str, method: str, path: str) -> None:
    with served(tmp_path, **{f"disable_{group}": True}) as server, calling(server) as http:
        assert http.request(method, path, json={} if method == "POST" else None).status_code in (404, 405)
        assert http.get("/ok").status_code == 200


def test_webhooks_that_are_disabled_are_refused_by_name(tmp_path: Path) -> None:
    with served(tmp_path, disable_webhooks=True) as server, calling(server) as http:
        answer = http.post("/runs", json={"assistant_id": "seen", "input": {}, "webhook": "https://a.example/"})
        assert (answer.status_code, answer.json()["code"]) == (422, "unsupported_option")


async def test_a_webhook_reaches_any_asgi_application_and_never_the_api() -> None:
    seen: list[tuple[str, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["path"], (await receive())["body"]))
        await send({"type": "http.response.start", "status": 503, "headers": [(b"retry-after", b"7")]})
        await send({"type": "http.response.body", "body": b""})

    target = Target(scheme=b"", host=b"", port=None, target=b"/threads?x=1")
    answer = await CustomApp(app).post(target, [("content-type", "application/json")], b"{}")
    assert (answer.status_code, answer.retry_after) == (503, "7")
    assert seen == [("/threads", b"{}")]
