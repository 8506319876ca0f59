"""Streams and cancels across processes that share a PostgreSQL ledger: at once, or with the next poll."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ledger_kit import ledger_connection
from run_kit import Scripted, ended, opened, settings, soon, until
from runlane.agents.coroutine import RunContext
from runlane.dispatch.permits import CONNECTIONS
from runlane.errors import NotFound
from runlane.journal import pacing
from runlane.journal.journal import AttemptJournal
from runlane.lifecycle import CancelAction, EndReason, RunStatus
from runlane.maintenance import rescue
from runlane.records import RunRecord, StreamEnd, StreamEvent, StreamItem
from runlane.runtime import Runtime
from runlane.settings import Settings
from runlane.store.backends import notifications_arrive
from runlane.store.drivers import postgres_notifications
from runlane.store.drivers.postgres_notifications import APPLICATION
from runlane.store.notifications import Notifications
from runlane.streams import following
from runlane.streams.bridge import Feed
from runlane.streams.following import Follower
from simulation.seams import applied, method

NEVER_S = 3600.0
PATIENCE_S = 30.0
STEPS = 20
MANY = 500
#: Of one process: the ledger's, those of permits with their listener, and the one of notifications.
MOST_CONNECTIONS = Settings().database_connections + CONNECTIONS + 1 + 1


@pytest.fixture
def url(new_postgres_ledger: Callable[[], str]) -> str:
    return new_postgres_ledger()


@pytest.fixture(autouse=True)
def _no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL_S", NEVER_S)
    monkeypatch.setattr(rescue, "LOOK_EVERY_S", NEVER_S)


@asynccontextmanager
async def process(url: str, **options: Any) -> AsyncIterator[Runtime]:
    """Give a process whose readers hear of nothing by themselves."""
    changes = {"poll_s": NEVER_S, "heartbeat_s": NEVER_S, "lease_s": NEVER_S, **options}
    async with opened(settings=settings(database=url, **changes)) as runtime:
        yield runtime


@asynccontextmanager
async def two_processes(url: str, **options: Any) -> AsyncIterator[tuple[Runtime, Runtime]]:
    async with process(url, **options) as one, process(url, **options) as other:
        yield one, other


def sessions(url: str, *, name: str = "%") -> list[int]:
    with ledger_connection(url) as connection:
        found = connection.execute(
            """SELECT pid FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE %s""",
            (name,),
        ).fetchall()
    return [pid for (pid,) in found]


class Talking:
    """An agent that says one thing after the other, each when it is told to."""

    def __init__(self) -> None:
        self.go: asyncio.Queue[int | None] = asyncio.Queue()
        self.cancelled = asyncio.Event()

    async def __call__(self, context: RunContext) -> str:
        try:
            while (number := await self.go.get()) is not None:
                context.emit("said", {"number": number})
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "done"


class Reading:
    """A reader of a stream, and what it has seen."""

    def __init__(self, runtime: Runtime, run: RunRecord, *, after: int = 0) -> None:
        self.seen: list[StreamItem] = []
        self._more = asyncio.Event()
        self.task = asyncio.create_task(self._read(runtime, run, after))

    async def _read(self, runtime: Runtime, run: RunRecord, after: int) -> None:
        async for item in runtime.streams.subscribe(run.run_id, after=after):
            self.seen.append(item)
            self._more.set()

    async def reaches(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.seen) < count:
                self._more.clear()
                await self._more.wait()


async def tell(agent: Talking, reading: Reading, *, first: int = 1, last: int = STEPS) -> None:
    """Have the agent say one thing after the other, each once the reader has seen the one before."""
    for number in range(first, last + 1):
        agent.go.put_nowait(number)
        await reading.reaches(number + 1)  # the first event tells of the start


async def check_whole(agent: Talking, reading: Reading) -> None:
    """End the run, and check that the reader saw all of it, once and in order."""
    agent.go.put_nowait(None)
    await soon(reading.task)
    *events, end = reading.seen
    assert [event.seq for event in events] == list(range(1, STEPS + 2))
    assert all(isinstance(event, StreamEvent) for event in events)
    assert end == StreamEnd(seq=STEPS + 2, status=RunStatus.SUCCESS, end_reason=EndReason.COMPLETED)


async def read_elsewhere(url: str) -> None:
    """Check that a reader in another process than the run's sees all of it, while it happens."""
    agent = Talking()
    async with two_processes(url) as (here, there):
        run = await here.runs.create("t", agent=agent)
        reading = Reading(there, run)
        await tell(agent, reading)
        await check_whole(agent, reading)


async def test_a_reader_in_another_process_sees_what_happens_without_a_poll(url: str) -> None:
    await read_elsewhere(url)


