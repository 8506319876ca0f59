"""Admission: the four strategies, lanes, delays and repeated requests."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from ledger_kit import (
    DUE,
    SET_BACK,
    WORKER,
    a_run,
    admission,
    admit,
    cancel,
    claim,
    ended,
    finish,
    next_id,
    running,
    turn,
)
from runlane.errors import AlreadyExists, ConflictError, NotFound, QueueFull
from runlane.lifecycle import CancelAction, EndReason, MultitaskStrategy, RunEvent, RunStatus, ThreadStatus
from runlane.records import ANY_OWNER, Claim
from runlane.store.ledger import RunStore
from runlane.store.statements import Driver

HOUR_S = 3600.0
EVERY_STRATEGY = list(MultitaskStrategy)


async def statuses(store: RunStore, thread_id: str = "t") -> list[tuple[str, str]]:
    runs = await store.runs.list(thread_id, owner=ANY_OWNER, limit=1000)
    return [(run.run_id, run.status.value) for run in reversed(runs)]


async def claimable(store: RunStore) -> list[str]:
    return [head.run_id for head, _ in await store.queue.runnable()]


# An idle thread.


@pytest.mark.parametrize("strategy", EVERY_STRATEGY)
async def test_on_an_idle_thread_every_strategy_admits(store: RunStore, strategy: MultitaskStrategy) -> None:
    await ended(store)
    admitted = await admission(store, multitask_strategy=strategy)
    assert (admitted.runnable, admitted.reused, admitted.cancelled) == (True, False, ())
    assert admitted.run.multitask_strategy is strategy
    await claim(store, admitted.run.run_id)


# A busy thread: a run executes and another one waits.


@pytest.mark.parametrize("executes", [True, False])
async def test_reject_names_the_run_in_its_way_and_leaves_everything(store: RunStore, executes: bool) -> None:
    first = await admit(store)
    if executes:
        await claim(store, first)
    await admit(store)
    before = await statuses(store)
    thread = await store.threads.get("t", owner=ANY_OWNER)
    with pytest.raises(ConflictError) as refused:
        await admit(store, multitask_strategy="reject", thread_metadata={"graph_id": "g"})
    assert (refused.value.thread_id, refused.value.active_run_id) == ("t", first)
    assert await statuses(store) == before
    assert await store.threads.get("t", owner=ANY_OWNER) == thread


async def test_enqueue_waits_and_touches_nothing(store: RunStore) -> None:
    lease, waiting = await running(store), await admit(store)
    admitted = await admission(store)
    assert (admitted.runnable, admitted.cancelled) == (False, ())
    assert await store.attempts.claim(admitted.run.run_id, WORKER, lease_s=60) is None
    assert [status for _, status in await statuses(store)] == ["running", "pending", "pending"]
    assert next_id(await finish(store, lease)) == waiting


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [("interrupt", EndReason.SUPERSEDED), ("rollback", EndReason.ROLLED_BACK)],
)
async def test_superseding_cancels_what_is_active_and_waits_for_it(
    store: RunStore, strategy: str, reason: EndReason
) -> None:
    lease, waiting = await running(store), await admit(store)
    admitted = await admission(store, multitask_strategy=strategy)
    new = admitted.run.run_id
    assert not admitted.runnable
    asked, dropped = (done.run for done in admitted.cancelled)
    assert (asked.run_id, asked.status, dropped.run_id, dropped.status, dropped.end_reason) == (
        lease.run_id,
        RunStatus.RUNNING,
        waiting,
        RunStatus.INTERRUPTED,
        reason,
    )
    for run in (asked, dropped):
        assert run.cancel is not None
        assert (run.cancel.action, run.cancel.reason) == (
            CancelAction(strategy if strategy == "rollback" else "interrupt"),
            EndReason.SUPERSEDED,
        )
        assert run.cancel.requested_by == new
    assert await store.attempts.claim(new, WORKER, lease_s=60) is None
    assert next_id(await finish(store, lease, RunEvent.STOP)) == new
    await claim(store, new)


async def test_superseding_waiting_runs_alone_makes_the_new_run_claimable_at_once(store: RunStore) -> None:
    waiting = await admit(store)
    admitted = await admission(store, multitask_strategy="interrupt")
    assert admitted.runnable
    assert await statuses(store) == [(waiting, "interrupted"), (admitted.run.run_id, "pending")]


async def test_superseding_keeps_a_cancel_that_was_there_before(store: RunStore) -> None:
    lease = await running(store)
    first = await cancel(store, lease.run_id, CancelAction.ROLLBACK, by="ann")
    admitted = await admission(store, multitask_strategy="interrupt")
    assert admitted.cancelled[0].run.cancel == first.run.cancel


# Lanes.


async def test_a_lane_starts_its_runs_in_the_order_of_admission(store: RunStore) -> None:
    run_ids = [await admit(store) for _ in range(5)]
    for run_id in run_ids:
        assert await claimable(store) == [run_id]
        for other in run_ids:
            if other != run_id:
                assert await store.attempts.claim(other, WORKER, lease_s=60) is None
        await finish(store, (await claim(store, run_id)).lease)
    assert [run_id for run_id, _ in await statuses(store)] == run_ids


async def test_a_busy_thread_does_not_delay_another(store: RunStore) -> None:
    await running(store, "a")
    await admit(store, "a")
    other = await admission(store, "b")
    assert other.runnable
    await claim(store, other.run.run_id)


@pytest.mark.parametrize("strategy", ["enqueue", "interrupt", "rollback", "reject"])
async def test_fifty_concurrent_admissions_leave_one_lane_in_order(store: RunStore, strategy: str) -> None:
    async def attempt() -> Claim | None:
        try:
            admitted = await admission(store, multitask_strategy=strategy)
        except ConflictError:
            return None
        return await store.attempts.claim(admitted.run.run_id, WORKER, lease_s=60)

    claims = [won for won in await asyncio.gather(*(attempt() for _ in range(50))) if won is not None]
    assert len(claims) == 1
    assert len(await statuses(store)) == (1 if strategy == "reject" else 50)
    order, lease = [], claims[0].lease
    while True:
        order.append(lease.seq)
        following = next_id(await finish(store, lease, RunEvent.STOP))
        if following is None:
            break
        lease = (await claim(store, following)).lease
    assert order == sorted(order)
    assert {status for _, status in await statuses(store)} == {"interrupted"}
    assert (await store.threads.get("t", owner=ANY_OWNER)).status is ThreadStatus.IDLE


# Delays.


async def test_a_delayed_run_cannot_be_claimed_before_it_is_due(store: RunStore) -> None:
    admitted = await admission(store, delay_s=HOUR_S)
    run = admitted.run
    assert not admitted.runnable
    assert (run.not_before - run.created_at).total_seconds() == HOUR_S
    assert await store.attempts.claim(run.run_id, WORKER, lease_s=60) is None
    [(head, wait_us)] = await store.queue.runnable()
    assert head.run_id == run.run_id
    assert 0 < wait_us <= HOUR_S * 1_000_000
    await turn(store, DUE, run.run_id)
    await claim(store, run.run_id)


async def test_a_delayed_run_does_not_hold_up_later_ones(store: RunStore) -> None:
    delayed = await admit(store, delay_s=HOUR_S)
    later = await admission(store)
    assert later.runnable
    lease = (await claim(store, later.run.run_id)).lease
    await turn(store, DUE, delayed)
    assert await store.attempts.claim(delayed, WORKER, lease_s=60) is None
    assert next_id(await finish(store, lease)) == delayed


async def test_a_delayed_run_that_came_due_goes_before_later_ones(store: RunStore) -> None:
    delayed, later = await admit(store, delay_s=HOUR_S), await admit(store)
    await turn(store, DUE, delayed)
    assert await store.attempts.claim(later, WORKER, lease_s=60) is None
    assert await claimable(store) == [delayed]


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_superseding_drops_delayed_runs_too(store: RunStore, strategy: str) -> None:
    delayed = await admit(store, delay_s=HOUR_S)
    assert (await admission(store, multitask_strategy=strategy)).runnable
    assert (await store.runs.get(delayed, owner=ANY_OWNER)).status is RunStatus.INTERRUPTED


async def test_reject_is_refused_by_a_delayed_run(store: RunStore) -> None:
    delayed = await admit(store, delay_s=HOUR_S)
    with pytest.raises(ConflictError) as refused:
        await admit(store, multitask_strategy="reject")
    assert refused.value.active_run_id == delayed


async def test_cancelling_the_head_of_a_lane_names_the_next_one(store: RunStore) -> None:
    head, following = await admit(store), await admit(store)
    assert next_id(await cancel(store, head)) == following


async def test_cancelling_a_waiting_run_starts_nothing_while_another_executes(store: RunStore) -> None:
    await running(store)
    waiting, _ = await admit(store), await admit(store)
    assert next_id(await cancel(store, waiting)) is None


# A clock that is set back.


async def test_a_run_that_nobody_delayed_is_due_even_if_the_clock_was_set_back_since(store: RunStore) -> None:
    lease, following, last, delayed = await running(store), await admit(store), await admit(store), None
    delayed = await admit(store, "u", delay_s=HOUR_S)
    for run_id in (following, last, delayed):
        await turn(store, SET_BACK, run_id)
    assert next_id(await finish(store, lease)) == following
    [(due, due_us), (later, later_us)] = await store.queue.runnable()
    assert (due.run_id, later.run_id) == (following, delayed)
    assert later_us - due_us > 1.5 * HOUR_S * 1_000_000
    waiting = await store.queue.waiting_on([following, last, delayed])
    assert [waiting[run_id].reason for run_id in (following, last, delayed)] == ["slots", "run", "delay"]
    assert await store.attempts.claim(last, WORKER, lease_s=60) is None
    assert await store.attempts.claim(delayed, WORKER, lease_s=60) is None
    await claim(store, following)


# A lane that is full.


@pytest.mark.parametrize("executes", [True, False])
async def test_as_many_runs_wait_on_a_thread_as_may_and_one_more_is_refused(driver: Driver, executes: bool) -> None:
    store = RunStore(driver, max_queued_runs=2)
    head = await admit(store)
    if executes:
        await claim(store, head)
    waiting = [await admit(store), await admit(store, delay_s=HOUR_S)]
    before, thread = await statuses(store), await store.threads.get("t", owner=ANY_OWNER)
    for changes in ({}, {"delay_s": HOUR_S}, {"thread_metadata": {"graph_id": "g"}}):
        with pytest.raises(QueueFull, match="max_queued_runs") as refused:
            await admit(store, **changes)
    assert (refused.value.thread_id, refused.value.max_queued_runs) == ("t", 2)
    assert await statuses(store) == before
    assert await store.threads.get("t", owner=ANY_OWNER) == thread
    await admit(store, "another")
    await cancel(store, waiting[0])
    await admit(store)
    with pytest.raises(QueueFull):
        await admit(store)


async def test_of_a_batch_that_does_not_fit_into_a_lane_nothing_is_admitted(driver: Driver) -> None:
    store = RunStore(driver, max_queued_runs=2)
    with pytest.raises(QueueFull):
        await store.runs.admit_all([a_run("u"), *(a_run("t") for _ in range(4))])
    assert await claimable(store) == []
    await store.runs.admit_all([a_run("t") for _ in range(3)])


async def test_in_a_full_lane_a_repeated_request_still_gets_its_run(driver: Driver) -> None:
    store = RunStore(driver, max_queued_runs=1)
    await running(store)
    by_id, by_key = a_run(), a_run(idempotency_key="k")
    await store.runs.admit(by_id)
    assert (await store.runs.admit(by_id)).reused
    await cancel(store, by_id.run_id)
    await store.runs.admit(by_key)
    assert (await store.runs.admit(a_run(idempotency_key="k"))).run.run_id == by_key.run_id


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_a_full_lane_takes_a_run_that_clears_it(driver: Driver, strategy: str) -> None:
    store = RunStore(driver, max_queued_runs=1)
    await running(store)
    await admit(store)
    for _ in range(3):
        await admit(store, multitask_strategy=strategy)
    assert [status for _, status in await statuses(store)].count("pending") == 1


# Repeated requests.


@pytest.mark.parametrize("strategy", EVERY_STRATEGY)
async def test_admitting_the_same_run_again_answers_the_same_run(store: RunStore, strategy: MultitaskStrategy) -> None:
    new = a_run(multitask_strategy=strategy)
    first, again = await store.runs.admit(new), await store.runs.admit(new)
    assert again.run == first.run
    assert (again.runnable, again.reused) == (True, True)
    lease = (await claim(store, new.run_id)).lease
    repeated = await store.runs.admit(new)
    assert (repeated.run.status, repeated.runnable, repeated.run.cancel) == (RunStatus.RUNNING, False, None)
    await finish(store, lease)
    assert (await store.runs.admit(new)).run.status is RunStatus.SUCCESS
    assert len(await statuses(store)) == 1


async def test_a_run_id_of_another_thread_or_owner_is_taken(store: RunStore) -> None:
    new = a_run("t")
    await store.runs.admit(new)
    for taken in (replace(new, thread_id="u"), replace(new, thread_id="v", owner="eve")):
        with pytest.raises(AlreadyExists):
            await store.runs.admit(taken)


async def test_the_same_key_of_the_same_owner_and_thread_answers_the_same_run(store: RunStore) -> None:
    first = await admission(store, idempotency_key="k", multitask_strategy="reject")
    again = await admission(store, idempotency_key="k", multitask_strategy="reject")
    assert (again.run, again.reused, first.reused) == (first.run, True, False)
    assert (await admission(store, idempotency_key="l")).run != first.run
    assert (await admission(store, "u", idempotency_key="k")).run != first.run


async def test_of_concurrent_requests_with_one_key_one_admits(store: RunStore) -> None:
    answers = await asyncio.gather(*(admission(store, idempotency_key="k") for _ in range(20)))
    assert len({answer.run.run_id for answer in answers}) == 1
    assert [answer.reused for answer in answers].count(False) == 1


# Threads.


async def test_admission_makes_a_missing_thread_if_asked(store: RunStore) -> None:
    with pytest.raises(NotFound):
        await admit(store, create_thread=False)
    await admit(store, metadata={"a": 1}, thread_metadata={"b": 2})
    thread = await store.threads.get("t", owner=ANY_OWNER)
    assert (thread.status, thread.metadata) == (ThreadStatus.BUSY, {"a": 1, "b": 2})


async def test_concurrent_admissions_to_a_new_thread_make_it_once(store: RunStore) -> None:
    await asyncio.gather(*(admit(store) for _ in range(20)))
    runs = await store.runs.list("t", owner=ANY_OWNER, limit=100)
    assert [run.seq for run in runs] == sorted((run.seq for run in runs), reverse=True)
    assert len({run.seq for run in runs}) == 20
