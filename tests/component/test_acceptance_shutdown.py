"""The acceptance list, items 24 to 27: shutdown, and the stages of an ending.

Item or known defect -> test:

    24, D17-D20, R2, R3, R6  test_a_drain_waits_for_code_that_cleans_up, test_each_outcome_is_durable_as_its_...,
                             test_a_drain_survives_its_caller, test_a_stuck_run_takes_nothing_from_the_others
    25                       test_the_database_is_closed_last
    26, D46, R7              test_a_second_cancel_skips_no_stage_of_an_ending, test_an_outage_delays_an_ending_...
    27, D40                  test_hooks_are_awaited_before_the_process_ends
    R20                      test_a_drain_does_not_wait_for_the_database_to_renew_leases
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from run_kit import (
    ONCE,
    FaultyDriver,
    Scripted,
    at_once,
    ended,
    items,
    on_jumping_time,
    opened,
    soon,
    status,
    until,
)
from runlane import StoreUnavailable
from runlane.agents.coroutine import RunContext
from runlane.lifecycle import CancelAction, EndReason, RunStatus
from runlane.records import StreamEnd
from runlane.runtime import Runtime


async def test_a_drain_waits_for_code_that_cleans_up(runtime: Runtime) -> None:
    """Item 24: cancelled is not ended; the drain is over when the code is."""
    agent = Scripted(clean=False)
    run = await runtime.runs.create_or_reject("t", agent=agent)
    await soon(agent.started.wait())
    await runtime.runs.cancel(run.run_id)
    await soon(agent.stopping.wait())
    drain = asyncio.create_task(runtime.runs.shutdown(60))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not drain.done()
    agent.cleaned.set()
    await soon(drain)
    assert agent.running == 0
    assert await status(runtime, run) is RunStatus.INTERRUPTED


async def test_each_outcome_is_durable_as_its_run_settles(runtime: Runtime) -> None:
    """Item 24: the quick ones do not wait for the slow one."""
    slow, quick = Scripted(clean=False), Scripted()
    runs = [
        await runtime.runs.create_or_reject(name, agent=agent) for name, agent in (("slow", slow), ("quick", quick))
    ]
    await soon(slow.started.wait())
    await soon(quick.started.wait())
    drain = asyncio.create_task(runtime.runs.shutdown(0))
    assert (await ended(runtime, runs[1])).end_reason is EndReason.DRAINED_OVER
    assert not drain.done()
    slow.cleaned.set()
    await soon(drain)
    assert (await runtime.runs.get(runs[0].run_id)).status.terminal


async def test_a_stuck_run_takes_nothing_from_the_others(runtime: Runtime) -> None:
    """Item 24: it is abandoned, and recorded too."""
    never = asyncio.Event()
    started = asyncio.Event()

    async def stubborn(context: RunContext) -> None:
        started.set()
        while not never.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await never.wait()

    stuck = await runtime.runs.create_or_reject("stuck", agent=stubborn)
    others = [await runtime.runs.create_or_reject(f"t{n}", agent=Scripted()) for n in range(5)]
    await soon(started.wait())
    await soon(runtime.runs.shutdown(0))
    found = [await status(runtime, run) for run in (stuck, *others)]
    never.set()
    assert set(found) == {RunStatus.INTERRUPTED}


async def test_a_drain_survives_its_caller(runtime: Runtime) -> None:
    """Item 24: any number of cancellations."""
    agent = Scripted(clean=False)
    run = await runtime.runs.create_or_reject("t", agent=agent)
    await soon(agent.started.wait())
    drain = asyncio.create_task(runtime.runs.shutdown(0))
    await soon(agent.stopping.wait())
    for _ in range(5):
        drain.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not drain.done()
    agent.cleaned.set()
    with pytest.raises(asyncio.CancelledError):
        await soon(drain)
    assert (await runtime.runs.get(run.run_id)).status.terminal


async def test_the_database_is_closed_last() -> None:
    """Item 25: whatever runs until the end can still write its ending."""
    driver = FaultyDriver()
    agent = Scripted()
    async with opened(driver) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await soon(agent.started.wait())
    assert agent.running == 0
    async with opened(driver) as runtime:
        assert (await runtime.runs.get(run.run_id)).status.terminal


@on_jumping_time
async def test_a_drain_does_not_wait_for_the_database_to_renew_leases() -> None:
    """Item 24: R20."""
    driver = FaultyDriver()
    agent = Scripted()
    async with opened(driver, poll_s=3600) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await agent.started.wait()
        driver.gates["renew"] = asyncio.Event()
        await driver.held.wait()
        await asyncio.wait_for(runtime.runs.shutdown(0), 5)
        assert (await runtime.runs.get(run.run_id)).status.terminal


@on_jumping_time
async def test_a_drain_that_stood_still_does_not_take_code_for_stopped_that_goes_on() -> None:
    """P4: the time in which the process stands still is none in which code could have stopped."""
    go = asyncio.Event()
    started = asyncio.Event()

    async def stone(_: RunContext) -> None:
        started.set()
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go.wait()

    loop: Any = asyncio.get_running_loop()
    async with opened(lease_s=3600, poll_s=3600, cancel_grace_s=0.3, abandon_after_s=0.4) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=stone)
        await started.wait()
        drain = asyncio.create_task(runtime.runs.shutdown(0))
        await asyncio.sleep(0.05)
        await runtime.store.runs.request_cancel(
            run.run_id, owner=run.owner, action=CancelAction.INTERRUPT, reason=EndReason.USER_CANCEL
        )
        loop.jumped_s += 60
        await drain
        receipt = (await runtime.runs.get(run.run_id)).cancel
        go.set()
        assert receipt is not None
        assert receipt.stopped_at is None
        assert receipt.blocked_at is not None


async def test_a_second_cancel_skips_no_stage_of_an_ending() -> None:
    """Item 26: cancels and drains arrive while the ending is being written."""
    driver = FaultyDriver()
    async with opened(driver) as runtime:
        agent = Scripted()
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await soon(agent.started.wait())
        driver.gates["finish"] = asyncio.Event()
        await runtime.runs.cancel(run.run_id)
        await soon(driver.held.wait())
        for _ in range(3):
            await runtime.runs.cancel(run.run_id)
        drain = asyncio.create_task(runtime.runs.shutdown(0))
        for _ in range(20):
            await asyncio.sleep(0)
        driver.gates.pop("finish").set()
        await soon(drain)
        assert await status(runtime, run) is RunStatus.INTERRUPTED
        assert isinstance((await items(runtime, run.run_id))[-1], StreamEnd)


@on_jumping_time
async def test_an_outage_delays_an_ending_and_does_not_change_it() -> None:
    """Item 26."""
    driver = FaultyDriver()
    async with opened(driver, retry=ONCE, poll_s=3600) as runtime:
        driver.faults["end_run"] = StoreUnavailable("unplugged")
        run = await runtime.runs.create_or_reject("t", agent=at_once)
        await asyncio.sleep(10)
        assert await status(runtime, run) is RunStatus.RUNNING
        driver.faults.clear()
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS


async def test_hooks_are_awaited_before_the_process_ends() -> None:
    """Item 27."""
    done: list[str] = []
    begun, go = asyncio.Event(), asyncio.Event()

    async def hook(run: Any) -> None:
        begun.set()
        await go.wait()
        done.append(run.run_id)

    async with opened(hooks=[hook]) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=at_once)
        await soon(begun.wait())
        asyncio.get_running_loop().call_soon(go.set)
    assert done == [run.run_id]


async def test_nothing_of_a_runtime_is_left_after_it() -> None:
    """Item 27: every task has an owner that awaited it."""
    before = asyncio.all_tasks()
    async with opened() as runtime:
        for number in range(5):
            await runtime.runs.create_or_reject(f"t{number}", agent=Scripted())
        await until(lambda: runtime.worker.executing == 5)
    assert asyncio.all_tasks() == before
