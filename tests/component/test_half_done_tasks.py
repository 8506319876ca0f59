"""P6, P7: a task that was stopped or failed between its node's result and its edges has not finished."""

from __future__ import annotations

import asyncio
import operator
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph

from run_kit import FaultyDriver, ended, graph_run, opened, soon
from runlane.lifecycle import RunStatus

#: With a mode of which parts come within a step LangGraph executes even a single task beside its loop.
STREAMED = ["values", "custom"]


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


@dataclass
class Routed:
    """A graph of two nodes; the way from the first to the second is asked of something slow, as a model is."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    answer: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False

    def graph(self) -> StateGraph[Any]:
        async def first(state: Log) -> Log:
            return {"log": ["first"]}

        async def second(state: Log) -> Log:
            return {"log": ["second"]}

        async def route(state: Log) -> str:
            self.asked.set()
            await self.answer.wait()
            if self.fails:
                raise LookupError("no way")
            return "second"

        graph = StateGraph(Log).add_node("first", first).add_node("second", second)
        return graph.add_edge(START, "first").add_conditional_edges("first", route, ["second", END])


@pytest.mark.parametrize("durability", ["async", "sync", "exit"])
async def test_a_run_that_is_handed_back_while_an_edge_is_asked_takes_that_edge_later(durability: str) -> None:
    driver, routed = FaultyDriver(), Routed()
    async with opened(driver, graphs={"g": routed.graph()}) as runtime:
        run = await runtime.runs.create("t", kwargs=graph_run(durability=durability, stream_mode=STREAMED))
        await soon(routed.asked.wait())
    async with opened(driver, graphs={"g": routed.graph()}) as runtime:
        routed.answer.set()
        done = await ended(runtime, run)
        assert (done.status, done.attempt) == (RunStatus.SUCCESS, 2)
        assert (await runtime.runs.join(run.run_id)).result == b'{"log":["first","second"]}'
    await driver.aclose()


async def test_a_thread_whose_edge_failed_goes_on_from_its_node() -> None:
    routed = Routed(fails=True)
    routed.answer.set()
    async with opened(FaultyDriver(), graphs={"g": routed.graph()}) as runtime:
        run = await runtime.runs.create("t", kwargs=graph_run())
        assert (await ended(runtime, run)).status is RunStatus.ERROR
        routed.fails = False
        again = await runtime.runs.create("t", kwargs={**graph_run(), "input": None})
        assert (await ended(runtime, again)).status is RunStatus.SUCCESS
        assert (await runtime.runs.join(again.run_id)).result == b'{"log":["first","second"]}'
