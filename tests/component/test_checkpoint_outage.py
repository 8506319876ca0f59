"""Checkpoints that the ledger cannot take for a while, or will never take."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from agent_kit import refuse_unpaired, tool_call
from run_kit import FaultyDriver, ended, graph_run, on_jumping_time, opened
from runlane.agents.repair import CLOSING_TEXT
from runlane.errors import StoreUnavailable
from runlane.lifecycle import EndReason, RunStatus
from runlane.runtime import Runtime
from runlane.store.statements import Transaction


class Number(TypedDict):
    n: int


@on_jumping_time
async def test_an_outage_that_passes_costs_a_run_none_of_its_checkpoints() -> None:
    driver = FaultyDriver()

    async def first(state: Number) -> Number:
        driver.faults["checkpoints.put"] = StoreUnavailable("unplugged")
        return {"n": 1}

    async def second(state: Number) -> Number:
        await asyncio.sleep(3)
        driver.faults.clear()
        return {"n": 2}

    graph = StateGraph(Number).add_node("first", first).add_node("second", second)
    graph.add_edge(START, "first").add_edge("first", "second").add_edge("second", END)
    async with opened(driver, graphs={"g": graph}) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run(input={"n": 0}))
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS
        found = [one async for one in runtime.saver.alist({"configurable": {"thread_id": "t"}})]
    assert [one.checkpoint["channel_values"].get("n") for one in found] == [2, 1, 0, None]
    assert driver.counts["checkpoints.put"] > len(found)


@on_jumping_time
async def test_checkpoints_that_are_refused_for_good_end_the_run_as_failed() -> None:
    driver = FaultyDriver()

    async def node(state: Number) -> Number:
        driver.faults["checkpoints.put"] = sqlite3.IntegrityError("as told")
        return {"n": 1}

    async def long(state: Number) -> Number:
        await asyncio.sleep(15)
        return {"n": 2}

    graph = StateGraph(Number).add_node("node", node).add_node("long", long)
    graph.add_edge(START, "node").add_edge("node", "long").add_edge("long", END)
    async with opened(driver, graphs={"g": graph}) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run(input={"n": 0}))
        over = await ended(runtime, run)
    assert (over.status, over.end_reason) == (RunStatus.ERROR, EndReason.FAILED)
    assert over.error is not None
    assert over.error.error == "IntegrityError"


# The repair of a thread, and the ledger's bad moments.


def calling(began: asyncio.Event) -> StateGraph[Any]:
    """Return a graph whose model calls a tool that never returns."""

    async def agent(state: MessagesState) -> dict[str, list[AnyMessage]]:
        return {"messages": [AIMessage("On it.", tool_calls=[tool_call("slow", "c1")])]}

    async def tools(state: MessagesState) -> dict[str, list[AnyMessage]]:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError

    graph = StateGraph(MessagesState).add_node("agent", agent).add_node("tools", tools)
    return graph.add_edge(START, "agent").add_edge("agent", "tools").add_edge("tools", END)


async def messages(runtime: Runtime) -> list[AnyMessage]:
    found = await runtime.saver.aget_tuple({"configurable": {"thread_id": "t"}})
    left: list[AnyMessage] = found.checkpoint["channel_values"]["messages"]
    return left


class SlowReads(FaultyDriver):
    """A ledger of which checkpoints are read only while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, transaction: Transaction[Any]) -> Any:
        if transaction.__name__ == "get":
            await self.gate.wait()
        return await super().read(transaction)


def unplugged(driver: SlowReads) -> Callable[[], None]:
    driver.faults["checkpoints.put"] = StoreUnavailable("unplugged")
    return driver.faults.clear


def slowed_down(driver: SlowReads) -> Callable[[], None]:
    driver.gate.clear()
    return driver.gate.set


@pytest.mark.parametrize("disturb", [unplugged, slowed_down])
@on_jumping_time
async def test_a_thread_is_repaired_once_the_ledger_can_be_reached(
    disturb: Callable[[SlowReads], Callable[[], None]],
) -> None:
    driver, began = SlowReads(), asyncio.Event()
    async with opened(driver, graphs={"g": calling(began)}, lease_s=600.0) as runtime:
        run = await runtime.runs.create_or_reject(
            "t", kwargs=graph_run(input={"messages": [{"role": "user", "content": "Go"}]})
        )
        await began.wait()
        await asyncio.sleep(1)
        mend = disturb(driver)
        await runtime.runs.cancel(run.run_id)
        await asyncio.sleep(60)
        assert (await runtime.runs.get(run.run_id)).status is RunStatus.RUNNING
        mend()
        over = await ended(runtime, run)
        left = await messages(runtime)
    assert (over.status, over.end_reason) == (RunStatus.INTERRUPTED, EndReason.USER_CANCEL)
    refuse_unpaired([*left, HumanMessage("And now?")])
    assert left[-1].content == CLOSING_TEXT
