"""The acceptance list, items 33 and 34: memory.

Item or known defect -> test:

    33, D22, D23, R1   test_ended_runs_leave_a_ledger_in_memory_after_..., test_cleanup_removes_ended_runs_only
    34, R16            test_all_maps_are_empty_when_nothing_runs
    P12                test_retention_removes_the_events_of_all_ended_runs
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from run_kit import (
    ENDED_LONG_AGO,
    Scripted,
    Stepper,
    at_once,
    ended,
    graph_run,
    items,
    opened,
    soon,
    turn,
)
from runlane import ConflictError, NotFound
from runlane.lifecycle import RunStatus
from runlane.records import ANY_OWNER, StreamEvent
from runlane.runtime import MEMORY_RETENTION_S, Runtime, open_runtime


async def test_ended_runs_leave_a_ledger_in_memory_after_their_grace_time() -> None:
    """Item 33: active ones never do, and young ones not yet."""
    assert MEMORY_RETENTION_S == 300
    agent = Scripted()
    async with open_runtime() as runtime:
        old = await ended(runtime, await runtime.runs.create_or_reject("old", agent=at_once))
        young = await ended(runtime, await runtime.runs.create_or_reject("young", agent=at_once))
        live = await runtime.runs.create_or_reject("live", agent=agent)
        await soon(agent.started.wait())
        for run in (old, live):
            await turn(runtime.store, ENDED_LONG_AGO, run.run_id)
        await runtime.purger.purge()
        with pytest.raises(NotFound):
            await runtime.runs.get(old.run_id)
        assert await runtime.store.events.read(old.seq, after=0) == ()
        assert (await runtime.runs.get(young.run_id)).status is RunStatus.SUCCESS
        agent.go.set()


async def test_a_ledger_in_a_file_keeps_ended_runs(tmp_path: Any) -> None:
    """Item 33: they are the history, not memory."""
    async with opened(database=f"sqlite:///{tmp_path / 'runs.db'}") as runtime:
        run = await ended(runtime, await runtime.runs.create_or_reject("t", agent=at_once))
        await turn(runtime.store, ENDED_LONG_AGO, run.run_id)
        await runtime.purger.purge()
        assert (await runtime.runs.get(run.run_id)).status is RunStatus.SUCCESS
        assert await runtime.store.events.read(run.seq, after=0) == ()


async def test_cleanup_removes_ended_runs_only(runtime: Runtime) -> None:
    """Item 33: D23."""
    agent = Scripted()
    run = await runtime.runs.create_or_reject("t", agent=agent)
    await soon(agent.started.wait())
    await runtime.runs.cleanup(run.run_id, delay_s=0)
    assert (await runtime.runs.get(run.run_id)).status is RunStatus.RUNNING
    with pytest.raises(ConflictError):
        await runtime.store.runs.delete(run.run_id, owner=ANY_OWNER)
    agent.go.set()
    await ended(runtime, run)
    await runtime.runs.cleanup(run.run_id, delay_s=0, owner="eve")
    assert (await runtime.runs.get(run.run_id)).status is RunStatus.SUCCESS
    await runtime.runs.cleanup(run.run_id, delay_s=0)
    with pytest.raises(NotFound):
        await runtime.runs.get(run.run_id)


async def test_retention_removes_the_events_of_all_ended_runs(tmp_path: Any) -> None:
    """Item 33: however many there are, and none of a run that goes on."""
    agent = Scripted(events=[("e", 1)])
    async with opened(database=f"sqlite:///{tmp_path / 'runs.db'}") as runtime:
        runs = [await runtime.runs.create_or_reject(f"t{n}", agent=at_once) for n in range(220)]
        live = await runtime.runs.create_or_reject("live", agent=agent)
        await soon(agent.started.wait())
        for run in runs:
            await ended(runtime, run)
        for run in (*runs, live):
            await turn(runtime.store, ENDED_LONG_AGO, run.run_id)
        await runtime.purger.purge()
        left = [run.run_id for run in runs if await runtime.store.events.last(run.seq)]
        assert left == []
        agent.go.set()
        assert any(isinstance(item, StreamEvent) for item in await items(runtime, live.run_id))


async def test_all_maps_are_empty_when_nothing_runs(runtime: Runtime) -> None:
    """Item 34: after runs that ended in every way, readers that left, and requests that were refused."""

    async def fails(context: Any) -> None:
        raise ValueError("mine")

    stuck, agent = Scripted(clean=False), Scripted()
    await ended(runtime, await runtime.runs.create_or_reject("ok", agent=at_once, idempotency_key="k"))
    await runtime.runs.create_or_reject("ok", agent=at_once, idempotency_key="k")
    await ended(runtime, await runtime.runs.create_or_reject("fails", agent=fails))
    for strategy in ("enqueue", "interrupt", "rollback"):
        await runtime.runs.create_or_reject("busy", agent=Scripted(), multitask_strategy=strategy)
    with pytest.raises(ConflictError):
        await runtime.runs.create_or_reject("busy", agent=at_once)
    run = await runtime.runs.create_or_reject("left", agent=stuck)
    await soon(stuck.started.wait())
    reader = asyncio.create_task(items(runtime, run.run_id))
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.wait([reader])
    await runtime.runs.cancel(run.run_id)
    await soon(ended(runtime, run))
    await runtime.runs.create("later", agent=agent, delay_s=3600)
    without_code = await runtime.runs.create_or_reject("never")
    own = await runtime.runs.create_or_reject("own")
    await runtime.runs.set_status(own.run_id, "running")
    await runtime.runs.set_status(own.run_id, "success")
    for thread_id in ("later", "never", "busy"):
        for found in await runtime.runs.list_by_thread(thread_id):
            await soon(runtime.runs.cancel(found.run_id, wait=True))
    runtime.runs.start(without_code, at_once)  # it has ended
    await soon(nothing_left(runtime))
    stuck.cleaned.set()


async def test_a_runs_state_on_its_agents_loop_is_forgotten_with_it() -> None:
    """Item 34: graphs too."""
    stepper = Stepper()
    async with opened(graphs={"g": stepper.graph()}) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        await soon(stepper.started.wait())
        await soon(runtime.runs.cancel(run.run_id, wait=True))
        await soon(nothing_left(runtime))


async def nothing_left(runtime: Runtime) -> None:
    """Wait until no map of the process has an entry."""
    dispatch: Any = runtime.worker._dispatch
    maps = (
        lambda: runtime.agents._attached,
        lambda: runtime.streams._live,
        lambda: runtime.worker._attempts,
        lambda: runtime.worker._fenced,
        lambda: runtime.worker._tasks,
        lambda: runtime.runs._external._leases,
        lambda: runtime.submitter._abandoned,
        lambda: dispatch._queued,
        lambda: dispatch._hints._timers,
    )
    while any(get() for get in maps):  # noqa: ASYNC110 - what is waited for has no signal for tests
        await asyncio.sleep(0)
