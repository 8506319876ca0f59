"""The acceptance list, items 15 to 17: leases, fencing, rescue.

Item or known defect -> test:

    15, R10   test_an_attempt_whose_run_was_taken_writes_nothing, test_an_attempt_stops_at_its_confirmed_deadline,
              test_a_lost_renewal_costs_nothing, test_leases_are_renewed_in_one_transaction
    16, D24   test_of_many_rescuers_one_takes_a_run, test_a_rescue_ends_the_stream_of_a_run_that_is_given_up,
              test_a_run_that_kills_its_worker_ends
    17        test_a_second_process_cannot_open_the_same_file
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ledger_kit import a_run, held
from run_kit import (
    FaultyDriver,
    Scripted,
    Stepper,
    at_once,
    ended,
    graph_run,
    items,
    on_jumping_time,
    on_virtual_time,
    opened,
    settings,
    soon,
    status,
    until,
)
from runlane import IllegalTransition, StoreUnavailable
from runlane.agents.coroutine import CoroutineAgent, RunContext
from runlane.errors import LedgerInUse
from runlane.execution.decision import StopReason
from runlane.execution.worker import Worker
from runlane.lifecycle import EndReason, RunStatus
from runlane.maintenance.liveness import GRACE_S
from runlane.outcomes import Drained
from runlane.records import StreamEnd
from runlane.runtime import Runtime, open_runtime
from simulation.seams import applied, method


async def test_an_attempt_whose_run_was_taken_writes_nothing() -> None:
    """Item 15: no event, no status, no checkpoint, no counter of it lands."""
    driver = FaultyDriver()
    first, second = Stepper(), Stepper()
    second.go.set()
    async with opened(driver, graphs={"g": first.graph()}, poll_s=3600) as dead:
        run = await dead.runs.create_or_reject("t", kwargs=graph_run(durability="sync"))
        await soon(first.started.wait())
        async with opened(driver, graphs={"g": second.graph()}) as heir:
            done = await ended(heir, run)
            assert (done.status, done.attempt, done.rescues) == (RunStatus.SUCCESS, 2, 1)
            events = await items(heir, run.run_id)
            first.go.set()
            await until(lambda: not dead.worker.executing)
            assert await heir.runs.get(run.run_id) == done
            assert await items(heir, run.run_id) == events
    assert second.calls == ["second", "third"]


@on_jumping_time
async def test_an_attempt_stops_at_its_confirmed_deadline() -> None:
    """Item 15: when nobody confirms its lease any more, its code is stopped before another worker may start it."""
    driver = FaultyDriver()
    agent = Scripted()
    async with opened(driver, lease_s=30.0, poll_s=3600) as runtime:
        clock = asyncio.get_running_loop().time
        claimed_at = clock()
        run = await runtime.runs.create_or_reject("t", agent=CoroutineAgent(agent, continuable=True))
        await agent.started.wait()
        driver.faults["held"] = StoreUnavailable("unplugged")
        await agent.stopping.wait()
        assert clock() - claimed_at == pytest.approx(30.0, abs=1.0)
        driver.faults.clear()
        agent.go.set()
        assert (await ended(runtime, run)).attempt == 2


@on_jumping_time
async def test_a_lost_renewal_costs_nothing() -> None:
    """Item 15."""
    driver = FaultyDriver()
    agent = Scripted()
    async with opened(driver, lease_s=30.0, poll_s=3600) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await agent.started.wait()
        driver.faults["held"] = StoreUnavailable("unplugged")
        await asyncio.sleep(15)
        driver.faults.clear()
        await asyncio.sleep(100)
        assert not agent.stopping.is_set()
        agent.go.set()
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS


@on_jumping_time
async def test_leases_are_renewed_in_one_transaction() -> None:
    """Item 15: many runs do not exceed a lease by being renewed one after the other."""
    driver = FaultyDriver()
    agents = [Scripted() for _ in range(50)]
    async with opened(driver, lease_s=30.0, poll_s=3600) as runtime:
        for number, agent in enumerate(agents):
            await runtime.runs.create_or_reject(f"t{number}", agent=agent)
            await agent.started.wait()
        writes: list[str] = []
        write = driver.write

        async def counted(transaction: Any) -> Any:
            writes.append(transaction.__name__)
            return await write(transaction)

        driver.write = counted  # type: ignore[method-assign]
        await asyncio.sleep(10.5)
        assert writes.count("renew") == 1
        assert driver.counts["held"] == 1
        for agent in agents:
            agent.go.set()


@on_jumping_time
async def test_a_run_that_the_application_executes_keeps_its_lease() -> None:
    """Item 15: nobody rescues it while the process lives."""
    driver = FaultyDriver()
    async with opened(driver, lease_s=30.0, poll_s=3600) as runtime:
        run = await runtime.runs.create_or_reject("t")
        await runtime.runs.set_status(run.run_id, "running")
        await asyncio.sleep(100)
        assert driver.counts["beat"] >= 9
        await asyncio.sleep(10.5)
        assert await runtime.rescuer.rescue_lost() == ()
        assert (await runtime.runs.set_status(run.run_id, "success")).status is RunStatus.SUCCESS


@on_jumping_time
async def test_a_run_that_the_application_lost_cannot_be_ended_by_it() -> None:
    """Item 15."""
    driver = FaultyDriver()
    async with opened(driver, lease_s=30.0, poll_s=3600) as runtime:
        run = await runtime.runs.create_or_reject("t")
        await runtime.runs.set_status(run.run_id, "running")
        rescued = await runtime.store.attempts.rescue(await held(runtime.store, run.run_id), max_rescues=3)
        assert rescued.run.status is RunStatus.PENDING
        with pytest.raises(IllegalTransition):
            await runtime.runs.set_status(run.run_id, "success")


async def test_a_run_that_was_taken_is_not_executed_twice_by_one_process() -> None:
    """Item 15: the process that lost a run is offered it again while the old attempt still cleans up."""
    driver = FaultyDriver()
    agent = Scripted(clean=False)
    slow = {"cancel_grace_s": 60.0, "abandon_after_s": 60.0}
    async with opened(driver, lease_s=3.0, poll_s=0.02, exclusive=False, **slow) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=CoroutineAgent(agent, continuable=True))
        await soon(agent.started.wait())
        await runtime.store.attempts.rescue(await held(runtime.store, run.run_id), max_rescues=3)
        await soon(agent.stopping.wait())
        await runtime.rescuer.dispatch_runnable()
        for _ in range(50):
            await asyncio.sleep(0)
        assert await status(runtime, run) is RunStatus.PENDING
        agent.cleaned.set()
        agent.go.set()
        done = await ended(runtime, run)
        assert (done.status, done.attempt, agent.most) == (RunStatus.SUCCESS, 2, 1)


@on_virtual_time
async def test_of_many_rescuers_one_takes_a_run() -> None:
    """Item 16: once they have seen for a lease's time that its owner is silent."""
    driver = FaultyDriver()
    agent = Scripted()
    async with opened(driver, lease_s=30.0, poll_s=3600, exclusive=False) as dead:
        run = await dead.runs.create_or_reject("t", agent=agent)
        await agent.started.wait()
        driver.faults["held"] = StoreUnavailable("unplugged")
        driver.gates["finish"] = asyncio.Event()
        heirs = [opened(driver, lease_s=30.0, poll_s=3600, exclusive=False) for _ in range(3)]
        runtimes = [await heir.__aenter__() for heir in heirs]
        for silent_s, rescues in ((0.0, 0), (30.0, 0), (GRACE_S, 1), (60.0, 1)):
            await asyncio.sleep(silent_s)  # the heirs look by themselves too
            await asyncio.gather(*(runtime.rescuer.rescue_lost() for runtime in runtimes))
            assert (await dead.runs.get(run.run_id)).rescues == rescues
        driver.gates.pop("finish").set()
        for heir in heirs:
            await heir.__aexit__(None, None, None)


