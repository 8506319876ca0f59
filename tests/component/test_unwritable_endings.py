"""P2: an ending that cannot be written as it is becomes a minimal one, and the run is not executed again."""

from __future__ import annotations

from typing import Any

from langgraph.graph import END, START, StateGraph

from run_kit import FaultyDriver, Scripted, Steps, ended, graph_run, items, opened, soon, until
from runlane.agents.coroutine import RunContext
from runlane.lifecycle import EndReason, RunStatus
from runlane.records import StreamEvent


async def test_an_ending_whose_checkpoints_cannot_be_written_is_an_error_that_is_streamed_too() -> None:
    driver, calls = FaultyDriver(), []

    async def node(state: Steps) -> Steps:
        calls.append("node")
        driver.faults["checkpoints.put"] = TypeError("unfit")
        return {"log": ["node"]}

    graph = StateGraph(Steps).add_node("node", node).add_edge(START, "node").add_edge("node", END)
    async with opened(driver, graphs={"g": graph}) as runtime:
        run = await ended(runtime, await runtime.runs.create_or_reject("t", kwargs=graph_run()))
        assert (run.status, run.end_reason, run.attempt, calls) == (RunStatus.ERROR, EndReason.FAILED, 1, ["node"])
        names = [item.name for item in await items(runtime, run.run_id) if isinstance(item, StreamEvent)]
        assert names[-1] == "error"


async def test_an_ending_whose_events_cannot_be_written_is_an_error() -> None:
    driver, calls = FaultyDriver(), []

    async def agent(context: RunContext) -> None:
        calls.append(context.run_id)
        driver.faults["insert_segment"] = TypeError("unfit")

    async with opened(driver) as runtime:
        run = await ended(runtime, await runtime.runs.create_or_reject("t", agent=agent))
        assert (run.status, run.attempt, len(calls)) == (RunStatus.ERROR, 1, 1)


async def test_a_cancelled_run_whose_ending_cannot_be_written_is_interrupted() -> None:
    driver, agent = FaultyDriver(), Scripted()
    async with opened(driver) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await soon(agent.started.wait())
        driver.faults["insert_segment"] = TypeError("unfit")
        receipt = await soon(runtime.runs.cancel(run.run_id, wait=True))
        assert receipt is not None
        assert receipt.stopped_at is not None
        stopped = await runtime.runs.get(run.run_id)
        assert (stopped.status, stopped.attempt, agent.calls) == (RunStatus.INTERRUPTED, 1, 1)


async def test_a_ledger_that_takes_no_ending_is_asked_until_it_does_and_nothing_is_executed_again() -> None:
    driver, agent = FaultyDriver(), Scripted()
    agent.go.set()
    driver.faults["settle_thread"] = TypeError("a defect")
    async with opened(driver) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await until(lambda: driver.counts.get("settle_thread", 0) > 5)
        driver.faults.clear()
        assert (await ended(runtime, run)).status is RunStatus.ERROR
        assert agent.calls == 1


async def test_code_of_ours_that_fails_between_the_agent_and_its_ending_executes_nothing_again() -> None:
    calls: list[str] = []

    def secrets_provider(run: Any) -> Any:
        if calls:
            raise LookupError("of the application")
        return {}

    async def agent(context: RunContext) -> None:
        calls.append(context.run_id)
        raise ValueError("no")

    async with opened(secrets_provider=secrets_provider) as runtime:
        run = await ended(runtime, await runtime.runs.create_or_reject("t", agent=agent))
        assert (run.status, run.attempt, len(calls)) == (RunStatus.ERROR, 1, 1)


async def test_a_run_that_cannot_be_prepared_ends_as_an_error_and_is_not_tried_again() -> None:
    agent = Scripted()

    def secrets_provider(run: Any) -> Any:
        raise LookupError("of the application")

    async with opened(secrets_provider=secrets_provider) as runtime:
        run = await ended(runtime, await runtime.runs.create_or_reject("t", agent=agent))
        assert run.error is not None
        assert (run.status, run.attempt, run.error.error, agent.calls) == (RunStatus.ERROR, 1, "LookupError", 0)
