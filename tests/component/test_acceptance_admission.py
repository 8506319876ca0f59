"""The acceptance list, items 1 to 8: admission.

Item or known defect -> test (D: defects of the system whose contracts these are; R: what was left of them later):

    1, D15                one active run per thread: test_of_many_admissions_at_once_one_wins, test_two_managers_...
    2, D11                test_an_invalid_request_admits_nothing, test_a_run_without_code_ends_by_itself
    3, D1                 test_a_write_that_hangs_delays_no_other_thread
    4, D9, D14            test_a_refused_..., test_a_failed_..., test_a_cancelled_caller_...
    5, D12, D13, R4, R17  test_a_replacement_starts_only_after_..., test_a_run_that_cleans_up_still_blocks_...,
                          test_a_waiting_replacement_can_be_cancelled, test_a_run_that_never_stops_does_not_block_...
    6, R5, R14            test_a_repeated_key_..., test_a_key_is_..., test_reuse_is_said_...
    7, D33                test_a_conflict_names_the_blocking_run
    8, D21                test_admission_is_closed_as_soon_as_the_drain_begins
    R12, R13              test_store_plans.py: test_the_hot_statements_never_scan_ended_runs
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ledger_kit import a_run
from run_kit import ONCE, FaultyDriver, Scripted, at_once, ended, items, on_jumping_time, opened, soon, status
from runlane import AdmissionClosed, ConflictError, InvalidRequest, NotFound, StoreUnavailable
from runlane.lifecycle import EndReason, RunStatus
from runlane.records import ANY_OWNER, StreamEnd
from runlane.runtime import Runtime
from runlane.store.retry import PersistenceRetryPolicy


async def test_of_many_admissions_at_once_one_wins(runtime: Runtime) -> None:
    """Item 1."""
    agent = Scripted()
    answers = await asyncio.gather(
        *(runtime.runs.create_or_reject("t", agent=agent) for _ in range(20)), return_exceptions=True
    )
    admitted = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert len(admitted) == 1
    assert all(isinstance(answer, ConflictError) for answer in answers if answer is not admitted[0])
    agent.go.set()
    await ended(runtime, admitted[0])
    assert agent.calls == 1


async def test_two_managers_on_one_ledger_admit_one_run() -> None:
    """Item 1: not memory decides, but the ledger."""
    driver = FaultyDriver()
    async with opened(driver, exclusive=False) as here, opened(driver, exclusive=False) as there:
        run = await here.runs.create_or_reject("t")
        with pytest.raises(ConflictError):
            await there.runs.create_or_reject("t")
        assert await there.runs.has_inflight("t")
        assert [found.run_id for found in await there.runs.list_by_thread("t")] == [run.run_id]


@pytest.mark.parametrize(
    "wrong",
    [
        {"multitask_strategy": "wait"},
        {"on_disconnect": "shrug"},
        {"delay_s": -1.0},
        {"delay_s": float("nan")},
        {"idempotency_key": ""},
        {"idempotency_key": "k" * 256},
        {"kwargs": {"input": object()}},
        {"metadata": {"x": float}},
        {"thread_id": "../etc"},
        {"thread_id": ""},
        {"thread_id": "t" * 65},
        {"thread_id": None},
        {"model_name": 5},
        {"agent": "researcher"},
    ],
    ids=str,
)
async def test_an_invalid_request_admits_nothing(runtime: Runtime, wrong: dict[str, Any]) -> None:
    """Item 2."""
    asked = {"thread_id": "t", "agent": at_once, **wrong}
    with pytest.raises(InvalidRequest):
        await runtime.runs.create_or_reject(**asked)
    assert not await runtime.runs.list_by_thread("t")
    assert idle(runtime)


async def test_a_run_without_code_ends_by_itself() -> None:
    """Item 2: an admitted run either gets code or becomes terminal; its thread is free again."""
    async with opened(start_within_s=0.01, poll_s=0.01) as runtime:
        run = await runtime.runs.create_or_reject("t")
        forgotten = await ended(runtime, run)
        assert (forgotten.status, forgotten.end_reason) == (RunStatus.ERROR, EndReason.NEVER_STARTED)
        await ended(runtime, await runtime.runs.create_or_reject("t", agent=at_once))


async def test_code_that_cannot_be_had_fails_the_run() -> None:
    """Item 2: the graph of a run does not exist."""
    async with opened(graphs={}) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs={"graph_id": "missing"})
        failed = await ended(runtime, run)
        assert (failed.status, failed.end_reason) == (RunStatus.ERROR, EndReason.FAILED)
        assert failed.error is not None


async def test_a_write_that_hangs_delays_no_other_thread() -> None:
    """Item 3."""
    driver = FaultyDriver()
    async with opened(driver) as runtime:
        other = await runtime.runs.create_or_reject("other")
        driver.gates["admit"] = asyncio.Event()
        hanging = asyncio.create_task(runtime.runs.create_or_reject("slow", agent=at_once))
        await soon(driver.held.wait())
        gate = driver.gates.pop("admit")
        assert (await soon(runtime.runs.get(other.run_id))).status is RunStatus.PENDING
        assert await soon(runtime.runs.list_by_thread("slow")) == []
        third = await ended(runtime, await soon(runtime.runs.create_or_reject("third", agent=at_once)))
        assert third.status is RunStatus.SUCCESS
        assert await soon(runtime.runs.cancel(other.run_id)) is not None
        assert (await ended(runtime, other)).status is RunStatus.INTERRUPTED
        assert not hanging.done()
        gate.set()
        assert (await ended(runtime, await soon(hanging))).status is RunStatus.SUCCESS


async def test_a_refused_admission_leaves_the_previous_run_untouched(runtime: Runtime) -> None:
    """Item 4."""
    agent = Scripted()
    run = await runtime.runs.create_or_reject("t", agent=agent)
    await soon(agent.started.wait())
    before = await runtime.runs.get(run.run_id)
    with pytest.raises(ConflictError):
        await runtime.runs.create_or_reject("t", agent=at_once)
    assert await runtime.runs.get(run.run_id) == before
    agent.go.set()
    assert (await ended(runtime, run)).status is RunStatus.SUCCESS


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_a_failed_admission_leaves_the_previous_run_untouched(strategy: str) -> None:
    """Item 4: the ledger fails after the cancel of the previous run was written, in the same transaction."""
    driver = FaultyDriver()
    async with opened(driver, retry=ONCE) as runtime:
        agent = Scripted()
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await soon(agent.started.wait())
        driver.faults["mark_busy"] = StoreUnavailable("the disk is full")
        with pytest.raises(StoreUnavailable):
            await runtime.runs.create_or_reject("t", agent=at_once, multitask_strategy=strategy)
        driver.faults.clear()
        assert (await runtime.runs.get(run.run_id)).cancel is None
        agent.go.set()
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS
        assert [found.run_id for found in await runtime.runs.list_by_thread("t")] == [run.run_id]


@pytest.mark.parametrize("with_code", [True, False])
async def test_a_cancelled_caller_leaves_no_active_replacement(with_code: bool) -> None:
    """Item 4: what was begun is carried through, and what nobody knows of is stopped."""
    driver = FaultyDriver()
    async with opened(driver) as runtime:
        driver.gates["admit"] = asyncio.Event()
        caller = asyncio.create_task(runtime.runs.create_or_reject("t", agent=at_once if with_code else None))
        await soon(driver.held.wait())
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        driver.gates.pop("admit").set()
        await soon(nothing_active(runtime, "t"))
        (run,) = await runtime.runs.list_by_thread("t")
        assert run.status is RunStatus.INTERRUPTED
        assert run.end_reason is EndReason.DISCONNECT
        assert idle(runtime)


@on_jumping_time
async def test_a_cancelled_caller_leaves_no_active_run_behind_an_outage_either() -> None:
    driver = FaultyDriver()
    async with opened(driver) as runtime:
        driver.gates["admit"] = asyncio.Event()
        caller = asyncio.create_task(runtime.runs.create_or_reject("t"))
        await soon(driver.held.wait())
        caller.cancel()
        driver.faults["record_cancel"] = StoreUnavailable("unplugged")
        driver.gates.pop("admit").set()
        await asyncio.wait([caller])
        await soon(_counted(driver, "record_cancel", 2 * PersistenceRetryPolicy().max_attempts))
        driver.faults.clear()
        await soon(nothing_active(runtime, "t"))
        (run,) = await runtime.runs.list_by_thread("t")
        assert (run.status, run.end_reason) == (RunStatus.INTERRUPTED, EndReason.DISCONNECT)


async def _counted(driver: FaultyDriver, name: str, count: int) -> None:
    while driver.counts.get(name, 0) < count:  # noqa: ASYNC110 - what is waited for has no signal for tests
        await asyncio.sleep(1)


async def test_a_run_that_is_to_go_on_without_its_client_survives_a_cancelled_caller() -> None:
    """Item 4."""
    driver = FaultyDriver()
    async with opened(driver) as runtime:
        driver.gates["admit"] = asyncio.Event()
        caller = asyncio.create_task(runtime.runs.create_or_reject("t", agent=at_once, on_disconnect="continue"))
        await soon(driver.held.wait())
        caller.cancel()
        driver.gates.pop("admit").set()
        await asyncio.wait([caller])
        await soon(nothing_active(runtime, "t"))
        (run,) = await runtime.runs.list_by_thread("t")
        assert run.status is RunStatus.SUCCESS


@pytest.mark.parametrize("strategy", ["interrupt", "rollback", "enqueue"])
async def test_a_replacement_starts_only_after_the_run_before_it_has_ended(runtime: Runtime, strategy: str) -> None:
    """Item 5."""
    first, second = Scripted(clean=False), Scripted()
    run = await runtime.runs.create_or_reject("t", agent=first)
    await soon(first.started.wait())
    following = await soon(runtime.runs.create_or_reject("t", agent=second, multitask_strategy=strategy))
    if strategy == "enqueue":
        first.go.set()
    else:
        await soon(first.stopping.wait())
        assert await status(runtime, following) is RunStatus.PENDING
        assert second.calls == 0
        first.cleaned.set()
    await soon(second.started.wait())
    assert (await runtime.runs.get(run.run_id)).status.terminal
    assert first.running == 0
    second.go.set()
    assert (await ended(runtime, following)).status is RunStatus.SUCCESS


async def test_queued_runs_start_in_the_order_of_their_admission(runtime: Runtime) -> None:
    """Item 5."""
    order: list[int] = []

    def numbered(number: int) -> Any:
        async def agent(context: Any) -> None:
            order.append(number)

        return agent

    runs = [await runtime.runs.create("t", agent=numbered(number)) for number in range(10)]
    for run in runs:
        await ended(runtime, run)
    assert order == list(range(10))


async def test_a_run_that_cleans_up_still_blocks_a_rejecting_admission(runtime: Runtime) -> None:
    """Item 5: cancelled is not ended."""
    agent = Scripted(clean=False)
    run = await runtime.runs.create_or_reject("t", agent=agent)
    await soon(agent.started.wait())
    await runtime.runs.cancel(run.run_id)
    await soon(agent.stopping.wait())
    with pytest.raises(ConflictError):
        await runtime.runs.create_or_reject("t", agent=at_once)
    agent.cleaned.set()
    await ended(runtime, run)
    await ended(runtime, await runtime.runs.create_or_reject("t", agent=at_once))


async def test_a_waiting_replacement_can_be_cancelled(runtime: Runtime) -> None:
    """Item 5: the wait is abandoned at once, and the thread is free once the first run has ended."""
    first, second = Scripted(clean=False), Scripted()
    run = await runtime.runs.create_or_reject("t", agent=first)
    await soon(first.started.wait())
    following = await runtime.runs.create_or_reject("t", agent=second, multitask_strategy="interrupt")
    await soon(runtime.runs.cancel(following.run_id, wait=True))
    assert await status(runtime, following) is RunStatus.INTERRUPTED
    first.cleaned.set()
    await ended(runtime, run)
    await ended(runtime, await runtime.runs.create_or_reject("t", agent=at_once))
    assert second.calls == 0


async def test_a_run_that_never_stops_does_not_block_its_thread_for_ever(runtime: Runtime) -> None:
    """Item 5: it is abandoned, and said so."""
    never = asyncio.Event()

    async def stubborn(context: Any) -> None:
        while not never.is_set():
            try:
                await never.wait()
            except asyncio.CancelledError:
                continue

    run = await runtime.runs.create_or_reject("t", agent=stubborn)
    await soon(until_running(runtime, run.run_id))
    following = await runtime.runs.create_or_reject("t", agent=at_once, multitask_strategy="interrupt")
    assert (await ended(runtime, following)).status is RunStatus.SUCCESS
    receipt = (await runtime.runs.get(run.run_id)).cancel
    assert receipt is not None
    assert receipt.stopped_at is None
    assert receipt.blocked_at is not None
    never.set()


async def test_a_repeated_key_answers_the_same_run(runtime: Runtime) -> None:
    """Item 6."""
    agent = Scripted()
    first = await runtime.runs.create_or_reject("t", agent=agent, idempotency_key="k")
    again = await runtime.runs.create_or_reject("t", agent=agent, idempotency_key="k")
    agent.go.set()
    await ended(runtime, first)
    late = await runtime.runs.create_or_reject("t", agent=agent, idempotency_key="k")
    assert again.run_id == late.run_id == first.run_id
    assert agent.calls == 1
    assert idle(runtime)


async def test_a_key_is_that_of_its_owner_and_thread(runtime: Runtime) -> None:
    """Item 6."""
    runs = [
        await runtime.runs.create_or_reject(thread, agent=at_once, idempotency_key="k", owner=owner)
        for thread, owner in (("t1", "ann"), ("t2", "ann"), ("t3", "bob"))
    ]
    assert len({run.run_id for run in runs}) == 3


async def test_reuse_is_said_to_the_call_that_reused(runtime: Runtime) -> None:
    """Item 6: it is not a property of the run."""
    first = await runtime.submitter.admit(a_run("t", idempotency_key="k"))
    second = await runtime.submitter.admit(a_run("t", idempotency_key="k"))
    first.watch.close()
    second.watch.close()
    assert (first.reused, second.reused) == (False, True)
    assert first.run == second.run


async def test_a_key_of_a_run_of_another_process_does_not_block_the_thread_here() -> None:
    """Item 6: a foreign row is never adopted as a local one."""
    driver = FaultyDriver()
    async with opened(driver, exclusive=False) as here, opened(driver, exclusive=False) as there:
        agent = Scripted()
        run = await here.runs.create_or_reject("t", agent=agent, idempotency_key="k")
        await soon(agent.started.wait())
        assert (await there.runs.create_or_reject("t", agent=at_once, idempotency_key="k")).run_id == run.run_id
        agent.go.set()
        await ended(here, run)
        await ended(there, await there.runs.create_or_reject("t", agent=at_once))


async def test_a_conflict_names_the_blocking_run(runtime: Runtime) -> None:
    """Item 7."""
    run = await runtime.runs.create_or_reject("t")
    with pytest.raises(ConflictError) as conflict:
        await runtime.runs.create_or_reject("t")
    assert (conflict.value.thread_id, conflict.value.active_run_id) == ("t", run.run_id)
    assert run.run_id in str(conflict.value)


async def test_admission_is_closed_as_soon_as_the_drain_begins(runtime: Runtime) -> None:
    """Item 8."""
    agent = Scripted()
    run = await runtime.runs.create_or_reject("t", agent=agent)
    await soon(agent.started.wait())
    drain = asyncio.create_task(runtime.runs.shutdown(PATIENCE))
    await asyncio.sleep(0)
    with pytest.raises(AdmissionClosed):
        await runtime.runs.create_or_reject("other", agent=at_once)
    agent.go.set()
    await soon(drain)
    assert await status(runtime, run) is RunStatus.SUCCESS


async def test_a_delayed_run_starts_when_it_is_due_and_not_before() -> None:
    """Items 2 and 5: it waits without a slot, and does not hold up runs that are due."""
    async with opened() as runtime:
        delayed = await runtime.runs.create("t", agent=at_once, delay_s=0.2)
        await ended(runtime, await runtime.runs.create("t", agent=at_once))
        assert await status(runtime, delayed) is RunStatus.PENDING
        done = await ended(runtime, delayed)
        assert done.status is RunStatus.SUCCESS
        assert done.started_at is not None
        assert done.started_at >= done.not_before


async def test_a_cancelled_delayed_run_never_starts(runtime: Runtime) -> None:
    """Item 10, of a run that waits for its time."""
    agent = Scripted()
    run = await runtime.runs.create("t", agent=agent, delay_s=3600.0)
    await soon(runtime.runs.cancel(run.run_id, wait=True))
    assert isinstance((await items(runtime, run.run_id))[-1], StreamEnd)
    assert agent.calls == 0
    assert idle(runtime)


async def test_a_run_of_another_tenants_thread_is_not_admitted(runtime: Runtime) -> None:
    """Items 4 and 35."""
    await runtime.runs.create_or_reject("t", owner="ann")
    with pytest.raises(NotFound):
        await runtime.runs.create_or_reject("t", owner="bob", agent=at_once)
    assert len(await runtime.runs.list_by_thread("t", owner=ANY_OWNER)) == 1
    assert idle(runtime)


PATIENCE = 60.0


def idle(runtime: Runtime) -> bool:
    """Return whether no map of the process has an entry."""
    return not (runtime.agents._attached or runtime.streams._live or runtime.worker._attempts)


async def nothing_active(runtime: Runtime, thread_id: str) -> None:
    while True:
        runs = await runtime.runs.list_by_thread(thread_id)
        if runs and all(run.status.terminal for run in runs):
            return
        await asyncio.sleep(0)


async def until_running(runtime: Runtime, run_id: str) -> None:
    while (await runtime.runs.get(run_id)).status is not RunStatus.RUNNING:  # noqa: ASYNC110
        await asyncio.sleep(0)
