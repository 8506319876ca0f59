"""PostgreSQL: a psycopg pool, one transaction per write, queued submissions committed in groups.

The connections are as LangGraph's PostgreSQL saver wants them (autocommit, rows as dictionaries), so that it can share
the pool; transactions are opened with explicit statements.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from runlane.errors import ConfigurationError, InvalidRequest, LedgerClosed, RowsLocked, StoreUnavailable
from runlane.store.drivers.delivery import Callback, Submission, SubmissionResult, deliver
from runlane.store.migrations import DEFAULT_SCHEMA
from runlane.store.statements import Query, Rows, T, Transaction
from runlane.work import own_task


class Connection(AsyncConnection[DictRow]):
    """A connection that knows with which incarnation of the server it was made."""

    #: Another one once the server has crashed, or another server has taken its place; ``None`` if it cannot be told.
    incarnation: str | None = None


Cursor = AsyncCursor[DictRow]
Pool = AsyncConnectionPool[Connection]

#: Submissions in one commit. They hold their rows' locks until the commit, so a group is smaller than on SQLite.
MAX_GROUP: Final = 64
#: Waiting longer than this for a connection or for a lock is an outage to the caller.
POOL_TIMEOUT_S: Final = 5.0
LOCK_TIMEOUT_S: Final = 5.0
#: For how long a process that stands still inside a transaction holds its lanes' locks. Less than half of what others
#: wait for a lock: they get it even if a second transaction of that process waited for the first, and has its own time.
IDLE_TRANSACTION_S: Final = 2.0
#: All statements of the ledger stay prepared on each connection.
MAX_PREPARED: Final = 500
#: How often the outcome of a commit whose answer was lost is asked for, and how long to wait in between.
OUTCOME_TRIES: Final = 5
OUTCOME_DELAY_S: Final = 0.2
#: The class of what PostgreSQL will never take; psycopg counts it among what passes. Source: PostgreSQL, appendix A.
TOO_LARGE: Final = "54"

# The transaction's number lets a commit whose answer was lost be looked up.
BEGIN_WRITE: Final = "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_current_xact_id()::text AS xid"
BEGIN_READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
COMMIT: Final = "COMMIT"
OUTCOME: Final = "SELECT pg_xact_status(%s::text::xid8) AS status"
# Statistics are reset after a crash, and kept by a clean restart.
CONFIGURE: Final = """
    SELECT set_config('lock_timeout', %s, false), set_config('idle_in_transaction_session_timeout', %s, false),
           set_config('search_path', quote_ident(%s), false),
           (SELECT stats_reset::text FROM pg_stat_bgwriter) AS incarnation
