"""Subgraphs of a run that was cut or paused can be used again too, each in its own checkpoints."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, Send, interrupt

from agent_kit import Desk, StrictModel, refuse_unpaired, run_record, tool_call
from runlane.agents.graph import GraphAgent
from runlane.agents.observer import GraphObserver
from runlane.agents.registry import Registry
from runlane.agents.repair import CLOSING_TEXT
from runlane.checkpoints.saver import LedgerSaver
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.migrate import apply_scripts

BOTH = AIMessage("On it.", tool_calls=[tool_call("fast", "c1"), tool_call("slow", "c2")])
DONE = AIMessage("Done.")


class Notes(TypedDict, total=False):
    """The state of a root graph that keeps no messages."""

    asked: str
    answers: Annotated[list[str], operator.add]


class Log(MessagesState):
    log: Annotated[list[str], operator.add]


class Tools:
    """Two tools, of which one never returns by itself, and the signals to wait on."""

    def __init__(self) -> None:
        self.fast_done, self.slow_began = asyncio.Event(), asyncio.Event()

        @tool
        async def fast() -> str:
            """Return at once."""
            self.fast_done.set()
            return "fast"

        @tool
        async def slow() -> str:
            """Never return."""
            self.slow_began.set()
            await asyncio.Event().wait()
            return "slow"

        self.all = [fast, slow]

    async def half_done(self) -> None:
        await self.fast_done.wait()
        await self.slow_began.wait()
        for _ in range(20):  # the result travels through callbacks and tasks of the same loop
            await asyncio.sleep(0)


def helper(model: StrictModel, tools: list[Any]) -> Any:
    """An agent whose tool calls are tasks of their own, and which keeps a log of them beside its messages."""
    working = ToolNode(tools)

    async def agent(state: Log) -> Command[Any]:
        reply = await model.ainvoke(state["messages"])
        return Command(update={"messages": [reply]}, goto=[Send("work", [call]) for call in reply.tool_calls])

    async def work(calls: list[Any]) -> dict[str, Any]:
        done = await working.ainvoke(calls)
        return {**done, "log": [calls[0]["id"]]}

    graph = StateGraph(Log).add_node("agent", agent, destinations=("work",)).add_node("work", work)
    return graph.add_edge(START, "agent").add_edge("work", "agent").compile(checkpointer=True)


def desk(graph: Any, saver: Any = None) -> Desk:
    at = Desk(GraphAgent(Registry.from_graphs({"g": graph}), "g"))
    at.saver = saver or at.saver
    return at


async def kept(at: Desk, namespace: str) -> dict[str, Any]:
    saved = await at.saver.aget_tuple({"configurable": {"thread_id": at.thread_id, "checkpoint_ns": namespace}})
    return dict(saved.checkpoint["channel_values"])


def said(messages: list[AnyMessage]) -> list[str]:
    refuse_unpaired(messages)
    return [message.text for message in messages]


@pytest.fixture
async def ledger() -> AsyncIterator[LedgerSaver]:
    driver = MemoryDriver()
    apply_scripts(driver)
    yield LedgerSaver(driver)
    await driver.aclose()


def asks_its_helper(called: Any) -> Any:
    async def ask(state: Notes) -> Notes:
        answered = await called.ainvoke({"messages": [HumanMessage(state["asked"])]})
        return {"answers": [answered["messages"][-1].text]}

    return StateGraph(Notes).add_node("ask", ask).add_edge(START, "ask")


async def test_a_subgraph_is_repaired_by_its_own_reducers_below_a_root_without_messages() -> None:
    tools = Tools()
    at = desk(asks_its_helper(helper(StrictModel(replies=[BOTH, DONE]), tools.all)))
    await at.stopped(tools.half_done, input={"asked": "one"})
    values = await kept(at, "ask")
    assert said(values["messages"]) == ["one", "On it.", "fast", CLOSING_TEXT]
    assert values["log"] == ["c1"]
    await at.run(input={"asked": "two"})
    assert said((await kept(at, "ask"))["messages"])[-2:] == ["two", "Done."]


async def test_a_subgraph_that_only_a_tool_knows_is_repaired_and_its_other_state_is_kept() -> None:
    tools = Tools()
    replies = [AIMessage("", tool_calls=[tool_call("fast", "c0")]), DONE, BOTH, DONE]
    inner = StrictModel(replies=replies)
    asks = [AIMessage("", tool_calls=[tool_call("ask", f"a{number}")]) for number in (1, 2, 3)]
    outer = StrictModel(replies=[asks[0], DONE, *asks[1:], DONE])

    @tool
    async def ask() -> str:
        """Ask an agent that is made on the spot."""
        answered = await helper(inner, tools.all).ainvoke({"messages": [HumanMessage("please")]})
        return str(answered["messages"][-1].text)

    async def agent(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [await outer.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("agent", agent).add_node("tools", ToolNode([ask]))
    at = desk(graph.add_edge(START, "agent").add_conditional_edges("agent", tools_condition).add_edge("tools", "agent"))
    await at.run(input={"messages": [("user", "go")]})
    tools.fast_done.clear()
    await at.stopped(tools.half_done, input={"messages": [("user", "again")]})
    values = await kept(at, "tools")
    assert said(values["messages"])[4:] == ["please", "On it.", "fast", CLOSING_TEXT]
    assert values["log"] == ["c0"]
    await at.run(input={"messages": [("user", "and now?")]})
    assert said((await kept(at, "tools"))["messages"])[-2:] == ["please", "Done."]


def agent_that_asks_first(model: StrictModel, acted: list[str]) -> Any:
    @tool
    async def act() -> str:
        """Ask a human, then act."""
        acted.append(str(interrupt("sure?")))
        return acted[-1]

    async def agent(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("agent", agent).add_node("tools", ToolNode([act]))
    graph.add_edge(START, "agent").add_conditional_edges("agent", tools_condition).add_edge("tools", "agent")
    return graph.compile(checkpointer=True)


async def test_a_subgraph_that_waits_for_an_answer_is_not_repaired_and_gets_it(ledger: LedgerSaver) -> None:
    acted: list[str] = []
    model = StrictModel(replies=[AIMessage("", tool_calls=[tool_call("act", "c1")]), DONE])
    at = desk(asks_its_helper(agent_that_asks_first(model, acted)), ledger)
    paused = await at.run(input={"asked": "one"})
    assert paused.paused
    assert await at.agent.repair(at.call(run_record(attempt=2))) == paused
    await at.run(command={"resume": "yes"})
    assert (acted, said((await kept(at, "ask"))["messages"])) == (["yes"], ["one", "", "yes", "Done."])


async def test_a_subgraph_that_is_stopped_after_it_got_its_answer_is_repaired(ledger: LedgerSaver) -> None:
    """LangGraph goes on to show the question at the root, as if the thread still waited for an answer."""
    tools = Tools()

    @tool
    async def act() -> str:
        """Ask a human."""
        return str(interrupt("sure?"))

    model = StrictModel(replies=[AIMessage("", tool_calls=[tool_call("act", "c0")]), BOTH, DONE])
    at = desk(asks_its_helper(helper(model, [act, *tools.all])), ledger)
    assert (await at.run(input={"asked": "one"})).paused
    await at.stopped(tools.half_done, command={"resume": "yes"})
    assert said((await kept(at, "ask"))["messages"]) == ["one", "", "yes", "On it.", "fast", CLOSING_TEXT]
    await at.run(input={"asked": "two"})
    assert said((await kept(at, "ask"))["messages"])[-2:] == ["two", "Done."]


async def test_a_subgraph_that_remembers_takes_a_task_that_it_had_not_begun_when_the_graph_paused(
    ledger: LedgerSaver,
) -> None:
    at = desk(asks_its_helper(helper(StrictModel(replies=[DONE]), [])), ledger)
    await at.run(input={"asked": "one"})
    assert (await at.run(input={"asked": "two"}, interrupt_before=["ask"])).paused
    await at.run(input=None)
    assert said((await kept(at, "ask"))["messages"]) == ["one", "Done.", "two", "Done."]


async def test_a_subgraph_goes_on_with_its_task_after_the_state_around_it_was_changed(ledger: LedgerSaver) -> None:
    acted: list[str] = []
    model = StrictModel(replies=[AIMessage("", tool_calls=[tool_call("act", "c1")]), DONE])
    graph = asks_its_helper(agent_that_asks_first(model, acted))
    at = desk(graph, ledger)
    await at.run(input={"asked": "one"})
    compiled = graph.compile(checkpointer=ledger)
    await compiled.aupdate_state({"configurable": {"thread_id": "t"}}, {"answers": ["so far"]}, as_node=START)
    assert (await at.run(input=None)).paused
    await at.run(command={"resume": "yes"})
    assert (acted, said((await kept(at, "ask"))["messages"])) == (["yes"], ["one", "", "yes", "Done."])


async def test_the_namespaces_of_a_thread_are_listed_once_each(ledger: LedgerSaver) -> None:
    at = desk(asks_its_helper(helper(StrictModel(replies=[DONE]), [])), ledger)
    await at.run(input={"asked": "one"})
    await at.run(input={"asked": "two"})
    assert await ledger.namespaces("t") == ["", "ask"]
    assert await ledger.namespaces("another") == []


def test_equal_call_ids_of_two_subgraphs_keep_their_own_results() -> None:
    observer = GraphObserver()
    for place in ("left|tools:1", "right|tools:2", "tools:3"):
        run_id = uuid4()
        observer.on_tool_start({}, "", run_id=run_id, metadata={"langgraph_checkpoint_ns": place})
        observer.on_tool_end(ToolMessage(place, tool_call_id="c1"), run_id=run_id)
    found = {at: observer.tool_results(at)["c1"].text for at in ("", "left", "right")}
    assert found == {"": "tools:3", "left": "left|tools:1", "right": "right|tools:2"}