async def test_a_run_that_was_renewed_since_it_was_seen_is_left_alone() -> None:
    """Item 16: D24, the window between the look and the write."""
    driver = FaultyDriver()
    async with opened(driver, poll_s=3600) as runtime:
        run = await runtime.runs.create_or_reject("t")
        await runtime.runs.set_status(run.run_id, "running")
        seen = await held(runtime.store, run.run_id)
        await runtime.runs.set_status(run.run_id, "success")
        with pytest.raises(Exception, match="no longer owns"):
            await runtime.store.attempts.rescue(seen, max_rescues=3)
        assert await status(runtime, run) is RunStatus.SUCCESS


@on_jumping_time
async def test_a_renewal_that_is_answered_late_says_nothing_of_the_next_attempt_in_the_same_process() -> None:
    driver, gate = FaultyDriver(), asyncio.Event()
    again, go, calls = asyncio.Event(), asyncio.Event(), []

    async def code(context: RunContext) -> str:
        calls.append(context.run.attempt)
        if len(calls) == 1:
            driver.gates["renew"] = gate
            await driver.held.wait()  # the lease of this attempt is on its way
            raise Drained
        again.set()
        await go.wait()
        return "done"

    async with opened(driver, poll_s=3600, lease_s=30.0) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=CoroutineAgent(code, continuable=True))
        await again.wait()
        del driver.gates["renew"]
        gate.set()
        await asyncio.sleep(60)  # of the loop's own time: renewals come and go
        assert await status(runtime, run) is RunStatus.RUNNING
        go.set()
        done = await ended(runtime, run)
        assert (done.status, done.attempt, done.rescues, calls) == (RunStatus.SUCCESS, 2, 0, [1, 2])


