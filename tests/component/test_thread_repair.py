"""However a run ends, its thread can be used again: a strict chat model accepts the next turn."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, Send, interrupt

import agent_kit
from agent_kit import Desk, StrictModel, decoded, refuse_unpaired, run_record, tool_call
from ledger_kit import empty_ledger
from runlane.agents.graph import GraphAgent
from runlane.agents.registry import Registry
from runlane.agents.repair import CLOSING_TEXT, mended
from runlane.checkpoints.saver import LedgerSaver
from runlane.store.drivers.postgres import open_postgres

TWO_CALLS = AIMessage("On it.", tool_calls=[tool_call("fast", "c1", n=1), tool_call("slow", "c2", n=2)])
DONE = AIMessage("Done.")


class Tools:
    """Two tools, of which one never returns by itself, and the signals to wait on."""

    def __init__(self) -> None:
        self.fast_done = asyncio.Event()
        self.slow_began = asyncio.Event()
        self.calls: list[str] = []

        @tool
        async def fast(n: int) -> str:
            """Return at once."""
            self.calls.append("fast")
            self.fast_done.set()
            return f"fast {n}"

        @tool
        async def slow(n: int) -> str:
            """Never return."""
            self.calls.append("slow")
            self.slow_began.set()
            await asyncio.Event().wait()
            return f"slow {n}"

        self.all = [fast, slow]

    async def half_done(self) -> None:
        await self.fast_done.wait()
        await self.slow_began.wait()
        for _ in range(5):  # the finished tool's result travels through callbacks and tasks of the same loop
            await asyncio.sleep(0)


@pytest.fixture(scope="module")
def postgres_ledger(new_postgres_ledger: Callable[[], str]) -> str:
    return new_postgres_ledger()


@pytest.fixture(params=["memory", "postgres"], autouse=True)
async def ledger(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Have desks keep their checkpoints in one database, or in the other."""
    if request.param == "memory":
        yield
        return
    url = request.getfixturevalue("postgres_ledger")
    empty_ledger(url)
    driver = await open_postgres(url)
    monkeypatch.setattr(agent_kit, "new_saver", lambda: LedgerSaver(driver))
    yield
    await driver.aclose()


def desk(graph: Any) -> Desk:
    return Desk(GraphAgent(Registry.from_graphs({"g": graph}), "g"))


