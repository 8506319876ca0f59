"""Several runs in one admission, keys of repeated requests, what runs inherit, and why they wait."""

from __future__ import annotations

import asyncio

import pytest

from ledger_kit import DUE, a_run, admission, admit, cancel, claim, ended, finish, held, running, turn
from runlane.errors import KeyReused, NotFound
from runlane.lifecycle import RunEvent, RunStatus
from runlane.outcomes import Snapshot
from runlane.records import ANY_OWNER, NO_OWNER, RunRecord, ThreadTtl, WaitingOn
from runlane.requests import RunOrigin
from runlane.store.ledger import RunStore

HOUR_S = 3600.0


async def ids(store: RunStore, thread_id: str | None = None) -> list[str]:
    return [run.run_id for run in reversed(await store.runs.list(thread_id, owner=ANY_OWNER, limit=1000))]


# Admission of many.


async def test_many_are_admitted_in_their_order(store: RunStore) -> None:
    news = [a_run("a"), a_run("b"), a_run("a")]
    admitted = await store.runs.admit_all(news)
    assert [one.run.run_id for one in admitted] == [new.run_id for new in news] == await ids(store)
    assert [one.runnable for one in admitted] == [True, True, False]


async def test_many_are_admitted_or_none(store: RunStore) -> None:
    before = await admit(store, "b")
    with pytest.raises(NotFound):
        await store.runs.admit_all([a_run("a"), a_run("b"), a_run("missing", create_thread=False)])
    assert await ids(store) == [before]
    with pytest.raises(NotFound):
        await store.threads.get("a", owner=ANY_OWNER)


# Keys.


def keyed(fingerprint: str, **changes: object) -> dict[str, object]:
    return {"idempotency_key": "k", "origin": RunOrigin(fingerprint=fingerprint), **changes}


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
        await store.runs.admit_all([a_run("a"), a_run("t", **keyed("two"))])
    assert await ids(store) == [first]


async def test_of_many_at_once_with_a_key_one_is_admitted(store: RunStore) -> None:
    admitted = await asyncio.gather(*(admission(store, **keyed("one")) for _ in range(20)))
    assert len({one.run.run_id for one in admitted}) == 1
    assert [one.reused for one in admitted].count(False) == 1


async def test_a_thread_that_a_run_makes_expires_when_the_run_says(store: RunStore) -> None:
    await admit(store, thread_ttl=ThreadTtl(ttl_s=60.0))
    await admit(store, thread_ttl=ThreadTtl(ttl_s=5.0))
    assert (await store.threads.get("t", owner=ANY_OWNER)).ttl == ThreadTtl(ttl_s=60.0), (
        "an existing thread keeps its own"
    )


# Metadata.


