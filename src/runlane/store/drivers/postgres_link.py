"""A connection to PostgreSQL, made again when it is lost. Blocks: it belongs to one thread.

What needs no answer (``BEGIN``, savepoints) is sent along with the next statement, in one round trip.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import waiting
from psycopg.conninfo import make_conninfo
from psycopg.generators import send
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow, dict_row

from runlane.errors import InvalidRequest
from runlane.store.drivers.postgres_address import parts_of
from runlane.store.statements import Query, Statement, T, statement

#: All statements of the ledger stay prepared on each connection.
MAX_PREPARED: Final = 700
#: How often it is looked whether an answer is late.
LOOK_S: Final = 1.0
_PID: Final = "SELECT pg_backend_pid() AS pid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long a connection waits for what, in seconds.

    Attributes:
        connect_s: For a new connection.
        queue_s: For one that others use.
        lane_s: Behind writes of this process to the same thread, which is merely busy. As long as requests take that
            wait for something.
        lock_s: For a lock. More than twice *idle_s*, so that the lock of a process that stands still is had even if a
            second transaction of that process waited for the first, and has its own time.
        idle_s: For a client that does nothing inside its transaction.
        send_s: For a client that does not receive what it asked for.
        statement_s: For a statement; 0 is without end.
    """

    connect_s: float = 5.0
    queue_s: float = 5.0
    lane_s: float = 30.0
    lock_s: float = 3.0
    idle_s: float = 0.8
    send_s: float = 2.0
    statement_s: float = 60.0

    @property
    def answer_s(self) -> float | None:
        """Return how long to wait for the server's answer to one statement; ``None``: without end."""
        return self.statement_s + self.lock_s + self.connect_s if self.statement_s else None

    def settings(self, schema: str, version: int) -> dict[str, str]:
        """Return what is set for each transaction on a server of *version*, such as 170002."""
        statement = f"{self.statement_s * 1000:.0f}"
        settings = {
            "lock_timeout": f"{self.lock_s * 1000:.0f}",
            "idle_in_transaction_session_timeout": f"{self.idle_s * 1000:.0f}",
            "statement_timeout": statement,
            "tcp_user_timeout": f"{self.send_s * 1000:.0f}",
            # Estimates of what a claim reads are high, and compiling it takes a hundred times as long as it does.
            "jit": "off",
            "search_path": '"{}"'.format(schema.replace('"', '""')),
        }
        return {**settings, "transaction_timeout": statement} if version >= 170000 else settings


def address(url: str, times: Times) -> str:
    """Return *url* with what Runlane wants of a connection, where it says nothing else.

    Raises:
        ConfigurationError: *url* is no address of a database.
    """
    wanted: dict[str, Any] = {
        "connect_timeout": max(2, int(times.connect_s)),
        "fallback_application_name": "runlane",
        # A server that was demoted takes connections, and no writes.
        "target_session_attrs": "read-write",
        # So that a cut network is noticed, which sends nothing.
        "keepalives_idle": 3,
        "keepalives_interval": 1,
        "keepalives_count": 3,
        "tcp_user_timeout": int(times.connect_s * 1000),
    }
    return make_conninfo("", **{**wanted, **parts_of(url)})


Cursor = psycopg.Cursor[DictRow]


class _Pipeline(psycopg.Pipeline):
    """A pipeline that sends nothing behind its last message, Sync.

    psycopg sends a Flush there, which is needed for nothing. The server takes it for the next command, and counts no
    idle time from there on: a process that stands still then holds its locks without limit.
    """

    def _exit_gen(self) -> Generator[Any, Any, None]:
        try:
            self._enqueue_sync()
            yield from self._communicate_gen()
        finally:
            yield from send(self.pgconn)  # what the socket had no room for
            yield from self._fetch_gen(flush=False)


class Connection(psycopg.Connection[DictRow]):
    """A connection that does not wait for an answer without end."""

    answer_s: float | None = None

    @contextmanager
    def pipeline(self) -> Iterator[psycopg.Pipeline]:
        """Send what is executed in the block at once; ``executemany`` without it makes a pipeline of psycopg's."""
        pipeline = self._pipeline = _Pipeline(self)
        try:
            with pipeline:
                yield pipeline
        finally:
            self._pipeline = None

    def wait(self, gen: Any, interval: float = LOOK_S, timeout: float | None = None) -> Any:
        return waiting.wait(_until(gen, self.answer_s), self.pgconn.socket, interval=interval)


