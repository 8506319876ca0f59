"""Publisher and StreamBridge: numbering, replay, gaps, ends, slow readers, heartbeats, outages."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from ledger_kit import admit, claim, finish
from run_kit import ENDED_LONG_AGO, ONCE, FaultyDriver, items, on_jumping_time, opened, soon, turn, until
from runlane import NotFound, StoreUnavailable
from runlane.errors import LeaseLost, RunlaneError
from runlane.journal.delays import Delays
from runlane.journal.journal import AttemptJournal
from runlane.journal.pacing import LARGE_EVENTS_BYTES
from runlane.journal.queue import MAX_EVENT_BYTES
from runlane.lifecycle import EndReason, RunEvent, RunStatus
from runlane.records import ANY_OWNER, Claim, RunRecord, StreamEnd, StreamEvent, StreamGap, StreamItem
from runlane.store.ledger import RunStore
from runlane.store.notifications import Changes, Notifications, changes_in
from runlane.streams.batches import EventBatch
from runlane.streams.bridge import StreamBridge
from runlane.streams.budget import COPIES, READER_BYTES, TAIL_BYTES
from runlane.streams.following import READ_ELSEWHERE_S
from runlane.streams.live import TAIL_EVENTS

HEARTBEAT_S = 5.0
#: What a ledger says that is there, and will never take this.
REFUSED = sqlite3.IntegrityError("as told")


@dataclass
class Stage:
    """One attempt that publishes, and readers of it."""

    driver: FaultyDriver = field(default_factory=FaultyDriver)
    failures: list[RunlaneError] = field(default_factory=list)

    async def begin(self, attempt_of: str | None = None) -> Stage:
        if attempt_of is None:
            self.store = RunStore(self.driver, retry=ONCE)
            self.bridge = StreamBridge(self.store, heartbeat_s=HEARTBEAT_S)
        return self._feed(await claim(self.store, attempt_of or await admit(self.store)))

    def beside(self) -> Stage:
        """Return the same attempt, whose events the readers of this one are not shown."""
        other = Stage(driver=self.driver)
        other.store, other.bridge = self.store, StreamBridge(self.store, heartbeat_s=HEARTBEAT_S)
        return other._feed(self.claim)

    def _feed(self, claim: Claim) -> Stage:
        self.claim = claim
        self.feed = self.bridge.open(claim)
        self.journal = AttemptJournal(
            self.driver,
            self.claim.lease,
            events_end=self.claim.events_end,
            control=asyncio.get_running_loop(),
            delays=Delays(),
            readers=self.feed,
            on_failure=self.failures.append,
        )
        return self

    @property
    def run(self) -> RunRecord:
        return self.claim.run

    def emit(self, *payloads: Any) -> None:
        for payload in payloads:
            self.journal.append_event("e", b"%d" % payload if isinstance(payload, int) else payload)

    async def committed(self) -> None:
        """Wait until everything emitted is committed and shown."""
        await self.journal.flush()
        await asyncio.sleep(0)

    async def end(self, event: RunEvent = RunEvent.SUCCEED) -> RunRecord:
        await self.committed()
        events_end = (await self.journal.close()).events_end
        finished = await finish(self.store, self.claim.lease, event, events_end=events_end)
        self.bridge.close(finished.run, events_end=events_end, result=b"1")
        return finished.run

    async def read(self, after: int | None = 0) -> list[StreamItem]:
        return [item async for item in self.bridge.subscribe(self.run.run_id, after=after)]

    def tail(self) -> Any:
        return self.bridge._live[self.run.run_id]


def numbers(found: list[StreamItem]) -> list[int]:
    return [item.seq for item in found if isinstance(item, StreamEvent)]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = await Stage().begin()
    yield made
    await made.driver.aclose()


async def test_numbers_strictly_increase_from_one_and_the_end_follows_the_last(stage: Stage) -> None:
    reader = asyncio.create_task(stage.read())
    for batch in range(20):
        stage.emit(*range(batch % 5))
        await asyncio.sleep(0)
    await stage.end()
    found = await soon(reader)
    assert numbers(found) == list(range(1, 41))
    end = found[-1]
    assert isinstance(end, StreamEnd)
    assert (end.seq, end.status, end.end_reason) == (41, RunStatus.SUCCESS, EndReason.COMPLETED)


async def test_numbers_go_on_across_attempts(stage: Stage) -> None:
    reader = asyncio.create_task(stage.read())
    stage.emit(1, 2, 3)
    await stage.committed()
    await finish(stage.store, stage.claim.lease, RunEvent.RELEASE, events_end=3)
    stage.bridge.release(stage.run.run_id, 1)
    await stage.begin(attempt_of=stage.run.run_id)
    stage.emit(4, 5)
    await stage.end()
    found = await soon(reader)
    assert numbers(found) == [1, 2, 3, 4, 5]
    assert await stage.read() == found


async def test_the_late_release_of_an_attempt_leaves_the_stream_of_the_next_one_alone(stage: Stage) -> None:
    await finish(stage.store, stage.claim.lease, RunEvent.RELEASE, events_end=0)
    await stage.begin(attempt_of=stage.run.run_id)
    stage.bridge.release(stage.run.run_id, 1)
    with stage.bridge.watch(stage.run):
        stage.emit(1)
        await stage.committed()
        assert [event.seq for event in stage.tail().tail] == [1]


async def test_events_of_a_run_that_nobody_watches_are_in_the_log_alone(stage: Stage) -> None:
    stage.emit(1, 2)
    await stage.committed()
    assert (stage.tail().tail, stage.tail().tail_bytes, stage.tail().known_seq) == ([], 0, 2)
    reader = asyncio.create_task(stage.read())
    await until(lambda: stage.tail().readers == 1)
    stage.emit(3)
    await stage.committed()
    assert [event.seq for event in stage.tail().tail] == [3]
    await stage.end()
    assert numbers(await soon(reader)) == [1, 2, 3]


async def test_a_reader_that_comes_back_gets_every_later_event_once_from_any_cursor(stage: Stage) -> None:
    stage.emit(*range(10))
    await stage.committed()
    readers = [asyncio.create_task(stage.read(after)) for after in range(11)]
    await asyncio.sleep(0)
    stage.emit(*range(10))
    await stage.end()
    for after, reader in enumerate(readers):
        found = await soon(reader)
        assert numbers(found) == list(range(after + 1, 21))
        assert await soon(stage.read(after)) == found  # from the log, after the end
    assert [type(item) for item in await stage.read(20)] == [StreamEnd]


async def test_a_reader_from_now_on_gets_what_comes(stage: Stage) -> None:
    stage.emit(1, 2)
    await stage.committed()
    reader = asyncio.create_task(stage.read(None))
    await asyncio.sleep(0)
    stage.emit(3)
    await stage.end()
    assert numbers(await soon(reader)) == [3]


async def test_a_cursor_ahead_of_the_log_ends_with_the_stream_and_its_end_is_still_larger(stage: Stage) -> None:
    stage.emit(1)
    await stage.end()
    (end,) = await stage.read(1000)
    assert isinstance(end, StreamEnd)
    assert end.seq == 1001


async def test_who_has_seen_the_end_is_sent_the_same_end_again(stage: Stage) -> None:
    stage.emit(1)
    await stage.end()
    whole = await stage.read()
    assert await stage.read(whole[-1].seq) == whole[-1:]


async def test_a_reader_whose_cursor_retention_has_passed_is_told(stage: Stage) -> None:
    stage.emit(1, 2)
    await stage.end()
    await turn(stage.store, ENDED_LONG_AGO, stage.run.run_id)
    await stage.store.events.purge(older_than_s=60)
    assert [type(item) for item in await stage.read()] == [StreamGap, StreamEnd]
    assert [type(item) for item in await stage.read(1)] == [StreamGap, StreamEnd]
    assert [type(item) for item in await stage.read(2)] == [StreamEnd]


async def test_who_is_behind_a_run_that_is_rolled_back_and_deleted_is_told_of_no_gap(stage: Stage) -> None:
    events = 2 * TAIL_EVENTS
    stage.emit(*range(events))
    with stage.bridge.watch(stage.run):  # so that this process knows the end itself
        await stage.committed()
        await stage.journal.close()
        rolled_back = {"end_reason": EndReason.ROLLED_BACK, "events_end": events}
        finished = await finish(stage.store, stage.claim.lease, RunEvent.STOP, **rolled_back)
        stage.bridge.close(finished.run, events_end=events, result=None)
        await stage.store.runs.delete(stage.run.run_id, owner=ANY_OWNER)
        with stage.bridge.watch(stage.run) as late:
            found = [item async for batch in late.batches() for item in batch]
    # It has the number that follows what was read, as in a process that knows nothing of the run.
    assert found == [StreamEnd(seq=1, status=RunStatus.INTERRUPTED, end_reason=EndReason.ROLLED_BACK)]


async def test_every_reader_gets_exactly_one_end(stage: Stage) -> None:
    early = [asyncio.create_task(stage.read()) for _ in range(5)]
    await asyncio.sleep(0)
    stage.emit(1)
    ending = asyncio.create_task(stage.end())
    meanwhile = [asyncio.create_task(stage.read()) for _ in range(5)]
    await ending
    late = [asyncio.create_task(stage.read()) for _ in range(5)]
    for reader in (*early, *meanwhile, *late):
        found = await soon(reader)
        assert [type(item) for item in found] == [StreamEvent, StreamEnd]
    assert not stage.bridge._live


async def test_the_end_is_told_to_readers_of_a_run_that_somebody_else_ended(stage: Stage) -> None:
    reader = asyncio.create_task(stage.read())
    await asyncio.sleep(0)
    stage.emit(1)
    await stage.committed()
    finished = await finish(stage.store, stage.claim.lease, RunEvent.FAIL, events_end=1)
    stage.bridge.close(finished.run, events_end=None, result=None)
    assert [type(item) for item in await soon(reader)] == [StreamEvent, StreamEnd]


async def test_what_is_committed_beside_the_end_and_not_shown_here_is_read_before_the_end(stage: Stage) -> None:
    """A process that stood still hears of its run's end before it hears that the last events were committed."""
    reader = asyncio.create_task(stage.read())
    await asyncio.sleep(0)
    unseen = stage.beside()
    unseen.emit(1)
    await unseen.committed()
    await unseen.journal.close()
    finished = await finish(stage.store, stage.claim.lease, RunEvent.SUCCEED, events_end=1)
    stage.bridge.close(finished.run, events_end=1, result=b"1")
    assert [type(item) for item in await soon(reader)] == [StreamEvent, StreamEnd]