def chat(model: StrictModel, tools: Tools) -> StateGraph[Any]:
    async def agent(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("agent", agent).add_node("tools", ToolNode(tools.all))
    graph.add_edge(START, "agent").add_conditional_edges("agent", tools_condition).add_edge("tools", "agent")
    return graph


def fanned_out_chat(model: StrictModel, tools: Tools) -> StateGraph[Any]:
    """Each tool call is a task of its own, as in LangChain's current agents."""

    async def agent(state: MessagesState) -> Command[Any]:
        reply = await model.ainvoke(state["messages"])
        sends = [Send("tools", [call]) for call in reply.tool_calls]
        return Command(update={"messages": [reply]}, goto=sends or END)

    graph = StateGraph(MessagesState).add_node("agent", agent, destinations=("tools", END))
    return graph.add_node("tools", ToolNode(tools.all)).add_edge(START, "agent").add_edge("tools", "agent")


async def messages(at: Desk) -> list[AnyMessage]:
    saved = await at.saver.aget_tuple({"configurable": {"thread_id": at.thread_id, "checkpoint_ns": ""}})
    return list(saved.checkpoint["channel_values"]["messages"])


@pytest.mark.parametrize("build", [chat, fanned_out_chat])
@pytest.mark.parametrize("durability", ["async", "sync", "exit"])
async def test_a_finished_sibling_is_kept_and_the_open_call_is_closed(build: Any, durability: str) -> None:
    tools = Tools()
    at = desk(build(StrictModel(replies=[TWO_CALLS, DONE]), tools))
    after = await at.stopped(tools.half_done, input={"messages": [("user", "go")]}, durability=durability)
    kept = await messages(at)
    assert [(m.tool_call_id, m.status, m.content) for m in kept if isinstance(m, ToolMessage)] == [
        ("c1", "success", "fast 1"),
        ("c2", "error", CLOSING_TEXT),
    ]
    assert [m["type"] for m in decoded(after.values)["messages"]] == ["human", "ai", "tool", "tool"]
    assert not after.paused or after.unfinished
    answer = decoded((await at.run(input={"messages": [("user", "and now?")]})).values)["messages"]
    assert [m["content"] for m in answer[-2:]] == ["and now?", "Done."]
    assert tools.calls == ["fast", "slow"]


@pytest.mark.parametrize("build", [chat, fanned_out_chat])
async def test_a_stopped_run_goes_on_after_its_tools_when_continued_with_no_input(build: Any) -> None:
    tools = Tools()
    at = desk(build(StrictModel(replies=[TWO_CALLS, DONE]), tools))
    after = await at.stopped(tools.half_done, input={"messages": [("user", "go")]})
    assert after.unfinished
    await at.run(input=None)
    assert [m.content for m in await messages(at)][-1] == "Done."
    assert tools.calls == ["fast", "slow"]


@pytest.mark.parametrize(("mode", "event"), [("messages-tuple", "messages"), ("messages", "messages/partial")])
async def test_partial_text_is_kept_under_the_id_that_was_streamed(mode: str, event: str) -> None:
    never = asyncio.Event()

    async def word() -> None:
        if model.turn == 1:
            await never.wait()

    model = StrictModel(replies=[AIMessage("Once upon a time"), DONE], gate=word)
    at = desk(chat(model, Tools()))
    after = await at.stopped(lambda: at.seen(event), input={"messages": [("user", "story")]}, stream_mode=[mode])
    kept = (await messages(at))[-1]
    assert (kept.type, kept.content, kept.id) == ("ai", "Once", at.of(event)[-1][0]["id"])
    assert not after.unfinished
    await at.run(input={"messages": [("user", "go on")]})
    assert [m.content for m in await messages(at)] == ["story", "Once", "go on", "Done."]


async def test_what_a_finished_sibling_of_a_stopped_node_said_is_kept() -> None:
    began, spoke = asyncio.Event(), asyncio.Event()

    async def speaks(state: MessagesState) -> dict[str, list[BaseMessage]]:
        spoke.set()
        return {"messages": [AIMessage("I have an answer", id="said")]}

    async def hangs(state: MessagesState) -> None:
        began.set()
        await asyncio.Event().wait()

    async def half_done() -> None:
        await asyncio.gather(began.wait(), spoke.wait())
        for _ in range(20):  # the superstep takes note of the finished node
            await asyncio.sleep(0)

    graph = StateGraph(MessagesState).add_node("speaks", speaks).add_node("hangs", hangs)
    at = desk(graph.add_edge(START, "speaks").add_edge(START, "hangs"))
    await at.stopped(half_done, input={"messages": [("user", "go")]})
    assert [m.text for m in await messages(at)] == ["go", "I have an answer"]


async def test_text_that_nobody_was_shown_is_not_kept() -> None:
    reached = asyncio.Event()

    async def word() -> None:
        reached.set()
        await asyncio.Event().wait()

    async def agent(state: MessagesState) -> None:
        async for _ in StrictModel(replies=[AIMessage("Once upon")], gate=word).astream(state["messages"]):
            pass

    at = desk(StateGraph(MessagesState).add_node("agent", agent).add_edge(START, "agent").add_edge("agent", END))
    await at.stopped(reached.wait, input={"messages": [("user", "story")]}, stream_mode=["values"])
    assert [m.content for m in await messages(at)] == ["story"]


async def test_half_a_tool_call_is_not_kept() -> None:
    tools = Tools()
    tools.slow_began.set()

    async def agent(state: MessagesState) -> dict[str, list[BaseMessage]]:
        reply = await model.ainvoke(state["messages"])
        reached.set()
        await asyncio.Event().wait()
        return {"messages": [reply]}

    reached = asyncio.Event()
    model = StrictModel(replies=[TWO_CALLS, DONE])
    graph = StateGraph(MessagesState).add_node("agent", agent).add_edge(START, "agent").add_edge("agent", END)
    at = desk(graph)
    await at.stopped(reached.wait, input={"messages": [("user", "go")]}, stream_mode=["messages-tuple"])
    kept = (await messages(at))[-1]
    assert isinstance(kept, AIMessage)
    assert (kept.content, kept.tool_calls) == ("On it.", [])


async def test_a_failed_tool_step_is_repaired_like_a_stopped_one() -> None:
    @tool
    async def fails() -> str:
        """Fail."""
        raise LookupError("no such thing")

    async def agent(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    model = StrictModel(replies=[AIMessage("", tool_calls=[tool_call("fails", "c1")]), DONE])
    graph = StateGraph(MessagesState).add_node("agent", agent)
    graph.add_node("tools", ToolNode([fails], handle_tool_errors=False)).add_edge(START, "agent")
    graph.add_conditional_edges("agent", tools_condition).add_edge("tools", "agent")
    at = desk(graph)
    call = at.call(run_record(input={"messages": [("user", "go")]}))
    with pytest.raises(LookupError):
        await at.agent.run(call)
    await at.agent.repair(call)
    await at.run(input={"messages": [("user", "again")]})
    assert [m.type for m in await messages(at)] == ["human", "ai", "tool", "human", "ai"]


async def test_a_crash_elsewhere_closes_the_calls_from_the_checkpoint_alone() -> None:
    tools = Tools()
    graph = chat(StrictModel(replies=[TWO_CALLS, DONE]), tools)
    at = desk(graph)
    run = run_record(input={"messages": [("user", "go")]})
    task = asyncio.ensure_future(at.agent.run(at.call(run)))
    await tools.half_done()
    task.cancel()
    await asyncio.wait([task])
    other_process = Desk(GraphAgent(Registry.from_graphs({"g": graph}), "g"), saver=at.saver)
    await other_process.agent.repair(other_process.call(run_record(run_id=run.run_id, attempt=2)))
    refuse_unpaired(await messages(at))
    assert [m.status for m in await messages(at) if isinstance(m, ToolMessage)] == ["error", "error"]


async def test_repairing_twice_changes_nothing_more() -> None:
    tools = Tools()
    at = desk(chat(StrictModel(replies=[TWO_CALLS, DONE]), tools))
    first = await at.stopped(tools.half_done, input={"messages": [("user", "go")]})
    saved = await at.checkpoints()
    second = await at.agent.repair(at.call(run_record(attempt=2)))
    assert second == first
    assert await at.checkpoints() == saved


def asking(model: StrictModel) -> StateGraph[Any]:
    """A chat whose tool asks a human first."""

    @tool
    async def risky() -> str:
        """Ask, then act."""
        return str(interrupt("sure?"))

    async def agent(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("agent", agent).add_node("tools", ToolNode([risky]))
    graph.add_edge(START, "agent").add_conditional_edges("agent", tools_condition).add_edge("tools", "agent")
    return graph


async def test_a_pause_is_not_repaired() -> None:
    at = desk(asking(StrictModel(replies=[AIMessage("", tool_calls=[tool_call("risky", "c1")]), DONE])))
    paused = await at.run(input={"messages": [("user", "go")]})
    assert paused.paused
    after = await at.agent.repair(at.call(run_record(attempt=2)))
    assert after == paused
    await at.run(command={"resume": "yes"})
    assert [m.content for m in await messages(at)][-2:] == ["yes", "Done."]


async def test_a_turn_that_ignored_a_question_leaves_a_thread_that_works() -> None:
    """The new message stands after the open call, so the provider refuses it; the repair puts the result between."""
    at = desk(asking(StrictModel(replies=[AIMessage("", tool_calls=[tool_call("risky", "c1")]), DONE])))
    await at.run(input={"messages": [("user", "go")]})
    call = at.call(run_record(input={"messages": [("user", "never mind")]}))
    with pytest.raises(ValueError, match="calls without a result"):
        await at.agent.run(call)
    await at.agent.repair(call)
    assert [m.type for m in await messages(at)] == ["human", "ai", "tool", "human"]
    await at.run(input={"messages": [("user", "hello?")]})
    assert [m.content for m in await messages(at)][-1] == "Done."


async def test_a_run_that_never_began_leaves_an_earlier_breakpoint_alone() -> None:
    tools = Tools()
    at = desk(chat(StrictModel(replies=[TWO_CALLS, DONE]), tools))
    paused = await at.run(input={"messages": [("user", "go")]}, interrupt_before=["tools"])
    assert paused.paused
    assert paused.unfinished
    after = await at.agent.repair(at.call(run_record(input=None)))
    assert after == paused


async def test_a_stop_after_a_breakpoint_was_passed_is_repaired() -> None:
    tools = Tools()
    at = desk(chat(StrictModel(replies=[TWO_CALLS, DONE]), tools))
    await at.run(input={"messages": [("user", "go")]}, interrupt_before=["tools"])
    await at.stopped(tools.half_done, input=None)
    await at.run(input={"messages": [("user", "and now?")]})
    assert [m.content for m in await messages(at)][-1] == "Done."


async def test_edges_that_cannot_bear_a_half_done_state_do_not_stop_the_repair() -> None:
    tools = Tools()
    model = StrictModel(replies=[TWO_CALLS, DONE])

    async def agent(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def edge(state: MessagesState) -> str:
        if any(getattr(m, "status", None) == "error" for m in state["messages"]):
            raise ZeroDivisionError
        return "agent"

    graph = StateGraph(MessagesState).add_node("agent", agent).add_node("tools", ToolNode(tools.all))
    graph.add_edge(START, "agent").add_conditional_edges("agent", tools_condition)
    graph.add_conditional_edges("tools", edge, ["agent"])
    at = desk(graph)
    after = await at.stopped(tools.half_done, input={"messages": [("user", "go")]})
    assert not after.unfinished
    await at.run(input={"messages": [("user", "and now?")]})
    assert [m.content for m in await messages(at)][-1] == "Done."


class PlainList(TypedDict):
    messages: Annotated[list[AnyMessage], operator.add]


async def test_a_list_that_can_only_grow_is_repaired_at_its_end() -> None:
    began = asyncio.Event()

    async def agent(state: PlainList) -> dict[str, Any]:
        return {"messages": [HumanMessage("go"), TWO_CALLS]}

    async def act(state: PlainList) -> dict[str, Any]:
        began.set()
        await asyncio.Event().wait()
        return {}

    graph = StateGraph(PlainList).add_node("agent", agent).add_node("act", act)
    graph.add_edge(START, "agent").add_edge("agent", "act").add_edge("act", END)
    at = desk(graph)
    await at.stopped(began.wait, input={"messages": []})
    left = await messages(at)
    refuse_unpaired(left)
    assert [message.type for message in left] == ["human", "ai", "tool", "tool"]


class Counter(TypedDict, total=False):
    count: int


async def test_a_graph_without_messages_keeps_its_checkpoint_and_its_next_step() -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def first(state: Counter) -> Counter:
        return {"count": 1}

    async def second(state: Counter) -> Counter:
        began.set()
        await go.wait()
        return {"count": state["count"] + 1}

    graph = StateGraph(Counter).add_node("first", first).add_node("second", second)
    graph.add_edge(START, "first").add_edge("first", "second").add_edge("second", END)
    at = desk(graph)
    after = await at.stopped(began.wait, input={})
    assert (decoded(after.values), after.unfinished) == ({"count": 1}, True)
    go.set()
    assert decoded((await at.run(input=None)).values) == {"count": 2}


@pytest.mark.parametrize("ticks", range(0, 60, 3))
async def test_a_cancel_at_any_await_leaves_a_thread_that_works(ticks: int) -> None:
    tools = Tools()
    model = StrictModel(replies=[TWO_CALLS, DONE], gate=lambda: asyncio.sleep(0))
    at = desk(chat(model, tools))

    async def a_while() -> None:
        for _ in range(ticks):
            await asyncio.sleep(0)

    await at.stopped(a_while, input={"messages": [("user", "go")]}, stream_mode=["messages-tuple", "values"])
    model.turn = 1
    after = await at.run(input={"messages": [("user", "again")]})
    said = decoded(after.values)["messages"]
    assert [m["content"] for m in said[-2:]] == ["again", "Done."]


def call(*ids: str) -> AIMessage:
    return AIMessage("", tool_calls=[tool_call("f", call_id) for call_id in ids], id=f"ai-{'-'.join(ids)}")


def result(call_id: str) -> ToolMessage:
    return ToolMessage("r", tool_call_id=call_id, id=f"r-{call_id}")


HUMAN = HumanMessage("h", id="h")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], []),
        ([HUMAN], ["h"]),
        ([HUMAN, call("1")], ["h", "ai-1", "closed-1"]),
        ([call("1", "2"), result("2")], ["ai-1-2", "r-2", "closed-1"]),
        ([call("1"), HUMAN], ["ai-1", "closed-1", "h"]),
        ([call("1"), HUMAN, result("1")], ["ai-1", "r-1", "h"]),
        ([call("1"), result("1"), HUMAN, call("2")], ["ai-1", "r-1", "h", "ai-2", "closed-2"]),
        ([call("1"), result("1"), call("1"), result("1")], ["ai-1", "r-1", "ai-1", "r-1"]),
    ],
)
def test_each_call_gets_its_result_directly_after_it(before: list[AnyMessage], after: list[str]) -> None:
    out = mended(before, {})
    refuse_unpaired(out)
    assert [
        f"closed-{m.tool_call_id}" if isinstance(m, ToolMessage) and m.content == CLOSING_TEXT else m.id for m in out
    ] == after
