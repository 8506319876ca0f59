"""P4 within graphs: what a graph has started stops with it, and the receipt says when, or where it is stuck."""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from run_kit import graph_run, opened, soon, status
from runlane.agents.host import ThreadHost
from runlane.lifecycle import RunStatus

WORKERS = 3


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


class Nodes:
    """Nodes that wait for ever, and say from the agents' loop that they began and that they were stopped."""

    def __init__(self, *, clean_s: float = 0.0) -> None:
        self.began, self.stopped, self.clean_s = threading.Semaphore(0), 0, clean_s

    async def wait(self, state: State) -> State:
        self.began.release()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(self.clean_s)
            self.stopped += 1
        return {"log": ["waited"]}

    async def have_begun(self, count: int) -> None:
        for _ in range(count):
            assert await asyncio.get_running_loop().run_in_executor(None, self.began.acquire, True, 20)


def single(node: Any) -> Any:
    return StateGraph(State).add_node("only", node).add_edge(START, "only").add_edge("only", END)


def direct(nodes: Nodes) -> Any:
    return single(nodes.wait)


def subgraph_of_a_subgraph(nodes: Nodes) -> Any:
    return single(single(single(nodes.wait).compile()).compile())


def agent_called_by_a_node(nodes: Nodes) -> Any:
    called = single(nodes.wait).compile()

    async def call(state: State) -> Any:
        return await called.ainvoke({"log": []})

    return single(call)


def streamed_agent_in_a_task_group(nodes: Nodes) -> Any:
    called = single(single(nodes.wait).compile()).compile()

    async def read() -> None:
        async for _ in called.astream({"log": []}):
            pass

    async def call(state: State) -> State:
        async with asyncio.TaskGroup() as group:
            group.create_task(read())
        return {"log": ["called"]}

    return single(call)


def fanned_out(nodes: Nodes) -> Any:
    graph = StateGraph(State).add_node("worker", single(nodes.wait).compile())
    graph.add_conditional_edges(START, lambda _: [Send("worker", {"log": []})] * WORKERS, ["worker"])
    return graph.add_edge("worker", END)


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
@pytest.mark.parametrize(
    ("build", "count"),
    [
        (direct, 1),
        (subgraph_of_a_subgraph, 1),
        (agent_called_by_a_node, 1),
        (streamed_agent_in_a_task_group, 1),
        (fanned_out, WORKERS),
    ],
)
async def test_all_that_a_graph_has_started_has_stopped_when_the_receipt_says_so(
    build: Callable[[Nodes], Any], count: int, action: str
) -> None:
    nodes = Nodes()
    async with opened(graphs={"g": build(nodes)}, new_host=ThreadHost) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        await nodes.have_begun(count)
        receipt = await soon(runtime.runs.cancel(run.run_id, action=action, wait=True))
        assert nodes.stopped == count
        assert receipt is not None
        assert receipt.stopped_at is not None
        assert receipt.blocked_at is None
        if action == "interrupt":
            assert await status(runtime, run) is RunStatus.INTERRUPTED


async def test_the_receipt_has_the_times_at_which_it_was_asked_seen_and_done_in_order() -> None:
    nodes = Nodes(clean_s=0.2)
    async with opened(graphs={"g": direct(nodes)}, new_host=ThreadHost, cancel_grace_s=20) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        await nodes.have_begun(1)
        receipt = await soon(runtime.runs.cancel(run.run_id, wait=True))
        assert receipt is not None
        assert receipt.observed_at is not None
        assert receipt.stopped_at is not None
        assert receipt.requested_at <= receipt.observed_at <= receipt.stopped_at
        # What cleans up for so long was not called stopped before that.
        assert receipt.stopped_at - receipt.observed_at >= timedelta(seconds=0.15)


async def test_a_synchronous_node_of_a_subgraph_is_named_where_it_is_stuck() -> None:
    entered, leave = threading.Event(), threading.Event()

    def stuck(state: State) -> State:
        entered.set()
        while not leave.wait(0.01):
            pass
        return {"log": ["left"]}

    graph = single(single(stuck).compile())
    async with opened(graphs={"g": graph}, new_host=ThreadHost) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        assert await asyncio.get_running_loop().run_in_executor(None, entered.wait, 20)
        receipt = await soon(runtime.runs.cancel(run.run_id, wait=True))
        assert receipt is not None
        assert receipt.stopped_at is None
        assert "threading.py:" in str(receipt.blocked_at) or "test_cancel_nested.py:" in str(receipt.blocked_at)
        leave.set()
