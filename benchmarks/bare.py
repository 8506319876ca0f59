"""The floor: LangGraph behind a minimal handler, in memory, without any management of runs.

It answers just what the cases ``wait``, ``ttfe``, ``stream``, ``fanout``, ``idle`` and ``steps`` ask for. Nothing is
recorded; no run can be found, joined or cancelled. What a run manager costs is its distance from this.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
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

GRAPHS = ("noop", "tokens", "sleeper", "steps")
#: LangGraph's names of the API's stream modes, where they differ.
MODES = {"messages-tuple": "messages"}


def encode(value: object) -> bytes:
    return orjson.dumps(value, default=_plain)


def _plain(value: object) -> dict[str, Any]:
    if isinstance(value, BaseMessage):
        return value.model_dump()
    raise TypeError(f"{type(value).__name__} has no JSON form")


class BareServer:
    """Three routes over four graphs that share one saver in memory."""

    def __init__(self) -> None:
        saver = InMemorySaver()
        self._graphs = {name: getattr(graphs, name).copy({"checkpointer": saver}) for name in GRAPHS}

    async def ok(self, request: Request) -> Response:
        return _json({"ok": True})

    async def create_thread(self, request: Request) -> Response:
        return _json({"thread_id": str(uuid4())})

    async def wait(self, request: Request) -> Response:
        body = orjson.loads(await request.body())
        return _json(await self._graphs[body["assistant_id"]].ainvoke(body["input"], _config(request)))

    async def stream(self, request: Request) -> Response:
        body = orjson.loads(await request.body())
        asked = body["stream_mode"][0]
        mode = MODES.get(asked, asked)
        items = self._graphs[body["assistant_id"]].astream(body["input"], _config(request), stream_mode=mode)
        return StreamingResponse(_frames(mode, items), media_type="text/event-stream")


async def _frames(mode: str, items: AsyncIterator[object]) -> AsyncIterator[bytes]:
    head = f"event: {mode}\r\ndata: ".encode()
    yield b'event: metadata\r\ndata: {"run_id":"bare","attempt":1}\r\n\r\n'
    async for item in items:
        yield head + encode(item) + b"\r\n\r\n"


def _config(request: Request) -> dict[str, Any]:
    return {"configurable": {"thread_id": request.path_params["thread_id"]}, "recursion_limit": 1000}


def _json(value: object) -> Response:
    return Response(encode(value), media_type="application/json")


def create_app() -> Starlette:
    server = BareServer()
    return Starlette(
        routes=[
            Route("/ok", server.ok),
            Route("/threads", server.create_thread, methods=["POST"]),
            Route("/threads/{thread_id}/runs/wait", server.wait, methods=["POST"]),
            Route("/threads/{thread_id}/runs/stream", server.stream, methods=["POST"]),
        ]
    )
