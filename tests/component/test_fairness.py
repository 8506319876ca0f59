"""Slots are shared among owners, and limits per owner, assistant and graph hold."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from run_kit import FaultyDriver, Scripted, Stepper, graph_run, opened, soon, until
from runlane.agents.coroutine import RunContext
from runlane.runtime import Runtime

SLOTS = 3


async def flood(runtime: Runtime, agent: Any, number: int, **options: Any) -> None:
    for n in range(number):
        await runtime.runs.create(f"flood-{n}", agent=agent, **{"owner": "flood", **options})


async def test_another_owners_single_run_waits_for_one_slot() -> None:
    started: list[str] = []
    go = asyncio.Semaphore(0)

    async def agent(context: RunContext) -> None:
        started.append(context.run.owner)
        await go.acquire()

    async with opened(max_concurrent_runs=SLOTS) as runtime:
        await flood(runtime, agent, 20)
        await until(lambda: len(started) == SLOTS)
        await runtime.runs.create("single", agent=agent, owner="ann")
        go.release()
        await until(lambda: len(started) == SLOTS + 1)
        assert started == ["flood"] * SLOTS + ["ann"]
        for _ in range(20):
            go.release()
        await until(lambda: len(started) == 21)


@pytest.mark.parametrize(
    ("setting", "options"),
    [
        ("max_runs_per_owner", {}),
        ("max_runs_per_assistant", {"assistant_id": "slow"}),
        ("max_runs_per_graph", {"kwargs": {"graph_id": "slow"}}),
    ],
)
async def test_a_limit_holds_and_lets_others_pass(setting: str, options: dict[str, Any]) -> None:
    agent, other = Scripted(), Scripted()
    async with opened(max_concurrent_runs=10, **{setting: 2}) as runtime:
        await flood(runtime, agent, 5, **options)
        run = await runtime.runs.create("other", agent=other, owner="ann")
        await soon(other.started.wait())
        assert agent.running == 2
        other.go.set()
        assert (await soon(runtime.runs.join(run.run_id, owner="ann"))).status.value == "success"
        agent.go.set()
        await until(lambda: agent.calls == 5)
        assert agent.most == 2


@pytest.mark.parametrize(
    ("setting", "options"),
    [
        ("max_runs_per_owner", {}),
        ("max_runs_per_assistant", {"assistant_id": "slow"}),
        ("max_runs_per_graph", {"kwargs": {"graph_id": "slow"}}),
    ],
)
async def test_a_limit_holds_for_all_processes_of_a_ledger_together(setting: str, options: dict[str, Any]) -> None:
    driver, agent, other = FaultyDriver(), Scripted(), Scripted()
    async with (
        opened(driver, exclusive=False, poll_s=0.05, **{setting: 2}) as here,
        opened(driver, exclusive=False, poll_s=0.05, **{setting: 2}) as there,
    ):
        for n, runtime in enumerate((here, there) * 3):
            await runtime.runs.create(f"flood-{n}", agent=agent, **{"owner": "flood", **options})
        run = await there.runs.create("other", agent=other, owner="ann")
        await soon(other.started.wait())
        assert agent.running == 2
        other.go.set()
        assert (await soon(there.runs.join(run.run_id, owner="ann"))).status.value == "success"
        agent.go.set()
        await until(lambda: agent.calls == 6)
        assert agent.most == 2


async def test_another_owners_single_run_waits_for_one_slot_of_all_processes() -> None:
    driver, stepper = FaultyDriver(), Stepper()
    graphs = {"g": stepper.graph()}
    async with (
        opened(driver, exclusive=False, max_concurrent_runs=1, graphs=graphs) as here,
        opened(driver, exclusive=False, max_concurrent_runs=1, graphs=graphs) as there,
    ):
        flood = [await here.runs.create(f"f-{n}", kwargs=graph_run(), owner="flood") for n in range(10)]
        await until(lambda: stepper.calls.count("second") == 2)
        single = await there.runs.create("single", kwargs=graph_run(), owner="ann")
        stepper.go.set()
        await until(lambda: stepper.calls.count("third") == 11)
        started = [(await here.runs.get(run.run_id, owner=run.owner)).start_order for run in (*flood, single)]
        assert sorted(started).index(started[-1]) <= 3, "two executed, and each slot takes one that waited"
