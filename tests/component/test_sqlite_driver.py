"""The SQLite driver on a real file: group commit, one owner, and what survives faults."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runlane.errors import InvalidRequest, LedgerInUse, NotFound, StoreUnavailable
from runlane.records import ANY_OWNER
from runlane.store.drivers.sqlite import MAX_GROUP, SqliteDriver
from runlane.store.ledger import RunStore
from runlane.store.migrate import migrate_sqlite
from runlane.store.retry import PersistenceRetryPolicy
from runlane.store.statements import Statement, Transaction, statement

ADD = statement("add", "INSERT INTO notes (note) VALUES (:note) RETURNING id")
PLAIN = statement("plain", "INSERT INTO notes (note) VALUES (:note)")
FORGET = statement("forget", "DELETE FROM notes WHERE note LIKE :pattern")
ALL = statement("all", "SELECT note FROM notes ORDER BY id")
NOW = statement("now", "SELECT {now} AS us")
WRONG = statement("wrong", "INSERT INTO nowhere VALUES (1)")
LATE = statement("late", "INSERT INTO children (parent) VALUES (99)")

# Writes a note, says that it is committed, and holds the file until it is killed.
HOLDER = """
import asyncio, sys
from runlane.store.drivers.sqlite import SqliteDriver
from runlane.store.statements import statement

def add():
    yield statement("add", "INSERT INTO notes (note) VALUES ('theirs')")()

async def hold():
    driver = SqliteDriver(sys.argv[1])
    await driver.write(add())
    print("committed", flush=True)
    await asyncio.Event().wait()

asyncio.run(hold())
"""


def add(*notes: str) -> Transaction[int]:
    made = 0
    for note in notes:
        rows = yield ADD(note=note)
        made = rows[0]["id"]
    return made


def add_then_fail(note: str) -> Transaction[None]:
    yield ADD(note=note)
    raise NotFound("note", note)


def every() -> Transaction[list[str]]:
    rows = yield ALL()
    return [row["note"] for row in rows]


def on_disk(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [note for (note,) in connection.execute("SELECT note FROM notes ORDER BY id")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, note TEXT NOT NULL)")
        connection.execute("CREATE TABLE children (parent REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED)")
    return path


@pytest.fixture
async def driver(path: Path) -> AsyncIterator[SqliteDriver]:
    driver = SqliteDriver(path)
    yield driver
    await driver.aclose()


@contextmanager
def stalled(driver: SqliteDriver) -> Iterator[None]:
    """Hold the writer inside a transaction, so that what is submitted meanwhile becomes one group."""
    held, go_on = threading.Event(), threading.Event()

    def hold() -> Transaction[None]:
        held.set()
        go_on.wait()
        return
        yield

    driver.submit(hold, asyncio.get_running_loop(), lambda result, error: None)
    held.wait()
    try:
        yield
    finally:
        go_on.set()


def submitted(driver: SqliteDriver, transaction: Transaction[Any]) -> asyncio.Future[Any]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    driver.submit(
        lambda: transaction,
        loop,
        lambda result, error: future.set_exception(error) if error else future.set_result(result),
    )
    return future


# Group commit.


async def test_a_failing_transaction_takes_only_its_own_writes_back(driver: SqliteDriver, path: Path) -> None:
    with stalled(driver):
        waiting = [submitted(driver, one) for one in (add("a"), add_then_fail("b"), add("c", "d"))]
    first, failed, last = await asyncio.gather(*waiting, return_exceptions=True)
    assert (first, last) == (1, 3)
    assert isinstance(failed, NotFound)
    assert on_disk(path) == ["a", "c", "d"]


async def test_a_wrong_statement_is_raised_as_it_is_and_harms_nobody_else(driver: SqliteDriver, path: Path) -> None:
    def wrong() -> Transaction[None]:
        yield ADD(note="x")
        yield WRONG()

    with stalled(driver):
        waiting = [submitted(driver, one) for one in (wrong(), add("a"))]
    failed, _ = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(failed, sqlite3.OperationalError)
    assert on_disk(path) == ["a"]


async def test_the_order_of_submission_is_kept_and_answered(driver: SqliteDriver, path: Path) -> None:
    count, answered = MAX_GROUP + 50, list[int]()
    done = asyncio.Event()

    def answer(made: int) -> None:
        answered.append(made)
        if made == count:
            done.set()

    for number in range(count):
        driver.submit(partial(add, str(number)), asyncio.get_running_loop(), lambda made, error: answer(made))
    await done.wait()
    assert answered == list(range(1, count + 1))
    assert on_disk(path) == [str(number) for number in range(count)]


async def test_what_a_write_returned_is_on_disk(driver: SqliteDriver, path: Path) -> None:
    for number in range(3):
        await driver.write(add(str(number)))
        assert on_disk(path)[-1] == str(number)


async def test_a_commit_that_fails_is_told_to_everybody_in_its_group(driver: SqliteDriver, path: Path) -> None:
    def orphan() -> Transaction[None]:
        yield LATE()  # is refused only by the commit

    driver.execute_script("PRAGMA foreign_keys=ON")
    with stalled(driver):
        waiting = [submitted(driver, one) for one in (add("a"), orphan(), add("b"))]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [sqlite3.IntegrityError] * 3
    assert on_disk(path) == []
    await driver.write(add("c"))
    assert on_disk(path) == ["c"]


async def test_a_callback_that_fails_does_not_leave_others_waiting(driver: SqliteDriver) -> None:
    loop, reported = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: reported.append(context))

    def fail(result: object, error: BaseException | None) -> None:
        raise ValueError("mine")

    with stalled(driver):
        driver.submit(partial(add, "a"), loop, fail)
        waiting = submitted(driver, add("b"))
    assert await waiting == 2
    assert [str(context["exception"]) for context in reported] == ["mine"]


# Callers that go away.


async def test_a_cancelled_caller_leaves_the_writer_and_its_neighbours_whole(driver: SqliteDriver, path: Path) -> None:
    with stalled(driver):
        gone = asyncio.create_task(driver.write(add("gone")))
        stays = asyncio.create_task(driver.write(add("stays")))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
    assert await stays == 2
    assert on_disk(path) == ["gone", "stays"]


async def test_a_closed_loop_does_not_stop_the_writer(driver: SqliteDriver, path: Path) -> None:
    other = asyncio.new_event_loop()
    with stalled(driver):
        driver.submit(partial(add, "theirs"), other, lambda result, error: None)
        other.close()
        mine = submitted(driver, add("mine"))
    assert await mine == 2
    assert on_disk(path) == ["theirs", "mine"]


async def test_each_loop_gets_its_own_answers(driver: SqliteDriver) -> None:
    def elsewhere() -> int:
        return asyncio.run(driver.write(add("theirs")))

    theirs, mine = await asyncio.gather(asyncio.to_thread(elsewhere), driver.write(add("mine")))
    assert {theirs, mine} == {1, 2}


def damage(path: Path) -> None:
    """Overwrite all pages but the first."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))