async def test_a_reader_of_a_deleted_run_ends(stage: Stage) -> None:
    stage.emit(1, 2)
    await stage.committed()
    reader = asyncio.create_task(stage.read())
    await asyncio.sleep(0)
    watch = stage.bridge.watch(stage.run)
    await stage.end()
    await soon(reader)
    await stage.store.runs.delete(stage.run.run_id, owner=ANY_OWNER)
    with watch:
        found = [item async for batch in watch.batches(after=2) for item in batch]
    assert [item.seq for item in found if isinstance(item, StreamEnd)] == [3]
    with pytest.raises(NotFound):
        await stage.read()


async def test_a_waiter_is_told_of_a_run_that_another_process_deletes_while_its_result_is_read(stage: Stage) -> None:
    await stage.end()
    stage.driver.faults["get_result"] = NotFound("run", stage.run.run_id)
    with StreamBridge(stage.store).watch(stage.run) as elsewhere:
        endings = [ending async for ending in elsewhere.ending()]
    assert [ending and ending.end_reason for ending in endings] == [EndReason.ROLLED_BACK]


async def test_reading_an_unknown_run_creates_nothing(stage: Stage) -> None:
    with pytest.raises(NotFound):
        [item async for item in stage.bridge.subscribe("nobody")]
    assert set(stage.bridge._live) == {stage.run.run_id}


