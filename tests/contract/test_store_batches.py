"""Several runs in one admission, keys of repeated requests, what runs inherit, and why they wait."""

from __future__ import annotations

import asyncio

import pytest

from ledger_kit import DUE, LAPSED, a_run, admission, admit, cancel, claim, ended, finish, running, turn
from runlane.errors import KeyReused, NotFound
from runlane.lifecycle import RunEvent, RunStatus
from runlane.records import ANY_OWNER, FINGERPRINT, NO_OWNER, ThreadTtl, WaitingOn
from runlane.store.ledger import RunStore

HOUR_S = 3600.0


async def ids(store: RunStore, thread_id: str | None = None) -> list[str]:
    return [run.run_id for run in reversed(await store.list_runs(thread_id, owner=ANY_OWNER, limit=1000))]


# Admission of many.


async def test_many_are_admitted_in_their_order(store: RunStore) -> None:
    news = [a_run("a"), a_run("b"), a_run("a")]
    admitted = await store.admit_all(news)
    assert [one.run.run_id for one in admitted] == [new.run_id for new in news] == await ids(store)
    assert [one.runnable for one in admitted] == [True, True, False]


async def test_many_are_admitted_or_none(store: RunStore) -> None:
    before = await admit(store, "b")
    with pytest.raises(NotFound):
        await store.admit_all([a_run("a"), a_run("b"), a_run("missing", create_thread=False)])
    assert await ids(store) == [before]
    with pytest.raises(NotFound):
        await store.get_thread("a", owner=ANY_OWNER)


# Keys.


def keyed(fingerprint: str, **changes: object) -> dict[str, object]:
    return {"idempotency_key": "k", "kwargs": {FINGERPRINT: fingerprint}, **changes}


async def test_a_key_that_comes_with_another_request_admits_nothing(store: RunStore) -> None:
    first = await admission(store, **keyed("one"))
    assert (await admission(store, **keyed("one"))).run.run_id == first.run.run_id
    with pytest.raises(KeyReused) as refused:
        await admission(store, **keyed("two"))
    assert (refused.value.key, refused.value.run_id) == ("k", first.run.run_id)
    assert (await admission(store, "u", **keyed("two"))).reused is False, "another thread's key is another key"
    assert await ids(store, "t") == [first.run.run_id]


async def test_a_reused_key_among_many_admits_none_of_them(store: RunStore) -> None:
    first = await admit(store, **keyed("one"))
    with pytest.raises(KeyReused):
        await store.admit_all([a_run("a"), a_run("t", **keyed("two"))])
    assert await ids(store) == [first]


async def test_of_many_at_once_with_a_key_one_is_admitted(store: RunStore) -> None:
    admitted = await asyncio.gather(*(admission(store, **keyed("one")) for _ in range(20)))
    assert len({one.run.run_id for one in admitted}) == 1
    assert [one.reused for one in admitted].count(False) == 1


async def test_a_thread_that_a_run_makes_expires_when_the_run_says(store: RunStore) -> None:
    await admit(store, thread_ttl=ThreadTtl(ttl_s=60.0))
    await admit(store, thread_ttl=ThreadTtl(ttl_s=5.0))
    assert (await store.get_thread("t", owner=ANY_OWNER)).ttl == ThreadTtl(ttl_s=60.0), (
        "an existing thread keeps its own"
    )


# Metadata.


async def test_a_run_inherits_its_threads_metadata_between_its_defaults_and_its_own(store: RunStore) -> None:
    await store.create_thread(
        "t", owner=NO_OWNER, metadata={"a": "thread", "b": "thread", "run_id": "x", "cron_id": "y"}
    )
    run = (await admission(store, default_metadata={"a": "d", "c": "d"}, metadata={"b": "own"})).run
    assert run.metadata == {"a": "thread", "b": "own", "c": "d"}
    assert (await admission(store, metadata={"b": "own"})).run.metadata == {"b": "own"}


# What a run waits for.