async def test_a_damaged_file_is_named_with_what_to_do(driver: SqliteDriver, path: Path) -> None:
    await driver.write(add("a"))
    await driver.aclose()
    damage(path)
    damaged = SqliteDriver(path)
    told = []
    for use in (lambda: damaged.write(add("b")), lambda: damaged.read(every())):
        with pytest.raises(StoreUnavailable) as refused:
            await use()
        told.append(str(refused.value))
    assert told == 2 * [
        f"The ledger is unavailable: {path} cannot be read, SQLite says: database disk image is malformed. See what is "
        "damaged with `runlane doctor`, and restore the file from a backup."
    ]
    await damaged.aclose()


# Reading.


async def test_a_read_sees_what_was_committed_before_it_and_cannot_write(driver: SqliteDriver, path: Path) -> None:
    await driver.write(add("a"))
    assert await driver.read(every()) == ["a"]
    with pytest.raises(StoreUnavailable):
        await driver.read(add("b"))
    assert on_disk(path) == ["a"]


async def test_a_read_on_the_callers_own_thread_sees_what_was_committed(driver: SqliteDriver, path: Path) -> None:
    await driver.write(add("a"))
    assert driver.read_now(every()) == await asyncio.to_thread(driver.read_now, every()) == ["a"]
    with pytest.raises(StoreUnavailable):
        driver.read_now(add("b"))
    assert on_disk(path) == ["a"]


async def test_every_one_of_many_reads_is_answered_and_a_failing_one_is_told_alone(driver: SqliteDriver) -> None:
    def number(n: int) -> Transaction[int]:
        yield ALL()
        if n % 10 == 7:
            raise NotFound("number", str(n))
        return n

    for _ in range(20):
        answers = await asyncio.gather(*(driver.read(number(n)) for n in range(50)), return_exceptions=True)
        failed = [n for n, answer in enumerate(answers) if isinstance(answer, NotFound)]
        assert failed == [7, 17, 27, 37, 47]
        assert [answer for answer in answers if isinstance(answer, int)] == [n for n in range(50) if n % 10 != 7]