async def test_events_are_not_gathered_for_long_while_somebody_reads_in_another_process(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "UNREAD_S", NEVER_S)
    agent = Talking()
    async with two_processes(url) as (here, there):
        run = await here.runs.create("t", agent=agent)
        reading = Reading(there, run)
        await until(lambda: any(live.read_until is not None for live in here.streams._live.values()))
        await tell(agent, reading)
        await check_whole(agent, reading)


async def test_a_planted_notification_before_the_commit_is_found(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def told_before(original: Callable[..., None]) -> Callable[..., None]:
        def send(self: AttemptJournal) -> None:
            feed = self._readers
            feed._notifications.run_changed(feed._claim.run.seq)
            asyncio.get_running_loop().call_later(0.2, original, self)

        return send

    def untold(original: Callable[..., None]) -> Callable[..., None]:
        def show(self: Feed, events: Sequence[StreamEvent]) -> None:
            with monkeypatch.context() as silent:
                silent.setattr(self._notifications, "run_changed", lambda run_seq: None)
                original(self, events)

        return show

    monkeypatch.setattr(sys.modules[__name__], "PATIENCE_S", 5.0)
    bug = [method(AttemptJournal, "_send", told_before), method(Feed, "show", untold)]
    with applied(bug), pytest.raises(TimeoutError):
        await read_elsewhere(url)


async def test_a_reader_sees_everything_with_the_poll_if_all_notifications_are_lost(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Notifications, "run_changed", lambda self, run_seq: None)
    monkeypatch.setattr(following, "POLL_S", 0.02)
    await read_elsewhere(url)


async def test_a_reader_sees_everything_once_if_notifications_come_late_and_twice(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear = Follower.hear

    def late(self: Follower, run_seqs: Any) -> None:
        hear(self, run_seqs)
        asyncio.get_running_loop().call_later(0.03, hear, self, (*run_seqs, 999))

    monkeypatch.setattr(Follower, "hear", late)
    await read_elsewhere(url)


async def test_what_happened_while_no_process_listened_is_seen_once_one_does_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, may_connect = postgres_notifications._connect, asyncio.Event()
    may_connect.set()

    async def connected(address: str) -> Any:
        await may_connect.wait()
        return await connect(address)

    monkeypatch.setattr(postgres_notifications, "_connect", connected)
    agent = Talking()
    async with two_processes(url) as (here, there):
        run = await here.runs.create("t", agent=agent)
        reading = Reading(there, run)
        await tell(agent, reading, last=5)
        lost = sessions(url, name=APPLICATION)
        assert len(lost) == 2
        may_connect.clear()
        with ledger_connection(url, autocommit=True) as connection:
            for pid in lost:
                connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        for number in range(6, 11):
            agent.go.put_nowait(number)
        async with asyncio.timeout(PATIENCE_S):
            while await here.store.events.last(run.seq) < 11:  # noqa: ASYNC110 - it is in the database
                await asyncio.sleep(0.01)
        may_connect.set()
        await reading.reaches(11)
        await tell(agent, reading, first=11)
        await check_whole(agent, reading)
        assert not set(lost) & set(sessions(url, name=APPLICATION))


async def test_what_was_not_told_while_a_process_was_cut_off_is_told_once_it_is_back(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, may_connect, cut_off = postgres_notifications._connect, asyncio.Event(), asyncio.Event()
    may_connect.set()

    async def connected(address: str) -> Any:
        if not may_connect.is_set():
            cut_off.set()
        await may_connect.wait()
        return await connect(address)

    monkeypatch.setattr(postgres_notifications, "_connect", connected)
    agent = Talking()
    async with process(url) as here:
        [telling] = sessions(url, name=APPLICATION)
        async with process(url) as there:
            run = await here.runs.create("t", agent=agent)
            nearby, reading = Reading(here, run), Reading(there, run)
            await tell(agent, reading, last=5)
            may_connect.clear()
            with ledger_connection(url, autocommit=True) as connection:
                connection.execute("SELECT pg_terminate_backend(%s)", (telling,))
            await soon(cut_off.wait())
            await tell(agent, nearby, first=6, last=10)
            may_connect.set()
            await reading.reaches(11)
            await tell(agent, reading, first=11)
            await check_whole(agent, reading)
            await soon(nearby.task)


async def test_a_reader_that_comes_later_begins_where_it_wants_to(url: str) -> None:
    agent = Talking()
    async with two_processes(url) as (here, there):
        run = await here.runs.create("t", agent=agent)
        first = Reading(there, run)
        await tell(agent, first, last=10)
        second = Reading(there, run, after=4)
        await second.reaches(7)
        await tell(agent, first, first=11)
        await check_whole(agent, first)
        await soon(second.task)
        assert second.seen == first.seen[4:]


async def test_a_waiter_in_another_process_hears_of_the_end(url: str) -> None:
    agent = Scripted()
    async with two_processes(url) as (here, there):
        run = await here.runs.create("t", agent=agent)
        joined = asyncio.create_task(there.runs.join(run.run_id))
        await soon(agent.started.wait())
        agent.go.set()
        assert (await soon(joined)).status is RunStatus.SUCCESS


async def test_readers_of_a_thread_hear_of_what_other_processes_do_with_it(url: str) -> None:
    async with two_processes(url) as (here, there):
        with there.streams.thread_news("t") as news:
            run = await here.runs.create("t", agent=Scripted())
            await soon(news.wait())
            await here.runs.cancel(run.run_id)


@pytest.mark.parametrize("action", list(CancelAction))
async def test_a_cancel_in_another_process_stops_the_run_without_a_poll(url: str, action: CancelAction) -> None:
    agent = Talking()
    async with two_processes(url) as (here, there):
        run = await here.runs.create("t", agent=agent)
        reading = Reading(there, run)
        await reading.reaches(1)
        receipt = await soon(there.runs.cancel(run.run_id, action=action, wait=True))
        assert receipt is not None
        assert agent.cancelled.is_set()
        await soon(reading.task)
        assert isinstance(reading.seen[-1], StreamEnd)


async def test_a_cancel_whose_notification_is_lost_is_seen_by_the_next_poll(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescue, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(Notifications, "cancel_recorded", lambda self, run_id: None)
    agent = Scripted()
    async with two_processes(url) as (here, there):
        run = await here.runs.create("t", agent=agent)
        await soon(agent.started.wait())
        await there.runs.cancel(run.run_id)
        assert (await ended(here, run)).status is RunStatus.INTERRUPTED


async def test_a_run_that_is_rolled_back_and_deleted_ends_for_its_readers_elsewhere(url: str) -> None:
    agent = Talking()
    async with two_processes(url) as (here, there):
        run = await here.runs.create("t", agent=agent)
        reading = Reading(there, run)
        await reading.reaches(1)
        await soon(here.runs.delete(run.run_id))
        await soon(reading.task)
        assert isinstance(reading.seen[-1], StreamEnd)
        with pytest.raises(NotFound):
            await there.runs.aget(run.run_id)


async def test_a_process_has_as_many_connections_for_500_running_and_500_watched_runs_as_for_none(url: str) -> None:
    async with two_processes(url, max_concurrent_runs=MANY) as (here, there):
        assert len(sessions(url)) <= 2 * MOST_CONNECTIONS
        there_too = await asyncio.gather(many(here, there, "here"), many(there, here, "there"))
        assert (here.worker.executing, there.worker.executing) == (MANY, MANY)
        assert len(sessions(url)) <= 2 * MOST_CONNECTIONS
        assert len(sessions(url, name=APPLICATION)) == 2
        for agent, reading in (pair for pairs in there_too for pair in pairs):
            agent.go.put_nowait(2)
            agent.go.put_nowait(None)
            await soon(reading.task)
            assert [event.seq for event in reading.seen] == [1, 2, 3, 4]
        assert len(sessions(url)) <= 2 * MOST_CONNECTIONS


async def many(executing: Runtime, watching: Runtime, name: str) -> list[tuple[Talking, Reading]]:
    """Start runs in one process and watch each of them in another one, until each has said something."""
    pairs = []
    for number in range(MANY):
        agent = Talking()
        run = await executing.runs.create(f"{name}-{number}", agent=agent)
        agent.go.put_nowait(1)
        pairs.append((agent, Reading(watching, run)))
    for _, reading in pairs:
        await reading.reaches(2)
    return pairs


async def test_whether_notifications_arrive_is_found_out(
    url: str, new_postgres_ledger: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_notifications, "PROBE_S", 0.1)
    elsewhere = new_postgres_ledger()
    assert not await notifications_arrive(settings(database=url, database_direct=elsewhere))
    monkeypatch.setattr(postgres_notifications, "PROBE_S", PATIENCE_S)
    assert await notifications_arrive(settings(database=url))
    assert await notifications_arrive(settings(database=elsewhere, database_direct=elsewhere))


async def test_a_process_in_which_none_arrive_says_so_and_polls(
    url: str,
    new_postgres_ledger: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(following, "POLL_S", 0.02)
    monkeypatch.setattr(postgres_notifications, "PROBE_S", 0.1)
    agent = Talking()
    async with two_processes(url, database_direct=new_postgres_ledger()) as (here, there):
        assert "notifications.do_not_arrive" in caplog.text
        run = await here.runs.create("t", agent=agent)
        reading = Reading(there, run)
        await tell(agent, reading)
        await check_whole(agent, reading)