async def test_a_reader_that_does_not_read_makes_nothing_grow(stage: Stage) -> None:
    with stage.bridge.watch(stage.run) as watch:
        batches = watch.batches()
        for _ in range(3):
            stage.emit(*range(TAIL_EVENTS))
            await stage.committed()
        assert len(stage.tail().tail) <= TAIL_EVENTS
        await stage.end()
        found = [item async for batch in batches for item in batch]
    assert numbers(found) == list(range(1, 3 * TAIL_EVENTS + 1))
    assert not any(isinstance(item, StreamGap) for item in found)


@pytest.mark.parametrize("live", [True, False])
async def test_of_many_readers_none_holds_more_than_its_part_and_each_reads_all(stage: Stage, live: bool) -> None:
    payloads = [b'"' + b"x" * 5_000 + b'"'] * 400
    with ExitStack() as stack:
        stack.enter_context(stage.bridge.watch(stage.run))  # so that the events are kept in memory
        stage.emit(*payloads)
        await stage.committed()
        if not live:
            await stage.end()
        readers = [stack.enter_context(stage.bridge.watch(stage.run)).parts() for _ in range(400)]
        held: list[list[StreamItem]] = [[] for _ in readers]
        for _ in range(8):
            for reader, items in zip(readers, held, strict=True):
                part = await anext(reader)
                assert isinstance(part, EventBatch)
                assert part.size <= READER_BYTES // len(readers) // COPIES or len(held[-1]) == 0
                items.extend(part)
        if live:
            await stage.end()
        rest = [item async for part in readers[-1] if isinstance(part, EventBatch) for item in part]
        assert numbers([*held[-1], *rest]) == list(range(1, 401))
        for reader in readers:
            await reader.aclose()


