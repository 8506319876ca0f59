"""Checkpoints that the ledger cannot take for a while, and for good."""

from __future__ import annotations

import asyncio
from typing import TypedDict

from langgraph.graph import END, START, StateGraph

from run_kit import FaultyDriver, ended, graph_run, on_jumping_time, opened
from runlane.errors import StoreUnavailable
from runlane.lifecycle import EndReason, RunStatus


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
async def test_an_outage_that_lasts_ends_the_run_as_failed() -> None:
    driver = FaultyDriver()

    async def node(state: Number) -> Number:
        driver.faults["checkpoints.put"] = StoreUnavailable("unplugged")
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
    assert over.error.error == "StoreUnavailable"