def test_a_planted_renewal_that_fences_the_next_attempt_is_found() -> None:
    def of_the_run(original: Callable[..., None]) -> Callable[..., None]:
        def fence(self: Worker, over: Callable[[tuple[str, int]], bool], reason: StopReason) -> None:
            original(self, lambda key: any(over((key[0], number)) for number in range(1, key[1] + 1)), reason)

        return fence

    with applied([method(Worker, "_fence", of_the_run)]), pytest.raises(TimeoutError):
        test_a_renewal_that_is_answered_late_says_nothing_of_the_next_attempt_in_the_same_process()


@on_jumping_time
async def test_a_renewal_that_is_answered_late_leaves_the_next_lease_of_an_application_alone() -> None:
    driver, gate = FaultyDriver(), asyncio.Event()
    async with opened(driver, poll_s=3600, lease_s=30.0) as runtime:
        run = await runtime.runs.create_or_reject("t")
        await runtime.runs.set_status(run.run_id, "running")
        driver.gates["renew"] = gate
        await driver.held.wait()
        await runtime.store.attempts.rescue(await held(runtime.store, run.run_id), max_rescues=3)
        await runtime.runs.set_status(run.run_id, "running")
        del driver.gates["renew"]
        gate.set()
        await asyncio.sleep(60)
        await runtime.runs.set_status(run.run_id, "success")
        done = await runtime.runs.get(run.run_id)
        assert (done.status, done.attempt) == (RunStatus.SUCCESS, 2)


