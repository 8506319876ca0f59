"""SQLite: one writer thread with group commit, separate read connections, one process per file."""

from __future__ import annotations

import asyncio
import fcntl
import os
import queue
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from runlane.errors import ConfigurationError, InvalidRequest, LedgerClosed, LedgerInUse, StoreUnavailable
from runlane.store.drivers.delivery import Callback, Submission, SubmissionResult, deliver, resolve
from runlane.store.filters import contains, matches
from runlane.store.statements import Query, Rows, T, Transaction, run

#: Transactions in one commit. Large enough to amortise an fsync, small enough that a waiter is not held back.
MAX_GROUP: Final = 256
READERS: Final = 4
#: Reads that a reader answers at once: telling a waiter costs more than a small read.
MAX_READS: Final = 8
BUSY_TIMEOUT_S: Final = 5.0
#: What a connection keeps prepared: every statement that there is, and room for as many.
CACHED_STATEMENTS: Final = 900
#: A log that one large transaction made longer is cut when it is begun again; small ones keep it at some 4 MB.
LOG_BYTES: Final = 16 * 2**20

#: A file that is damaged, or no database; extended codes begin with these.
DAMAGED: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
#: What passes, or what an operator can mend without losing anything.
OUTAGES: Final = (
    *DAMAGED,
    "SQLITE_BUSY",
    "SQLITE_CANTOPEN",
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_LOCKED",
    "SQLITE_NOMEM",
    "SQLITE_PROTOCOL",
    "SQLITE_READONLY",
)
#: What to do with a file that cannot be opened, or is damaged.
CHECK_FILE: Final = "Check the path, and that this user may read and write the file and its folder."
CHECK_DAMAGE: Final = "See what is damaged with `runlane doctor`, and restore the file from a backup."

Synchronous = Literal["full", "normal"]
Clock = Callable[[], int]


def now_us() -> int:
    """Return the wall clock in microseconds of UTC."""
    return time.time_ns() // 1000


