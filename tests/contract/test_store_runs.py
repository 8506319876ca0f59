"""The state table of a run: every move, its guard, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from msgspec import structs

from ledger_kit import (
    A_WORKER,
    ENDINGS,
    WORKER,
    admit,
    cancel,
    claim,
    ended,
    finish,
    held,
    next_id,
    outcome,
    running,
)
from runlane.errors import IllegalTransition, LeaseLost, NotFound
from runlane.journal import remainder
from runlane.lifecycle import CancelAction, EndReason, RunEvent, RunStatus
from runlane.records import ANY_OWNER, CancelReceipt, Finished, Lease, RunError, RunRecord, StreamEvent, Usage
from runlane.store.ledger import RunStore

Attack = Callable[[RunStore, RunRecord, Lease], Awaitable[object]]


async def get(store: RunStore, run_id: str) -> RunRecord:
    return await store.runs.get(run_id, owner=ANY_OWNER)


async def append(store: RunStore, lease: Lease, *events: StreamEvent) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(result: object, error: BaseException | None) -> None:
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    store.driver.submit(partial(remainder.append, lease, events), loop, settle)
    await done


# admit → pending → running


async def test_an_admitted_run_is_pending_and_was_never_attempted(store: RunStore) -> None:
    run = await get(store, await admit(store, metadata={"a": 1}, kwargs={"input": [1]}, model_name="m"))
    assert (run.status, run.attempt, run.rescues, run.worker_id) == (RunStatus.PENDING, 0, 0, None)
    assert (run.end_reason, run.started_at, run.ended_at, run.cancel, run.error) == (None, None, None, None, None)
    assert (run.metadata, run.kwargs, run.model_name, run.usage) == ({"a": 1}, {"input": [1]}, "m", Usage())
    assert run.created_at == run.updated_at == run.not_before
    assert abs(datetime.now(UTC) - run.created_at) < timedelta(minutes=5)


async def test_a_claim_starts_the_first_attempt(store: RunStore) -> None:
    run_id = await admit(store)
    claimed = await claim(store, run_id)
    assert (claimed.run.status, claimed.run.attempt, claimed.run.worker_id) == (RunStatus.RUNNING, 1, WORKER)
    assert (claimed.lease.run_id, claimed.lease.thread_id, claimed.lease.attempt) == (run_id, "t", 1)
    assert claimed.lease.seq == claimed.run.seq
    assert claimed.run.started_at is not None
    assert claimed.events_end == 0
    assert await get(store, run_id) == claimed.run


async def test_a_running_run_is_not_claimed_again(store: RunStore) -> None:
    lease = await running(store)
    before = await get(store, lease.run_id)
    assert await store.attempts.claim(lease.run_id, "other", lease_s=60) is None
    assert await get(store, lease.run_id) == before


async def test_claiming_a_run_that_does_not_exist_finds_nothing(store: RunStore) -> None:
    assert await store.attempts.claim("nobody", WORKER, lease_s=60) is None


# running → its end


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (RunEvent.SUCCEED, RunStatus.SUCCESS),
        (RunEvent.PAUSE, RunStatus.SUCCESS),
        (RunEvent.FAIL, RunStatus.ERROR),
        (RunEvent.EXPIRE, RunStatus.TIMEOUT),
        (RunEvent.STOP, RunStatus.INTERRUPTED),
    ],
)
async def test_finish_ends_a_run_once_with_its_reason(store: RunStore, event: RunEvent, status: RunStatus) -> None:
    lease = await running(store)
    error = RunError(error="ValueError", message="no") if status is RunStatus.ERROR else None
    run = (await finish(store, lease, event, error=error)).run
    assert (run.status, run.end_reason, run.error) == (status, ENDINGS[event], error)
    assert run.ended_at is not None
    assert await get(store, run.run_id) == run


@pytest.mark.parametrize("event", [RunEvent.CLAIM, RunEvent.CANCEL, RunEvent.RESCUE, RunEvent.GIVE_UP])
async def test_finish_refuses_events_that_are_not_an_attempts_own(store: RunStore, event: RunEvent) -> None:
    lease = await running(store)
    before = await get(store, lease.run_id)
    with pytest.raises(IllegalTransition):
        await finish(store, lease, event)
    assert await get(store, lease.run_id) == before


@pytest.mark.parametrize("event", [*ENDINGS, RunEvent.RELEASE])
async def test_finish_with_a_stale_lease_writes_nothing(store: RunStore, event: RunEvent) -> None:
    stale = await running(store)
    await store.attempts.rescue(await held(store, stale.run_id), max_rescues=3)
    with pytest.raises(LeaseLost):
        await finish(store, stale, event)
    current = await claim(store, stale.run_id, "other")
    with pytest.raises(LeaseLost):
        await finish(store, stale, event)
    assert await get(store, stale.run_id) == current.run


async def test_a_lease_of_a_future_attempt_is_refused(store: RunStore) -> None:
    lease = await running(store)
    with pytest.raises(LeaseLost):
        await finish(store, structs.replace(lease, attempt=2))


async def _progress(store: RunStore, run: RunRecord, lease: Lease) -> None:
    assert await store.runs.set_progress(run.run_id, {"llm_calls": 9}) is False


async def _renew(store: RunStore, run: RunRecord, lease: Lease) -> None:
    assert (await store.attempts.renew([lease], worker=A_WORKER)).lost == (lease,)


async def _cancel(store: RunStore, run: RunRecord, lease: Lease) -> None:
    assert (await cancel(store, run.run_id, CancelAction.ROLLBACK)).run == run


async def _claim(store: RunStore, run: RunRecord, lease: Lease) -> None:
    assert await store.attempts.claim(run.run_id, "other", lease_s=60) is None


async def _give_up(store: RunStore, run: RunRecord, lease: Lease) -> None:
    error = RunError(error="x", message="y")
    assert await store.queue.give_up(run.run_id, EndReason.NEVER_STARTED, error) is None


async def _rescue(store: RunStore, run: RunRecord, lease: Lease) -> None:
    with pytest.raises(LeaseLost):
        await store.attempts.rescue(await held(store, run.run_id), max_rescues=3)


async def _finish(store: RunStore, run: RunRecord, lease: Lease) -> None:
    for event in RunEvent:
        with pytest.raises(LeaseLost):
            await store.attempts.finish(lease, outcome(event))


async def _observe(store: RunStore, run: RunRecord, lease: Lease) -> None:
    await store.attempts.observe_cancel(lease, 1)


async def _append(store: RunStore, run: RunRecord, lease: Lease) -> None:
    with pytest.raises(LeaseLost):
        await append(store, lease, StreamEvent(seq=1, name="values", data=b"{}"))
    assert await store.events.read(run.seq, after=0) == ()


ATTACKS = [_progress, _renew, _cancel, _claim, _give_up, _rescue, _finish, _observe, _append]


@pytest.mark.parametrize("event", ENDINGS)
async def test_a_terminal_run_never_changes(store: RunStore, event: RunEvent) -> None:
    lease = await running(store)
    run = (await finish(store, lease, event)).run
    thread = await store.threads.get("t", owner=ANY_OWNER)
    for attack in ATTACKS:
        await attack(store, run, lease)
        assert await get(store, run.run_id) == run, attack.__name__
    assert await store.threads.get("t", owner=ANY_OWNER) == thread


# cancel


async def test_a_cancelled_pending_run_ends_at_once_with_a_whole_receipt(store: RunStore) -> None:
    run_id = await admit(store)
    run = (await cancel(store, run_id, by="ann")).run
    assert (run.status, run.end_reason) == (RunStatus.INTERRUPTED, EndReason.USER_CANCEL)
    assert run.cancel is not None
    assert (run.cancel.action, run.cancel.requested_by) == (CancelAction.INTERRUPT, "ann")
    assert run.cancel.requested_at <= run.cancel.observed_at <= run.cancel.stopped_at  # type: ignore[operator]  # set
    assert await store.attempts.claim(run_id, WORKER, lease_s=60) is None


async def test_a_pending_run_that_is_rolled_back_says_so(store: RunStore) -> None:
    run = (await cancel(store, await admit(store), CancelAction.ROLLBACK)).run
    assert (run.status, run.end_reason) == (RunStatus.INTERRUPTED, EndReason.ROLLED_BACK)


async def test_a_cancel_of_a_running_run_is_recorded_and_nothing_else(store: RunStore) -> None:
    lease = await running(store)
    run = (await cancel(store, lease.run_id)).run
    assert run.status is RunStatus.RUNNING
    assert run.cancel is not None
    assert (run.cancel.observed_at, run.cancel.stopped_at) == (None, None)
    assert await get(store, lease.run_id) == run


async def test_the_first_cancel_wins(store: RunStore) -> None:
    lease = await running(store)
    first = await cancel(store, lease.run_id, CancelAction.ROLLBACK, by="ann")
    second = await cancel(store, lease.run_id, CancelAction.INTERRUPT, reason=EndReason.DISCONNECT, by="bob")
    assert second.run.cancel == first.run.cancel


@pytest.mark.parametrize("event", [*(set(ENDINGS) - {RunEvent.STOP}), RunEvent.RELEASE])
async def test_after_a_cancel_a_run_can_only_be_stopped(store: RunStore, event: RunEvent) -> None:
    lease = await running(store)
    cancelled = (await cancel(store, lease.run_id)).run
    assert await store.attempts.finish(lease, outcome(event)) == cancelled.cancel
    assert await get(store, lease.run_id) == cancelled
    assert (await finish(store, lease, RunEvent.STOP)).run.status is RunStatus.INTERRUPTED


async def test_a_cancel_recorded_first_is_never_followed_by_success(store: RunStore) -> None:
    for number in range(20):
        lease = await running(store, f"t{number}")
        cancelled, finished = await asyncio.gather(
            cancel(store, lease.run_id), store.attempts.finish(lease, outcome(RunEvent.SUCCEED))
        )
        run = await get(store, lease.run_id)
        if isinstance(finished, CancelReceipt):
            assert (run.status, run.cancel) == (RunStatus.RUNNING, finished)
        else:
            assert (run.status, run.cancel) == (RunStatus.SUCCESS, None)
            assert cancelled.run == run


async def test_a_receipt_tells_when_the_cancel_was_seen_and_when_the_code_stopped(store: RunStore) -> None:
    lease = await running(store)
    await cancel(store, lease.run_id)
    seen_at = datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    await store.attempts.observe_cancel(lease, int(seen_at.timestamp()) * 1_000_000 + 6)
    observed = await get(store, lease.run_id)
    assert observed.cancel is not None
    assert observed.cancel.observed_at == seen_at
    run = (await finish(store, lease, RunEvent.STOP)).run
    assert run.cancel is not None
    assert (run.cancel.observed_at, run.cancel.stopped_at) == (seen_at, run.ended_at)


async def test_abandoned_code_is_named_and_never_called_stopped(store: RunStore) -> None:
    lease = await running(store)
    await cancel(store, lease.run_id)
    run = (await finish(store, lease, RunEvent.STOP, stopped=False, blocked_at="graph.py:7 node")).run
    assert run.cancel is not None
    assert (run.cancel.stopped_at, run.cancel.blocked_at) == (None, "graph.py:7 node")


async def test_an_observation_without_a_cancel_leaves_no_trace(store: RunStore) -> None:
    lease = await running(store)
    await store.attempts.observe_cancel(lease, 1)
    run = (await cancel(store, lease.run_id)).run
    assert run.cancel is not None
    assert run.cancel.observed_at is None


async def test_a_cancelled_run_that_was_handed_back_waits_for_an_attempt_that_cleans_up(store: RunStore) -> None:
    lease = await running(store)
    await finish(store, lease, RunEvent.RELEASE)
    run = (await cancel(store, lease.run_id, CancelAction.ROLLBACK)).run
    assert (run.status, run.cancel is not None) == (RunStatus.PENDING, True)
    claimed = await claim(store, lease.run_id)
    assert await store.attempts.finish(claimed.lease, outcome(RunEvent.SUCCEED)) == run.cancel


async def test_cancelling_a_run_that_does_not_exist_is_not_found(store: RunStore) -> None:
    with pytest.raises(NotFound):
        await cancel(store, "nobody")


# release and rescue


async def test_a_released_run_stays_at_the_head_of_its_lane_and_is_charged_nothing(store: RunStore) -> None:
    first = await running(store)
    second = await admit(store)
    released = await finish(store, first, RunEvent.RELEASE, usage=Usage(llm_calls=2))
    assert next_id(released) == first.run_id
    assert (released.run.status, released.run.rescues, released.run.worker_id) == (RunStatus.PENDING, 0, None)
    assert released.run.usage.llm_calls == 2
    assert await store.attempts.claim(second, WORKER, lease_s=60) is None
    again = await claim(store, first.run_id)
    assert (again.run.attempt, again.run.started_at) == (2, released.run.started_at)


async def test_a_rescued_run_goes_back_to_the_head_of_its_lane_and_its_old_attempt_is_fenced(store: RunStore) -> None:
    lease = await running(store)
    second = await admit(store)
    rescued = await store.attempts.rescue(await held(store, lease.run_id), max_rescues=1)
    assert (rescued.run.status, rescued.run.rescues, next_id(rescued)) == (RunStatus.PENDING, 1, lease.run_id)
    assert await store.attempts.claim(second, WORKER, lease_s=60) is None
    assert (await claim(store, lease.run_id)).run.attempt == 2
    with pytest.raises(LeaseLost):
        await append(store, lease, StreamEvent(seq=1, name="values", data=b"{}"))


async def test_a_run_that_kills_its_worker_too_often_ends_as_error_and_frees_its_lane(store: RunStore) -> None:
    run_id, following = await admit(store), await admit(store)
    for _ in range(2):
        await claim(store, run_id)
        await store.attempts.rescue(await held(store, run_id), max_rescues=2)
    await claim(store, run_id)
    given_up = await store.attempts.rescue(await held(store, run_id), max_rescues=2)
    assert (given_up.run.status, given_up.run.end_reason) == (RunStatus.ERROR, EndReason.WORKER_LOST)
    assert given_up.run.error is not None
    assert given_up.run.error.message.startswith("The worker died 3 times")
    assert next_id(given_up) == following


async def test_a_cancelled_run_that_is_given_up_has_been_stopped(store: RunStore) -> None:
    lease = await running(store)
    await cancel(store, lease.run_id)
    given_up = (await store.attempts.rescue(await held(store, lease.run_id), max_rescues=0)).run
    assert (given_up.status, given_up.end_reason) == (RunStatus.INTERRUPTED, EndReason.WORKER_LOST)
    assert given_up.cancel is not None
    assert given_up.cancel.stopped_at is not None


async def test_a_rescue_of_a_run_that_moved_on_changes_nothing(store: RunStore) -> None:
    lease = await running(store)
    seen = await held(store, lease.run_id)
    await finish(store, lease, RunEvent.RELEASE)
    claimed = await claim(store, lease.run_id, "other")
    with pytest.raises(LeaseLost):
        await store.attempts.rescue(seen, max_rescues=3)
    assert await get(store, lease.run_id) == claimed.run


async def test_a_run_whose_worker_has_beaten_since_it_was_seen_is_not_rescued(store: RunStore) -> None:
    lease = await running(store)
    seen = await held(store, lease.run_id)
    await store.attempts.renew([lease], worker=A_WORKER)
    with pytest.raises(LeaseLost):
        await store.attempts.rescue(seen, max_rescues=3)
    assert (await get(store, lease.run_id)).status is RunStatus.RUNNING


async def test_of_several_rescuers_one_succeeds(store: RunStore) -> None:
    seen = await held(store, (await running(store)).run_id)
    results = await asyncio.gather(
        *(store.attempts.rescue(seen, max_rescues=3) for _ in range(5)), return_exceptions=True
    )
    assert [isinstance(result, Finished) for result in results].count(True) == 1
    assert all(result is None or isinstance(result, Finished | LeaseLost) for result in results)
    assert (await get(store, seen.run_id)).rescues == 1


async def test_a_pending_run_can_be_given_up_and_a_running_one_cannot(store: RunStore) -> None:
    pending, following = await admit(store), await admit(store)
    error = RunError(error="GraphLoadError", message="gone")
    done = await store.queue.give_up(pending, EndReason.NEVER_STARTED, error)
    assert done is not None
    assert (done.run.status, done.run.end_reason, done.run.error) == (RunStatus.ERROR, EndReason.NEVER_STARTED, error)
    assert next_id(done) == following
    await claim(store, following)
    assert await store.queue.give_up(following, EndReason.NEVER_STARTED, error) is None
    assert await store.queue.give_up("nobody", EndReason.NEVER_STARTED, error) is None


# leases


async def test_every_running_run_has_the_lease_of_its_worker(store: RunStore) -> None:
    first = await running(store, "a")
    second = (await claim(store, await admit(store, "b"), "other")).lease
    await admit(store, "c")
    await ended(store, "d")
    assert await store.attempts.leases() == (await held(store, first.run_id), await held(store, second.run_id))
    await store.attempts.renew([first], worker=replace(A_WORKER, lease_s=600))
    renewed, unchanged = await store.attempts.leases()
    assert (renewed.lease_s, renewed.beats) == (600, 1)
    assert unchanged == await held(store, second.run_id)
    assert await store.attempts.leases(living=[WORKER]) == (unchanged,)


async def test_a_renewal_tells_what_is_lost_or_cancelled(store: RunStore) -> None:
    held, lost, cancelled = [await running(store, name) for name in "abc"]
    await finish(store, lost)
    receipt = (await cancel(store, cancelled.run_id)).run.cancel
    renewal = await store.attempts.renew([held, lost, cancelled], worker=A_WORKER)
    assert renewal.lost == (lost,)
    assert renewal.cancelled == (receipt,)


async def test_a_renewal_takes_an_old_attempt_for_lost(store: RunStore) -> None:
    old = await running(store)
    await finish(store, old, RunEvent.RELEASE)
    claimed = await claim(store, old.run_id)
    assert (await store.attempts.renew([old], worker=A_WORKER)).lost == (old,)
    assert await get(store, old.run_id) == claimed.run
