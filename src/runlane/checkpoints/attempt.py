"""What one attempt has yet to write: gathered for a moment, then written in order, in few transactions."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.checkpoint.serde.types import ERROR

from runlane.errors import LeaseLost, StoreUnavailable
from runlane.journal.rows import CheckpointRows as Batch
from runlane.journal.rows import put
from runlane.records import Lease
from runlane.store.retry import passes, pause_s
from runlane.store.statements import Driver, Transaction
from runlane.store.transactions.fence import fenced

log = logging.getLogger("runlane.checkpoints")

#: How long rows may wait for others before they are submitted: a crash repeats the steps of this time at most. A
#: superstep of a fast graph takes about a millisecond, and a commit with its fsync half of one, beside the threads that
#: it wakes; so most short runs need only the commit that ends them.
LINGER_S: Final = 0.02
#: Bytes in memory above which whoever writes waits for the disk.
MAX_PENDING_BYTES: Final = 16 * 1024 * 1024


class _WriterThread:
    """Stands where a driver expects a loop: calls back at once, on the driver's own thread, and wakes nobody."""

    __slots__ = ()

    def call_soon_threadsafe(self, callback: Any, *args: Any) -> None:
        callback(*args)


#: Takes a function and says whether it will call it later, once what comes before the checkpoints is committed.
Ahead = Callable[[Callable[[], None]], bool]

#: LangGraph's mark of a failed task whose error handler goes on.
_HANDLED: Final = "__error_source_node__"
_WRITER_THREAD: Final = cast(asyncio.AbstractEventLoop, _WriterThread())


def kept_of_task(writes: Sequence[tuple[str, Any]]) -> Sequence[tuple[str, Any]]:
    """Return what is stored of a task: of one that failed or was cancelled, not what it had written until then.

    LangGraph takes a task that has written something for finished: it would show half of a node's work as done, and
    a continued run would go on without the other half, such as the edges that lead to the next node. Where an error
    handler goes on after the failure, everything is kept.
    """
    channels = {channel for channel, _ in writes}
    if ERROR not in channels or _HANDLED in channels:
        return writes
    return [(channel, value) for channel, value in writes if channel in WRITES_IDX_MAP]