async def test_a_run_that_kills_its_worker_ends() -> None:
    """Item 16: it ends as an error after max_rescues, and its stream and its thread are whole."""
    driver = FaultyDriver()
    reader = None
    for _ in range(10):
        stepper = Stepper()
        crashed = opened(driver, graphs={"g": stepper.graph()}, max_rescues=2)
        runtime = await crashed.__aenter__()
        if reader is None:
            run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
            reader = True
        waiting = asyncio.create_task(stepper.started.wait())
        ending = asyncio.create_task(runtime.runs.join(run.run_id))
        await asyncio.wait([waiting, ending], return_when=asyncio.FIRST_COMPLETED, timeout=20)
        waiting.cancel()
        if ending.done():
            await crashed.__aexit__(None, None, None)
            break
        ending.cancel()
        kill(runtime)
    done = ending.result()
    assert (done.status, done.end_reason) == (RunStatus.ERROR, EndReason.WORKER_LOST)
    async with opened(driver, graphs={"g": Stepper().graph()}) as runtime:
        found = await runtime.runs.get(run.run_id)
        assert found.rescues >= 2
        end = (await items(runtime, run.run_id))[-1]
        assert isinstance(end, StreamEnd)
        assert end.status is RunStatus.ERROR
        assert not await runtime.runs.has_inflight("t")


@pytest.mark.parametrize("continuable", [False, True], ids=["once", "continuable"])
async def test_a_coroutine_is_executed_again_after_a_crash_only_if_it_may_be(continuable: bool) -> None:
    driver, agent = FaultyDriver(), Scripted()
    found = {"g": CoroutineAgent(agent, continuable=continuable)}.__getitem__
    crashed = await opened(driver, graph_agent=found).__aenter__()
    run = await crashed.runs.create("t", kwargs=graph_run())
    await soon(agent.started.wait())
    kill(crashed)
    agent.go.set()
    async with opened(driver, graph_agent=found) as runtime:
        done = await ended(runtime, run)
        wanted = (RunStatus.SUCCESS, EndReason.COMPLETED) if continuable else (RunStatus.ERROR, EndReason.WORKER_LOST)
        assert (done.status, done.end_reason, agent.calls) == (*wanted, 2 if continuable else 1)
        following = await runtime.runs.create("t", kwargs=graph_run())
        assert (await ended(runtime, following)).status is RunStatus.SUCCESS


@on_jumping_time
async def test_a_coroutine_that_an_outage_stopped_is_not_executed_again() -> None:
    driver, agent = FaultyDriver(), Scripted()
    found = {"g": CoroutineAgent(agent)}.__getitem__
    async with opened(driver, lease_s=30.0, poll_s=1.0, graph_agent=found) as runtime:
        run = await runtime.runs.create("t", kwargs=graph_run())
        await agent.started.wait()
        driver.out = True
        await agent.stopping.wait()
        driver.out = False
        agent.go.set()
        done = await ended(runtime, run)
        assert (done.status, done.end_reason, agent.calls) == (RunStatus.ERROR, EndReason.WORKER_LOST, 1)


async def test_a_rescue_ends_the_stream_of_a_run_that_is_given_up() -> None:
    """Item 16: at once, for readers who were there from the beginning."""
    driver = FaultyDriver()
    async with opened(driver, poll_s=3600, max_rescues=0, heartbeat_s=3600) as runtime:
        admitted = await runtime.submitter.admit(a_run("t"))
        run = admitted.run
        with admitted.watch as watch:
            reader = asyncio.create_task(anext(watch.batches()))
            await asyncio.sleep(0)
            await runtime.runs.reconcile_orphaned_inflight_runs("gone")
            (end,) = await soon(reader)
        assert isinstance(end, StreamEnd)
        done = await runtime.runs.get(run.run_id)
        assert (done.status, done.end_reason) == (RunStatus.ERROR, EndReason.WORKER_LOST)
        assert done.error is not None
        assert done.error.message == "gone"


async def test_reconciling_leaves_live_runs_and_young_ones_alone(runtime: Runtime) -> None:
    """Item 16: D24, D23."""
    agent = Scripted()
    live = await runtime.runs.create_or_reject("t", agent=agent)
    queued = await runtime.runs.create("t", agent=at_once)
    young = await runtime.runs.create_or_reject("u")
    await soon(agent.started.wait())
    assert await runtime.runs.reconcile_orphaned_inflight_runs(before=live.created_at) == []
    assert [run.run_id for run in await runtime.runs.reconcile_orphaned_inflight_runs()] == [young.run_id]
    agent.go.set()
    assert (await ended(runtime, live)).status is RunStatus.SUCCESS
    assert (await ended(runtime, queued)).status is RunStatus.SUCCESS


