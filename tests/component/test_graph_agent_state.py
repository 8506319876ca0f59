"""Threads are read and written through their graph, in the wire shapes of the LangGraph Server."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel

from agent_kit import Desk, decoded
from runlane.agents.graph import GraphAgent
from runlane.agents.registry import Registry
from runlane.agents.state import ThreadStates
from runlane.errors import InvalidRequest, NotFound

KEYS = {
    "values",
    "next",
    "tasks",
    "metadata",
    "created_at",
    "checkpoint",
    "parent_checkpoint",
    "interrupts",
    "checkpoint_id",
    "parent_checkpoint_id",
}


class Log(TypedDict, total=False):
    log: Annotated[list[str], lambda old, new: old + new]


class Settings(BaseModel):
    tone: str = "dry"


def step(name: str) -> Any:
    return lambda state: {"log": [name]}


def asks(state: Log) -> Log:
    return {"log": [interrupt("ok?")]}


def fails(state: Log) -> Log:
    raise ValueError("boom")


two = StateGraph(Log, context_schema=Settings).add_node("a", step("a")).add_node("b", step("b"))
two.add_edge(START, "a").add_edge("a", "b").add_edge("b", END)
inner = StateGraph(Log).add_node("ask", asks).add_edge(START, "ask").compile()
nested = StateGraph(Log).add_node("sub", inner).add_edge(START, "sub").add_edge("sub", END)
failing = StateGraph(Log).add_node("a", fails).add_edge(START, "a")
chat = StateGraph(MessagesState).add_node("a", lambda state: {"messages": []}).add_edge(START, "a")
REGISTRY = Registry.from_graphs({"two": two, "nested": nested, "failing": failing, "chat": chat})
STATES = ThreadStates(REGISTRY)


def desk(graph_id: str) -> Desk:
    return Desk(GraphAgent(REGISTRY, graph_id))


async def get(at: Desk, graph_id: str, checkpoint: Any = None, **options: Any) -> Any:
    return decoded(await STATES.get(graph_id, at.saver, at.thread_id, checkpoint, **options))


async def history(at: Desk, graph_id: str, **options: Any) -> Any:
    return decoded(await STATES.history(graph_id, at.saver, at.thread_id, **{"limit": 10, **options}))


async def test_an_empty_thread_has_no_values_and_no_checkpoint() -> None:
    state = await get(desk("two"), "two")
    assert set(state) == KEYS
    assert (state["values"], state["next"], state["checkpoint"], state["checkpoint_id"]) == ({}, [], None, None)


async def test_the_newest_state_names_its_checkpoint_and_its_parent() -> None:
    at = desk("two")
    await at.run(input={"log": []})
    state = await get(at, "two")
    assert (state["values"], state["next"], state["tasks"]) == ({"log": ["a", "b"]}, [], [])
    assert state["checkpoint"] == {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": state["checkpoint_id"]}
    assert state["parent_checkpoint"]["checkpoint_id"] == state["parent_checkpoint_id"] < state["checkpoint_id"]
    assert state["metadata"]["source"] == "loop"
    assert state["created_at"].endswith("+00:00")


async def test_a_checkpoint_is_addressed_by_its_id_or_its_address() -> None:
    at = desk("two")
    await at.run(input={"log": []})
    parent = (await get(at, "two"))["parent_checkpoint"]
    by_address = await get(at, "two", parent)
    assert by_address == await get(at, "two", parent["checkpoint_id"])
    assert (by_address["values"], by_address["next"]) == ({"log": ["a"]}, ["b"])
    assert by_address["tasks"][0]["result"] == {"log": ["b"]}


async def test_an_unknown_checkpoint_has_no_values_and_is_echoed() -> None:
    at = desk("two")
    await at.run(input={"log": []})
    unknown = "1f000000-0000-6000-8000-000000000000"
    state = await get(at, "two", unknown)
    assert (state["values"], state["checkpoint_id"]) == ({}, unknown)


async def test_a_question_stands_at_its_task_and_at_the_state() -> None:
    at = desk("nested")
    await at.run(input={"log": []})
    state = await get(at, "nested")
    [task] = state["tasks"]
    assert (task["name"], task["error"], task["state"], task["result"]) == ("sub", None, None, None)
    assert [item["value"] for item in task["interrupts"]] == ["ok?"]
    assert state["interrupts"] == task["interrupts"]
    assert task["checkpoint"] == {"thread_id": "t", "checkpoint_ns": f"sub:{task['id']}"}


async def test_subgraph_states_are_nested_if_asked_for() -> None:
    at = desk("nested")
    await at.run(input={"log": ["in"]})
    [task] = (await get(at, "nested", subgraphs=True))["tasks"]
    assert set(task["state"]) == KEYS
    assert (task["state"]["values"], task["state"]["next"]) == ({"log": ["in"]}, ["ask"])
    assert task["checkpoint"]["checkpoint_id"] == task["state"]["checkpoint_id"]


async def test_a_failed_task_shows_the_repr_of_its_error() -> None:
    at = desk("failing")
    with pytest.raises(ValueError, match="boom"):
        await at.run(input={"log": []})
    assert (await get(at, "failing"))["tasks"][0]["error"] == "ValueError('boom')"


async def test_history_is_newest_first_and_pages_by_id_address_or_config() -> None:
    at = desk("two")
    await at.run(input={"log": []})
    states = await history(at, "two")
    assert [state["values"].get("log") for state in states] == [["a", "b"], ["a"], [], []]
    assert [state["next"] for state in states] == [[], ["b"], ["a"], ["__start__"]]
    assert states[0] == await get(at, "two")
    assert await history(at, "two", limit=1) == states[:1]
    second = states[1]["checkpoint"]
    for before in (second["checkpoint_id"], second, {"configurable": second}):
        assert await history(at, "two", before=before) == states[2:]
    assert await history(at, "two", metadata={"source": "input"}) == states[3:]
    assert await history(desk("two"), "two") == []


async def test_an_update_is_written_as_a_node_and_says_where() -> None:
    at = desk("two")
    await at.run(input={"log": []})
    checkpoint, now = await STATES.update("two", at.saver, "t", {"log": ["x"]}, as_node="a", checkpoint=None)
    state = await get(at, "two")
    assert state["checkpoint"] == checkpoint
    assert (state["values"], state["next"]) == ({"log": ["a", "b", "x"]}, ["b"])
    assert (decoded(now.values), now.unfinished) == ({"log": ["a", "b", "x"]}, True)


async def test_an_update_of_an_older_checkpoint_is_a_fork() -> None:
    at = desk("two")
    await at.run(input={"log": []})
    old = (await history(at, "two"))[1]["checkpoint"]
    await STATES.update("two", at.saver, "t", {"log": ["x"]}, as_node="a", checkpoint=old)
    state = await get(at, "two")
    assert state["values"] == {"log": ["a", "x"]}
    assert state["parent_checkpoint"] == old


async def test_messages_of_an_update_may_be_json() -> None:
    at = desk("chat")
    await STATES.update(
        "chat", at.saver, "t", {"messages": [{"type": "human", "content": "hi"}]}, as_node="a", checkpoint=None
    )
    assert (await get(at, "chat"))["values"]["messages"][0]["type"] == "human"


@pytest.mark.parametrize(
    ("graph_id", "values", "as_node"),
    [
        ("two", {"log": ["x"]}, "nowhere"),
        ("two", {"log": 5}, "a"),
        ("two", "text", "a"),
        ("chat", {"messages": [{"type": "martian"}]}, "a"),
    ],
)
async def test_an_update_that_does_not_fit_is_an_invalid_request(graph_id: str, values: Any, as_node: str) -> None:
    saver = InMemorySaver()
    await STATES.update(graph_id, saver, "t", {}, as_node="a", checkpoint=None)
    with pytest.raises(InvalidRequest):
        await STATES.update(graph_id, saver, "t", values, as_node=as_node, checkpoint=None)


async def test_supersteps_build_a_thread() -> None:
    saver = InMemorySaver()
    steps = [
        {"updates": [{"values": {"log": ["in"]}, "as_node": "__input__"}]},
        {"updates": [{"values": {"log": ["in"]}, "as_node": "__start__"}]},
        {"updates": [{"command": {"update": {"log": ["a"]}}, "as_node": "a"}]},
    ]
    checkpoint, now = await STATES.bulk_update("two", saver, "t", steps)
    assert decoded(now.values) == {"log": ["in", "a"]}
    assert now.unfinished
    assert decoded(await STATES.get("two", saver, "t"))["checkpoint"] == checkpoint


async def test_a_snapshot_is_that_of_the_newest_state() -> None:
    at = desk("nested")
    assert (await at.run(input={"log": []})) == await STATES.snapshot("nested", at.saver, "t")


async def test_a_drawing_has_nodes_and_edges_and_xray_shows_subgraphs() -> None:
    flat = decoded(await STATES.draw("nested"))
    assert [(node["id"], node["data"]["name"]) for node in flat["nodes"]] == [
        ("__start__", "__start__"),
        ("sub", "sub"),
        ("__end__", "__end__"),
    ]
    assert flat["edges"] == [{"source": "__start__", "target": "sub"}, {"source": "sub", "target": "__end__"}]
    assert "sub:ask" in [node["id"] for node in decoded(await STATES.draw("nested", xray=True))["nodes"]]


async def test_schemas_are_json_schemas_and_null_where_there_is_none() -> None:
    schemas = decoded(await STATES.schemas("two"))
    assert schemas["graph_id"] == "two"
    for name in ("input_schema", "output_schema", "state_schema"):
        assert "log" in schemas[name]["properties"]
    assert "tone" in schemas["context_schema"]["properties"]
    assert schemas["config_schema"] == schemas["context_schema"]
    assert decoded(await STATES.schemas("chat"))["context_schema"] is None


async def test_subgraphs_have_schemas_by_namespace() -> None:
    subgraphs = json.loads(await STATES.subgraphs("nested"))
    assert list(subgraphs) == ["sub"]
    assert "log" in subgraphs["sub"]["input_schema"]["properties"]
    assert json.loads(await STATES.subgraphs("nested", namespace="other")) == {}


async def test_an_unknown_graph_is_not_found() -> None:
    with pytest.raises(NotFound):
        await STATES.get("other", InMemorySaver(), "t")
