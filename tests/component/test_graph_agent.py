"""A graph runs as an agent: what it is called with, what it emits, how it pauses, drains and goes on."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict
from uuid import UUID

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.errors import GraphRecursionError
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, Send, interrupt

from agent_kit import Desk, StrictModel, decoded, run_record
from runlane.agents.encode import Unserialisable
from runlane.agents.graph import GraphAgent
from runlane.agents.invocation import run_config, run_input
from runlane.agents.registry import Registry
from runlane.outcomes import Drained, Snapshot
from runlane.requests import RunRequest


class Log(TypedDict, total=False):
    log: Annotated[list[str], lambda old, new: old + new]
    n: int


def desk(graph: Any) -> Desk:
    return Desk(GraphAgent(Registry.from_graphs({"g": graph}), "g"))


def chain(*names: str, **nodes: Any) -> StateGraph[Any]:
    """Make a graph of nodes one after the other; each logs its name unless it is given."""
    graph = StateGraph(Log)
    for name in names:
        graph.add_node(name, nodes.get(name) or (lambda state, name=name: {"log": [name]}))
    for before, after in zip((START, *names), (*names, END), strict=True):
        graph.add_edge(before, after)
    return graph


def chat(reply: str = "well hello there") -> StateGraph[Any]:
    model = StrictModel(replies=[AIMessage(reply)])

    async def agent(state: MessagesState) -> dict[str, list[BaseMessage]]:
        get_stream_writer()({"progress": 1})
        return {"messages": [await model.ainvoke(state["messages"])]}

    return StateGraph(MessagesState).add_node("agent", agent).add_edge(START, "agent").add_edge("agent", END)


# ------------------------------------------------------------------------------------------------------ stream modes


async def test_the_default_stream_is_the_state_after_each_step_and_the_last_one_is_the_result() -> None:
    at = desk(chain("a", "b"))
    snapshot = await at.run(input={"log": ["in"]})
    assert at.events == [
        ("values", {"log": ["in"]}),
        ("values", {"log": ["in", "a"]}),
        ("values", {"log": ["in", "a", "b"]}),
    ]
    assert decoded(snapshot.values) == decoded(snapshot.result) == {"log": ["in", "a", "b"]}
    assert (snapshot.paused, snapshot.unfinished, snapshot.interrupts) == (False, False, {})


async def test_values_are_not_emitted_unless_asked_for_but_still_are_the_result() -> None:
    at = desk(chain("a"))
    snapshot = await at.run(input={"log": []}, stream_mode=["updates"])
    assert at.events == [("updates", {"a": {"log": ["a"]}})]
    assert decoded(snapshot.values) == {"log": ["a"]}


async def test_messages_tuple_gives_each_token_with_its_metadata_under_the_name_messages() -> None:
    at = desk(chat())
    run = run_record(input={"messages": [("user", "hi")]}, stream_mode=["messages-tuple"], run_metadata={"who": "ann"})
    await at.agent.run(at.call(run))
    assert set(at.names) == {"messages"}
    chunks = [chunk for chunk, _ in at.of("messages")]
    assert [chunk["content"] for chunk in chunks] == ["well", " hello", " there", ""]
    assert {chunk["type"] for chunk in chunks} == {"AIMessageChunk"}
    assert chunks[-1]["chunk_position"] == "last"
    assert len({chunk["id"] for chunk in chunks}) == 1
    metadata = at.of("messages")[0][1]
    wanted = {
        "run_id": run.run_id,
        "thread_id": "t",
        "graph_id": "g",
        "assistant_id": "assistant-1",
        "run_attempt": 1,
        "langgraph_node": "agent",
        "langgraph_step": 1,
        "who": "ann",
    }
    assert {key: metadata[key] for key in wanted} == wanted


async def test_messages_gives_the_text_so_far_after_its_metadata() -> None:
    at = desk(chat())
    await at.run(input={"messages": [("user", "hi")]}, stream_mode=["messages"])
    assert at.names == ["messages/metadata", *["messages/partial"] * 4]
    assert [message["content"] for [message] in at.of("messages/partial")] == [
        "well",
        "well hello",
        "well hello there",
        "well hello there",
    ]
    [message] = at.of("messages/partial")[-1]
    assert message["type"] == "ai"
    assert list(at.of("messages/metadata")[0]) == [message["id"]]


async def test_messages_gives_a_message_that_was_not_streamed_as_complete() -> None:
    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("ready-made", id="m1")]}

    at = desk(StateGraph(MessagesState).add_node("a", node).add_edge(START, "a"))
    await at.run(input={"messages": []}, stream_mode=["messages"])
    assert at.names == ["messages/metadata", "messages/complete"]
    assert [m["id"] for m in at.of("messages/complete")[0]] == ["m1"]


async def test_of_both_message_modes_only_tuples_are_sent() -> None:
    at = desk(chat())
    await at.run(input={"messages": [("user", "hi")]}, stream_mode=["messages", "messages-tuple"])
    assert set(at.names) == {"messages"}


async def test_custom_gives_what_the_node_wrote() -> None:
    at = desk(chat())
    await at.run(input={"messages": [("user", "hi")]}, stream_mode=["custom"])
    assert at.events == [("custom", {"progress": 1})]


async def test_tasks_checkpoints_and_debug_have_langgraphs_shapes() -> None:
    at = desk(chain("a"))
    await at.run(input={"log": []}, stream_mode=["tasks", "checkpoints", "debug"])
    start, end = at.of("tasks")
    assert (start["name"], end["name"], end["error"], end["interrupts"]) == ("a", "a", None, [])
    assert end["result"] == {"log": ["a"]}
    last = at.of("checkpoints")[-1]
    assert (last["values"], last["next"]) == ({"log": ["a"]}, [])
    debug = [event["payload"] for event in at.of("debug") if event["type"] == "checkpoint"][-1]
    address = {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": last["config"]["configurable"]["checkpoint_id"]}
    assert debug["checkpoint"] == address
    assert debug["parent_checkpoint"]["checkpoint_id"] < address["checkpoint_id"]


async def test_events_are_langchains_and_other_modes_ride_along() -> None:
    at = desk(chat())
    snapshot = await at.run(input={"messages": [("user", "hi")]}, stream_mode=["events", "updates"])
    kinds = [event["event"] for event in at.of("events")]
    assert kinds[0] == "on_chain_start"
    assert kinds[-1] == "on_chain_end"
    assert kinds.count("on_chat_model_stream") == 4
    assert [list(update) for update in at.of("updates")] == [["agent"]]
    assert at.of("values") == []
    assert decoded(snapshot.values)["messages"][-1]["content"] == "well hello there"


async def test_subgraph_parts_carry_their_namespace_in_the_name_only_if_asked_for() -> None:
    parent = StateGraph(Log).add_node("sub", chain("inner").compile()).add_edge(START, "sub").add_edge("sub", END)
    at = desk(parent)
    await at.run(input={"log": []}, stream_mode=["updates"])
    assert at.names == ["updates"]
    await at.run(input={"log": []}, stream_mode=["updates", "values"], stream_subgraphs=True)
    inner = [name for name in at.names if name.startswith("updates|sub:")]
    assert len(inner) == 1
    assert UUID(inner[0].removeprefix("updates|sub:"))
    assert at.names[-1] == "values"


async def test_an_event_without_json_form_ends_the_run_with_an_error_that_names_the_type() -> None:
    def node(state: Log) -> Log:
        get_stream_writer()(threading.Lock())
        return {"log": ["a"]}

    with pytest.raises(Unserialisable, match=r"_thread\.lock"):
        await desk(chain("a", a=node)).run(input={"log": []}, stream_mode=["custom"])


@pytest.mark.parametrize("new_saver", [InMemorySaver, lambda: None])
async def test_state_without_json_form_ends_the_run_with_an_error_that_names_the_type(new_saver: Any) -> None:
    at = desk(chain("a", a=lambda state: {"log": [threading.Lock()]}))
    at.saver = new_saver()
    call = at.call(run_record(input={"log": []}))
    with pytest.raises(TypeError, match=r"_thread\.lock"):
        await at.agent.run(call)
    assert isinstance(await at.agent.repair(call), Snapshot)


async def test_a_congested_stream_holds_the_graph_back() -> None:
    waits = 0

    async def ready() -> None:
        nonlocal waits
        waits += 1

    at = desk(chain("a", "b"))
    call = at.call(run_record(input={"log": []}))
    congested = type(call)(run=call.run, emit=call.emit, saver=call.saver, congested=lambda: True, ready=ready)
    await at.agent.run(congested)
    assert waits == len(at.events)


# --------------------------------------------------------------------------------------------------------- invocation


async def test_the_shared_graph_is_not_touched_by_a_run() -> None:
    graph = chain("a").compile()
    at = desk(graph)
    await at.run(input={"log": []})
    assert (graph.checkpointer, graph.store) == (None, None)


async def test_nodes_get_the_runs_ids_its_store_and_its_context() -> None:
    seen: dict[str, Any] = {}

    @dataclass
    class Settings:
        tone: str

    def node(state: Log, config: RunnableConfig, runtime: Runtime[Settings]) -> Log:
        seen.update(config["configurable"], tone=runtime.context.tone, store=runtime.store)
        return {"log": []}

    graph = StateGraph(Log, context_schema=Settings).add_node("a", node).add_edge(START, "a")
    at = desk(graph)
    at.store = InMemoryStore()
    run = run_record(input={"log": []}, context={"tone": "dry", "other": 1, "__pregel_store": "x"})
    await at.agent.run(at.call(run))
    assert {key: seen[key] for key in ("run_id", "thread_id", "graph_id", "assistant_id", "tone")} == {
        "run_id": run.run_id,
        "thread_id": "t",
        "graph_id": "g",
        "assistant_id": "assistant-1",
        "tone": "dry",
    }
    assert seen["store"] is at.store
    assert "other" not in seen


async def test_a_context_may_come_by_configurable() -> None:
    seen: list[Any] = []

    class Settings(TypedDict):
        tone: str

    def node(state: Log, runtime: Runtime[Settings]) -> Log:
        seen.append(runtime.context)
        return {"log": []}

    at = desk(StateGraph(Log, context_schema=Settings).add_node("a", node).add_edge(START, "a"))
    await at.run(input={"log": []}, config={"configurable": {"tone": "dry", "other": 1}})
    assert seen == [{"tone": "dry"}]


def test_keys_that_only_the_server_writes_are_stripped_from_what_a_client_sends() -> None:
    run = run_record(
        config={
            "configurable": {"mine": 1, "__pregel_checkpointer": 1, "langgraph_auth_user": 1, "thread_id": "other"},
            "metadata": {"run_id": "other", "thread_id": "other", "mine": 1},
            "callbacks": ["evil"],
            "recursion_limit": 7,
            "tags": ["t"],
        },
        run_metadata={"assistant_id": "other", "who": "ann"},
    )
    config = run_config(run, "g")
    ids = {"run_id": run.run_id, "thread_id": "t", "graph_id": "g", "assistant_id": "assistant-1"}
    nobody = {
        "user_id": "",
        "langgraph_auth_user": None,
        "langgraph_auth_user_id": "",
        "langgraph_auth_permissions": [],
        "langgraph_request_id": run.run_id,
    }
    assert config["configurable"] == {"mine": 1, **ids, **nobody}
    metadata = dict(config["metadata"])
    assert metadata.pop("langgraph_version")
    assert metadata == {"mine": 1, "who": "ann", "run_attempt": 1, **ids}
    assert (config["recursion_limit"], config["tags"], config["callbacks"]) == (7, ["t"], [])
    assert config["run_id"] == UUID(run.run_id)


@pytest.mark.parametrize(
    ("request_", "value"),
    [
        ({"input": {"a": 1}}, {"a": 1}),
        ({"input": None}, None),
        ({}, None),
        ({"input": {}, "command": {}}, {}),
        ({"input": {"a": 1}, "command": {"resume": None}}, {"a": 1}),
        ({"input": {}, "command": {"resume": 0}}, Command(resume=0)),
        ({"command": {"update": {"a": 1}}}, Command(update={"a": 1})),
        ({"command": {"update": [["a", 1]]}}, Command(update=[("a", 1)])),
        ({"command": {"goto": "x"}}, Command(goto=["x"])),
        ({"command": {"goto": {"node": "x", "input": 1}}}, Command(goto=[Send("x", 1)])),
        ({"command": {"goto": ["x", {"node": "y"}]}}, Command(goto=["x", Send("y", None)])),
    ],
)
def test_a_command_wins_over_the_input(request_: dict[str, Any], value: Any) -> None:
    assert run_input(RunRequest.of(request_)) == value


async def test_the_recursion_limit_is_the_clients() -> None:
    at = desk(chain("a", "b", "c"))
    with pytest.raises(GraphRecursionError):
        await at.run(input={"log": []}, config={"recursion_limit": 2})


async def test_a_checkpoint_forks_the_thread() -> None:
    at = desk(chain("a"))
    await at.run(input={"log": ["first"]}, stream_mode=["checkpoints"])
    fork = at.of("checkpoints")[-1]["config"]["configurable"]["checkpoint_id"]
    await at.run(input={"log": ["second"]})
    forked = await at.run(input={"log": ["other"]}, checkpoint={"checkpoint_id": fork, "checkpoint_ns": ""})
    assert decoded(forked.values) == {"log": ["first", "a", "other", "a"]}


async def test_durability_exit_writes_one_checkpoint() -> None:
    at = desk(chain("a", "b"))
    await at.run(input={"log": []}, durability="exit")
    assert await at.checkpoints() == 1


async def test_a_graph_runs_without_a_saver() -> None:
    at = desk(chain("a"))
    at.saver = None
    assert decoded((await at.run(input={"log": []})).values) == {"log": ["a"]}


# -------------------------------------------------------------------------------------------- pauses, drain, continue


async def test_an_interrupt_pauses_the_run_and_is_in_its_result() -> None:
    at = desk(chain("a", a=lambda state: {"log": [interrupt({"ask": "ok?"})]}))
    paused = await at.run(input={"log": []}, stream_mode=["values", "updates"])
    [(task_id, [question])] = paused.interrupts.items()
    assert UUID(task_id)
    assert question["value"] == {"ask": "ok?"}
    assert (paused.paused, paused.unfinished) == (True, True)
    assert decoded(paused.values) == {"log": []}
    shown = {"value": {"ask": "ok?"}, "id": question["id"], "response_schema": None}
    assert decoded(paused.result) == {"log": [], "__interrupt__": [shown]}
    assert at.of("values")[-1] == {"log": [], "__interrupt__": [shown]}
    assert at.of("updates") == [{"__interrupt__": [shown]}]
    answered = await at.run(input={}, command={"resume": {question["id"]: "yes"}})
    assert decoded(answered.values) == {"log": ["yes"]}
    assert not answered.paused


async def test_several_interrupts_are_the_whole_result() -> None:
    graph = StateGraph(Log)
    for name in ("a", "b"):
        graph.add_node(name, lambda state, name=name: {"log": [interrupt(name)]}).add_edge(START, name)
    paused = await desk(graph).run(input={"log": []})
    assert sorted(item["value"] for item in decoded(paused.result)["__interrupt__"]) == ["a", "b"]
    assert set(decoded(paused.result)) == {"__interrupt__"}
    assert len(paused.interrupts) == 2


@pytest.mark.parametrize(
    "where",
    [{"interrupt_before": ["b"]}, {"interrupt_after": ["a"]}, {"interrupt_before": ["b"], "stream_mode": ["custom"]}],
)
async def test_a_breakpoint_pauses_without_a_question_and_no_input_passes_it(where: dict[str, Any]) -> None:
    at = desk(chain("a", "b"))
    paused = await at.run(input={"log": []}, **where)
    assert (paused.paused, paused.unfinished, paused.interrupts) == (True, True, {})
    assert decoded(paused.result) == {"log": ["a"]}
    assert decoded((await at.run(input=None)).values) == {"log": ["a", "b"]}


async def test_a_breakpoint_after_the_last_node_is_no_pause() -> None:
    assert not (await desk(chain("a")).run(input={"log": []}, interrupt_after="*")).paused


async def test_a_breakpoint_inside_a_subgraph_pauses_the_run() -> None:
    inner = chain("x", "y").compile(interrupt_before=["y"])
    parent = StateGraph(Log).add_node("sub", inner).add_edge(START, "sub").add_edge("sub", END)
    assert (await desk(parent).run(input={"log": []})).paused


async def test_a_drain_stops_between_two_steps_and_the_next_attempt_repeats_none() -> None:
    calls: list[str] = []

    def node(name: str) -> Any:
        def run(state: Log) -> Log:
            calls.append(name)
            if name == "a" and len(calls) == 1:
                at.drain.request()
            return {"log": [name]}

        return run

    at = desk(chain("a", "b", "c", a=node("a"), b=node("b"), c=node("c")))
    run = run_record(input={"log": ["in"]})
    with pytest.raises(Drained):
        await at.agent.run(at.call(run))
    next_process = Desk(at.agent, saver=at.saver)
    after = await next_process.agent.run(
        next_process.call(run_record(run_id=run.run_id, attempt=2, input={"log": ["in"]}))
    )
    assert calls == ["a", "b", "c"]
    assert decoded(after.values) == {"log": ["in", "a", "b", "c"]}


async def stop_at(at: Desk, began: asyncio.Event, **request: Any) -> str:
    """Let a run die while its node works, and return its id."""
    run = run_record(**request)
    task = asyncio.ensure_future(at.agent.run(at.call(run)))
    await began.wait()
    task.cancel()
    await asyncio.wait([task])
    return run.run_id


async def test_a_continued_run_applies_its_command_once() -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def late(state: Log) -> Log:
        began.set()
        await go.wait()
        return {"log": ["late"]}

    at = desk(chain("ask", "late", ask=lambda state: {"log": [interrupt("?")]}, late=late))
    await at.run(input={"log": []})
    command = {"resume": "yes", "update": {"log": ["noted"]}}
    run_id = await stop_at(at, began, command=command)
    go.set()
    after = await at.agent.run(at.call(run_record(run_id=run_id, attempt=2, command=command)))
    assert decoded(after.values) == {"log": ["noted", "yes", "late"]}


@pytest.mark.parametrize("resume", ["yes", None])
async def test_a_command_that_died_before_its_first_checkpoint_is_applied_once(resume: str | None) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def ask(state: Log) -> Log:
        answer = interrupt("?") if resume else "went"
        began.set()
        await go.wait()
        return {"log": [answer]}

    at = desk(chain("a", "ask", ask=ask))
    await at.run(input={"log": []}, interrupt_before=["ask"])
    if resume:
        await at.run(input=None)
    command = {"resume": resume, "update": {"log": ["noted"]}} if resume else {"update": {"log": ["noted"]}}
    run_id = await stop_at(at, began, command=command)
    go.set()
    after = await at.agent.run(at.call(run_record(run_id=run_id, attempt=2, command=command)))
    assert decoded(after.values) == {"log": ["a", "noted", resume or "went"]}


async def test_a_continued_fork_goes_on_from_its_own_checkpoint() -> None:
    began, go = asyncio.Event(), asyncio.Event()
    go.set()

    async def late(state: Log) -> Log:
        began.set()
        await go.wait()
        return {"log": ["late"]}

    at = desk(chain("a", "late", late=late))
    await at.run(input={"log": ["first"]}, stream_mode=["checkpoints"])
    fork = {"checkpoint_id": at.of("checkpoints")[-1]["config"]["configurable"]["checkpoint_id"]}
    go.clear()
    began.clear()
    run_id = await stop_at(at, began, input={"log": ["fork"]}, checkpoint=fork)
    go.set()
    after = await at.agent.run(at.call(run_record(run_id=run_id, attempt=2, input={"log": ["fork"]}, checkpoint=fork)))
    assert decoded(after.values) == {"log": ["first", "a", "late", "fork", "a", "late"]}


@pytest.mark.parametrize("where", [{"interrupt_before": ["b"]}, {"interrupt_after": ["a"]}])
async def test_a_run_that_died_in_front_of_a_breakpoint_still_pauses_there(where: dict[str, Any]) -> None:
    at = desk(chain("a", "b"))
    run = run_record(input={"log": []}, **where)
    await at.agent.run(at.call(run))  # its checkpoints are those of a run that died before it could say that it paused
    again = await at.agent.run(at.call(run_record(run_id=run.run_id, attempt=2, input={"log": []}, **where)))
    assert again.paused
    assert decoded(again.values) == {"log": ["a"]}


async def test_the_graphs_own_error_comes_out_as_it_is() -> None:
    class Mine(Exception):
        pass

    def node(state: Log) -> Log:
        raise Mine("boom")

    with pytest.raises(Mine, match="boom"):
        await desk(chain("a", a=node)).run(input={"log": []})


async def test_what_a_stopped_attempt_remembered_is_forgotten_after_its_repair() -> None:
    began = asyncio.Event()

    async def node(state: Log) -> Log:
        began.set()
        await asyncio.Event().wait()
        return {}

    graph = chain("a", a=node)
    agent = GraphAgent(Registry.from_graphs({"g": graph}), "g")
    at = Desk(agent, saver=InMemorySaver())
    await at.stopped(began.wait, input={"log": [HumanMessage("x").content]})
    assert agent._observers == {}