async def test_a_second_process_cannot_open_the_same_file(tmp_path: Any) -> None:
    """Item 17: it is told who has it, before anything is read."""
    database = f"sqlite:///{tmp_path / 'runs.db'}"
    async with open_runtime(settings=settings(database=database)) as runtime:
        with pytest.raises(LedgerInUse):
            async with open_runtime(settings=settings(database=database)):
                pass
        await ended(runtime, await runtime.runs.create_or_reject("t", agent=at_once))
    async with open_runtime(settings=settings(database=database)) as runtime:
        assert len(await runtime.runs.list_by_thread("t")) == 1


def kill(runtime: Runtime) -> None:
    """End a process as a crash does: nothing of it runs any more."""
    worker = runtime.worker
    loops = (worker._fetching, worker._cancelling, worker._renewing, *runtime.rescuer._loops, runtime.purger._loop)
    for task in (*worker._tasks, *(loop._task for loop in loops)):
        assert task is not None
        task.cancel()


async def test_a_claim_whose_caller_was_cancelled_is_handed_back() -> None:
    """A caller that never knew that it holds a run would not end it, and its lease would be renewed for ever."""
    driver = FaultyDriver()
    async with opened(driver) as runtime:
        run = await runtime.runs.create_or_reject("t")
        gate = driver.gates["claim"] = asyncio.Event()
        caller = asyncio.create_task(runtime.runs.set_status(run.run_id, "running"))
        await soon(driver.held.wait())
        caller.cancel()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await soon(caller)
        found = await runtime.runs.get(run.run_id)
        assert (found.status, found.attempt, found.rescues) == (RunStatus.PENDING, 1, 0)
        assert not runtime.worker.holds(run.run_id, 1)
        del driver.gates["claim"]
        await runtime.runs.set_status(run.run_id, "running")
        assert (await runtime.runs.set_status(run.run_id, "success")).status is RunStatus.SUCCESS


async def test_a_claim_whose_caller_and_whose_run_were_cancelled_ends_the_run() -> None:
    driver = FaultyDriver()
    async with opened(driver) as runtime:
        run = await runtime.runs.create_or_reject("t")
        driver.gates["finish"] = asyncio.Event()
        gate = driver.gates["claim"] = asyncio.Event()
        caller = asyncio.create_task(runtime.runs.set_status(run.run_id, "running"))
        await soon(driver.held.wait())
        caller.cancel()
        driver.held.clear()
        gate.set()
        await soon(driver.held.wait())
        await runtime.runs.cancel(run.run_id)
        driver.gates.pop("finish").set()
        with pytest.raises(asyncio.CancelledError):
            await soon(caller)
        assert await status(runtime, run) is RunStatus.INTERRUPTED


async def test_an_ending_whose_caller_was_cancelled_is_told_all_the_same() -> None:
    driver = FaultyDriver()
    async with opened(driver, poll_s=3600, heartbeat_s=3600) as runtime:
        run = await runtime.runs.create("t")
        await runtime.runs.set_status(run.run_id, "running")
        following = await runtime.runs.create("t", agent=at_once)
        joined = asyncio.create_task(runtime.runs.join(run.run_id))
        gate = driver.gates["finish"] = asyncio.Event()
        caller = asyncio.create_task(runtime.runs.set_status(run.run_id, "success"))
        await soon(driver.held.wait())
        caller.cancel()
        del driver.gates["finish"]
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await soon(caller)
        assert (await soon(joined)).status is RunStatus.SUCCESS
        assert (await ended(runtime, following)).status is RunStatus.SUCCESS
        assert not runtime.worker.holds(run.run_id, 1)