class SqliteDriver:
    """A :class:`~runlane.store.statements.Driver` on one file, which this process owns until :meth:`aclose`."""

    def __init__(self, path: str | Path, *, clock: Clock = now_us, synchronous: Synchronous = "full") -> None:
        """Take the file's lock, open it and start the writer.

        A symbolic link is followed once: the files beside the database belong to its own name.

        Raises:
            LedgerInUse: Another process has the lock.
            StoreUnavailable: The file cannot be opened.
            ConfigurationError: The file has more than one name.
        """
        self.path = Path(os.path.realpath(path))
        self._clock = clock
        self._synchronous = synchronous
        _check_single_name(self.path)
        self._lock_fd = take_lock(self.path)
        try:
            make_private(self.path)
            self._writer = self._connect()
            self._writer.executescript("BEGIN IMMEDIATE; COMMIT")  # makes the log, where there is none
            self._place = _Place(self.path)
        except (sqlite3.Error, OSError) as error:
            os.close(self._lock_fd)
            raise unopened(self.path, error) from error
        self._queue: queue.SimpleQueue[Submission | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # nothing is queued behind the mark that stops the writer
        self._closed = False
        self._local = threading.local()
        self._read_connections: list[sqlite3.Connection] = []
        self._reads: queue.SimpleQueue[Submission | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._write_forever, name="runlane-write", daemon=True)]
        for number in range(READERS):
            name = f"runlane-read-{number}"
            self._threads.append(threading.Thread(target=self._read_forever, name=name, daemon=True))
        for thread in self._threads:
            thread.start()

    async def write(self, transaction: Transaction[T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put(self._queue, Submission(transaction, loop, partial(resolve, future)))
        return await future

    def submit(
        self,
        make: Callable[[], Transaction[Any]],
        loop: asyncio.AbstractEventLoop | None,
        callback: Callback,
        *,
        size: int = 0,
    ) -> None:
        """Queue a transaction from any thread; *callback* runs on *loop* once it is committed or has failed."""
        self._put(self._queue, Submission(make(), loop, callback))

    def _put(self, line: queue.SimpleQueue[Submission | None], submission: Submission) -> None:
        with self._lock:
            if self._closed:
                raise LedgerClosed
            line.put(submission)

    async def read(self, transaction: Transaction[T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put(self._reads, Submission(transaction, loop, partial(resolve, future)))
        return await future

    def read_now(self, transaction: Transaction[T], *, snapshot: bool = True) -> T:
        """Run a short read on the calling thread: for point reads, which cost less than handing them over.

        A transaction of one statement needs no *snapshot*, which costs as much as the statement.
        """
        if self._closed:
            raise LedgerClosed
        if snapshot:
            return read_on(self._reader(), transaction, self._clock)
        try:
            return execute(self._reader(), transaction, self._clock())
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    def execute_script(self, sql: str) -> None:
        """Run a migration script on the calling thread, before any transaction is submitted."""
        self._writer.executescript(sql)

    async def checkpoint(self) -> None:
        """Bring what is in the log into the database, as far as readers permit, without holding up anybody."""
        await asyncio.get_running_loop().run_in_executor(None, self._checkpoint)

    def _checkpoint(self) -> None:
        try:
            self._place.check()
            with closing(self._connect()) as connection:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    async def aclose(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
            for _ in range(READERS):
                self._reads.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._shut)

    def _shut(self) -> None:
        for thread in self._threads:
            thread.join()
        for connection in self._read_connections:
            connection.close()
        self._writer.close()
        os.close(self._lock_fd)

    def _connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=CACHED_STATEMENTS,
            timeout=BUSY_TIMEOUT_S,
        )
        try:
            configure(connection)
            make_shrinkable(connection)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA journal_size_limit={LOG_BYTES}")
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
            # What is deleted is overwritten with zeros: a run's secrets are, when it ends.
            connection.execute("PRAGMA secure_delete=ON")
            if read_only:
                connection.execute("PRAGMA query_only=ON")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _reader(self) -> sqlite3.Connection:
        """Return the calling thread's own connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            self._place.check()  # SQLite would make a file where there is none
            try:
                connection = self._local.connection = self._connect(read_only=True)
            except sqlite3.Error as error:
                raise translate(error, self.path) from error
            self._read_connections.append(connection)
        return connection

    def _read_forever(self) -> None:
        answers: list[SubmissionResult] = []
        submission = self._reads.get()
        while submission is not None:
            try:
                result = read_on(self._reader(), submission.transaction, self._clock)
            except Exception as error:  # noqa: BLE001 - it belongs to the waiter
                answers.append(SubmissionResult(submission, None, error))
            else:
                answers.append(SubmissionResult(submission, result, None))
            try:
                if len(answers) == MAX_READS:
                    raise queue.Empty
                submission = self._reads.get_nowait()
            except queue.Empty:
                deliver(answers)
                answers = []
                submission = self._reads.get()
        deliver(answers)

    def _write_forever(self) -> None:
        stopping = False
        while not stopping:
            group: list[Submission] = []
            submission = self._queue.get()
            while True:
                if submission is None:
                    stopping = True
                    break
                group.append(submission)
                if len(group) == MAX_GROUP:
                    break
                try:
                    submission = self._queue.get_nowait()
                except queue.Empty:
                    break
            if group:
                deliver(self._commit(group))

    def _commit(self, group: list[Submission]) -> list[SubmissionResult]:
        try:
            self._place.check()
        except StoreUnavailable as error:
            with suppress(sqlite3.Error):  # what is in a log that nobody will find must be in the database
                self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
            return [SubmissionResult(submission, None, error) for submission in group]
        return commit_group(self._writer, group, self._clock)


def commit_group(connection: sqlite3.Connection, group: list[Submission], clock: Clock) -> list[SubmissionResult]:
    """Run each transaction in its own savepoint, commit them together, and return what became of each.

    One that is alone needs no savepoint: each statement hands the interpreter over, and costs as much as a small write.
    """
    answers: list[SubmissionResult] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        if len(group) == 1:
            answers.append(SubmissionResult(group[0], execute(connection, group[0].transaction, clock()), None))
        else:
            answers.extend(_in_savepoint(connection, submission, clock) for submission in group)
        connection.execute("COMMIT")
    except Exception as error:  # noqa: BLE001 - nothing of the group is written; its waiters hear why
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        return [SubmissionResult(submission, None, translate(error, connection)) for submission in group]
    return answers


def _in_savepoint(connection: sqlite3.Connection, submission: Submission, clock: Clock) -> SubmissionResult:
    """Run one transaction of a group; an error undoes what it did, and its caller hears it."""
    connection.execute("SAVEPOINT one")
    try:
        answer = SubmissionResult(submission, execute(connection, submission.transaction, clock()), None)
    except Exception as error:
        if not connection.in_transaction:  # a full disk, say, has undone the whole group
            raise
        connection.execute("ROLLBACK TO one")
        answer = SubmissionResult(submission, None, translate(error, connection))
    connection.execute("RELEASE one")  # an open savepoint keeps a copy of every page that is changed after it
    return answer


def read_on(connection: sqlite3.Connection, transaction: Transaction[T], clock: Clock) -> T:
    """Run *transaction* on a snapshot of its own."""
    try:
        connection.execute("BEGIN")
        try:
            return execute(connection, transaction, clock())
        finally:
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise translate(error, connection) from error


def configure(connection: sqlite3.Connection) -> None:
    """Set what every connection needs: the functions that the statements use."""
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute("PRAGMA cache_size=-32000")
    connection.create_function("json_contains", 2, _JsonFilter(contains), deterministic=True)
    connection.create_function("json_matches", 2, _JsonFilter(_matches), deterministic=True)


def make_shrinkable(connection: sqlite3.Connection) -> None:
    """Let a database that is still empty give freed pages back; another one stays as it is until it is copied."""
    if connection.execute("PRAGMA page_count").fetchone() == (0,):  # elsewhere it would be a write at each opening
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")


def execute(connection: sqlite3.Connection, transaction: Transaction[T], now: int) -> T:
    """Drive *transaction* on *connection* at the instant *now*."""

    def one(query: Query) -> Rows:
        sql, params = query.statement.sqlite, query.params
        if params is None:
            connection.executemany(sql, query.many)
            return ()
        if not sql:  # there is one writer: nothing to lock
            return ()
        params["now"] = now
        try:
            cursor = connection.execute(sql, params)
            rows = cursor.fetchall()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"{error.object[:80]!r} is not valid Unicode text.") from error
        if not rows:
            return ()
        names = query.statement.columns  # sqlite3.Row looks for each name among all columns
        if not names:
            names[:] = [column[0] for column in cursor.description]
        return [dict(zip(names, row)) for row in rows]  # noqa: B905  # they are of one statement

    return run(transaction, one)


def translate(error: Exception, at: sqlite3.Connection | str | Path | None = None) -> Exception:
    """Return what callers see: contention, I/O and space errors are an outage; anything else is a defect.

    Args:
        at: The file that it is about, or a connection to it; named if it is damaged.
    """
    if isinstance(error, sqlite3.Error):
        if is_damage(error):
            return unopened(_file_of(at) if isinstance(at, sqlite3.Connection) else at, error)
        if _name_of(error).startswith(OUTAGES):
            unavailable = StoreUnavailable(f"SQLite says: {error}")
            unavailable.__cause__ = error
            return unavailable
    return error


def is_damage(error: BaseException | None) -> bool:
    """Return whether *error* is SQLite's of a file that is damaged, or no database."""
    return _name_of(error).startswith(DAMAGED)


def _name_of(error: BaseException | None) -> str:
    return getattr(error, "sqlite_errorname", None) or ""


def _file_of(connection: sqlite3.Connection) -> str | None:
    with suppress(sqlite3.Error):
        return str(connection.execute("PRAGMA database_list").fetchone()[2]) or None
    return None


def unopened(path: str | Path | None, error: sqlite3.Error | OSError) -> StoreUnavailable:
    """Return why the file at *path* cannot be used, and what to do: trying again would not help."""
    why, remedy = f"cannot open {path}: {error}", CHECK_FILE
    if is_damage(error):
        why, remedy = f"{path or 'the database'} cannot be read, SQLite says: {error}", CHECK_DAMAGE
    unavailable = StoreUnavailable(why, remedy=remedy)
    unavailable.__cause__ = error
    return unavailable


class _JsonFilter:
    """An SQL function that compares a JSON document with a JSON filter, which is parsed once for all rows."""

    def __init__(self, holds: Callable[[Any, Any], bool]) -> None:
        self._holds = holds
        self._text: str | None = None
        self._wanted: Any = None

    def __call__(self, document: str | None, wanted: str | None) -> bool:
        if wanted is None:  # SQLite may compute both sides of an OR
            return True
        if wanted != self._text:
            self._wanted = orjson.loads(wanted)
            self._text = wanted
        return document is not None and self._holds(orjson.loads(document), self._wanted)


def _matches(document: Any, where: Any) -> bool:
    return matches(where, document)


def log_bytes(path: Path) -> int:
    """Return the size of the log of the database at *path*."""
    try:
        return os.stat(f"{os.path.realpath(path)}-wal").st_size
    except FileNotFoundError:
        return 0


class _Place:
    """The files that were opened: the database and its log.

    SQLite goes on writing to those that were removed, and all of it would be lost.
    """

    def __init__(self, path: Path) -> None:
        database = os.path.abspath(path)
        self._files = {name: os.stat(name) for name in (database, f"{database}-wal")}

    def check(self) -> None:
        """Raise StoreUnavailable unless the paths still lead to the files that were opened."""
        for path, file in self._files.items():
            try:
                if os.path.samestat(os.stat(path), file):
                    continue
                what = "is another file than the one that was opened"
            except OSError as error:
                what = f"cannot be found ({error.strerror})"
            hint = "put that one back, or stop this process before you replace it"
            if path.endswith("-wal"):
                hint = "nothing is lost, but nothing more is accepted: put that one back, or restart this process"
            raise StoreUnavailable(f"{path} {what}; {hint}", remedy="Nothing was written.")


def _check_single_name(path: Path) -> None:
    """Refuse a file with hard links: the lock and the log belong to a name, so that each would have its own.

    Source: SQLite, "How To Corrupt An SQLite Database File", 2.5.
    """
    try:
        found = os.stat(path)
    except OSError:  # there is none, or it cannot be opened, which is said where that is tried
        return
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        raise ConfigurationError(
            f"The database {path} has {found.st_nlink} names (hard links), and might be in use under another one. "
            "Remove the others, or copy the file with: sqlite3 FILE \"VACUUM INTO 'COPY'\""
        )


def make_private(path: Path) -> None:
    """Make the file, if there is none, readable by its user only; SQLite's files beside it become like it."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def take_lock(path: Path) -> int:
    """Return the descriptor that holds the lock of the file at *path* until it is closed.

    Raises:
        LedgerInUse: Another process has the lock.
        StoreUnavailable: The file cannot be written, or its file system has no locks.
    """
    if path.exists() and not os.access(path, os.W_OK):  # SQLite would open it, and refuse the first write
        raise StoreUnavailable(f"cannot open {path}: it may only be read", remedy=CHECK_FILE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"cannot open {path}.lock: {error.strerror}", remedy=CHECK_FILE) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise LedgerInUse(str(path), int(pid) if pid.isdigit() else None) from error
    except OSError as error:  # a file system without locks
        os.close(fd)
        why = f"cannot lock {path}.lock: {error.strerror}"
        raise StoreUnavailable(
            why, remedy="Put the database on a file system with locks, such as a local one."
        ) from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd
