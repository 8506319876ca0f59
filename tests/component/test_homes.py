"""P1, P2, P7: processes that share a ledger leave alone what lives in another one, and settle what a dead one left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ledger_kit import a_run
from run_kit import (
    FaultyDriver,
    JumpingLoop,
    Scripted,
    Stepper,
    at_once,
    ended,
    graph_run,
    on_jumping_time,
    opened,
    soon,
    status,
)
from runlane.errors import StoreUnavailable
from runlane.leases import WorkerState
from runlane.lifecycle import EndReason, RunStatus
from runlane.maintenance.liveness import GRACE_S
from runlane.records import RunRecord
from runlane.runtime import Runtime
from runlane.store.drivers.sqlite import now_us

LEASE_S = 30.0
DEAD = "a-dead-process"
#: More than a dead process is given, and than a run may wait for its code.
LONG_S = 2 * LEASE_S + GRACE_S


@asynccontextmanager
async def sharing(driver: FaultyDriver, **options: Any) -> AsyncIterator[Runtime]:
    async with opened(driver, exclusive=False, lease_s=LEASE_S, poll_s=1.0, start_within_s=5.0, **options) as runtime:
        yield runtime


def a_ledger() -> FaultyDriver:
    """Return a ledger whose clock jumps with the loop's."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, JumpingLoop)
    return FaultyDriver(clock=lambda: now_us() + int(loop.jumped_s * 1_000_000))


def graphs() -> dict[str, Any]:
    stepper = Stepper()
    stepper.go.set()
    return {"g": stepper.graph()}


@on_jumping_time
@pytest.mark.parametrize("attached", ["agent=", "start", "attempt"])
async def test_a_process_with_graphs_leaves_a_run_to_the_one_that_has_its_code(attached: str) -> None:
    driver = a_ledger()
    async with sharing(driver, graphs=graphs(), max_concurrent_runs=1) as here, sharing(driver, graphs=graphs()):
        busy = Scripted()
        await here.runs.create_or_reject("busy", agent=busy)
        await soon(busy.started.wait())
        run = await here.runs.create_or_reject("t", agent=at_once if attached == "agent=" else None)
        await asyncio.sleep(2.0)  # the other process looks for what it can claim
        if attached == "start":
            here.runs.start(run, at_once)
        executing = asyncio.create_task(in_block(here, run)) if attached == "attempt" else None
        await asyncio.sleep(LONG_S)
        assert await status(here, run) is RunStatus.PENDING, "its own process has no free slot"
        busy.go.set()
        done = await ended(here, run)
        assert (done.status, done.worker_id) == (RunStatus.SUCCESS, here.worker.worker_id)
        if executing is not None:
            await executing


async def in_block(runtime: Runtime, run: RunRecord) -> None:
    async with runtime.runs.attempt(run):
        pass


@on_jumping_time
async def test_a_process_with_graphs_leaves_its_own_run_without_a_graph_to_the_code_that_comes() -> None:
    async with opened(a_ledger(), graphs=graphs(), poll_s=0.5) as runtime:
        run = await runtime.runs.create_or_reject("t")
        await asyncio.sleep(3.0)
        assert await status(runtime, run) is RunStatus.PENDING
        runtime.runs.start(run, at_once)
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS


@on_jumping_time
async def test_a_process_without_graphs_ends_no_run_that_waits_for_another() -> None:
    driver = a_ledger()
    stepper = Stepper()
    async with sharing(driver, graphs={"g": stepper.graph()}, max_concurrent_runs=1) as here, sharing(driver) as there:
        first = await here.runs.create_or_reject("t", kwargs=graph_run())
        await soon(stepper.started.wait())
        graph = await here.runs.create_or_reject("u", kwargs=graph_run())
        coroutine = await here.runs.create_or_reject("v", agent=at_once)
        await asyncio.sleep(LONG_S)
        assert await there.runs.reconcile_orphaned_inflight_runs() == []
        stepper.go.set()
        for run in (first, graph, coroutine):
            assert (await ended(here, run)).status is RunStatus.SUCCESS


@on_jumping_time
async def test_a_run_that_waits_for_the_code_of_a_dead_process_ends_as_never_started() -> None:
    async with sharing(a_ledger()) as heir:
        run = await at_home_in_a_process_that_dies(heir)
        await asyncio.sleep(LEASE_S)
        assert await status(heir, run) is RunStatus.PENDING
        done = await ended(heir, run)
        assert (done.status, done.end_reason) == (RunStatus.ERROR, EndReason.NEVER_STARTED)
        assert [worker.worker_id for worker in await heir.store.workers.list()] == [heir.worker.worker_id]


@on_jumping_time
async def test_a_run_whose_code_died_with_its_process_ends_as_worker_lost() -> None:
    async with sharing(a_ledger(), max_rescues=3) as heir:
        run = await at_home_in_a_process_that_dies(heir)
        assert await heir.store.attempts.claim(run.run_id, DEAD, lease_s=LEASE_S)
        await asyncio.sleep(LEASE_S)
        assert await status(heir, run) is RunStatus.RUNNING
        done = await ended(heir, run)
        assert (done.status, done.end_reason) == (RunStatus.ERROR, EndReason.WORKER_LOST)


@on_jumping_time
@pytest.mark.parametrize("executed", [False, True])
async def test_a_run_that_names_a_graph_is_executed_by_it_once_the_process_that_had_its_code_is_dead(
    executed: bool,
) -> None:
    async with sharing(a_ledger(), graphs=graphs()) as heir:
        run = await at_home_in_a_process_that_dies(heir, kwargs=graph_run())
        if executed:
            assert await heir.store.attempts.claim(run.run_id, DEAD, lease_s=LEASE_S)
        await asyncio.sleep(LEASE_S)
        assert not (await heir.runs.get(run.run_id)).status.terminal
        done = await ended(heir, run)
        assert (done.status, done.worker_id) == (RunStatus.SUCCESS, heir.worker.worker_id)


async def at_home_in_a_process_that_dies(heir: Runtime, **changes: Any) -> RunRecord:
    """Admit a run as another process would, which has beaten for long, and is killed now."""
    await heir.store.workers.beat(WorkerState(worker_id=DEAD, lease_s=LEASE_S))
    admission = await heir.store.runs.admit(a_run(home=DEAD, **changes))
    for beats in range(2, 7):
        await asyncio.sleep(LEASE_S / 3)
        await heir.store.workers.beat(WorkerState(worker_id=DEAD, lease_s=LEASE_S, beats=beats))
        assert await status(heir, admission.run) is RunStatus.PENDING
    return admission.run


@on_jumping_time
@pytest.mark.parametrize("graph", [False, True], ids=["code alone", "a graph too"])
async def test_a_run_is_left_to_a_process_that_came_while_others_could_not_be_seen(graph: bool) -> None:
    driver = a_ledger()
    async with sharing(driver, graphs=graphs() if graph else {}) as heir:
        driver.faults["workers"] = StoreUnavailable("unplugged")
        await asyncio.sleep(LEASE_S)
        await heir.store.workers.beat(WorkerState(worker_id=DEAD, lease_s=LEASE_S))
        run = (await heir.store.runs.admit(a_run(home=DEAD, kwargs=graph_run() if graph else None))).run
        await asyncio.sleep(LEASE_S)
        assert await status(heir, run) is RunStatus.PENDING
        driver.faults.clear()
        await asyncio.sleep(LEASE_S)
        assert await status(heir, run) is RunStatus.PENDING
        assert (await ended(heir, run)).status is (RunStatus.SUCCESS if graph else RunStatus.ERROR)


@on_jumping_time
@pytest.mark.parametrize("graph", [False, True], ids=["code alone", "a graph too"])
async def test_a_run_is_left_to_a_process_that_joined_after_the_last_look(graph: bool) -> None:
    async with sharing(a_ledger(), graphs=graphs() if graph else {}) as heir:
        await heir.store.workers.beat(WorkerState(worker_id=DEAD, lease_s=LEASE_S))
        admission = await heir.store.runs.admit(
            a_run(home=DEAD, delay_s=-LONG_S, kwargs=graph_run() if graph else None)
        )
        await heir.rescuer.dispatch_runnable()
        run = await heir.runs.get(admission.run.run_id)
        assert (run.status, run.home) == (RunStatus.PENDING, DEAD)


@on_jumping_time
async def test_a_process_that_stopped_is_not_waited_for() -> None:
    driver = a_ledger()
    async with sharing(driver) as heir:
        async with sharing(driver) as stopped:
            run = await stopped.runs.create_or_reject("t")
        await asyncio.sleep(7.0)
        done = await heir.runs.get(run.run_id)
        assert (done.status, done.end_reason) == (RunStatus.ERROR, EndReason.NEVER_STARTED)


@on_jumping_time
async def test_a_run_is_ended_by_its_own_process_if_no_code_comes() -> None:
    driver = a_ledger()
    async with sharing(driver) as here, sharing(driver):
        run = await here.runs.create_or_reject("t")
        await asyncio.sleep(7.0)
        assert (await here.runs.get(run.run_id)).end_reason is EndReason.NEVER_STARTED
