"""The Model Context Protocol: assistants are tools, and what they answer is JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from auth_kit import bearer, keyed_server
from runlane.records import Assistant
from runlane.server.protocols.tools import input_of, input_schema, named
from server_kit import NOWHERE

LISTED = {"type": "array", "items": {"$ref": "#/$defs/Message"}}


async def rpc(http: httpx.AsyncClient, method: str, path: str = "/mcp", **params: Any) -> dict[str, Any]:
    response = await http.post(path, json={"jsonrpc": "2.0", "id": 7, "method": method, "params": params})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("application/json")
    answer = response.json()
    assert answer.keys() in ({"jsonrpc", "id", "result"}, {"jsonrpc", "id", "error"})
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", 7)
    return dict(answer)


async def call(http: httpx.AsyncClient, name: str, **arguments: Any) -> Any:
    return (await rpc(http, "tools/call", name=name, arguments=arguments))["result"]


@pytest.mark.parametrize("path", ["/mcp", "/mcp/"])
@pytest.mark.parametrize(
    ("wanted", "spoken"), [("2025-03-26", "2025-03-26"), ("2025-11-25", "2025-11-25"), ("1999-01-01", "2025-11-25")]
)
async def test_a_client_is_answered_in_its_revision_or_offered_the_newest(
    http: httpx.AsyncClient, path: str, wanted: str, spoken: str
) -> None:
    result = (await rpc(http, "initialize", path, protocolVersion=wanted))["result"]

    assert result["protocolVersion"] == spoken
    assert result["serverInfo"]["name"] == "runlane"
    assert result["capabilities"] == {"tools": {"listChanged": False}}
    assert (await rpc(http, "ping", path))["result"] == {}


async def test_every_assistant_is_a_tool_whose_messages_are_a_text(
    http: httpx.AsyncClient, client: LangGraphClient
) -> None:
    mine = await client.assistants.create("chat", name="Météo & more!", description="Tells the weather.")
    tools = {tool["name"]: tool for tool in (await rpc(http, "tools/list"))["result"]["tools"]}

    assert tools["chat"]["inputSchema"]["properties"]["messages"]["type"] == "string"
    assert tools["steps"]["inputSchema"]["properties"]["steps"]["type"] == "integer"
    assert tools["M_t_o_more"]["description"] == "Tells the weather."
    assert tools["M_t_o_more"]["title"] == "Météo & more!"
    await client.assistants.delete(mine["assistant_id"])
    assert "M_t_o_more" not in {tool["name"] for tool in (await rpc(http, "tools/list"))["result"]["tools"]}


async def test_a_call_runs_the_assistant_and_answers_json_as_an_object_and_as_text(
    http: httpx.AsyncClient, client: LangGraphClient
) -> None:
    before = await client.threads.count()
    said = await call(http, "chat", messages="hello")
    listed = await call(http, "chat", messages=[{"role": "user", "content": "listed"}])
    stepped = await call(http, "steps", steps=2)

    assert said["isError"] is False
    assert said["structuredContent"]["messages"][-1]["content"] == "echo: hello"
    assert json.loads(said["content"][0]["text"]) == said["structuredContent"]
    assert listed["structuredContent"]["messages"][-1]["content"] == "echo: listed"
    assert stepped["structuredContent"]["done"] == [0, 1]
    while await client.threads.count() > before:  # the server tidies up just after it has answered
        pass


async def test_a_run_that_fails_is_an_error_with_its_class_and_message(http: httpx.AsyncClient) -> None:
    failed = await call(http, "failing")
    hidden = await call(http, "failing", kind="custom")

    assert failed == {"content": [{"type": "text", "text": "ValueError: boom"}], "isError": True}
    assert hidden["content"][0]["text"] == "ProviderError: An internal error occurred"


async def test_an_agent_that_pauses_to_ask_is_no_success(http: httpx.AsyncClient) -> None:
    paused = await call(http, "approval", topic="pay")

    assert paused["isError"] is True
    assert "cannot answer" in paused["content"][0]["text"]
    assert len(paused["structuredContent"]["__interrupt__"]) == 1


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("tools/call", {"name": "no such", "arguments": {}}, -32602),
        ("tools/call", {"arguments": {}}, -32602),
        ("tools/call", {"name": "chat", "arguments": "hello"}, -32602),
        ("tools/call", [], -32602),
        ("resources/list", {}, -32601),
    ],
)
async def test_what_there_is_not_is_an_error_of_json_rpc(
    http: httpx.AsyncClient, method: str, params: Any, code: int
) -> None:
    response = await http.post("/mcp", json={"jsonrpc": "2.0", "id": "a", "method": method, "params": params})

    assert response.status_code == 200
    assert response.json()["id"] == "a"
    assert response.json()["error"]["code"] == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"[]", -32600),
        (b"{}", -32600),
        (b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}', -32600),
        (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}', -32600),
        (b'{"jsonrpc": "2.0", "id": true, "method": "ping"}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": 1}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1}', -32600),
    ],
)
async def test_what_is_no_message_is_refused(http: httpx.AsyncClient, body: bytes, code: int) -> None:
    response = await http.post("/mcp", content=body)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == code
    assert response.json()["id"] is None


@pytest.mark.parametrize("header", [{"accept": "text/event-stream"}, {"mcp-protocol-version": "1999-01-01"}])
async def test_headers_that_cannot_be_honoured_are_refused(http: httpx.AsyncClient, header: dict[str, str]) -> None:
    response = await http.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "ping"}, headers=header)

    assert response.status_code == 400


@pytest.mark.parametrize(
    "message",
    [
        {"method": "notifications/initialized"},
        {"method": "notifications/cancelled", "params": {"requestId": 1}},
        {"id": 1, "result": {}},
        {"id": 1, "error": {"code": 1, "message": "no"}},
    ],
)
async def test_notifications_and_responses_are_taken_without_an_answer(
    http: httpx.AsyncClient, message: dict[str, Any]
) -> None:
    response = await http.post("/mcp", json={"jsonrpc": "2.0", **message})

    assert (response.status_code, response.content) == (202, b"")


@pytest.mark.parametrize("path", ["/mcp", "/mcp/"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_there_is_no_stream_and_no_session(http: httpx.AsyncClient, method: str, path: str) -> None:
    response = await http.request(method, path)

    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


def test_each_owner_has_their_own_tools(tmp_path: Path) -> None:
    with keyed_server(tmp_path, "ada", "bob") as (server, keys), httpx.Client(base_url=server.url) as plain:
        ada, bob = bearer(keys["ada"]), bearer(keys["bob"])
        plain.post("/assistants", json={"graph_id": "chat", "name": "hers"}, headers=ada).raise_for_status()
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        names = [
            {tool["name"] for tool in plain.post("/mcp", json=message, headers=who).json()["result"]["tools"]}
            for who in (ada, bob)
        ]
        used = {**message, "method": "tools/call", "params": {"name": "hers", "arguments": {"messages": "hi"}}}
        called = [plain.post("/mcp", json=used, headers=who).json() for who in (ada, bob)]
        nobody = plain.post("/mcp", json=message)

    assert names[0] - names[1] == {"hers"}
    assert called[0]["result"]["structuredContent"]["messages"][-1]["content"] == "echo: hi"
    assert called[1]["error"]["code"] == -32602
    assert nobody.status_code == 401


def assistant(name: str, assistant_id: str) -> Assistant:
    return Assistant(assistant_id=assistant_id, name=name, **dict.fromkeys(REST))


REST = Assistant.__dataclass_fields__.keys() - {"assistant_id", "name"}


def test_names_of_tools_are_short_plain_and_each_there_once() -> None:
    ids = [f"{n:08d}{NOWHERE[8:]}" for n in range(5)]
    names = list(named(map(assistant, ["a b", "a.b", "x" * 100, "x" * 100, "été"], ids)))

    assert names == ["a_b", "a_b_00000001", "x" * 64, "x" * 55 + "_00000003", "t"]
    assert list(named([assistant("日本", ids[0])])) == ["assistant"]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (None, {"type": "object", "properties": {"input": {}}, "required": ["input"]}),
        ({"type": "string"}, {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}),
        (
            {
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/A"}},
                "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {}, "C": {}},
            },
            {
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/A"}},
                "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {}},
            },
        ),
    ],
)
def test_the_arguments_of_a_tool_are_an_object_with_the_definitions_that_it_uses(
    schema: Any, expected: dict[str, Any]
) -> None:
    assert input_schema(schema) == expected


def test_arguments_become_the_graphs_input() -> None:
    schema = {"type": "object", "properties": {"messages": LISTED}, "$defs": {"Message": {"type": "object"}}}

    assert "$defs" not in input_schema(schema)
    assert input_of({"messages": "hi", "n": 1}, schema) == {"messages": [{"role": "user", "content": "hi"}], "n": 1}
    assert input_of({"messages": "hi"}, {"type": "object"}) == {"messages": "hi"}
    assert input_of({"input": 3}, {"type": "integer"}) == 3
    assert input_of({}, None) is None
