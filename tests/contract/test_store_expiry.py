"""Threads that expire, writes to a thread that depend on what it was, and copies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from ledger_kit import a_run, admit, cancel, claim, ended, finish, running
from runlane.errors import AlreadyExists, ConflictError, NotFound, ThreadChanged
from runlane.journal.remainder import append
from runlane.lifecycle import RunEvent, ThreadStatus
from runlane.outcomes import Snapshot
from runlane.records import ANY_OWNER, NO_OWNER, StreamEvent, Thread, ThreadTtl
from runlane.store.ledger import RunStore
from runlane.store.statements import Driver, Transaction, statement
from runlane.store.transactions.thread_search import ThreadFilter

MINUTE, HOUR = ThreadTtl(ttl_s=60), ThreadTtl(ttl_s=3600, strategy="keep_latest")
STATE = Snapshot(values=b'{"n":1}', interrupts={"task": [{"id": "i", "value": "ok?"}]}, unfinished=True)
OLDER = statement(
    "older",
    "UPDATE threads SET updated_at = updated_at - :us, swept_at = swept_at - :us WHERE thread_id = :thread_id",
)


async def make(store: RunStore, thread_id: str = "t", owner: str = NO_OWNER, **more: Any) -> Thread:
    return await store.threads.create(thread_id, owner=owner, **{"metadata": {}, **more})


async def get(store: RunStore, thread_id: str = "t") -> Thread:
    return await store.threads.get(thread_id, owner=ANY_OWNER)


async def age(store: RunStore, seconds: float, thread_id: str = "t") -> None:
    """Let *seconds* pass for a thread."""

    def older() -> Transaction[None]:
        yield OLDER(thread_id=thread_id, us=int(seconds * 1_000_000))

    await store.driver.write(older())


async def expired(store: RunStore) -> list[tuple[str, str]]:
    return list(await store.threads.expired(limit=10))


def noting(notes: list[str]) -> Callable[[], Transaction[None]]:
    """Return a part of a transaction that leaves a note each time it is executed."""

    def part() -> Transaction[None]:
        notes.append("done")
        yield OLDER(thread_id="nobody", us=0)

    return part


async def test_a_thread_expires_so_long_after_its_last_change(store: RunStore) -> None:
    made = await make(store, ttl=MINUTE)
    assert made.ttl == MINUTE
    assert made.expires_at is not None
    assert (made.expires_at - made.updated_at).total_seconds() == 60
    await age(store, 59)
    assert await expired(store) == []
    await age(store, 1)
    assert await expired(store) == [("t", "delete")]
    await store.threads.patch("t", owner=ANY_OWNER, metadata={"a": 1})
    assert await expired(store) == []
    assert (await get(store)).ttl == MINUTE
    await age(store, 60)
    changed = await store.threads.patch("t", owner=ANY_OWNER, metadata={}, ttl=HOUR)
    assert (changed.ttl, changed.metadata) == (HOUR, {"a": 1})
    await age(store, 3600)
    assert await expired(store) == [("t", "keep_latest")]


async def test_a_thread_without_a_time_never_expires(store: RunStore) -> None:
    assert (await make(store)).expires_at is None
    await age(store, 10**9)
    assert await expired(store) == []


async def test_threads_have_the_stores_time_unless_their_creator_says_otherwise(driver: Driver) -> None:
    store = RunStore(driver, thread_ttl=HOUR)
    assert (await make(store, "default")).ttl == HOUR
    assert (await make(store, "own", ttl=MINUTE)).ttl == MINUTE
    await admit(store, "admitted")
    await store.runs.admit_all([a_run("one"), a_run("two")])
    for thread_id in ("admitted", "one", "two"):
        assert (await get(store, thread_id)).ttl == HOUR
    assert (await make(RunStore(driver), "bare")).ttl is None


async def test_threads_of_stateless_runs_are_not_listed_and_expire_apart_from_others(store: RunStore) -> None:
    await ended(store, "own", thread_ttl=MINUTE, temporary=True)
    await make(store, "named", ttl=MINUTE)
    found = await store.threads.search(owner=ANY_OWNER, where=ThreadFilter())
    assert [thread.thread_id for thread in found] == ["named"]
    assert await store.threads.count(owner=ANY_OWNER, where=ThreadFilter(ids=("own", "named"))) == 1
    every = await store.threads.all(owner=ANY_OWNER, where=ThreadFilter(), limit=10)
    assert [thread.thread_id for thread in every] == ["named", "own"]
    after = await store.threads.all(owner=ANY_OWNER, where=ThreadFilter(), after="named", limit=10)
    assert [thread.thread_id for thread in after] == ["own"]
    assert await store.threads.all(owner="eve", where=ThreadFilter(), limit=10) == ()
    for thread_id in ("own", "named"):
        await age(store, 61, thread_id)
    assert await store.threads.expired(limit=10, temporary=True) == (("own", "delete"),)
    assert await expired(store) == [("named", "delete")]


async def test_a_copy_of_a_stateless_runs_thread_is_one_like_any_other(store: RunStore) -> None:
    await ended(store, "own", thread_ttl=MINUTE, temporary=True)
    copied = await store.threads.copy("own", "kept", reads=ANY_OWNER, owner=NO_OWNER, metadata={})
    assert copied.ttl is None
    assert await store.threads.count(owner=ANY_OWNER, where=ThreadFilter()) == 1


async def test_the_longest_expired_come_first(store: RunStore) -> None:
    for n, thread_id in enumerate("abc"):
        await make(store, thread_id, ttl=MINUTE)
        await age(store, 100 + n, thread_id)
    assert await store.threads.expired(limit=2) == (("c", "delete"), ("b", "delete"))


async def test_a_busy_thread_stays(store: RunStore) -> None:
    await make(store, ttl=MINUTE)
    lease = await running(store)
    await age(store, 100)
    assert await expired(store) == []
    notes: list[str] = []
    assert await store.threads.expire("t", "delete", extra_writes=noting(notes)) is None
    await finish(store, lease)
    assert await store.threads.expire("t", "delete", extra_writes=noting(notes)) is None  # the run was its last change
    assert notes == []
    assert (await get(store)).status is ThreadStatus.IDLE
    await admit(store, delay_s=10_000)
    await age(store, 100)
    assert await expired(store) == []


async def test_an_expired_thread_goes_with_its_runs_events_and_checkpoints_at_once(store: RunStore) -> None:
    await make(store, ttl=MINUTE)
    lease = await running(store)
    committed = asyncio.Event()
    event = StreamEvent(seq=1, name="a", data=b"1")
    store.driver.submit(partial(append, lease, [event]), asyncio.get_running_loop(), lambda *_: committed.set())
    await committed.wait()
    assert await store.events.read(lease.seq, after=0) == (event,)
    await finish(store, lease, events_end=1)
    await make(store, "other")
    await age(store, 100)

    def fails() -> Transaction[None]:
        yield OLDER(thread_id="other", us=10**12)
        raise RuntimeError("disk")

    other = await get(store, "other")
    with pytest.raises(RuntimeError):
        await store.threads.expire("t", "delete", extra_writes=fails)
    assert (await get(store)).ttl == MINUTE
    assert await get(store, "other") == other

    notes: list[str] = []
    gone = await store.threads.expire("t", "delete", extra_writes=noting(notes))
    assert (gone and gone.thread_id, notes) == ("t", ["done"])
    for reading in (get(store), store.runs.get(lease.run_id, owner=ANY_OWNER)):
        with pytest.raises(NotFound):
            await reading
    assert await store.events.read(lease.seq, after=0) == ()
    assert await store.threads.expire("t", "delete") is None


async def test_a_thread_is_pruned_once_until_something_happens_on_it(store: RunStore) -> None:
    await make(store, ttl=HOUR)
    await age(store, 4000)
    notes: list[str] = []
    before = await get(store)
    assert await store.threads.expire("t", "delete", extra_writes=noting(notes)) is None
    assert await store.threads.expire("t", "keep_latest", extra_writes=noting(notes)) == before
    assert (await expired(store), notes) == ([], ["done"])
    assert await store.threads.expire("t", "keep_latest", extra_writes=noting(notes)) is None
    assert await get(store) == before  # being pruned is no change
    await ended(store)
    assert await expired(store) == []


async def happen_nothing(store: RunStore) -> None:
    await get(store)


async def happen_a_run(store: RunStore) -> None:
    await ended(store)


async def happen_a_rollback(store: RunStore) -> None:
    await cancel(store, await admit(store))


async def happen_a_patch(store: RunStore) -> None:
    await store.threads.patch("t", owner=ANY_OWNER, metadata={"a": 1})


async def happen_an_update(store: RunStore) -> None:
    await store.threads.set_state("t", owner=ANY_OWNER, state=Snapshot(values=b"{}"), metadata={})


@pytest.mark.parametrize("happen", [happen_a_run, happen_a_rollback, happen_a_patch, happen_an_update])
async def test_a_state_that_is_based_on_what_a_thread_was_is_not_written(store: RunStore, happen: Any) -> None:
    seen = (await make(store)).updated_at
    await happen(store)
    before, notes = await get(store), list[str]()
    with pytest.raises(ThreadChanged):
        await store.threads.set_state(
            "t", owner=ANY_OWNER, state=STATE, metadata={"b": 1}, seen=seen, extra_writes=noting(notes)
        )
    assert (await get(store), notes) == (before, [])


async def test_a_state_is_written_with_its_checkpoints_if_nothing_has_happened(store: RunStore) -> None:
    seen, notes = (await make(store)).updated_at, list[str]()
    await happen_nothing(store)
    written = await store.threads.set_state(
        "t", owner=ANY_OWNER, state=STATE, metadata={"b": 1}, seen=seen, extra_writes=noting(notes)
    )
    assert (written.values, written.status, written.metadata) == ({"n": 1}, ThreadStatus.INTERRUPTED, {"b": 1})
    assert notes == ["done"]


async def test_nothing_is_done_to_a_busy_thread(store: RunStore) -> None:
    run_id = await admit(store)
    thread, notes = await get(store), list[str]()
    for write in (
        store.threads.set_state(
            "t", owner=ANY_OWNER, state=STATE, metadata={}, seen=thread.updated_at, extra_writes=noting(notes)
        ),
        store.threads.change_idle("t", owner=ANY_OWNER, extra_writes=noting(notes)),
        store.threads.delete("t", owner=ANY_OWNER, extra_writes=noting(notes)),
    ):
        with pytest.raises(ConflictError) as refused:
            await write
        assert refused.value.active_run_id == run_id
    assert (await get(store), notes) == (thread, [])


async def test_a_thread_begins_with_a_state_or_not_at_all(store: RunStore) -> None:
    notes: list[str] = []
    made = await make(store, state=STATE, extra_writes=noting(notes))
    assert (made.values, made.status, made.interrupts) == ({"n": 1}, ThreadStatus.INTERRUPTED, STATE.interrupts)
    assert await get(store) == made
    with pytest.raises(AlreadyExists):
        await make(store, state=Snapshot(values=b"{}"), extra_writes=noting(notes))
    assert await make(store, if_exists_return=True, state=Snapshot(values=b"{}"), extra_writes=noting(notes)) == made
    assert notes == ["done"]

    def fails() -> Transaction[None]:
        yield OLDER(thread_id="t", us=1)
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError):
        await make(store, "u", state=STATE, extra_writes=fails)
    with pytest.raises(NotFound):
        await get(store, "u")


async def test_a_copy_is_what_the_thread_is_and_goes_its_own_way(store: RunStore) -> None:
    await make(store, owner="ann", metadata={"a": 1}, ttl=HOUR)
    await finish(store, await running(store, owner="ann"), RunEvent.PAUSE, state=STATE)
    source, notes = await get(store), list[str]()
    copied = await store.threads.copy("t", "u", reads="ann", owner="bob", metadata={"b": 2}, extra_writes=noting(notes))
    assert (copied.thread_id, copied.owner, copied.metadata, copied.ttl) == ("u", "bob", {"b": 2}, HOUR)
    assert (copied.status, copied.values, copied.interrupts) == (source.status, source.values, source.interrupts)
    assert (copied.created_at > source.created_at, notes) == (True, ["done"])
    assert await store.runs.list("u", owner=ANY_OWNER) == ()
    await ended(store, "u", owner="bob")
    assert await get(store) == source


async def test_a_thread_is_copied_while_runs_wait_and_not_while_one_has_begun(store: RunStore) -> None:
    await make(store, state=STATE)
    run_id = await admit(store)
    copied = await store.threads.copy("t", "u", reads=ANY_OWNER, owner=NO_OWNER, metadata={})
    assert copied.status is ThreadStatus.INTERRUPTED
    lease = (await claim(store, run_id)).lease
    for event in (None, RunEvent.RELEASE):  # one that was handed back has written something too
        if event is not None:
            await finish(store, lease, event)
        notes: list[str] = []
        with pytest.raises(ConflictError):
            await store.threads.copy("t", "v", reads=ANY_OWNER, owner=NO_OWNER, metadata={}, extra_writes=noting(notes))
        assert notes == []
    with pytest.raises(NotFound):
        await store.threads.copy("t", "v", reads="eve", owner="eve", metadata={})
    with pytest.raises(NotFound):
        await get(store, "v")