"""


class PostgresDriver:
    """A :class:`~runlane.store.statements.Driver` on one database, which other processes may use too.

    It belongs to the event loop on which it was opened; calls from other loops and threads are passed to that one.
    """

    def __init__(self, pool: Pool) -> None:
        """Take over *pool*, which is open; see :func:`open_postgres`."""
        self.pool = pool
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._closed = False
        self._queue: deque[Submission] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()

    async def write(self, transaction: Transaction[T]) -> T:
        return await self._at_home(self._write(transaction))

    async def read(self, transaction: Transaction[T]) -> T:
        return await self._at_home(self._read(transaction))

    def submit(self, transaction: Transaction[Any], loop: asyncio.AbstractEventLoop | None, callback: Callback) -> None:
        """Queue *transaction* from any thread; *callback* runs on *loop* once it is committed or has failed."""
        with self._lock:
            if self._closed:
                raise LedgerClosed
            self._queue.append(Submission(transaction, loop, callback))
            first = len(self._queue) == 1
        if first:
            self._loop.call_soon_threadsafe(self._start_sender)

    async def aclose(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        await self._pass_home(self._shut())

    async def _at_home(self, work: Coroutine[Any, Any, T]) -> T:
        if self._closed:
            work.close()
            raise LedgerClosed
        return await self._pass_home(self._counted(work))

    async def _counted(self, work: Coroutine[Any, Any, T]) -> T:
        self._inside += 1
        self._empty.clear()
        try:
            return await work
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    async def _pass_home(self, work: Coroutine[Any, Any, T]) -> T:
        if asyncio.get_running_loop() is self._loop:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _shut(self) -> None:
        while self._queue or (self._sender is not None and not self._sender.done()):
            self._start_sender()
            assert self._sender is not None
            await self._sender
        await self._empty.wait()
        await self.pool.close()

    async def _write(self, transaction: Transaction[T]) -> T:
        return await self._committed(lambda cursor: drive(cursor, transaction))

    async def _committed(self, work: Callable[[Cursor], Awaitable[T]]) -> T:
        """Do *work* in one transaction and commit it; a commit whose answer was lost is looked up."""
        async with self._connection() as connection:
            cursor = connection.cursor()
            async with _undone_by_errors(connection):
                await cursor.execute(BEGIN_WRITE, prepare=False)
                cursor.nextset()
                number = await cursor.fetchone()
                result = await work(cursor)
            try:
                await cursor.execute(COMMIT, prepare=False)
            except psycopg.OperationalError as error:
                lost = error
            else:
                return result
        assert number is not None
        await self._look_up(number["xid"], connection.incarnation, lost)
        return result

    async def _look_up(self, xid: str, incarnation: str | None, lost: psycopg.OperationalError) -> None:
        """Return if transaction *xid* was committed; raise if it was not, or if nobody can say.

        After a crash nobody can: the server gives the numbers of transactions out again that it had not written down.
        """
        for _ in range(OUTCOME_TRIES):
            try:
                async with self._connection() as connection:
                    if incarnation is None or connection.incarnation != incarnation:
                        break
                    cursor = await connection.execute(OUTCOME, (xid,))
                    row = await cursor.fetchone()
            except StoreUnavailable:
                row = None
            status = None if row is None else row["status"]
            if status == "committed":
                return
            if status == "aborted":
                break
            await asyncio.sleep(OUTCOME_DELAY_S)
        raise translate(lost) from lost

    async def _read(self, transaction: Transaction[T]) -> T:
        async with self._connection() as connection:
            cursor = connection.cursor()
            async with _undone_by_errors(connection):
                await cursor.execute(BEGIN_READ, prepare=False)
                result = await drive(cursor, transaction)
            await cursor.execute(COMMIT, prepare=False)
            return result

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            connection = await self.pool.getconn()
            try:
                yield connection
            finally:
                await self.pool.putconn(connection)
        except psycopg.Error as error:
            raise translate(error) from error

    def _start_sender(self) -> None:
        if self._sender is None or self._sender.done():
            self._sender = own_task(self._send(), name="runlane-submissions")

    async def _send(self) -> None:
        while self._queue:
            with self._lock:
                group = [self._queue.popleft() for _ in range(min(MAX_GROUP, len(self._queue)))]
            try:
                answers = await self._committed(partial(_run_group, group))
            except Exception as error:  # noqa: BLE001 - nothing of the group is written; its waiters hear why
                answers = [SubmissionResult(submission, None, error) for submission in group]
            deliver(answers)


async def open_postgres(url: str, *, schema: str = DEFAULT_SCHEMA, max_connections: int = 10) -> PostgresDriver:
    """Connect to the database at *url* and return its driver, for the running event loop.

    Args:
        schema: Where all tables are; nothing else of the database is seen.

    Raises:
        ConfigurationError: *url* is no address of a database.
        StoreUnavailable: The database cannot be reached.
    """
    try:
        async with await AsyncConnection.connect(url, connect_timeout=int(POOL_TIMEOUT_S)):
            pass  # the pool would only say that it waited; this says why
        pool: Pool = AsyncConnectionPool(
            url,
            connection_class=Connection,
            min_size=1,
            max_size=max_connections,
            open=False,
            timeout=POOL_TIMEOUT_S,
            reconnect_timeout=POOL_TIMEOUT_S,
            configure=partial(_configure, schema),
            kwargs={"autocommit": True, "row_factory": dict_row, "prepare_threshold": 0},
        )
        await pool.open(wait=True, timeout=POOL_TIMEOUT_S)
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"PostgreSQL says: {_first_line(error)}") from error
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"The database's address cannot be used: {_first_line(error)}") from error
    return PostgresDriver(pool)


async def drive(cursor: Cursor, transaction: Transaction[T]) -> T:
    """Run *transaction* with *cursor*, inside the transaction that is open there."""
    try:
        query = next(transaction)
        while True:
            try:
                rows = await _execute(cursor, query)
            except BaseException as error:  # noqa: BLE001 - the generator's own clean-up sees the driver's error
                query = transaction.throw(error)
            else:
                query = transaction.send(rows)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def _execute(cursor: Cursor, query: Query) -> Rows:
    text = query.statement.postgres.encode()
    try:
        if query.params is None:
            await cursor.executemany(text, query.many)
            return ()
        await cursor.execute(text, query.params)
    except (psycopg.DataError, UnicodeEncodeError) as error:
        unfit = [name for one in (query.params, *query.many) for name, value in (one or {}).items() if _is_unfit(value)]
        if unfit:
            raise InvalidRequest(
                f"{unfit[0]} holds a NUL or a lone surrogate, which PostgreSQL cannot store."
            ) from error
        raise
    return await cursor.fetchall() if cursor.description else ()


def _is_unfit(value: Any) -> bool:
    return isinstance(value, str) and ("\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value))


async def _run_group(group: list[Submission], cursor: Cursor) -> list[SubmissionResult]:
    """Run each submission in its own savepoint and return what became of each."""
    answers: list[SubmissionResult] = []
    for submission in group:
        await cursor.execute("SAVEPOINT one", prepare=False)
        try:
            result = await drive(cursor, submission.transaction)
        except Exception as error:  # noqa: BLE001 - each failure belongs to its own waiter; the group goes on
            await cursor.execute("ROLLBACK TO SAVEPOINT one", prepare=False)
            answers.append(SubmissionResult(submission, None, translate(error)))
        else:
            answers.append(SubmissionResult(submission, result, None))
        await cursor.execute("RELEASE SAVEPOINT one", prepare=False)
    return answers


@asynccontextmanager
async def _undone_by_errors(connection: Connection) -> AsyncIterator[None]:
    """Roll the open transaction back when the block fails or is cancelled."""
    try:
        yield
    except BaseException:
        if connection.pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            await connection.execute("ROLLBACK", prepare=False)
        raise


async def _configure(schema: str, connection: Connection) -> None:
    connection.prepared_max = MAX_PREPARED
    values = (f"{LOCK_TIMEOUT_S}s", f"{IDLE_TRANSACTION_S}s", schema)
    cursor = await connection.execute(CONFIGURE, values, prepare=False)
    row = await cursor.fetchone()
    connection.incarnation = None if row is None else row["incarnation"]


def translate(error: Exception) -> Exception:
    """Return what callers see: contention, or an outage such as a lost connection or a full server; or a defect."""
    outages = (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.TransactionTimeout)
    dropped = isinstance(error, psycopg.InterfaceError | psycopg.errors.IdleInTransactionSessionTimeout)
    if isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(TOO_LARGE):
        return error
    if dropped or isinstance(error, outages):
        contended = isinstance(error, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected)
        unavailable = (RowsLocked if contended else StoreUnavailable)(f"PostgreSQL says: {_first_line(error)}")
        unavailable.__cause__ = error
        return unavailable
    return error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
