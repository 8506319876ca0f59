"""The one queue through which an attempt writes: events and checkpoints, in order and fenced."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from runlane.documents.document import Encoded
from runlane.errors import LeaseLost, RunlaneError
from runlane.journal.delays import Delays
from runlane.journal.flushes import Flushed, Flushes, Readers
from runlane.journal.loops import Waiters, call, call_later
from runlane.journal.pacing import Pace, gather_s
from runlane.journal.queue import Queue
from runlane.journal.remainder import Remainder, append
from runlane.journal.rows import CheckpointRows
from runlane.journal.staging import Stage
from runlane.records import Lease
from runlane.storable import storable
from runlane.store.retry import passes, pause_s
from runlane.store.statements import Driver, Transaction


class AttemptJournal:
    """Events and checkpoints of one attempt, in one order, which is the order on disk, while its lease holds.

    Safe from any thread and any event loop. One transaction is on its way at a time. One that the ledger could not take
    is sent again, as it is, for as long as an outage lasts. What the ledger refuses for good is dropped, and
    :attr:`failure` says why; events and checkpoints are then written apart, so that the one goes on without the other.

    It is open until :meth:`stage`, :meth:`close` or :meth:`lose`, and never again.
    """

    def __init__(
        self,
        driver: Driver,
        lease: Lease,
        *,
        events_end: int,
        control: asyncio.AbstractEventLoop,
        delays: Delays,
        readers: Readers,
        on_failure: Callable[[RunlaneError], None],
        on_flush: Callable[[Flushed], None] | None = None,
    ) -> None:
        """Begin.

        Args:
            events_end: The number of the last event of the attempts before.
            control: The loop on which *readers* are shown events, and *on_failure* is called.
            delays: Those of all journals of this process.
            on_failure: Told once, if the lease is lost or the ledger refuses events for good.
            on_flush: Told on *control* of each committed transaction.
        """
        self.lease = lease
        self._driver = driver
        self._control = control
        self._delays = delays
        self._readers = readers
        self._committed = Flushes(control, readers, on_flush)
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._queue = Queue(lease, events_end)
        self._waiters = Waiters(self._lock)
        self._pace = Pace()
        self._tries = 0
        self._stage: Stage | None = None
        self._staged: list[CheckpointRows] = []

    # Writing

    def append_event(self, name: str, encoded: Encoded) -> None:
        """Append an event, *encoded* as JSON text. It is dropped once the journal is closed, or events are refused."""
        with self._lock:
            appended = self._queue.append_event(storable(name), encoded)
            sent = appended and self._arrange(is_checkpoint=False)
        if sent:
            self._send()

    def append_checkpoint(self, rows: CheckpointRows) -> None:
        """Append rows of checkpoints. Reads of the attempt see them after :meth:`flush`.

        Raises:
            LeaseLost: The attempt does not own its run any more, or is over.
            StoreUnavailable: The ledger was closed before earlier rows were written.
        """
        with self._lock:
            self._queue.append_rows(rows)
            sent = self._arrange(is_checkpoint=True)
        if sent:
            self._send()

    async def flush(self) -> None:
        """Wait until everything appended so far is committed.

        Raises:
            LeaseLost: The attempt does not own its run any more, or is over before that.
            StoreUnavailable: The ledger was closed before.
        """
        queue = self._queue
        with self._lock:
            queue.check()
            barrier = queue.appended
            sent = self._take()
        if sent:
            self._send()
        await self._waiters.until(
            lambda: queue.settled >= barrier or queue.lost is not None or (queue.closed and queue.flying is None)
        )
        queue.check()
        if queue.settled < barrier:
            raise queue.over

    @property
    def congested(self) -> bool:
        """Return whether so much is uncommitted that whoever appends should await :meth:`room`."""
        return self._queue.congested

    async def room(self) -> None:
        """Wait until less is uncommitted, or nothing is taken any more."""
        queue = self._queue
        while queue.congested and not queue.closed:
            await self._waiters.until(lambda: queue.closed or not queue.congested)

    def touches(self, thread_id: str, checkpoint_ns: str) -> bool:
        """Return whether checkpoints of this thread and namespace are not committed yet.

        Raises:
            LeaseLost: The attempt does not own its run any more.
            StoreUnavailable: The ledger was closed before earlier rows were written.
        """
        with self._lock:
            self._queue.check()
            return any(batch.rows.touches(thread_id, checkpoint_ns) for batch in self._queue.batches)

    @property
    def waiting(self) -> bool:
        """Return whether a transaction is in flight."""
        return self._queue.flying is not None

    @property
    def lost(self) -> LeaseLost | None:
        """Set once the attempt does not own its run any more."""
        return self._queue.lost

    @property
    def failure(self) -> BaseException | None:
        """Why something of the attempt will never be written, if that is so."""
        return self._queue.lost or self._queue.events_refused or self._queue.rows_refused

    # Ending

    @asynccontextmanager
    async def stage(self) -> AsyncIterator[Stage]:
        """Close, and stage checkpoints on top of what is left, of which they are part once the block has succeeded.

        Nothing is left of them if the block fails, or if :meth:`close` is called before it has ended.

        Raises:
            LeaseLost: The attempt does not own its run any more.
        """
        await self._end()
        with self._lock:
            self._stage = stage = Stage(self._driver, (self._queue.open.rows, *self._staged))
        yield stage
        with self._lock:
            if self._stage is stage:
                self._stage = None
                self._staged.append(stage.rows)

    async def close(self) -> Remainder:
        """Take nothing more, wait for what is on its way, and return what is left. On the control loop.

        It is written by the transaction that ends the attempt, which saves a short run a commit of its own. Another
        call returns what is left then.

        Raises:
            LeaseLost: The attempt does not own its run any more.
        """
        await self._end()
        self._committed.receive()
        with self._lock:
            self._stage = None
            return self._queue.remainder(self._staged)

    def lose(self) -> None:
        """Send nothing more, since another attempt may have the run; what is on its way cannot be called back."""
        with self._lock:
            self._queue.drop(self._queue.over)
        self._waiters.wake()

    async def _end(self) -> None:
        queue = self._queue
        with self._lock:
            queue.closed = True
        self._waiters.wake()
        await self._waiters.until(lambda: queue.flying is None or queue.lost is not None)
        if queue.lost is not None:
            raise queue.lost

    # Committing

    def _arrange(self, *, is_checkpoint: bool) -> bool:
        """Have what is open committed in time; return whether the caller has to :meth:`_send` it. The lock is held."""
        pace, is_read = self._pace, not is_checkpoint and self._readers.present
        event_bytes, row_bytes = self._queue.open.event_bytes, self._queue.open.rows.size
        if self._queue.due or pace.covers(event_bytes=event_bytes, row_bytes=row_bytes, is_read=is_read):
            return False
        now = self._control.time()
        idle_s = pace.idle_s(now)
        wait_s = gather_s(
            event_bytes=event_bytes, row_bytes=row_bytes, is_checkpoint=is_checkpoint, is_read=is_read, idle_s=idle_s
        )
        if wait_s <= 0:
            return self._take()
        if pace.brings_forward(now + wait_s, is_read=is_read):
            call_later(wait_s, self._control, self._on_timer, now + wait_s)
        return False

    def _take(self) -> bool:
        """Take the next batch, if it can be sent now; the lock is held."""
        taken = self._queue.take()
        if taken:
            self._pace.sent(self._control.time())
        return taken

    def _on_timer(self, at: float) -> None:
        with self._lock:
            sent = self._pace.is_due(at) and self._take()
        if sent:
            self._send()

    def _send(self) -> None:
        self._committed.sending(again=self._tries > 0)
        try:
            self._driver.submit(self._write, None, self._on_answer, size=self._queue.flying_bytes)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is written, and those who wait must hear it
            self._on_answer(None, error)

    def _write(self) -> Transaction[None]:
        """Write what is on its way, and what was appended until this begins."""
        with self._lock:
            batch = self._queue.begin()
        yield from append(self.lease, batch.events, batch.rows, batch.documents)

    def _on_answer(self, _: Any, error: BaseException | None) -> None:
        """Hear, on the driver's thread, what became of what was sent."""
        if error is not None and passes(error) and self.lost is None and self._send_later(error):
            return
        self._tries = 0
        with self._lock:
            if error is not None:
                self._refuse(error)
            else:
                self._committed.add(self._queue.commit())
            sent = self._queue.due and self._take()
        self._waiters.wake()
        if sent:
            self._send()

    def _refuse(self, error: BaseException) -> None:
        known = self.lost is not None
        failure = self._queue.refuse(error)
        if failure is not None and not known:
            call(self._control, self._on_failure, failure)

    def _send_later(self, error: BaseException) -> bool:
        """Arrange another try, unless nobody is left to make it."""
        self._tries += 1
        if self._tries == 1:
            self._delays.note(self.lease.run_id, error)
        return call(self._control, self._control.call_later, pause_s(self._tries), self._send)