async def test_a_slow_read_does_not_hold_up_others(driver: SqliteDriver) -> None:
    began, go_on = threading.Event(), threading.Event()

    def slow() -> Transaction[str]:
        began.set()
        go_on.wait()
        yield ALL()
        return "slow"

    reading = asyncio.create_task(driver.read(slow()))
    await asyncio.to_thread(began.wait)
    for _ in range(50):
        assert await driver.read(every()) == []
    go_on.set()
    assert await reading == "slow"


async def test_a_read_sees_one_moment(driver: SqliteDriver) -> None:
    await driver.write(add("a"))
    began, go_on = threading.Event(), threading.Event()

    def twice() -> Transaction[tuple[int, int]]:
        first = yield ALL()
        began.set()
        go_on.wait()
        second = yield ALL()
        return len(first), len(second)

    reading = asyncio.create_task(driver.read(twice()))
    await asyncio.to_thread(began.wait)
    await driver.write(add("b"))
    go_on.set()
    assert await reading == (1, 1)


async def test_readers_are_not_held_up_by_the_writer(driver: SqliteDriver) -> None:
    await driver.write(add("a"))
    with stalled(driver):
        assert await driver.read(every()) == ["a"]


async def test_time_comes_from_the_injected_clock(path: Path) -> None:
    def now() -> Transaction[int]:
        rows = yield NOW()
        return int(rows[0]["us"])

    driver = SqliteDriver(path, clock=lambda: 42)
    assert (await driver.write(now()), await driver.read(now())) == (42, 42)
    await driver.aclose()


async def test_text_that_is_not_unicode_is_refused(driver: SqliteDriver, path: Path) -> None:
    with pytest.raises(InvalidRequest):
        await driver.write(add("\ud800"))
    assert on_disk(path) == []


# One owner.


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "committed\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_process_is_told_who_owns_the_file(path: Path) -> None:
    with holder(path) as process, pytest.raises(LedgerInUse) as refused:
        SqliteDriver(path)
    assert refused.value.pid == process.pid
    assert f"(pid {process.pid})" in str(refused.value)
    assert str(refused.value).endswith("Stop that process, or name another file.")


async def test_a_killed_process_leaves_the_lock_free_and_what_it_committed(path: Path) -> None:
    with holder(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    driver = SqliteDriver(path)
    assert await driver.read(every()) == ["theirs"]
    assert await driver.write(add("mine")) == 2
    await driver.aclose()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_closed_driver_frees_the_file_and_refuses_everything(path: Path) -> None:
    driver = SqliteDriver(path)
    await driver.write(add("a"))
    await driver.aclose()
    await driver.aclose()
    for refused in (driver.write(add("b")), driver.read(every())):
        with pytest.raises(StoreUnavailable, match="closed"):
            await refused
    with pytest.raises(StoreUnavailable, match="closed"):
        driver.read_now(every())
    with pytest.raises(StoreUnavailable, match="closed"):
        driver.submit(partial(add, "c"), asyncio.get_running_loop(), lambda result, error: None)
    again = SqliteDriver(path)
    assert await again.read(every()) == ["a"]
    await again.aclose()


async def test_closing_finishes_what_was_accepted(path: Path) -> None:
    driver = SqliteDriver(path)
    with stalled(driver):
        waiting = [submitted(driver, add(str(number))) for number in range(10)]
        closing_driver = asyncio.create_task(driver.aclose())
        await asyncio.sleep(0)
    await closing_driver
    assert await asyncio.gather(*waiting) == list(range(1, 11))
    assert on_disk(path) == [str(number) for number in range(10)]


# Faults of the file.


@pytest.mark.parametrize("big", [ADD, PLAIN], ids=["undoes the statement", "undoes the whole group"])
async def test_a_full_disk_is_an_outage_that_loses_nothing(driver: SqliteDriver, path: Path, big: Statement) -> None:
    def add_big() -> Transaction[None]:
        yield big(note="x" * 100_000)

    await driver.write(add("before"))
    pages = pages_of(path)
    driver.execute_script(f"PRAGMA max_page_count={pages + 2}")
    with stalled(driver):
        waiting = [submitted(driver, one) for one in (add("small"), add_big(), add("after"))]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    kept = [note for note, result in zip(("small", "x", "after"), results, strict=True) if isinstance(result, int)]
    assert kept == (["small", "after"] if big is ADD else [])
    assert [type(result) for result in results if not isinstance(result, int)] == [StoreUnavailable] * (3 - len(kept))
    assert on_disk(path) == ["before", *kept]
    driver.execute_script("PRAGMA max_page_count=1000000")
    await driver.write(add("y" * 100_000))
    assert len(on_disk(path)) == 2 + len(kept)


def size_of(path: str) -> int:
    return Path(path).stat().st_size


def pages_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA page_count").fetchone()[0])


async def test_a_commit_that_cannot_be_written_is_an_outage_and_the_next_one_works(
    driver: SqliteDriver, path: Path
) -> None:
    await driver.write(add("before"))
    wal_bytes = size_of(f"{path}-wal")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with stalled(driver):
        waiting = [submitted(driver, add(note)) for note in ("a" * 3000, "b" * 3000)]
        # Python ignores SIGXFSZ, so that a write beyond the limit is an error, as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (wal_bytes, hard))
    try:
        results = await asyncio.gather(*waiting, return_exceptions=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [type(result) for result in results] == [StoreUnavailable] * 2
    assert on_disk(path) == ["before"]
    await driver.write(add("after"))
    assert on_disk(path) == ["before", "after"]


async def test_a_health_check_notices_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    driver = SqliteDriver(path, synchronous="normal")
    migrate_sqlite(path)
    store = RunStore(driver, retry=PersistenceRetryPolicy(max_attempts=1))
    await store.probe()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_of(f"{path}-wal"), hard))
    try:
        assert await store.runs.list(None, owner=ANY_OWNER) == ()
        with pytest.raises(StoreUnavailable):
            await store.probe()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for _ in range(3):
        await store.probe()
    await driver.aclose()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM probes").fetchone() == (1,)


