"""A real server on a real port, for as long as a ``with`` lasts, and what its tests say often."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from uuid import UUID, uuid5

import httpx
import uvicorn
from langgraph_sdk.client import LangGraphClient
from starlette.applications import Starlette

from answer_kit import CheckedClient
from runlane.agents.registry import Registry
from runlane.server.app import create_app
from runlane.server.http.requests import StreamMode
from runlane.server.process import uvicorn_config
from runlane.settings import Settings

PROJECT = Path(__file__).parent / "server" / "project" / "langgraph.json"
PATIENCE_S = 30.0
#: What the official client waits by default.
SDK_TIMEOUT = httpx.Timeout(connect=5, read=300, write=300, pool=5)
#: What a server may take to start on a machine that is busy with other things.
START_S = 60.0
#: More than any step of these tests takes: who waits for it to pass has lost.
LONG_S = 120.0
HEARTBEAT_S = 0.15
MAX_BODY_BYTES = 8 * 1024 * 1024
NOWHERE = "00000000-0000-4000-8000-000000000000"
#: Every mode of a run's stream; ``messages-tuple`` replaces ``messages``.
MODES = [mode for mode in get_args(StreamMode) if mode != "messages"]
#: Returns the address of a fresh, empty database.
NewDatabase = Callable[[], str]
_SYSTEM = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where a server is, and its application, for a look at the ledger."""

    url: str
    app: Starlette
    loop: asyncio.AbstractEventLoop

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def on_loop(self, coroutine: Any) -> Any:
        """Return what *coroutine* gives on the server's own loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE_S)

    def on_loop_soon(self, coroutine: Any) -> None:
        """Start *coroutine* on the server's own loop."""
        asyncio.run_coroutine_threadsafe(coroutine, self.loop)


@contextmanager
def running_server(
    database: str, project: Path = PROJECT, *, graphs: Mapping[str, Any] | None = None, **settings: Any
) -> Iterator[Server]:
    """Serve the tests' *project*, or *graphs* without a project, in a thread."""
    given = {"heartbeat_s": HEARTBEAT_S, "max_body_bytes": MAX_BODY_BYTES, **settings}
    registry = None if graphs is None else Registry.from_graphs(graphs)
    config_path = project if graphs is None else None
    app = create_app(
        config_path, Settings(database=database, synchronous="normal", **given), registry=registry, loopback=True
    )
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn_config(app, app.state.front, log_level="error", timeout_graceful_shutdown=2)
    loops: list[asyncio.AbstractEventLoop] = []
    ready = threading.Event()

    class Uvicorn(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            loops.append(asyncio.get_running_loop())
            ready.set()

    server = Uvicorn(config)
    thread = threading.Thread(target=lambda: server.run([listener]), name="server")
    thread.start()
    try:
        assert ready.wait(START_S), "the server does not start"
        yield Server(url=f"http://127.0.0.1:{listener.getsockname()[1]}", app=app, loop=loops[0])
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "the server does not stop"


@asynccontextmanager
async def sdk(server: Server) -> AsyncIterator[LangGraphClient]:
    """Give the official client of *server*."""
    client = LangGraphClient(CheckedClient(base_url=server.url, timeout=SDK_TIMEOUT))
    try:
        yield client
    finally:
        await client.aclose()


@dataclass(frozen=True, slots=True)
class Frame:
    """One server-sent event; a comment has the name ``:``."""

    name: str
    data: Any
    id: str | None


def parse_frames(text: str) -> list[Frame]:
    """Return the frames of a stream, which must all be whole and end with CRLF."""
    assert text.endswith("\r\n\r\n"), text[-100:]
    assert "\n" not in text.replace("\r\n", ""), "a line does not end with CRLF"
    return [_frame(part) for part in text.split("\r\n\r\n")[:-1]]


def _frame(part: str) -> Frame:
    if part.startswith(":"):
        return Frame(":", part[1:].strip(), None)
    fields = dict(line.split(": ", 1) for line in part.split("\r\n"))
    return Frame(fields["event"], json.loads(fields["data"]), fields.get("id"))


async def read_frames(http: httpx.AsyncClient, method: str, path: str, **request: Any) -> list[Frame]:
    """Return all events of a stream, read to its end, without comments."""
    response = await http.request(method, path, **request)
    assert response.status_code == 200, response.text
    return [frame for frame in parse_frames(response.text) if frame.name != ":"]


async def lines_until(response: httpx.Response, wanted: str) -> list[str]:
    """Read a stream's lines until one contains *wanted*."""
    seen: list[str] = []
    async for line in response.aiter_lines():
        seen.append(line)
        if wanted in line:
            return seen
    raise AssertionError(f"{wanted!r} never came: {seen}")


def system_id(graph_id: str) -> str:
    return str(uuid5(_SYSTEM, graph_id))


async def ended(client: LangGraphClient, run: Any) -> Any:
    """Return the run once it has ended."""
    with contextlib.suppress(httpx.HTTPStatusError):
        await client.runs.join(run["thread_id"], run["run_id"])
    return await client.runs.get(run["thread_id"], run["run_id"])


async def gone(client: LangGraphClient, path: str) -> None:
    """Ask for *path* until it is gone: the server tidies up just after it has told that a run ended."""
    while (await client.http.client.get(path)).status_code != 404:
        pass


async def begun(client: LangGraphClient, thread_id: str, **request: Any) -> Any:
    """Start a ``steps`` run that does not end by itself, and return it once its node executes."""
    given = {"assistant_id": "steps", "input": {"steps": 2, "delay_s": LONG_S}, **request}
    run = await client.runs.create(thread_id, stream_mode=["tasks"], **given)
    async for part in client.runs.join_stream(thread_id, run["run_id"], last_event_id="-1"):
        if part.event == "tasks":
            return run
    raise AssertionError("the run never began")
