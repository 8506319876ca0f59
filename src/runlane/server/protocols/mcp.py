"""The Model Context Protocol: every assistant is a tool, every call of it a stateless run.

The transport is Streamable HTTP without sessions: one message a request, answered as JSON.

Source: Model Context Protocol, revision 2025-11-25: base protocol, transports, tools; JSON-RPC 2.0.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import InvalidRequest, NotFound
from runlane.lifecycle import EndReason, RunStatus
from runlane.records import Assistant
from runlane.server.http import answers
from runlane.server.http.requests import Body, RunCreate
from runlane.server.http.responses import Last, StreamingBody
from runlane.server.http.route import Resource, Route
from runlane.server.protocols.json_rpc import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    RpcError,
    RpcRequest,
    error_response,
    json_bytes,
    serve,
)
from runlane.server.protocols.tools import input_of, input_schema, named
from runlane.server.routes.authorization import authorize, service_of
from runlane.server.routes.new_runs import admit, prepare_run
from runlane.server.service import graph_config
from runlane.store.transactions.assistants import AssistantFilter
from runlane.streams.live import Ending

log = logging.getLogger("runlane.mcp")

#: Revisions that are spoken; the last one is offered to who speaks none of them.
REVISIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
#: Assistants that are tools; a client has no use for more.
MAX_TOOLS: Final = 1000


class McpMessage(Body):
    """A request, a notification or a response of JSON-RPC 2.0."""

    jsonrpc: str
    id: int | str | None = None
    method: str | None = None
    params: dict[str, Any] | None = None
    result: Any = None
    error: Any = None


async def message(request: Request) -> Response:
    """Answer one message of the Model Context Protocol."""
    spoken = request.headers.get("mcp-protocol-version", REVISIONS[-1])
    if spoken not in REVISIONS:
        return error_response(
            None, RpcError(INVALID_REQUEST, f"MCP-Protocol-Version {spoken!r} is not spoken here."), 400
        )
    if not _accepts_json(request.headers.get("accept", "*/*")):
        return error_response(None, RpcError(INVALID_REQUEST, "The header Accept must allow application/json."), 400)
    return await serve(request, lambda rpc: _answer(request, rpc), malformed_status=400, notifications=True)


async def _answer(request: Request, rpc: RpcRequest) -> Response:
    if rpc.method == "tools/call":
        return await _call(request, rpc)
    if rpc.method == "initialize":
        wanted = rpc.params.get("protocolVersion")
        return _result(
            rpc,
            {
                "protocolVersion": wanted if wanted in REVISIONS else REVISIONS[-1],
                "capabilities": {"tools": {"listChanged": False}},
                "serverInfo": {"name": "runlane", "version": version("runlane")},
            },
        )
    if rpc.method == "ping":
        return _result(rpc, {})
    if rpc.method == "tools/list":
        return _result(rpc, {"tools": await _tools(request)})
    raise RpcError(METHOD_NOT_FOUND, f"There is no method {rpc.method!r}.")


async def _visible(request: Request) -> tuple[str, dict[str, Assistant]]:
    """Return who asks, and the assistants that they may see by the names of their tools."""
    value: dict[str, Any] = {"graph_id": None, "metadata": {}, "limit": MAX_TOOLS, "offset": 0}
    access = await authorize(request, "assistants", "search", value)
    service = service_of(request)
    found = await service.store.assistants.search(
        owner=access.reads,
        where=AssistantFilter(metadata=value["metadata"], where=access.where),
        sort_by="created_at",
        order="asc",
        limit=MAX_TOOLS,
        offset=0,
    )
    return access.owner, named(one for one in found if one.graph_id in service.registry.graph_ids)


async def _tools(request: Request) -> list[dict[str, Any]]:
    owner, visible = await _visible(request)
    schemas: dict[str, Any] = {}
    for one in visible.values():
        if _maker(request, one) not in schemas:
            schemas[_maker(request, one)] = await _schema(request, owner, one)
    return [
        {
            "name": name,
            "title": one.name,
            "description": one.description or f"Runs the agent {one.name}.",
            "inputSchema": input_schema(schemas[_maker(request, one)]),
        }
        for name, one in visible.items()
    ]


def _maker(request: Request, assistant: Assistant) -> str:
    """Return what decides the graph: its own id, or the assistant's whose configuration a factory makes it by."""
    made = service_of(request).registry.is_made(assistant.graph_id)
    return assistant.assistant_id if made else assistant.graph_id


async def _schema(request: Request, owner: str, assistant: Assistant) -> Any:
    """Return the JSON Schema of the graph's input; any object will do for a graph that cannot be made now."""
    service, graph_id = service_of(request), assistant.graph_id
    states = service.states(owner, graph_config(assistant))
    try:
        return orjson.loads(await service.on_agents(lambda: states.schemas(graph_id)))["input_schema"]
    except Exception as error:  # the application's factory may raise anything, and the other tools are to be listed
        log.warning("mcp.no_schema graph_id=%s", graph_id, exc_info=error)
        return {"type": "object"}


async def _call(request: Request, rpc: RpcRequest) -> StreamingBody:
    """Run the tool's assistant, without a thread that stays, and answer once it has ended.

    A client that leaves does not cancel the run: the protocol has a message for that, which needs a session.
    """
    name, arguments = rpc.params.get("name"), rpc.params.get("arguments", {})
    owner, visible = await _visible(request)
    assistant = visible.get(name) if isinstance(name, str) else None
    if assistant is None:
        raise RpcError(INVALID_PARAMS, f"Unknown tool: {name!r}.")
    if not isinstance(arguments, dict):
        raise RpcError(INVALID_PARAMS, "'arguments' must be an object.")
    given = input_of(arguments, await _schema(request, owner, assistant))
    try:
        new = await prepare_run(request, RunCreate(assistant_id=assistant.assistant_id, input=given), None)
    except (InvalidRequest, NotFound) as error:
        raise RpcError(INVALID_PARAMS, str(error)) from None
    watch = (await admit(service_of(request), new)).watch

    async def pieces() -> AsyncIterator[bytes]:
        async for ending in watch.ending():
            yield b"\n" if ending is None else Last(rpc.result(_called(ending)))

    return StreamingBody(pieces(), media_type="application/json", headers={}, on_close=watch.close)


def _called(ending: Ending) -> dict[str, Any]:
    """Return the result of a call: JSON as an object and as text, or what went wrong."""
    if ending.status is not RunStatus.SUCCESS:
        error = ending.error
        text = f"{error.error}: {error.message}" if error is not None else f"The run ended as {ending.status}."
        return {"content": [{"type": "text", "text": text}], "isError": True}
    text = (ending.result or b"null").decode()
    values = orjson.loads(text)
    structured = values if isinstance(values, dict) else {"result": values}
    content = [{"type": "text", "text": text}]
    paused = ending.end_reason is EndReason.PAUSED
    if paused:
        content.insert(0, {"type": "text", "text": "The agent paused to ask, which a tool's caller cannot answer."})
    return {"content": content, "structuredContent": structured, "isError": paused}


def _accepts_json(accept: str) -> bool:
    kinds = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return bool(kinds & {"application/json", "application/*", "*/*"})


def _result(rpc: RpcRequest, result: Any) -> Response:
    return json_bytes(rpc.result(result))


MCP = Resource(
    tag="MCP",
    group="mcp",
    routes=(
        Route(
            "POST /mcp",
            message,
            answer=answers.RpcAnswer,
            success=(200, 202),
            refusals={400: answers.RpcAnswer},
            reads=McpMessage,
        ),
    ),
)
