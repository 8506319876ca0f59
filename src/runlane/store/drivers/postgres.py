"""PostgreSQL: a few connections, each with a thread, so that a busy event loop never keeps a transaction open.

One thread commits submissions in groups; one runs nothing but what keeps leases; the others take what is next, and with
a write those that wait behind it for the same thread's lock.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import psycopg

from runlane.errors import ConfigurationError, LedgerClosed, RowsLocked, StoreUnavailable
from runlane.store.drivers.delivery import Callback, Submission, deliver, resolve
from runlane.store.drivers.lanes import Job, Lanes, Server, lane_of
from runlane.store.drivers.postgres_errors import CHECK_ACCESS, one_line, outage
from runlane.store.drivers.postgres_link import Link, Times
from runlane.store.drivers.postgres_session import PostgresSession
from runlane.store.migrations import DEFAULT_SCHEMA
from runlane.store.statements import T, Transaction

#: Submissions in one commit, which is a few statements however many there are.
MAX_GROUP: Final = 500
#: What these write in one commit, but for the last one of them: each statement is in memory several times, here and in
#: the server.
MAX_GROUP_BYTES: Final = 8 * 2**20
#: After a commit of several, the next one waits for as long as that one took, and no longer than this: more are
#: committed together then, and what a busy process writes costs less.
LONGEST_REST_S: Final = 0.05
#: Writes of one lane in one commit, each of which has a savepoint. More than 64 subtransactions make each snapshot of
#: other sessions slower. Source: PostgreSQL, "Subtransactions".
MAX_LANE_GROUP: Final = 64
#: How long a write takes others of its lane along. The same thread's writes of another process wait so long: several
#: of them are committed well within ``Times.lock_s``.
LANE_GROUP_S: Final = 0.2
#: How long a submission waits for a lock while the rest of its group waits for it; who sent it sends it again.
GROUP_LOCK_S: Final = 0.1
#: One connection of so many takes no reads, which may be many and long.
WRITES_SHARE: Final = 4
MAX_CONNECTIONS: Final = 10
#: One for submissions, one for leases, and one for the rest.
MIN_CONNECTIONS: Final = 3

MakeSession = Callable[[Times], PostgresSession]


class PostgresDriver:
    """A :class:`~runlane.store.statements.Driver` on one database, which other processes may use too.

    Any thread and event loop may use it. A transaction that has begun is carried through, whatever becomes of its
    caller.

    Attributes:
        pooled: A pooler gives sessions for one transaction each.
        urgent: The same database for what keeps leases: it finds a connection however much else waits.
    """

    def __init__(
        self, session: MakeSession, times: Times, closing: threading.Event, *, connections: int, pooled: bool
    ) -> None:
        """Start the threads; see :func:`open_postgres`."""
        self.pooled = pooled
        self.urgent = Urgent(self)
        self._times = times
        self._closing = closing
        self._lock = threading.Lock()  # nothing is queued behind the mark that stops the sender
        self._closed = False
        self._queue: queue.SimpleQueue[Submission | None] = queue.SimpleQueue()
        usual = connections - 2  # beside those for submissions and for leases
        self._lanes = Lanes(max_reads=max(1, usual - max(1, usual // WRITES_SHARE)))
        self._sender = threading.Thread(
            target=self._send_forever,
            args=(session(replace(times, lock_s=GROUP_LOCK_S)),),
            name="runlane-submissions",
            daemon=True,
        )
        self._servers = [
            threading.Thread(
                target=self._serve,
                args=(session(times), Server(urgent_only=number == 0)),
                name=f"runlane-postgres-{number}",
                daemon=True,
            )
            for number in range(connections - 1)
        ]
        for thread in (self._sender, *self._servers):
            thread.start()

    async def write(self, transaction: Transaction[T], *, urgent: bool = False) -> T:
        """Run *transaction*, as :meth:`Driver.write <runlane.store.statements.Driver.write>` says."""
        return await self._run(transaction, writes=True, urgent=urgent)

    async def read(self, transaction: Transaction[T], *, urgent: bool = False) -> T:
        """Run *transaction*, as :meth:`Driver.read <runlane.store.statements.Driver.read>` says."""
        return await self._run(transaction, writes=False, urgent=urgent)

    def submit(
        self,
        make: Callable[[], Transaction[Any]],
        loop: asyncio.AbstractEventLoop | None,
        callback: Callback,
        *,
        size: int = 0,
    ) -> None:
        """Queue a transaction from any thread; *callback* runs on *loop* once it is committed or has failed."""
        with self._lock:
            if self._closed:
                raise LedgerClosed
            self._queue.put(Submission(make(), loop, callback, again=make, size=size))

    async def aclose(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._closing.set()
        self._lanes.close()
        await asyncio.get_running_loop().run_in_executor(None, self._join)

    def _join(self) -> None:
        for thread in (self._sender, *self._servers):
            thread.join()

    async def _run(self, transaction: Transaction[T], *, writes: bool, urgent: bool) -> T:
        try:
            first = next(transaction)
        except StopIteration as stop:
            done: T = stop.value
            return done
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        job = Job(
            submission=Submission(transaction, loop, partial(resolve, future), first),
            begins_with=first.statement,
            writes=writes,
            lane=lane_of(first) if writes and not urgent else None,
            urgent=urgent,
        )
        self._lanes.put(job)
        limit_s = self._times.lane_s if job.behind else self._times.queue_s
        late = loop.call_later(limit_s, self._too_late, job, future, limit_s)
        try:
            return await future
        finally:
            late.cancel()
            self._lanes.drop(job)

    def _too_late(self, job: Job, future: asyncio.Future[Any], limit_s: float) -> None:
        if self._lanes.drop(job) and not future.done():
            waited = f"for {limit_s:g} s"
            if job.behind:
                future.set_exception(RowsLocked(f"other writes of this process to the same thread went first {waited}"))
            else:
                future.set_exception(StoreUnavailable(f"all connections to PostgreSQL were busy {waited}"))

    def _serve(self, session: PostgresSession, server: Server) -> None:
        while (job := self._lanes.take(server)) is not None:
            if self._lanes.begin(job):
                if job.writes:
                    deliver(session.commit_group(job.submission, self._joining(job)))
                else:
                    answer = session.read(job.submission)
                    deliver([answer])
                    if answer.error is None:
                        session.end_read()
            self._lanes.done(job)
        session.close()

    def _joining(self, job: Job) -> Iterator[Submission]:
        """Yield what goes into the transaction of *job*, which has run; for a short time, and no more than a group."""
        until = time.monotonic() + LANE_GROUP_S
        for _ in range(1, MAX_LANE_GROUP):
            following = self._lanes.join(job) if time.monotonic() < until else None
            if following is None:
                return
            yield following.submission

    def _send_forever(self, session: PostgresSession) -> None:
        stopping = False
        while not stopping:
            group, stopping = self._next_group()
            began = time.monotonic()
            if group:
                deliver(session.commit_together(group))
            if len(group) > 1:
                self._closing.wait(min(LONGEST_REST_S, time.monotonic() - began))
        session.close()

    def _next_group(self) -> tuple[list[Submission], bool]:
        """Wait for submissions and return those to be committed together, and whether these are the last ones."""
        group: list[Submission] = []
        size = 0
        while (submission := self._queue.get()) is not None:
            group.append(submission)
            size += submission.size
            if len(group) == MAX_GROUP or size >= MAX_GROUP_BYTES or self._queue.empty():
                return group, False
        return group, True


class Urgent:
    """A :class:`PostgresDriver` for what may not wait for the rest."""

    def __init__(self, driver: PostgresDriver) -> None:
        self._driver = driver

    async def write(self, transaction: Transaction[T]) -> T:
        return await self._driver.write(transaction, urgent=True)

    async def read(self, transaction: Transaction[T]) -> T:
        return await self._driver.read(transaction, urgent=True)


async def open_postgres(
    url: str,
    *,
    schema: str = DEFAULT_SCHEMA,
    max_connections: int = MAX_CONNECTIONS,
    times: Times | None = None,
) -> PostgresDriver:
    """Connect to the database at *url* and return its driver.

    Args:
        schema: Where all tables are; nothing else of the database is seen.
        max_connections: How many connections this process has at most, from 3.

    Raises:
        ConfigurationError: *url* is no address of a database, *max_connections* is too small, or the server takes no
            transactions, as PgBouncer in statement mode.
        StoreUnavailable: The database cannot be reached.
    """
    if max_connections < MIN_CONNECTIONS:
        raise ConfigurationError(
            f"max_connections is {max_connections}, and PostgreSQL needs {MIN_CONNECTIONS}: for what attempts write, "
            "for leases, and for the rest."
        )
    times, closing = times or Times(), threading.Event()

    def make(own: Times) -> PostgresSession:
        return PostgresSession(Link(url, schema=schema, times=own), closing=closing)

    pooled = await asyncio.get_running_loop().run_in_executor(None, _try, make(times))
    return PostgresDriver(make, times, closing, connections=max_connections, pooled=pooled)


def _try(session: PostgresSession) -> bool:
    """Say what is wrong with a database that cannot be used, or return whether it is behind a pooler."""
    try:
        session.check()
        return session.pooled
    except psycopg.errors.ProtocolViolation as error:
        raise ConfigurationError(
            f"PostgreSQL cannot be used through this pooler, which says: {one_line(error)}. Let it pool transactions "
            "or sessions."
        ) from error
    except psycopg.OperationalError as error:
        raise outage(error, remedy=CHECK_ACCESS) from error
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"The database's address cannot be used: {one_line(error)}") from error
    finally:
        session.close()
