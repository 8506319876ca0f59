"""An application's own agent lives through crashes, deploys, outages and cancels, and is told what it gets wrong."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt

from agent_kit import refuse_unpaired, tool_call
from runlane.agents.coroutine import CoroutineAgent
from runlane.testing import Report, Turn, World, simulate

#: Seeds within which every kind of trouble has happened.
SEEDS = range(12)
ASK = {"messages": [["user", "one for me"]]}


def shop(world: World, *, idempotent: bool = True) -> Any:
    """A shop's agent, which charges for what was ordered; the bank is outside of all processes."""

    @tool
    async def charge(call_id: Annotated[str, InjectedToolCallId]) -> str:
        """Charge the customer."""
        await asyncio.sleep(0.2)
        if not (idempotent and any(note.call == call_id for note in world.notes("charged"))):
            world.note("charged", call=call_id)
        await asyncio.sleep(0.2)
        return "charged"

    async def model(state: MessagesState) -> dict[str, Any]:
        refuse_unpaired(state["messages"])
        await asyncio.sleep(0.3)
        asked = sum(isinstance(message, HumanMessage) for message in state["messages"])
        if isinstance(state["messages"][-1], ToolMessage):
            return {"messages": [AIMessage("Thank you")]}
        return {"messages": [AIMessage("", tool_calls=[tool_call("charge", f"order-{asked}-{world.random.random()}")])]}

    graph = StateGraph(MessagesState).add_node("model", model).add_node("tools", ToolNode([charge]))
    return graph.add_edge(START, "model").add_conditional_edges("model", tools_condition).add_edge("tools", "model")


def charged_once(world: World) -> None:
    calls = [note.call for note in world.notes("charged")]
    assert len(calls) == len(set(calls)), "a customer was charged twice"


def broken(report: Report) -> set[str]:
    """Return what was broken, without numbers, and without what pytest adds to an assertion."""
    return {re.sub(r"\d[\w.-]*", "N", text.splitlines()[0]) for failure in report.failures for text in failure.broken}


def test_a_sound_agent_keeps_all_promises_whatever_happens() -> None:
    report = simulate(shop, [ASK, ASK], seeds=SEEDS, check=charged_once)
    assert not report.failures, report
    assert report.runs == 3 * len(SEEDS)
    assert {"success", "interrupted"} == set(report.endings)
    happened = {"process killed", "process frozen", "process cut off", "shutdown asked", "store failed before commit"}
    assert happened <= set(report.faults)


def test_an_effect_that_a_crash_repeats_is_found() -> None:
    report = simulate(lambda world: shop(world, idempotent=False), [ASK, ASK], seeds=range(24, 36), check=charged_once)
    assert broken(report) == {"a customer was charged twice"}
    assert "seed" in str(report)
    assert "charged" in report.failures[0].history


def test_a_seed_is_the_same_life_again() -> None:
    async def count(context: Any) -> int:
        for number in range(4):
            await asyncio.sleep(0.5)
            context.emit("number", number)
        return 4

    def see_all(world: World) -> None:
        raise AssertionError("to see its history")

    lives = [simulate(lambda _: count, [1, 2, 3], seeds=[7, 8], check=see_all) for _ in range(2)]
    first, again = ([failure.history for failure in report.failures] for report in lives)
    assert first == again
    assert first[0] != first[1]


def test_a_call_without_its_one_result_is_found() -> None:
    def twice(_: World) -> Any:
        async def node(_: MessagesState) -> dict[str, Any]:
            results = [ToolMessage("done", tool_call_id="a") for _ in range(2)]
            return {"messages": [AIMessage("", tool_calls=[tool_call("work", "a"), tool_call("work", "b")]), *results]}

        return StateGraph(MessagesState).add_node("node", node).add_edge(START, "node")

    report = simulate(twice, [ASK], seeds=[0])
    assert broken(report) == {"tool call a (work) has N results", "tool call b (work) has N results"}


async def raises(context: Any) -> None:
    raise ValueError("as told")


def test_a_run_that_nobody_stopped_has_to_succeed_unless_the_agent_may_fail() -> None:
    report = simulate(lambda _: raises, ["x"], seeds=[1])
    assert broken(report) >= {"the last turn, once more in peace, ended as error (ValueError: as told)"}
    assert not simulate(lambda _: raises, ["x"], seeds=[1], may_fail=True).failures


def test_a_run_that_does_not_end_is_found() -> None:
    async def stuck(context: Any) -> None:
        await asyncio.Event().wait()

    report = simulate(lambda _: stuck, ["x"], seeds=[4])
    assert broken(report) == {"turn N has not ended after N s: it is running"}


def test_a_pause_is_resumed_by_a_turn_with_a_command() -> None:
    def approval(world: World) -> Any:
        async def node(_: MessagesState) -> dict[str, Any]:
            answer = interrupt("May I?")
            world.note("answered", answer=answer)
            return {"messages": [AIMessage(f"You said {answer}")]}

        return StateGraph(MessagesState).add_node("node", node).add_edge(START, "node")

    def answers_are_the_clients(world: World) -> None:
        assert {note.answer for note in world.notes()} <= {"yes"}

    turns = [Turn(input=ASK), Turn(command={"resume": "yes"})]
    report = simulate(approval, turns, seeds=SEEDS, check=answers_are_the_clients)
    assert not report.failures, report


def test_synchronous_nodes_are_simulated_too() -> None:
    def plain(world: World) -> Any:
        def node(_: MessagesState) -> dict[str, Any]:
            return {"messages": [AIMessage("hello")]}

        return StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile()

    def answered(world: World) -> None:
        assert world.values["messages"][-1]["content"] == "hello"
        assert world.events[world.runs[-1].run_id][0][0] == "metadata"

    report = simulate(plain, [ASK], seeds=range(5), check=answered)
    assert not report.failures, report


def test_a_coroutine_that_can_be_continued_is_not_ended_by_a_deploy() -> None:
    async def work(context: Any) -> str:
        await asyncio.sleep(1)
        return "done"

    def ended_by_a_deploy(world: World) -> None:
        assert not [run for run in world.runs if run.end_reason == "drained_over"], "ended by a deploy"

    for continuable in (False, True):
        report = simulate(
            lambda _, continuable=continuable: CoroutineAgent(work, continuable=continuable),
            ["x", "y"],
            seeds=range(12),
            check=ended_by_a_deploy,
        )
        assert broken(report) == (set() if continuable else {"ended by a deploy"})


def test_a_simulation_is_refused_without_a_turn_and_inside_of_a_loop() -> None:
    with pytest.raises(ValueError, match="at least one turn"):
        simulate(shop, [])

    async def inside() -> None:
        simulate(shop, [ASK], seeds=[1])

    with pytest.raises(RuntimeError, match="call simulate\\(\\) from a function that is not async"):
        asyncio.run(inside())


def test_an_agent_that_cannot_be_made_is_the_callers_error() -> None:
    def unmade(world: World) -> Any:
        raise LookupError("no key for the model")

    with pytest.raises(LookupError, match="no key for the model"):
        simulate(unmade, [ASK], seeds=[1])