async def test_the_tail_is_bounded_in_bytes(stage: Stage) -> None:
    big = b'"' + b"x" * (TAIL_BYTES // 8) + b'"'
    with stage.bridge.watch(stage.run):
        for _ in range(20):
            stage.emit(big)
        await stage.committed()
        assert 0 < sum(len(event.data) for event in stage.tail().tail) <= TAIL_BYTES
        assert stage.tail().tail_bytes == sum(len(event.data) for event in stage.tail().tail)
        await stage.end()
    assert numbers(await stage.read()) == list(range(1, 21))


async def test_what_is_there_comes_in_one_batch(stage: Stage) -> None:
    stage.emit(*range(100))
    await stage.committed()
    with stage.bridge.watch(stage.run) as watch:
        assert len(await anext(watch.batches())) == 100


@on_jumping_time
async def test_silence_is_a_heartbeat_and_no_item() -> None:
    stage = await Stage().begin()
    clock = asyncio.get_running_loop().time
    with stage.bridge.watch(stage.run) as watch:
        batches = watch.batches()
        began = clock()
        empty: EventBatch = await anext(batches)
        assert len(empty) == 0
        assert clock() - began == pytest.approx(HEARTBEAT_S, abs=0.1)
        assert len(await anext(batches)) == 0
        stage.emit(1)
        assert [type(item) for item in await anext(batches)] == [StreamEvent]


@on_jumping_time
async def test_a_subscriber_may_ask_for_heartbeats() -> None:
    """It gets one for each time of silence; who does not ask gets none."""
    stage = await Stage().begin()

    async def read(**options: Any) -> list[Any]:
        return [item async for item in stage.bridge.subscribe(stage.run.run_id, **options)]

    asking, plain = asyncio.ensure_future(read(heartbeats=True)), asyncio.ensure_future(read())
    await asyncio.sleep(2.5 * HEARTBEAT_S)
    stage.emit(1)
    await stage.committed()
    await asyncio.sleep(1.5 * HEARTBEAT_S)
    await stage.end()
    names = [type(item).__name__ for item in await asking]
    assert names == ["StreamHeartbeat", "StreamHeartbeat", "StreamEvent", "StreamHeartbeat", "StreamEnd"]
    assert [type(item).__name__ for item in await plain] == ["StreamEvent", "StreamEnd"]


@on_jumping_time
async def test_a_reader_of_a_run_executed_elsewhere_hears_of_it_within_a_heartbeat() -> None:
    stage = await Stage().begin()
    elsewhere = StreamBridge(stage.store, heartbeat_s=HEARTBEAT_S)
    reader = asyncio.create_task(collect(elsewhere, stage.run.run_id))
    await asyncio.sleep(1)
    stage.emit(1, 2)
    await stage.end()
    began = asyncio.get_running_loop().time()
    found = await reader
    assert [type(item) for item in found] == [StreamEvent, StreamEvent, StreamEnd]
    assert asyncio.get_running_loop().time() - began <= 2 * HEARTBEAT_S


@on_jumping_time
async def test_an_event_is_shown_only_once_it_is_durable() -> None:
    stage = await Stage().begin()
    reader = asyncio.create_task(stage.read())
    stage.driver.faults["insert_segment"] = StoreUnavailable("unplugged")
    stage.emit(1, 2)
    await asyncio.sleep(3)
    assert stage.tail().known_seq == 0
    assert await stage.store.events.read(stage.run.seq, after=0) == ()
    stage.driver.faults.clear()
    await stage.end()
    assert numbers(await reader) == [1, 2]
    assert not stage.failures


@on_jumping_time
async def test_an_outage_of_any_length_loses_no_event() -> None:
    stage = await Stage().begin()
    stage.driver.faults["insert_segment"] = StoreUnavailable("unplugged")
    stage.emit(1)
    await asyncio.sleep(3600)
    stage.emit(2)
    stage.driver.faults.clear()
    await asyncio.sleep(2)
    assert numbers(await stage.store.events.read(stage.run.seq, after=0)) == [1, 2]
    assert not stage.failures


@on_jumping_time
async def test_events_that_are_refused_for_good_are_told_once_and_then_dropped() -> None:
    stage = await Stage().begin()
    stage.driver.faults["insert_segment"] = REFUSED
    stage.emit(1)
    await asyncio.sleep(1)
    (failure,) = stage.failures
    stage.driver.faults.clear()
    stage.emit(2)
    await asyncio.sleep(1)
    assert await stage.store.events.read(stage.run.seq, after=0) == ()
    assert stage.journal.failure is failure
    left = await stage.journal.close()
    assert (left.events, left.events_end) == ((), None)


async def test_a_lost_lease_is_told_at_once(stage: Stage) -> None:
    await finish(stage.store, stage.claim.lease)
    stage.emit(1)
    await until(lambda: stage.failures)
    assert isinstance(stage.failures[0], LeaseLost)
    with pytest.raises(LeaseLost):
        await stage.journal.close()
    assert await stage.store.events.read(stage.run.seq, after=0) == ()


@on_jumping_time
async def test_closing_waits_for_what_is_on_its_way() -> None:
    stage = await Stage().begin()
    stage.driver.faults["insert_segment"] = StoreUnavailable("unplugged")
    stage.emit(b'"' + b"x" * LARGE_EVENTS_BYTES + b'"')
    closing = asyncio.create_task(stage.journal.close())
    await asyncio.sleep(1)
    assert not closing.done()
    stage.driver.faults.clear()
    assert (await closing).events == ()
    assert await stage.store.events.last(stage.run.seq) == 1


async def test_what_is_emitted_after_the_close_is_dropped(stage: Stage) -> None:
    stage.emit(1)
    left = await stage.journal.close()
    stage.emit(2, 3)
    assert left.events_end == 1
    assert await stage.journal.close() == left


@on_jumping_time
async def test_an_agent_that_outruns_the_disk_is_asked_to_wait() -> None:
    stage = await Stage().begin()
    stage.driver.faults["insert_segment"] = StoreUnavailable("unplugged")
    piece = b'"' + b"x" * (1024 * 1024) + b'"'
    while not stage.journal.congested:
        stage.emit(piece)
    assert stage.journal._queue.event_bytes <= MAX_EVENT_BYTES + len(piece)
    waiting = [asyncio.create_task(stage.journal.room()) for _ in range(3)]
    await asyncio.sleep(1)
    assert not any(task.done() for task in waiting)
    stage.driver.faults.clear()
    await asyncio.wait_for(asyncio.gather(*waiting), 60)
    assert not stage.journal.congested


@on_jumping_time
async def test_an_agent_that_waits_for_the_disk_is_let_go_once_its_lease_is_lost() -> None:
    stage = await Stage().begin()
    stage.driver.faults["insert_segment"] = StoreUnavailable("unplugged")
    while not stage.journal.congested:
        stage.emit(b'"' + b"x" * (1024 * 1024) + b'"')
    waiting = asyncio.create_task(stage.journal.room())
    await asyncio.sleep(60)
    assert not waiting.done()
    await finish(stage.store, stage.claim.lease)
    await asyncio.wait_for(waiting, 60)
    assert isinstance(stage.failures[0], LeaseLost)


@on_jumping_time
async def test_a_run_whose_events_are_refused_for_good_fails() -> None:
    driver = FaultyDriver()

    async def talker(context: Any) -> None:
        context.emit("e", 1)
        await asyncio.Event().wait()

    async with opened(driver, retry=ONCE) as runtime:
        driver.faults["insert_segment"] = REFUSED
        run = await runtime.runs.create_or_reject("t", agent=talker)
        failed = await runtime.runs.join(run.run_id)
        assert (failed.status, failed.end_reason) == (RunStatus.ERROR, EndReason.FAILED)
        assert failed.error is not None
        assert failed.error.error == "StoreUnavailable"
        driver.faults.clear()
        assert isinstance((await items(runtime, run.run_id))[-1], StreamEnd)


@on_jumping_time
async def test_a_run_whose_events_are_refused_for_good_ends_even_if_its_code_does_not_stop() -> None:
    driver = FaultyDriver()
    never = asyncio.Event()

    async def stubborn(context: Any) -> None:
        context.emit("e", 1)
        while not never.is_set():
            try:
                await never.wait()
            except asyncio.CancelledError:
                continue

    async with opened(driver, retry=ONCE, cancel_grace_s=5.0, abandon_after_s=5.0) as runtime:
        driver.faults["insert_segment"] = REFUSED
        run = await runtime.runs.create_or_reject("t", agent=stubborn)
        failed = await asyncio.wait_for(runtime.runs.join(run.run_id), 120)
        assert failed.status is RunStatus.ERROR
        never.set()


@on_jumping_time
async def test_a_run_is_read_elsewhere_for_as_long_as_that_is_told_again() -> None:
    stage = await Stage().begin()
    read, other = Changes(read=(stage.run.seq,)), Changes(read=(stage.run.seq + 1,))
    stage.bridge.hear(other)
    assert not stage.feed.present
    for _ in range(3):
        stage.bridge.hear(read)
        await asyncio.sleep(READ_ELSEWHERE_S - 0.1)
        assert stage.feed.present
    await asyncio.sleep(0.2)
    assert not stage.feed.present


@on_jumping_time
async def test_whoever_executes_a_run_is_told_each_second_that_it_is_read_and_no_more_once_it_is_not() -> None:
    stage, told, at = await Stage().begin(), list[tuple[int, ...]](), asyncio.get_running_loop().time
    notifications, enough = Notifications(), asyncio.Event()
    elsewhere = StreamBridge(stage.store, heartbeat_s=HEARTBEAT_S, notifications=notifications)

    def note() -> None:
        told.extend(read for payload in notifications.take() if (read := changes_in(payload).read))
        if len(told) == 3:
            enough.set()

    with notifications.sent_when(note):
        async with elsewhere.following():
            reading = asyncio.create_task(collect(elsewhere, stage.run.run_id))
            began = at()
            stage.emit(b"{}")
            await asyncio.wait_for(enough.wait(), 60)
            assert 1 < at() - began <= 4
            assert set(told) == {(stage.run.seq,)}
            reading.cancel()
            await asyncio.sleep(1)
            told.clear()
            await asyncio.sleep(5)
            assert not told


async def collect(bridge: StreamBridge, run_id: str) -> list[StreamItem]:
    return [item async for item in bridge.subscribe(run_id)]