async def test_a_run_inherits_its_threads_metadata_between_its_defaults_and_its_own(store: RunStore) -> None:
    await store.threads.create(
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
    waiting = await store.queue.waiting_on([lease.run_id, second, third, delayed, alone, "missing"])
    until = (await store.runs.get(delayed, owner=ANY_OWNER)).not_before
    assert waiting == {
        second: WaitingOn(reason="run", run_id=lease.run_id),
        third: WaitingOn(reason="run", run_id=second),
        delayed: WaitingOn(reason="delay", until=until),
        alone: WaitingOn(reason="slots"),
    }
    await turn(store, DUE, delayed)
    assert await store.queue.waiting_on([delayed]) == {delayed: WaitingOn(reason="run", run_id=third)}
    await finish(store, lease)
    assert await store.queue.waiting_on([second]) == {second: WaitingOn(reason="slots")}
    assert await store.queue.waiting_on([]) == {}


async def test_a_due_run_waits_for_a_later_one_that_executes(store: RunStore) -> None:
    delayed = await admit(store, delay_s=HOUR_S)
    lease = await running(store)
    await turn(store, DUE, delayed)
    assert await store.queue.waiting_on([delayed]) == {delayed: WaitingOn(reason="run", run_id=lease.run_id)}


# Active runs, newest first.


async def test_active_runs_are_paged_by_status_newest_first(store: RunStore) -> None:
    await ended(store, "x")
    executing = (await running(store, "a")).run_id
    pending = [await admit(store, thread_id) for thread_id in ("a", "b", "c")]
    foreign = await admit(store, "d", owner="someone")
    page = await store.runs.active(owner=NO_OWNER, status=RunStatus.PENDING, limit=2)
    assert [run.run_id for run in page] == [pending[2], pending[1]]
    rest = await store.runs.active(owner=NO_OWNER, status=RunStatus.PENDING, before_seq=page[-1].seq)
    assert [run.run_id for run in rest] == [pending[0]]
    assert [run.run_id for run in await store.runs.active(owner=NO_OWNER, status=RunStatus.RUNNING)] == [executing]
    everyones = await store.runs.active(owner=ANY_OWNER, status=RunStatus.PENDING)
    assert [run.run_id for run in everyones] == [foreign, *reversed(pending)]
    both = await store.runs.active(owner=NO_OWNER, status=None)
    assert [run.run_id for run in both] == [*reversed(pending), executing]


async def test_a_thread_has_an_active_run_from_its_admission_to_its_end(store: RunStore) -> None:
    assert not await store.runs.has_active("t", owner=ANY_OWNER)
    lease = (await claim(store, await admit(store, owner="ann"))).lease
    for owner, found in (("ann", True), (ANY_OWNER, True), ("eve", False)):
        assert await store.runs.has_active("t", owner=owner) is found
    await finish(store, lease, RunEvent.RELEASE)
    assert await store.runs.has_active("t", owner="ann")
    await finish(store, (await claim(store, lease.run_id)).lease)
    assert not await store.runs.has_active("t", owner="ann")


# Starts.


async def _started(store: RunStore, from_order: int = 0) -> list[str]:
    return [run.run_id for run in await store.runs.started("t", from_order=from_order, limit=100)]


async def _last_started(store: RunStore) -> RunRecord:
    last = await store.runs.last_started("t")
    assert last is not None
    return last


async def test_runs_are_numbered_in_the_order_of_starts_not_of_admissions(store: RunStore) -> None:
    assert await store.runs.last_started("t") is None
    delayed = await admit(store, delay_s=HOUR_S)
    first = await ended(store)
    cancelled = await admit(store)
    await cancel(store, cancelled)
    await turn(store, DUE, delayed)
    lease = (await claim(store, delayed)).lease
    await admit(store)
    assert await _started(store) == [first, cancelled, delayed]
    assert (await _last_started(store)).run_id == delayed
    await finish(store, lease, RunEvent.FAIL)
    await ended(store, "u")
    assert await _started(store) == [first, cancelled, delayed]
    second, third = [run.start_order for run in await store.runs.started("t", from_order=0, limit=100)][1:]
    assert second is not None
    assert third is not None
    assert await _started(store, second) == [cancelled, delayed]
    assert await _started(store, second + 1) == [delayed]
    assert await _started(store, third + 1) == []


async def test_a_run_that_goes_on_after_its_worker_died_keeps_its_place(store: RunStore) -> None:
    lease = await running(store)
    before = await _last_started(store)
    await store.attempts.rescue(await held(store, lease.run_id), max_rescues=3)
    await claim(store, lease.run_id)
    after = await _last_started(store)
    assert (after.run_id, after.start_order) == (lease.run_id, before.start_order)


async def test_the_place_of_a_deleted_run_is_not_given_out_again(store: RunStore) -> None:
    await ended(store)
    deleted = await _last_started(store)
    await store.runs.delete(deleted.run_id, owner=ANY_OWNER)
    await ended(store)
    following = await _last_started(store)
    assert (following.start_order or 0) > (deleted.start_order or 0)


async def test_a_state_from_outside_has_its_place_between_the_runs_before_and_after_it(store: RunStore) -> None:
    first = await store.runs.get(await ended(store), owner=ANY_OWNER)
    written = await store.threads.set_state("t", owner=ANY_OWNER, state=Snapshot(values=b"{}"), metadata={})
    second = await store.runs.get(await ended(store), owner=ANY_OWNER)
    assert (first.start_order or 0) < written.state_order < (second.start_order or 0)
    copied = await store.threads.copy("t", "u", reads=ANY_OWNER, owner=NO_OWNER, metadata={})
    assert copied.state_order > (second.start_order or 0)