class AttemptWriter:
    """Writes the checkpoints of one attempt in order, each transaction only while the attempt's lease holds.

    *ahead* lets the run's events go first: a step whose checkpoint is committed is not executed again after a crash, so
    what it told its readers must not be lost. One transaction is on its way at a time; one that the ledger could not
    take is tried again, for as long as an outage lasts. Any other failure is final: nothing is written after it, and
    every later call raises it. Safe from any thread.
    """

    def __init__(self, driver: Driver, lease: Lease, ahead: Ahead | None = None) -> None:
        self.lease = lease
        self._ahead = ahead
        self._driver = driver
        self._lock = threading.Lock()
        self._open = Batch()  # not yet taken by a transaction
        self._flying: Batch | None = None  # taken by the transaction that is on its way
        self._late = False  # what is open was to be submitted while that transaction was on its way
        self._tries = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sealed = False
        self._failure: BaseException | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def add(self, batch: Batch) -> bool:
        """Take the rows of *batch* over; return whether the caller must :meth:`flush` before it goes on.

        Raises:
            LeaseLost: The attempt does not own its run any more, or is over.
            StoreUnavailable: The ledger was closed before earlier rows were written.
        """
        with self._lock:
            self._check()
            if self._sealed:
                raise LeaseLost(self.lease.run_id, self.lease.attempt)
            self._open.extend(batch)
            return self._open.size + (self._flying.size if self._flying else 0) > MAX_PENDING_BYTES

    def touches(self, thread_id: str, checkpoint_ns: str) -> bool:
        """Return whether something of this thread and namespace is not committed yet.

        Raises:
            LeaseLost: The attempt does not own its run any more.
            StoreUnavailable: The ledger was closed before earlier rows were written.
        """
        with self._lock:
            self._check()
            return any(batch.touches(thread_id, checkpoint_ns) for batch in (self._open, self._flying) if batch)

    def submit_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Submit what was added within :data:`LINGER_S`; call it on *loop*'s thread."""
        self._loop = loop
        if self._timer is None:
            self._timer = loop.call_later(LINGER_S, self._submit_now)

    def submit(self) -> None:
        """Submit what was added, without waiting for it.

        Raises:
            LedgerClosed: There is nothing to write to any more.
        """
        with self._lock:
            self._late = self._flying is not None
            if self._late or self._failure is not None or not self._open:
                return
            # What is added from now on has events of its own to wait for.
            self._flying, self._open = self._open, Batch()
        if self._ahead is None or not self._ahead(self._send_quietly):
            self._send()

    def _submit_late(self) -> None:
        try:
            self.submit()
        except StoreUnavailable:  # it is remembered, and raised by the next write
            return

    def _send_quietly(self) -> None:
        try:
            self._send()
        except StoreUnavailable:  # it is remembered, and raised by the next write
            return

    def _send(self) -> None:
        try:
            self._driver.submit(self._transaction(), _WRITER_THREAD, self._settled)
        except Exception as error:  # whatever it is, the rows are not written, and nothing may be written after them
            self._over(error)
            raise

    async def flush(self) -> None:
        """Wait until everything that was added is committed.

        Raises:
            LeaseLost: The attempt does not own its run any more.
            StoreUnavailable: The ledger was closed before they were.
        """
        self._loop = asyncio.get_running_loop()
        self.submit()
        await self._landed()

    async def seal(self) -> Transaction[None]:
        """End the attempt's writing; return a transaction that writes what was not submitted yet.

        It is made to be part of the transaction that finishes the run (whose guard is the fence), and may be asked for
        again if that one was not committed. From now on :meth:`add` refuses.

        Raises:
            LeaseLost: The attempt does not own its run any more.
            StoreUnavailable: The ledger was closed before earlier rows were written.
        """
        self._sealed = True
        await self._landed()
        return self.remaining()

    def remaining(self) -> Transaction[None]:
        """Return the transaction that writes what was left when the writing was sealed."""
        return put(self._open)

    def reopen(self) -> None:
        """Take writes again; what was left when the writing was sealed comes first. A lost lease stays lost."""
        self._sealed = False

    @property
    def waiting(self) -> bool:
        """Whether a transaction is on its way."""
        return self._flying is not None

    async def _landed(self) -> None:
        """Wait until no transaction is on its way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with self._lock:
            self._check()
            if self._flying is None:
                return
            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters.append((loop, waiter))
        await waiter
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _submit_now(self) -> None:
        self._timer = None
        self.submit()

    def _transaction(self) -> Transaction[None]:
        assert self._flying is not None
        yield from fenced(self.lease, put(self._flying))

    def _settled(self, _result: None, error: BaseException | None) -> None:
        if error is not None and passes(error) and self._send_later(error):
            return
        self._over(error)

    def _send_later(self, error: BaseException) -> bool:
        """Arrange another try, unless nobody is left to make it."""
        if self._loop is None:
            return False
        self._tries += 1
        if self._tries == 1:
            log.warning("checkpoints.delayed run_id=%s why=%s", self.lease.run_id, error)
        try:
            self._loop.call_soon_threadsafe(self._loop.call_later, pause_s(self._tries), self._send_quietly)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def _over(self, error: BaseException | None) -> None:
        """Take note that what was on its way is committed, or will never be."""
        with self._lock:
            self._flying, self._tries = None, 0
            if error is not None:
                self._failure, self._open = self._failure or error, Batch()
            late = self._late and self._failure is None
        if late:
            self._submit_late()
        with self._lock:
            if self._flying is not None:
                return
            waiters, self._waiters = self._waiters, []
        for loop, waiter in waiters:
            try:
                loop.call_soon_threadsafe(_wake, waiter)
            except RuntimeError:  # the loop is closed: nobody waits any more
                continue


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
