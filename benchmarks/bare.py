"""The floor: LangGraph behind a minimal handler, without any management of runs.

It answers just what the cases ask for that need no run manager: runs that are waited for or streamed. No run is
recorded; none can be found, joined or cancelled. What a run manager costs is its distance from this. ``BARE_SAVER``
names the checkpointer: ``memory``, ``sqlite:PATH``, or a PostgreSQL URL.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import Any
from uuid import uuid4

import orjson
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.memory import InMemorySaver
from project import graphs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

GRAPHS = ("noop", "tokens", "sleeper", "steps", "chat", "filler")
#: LangGraph's names of the API's stream modes, where they differ.
MODES = {"messages-tuple": "messages"}


def encode(value: object) -> bytes:
    return orjson.dumps(value, default=_plain)


def _plain(value: object) -> dict[str, Any]:
    if isinstance(value, BaseMessage):
        return value.model_dump()
    raise TypeError(f"{type(value).__name__} has no JSON form")


async def open_saver(address: str, stack: AsyncExitStack) -> Any:
    """Open a checkpointer as its documentation does it; the packages are there only where they are measured."""
    if address == "memory":
        return InMemorySaver()
    if address.startswith("sqlite:"):
        saver_of = import_module("langgraph.checkpoint.sqlite.aio").AsyncSqliteSaver.from_conn_string
        return await stack.enter_async_context(saver_of(address.removeprefix("sqlite:")))
    rows = import_module("psycopg.rows")
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": rows.dict_row}
    pool_class = import_module("psycopg_pool").AsyncConnectionPool
    pool = await stack.enter_async_context(pool_class(address, min_size=4, max_size=20, kwargs=options, open=False))
    return import_module("langgraph.checkpoint.postgres.aio").AsyncPostgresSaver(pool)


class BareServer:
    """Three routes over graphs that share one saver."""

    def __init__(self) -> None:
        self._graphs: dict[str, Any] = {}

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            saver = await open_saver(os.environ.get("BARE_SAVER", "memory"), stack)
            if hasattr(saver, "setup"):
                await saver.setup()
            self._graphs = {name: getattr(graphs, name).copy({"checkpointer": saver}) for name in GRAPHS}
            yield

    async def ok(self, request: Request) -> Response:
        return _json({"ok": True})

    async def create_thread(self, request: Request) -> Response:
        return _json({"thread_id": str(uuid4())})

    async def wait(self, request: Request) -> Response:
        body = orjson.loads(await request.body())
        return _json(await self._graphs[body["assistant_id"]].ainvoke(body["input"], _config(request)))

    async def stream(self, request: Request) -> Response:
        body = orjson.loads(await request.body())
        modes = [MODES.get(asked, asked) for asked in body["stream_mode"]]
        items = self._graphs[body["assistant_id"]].astream(body["input"], _config(request), stream_mode=modes)
        return StreamingResponse(_frames(items), media_type="text/event-stream")


async def _frames(items: AsyncIterator[tuple[str, object]]) -> AsyncIterator[bytes]:
    yield b'event: metadata\r\ndata: {"run_id":"bare","attempt":1}\r\n\r\n'
    async for mode, item in items:
        yield f"event: {mode}\r\ndata: ".encode() + encode(item) + b"\r\n\r\n"


def _config(request: Request) -> dict[str, Any]:
    return {"configurable": {"thread_id": request.path_params["thread_id"]}, "recursion_limit": 1000}


def _json(value: object) -> Response:
    return Response(encode(value), media_type="application/json")


def create_app() -> Starlette:
    server = BareServer()
    return Starlette(
        lifespan=server.lifespan,
        routes=[
            Route("/ok", server.ok),
            Route("/threads", server.create_thread, methods=["POST"]),
            Route("/threads/{thread_id}/runs/wait", server.wait, methods=["POST"]),
            Route("/threads/{thread_id}/runs/stream", server.stream, methods=["POST"]),
        ],
    )
