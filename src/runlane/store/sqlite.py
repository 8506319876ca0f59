"""SQLite: one writer thread with group commit, separate read connections, one process per file."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from runlane.errors import LedgerInUse, StoreUnavailable
from runlane.store.statements import Query, Rows, T, Transaction, run

#: Transactions in one commit. Large enough to amortise an fsync, small enough that a waiter is not held back.
MAX_GROUP: Final = 256
READERS: Final = 4
BUSY_TIMEOUT_S: Final = 5.0

Synchronous = Literal["full", "normal"]
Clock = Callable[[], int]
#: Called on the waiter's loop with the result, or with the error that rolled the transaction back.
Callback = Callable[[Any, BaseException | None], None]


def now_us() -> int:
    """Return the wall clock in microseconds of UTC."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class _Job:
    transaction: Transaction[Any]
    loop: asyncio.AbstractEventLoop
    callback: Callback


@dataclass(frozen=True, slots=True)
class _Outcome:
    job: _Job
    result: Any
    error: BaseException | None


class SqliteDriver:
    """A :class:`~runlane.store.statements.Driver` on one file, which this process owns until :meth:`aclose`."""

    def __init__(self, path: str | Path, *, clock: Clock = now_us, synchronous: Synchronous = "full") -> None:
        """Take the file's lock, open it and start the writer.

        Raises:
            LedgerInUse: Another process has the lock.
            StoreUnavailable: The file cannot be opened.
        """
        self.path = Path(path)
        self._clock = clock
        self._synchronous = synchronous
        self._lock_fd = _take_lock(self.path)
        try:
            self._writer = self._connect()
        except sqlite3.Error as error:
            os.close(self._lock_fd)
            raise StoreUnavailable(f"cannot open {self.path}: {error}") from error
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._local = threading.local()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="runlane-read")
        self._read_connections: list[sqlite3.Connection] = []
        self._thread = threading.Thread(target=self._write_forever, name="runlane-write", daemon=True)
        self._thread.start()
        self._closed = False

    async def write(self, transaction: Transaction[T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self.submit(transaction, loop, lambda result, error: _resolve(future, result, error))
        return await future

    def submit(self, transaction: Transaction[Any], loop: asyncio.AbstractEventLoop, callback: Callback) -> None:
        """Queue *transaction* from any thread; *callback* runs on *loop* once it is committed or has failed."""
        if self._closed:
            raise StoreUnavailable("it is closed")
        self._jobs.put(_Job(transaction, loop, callback))

    async def read(self, transaction: Transaction[T]) -> T:
        if self._closed:
            raise StoreUnavailable("it is closed")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, transaction)

    def execute_script(self, sql: str) -> None:
        """Run a migration script on the calling thread, before any transaction is submitted."""
        self._writer.executescript(sql)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._shut)

    def _shut(self) -> None:
        self._thread.join()
        self._readers.shutdown()
        for connection in self._read_connections:
            connection.close()
        self._writer.close()
        os.close(self._lock_fd)

    def _connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, cached_statements=256, timeout=BUSY_TIMEOUT_S
        )
        configure(connection)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        if read_only:
            connection.execute("PRAGMA query_only=ON")
        return connection

    def _read(self, transaction: Transaction[T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        try:
            if connection is None:
                connection = self._local.connection = self._connect(read_only=True)
                self._read_connections.append(connection)
            connection.execute("BEGIN")
            try:
                return execute(connection, transaction, self._clock())
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise translate(error) from error

    def _write_forever(self) -> None:
        stopping = False
        while not stopping:
            group: list[_Job] = []
            job = self._jobs.get()
            while True:
                if job is None:
                    stopping = True
                    break
                group.append(job)
                if len(group) == MAX_GROUP:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            if group:
                deliver(commit_group(self._writer, group, self._clock))


def commit_group(connection: sqlite3.Connection, group: list[_Job], clock: Clock) -> list[_Outcome]:
    """Run each transaction in its own savepoint, commit them together, and return what became of each."""
    outcomes: list[_Outcome] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        for job in group:
            connection.execute("SAVEPOINT one")
            try:
                result = execute(connection, job.transaction, clock())
            except Exception as error:  # each failure belongs to its own waiter; the group goes on
                connection.execute("ROLLBACK TO one")
                outcomes.append(_Outcome(job, None, translate(error) if isinstance(error, sqlite3.Error) else error))
            else:
                outcomes.append(_Outcome(job, result, None))
            connection.execute("RELEASE one")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        lost = translate(error)
        return [_Outcome(job, None, lost) for job in group]
    return outcomes


def deliver(outcomes: list[_Outcome]) -> None:
    """Tell the waiters, waking each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for outcome in outcomes:
        by_loop.setdefault(outcome.job.loop, []).append(outcome)
    for loop, mine in by_loop.items():
        try:
            loop.call_soon_threadsafe(_call_back, mine)
        except RuntimeError:  # the loop is closed: nobody waits any more, and the commit stands
            continue


def _call_back(outcomes: list[_Outcome]) -> None:
    for outcome in outcomes:
        outcome.job.callback(outcome.result, outcome.error)


def _resolve(future: asyncio.Future[T], result: T, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def configure(connection: sqlite3.Connection) -> None:
    """Set what every connection needs: rows by name and the functions that the statements use."""
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute("PRAGMA cache_size=-32000")
    connection.create_function("json_contains", 2, _json_contains, deterministic=True)


def execute(connection: sqlite3.Connection, transaction: Transaction[T], now: int) -> T:
    """Drive *transaction* on *connection* at the instant *now*."""

    def one(query: Query) -> Rows:
        if query.params is None:
            connection.executemany(query.statement.sqlite, query.many)
            return ()
        query.params["now"] = now
        return connection.execute(query.statement.sqlite, query.params).fetchall()  # type: ignore[return-value]

    return run(transaction, one)


def translate(error: sqlite3.Error) -> Exception:
    """Return what callers see: contention, I/O and space errors are an outage; anything else is a defect."""
    if isinstance(error, sqlite3.OperationalError | sqlite3.DatabaseError):
        name = getattr(error, "sqlite_errorname", "") or ""
        outages = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")
        if name.startswith(outages) or name in ("SQLITE_CORRUPT", "SQLITE_NOTADB"):
            return StoreUnavailable(f"SQLite says: {error}")
    return error


def _json_contains(document: str | None, wanted: str) -> bool:
    return document is not None and contains(json.loads(document), json.loads(wanted))


def contains(document: Any, wanted: Any) -> bool:
    """Say whether *document* contains *wanted* as PostgreSQL's ``jsonb @>`` does."""
    if isinstance(wanted, dict):
        return isinstance(document, dict) and all(k in document and contains(document[k], v) for k, v in wanted.items())
    if isinstance(wanted, list):
        return isinstance(document, list) and all(any(contains(d, w) for d in document) for w in wanted)
    if isinstance(wanted, bool) or isinstance(document, bool):
        return document is wanted
    return bool(document == wanted)


def _take_lock(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"cannot open {path}.lock: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        pid = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise LedgerInUse(str(path), int(pid) if pid.isdigit() else None) from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd
