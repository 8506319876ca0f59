"""An attempt's journal on a real database: one transaction, order, fence, outages, and what is left at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from journal_kit import Audience, journal_of
from ledger_kit import admit, claim, finish
from run_kit import ONCE, FaultyDriver, on_virtual_time, until
from runlane.errors import LeaseLost, RunlaneError, StoreUnavailable
from runlane.journal.pacing import UNREAD_S
from runlane.journal.rows import CheckpointRows
from runlane.records import Lease
from runlane.store.ledger import RunStore
from runlane.store.statements import Transaction, statement

FIRSTS = statement("test.firsts", "SELECT first_seq FROM events ORDER BY first_seq")
IDS = statement("test.ids", "SELECT checkpoint_id AS id FROM checkpoints ORDER BY seq")
REFUSED = TypeError("unfit")


def rows(name: str) -> CheckpointRows:
    row = {
        "thread_id": "t",
        "checkpoint_ns": "",
        "checkpoint_id": name,
        "run_id": "r",
        "parent_id": None,
        "type": "msgpack",
        "checkpoint": b"",
        "metadata_type": "msgpack",
        "metadata": b"",
    }
    return CheckpointRows(checkpoints=[row], size=1)


def ids() -> Transaction[list[str]]:
    found = yield IDS()
    return [row["id"] for row in found]


def firsts() -> Transaction[list[int]]:
    found = yield FIRSTS()
    return [row["first_seq"] for row in found]


@dataclass
class Attempt:
    """One attempt with a journal, and what is in the ledger."""

    driver: FaultyDriver = field(default_factory=FaultyDriver)
    readers: Audience = field(default_factory=Audience)
    failures: list[RunlaneError] = field(default_factory=list)

    async def begin(self) -> Attempt:
        self.store = RunStore(self.driver, retry=ONCE)
        claimed = await claim(self.store, await admit(self.store))
        self.lease: Lease = claimed.lease
        self.journal = journal_of(self.driver, self.lease, readers=self.readers, failures=self.failures)
        return self

    async def stored(self) -> tuple[list[int], list[str]]:
        """Return the numbers of the events and the ids of the checkpoints that are committed."""
        events = await self.store.events.read(self.lease.seq, after=0)
        return [event.seq for event in events], await self.driver.read(ids())

    def shown(self) -> list[int]:
        return [event.seq for event in self.readers.shown]


@pytest.fixture
async def attempt() -> AsyncIterator[Attempt]:
    made = await Attempt().begin()
    yield made
    await made.driver.aclose()


async def test_the_events_and_checkpoints_of_a_step_are_one_transaction(attempt: Attempt) -> None:
    before = attempt.driver.counts.get("holds_free_lease", 0)
    attempt.journal.append_event("a", b"1")
    attempt.journal.append_checkpoint(rows("one"))
    attempt.journal.append_event("b", b"2")
    await attempt.journal.flush()
    assert await attempt.stored() == ([1, 2], ["one"])
    assert attempt.driver.counts["holds_free_lease"] == before + 1


@on_virtual_time
async def test_what_was_appended_is_committed_without_being_asked_for() -> None:
    attempt = await Attempt().begin()
    attempt.journal.append_event("a", b"1")
    await asyncio.sleep(UNREAD_S - 0.001)
    assert await attempt.stored() == ([], [])
    await asyncio.sleep(0.002)
    assert await attempt.stored() == ([1], [])
    attempt.journal.append_event("b", b"2")
    attempt.journal.append_checkpoint(rows("one"))
    await asyncio.sleep(UNREAD_S - 0.001)
    assert await attempt.stored() == ([1], [])
    await asyncio.sleep(0.002)
    assert await attempt.stored() == ([1, 2], ["one"])
    assert attempt.shown() == [1, 2]


@on_virtual_time
async def test_a_reader_who_comes_is_shown_the_next_event_at_once_with_what_waited() -> None:
    attempt = await Attempt().begin()
    attempt.journal.append_event("a", b"1")
    await asyncio.sleep(0.01)
    attempt.readers.present = True
    attempt.journal.append_event("b", b"2")
    await asyncio.sleep(0)
    assert attempt.shown() == [1, 2]


@on_virtual_time
async def test_events_that_are_refused_for_good_leave_the_checkpoints_of_their_batch() -> None:
    attempt = await Attempt().begin()
    attempt.driver.faults["insert_segment"] = REFUSED
    attempt.journal.append_event("a", b"1")
    attempt.journal.append_checkpoint(rows("one"))
    await attempt.journal.flush()
    assert await attempt.stored() == ([], ["one"])
    await asyncio.sleep(0)
    assert attempt.failures == [attempt.journal.failure]
    left = await attempt.journal.close()
    assert (left.events_end, left.with_event("error", b"1").events) == (None, ())


@on_virtual_time
async def test_checkpoints_that_are_refused_for_good_leave_the_events_of_their_batch() -> None:
    attempt = await Attempt().begin()
    attempt.driver.faults["checkpoints.put"] = REFUSED
    attempt.journal.append_event("a", b"1")
    attempt.journal.append_checkpoint(rows("one"))
    with pytest.raises(TypeError, match="unfit"):
        await attempt.journal.flush()
    attempt.driver.faults.clear()
    attempt.journal.append_event("b", b"2")
    with pytest.raises(TypeError, match="unfit"):
        attempt.journal.append_checkpoint(rows("two"))
    await asyncio.sleep(1)
    assert (await attempt.stored(), attempt.failures) == (([1, 2], []), [])


@on_virtual_time
async def test_a_batch_that_may_have_been_committed_is_sent_again_as_it_is_until_an_outage_is_over() -> None:
    attempt = await Attempt().begin()
    attempt.driver.faults["insert_segment"] = StoreUnavailable("unplugged")
    attempt.journal.append_event("a", b"1")
    flushing = asyncio.create_task(attempt.journal.flush())
    await asyncio.sleep(60)
    attempt.journal.append_event("b", b"2")
    attempt.driver.faults.clear()
    await flushing
    await asyncio.sleep(1)
    assert await attempt.stored() == ([1, 2], [])
    segments = await attempt.driver.read(firsts())
    assert segments == [1, 2]


@on_virtual_time
async def test_what_is_appended_while_a_batch_waits_is_committed_with_it() -> None:
    attempt = await Attempt().begin()
    attempt.driver.out = True
    attempt.journal.append_event("a", b"1")
    flushing = asyncio.create_task(attempt.journal.flush())
    await asyncio.sleep(60)
    attempt.journal.append_event("b", b"2")
    attempt.driver.out = False
    await flushing
    assert await attempt.stored() == ([1, 2], [])
    assert attempt.shown() == [1, 2]
    assert await attempt.driver.read(firsts()) == [1]


async def test_a_lost_lease_is_told_once_and_nothing_is_written_after_it(attempt: Attempt) -> None:
    await finish(attempt.store, attempt.lease)
    attempt.journal.append_event("a", b"1")
    attempt.journal.append_checkpoint(rows("one"))
    with pytest.raises(LeaseLost):
        await attempt.journal.flush()
    attempt.journal.append_event("b", b"2")
    with pytest.raises(LeaseLost):
        attempt.journal.append_checkpoint(rows("two"))
    with pytest.raises(LeaseLost):
        await attempt.journal.close()
    with pytest.raises(LeaseLost):
        async with attempt.journal.stage():
            raise AssertionError
    await asyncio.sleep(0)
    assert attempt.failures == [attempt.journal.lost]
    assert await attempt.stored() == ([], [])


@on_virtual_time
async def test_whoever_waits_in_an_outage_is_let_go_once_another_attempt_may_have_the_run() -> None:
    attempt = await Attempt().begin()
    attempt.driver.out = True
    attempt.journal.append_event("a", b"1")
    waiting = [asyncio.create_task(attempt.journal.flush()), asyncio.create_task(attempt.journal.close())]
    await asyncio.sleep(60)
    assert not any(task.done() for task in waiting)
    attempt.journal.lose()
    assert [type(one) for one in await asyncio.gather(*waiting, return_exceptions=True)] == [LeaseLost, LeaseLost]
    attempt.driver.out = False
    await asyncio.sleep(60)
    assert attempt.failures == []


async def test_what_is_left_is_written_with_the_ending_or_not_at_all(attempt: Attempt) -> None:
    attempt.journal.append_event("a", b"1")
    attempt.journal.append_checkpoint(rows("one"))
    left = await attempt.journal.close()
    attempt.journal.append_event("b", b"2")
    with pytest.raises(LeaseLost):
        attempt.journal.append_checkpoint(rows("two"))

    def fails() -> Transaction[None]:
        yield from left.transaction()
        raise StoreUnavailable("the disk is full")

    with pytest.raises(StoreUnavailable):
        await attempt.driver.write(fails())
    assert await attempt.stored() == ([], [])
    assert await attempt.journal.close() == left
    await attempt.driver.write(left.with_event("error", b"3").transaction())
    assert await attempt.stored() == ([1, 2], ["one"])


async def test_a_flush_that_is_overtaken_by_the_end_is_refused(attempt: Attempt) -> None:
    attempt.journal.append_checkpoint(rows("one"))
    left = await attempt.journal.close()
    with pytest.raises(LeaseLost):
        await attempt.journal.flush()
    assert left.rows
    assert await attempt.stored() == ([], [])


async def test_what_is_staged_reads_as_if_it_were_stored_and_becomes_part_of_what_is_left(attempt: Attempt) -> None:
    attempt.journal.append_checkpoint(rows("one"))
    async with attempt.journal.stage() as stage:
        stage.rows.extend(rows("two"))
        assert await stage.read(ids) == ["one", "two"]
    async with attempt.journal.stage() as stage:
        stage.rows.extend(rows("three"))
        assert await stage.read(ids) == ["one", "two", "three"]
    assert await attempt.stored() == ([], [])
    await attempt.driver.write((await attempt.journal.close()).transaction())
    assert await attempt.stored() == ([], ["one", "two", "three"])


async def test_a_stage_that_fails_leaves_nothing(attempt: Attempt) -> None:
    async def repair() -> None:
        async with attempt.journal.stage() as stage:
            stage.rows.extend(rows("half"))
            raise ValueError("repair")

    with pytest.raises(ValueError, match="repair"):
        await repair()
    assert (await attempt.journal.close()).rows == ()


async def test_a_stage_that_is_abandoned_leaves_nothing_even_if_it_ends_later(attempt: Attempt) -> None:
    go = asyncio.Event()

    async def repair() -> None:
        async with attempt.journal.stage() as stage:
            stage.rows.extend(rows("late"))
            await go.wait()

    abandoned = asyncio.create_task(repair())
    await asyncio.sleep(0)
    assert (await attempt.journal.close()).rows == ()
    go.set()
    await abandoned
    assert (await attempt.journal.close()).rows == ()


async def test_it_may_be_appended_to_from_a_thread_without_a_loop(attempt: Attempt) -> None:
    def write() -> None:
        attempt.journal.append_event("a", b"1")
        attempt.journal.append_checkpoint(rows("one"))

    await asyncio.to_thread(write)
    await until(lambda: attempt.readers.shown)
    assert await attempt.stored() == ([1], ["one"])


async def test_order_is_that_of_the_appends_whatever_thread_made_them(attempt: Attempt) -> None:
    def write(part: int) -> None:
        for number in range(100):
            attempt.journal.append_event("e", b"%d" % (100 * part + number))

    await asyncio.gather(*(asyncio.to_thread(write, part) for part in range(4)))
    await attempt.journal.flush()
    await asyncio.sleep(0)
    events: Any = await attempt.store.events.read(attempt.lease.seq, after=0)
    assert attempt.shown() == [event.seq for event in events] == list(range(1, 401))
    for part in range(4):
        mine = [int(event.data) for event in events if int(event.data) // 100 == part]
        assert mine == sorted(mine)
