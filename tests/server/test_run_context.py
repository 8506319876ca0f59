"""What a run's graph is given: the context that assistant and request make, and what a factory makes the graph by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import httpx
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import interrupt

from protocol_kit import wire
from server_kit import PATIENCE_S, NewDatabase, Server, running_server, sdk


class Seen(TypedDict, total=False):
    context: Any
    answer: str
    made_for: str


@dataclass
class Context:
    user: str = "nobody"
    n: int = 1


def look(state: Seen, runtime: Runtime[Any]) -> Seen:
    context = runtime.context
    return {"context": [context.user, context.n] if isinstance(context, Context) else context}


def ask(state: Seen) -> Seen:
    return {"answer": interrupt("go on?")}


def one_node(name: str, node: Any, schema: Any = None) -> StateGraph[Any, Any, Any, Any]:
    return StateGraph(Seen, context_schema=schema).add_node(name, node).add_edge(START, name)


def by_tenant(config: RunnableConfig) -> Any:
    """Make a graph whose node is named after the tenant, who has to be configured."""
    tenant = config["configurable"].get("tenant", "none")
    graph = StateGraph(Seen).add_node(f"ask_{tenant}", ask).add_edge(START, f"ask_{tenant}")
    return graph.compile()


def of_tenant_only(config: RunnableConfig) -> Any:
    """Fail where no tenant is configured."""
    return one_node(config["configurable"]["tenant"], ask).compile()


GRAPHS = {
    "defaults": one_node("look", look, Context),
    "free": one_node("look", look),
    "asks": one_node("ask", ask, Context).add_node("look", look).add_edge("ask", "look"),
    "asks_free": one_node("ask", ask).add_node("look", look).add_edge("ask", "look"),
    "by_tenant": by_tenant,
    "of_tenant_only": of_tenant_only,
}


@pytest.fixture(scope="module")
def server(new_database: NewDatabase) -> Iterator[Server]:
    with running_server(new_database(), graphs=GRAPHS) as running:
        yield running


async def seen(server: Server, graph: str, assistant: dict[str, Any] | None = None, **request: Any) -> Any:
    async with sdk(server) as client:
        assistant_id = graph
        if assistant is not None:
            assistant_id = (await client.assistants.create(graph, **assistant))["assistant_id"]
        return (await client.runs.wait(None, assistant_id, input={}, **request))["context"]


async def test_a_context_schema_with_defaults_only_has_them_if_no_context_is_sent(server: Server) -> None:
    assert await seen(server, "defaults") == ["nobody", 1]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, ["A", 5]),
        ({"context": {"user": "R"}}, ["R", 5]),
        ({"config": {"configurable": {"user": "R"}}}, ["R", 5]),
        ({"context": {"user": "R", "n": 6}}, ["R", 6]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", ["context", "config"])
async def test_a_requests_context_changes_the_assistants_key_by_key(
    server: Server, request_: dict[str, Any], expected: list[Any], kind: str
) -> None:
    given = {"user": "A", "n": 5}
    assistant = {"context": given} if kind == "context" else {"config": {"configurable": given}}
    assert await seen(server, "defaults", assistant, **request_) == expected


async def test_a_graph_without_a_schema_gets_the_merged_context_too(server: Server) -> None:
    merged = await seen(server, "free", {"context": {"user": "A", "n": 5}}, context={"user": "R", "other": 1})
    assert merged == {"user": "R", "n": 5, "other": 1}


@pytest.mark.parametrize(("graph", "expected"), [("asks", ["R", 7]), ("asks_free", {"user": "R", "n": 7})])
async def test_an_answer_keeps_the_context_of_the_run_that_asked(server: Server, graph: str, expected: Any) -> None:
    async with sdk(server) as client:
        thread_id = (await client.threads.create())["thread_id"]
        await client.runs.wait(thread_id, graph, input={}, context={"user": "R", "n": 7})
        [interrupts] = (await client.threads.get(thread_id))["interrupts"].values()
        async with wire(server, thread_id) as asked:
            await asked.command("input.respond", interrupt_id=interrupts[0]["id"], response="yes")
        await client.runs.join(thread_id, (await client.runs.list(thread_id))[0]["run_id"])
        values = (await client.threads.get_state(thread_id))["values"]
    assert (values["answer"], values["context"]) == ("yes", expected)


async def test_a_thread_is_read_by_the_graph_that_its_last_run_was_made_by(server: Server) -> None:
    configured = {"configurable": {"tenant": "acme"}}
    async with sdk(server) as client:
        thread_id = (await client.threads.create())["thread_id"]
        await client.runs.wait(thread_id, "by_tenant", input={}, config=configured)
        state = await client.threads.get_state(thread_id)
        assert (state["next"], [task["name"] for task in state["tasks"]]) == (["ask_acme"], ["ask_acme"])
        assert [item["value"] for item in state["interrupts"]] == ["go on?"]
        assert (await client.threads.get_history(thread_id))[0]["next"] == ["ask_acme"]
        await client.threads.update_state(thread_id, {"answer": "by hand"}, as_node="ask_acme")
        assert (await client.threads.get_state(thread_id))["values"] == {"answer": "by hand"}


async def test_an_assistants_graph_is_drawn_by_its_own_configuration(server: Server) -> None:
    async with sdk(server) as client:
        made = await client.assistants.create("of_tenant_only", config={"configurable": {"tenant": "acme"}})
        drawn = await client.assistants.get_graph(made["assistant_id"])
        assert "acme" in {node["id"] for node in drawn["nodes"]}
        assert "answer" in (await client.assistants.get_schemas(made["assistant_id"]))["output_schema"]["properties"]
        thread = await client.threads.create(
            metadata={"graph_id": "of_tenant_only", "assistant_id": made["assistant_id"]}
        )
        assert (await client.threads.get_state(thread["thread_id"]))["next"] == []


async def test_tools_of_assistants_have_the_schema_of_their_own_graph(server: Server) -> None:
    async with sdk(server) as client, httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
        await client.assistants.create("of_tenant_only", name="for acme", config={"configurable": {"tenant": "acme"}})
        asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
        headers = {"accept": "application/json, text/event-stream"}
        tools = (await http.post("/mcp", json=asked, headers=headers)).json()["result"]["tools"]
        [tool] = [one for one in tools if one["title"] == "for acme"]
        assert "answer" in tool["inputSchema"]["properties"]
