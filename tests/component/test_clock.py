"""P1, P2, P7: a clock of the machine that is set back holds up no run, and one that is set forward takes none away."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from run_kit import FaultyDriver, Scripted, at_once, ended, on_jumping_time, opened, soon
from runlane.lifecycle import RunStatus
from runlane.maintenance.liveness import GRACE_S
from runlane.records import ANY_OWNER
from runlane.runtime import Runtime
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.migrate import apply_scripts
from runlane.streams.threads import Position, newest_position, read_thread


class Clock:
    """A clock of the wall that somebody sets."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def us(self) -> int:
        return int(self.now().timestamp() * 1_000_000)


async def test_runs_that_were_admitted_before_the_clock_was_set_back_start_in_their_turn() -> None:
    clock, head = Clock(), Scripted()
    driver = MemoryDriver(clock=clock.us)
    apply_scripts(driver)
    async with opened(driver, now=clock.now, poll_s=0.02) as runtime:
        first = await runtime.runs.create("t", agent=head)
        await soon(head.started.wait())
        queued = await runtime.runs.create("t", agent=at_once)
        elsewhere = await runtime.runs.create("u")
        clock.ahead -= timedelta(hours=1)
        runtime.runs.start(elsewhere, at_once)
        assert (await ended(runtime, elsewhere)).status is RunStatus.SUCCESS
        after = await runtime.runs.create("t", agent=at_once)
        head.go.set()
        for run in (first, queued, after):
            assert (await ended(runtime, run)).status is RunStatus.SUCCESS
    await driver.aclose()


async def test_a_process_that_starts_after_the_clock_was_set_back_takes_up_what_waits() -> None:
    clock = Clock()
    driver = MemoryDriver(clock=clock.us)
    apply_scripts(driver)
    async with opened(driver, now=clock.now) as runtime:
        waiting = await runtime.runs.create("t")
    clock.ahead -= timedelta(hours=1)
    async with opened(driver, now=clock.now, poll_s=0.02) as runtime:
        runtime.agents.attach(waiting.run_id, at_once)
        assert (await ended(runtime, waiting)).status is RunStatus.SUCCESS
    await driver.aclose()


async def test_a_run_goes_on_when_the_clock_is_set_forward() -> None:
    """As after a laptop was asleep: its lease looks over, but its worker is this process, and lives."""
    clock, head = Clock(), Scripted()
    driver = MemoryDriver(clock=clock.us)
    apply_scripts(driver)
    async with opened(driver, now=clock.now, max_rescues=0) as runtime:
        run = await runtime.runs.create("t", agent=head)
        await soon(head.started.wait())
        kept = await runtime.runs.create("u")
        await runtime.runs.set_status(kept.run_id, "running")
        clock.ahead += timedelta(hours=1)
        assert await runtime.rescuer.rescue_lost() == ()
        head.go.set()
        done = await ended(runtime, run)
        assert (done.status, done.attempt, done.rescues) == (RunStatus.SUCCESS, 1, 0)
        assert (await runtime.runs.set_status(kept.run_id, "success")).status is RunStatus.SUCCESS
    await driver.aclose()


async def test_a_run_of_another_process_goes_on_when_the_ledgers_clock_is_set_forward() -> None:
    clock, head = Clock(), Scripted()
    driver = MemoryDriver(clock=clock.us)
    apply_scripts(driver)
    async with opened(driver, exclusive=False) as owner, opened(driver, exclusive=False) as other:
        run = await owner.runs.create("t", agent=head)
        await soon(head.started.wait())
        await other.rescuer.rescue_lost()
        clock.ahead += timedelta(hours=1)
        assert await other.rescuer.rescue_lost() == ()
        async with opened(driver, exclusive=False) as fresh:
            assert await fresh.rescuer.rescue_lost() == ()
        head.go.set()
        done = await ended(owner, run)
        assert (done.status, done.attempt, done.rescues) == (RunStatus.SUCCESS, 1, 0)
    await driver.aclose()


async def test_a_threads_stream_has_every_run_once_after_the_clock_was_set_back() -> None:
    clock = Clock()
    driver = MemoryDriver(clock=clock.us)
    apply_scripts(driver)
    async with opened(driver, now=clock.now, poll_s=0.02) as runtime:
        before = await runtime.runs.create("t", agent=at_once)
        await ended(runtime, before)
        cursor = await newest_position(runtime.store, await runtime.store.threads.get("t", owner=ANY_OWNER))
        clock.ahead -= timedelta(hours=1)
        after = [await runtime.runs.create("t", agent=at_once) for _ in range(2)]
        for run in after:
            await ended(runtime, run)
        assert await read(runtime, cursor) == [run.run_id for run in after]
        assert await read(runtime, Position(0, 0)) == [before.run_id, *(run.run_id for run in after)]
    await driver.aclose()


async def read(runtime: Runtime, after: Position) -> list[str]:
    """Return the runs that a reader of the thread is told of, in their order."""
    told: list[str] = []
    async for found in read_thread(runtime.streams, runtime.store, "t", after, asyncio.Event()):
        if found is None:
            break
        run, _ = found
        if run.run_id not in told[-1:]:
            told.append(run.run_id)
    return told


@on_jumping_time
async def test_a_dead_workers_run_is_rescued_although_its_lease_lies_in_the_future() -> None:
    clock = Clock()
    driver = FaultyDriver(clock=clock.us)
    async with opened(driver, poll_s=3600, exclusive=False) as runtime:
        run = await runtime.runs.create("t")
        assert await runtime.store.attempts.claim(run.run_id, "dead-worker", lease_s=30.0)
        clock.ahead -= timedelta(hours=1)
        assert await runtime.rescuer.rescue_lost() == ()
        await asyncio.sleep(30.0 + GRACE_S)
        await runtime.rescuer.rescue_lost()  # unless it looked by itself
        assert (await runtime.runs.get(run.run_id)).rescues == 1


@on_jumping_time
async def test_a_process_with_short_leases_waits_for_the_whole_lease_of_another() -> None:
    async with opened(FaultyDriver(), poll_s=3600, exclusive=False, lease_s=5.0) as runtime:
        run = await runtime.runs.create("t")
        assert await runtime.store.attempts.claim(run.run_id, "worker-with-long-leases", lease_s=60.0)
        assert await runtime.rescuer.rescue_lost() == ()
        await asyncio.sleep(60.0)
        assert await runtime.rescuer.rescue_lost() == ()
        await asyncio.sleep(GRACE_S)
        await runtime.rescuer.rescue_lost()  # unless it looked by itself
        assert (await runtime.runs.get(run.run_id)).rescues == 1
