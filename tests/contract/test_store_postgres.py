"""What only PostgreSQL can get wrong: lost connections and commits, locks, other loops, unfit text."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from ledger_kit import (
    A_WORKER,
    NOON,
    a_plan,
    a_run,
    a_target,
    admit,
    claim,
    ended,
    finish,
    held,
    ledger_connection,
    running,
)
from runlane.errors import ConflictError, ConnectionCut, InvalidRequest, LeaseLost, RowsLocked, StoreUnavailable
from runlane.journal.remainder import append
from runlane.journal.rows import CheckpointRows
from runlane.lifecycle import MultitaskStrategy, RunStatus
from runlane.maintenance.crons import CronScheduler
from runlane.records import ANY_OWNER, Admission, NewRun, StreamEvent
from runlane.store.backends import migrate_postgres
from runlane.store.drivers.postgres import MAX_GROUP_BYTES, PostgresDriver, open_postgres
from runlane.store.drivers.postgres_link import Times
from runlane.store.ledger import RunStore
from runlane.store.retry import PersistenceRetryPolicy
from runlane.store.retrying import RetryingDriver
from runlane.store.statements import Transaction, statement
from runlane.store.transactions.crons import Cron, Firing, fire_cron
from runlane.store.transactions.fence import HOLDS_LEASE
from runlane.store.transactions.runs import LOCK_THREAD

ONCE = PersistenceRetryPolicy(max_attempts=1)
EVENT = StreamEvent(seq=1, name="values", data=b"{}")
INSERT, COUNT = "INSERT INTO events VALUES (1, 1, 1, '')", "SELECT COUNT(*) AS n FROM events"
WAITING_FOR_LOCKS = (
    "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


@pytest.fixture
def url(postgres_url: str) -> str:
    migrate_postgres(postgres_url)
    return postgres_url


@pytest.fixture
async def driver(url: str) -> AsyncIterator[PostgresDriver]:
    driver = await open_postgres(url, max_connections=4)
    yield driver
    await driver.aclose()


@pytest.fixture
def store(driver: PostgresDriver) -> RunStore:
    return RunStore(driver, retry=ONCE)


def one(sql: str, **params: Any) -> Transaction[list[Any]]:
    rows = yield statement("one", sql)(**params)
    return [tuple(row.values()) for row in rows]


def heard(told: asyncio.Future[BaseException | None], _: Any, error: BaseException | None) -> None:
    told.set_result(error)


def disconnect(url: str, condition: str = "true") -> None:
    with ledger_connection(url, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"  # type: ignore[arg-type]  # our own text
            f" WHERE datname = current_database() AND pid <> pg_backend_pid() AND {condition}"
        )


def number(url: str, sql: str) -> int:
    with ledger_connection(url, autocommit=True) as other:
        found = other.execute(sql.encode()).fetchone()
        assert found is not None
        return int(found[0])


def writes(url: str) -> int:
    """Return how many transactions have written, over all connections."""
    return number(url, "SELECT SUM(last) FROM commits")


def runs_of(url: str, thread_id: str) -> int:
    return number(url, f"SELECT COUNT(*) FROM runs WHERE thread_id = '{thread_id}'")


async def until_waiting(url: str, count: int = 1) -> None:
    """Wait until *count* transactions wait for a lock."""

    def look() -> None:
        with ledger_connection(url, autocommit=True) as other:
            while (found := other.execute(WAITING_FOR_LOCKS).fetchone()) is None or found[0] < count:
                pass

    await asyncio.to_thread(look)


@contextmanager
def locked(url: str, sql: str, **params: Any) -> Iterator[psycopg.Connection]:
    """Hold the locks of a statement in another session."""
    with ledger_connection(url) as other:
        other.execute(sql.encode(), params)
        yield other
        other.rollback()


# Lost connections.


async def test_a_connection_that_was_lost_while_nobody_used_it_is_replaced_unnoticed(store: RunStore, url: str) -> None:
    run_id = await admit(store)
    disconnect(url)
    assert (await store.runs.get(run_id, owner=ANY_OWNER)).run_id == run_id
    disconnect(url)
    assert (await claim(store, run_id)).run.attempt == 1


async def test_a_connection_that_is_lost_in_a_transaction_is_an_outage_and_the_next_call_works(
    driver: PostgresDriver, url: str
) -> None:
    def interrupted() -> Transaction[None]:
        yield statement("insert", INSERT)()
        disconnect(url)
        yield statement("count", COUNT)()

    for call in (driver.write, driver.read):
        with pytest.raises(StoreUnavailable):
            await call(interrupted())
        assert await driver.read(one(COUNT)) == [(0,)]


async def test_the_retry_policy_bridges_lost_connections(driver: PostgresDriver, url: str) -> None:
    tries = []

    def cut_once() -> Transaction[None]:
        yield statement("insert", INSERT)()
        if not tries:
            tries.append(disconnect(url))
        yield statement("count", COUNT)()

    await RetryingDriver(driver, PersistenceRetryPolicy(initial_delay_s=0.001)).write(cut_once)
    assert await driver.read(one(COUNT)) == [(1,)]


async def test_what_is_cut_off_after_the_time_for_tries_is_tried_again(driver: PostgresDriver, url: str) -> None:
    tries: list[None] = []

    def cut_once() -> Transaction[list[Any]]:
        yield statement("wait", "SELECT pg_sleep(0.1)")()
        if not tries:
            tries.append(disconnect(url))
        return (yield from one("SELECT 1 AS n"))

    policy = PersistenceRetryPolicy(initial_delay_s=0.001, deadline_s=0.05)
    assert await RetryingDriver(driver, policy).read(cut_once) == [(1,)]


async def test_a_transaction_that_loses_its_connection_writes_nothing(driver: PostgresDriver, url: str) -> None:
    def suicidal() -> Transaction[None]:
        yield statement("insert", "INSERT INTO events VALUES (1, 1, 1, '')")()
        yield statement("die", "SELECT pg_terminate_backend(pg_backend_pid())")()

    with pytest.raises(StoreUnavailable):
        await driver.write(suicidal())
    assert await driver.read(one("SELECT COUNT(*) AS n FROM events")) == [(0,)]


async def test_queued_appends_that_lose_their_connection_are_told_so_and_the_next_one_gets_another(
    store: RunStore, url: str
) -> None:
    lease = await running(store)

    def cut() -> Transaction[None]:
        yield from append(lease, [EVENT])
        disconnect(url)
        yield statement("count", COUNT)()

    loop, told = asyncio.get_running_loop(), list[asyncio.Future[BaseException | None]]()
    for make in (partial(append, lease, [EVENT]), cut, partial(append, lease, [EVENT])):
        future: asyncio.Future[BaseException | None] = loop.create_future()
        told.append(future)
        store.driver.submit(make, loop, partial(heard, future))
    assert [type(error) for error in await asyncio.gather(*told)] == [ConnectionCut] * 3
    assert await store.events.read(lease.seq, after=0) == ()


async def test_an_outage_ends_when_the_database_is_back(driver: PostgresDriver, url: str, postgres_dsn: str) -> None:
    name = urlsplit(url).path[1:]
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await driver.read(one("SELECT 1 AS n"))
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
    assert await driver.read(one("SELECT 1 AS n")) == [(1,)]


async def test_a_database_that_cannot_be_reached_is_an_outage_that_says_why(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="does not exist"):
        await open_postgres(url.replace("/test_", "/missing_"))
    with pytest.raises(StoreUnavailable, match="No such file"):
        await open_postgres(f"postgresql://nobody@/none?host={tmp_path}")


@pytest.mark.parametrize("way", [open_postgres, partial(asyncio.to_thread, migrate_postgres)])
async def test_a_connection_that_fails_says_what_to_check_on_one_line(way: Any, url: str, tmp_path: Path) -> None:
    for wrong in (url.replace("/test_", "/missing_"), f"postgresql://nobody@/none?host={tmp_path}"):
        with pytest.raises(StoreUnavailable) as told:
            await way(wrong)
        said = str(told.value)
        assert said.endswith(
            " Check the address, that the server runs and takes writes, and that it lets this role in."
        )
        assert "try again" not in said
        assert not [wart for wart in ("\n", "\t", "?.", "..") if wart in said]
    assert "No such file or directory. Is the server running locally" in said


# Commits.


async def test_a_commit_that_died_before_it_was_made_is_an_outage(driver: PostgresDriver, url: str) -> None:
    with ledger_connection(url, autocommit=True) as other:
        other.execute("CREATE TABLE frail (n int)")
        other.execute(
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END$$"
        )
        other.execute(
            "CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON frail DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION die()"
        )
    with pytest.raises(StoreUnavailable):
        await driver.write(one("INSERT INTO frail VALUES (1) RETURNING n"))
    assert await driver.read(one("SELECT n FROM frail")) == []


# Locks.


async def test_a_slot_whose_process_dies_before_the_commit_is_fired_once_by_others(
    driver: PostgresDriver, store: RunStore, url: str
) -> None:
    cron = await store.crons.create("c", a_target(), a_plan(schedule="0 0 1 1 *", next_run_at=NOON))

    def dying() -> Transaction[None]:
        assert (yield from fire_cron(cron, Firing(slot=NOON, next_run_at=None, new=a_run("of-the-dead")))) is not None
        disconnect(url)
        yield statement("count", COUNT)()

    async def make_run(cron: Cron, slot: datetime) -> NewRun:
        return a_run(f"of-{slot:%Y}")

    with pytest.raises(StoreUnavailable):
        await driver.write(dying())
    others = [
        CronScheduler(
            store=store, make_run=make_run, admitted=lambda new, admission: None, closed=lambda: False, poll_s=1
        )
        for _ in range(2)
    ]
    await asyncio.gather(*(scheduler.fire_due() for scheduler in others))
    assert number(url, "SELECT COUNT(*) FROM runs") == 1
    assert number(url, "SELECT COUNT(*) FROM runs WHERE thread_id = 'of-the-dead'") == 0


async def impatient(url: str) -> PostgresDriver:
    return await open_postgres(url, max_connections=3, times=Times(lock_s=0.03))


async def test_waiting_too_long_for_a_lock_is_contention(store: RunStore, url: str) -> None:
    lease = await running(store)
    hasty = await impatient(url)
    with locked(url, "SELECT 1 FROM threads WHERE thread_id = 't' FOR UPDATE"), pytest.raises(RowsLocked):
        await finish(RunStore(hasty, retry=ONCE), lease)
    assert (await finish(RunStore(hasty, retry=ONCE), lease)).run.status is RunStatus.SUCCESS
    await hasty.aclose()


async def test_a_run_is_not_taken_from_an_attempt_in_the_middle_of_an_append(store: RunStore, url: str) -> None:
    lease = await running(store)
    seen = await held(store, lease.run_id)
    hasty = await impatient(url)
    rescuer = RunStore(hasty, retry=ONCE)
    with locked(url, HOLDS_LEASE.postgres, run_id=lease.run_id, attempt=1, running="running") as appending:
        assert await rescuer.attempts.rescue(seen, max_rescues=1) is None
        with pytest.raises(RowsLocked, match="lock timeout"):
            await finish(rescuer, lease)
        assert (await rescuer.attempts.renew([lease], worker=A_WORKER)).lost == ()
        appending.rollback()
        renewed = await held(store, lease.run_id)
        rescued = await rescuer.attempts.rescue(renewed, max_rescues=1)
        assert rescued is not None
        assert rescued.run.rescues == 1
    await hasty.aclose()


async def test_a_busy_thread_delays_no_other(store: RunStore, url: str) -> None:
    await running(store, "a")
    with locked(url, "SELECT 1 FROM threads WHERE thread_id = 'a' FOR UPDATE"):
        lease = await running(store, "b")
        assert (await finish(store, lease)).run.status is RunStatus.SUCCESS


async def test_a_deadlock_is_contention_for_one_and_nothing_to_the_other(url: str) -> None:
    with ledger_connection(url, autocommit=True) as other:
        other.execute(f'ALTER DATABASE "{urlsplit(url).path[1:]}" SET deadlock_timeout = 10'.encode())
    driver = await open_postgres(url)
    await driver.write(one("INSERT INTO events VALUES (1, 1, 1, ''), (2, 2, 2, ''), (3, 3, 3, '') RETURNING run_seq"))
    lock = statement("lock", "SELECT 1 AS n FROM events WHERE run_seq = :seq FOR UPDATE")
    gate = statement("gate", "SELECT 1 AS n FROM events WHERE run_seq = 3 FOR SHARE")

    def both(first: int, second: int) -> Transaction[None]:
        yield lock(seq=first)
        yield gate()
        yield lock(seq=second)

    with locked(url, "SELECT 1 FROM events WHERE run_seq = 3 FOR UPDATE"):
        tasks = [asyncio.create_task(driver.write(both(*order))) for order in ((1, 2), (2, 1))]
        await until_waiting(url, len(tasks))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["NoneType", "RowsLocked"]
    await driver.aclose()


async def test_waiting_too_long_for_a_connection_is_an_outage(url: str) -> None:
    driver = await open_postgres(url, max_connections=3, times=Times(queue_s=0.05))
    with locked(url, "SELECT 1 FROM runlane_version FOR UPDATE") as other:
        waiting = asyncio.create_task(driver.write(one("SELECT 1 FROM runlane_version FOR UPDATE")))
        await until_waiting(url)
        with pytest.raises(StoreUnavailable, match="busy for"):
            await driver.write(one("SELECT 1 AS n"))
        assert await driver.urgent.write(one("SELECT 1 AS n")) == [(1,)], "leases have a connection of their own"
        other.rollback()
        assert await waiting == [(1,)]
    assert await driver.write(one("SELECT 1 AS n")) == [(1,)]
    await driver.aclose()


async def test_a_burst_of_reads_keeps_no_write_waiting(driver: PostgresDriver, store: RunStore, url: str) -> None:
    with locked(url, "SELECT pg_advisory_xact_lock(1)"):
        reads = [asyncio.create_task(driver.read(one("SELECT pg_advisory_xact_lock(1)"))) for _ in range(20)]
        await until_waiting(url)
        assert (await store.runs.admit(a_run())).runnable
    await asyncio.gather(*reads)


async def test_a_busy_thread_takes_one_connection_and_keeps_its_order(store: RunStore, url: str) -> None:
    await ended(store, "a")
    with locked(url, "SELECT 1 FROM threads WHERE thread_id = 'a' FOR UPDATE"):
        waiting = [asyncio.create_task(store.runs.admit(a_run("a", run_id=f"a{n}"))) for n in range(20)]
        await until_waiting(url)
        assert (await store.runs.admit(a_run("b"))).runnable
        with ledger_connection(url) as other:
            assert other.execute(WAITING_FOR_LOCKS).fetchall() == [(1,)]
    admitted = await asyncio.gather(*waiting)
    assert [done.run.seq for done in admitted] == sorted(done.run.seq for done in admitted)


async def test_writes_that_wait_for_one_thread_share_a_commit_and_one_that_is_refused_fails_alone(
    store: RunStore, url: str
) -> None:
    await ended(store, "a")
    with locked(url, "SELECT 1 FROM threads WHERE thread_id = 'a' FOR UPDATE"):
        first = asyncio.create_task(store.runs.admit(a_run("a")))
        await until_waiting(url)
        before = writes(url)
        news = [a_run("a", **({"multitask_strategy": "reject"} if n % 10 == 5 else {})) for n in range(40)]
        waiting = [asyncio.create_task(store.runs.admit(new)) for new in news]
        await asyncio.sleep(0)  # they are queued behind it
    assert (await first).runnable
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert writes(url) - before < 25, "two share a commit at least, as many as a short time takes if it can be more"
    for new, answer in zip(news, answers, strict=True):
        if new.multitask_strategy is MultitaskStrategy.REJECT:
            assert isinstance(answer, ConflictError)
        else:
            assert isinstance(answer, Admission)
            assert answer.run.run_id == new.run_id
    assert runs_of(url, "a") == 1 + 1 + 36


async def test_writes_that_share_a_lost_transaction_are_each_tried_again_and_written_once(
    driver: PostgresDriver, url: str
) -> None:
    store, tries = RunStore(driver), list[int]()

    def cut_once() -> Transaction[None]:
        yield LOCK_THREAD(thread_id="a")
        tries.append(1)
        if len(tries) == 1:
            disconnect(url, "state = 'idle in transaction'")
        yield statement("count", COUNT)()

    await ended(store, "a")
    with locked(url, "SELECT 1 FROM threads WHERE thread_id = 'a' FOR UPDATE") as other:
        first = asyncio.create_task(store.runs.admit(a_run("a")))
        await until_waiting(url)
        news = [a_run("a") for _ in range(6)]
        calls = [partial(store.runs.admit, new) for new in news]
        calls.insert(3, partial(RetryingDriver(driver).write, cut_once))
        waiting = [asyncio.create_task(call()) for call in calls]
        await asyncio.sleep(0)  # they are queued behind it
        other.rollback()
    await asyncio.gather(first, *waiting)
    assert len(tries) == 2
    assert runs_of(url, "a") == 1 + 1 + 6


async def test_waiting_too_long_behind_writes_of_the_same_thread_is_contention(store: RunStore, url: str) -> None:
    await ended(store, "a")
    driver = await open_postgres(url, max_connections=4, times=Times(lane_s=0.05))
    hasty = RunStore(driver, retry=ONCE)
    with locked(url, "SELECT 1 FROM threads WHERE thread_id = 'a' FOR UPDATE"):
        first = asyncio.create_task(hasty.runs.admit(a_run("a")))
        await until_waiting(url)
        with pytest.raises(RowsLocked, match="went first"):
            await hasty.runs.admit(a_run("a"))
    assert (await first).run.thread_id == "a"
    await driver.aclose()


async def test_a_submission_that_waits_for_a_lock_delays_the_others_for_a_moment(store: RunStore, url: str) -> None:
    stuck, free = await running(store, "a"), await running(store, "b")
    loop, told = asyncio.get_running_loop(), list[asyncio.Future[BaseException | None]]()
    with locked(url, "SELECT 1 FROM runs WHERE run_id = %(run_id)s FOR UPDATE", run_id=stuck.run_id):
        for lease in (stuck, free):
            future: asyncio.Future[BaseException | None] = loop.create_future()
            told.append(future)
            store.driver.submit(partial(append, lease, [EVENT]), loop, partial(heard, future))
        errors = await asyncio.wait_for(asyncio.gather(*told), 2)
    assert [type(error) for error in errors] == [RowsLocked, type(None)]
    assert await store.events.read(free.seq, after=0) == (EVENT,)


async def submitted(
    store: RunStore, *makes: Callable[[], Transaction[None]], size: int = 0
) -> list[BaseException | None]:
    """Submit what *makes* return, so that it is committed together, and return what became of each."""
    loop, told = asyncio.get_running_loop(), list[asyncio.Future[BaseException | None]]()
    held, go_on = threading.Event(), threading.Event()

    def hold() -> Transaction[None]:
        yield statement("hold", "SELECT 1")()
        held.set()
        go_on.wait(30)

    for make in (hold, *makes):
        future: asyncio.Future[BaseException | None] = loop.create_future()
        told.append(future)
        store.driver.submit(make, loop, partial(heard, future), size=0 if make is hold else size)
    await asyncio.to_thread(held.wait, 30)
    go_on.set()
    return (await asyncio.gather(*told))[1:]


def transactions_of(url: str) -> int:
    """Return the number of the next transaction that writes; a savepoint in which something is written has one too."""
    with ledger_connection(url) as connection:
        row = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    assert row is not None
    return int(row[0])


async def test_what_many_runs_append_at_once_is_one_transaction(store: RunStore, url: str) -> None:
    leases = [await running(store, f"t{number}") for number in range(20)]
    before = transactions_of(url)
    assert await submitted(store, *(partial(append, lease, [EVENT]) for lease in leases)) == [None] * 20
    assert transactions_of(url) - before <= 3, "the one that held the others back, theirs, and the one that counts"
    for lease in leases:
        assert await store.events.read(lease.seq, after=0) == (EVENT,)


async def test_what_is_much_is_several_transactions(store: RunStore) -> None:
    transactions: list[str] = []

    def note() -> Transaction[None]:
        [row] = yield statement("xact", "SELECT pg_current_xact_id()::text AS id")()
        transactions.append(row["id"])

    assert await submitted(store, *[note] * 5, size=MAX_GROUP_BYTES // 2) == [None] * 5
    assert list(Counter(transactions).values()) == [2, 2, 1]


async def test_what_fails_together_fails_with_one_error(store: RunStore) -> None:
    def hang_up() -> Transaction[None]:
        yield statement("hang_up", "SELECT pg_terminate_backend(pg_backend_pid())")()

    def nothing() -> Transaction[None]:
        yield statement("nothing", "SELECT 1")()

    error, *others = await submitted(store, nothing, hang_up, nothing)
    assert isinstance(error, StoreUnavailable)
    assert all(other is error for other in others)


async def test_a_run_that_was_lost_and_one_that_is_locked_fail_alone(store: RunStore, url: str) -> None:
    lost, stuck, free = [await running(store, name) for name in "abc"]
    await finish(store, lost)
    with locked(url, "SELECT 1 FROM runs WHERE run_id = %(run_id)s FOR UPDATE", run_id=stuck.run_id):
        errors = await submitted(store, *(partial(append, lease, [EVENT]) for lease in (lost, stuck, free)))
    assert [type(error) for error in errors] == [LeaseLost, RowsLocked, type(None)]
    assert await store.events.read(free.seq, after=0) == (EVENT,)


async def test_what_cannot_be_written_fails_alone(store: RunStore, driver: PostgresDriver) -> None:
    one_run, unfit, other = [await running(store, name) for name in "abc"]
    row = {"thread_id": "b", "checkpoint_ns": "", "checkpoint_id": "1", "task_id": "\0", "task_path": "", "refs": None}
    rows = CheckpointRows(writes=[{**row, "run_id": unfit.run_id, "type": "msgpack", "writes": b""}])

    def fails_late() -> Transaction[None]:
        yield from append(unfit, [EVENT])
        raise ValueError("late")

    for make, error in ((partial(append, unfit, [EVENT], rows), InvalidRequest), (fails_late, ValueError)):
        errors = await submitted(store, partial(append, one_run, [EVENT]), make, partial(append, other, [EVENT]))
        assert [type(found) for found in errors] == [type(None), error, type(None)]
    assert [await store.events.read(lease.seq, after=0) for lease in (one_run, unfit, other)] == [
        (EVENT,),
        (),
        (EVENT,),
    ]


# Isolation.


async def test_a_read_sees_one_moment_and_cannot_write(driver: PostgresDriver, url: str) -> None:
    insert = b"INSERT INTO events VALUES (1, 1, 1, '')"

    def twice() -> Transaction[tuple[int, int]]:
        first = yield statement("count", "SELECT COUNT(*) AS n FROM events")()
        with ledger_connection(url) as other:
            other.execute(insert)
        second = yield statement("count", "SELECT COUNT(*) AS n FROM events")()
        return first[0]["n"], second[0]["n"]

    assert await driver.read(twice()) == (0, 0)
    with pytest.raises(StoreUnavailable, match="read-only"):
        await driver.read(one("DELETE FROM events RETURNING run_seq"))
    assert await driver.read(one("SELECT COUNT(*) AS n FROM events")) == [(1,)]


async def test_what_the_socket_has_no_room_for_is_sent_nevertheless(driver: PostgresDriver) -> None:
    rows = [{"thread_id": "t", "ref": str(at), "data": b"x" * 100_000} for at in range(100)]
    put = statement("test.put", "INSERT INTO parts (thread_id, ref, data) VALUES (:thread_id, :ref, :data)")
    size = statement("test.size", "SELECT sum(length(data)) AS bytes FROM parts")

    def write() -> Transaction[int]:
        yield put(thread_id="t", ref="first", data=b"x" * 10_000_000)
        yield put.many(rows)
        return int((yield size())[0]["bytes"])

    async with asyncio.timeout(20):
        assert await driver.write(write()) == 20_000_000


async def test_what_is_too_large_for_ever_is_no_outage(driver: PostgresDriver) -> None:
    too_large = (psycopg.errors.ProgramLimitExceeded, psycopg.errors.InternalError_)  # the latter in PostgreSQL 14
    with pytest.raises(too_large):
        await driver.write(one("SELECT repeat('x', 2000000000)"))


async def test_a_wrong_statement_is_raised_as_it_is_and_leaves_the_connection_usable(driver: PostgresDriver) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        await driver.write(one("SELECT 1 AS n FROM nowhere"))
    assert await driver.write(one("SELECT 1 AS n")) == [(1,)]


@pytest.mark.parametrize("unfit", ["a\0b", "\ud800"])
async def test_text_that_postgres_cannot_store_is_refused_by_the_name_of_its_parameter(
    driver: PostgresDriver, store: RunStore, unfit: str
) -> None:
    with pytest.raises(InvalidRequest, match="thread_id"):
        await admit(store, unfit)
    with pytest.raises(InvalidRequest, match="label"):
        await driver.read(one("SELECT CAST(:label AS TEXT) AS n", label=unfit))
    assert await driver.write(one("SELECT 1 AS n")) == [(1,)]


async def test_a_cancelled_caller_costs_no_connection(url: str) -> None:
    """What has begun is carried through, and the connection serves the next one; what has not is not done at all."""
    driver = await open_postgres(url, max_connections=3)
    pid = await driver.write(one("SELECT pg_backend_pid() AS pid"))

    def insert(seq: int) -> Transaction[None]:
        yield statement("insert", f"INSERT INTO events VALUES ({seq}, 1, 1, '')")()
        yield statement("wait", "SELECT 1 FROM runlane_version FOR UPDATE")()

    with locked(url, "SELECT 1 FROM runlane_version FOR UPDATE"):
        begun = asyncio.create_task(driver.write(insert(1)))
        await until_waiting(url)
        queued = asyncio.create_task(driver.write(insert(2)))
        await asyncio.sleep(0)
        for task in (begun, queued):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert await driver.write(one("SELECT pg_backend_pid() AS pid")) == pid
    assert await driver.read(one("SELECT run_seq FROM events")) == [(1,)]
    await driver.aclose()


# Loops, threads and the end.


async def test_a_driver_serves_other_loops_and_threads(driver: PostgresDriver) -> None:
    store = RunStore(driver, retry=ONCE)

    async def elsewhere() -> str:
        lease = await running(store, "there")
        loop = asyncio.get_running_loop()
        told: asyncio.Future[BaseException | None] = loop.create_future()
        store.driver.submit(partial(append, lease, [EVENT]), loop, lambda result, error: told.set_result(error))
        assert await told is None
        assert await store.events.read(lease.seq, after=0) == (EVENT,)
        return lease.run_id

    run_id, _ = await asyncio.gather(asyncio.to_thread(asyncio.run, elsewhere()), running(store, "here"))
    assert (await store.runs.get(run_id, owner=ANY_OWNER)).thread_id == "there"


async def test_closing_finishes_what_was_accepted_and_refuses_the_rest(url: str) -> None:
    driver = await open_postgres(url)
    store = RunStore(driver, retry=ONCE)
    lease = await running(store)
    loop, told = asyncio.get_running_loop(), list[BaseException | None]()
    for seq in range(1, 101):
        event = StreamEvent(seq=seq, name="values", data=b"{}")
        store.driver.submit(partial(append, lease, [event]), loop, lambda result, error: told.append(error))
    writing = asyncio.create_task(store.runs.admit(a_run("u")))
    await asyncio.sleep(0)
    await asyncio.gather(driver.aclose(), driver.aclose())
    await driver.aclose()
    assert (await writing).runnable
    assert told == [None] * 100
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.runs.get(lease.run_id, owner=ANY_OWNER)
    with pytest.raises(StoreUnavailable, match="closed"):
        store.driver.submit(partial(append, lease, [EVENT]), loop, lambda result, error: None)


def in_a_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_without_the_extra_the_error_says_what_to_install() -> None:
    code = """
import asyncio, sys
sys.modules["psycopg"] = None
from runlane.errors import ConfigurationError
from runlane.store.backends import migrate_postgres, open_postgres
for attempt in (lambda: asyncio.run(open_postgres("postgresql://")), lambda: migrate_postgres("postgresql://")):
    try:
        attempt()
    except ConfigurationError as error:
        print(error)
"""
    assert in_a_process(code).count("pip install 'runlane[postgres]'") == 2


def test_an_embedded_ledger_does_not_import_psycopg(sqlite_ledger: Path) -> None:
    code = f"""
import sys
from runlane.store import backends, ledger
from runlane.store.drivers import memory
from runlane.store.drivers import sqlite
from runlane.store.migrate import migrate_sqlite
print(migrate_sqlite({str(sqlite_ledger)!r}), "psycopg" in sys.modules)
"""
    assert in_a_process(code) == "False False"