def _until(gen: Generator[Any, Any, T], answer_s: float | None) -> Generator[Any, Any, T]:
    """Do as *gen* does, which is told when nothing was ready, until *answer_s* are over."""
    if answer_s is None:
        return (yield from gen)
    late = time.monotonic() + answer_s
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > late:
                raise psycopg.OperationalError(f"no answer in {answer_s:.0f} s")
            wanted = gen.send(ready)
    except StopIteration as stop:
        result: T = stop.value
        return result


class Link:
    """One connection at a time, to one database.

    Attributes:
        times: How long it waits for what.
        settings: What each transaction has to set; nothing, unless a pooler is between here and the server, so that a
            session lasts for one transaction.
        is_fresh: Nothing was sent yet, so that the connection cannot have been lost unnoticed.
    """

    def __init__(self, url: str, *, schema: str, times: Times) -> None:
        """Connect with the first use."""
        self.times = times
        self.settings: Sequence[Query] = ()
        self.is_fresh = True
        self._url = url
        self._schema = schema
        self._connection: Connection | None = None

    @property
    def closed(self) -> bool:
        return self._connection is None or self._connection.closed

    @property
    def cut(self) -> bool:
        """Return whether there was a connection, which is lost."""
        return self._connection is not None and self._connection.closed

    @property
    def status(self) -> TransactionStatus:
        if self._connection is None:
            return TransactionStatus.UNKNOWN
        return TransactionStatus(self._connection.pgconn.transaction_status)

    @property
    def lost(self) -> bool:
        """Return whether nobody knows what the server does: it died, or its answer is late."""
        return self.closed or self.status in (TransactionStatus.UNKNOWN, TransactionStatus.ACTIVE)

    def connect(self) -> Connection:
        """Return the connection, made if there is none."""
        if self._connection is None or self._connection.closed:
            self._connection = self._connected()
            self.is_fresh = True
        return self._connection

    def discard(self) -> None:
        """Close the connection; the next use makes another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def send(self, query: Query, *, after: Sequence[Query] = (), prepare: bool | None = None) -> Cursor:
        """Send *query* together with what is to be done before it, and wait for its answer."""
        connection = self.connect()
        self.is_fresh = False
        if not after and query.params is not None:
            return _send(connection, query, prepare=prepare)
        with connection.pipeline():
            for one in after:
                _send(connection, one)
            return _send(connection, query, prepare=prepare)

    def _connected(self) -> Connection:
        connection = Connection.connect(
            address(self._url, self.times), autocommit=True, row_factory=dict_row, prepare_threshold=0
        )
        try:
            connection.answer_s = self.times.connect_s  # a pooler takes connections for which it has no server
            row = connection.execute(_PID, prepare=False).fetchone()
            settings = self.times.settings(self._schema, connection.info.server_version)
            # A pooler makes the numbers up by which it is asked to cancel.
            if row is None or row["pid"] != connection.info.backend_pid:
                connection.prepare_threshold = None
                self.settings = (_set(settings, local=True),)
            else:
                connection.prepared_max = MAX_PREPARED
                _send(connection, _set(settings, local=False))
                self.settings = ()
            connection.answer_s = self.times.answer_s
        except BaseException:
            connection.close()
            raise
        return connection


def _send(connection: Connection, query: Query, *, prepare: bool | None = None) -> Cursor:
    cursor, text = connection.cursor(), query.statement.postgres.encode()
    try:
        if query.params is None:
            cursor.executemany(text, query.many)
        else:
            cursor.execute(text, query.params or None, prepare=prepare)
    except (psycopg.DataError, UnicodeEncodeError) as error:
        unfit = _unfit(query)
        if unfit is None:
            raise
        raise InvalidRequest(f"{unfit} holds a NUL or a lone surrogate, which PostgreSQL cannot store.") from error
    return cursor


def plain(sql: str) -> Query:
    return Query(Statement(sql, "", sql), {})


def _set(settings: dict[str, str], *, local: bool) -> Query:
    """Return the statement that makes *settings*, until the transaction ends if they are *local*."""
    calls = ", ".join(f"set_config('{name}', :{name}, {local})" for name in settings)
    return statement("settings", "", postgres=f"SELECT {calls}")(**settings)


def _unfit(query: Query) -> str | None:
    """Return the name of a parameter that PostgreSQL cannot store."""
    for params in (query.params, *query.many):
        for name, value in (params or {}).items():
            if isinstance(value, str) and ("\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value)):
                return name
    return None