async def test_a_run_says_what_it_waits_for(store: RunStore) -> None:
    lease = await running(store)
    second, third = await admit(store), await admit(store)
    delayed, alone = await admit(store, delay_s=HOUR_S), await admit(store, "u")
    waiting = await store.waiting_on([lease.run_id, second, third, delayed, alone, "missing"])
    until = (await store.get_run(delayed, owner=ANY_OWNER)).not_before
    assert waiting == {
        second: WaitingOn(reason="run", run_id=lease.run_id),
        third: WaitingOn(reason="run", run_id=second),
        delayed: WaitingOn(reason="delay", until=until),
        alone: WaitingOn(reason="slots"),
    }
    await turn(store, DUE, delayed)
    assert await store.waiting_on([delayed]) == {delayed: WaitingOn(reason="run", run_id=third)}
    await finish(store, lease)
    assert await store.waiting_on([second]) == {second: WaitingOn(reason="slots")}
    assert await store.waiting_on([]) == {}


async def test_a_due_run_waits_for_a_later_one_that_executes(store: RunStore) -> None:
    delayed = await admit(store, delay_s=HOUR_S)
    lease = await running(store)
    await turn(store, DUE, delayed)
    assert await store.waiting_on([delayed]) == {delayed: WaitingOn(reason="run", run_id=lease.run_id)}


# Active runs, newest first.


async def test_active_runs_are_paged_by_status_newest_first(store: RunStore) -> None:
    await ended(store, "x")
    executing = (await running(store, "a")).run_id
    pending = [await admit(store, thread_id) for thread_id in ("a", "b", "c")]
    foreign = await admit(store, "d", owner="someone")
    page = await store.active_runs(owner=NO_OWNER, status=RunStatus.PENDING, limit=2)
    assert [run.run_id for run in page] == [pending[2], pending[1]]
    rest = await store.active_runs(owner=NO_OWNER, status=RunStatus.PENDING, before_seq=page[-1].seq)
    assert [run.run_id for run in rest] == [pending[0]]
    assert [run.run_id for run in await store.active_runs(owner=NO_OWNER, status=RunStatus.RUNNING)] == [executing]
    everyones = await store.active_runs(owner=ANY_OWNER, status=RunStatus.PENDING)
    assert [run.run_id for run in everyones] == [foreign, *reversed(pending)]
    both = await store.active_runs(owner=NO_OWNER, status=None)
    assert [run.run_id for run in both] == [*reversed(pending), executing]


async def test_a_thread_has_an_active_run_from_its_admission_to_its_end(store: RunStore) -> None:
    assert not await store.has_active("t", owner=ANY_OWNER)
    lease = (await claim(store, await admit(store, owner="ann"))).lease
    for owner, found in (("ann", True), (ANY_OWNER, True), ("eve", False)):
        assert await store.has_active("t", owner=owner) is found
    await finish(store, lease, RunEvent.RELEASE)
    assert await store.has_active("t", owner="ann")
    await finish(store, (await claim(store, lease.run_id)).lease)
    assert not await store.has_active("t", owner="ann")


# Turns.


async def _turns(store: RunStore, after_us: int = 0, after_seq: int = 0) -> list[str]:
    return [run.run_id for run in await store.turns("t", after_us=after_us, after_seq=after_seq, limit=100)]


async def test_turns_come_in_the_order_of_starts_not_of_admissions(store: RunStore) -> None:
    assert await store.last_turn("t") is None
    delayed = await admit(store, delay_s=HOUR_S)
    first = await ended(store)
    cancelled = await admit(store)
    await cancel(store, cancelled)
    await turn(store, DUE, delayed)
    lease = (await claim(store, delayed)).lease
    await admit(store)
    assert await _turns(store) == [first, cancelled, delayed]
    last = await store.last_turn("t")
    assert last is not None
    assert last.run_id == delayed
    await finish(store, lease, RunEvent.FAIL)
    await ended(store, "u")
    assert await _turns(store) == [first, cancelled, delayed]


async def test_a_run_that_goes_on_after_its_worker_died_keeps_its_turn(store: RunStore) -> None:
    lease = await running(store)
    await turn(store, LAPSED, lease.run_id)
    (lost,) = await store.lost_runs("other", exclusive=False, grace_s=0)
    await store.rescue(lost, max_rescues=3)
    before = await store.last_turn("t")
    await claim(store, lease.run_id)
    after = await store.last_turn("t")
    assert before is not None
    assert after is not None
    assert (after.run_id, after.started_at) == (lease.run_id, before.started_at)
