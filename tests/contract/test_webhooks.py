"""The outbox of webhooks: written with the end of a run, claimed by one at a time, settled once, forgotten in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from ledger_kit import admission, admit, cancel, claim, ended, finish, held, running, turn
from runlane.errors import LeaseLost, NotFound
from runlane.lifecycle import CancelAction, EndReason, RunEvent, RunStatus
from runlane.outcomes import Snapshot
from runlane.records import ANY_OWNER, NO_OWNER, RunError
from runlane.store.ledger import RunStore
from runlane.store.rows import microseconds
from runlane.store.statements import Query, Transaction, statement
from runlane.store.transactions import runs as run_transactions
from runlane.store.transactions import webhooks as webhook_transactions
from runlane.store.transactions.webhooks import MAX_PART_BYTES, Attempted, ClaimedDelivery, DeliveryStatus, Lane

HOOK = "https://hooks.example.com/run?token=1"
NOW_DUE = statement("now_due", "UPDATE webhook_deliveries SET next_at = 0 WHERE run_id = :run_id")
ENDED_EARLIER = statement(
    "ended_earlier", "UPDATE webhook_deliveries SET ended_at = ended_at - 100000000 WHERE run_id = :run_id"
)
RECORDED = statement("recorded", "SELECT 1 FROM webhook_attempts WHERE run_id = :run_id")
LEASE_S = 60.0


async def claimed(
    store: RunStore, capacity: int = 200, per_host: int = 200, busy: Mapping[Lane, int] | None = None
) -> tuple[ClaimedDelivery, ...]:
    return await store.webhooks.claim(capacity=capacity, per_host=per_host, busy=busy or {}, lease_s=LEASE_S)


def lane(name: str, owner: str = NO_OWNER) -> Lane:
    return Lane(owner=owner, host=f"{name}.example.com")


def attempted(number: int, **changes: Any) -> Attempted:
    given = {"sent_at": datetime(2026, 1, 2, tzinfo=UTC), "duration_s": 0.25, "status_code": 500, "error": None}
    return Attempted(number=number, **{**given, **changes})


async def told(store: RunStore, thread_id: str, url: str = HOOK, **changes: Any) -> str:
    """Return an ended run whose webhook waits to be told."""
    return await ended(store, thread_id, webhook=url, **changes)


async def by_finish(store: RunStore, event: RunEvent) -> str:
    lease = await running(store, webhook=HOOK)
    if event is RunEvent.STOP:
        await cancel(store, lease.run_id)
    return (await finish(store, lease, event)).run.run_id


async def by_cancel_of_a_pending_run(store: RunStore, action: CancelAction) -> str:
    run_id = await admit(store, webhook=HOOK)
    await cancel(store, run_id, action)
    return run_id


async def by_being_superseded(store: RunStore) -> str:
    run_id = await admit(store, webhook=HOOK)
    await admission(store, multitask_strategy="interrupt")
    return run_id


async def by_a_dead_worker(store: RunStore) -> str:
    lease = await running(store, webhook=HOOK)
    await store.attempts.rescue(await held(store, lease.run_id), max_rescues=0)
    return lease.run_id


async def by_nobody_starting_it(store: RunStore) -> str:
    run_id = await admit(store, webhook=HOOK)
    await store.queue.give_up(run_id, EndReason.NEVER_STARTED, RunError(error="NeverStarted", message="nobody"))
    return run_id


Ending = Callable[[RunStore], Awaitable[str]]
ENDINGS: dict[str, tuple[Ending, RunStatus]] = {
    "succeeds": (lambda store: by_finish(store, RunEvent.SUCCEED), RunStatus.SUCCESS),
    "pauses": (lambda store: by_finish(store, RunEvent.PAUSE), RunStatus.SUCCESS),
    "fails": (lambda store: by_finish(store, RunEvent.FAIL), RunStatus.ERROR),
    "expires": (lambda store: by_finish(store, RunEvent.EXPIRE), RunStatus.TIMEOUT),
    "is stopped": (lambda store: by_finish(store, RunEvent.STOP), RunStatus.INTERRUPTED),
    "is cancelled while pending": (
        lambda store: by_cancel_of_a_pending_run(store, CancelAction.INTERRUPT),
        RunStatus.INTERRUPTED,
    ),
    "is rolled back while pending": (
        lambda store: by_cancel_of_a_pending_run(store, CancelAction.ROLLBACK),
        RunStatus.INTERRUPTED,
    ),
    "is superseded": (by_being_superseded, RunStatus.INTERRUPTED),
    "loses its last worker": (by_a_dead_worker, RunStatus.ERROR),
    "is never started": (by_nobody_starting_it, RunStatus.ERROR),
}


@pytest.mark.parametrize("how", ENDINGS)
async def test_however_a_run_ends_its_webhook_is_to_be_told_of_that_end_once(store: RunStore, how: str) -> None:
    end, status = ENDINGS[how]
    run_id = await end(store)
    [delivery] = await claimed(store)
    assert (delivery.run.run_id, delivery.run.status, delivery.url) == (run_id, status, HOOK)
    stored = await store.runs.get(run_id, owner=NO_OWNER)
    assert (delivery.run.end_reason, delivery.run.ended_at) == (stored.end_reason, stored.ended_at)
    assert delivery.run == stored
    assert await claimed(store) == ()


@pytest.mark.parametrize("event", [RunEvent.SUCCEED, RunEvent.FAIL])
async def test_the_end_of_a_run_without_a_webhook_asks_the_database_nothing_more(
    store: RunStore, event: RunEvent
) -> None:
    lease = await running(store)
    asked: list[str] = []
    await store.driver.write(overheard(run_transactions.finish(lease, by_event(event)), asked))
    assert not [name for name in asked if name in ("thread_left", "insert_delivery")]
    assert await store.webhooks.list(owner=ANY_OWNER) == ()


def by_event(event: RunEvent) -> Any:
    return run_transactions.Outcome(event=event, end_reason=EndReason.COMPLETED)


def overheard(transaction: Transaction[Any], names: list[str]) -> Transaction[Any]:
    query: Query = next(transaction)
    while True:
        names.append(query.statement.name)
        rows = yield query
        try:
            query = transaction.send(rows)
        except StopIteration as stop:
            return stop.value


async def test_a_run_that_goes_on_elsewhere_has_nothing_to_tell(store: RunStore) -> None:
    lease = await running(store, webhook=HOOK)
    await finish(store, lease, RunEvent.RELEASE)
    lease = (await claim(store, lease.run_id)).lease
    await store.attempts.rescue(await held(store, lease.run_id), max_rescues=3)
    assert await store.webhooks.list(owner=ANY_OWNER) == ()


async def test_an_ending_that_is_refused_tells_nothing(store: RunStore) -> None:
    lease = await running(store, webhook=HOOK)
    cancelled = await cancel(store, lease.run_id)
    assert await store.attempts.finish(lease, by_event(RunEvent.SUCCEED)) == cancelled.run.cancel

    def broken() -> Transaction[None]:
        yield run_transactions.LOCK_RUN(run_id=lease.run_id)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - it is the one raised above
        await store.attempts.finish(
            lease, run_transactions.Outcome(event=RunEvent.STOP, end_reason=None), extra_writes=broken
        )
    assert await store.webhooks.list(owner=ANY_OWNER) == ()
    await finish(store, lease, RunEvent.STOP)
    with pytest.raises(LeaseLost):
        await finish(store, lease, RunEvent.STOP)
    assert len(await store.webhooks.list(owner=ANY_OWNER)) == 1


async def test_values_are_those_that_the_run_left_or_else_those_of_its_thread(store: RunStore) -> None:
    left = Snapshot(values=b'{"n":1}', result=b'{"n":1,"__interrupt__":[]}')
    await finish(store, await running(store, webhook=HOOK), state=left)
    [delivery] = await claimed(store)
    assert delivery.values == '{"n":1}'
    await cancel(store, await admit(store, "t", webhook=HOOK))
    [delivery] = await claimed(store)
    assert delivery.values == '{"n":1}'


async def test_a_delivery_has_the_whole_input_though_the_run_and_its_parts_are_gone(store: RunStore) -> None:
    kwargs = {"input": {"messages": [f"{at} " + "x" * 600 for at in range(20)]}}
    run_id = await told(store, "t", kwargs=kwargs)
    await store.threads.delete("t", owner=ANY_OWNER)
    [delivery] = await claimed(store)
    assert (delivery.run_id, delivery.run.kwargs) == (run_id, kwargs)


async def test_values_of_a_temporary_thread_and_what_is_too_large_are_not_copied(store: RunStore) -> None:
    state = Snapshot(values=b'{"n":1}')
    lease = await running(store, "one", temporary=True, webhook=HOOK)
    await finish(store, lease, state=state)
    text = "x" * MAX_PART_BYTES
    changes = {"kwargs": {"input": text}, "metadata": {"note": text}, "webhook": HOOK}
    await finish(store, await running(store, "two", **changes), state=Snapshot(values=f'"{text}"'.encode()))
    one, two = await claimed(store)
    assert (one.values, one.omitted) == (None, ())
    assert (two.values, two.omitted) == (None, ("values", "kwargs", "metadata"))
    assert (two.run.kwargs, two.run.metadata, two.run.status) == ({}, {}, RunStatus.SUCCESS)


async def test_what_was_claimed_is_due_again_when_its_lease_is_over(store: RunStore) -> None:
    run_id = await told(store, "t")
    [first] = await claimed(store)
    assert await claimed(store) == ()
    await turn(store, NOW_DUE, run_id)
    [second] = await claimed(store)
    assert [(one.attempt, one.tries) for one in (first, second)] == [(1, 1), (2, 2)]


async def test_a_late_answer_to_an_earlier_attempt_is_listed_and_decides_nothing(store: RunStore) -> None:
    run_id = await told(store, "t")
    await claimed(store)
    await turn(store, NOW_DUE, run_id)
    await claimed(store)
    assert not await store.webhooks.settle(run_id, attempted(1, status_code=410), status=DeliveryStatus.GONE)
    assert await store.webhooks.settle(run_id, attempted(2, status_code=200), status=DeliveryStatus.DELIVERED)
    assert not await store.webhooks.settle(run_id, attempted(2, status_code=500), status=DeliveryStatus.FAILED)
    delivery, attempts = await store.webhooks.get(run_id, owner=NO_OWNER)
    assert (delivery.status, delivery.attempts, delivery.next_at) == (DeliveryStatus.DELIVERED, 2, None)
    assert [(one.number, one.status_code) for one in attempts] == [(1, 410), (2, 200)]
    assert attempts[0] == attempted(1, status_code=410)


async def test_a_failed_attempt_is_tried_again_after_its_delay_and_no_sooner(store: RunStore) -> None:
    run_id = await told(store, "t")
    [first] = await claimed(store)
    failure = attempted(first.attempt, status_code=None, error="no connection")
    assert await store.webhooks.settle(run_id, failure, status=DeliveryStatus.PENDING, delay_s=3600)
    assert await claimed(store) == ()
    delivery, _ = await store.webhooks.get(run_id, owner=NO_OWNER)
    assert delivery.next_at is not None
    assert 3000 < (delivery.next_at - delivery.created_at).total_seconds() < 4000


async def test_no_receiver_gets_more_than_its_share_however_much_waits_for_it(store: RunStore) -> None:
    slow = [await told(store, f"slow-{n}", "https://slow.example.com/") for n in range(5)]
    quick = await told(store, "quick", "https://quick.example.com/")
    first = await claimed(store, capacity=8, per_host=4)
    assert [one.run.run_id for one in first] == [*slow[:2], quick]
    assert [one.lane for one in first] == [lane("slow"), lane("slow"), lane("quick")]
    assert await claimed(store, capacity=8, per_host=4, busy={lane("slow"): 2}) == ()
    assert [one.run.run_id for one in await claimed(store, capacity=8, per_host=4, busy={lane("slow"): 1})] == [slow[2]]
    assert [one.run.run_id for one in await claimed(store, capacity=2, per_host=9)] == [slow[3]]


async def test_ports_and_schemes_of_one_host_are_one_receiver(store: RunStore) -> None:
    for port in range(8000, 8006):
        await told(store, f"t-{port}", f"http://SLOW.example.com.:{port}/{port}")
    found = await claimed(store, capacity=100, per_host=4)
    assert [one.lane for one in found] == [lane("slow")] * 2


async def test_no_owner_gets_more_than_half_of_what_the_others_leave_and_the_least_busy_come_first(
    store: RunStore,
) -> None:
    for n in range(20):
        await told(store, f"ann-{n}", f"https://{n}.example.com/", owner="ann")
    ben = await told(store, "ben", "https://0.example.com/", owner="ben")
    found = await claimed(store, capacity=16)
    assert [one.lane.owner for one in found] == ["ann"] * 8 + ["ben"]
    busy = {lane(str(n), "ann"): 1 for n in range(8)}
    assert await claimed(store, capacity=16, busy=busy) == ()
    await turn(store, NOW_DUE, ben)
    assert [one.run_id for one in await claimed(store, capacity=9, busy=busy)] == [ben]
    assert await claimed(store, capacity=8, busy=busy) == ()


async def test_what_waits_longest_is_claimed_however_many_hosts_its_owner_has(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_transactions, "MOST_HOSTS", 3)
    for n in range(10):
        await told(store, f"t-{n}", f"https://{n}.example.com/")
    first = await told(store, "z", "https://z.example.com/")
    await turn(store, NOW_DUE, first)
    assert first in [one.run_id for one in await claimed(store, capacity=4)]


async def test_an_attempt_that_does_not_count_is_listed_and_no_try(store: RunStore) -> None:
    run_id = await told(store, "t")
    await claimed(store)
    assert await store.webhooks.settle(run_id, attempted(1), status=DeliveryStatus.PENDING, counts=False)
    [second] = await claimed(store)
    assert (second.attempt, second.tries) == (2, 1)


@pytest.mark.parametrize("url", ["http://[::1", "nonsense", ""])
async def test_a_run_ends_whatever_its_webhook_is(store: RunStore, url: str) -> None:
    run_id = await told(store, "t", url)
    [delivery] = await claimed(store)
    assert (delivery.run_id, delivery.lane.host) == (run_id, "")


async def test_claimers_at_the_same_time_share_what_is_due(store: RunStore) -> None:
    runs = {await told(store, f"t-{n}", f"https://{n % 3}.example.com/") for n in range(12)}
    found = await asyncio.gather(*(claimed(store, capacity=6) for _ in range(6)))
    while more := await claimed(store):
        found.append(more)
    ids = [one.run.run_id for some in found for one in some]
    assert (set(ids), len(ids)) == (runs, 12)


async def test_sending_again_begins_the_tries_anew_and_keeps_counting_attempts(store: RunStore) -> None:
    run_id = await told(store, "t")
    await claimed(store)
    await store.webhooks.settle(run_id, attempted(1, status_code=410), status=DeliveryStatus.GONE)
    again = await store.webhooks.send_again(run_id)
    assert (again.status, again.ended_at) == (DeliveryStatus.PENDING, None)
    [second] = await claimed(store)
    assert (second.attempt, second.tries) == (2, 1)
    with pytest.raises(NotFound):
        await store.webhooks.send_again("nobody")


async def test_deliveries_are_listed_newest_first_for_their_owner(store: RunStore) -> None:
    await store.threads.create("t", owner="ann", metadata={"team": "red"})
    mine = [await told(store, "t", owner="ann"), await told(store, "u", owner="ann")]
    await told(store, "v", owner="ben")
    found = await store.webhooks.list(owner="ann")
    assert [one.run_id for one in found] == mine[::-1]
    assert [one.run_id for one in await store.webhooks.list(owner="ann", limit=1, offset=1)] == [mine[0]]
    assert [one.run_id for one in await store.webhooks.list(owner="ann", run_id=mine[1])] == [mine[1]]
    assert [one.run_id for one in await store.webhooks.list(owner=ANY_OWNER, where={"team": "red"})] == [mine[0]]
    assert await store.webhooks.list(owner="ann", status=DeliveryStatus.GONE) == ()
    undelivered = await store.webhooks.list(owner="ann", status=DeliveryStatus.PENDING)
    assert [one.run_id for one in undelivered] == mine[::-1]
    for owner in ("ann", ANY_OWNER):
        newest = (await store.webhooks.list(owner=owner))[0]
        behind = await store.webhooks.list(owner=owner, after=(microseconds(newest.created_at), newest.run_id))
        assert behind == (await store.webhooks.list(owner=owner))[1:]
    with pytest.raises(NotFound):
        await store.webhooks.get(mine[0], owner="ben")


async def test_a_delivery_outlives_its_thread_and_its_run(store: RunStore) -> None:
    run_id = await told(store, "t")
    await store.threads.delete("t", owner=NO_OWNER)
    [delivery] = await claimed(store)
    assert delivery.run.run_id == run_id


async def test_retention_removes_what_ended_long_ago_and_nothing_that_waits(store: RunStore) -> None:
    old, fresh, waiting = [await told(store, f"t-{n}") for n in range(3)]
    await claimed(store)
    for run_id in (old, fresh):
        await store.webhooks.settle(run_id, attempted(1, status_code=200), status=DeliveryStatus.DELIVERED)
    await turn(store, ENDED_EARLIER, old)
    assert await store.webhooks.purge(older_than_s=60) == 1
    assert [one.run_id for one in await store.webhooks.list(owner=ANY_OWNER)] == [waiting, fresh]


async def test_a_delivery_of_an_earlier_version_is_read_without_the_columns_that_it_did_not_have(
    store: RunStore,
) -> None:
    await told(store, "t")
    older = statement("older", "UPDATE webhook_deliveries SET run = replace(run, :column, '')")

    def forget() -> Transaction[None]:
        yield older(column='"model_name":null,')

    await store.driver.write(forget())
    [delivery] = await claimed(store)
    assert delivery.run.model_name is None


async def test_an_attempt_at_a_webhook_that_is_gone_is_not_recorded(store: RunStore) -> None:
    run_id = await told(store, "t")
    await claimed(store)
    await store.webhooks.settle(run_id, attempted(1), status=DeliveryStatus.FAILED)
    await turn(store, ENDED_EARLIER, run_id)
    assert await store.webhooks.purge(older_than_s=60) == 1
    assert not await store.webhooks.settle(run_id, attempted(2), status=DeliveryStatus.DELIVERED)

    def left() -> Transaction[int]:
        return len((yield RECORDED(run_id=run_id)))

    assert await store.driver.read(left()) == 0