async def test_a_file_that_cannot_be_written_is_an_outage(driver: SqliteDriver, path: Path) -> None:
    await driver.write(add("a"))
    driver.execute_script("PRAGMA query_only=ON")
    with pytest.raises(StoreUnavailable):
        await driver.write(add("b"))
    assert await driver.read(every()) == ["a"]


def test_a_place_that_cannot_be_opened_is_an_outage(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot open"):
        SqliteDriver(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot open"):
        SqliteDriver(tmp_path / "file" / "ledger.db")


def test_a_file_that_is_no_database_is_refused_left_alone_and_unlocked(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes, " * 1000)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="not a database"):
            SqliteDriver(path)
    assert path.read_text() == "my notes, " * 1000


async def test_a_file_locked_by_another_program_is_an_outage_until_it_lets_go(path: Path, driver: SqliteDriver) -> None:
    driver.execute_script("PRAGMA busy_timeout=10")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await driver.write(add("a"))
        other.execute("ROLLBACK")
    await driver.write(add("b"))
    assert on_disk(path) == ["b"]


async def test_what_was_deleted_is_not_left_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "notes.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, note TEXT)")
    driver = SqliteDriver(str(file))
    await driver.write(add("secret-on-a-page", "stays", "secret-on-pages " * 5000))
    assert b"secret-on" in all_bytes(tmp_path)
    await driver.write(forget("secret%"))
    await driver.aclose()
    assert b"stays" in all_bytes(tmp_path)
    assert b"secret-on" not in all_bytes(tmp_path)


async def test_a_new_file_is_its_users_alone(tmp_path: Path) -> None:
    shared = tmp_path / "shared.db"
    shared.touch(0o640)
    for file, mode in ((tmp_path / "new.db", "600"), (shared, f"{shared.stat().st_mode & 0o777:o}")):
        driver = SqliteDriver(file)
        driver.execute_script("CREATE TABLE notes (id INTEGER PRIMARY KEY, note TEXT)")
        found = modes(file)
        await driver.aclose()
        assert found == {"": mode, "-wal": mode, "-shm": mode, ".lock": "600"}


def modes(file: Path) -> dict[str, str]:
    """Return the permissions of a database's files, by the ends of their names."""
    files = file.parent.glob(f"{file.name}*")
    return {one.name.removeprefix(file.name): f"{one.stat().st_mode & 0o777:o}" for one in files}


def all_bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


def forget(pattern: str) -> Transaction[None]:
    yield FORGET(pattern=pattern)
