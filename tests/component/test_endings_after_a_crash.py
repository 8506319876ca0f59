"""A run ends as what happened to it, even if its process dies after its code is over and before that is recorded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

from agent_kit import tool_call
from runlane.agents.graph import GraphAgent
from runlane.agents.registry import Registry
from runlane.records import RunRecord
from runlane.runtime import Runtime
from runlane.settings import Settings
from runlane.testing.faults import Faults
from runlane.testing.history import History
from runlane.testing.ledger import FaultyDriver, Ledger
from runlane.testing.process import Process, ProcessPlan
from runlane.testing.virtual_loop import run_virtual

SETTINGS = Settings(database="postgresql://simulated/ledger", lease_s=2.0, poll_s=0.5, run_timeout_s=5.0, max_rescues=9)


def graph(last_words: str) -> Any:
    """Calls a tool, and then fails, or does not come to an end: each time."""

    async def ask(_: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("", tool_calls=[tool_call("work", "a")])]}

    async def work(_: MessagesState) -> dict[str, Any]:
        if last_words == "raise":
            raise ValueError("as told")
        await asyncio.sleep(3600)
        return {}

    builder = StateGraph(MessagesState).add_node("ask", ask).add_node("work", work)
    return builder.add_edge(START, "ask").add_edge("ask", "work")


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - what a simulated process does is seen from outside
        await asyncio.sleep(0.001)


async def ended(last_words: str, steps: int) -> tuple[str, bool]:
    """Kill the process *steps* steps after its agent was over; return the ending, and whether that was in time."""
    history = History(asyncio.get_running_loop().time)
    ledger, faults, dice = Ledger(history), Faults(history), random.Random(1)
    registry = Registry.from_graphs({"g": graph(last_words)})
    plan = ProcessPlan(SETTINGS, lambda _: lambda graph_id: GraphAgent(registry, graph_id))

    def process(name: str) -> Process:
        return Process(name, plan, FaultyDriver(ledger, faults, dice, hang_s=1.0), faults, dice)

    async def create(runtime: Runtime) -> RunRecord:
        request = {"graph_id": "g", "input": {"messages": [["user", "go"]]}}
        return await runtime.runs.create("t", kwargs=request, on_disconnect="continue")

    def status() -> str:
        return str(ledger.query("SELECT status FROM runs")[0]["status"])

    first = process("p1")
    await until(lambda: first.serves)
    await first.ask(create)
    await asyncio.sleep(0 if last_words == "raise" else SETTINGS.run_timeout_s)
    first.kill(steps)
    await until(lambda: not first.alive or status() != "running")
    in_time = not first.alive and status() == "running"
    second = process("p2")
    await until(lambda: status() not in ("pending", "running"))
    ending = status()
    await second.shut_down(0)
    return ending, in_time


@pytest.mark.parametrize(("last_words", "status"), [("raise", "error"), ("hang", "timeout")])
def test_a_run_that_failed_never_succeeds_because_its_process_died_then(last_words: str, status: str) -> None:
    killed = 0
    for steps in range(1, 200):
        ending, in_time = run_virtual(partial(ended, last_words, steps))
        assert ending == status, f"killed after {steps} steps it ended as {ending}"
        killed += in_time
        if not in_time:
            break
    assert killed > 10, killed
