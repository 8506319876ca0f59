"""One attempt's events on their way to the log: numbered, gathered into batches, committed, then shown."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Final

from runlane.errors import RunlaneError, StoreUnavailable
from runlane.records import Claim, StreamEvent
from runlane.storable import storable
from runlane.store.ledger import RunStore
from runlane.store.retry import passes, patiently, pause_s

log = logging.getLogger("runlane.streams")

#: A commit carries what gathered in this time. Shorter costs a commit per token, longer is seen by a reader.
FLUSH_INTERVAL_S: Final = 0.005
#: The same while nobody reads: most short runs then end with a single commit, and a crash loses no more of a stream
#: than of the run, whose checkpoints wait for their events.
UNREAD_INTERVAL_S: Final = 0.05
#: A batch this large is not kept waiting.
FLUSH_BYTES: Final = 256 * 1024
#: An agent with more than this uncommitted is asked to wait.
MAX_BUFFERED_BYTES: Final = 8 * 1024 * 1024
#: How many events of earlier attempts are read at most: far more than one superstep streams.
EARLIER_EVENTS: Final = 20_000


class Publisher:
    """Publishes events of one attempt. :meth:`emit` is for the agent's loop, everything else for the control loop.

    At most one batch is being committed at a time, so that order and numbering need no more than a counter. A batch
    that is not committed is tried again, for as long as an outage lasts: an agent that goes on meanwhile is held back
    by :meth:`ready`. While *read* says that somebody reads the stream, the first event after a pause is committed at
    once; otherwise it waits for others. A lost lease is told to *on_failure* once, and from then on events are dropped.
    """

    def __init__(
        self,
        store: RunStore,
        claim: Claim,
        *,
        control: asyncio.AbstractEventLoop,
        show: Callable[[list[StreamEvent]], None],
        read: Callable[[], bool],
        on_failure: Callable[[RunlaneError], None],
    ) -> None:
        self._store, self._lease, self._control = store, claim.lease, control
        self._show, self._read, self._on_failure = show, read, on_failure
        self._lock = threading.Lock()
        self._buffer: list[StreamEvent] = []
        self._buffered = 0
        self._in_flight: list[StreamEvent] = []
        self._timer = False
        self._followers: list[tuple[int, Callable[[], None]]] = []
        self._tries = 0
        self._last_flush = float("-inf")
        self._seq = claim.events_end
        self._run_seq, self._earlier_end = claim.run.seq, claim.events_end
        self._closed = False
        self._closing: asyncio.Future[None] | None = None
        self._space: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self.failure: RunlaneError | None = None

    @property
    def last_seq(self) -> int | None:
        """The number of the newest event; after a failure the ledger alone knows what it has."""
        return self._seq if self.failure is None else None

    @property
    def congested(self) -> bool:
        """Whether so much is uncommitted that the agent should await :meth:`ready`."""
        return self._buffered > MAX_BUFFERED_BYTES

    def emit(self, name: str, data: bytes) -> None:
        """Publish one event; *data* is JSON text."""
        with self._lock:
            if self._closed or self.failure is not None:
                return
            self._seq += 1
            self._buffer.append(StreamEvent(seq=self._seq, name=storable(name), data=data))
            self._buffered += len(data)
            if self._in_flight or (self._timer and self._buffered < FLUSH_BYTES):
                return
            wait_s = self._wait_s()
            if wait_s <= 0 or self._buffered >= FLUSH_BYTES:
                self._submit()
                return
            self._timer = True
        asyncio.get_running_loop().call_later(wait_s, self._on_timer)

    def _wait_s(self) -> float:
        """Return how long the next batch may gather; 0 or less: it is due. Nobody waits for one that nobody reads."""
        return self._last_flush + FLUSH_INTERVAL_S - self._control.time() if self._read() else UNREAD_INTERVAL_S

    async def ready(self) -> None:
        """Wait, on the agent's loop, until less is uncommitted."""
        while self.congested:
            with self._lock:
                if not self.congested:
                    return
                if self._space is None:
                    self._space = (asyncio.get_running_loop(), asyncio.Event())
                space = self._space[1]
            await space.wait()

    async def earlier(self) -> list[StreamEvent]:
        """Return, on the agent's loop, the newest events of the attempts before this one, oldest first."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._read_earlier(), self._control))

    async def _read_earlier(self) -> list[StreamEvent]:
        found: list[StreamEvent] = []
        cursor = max(0, self._earlier_end - EARLIER_EVENTS)
        while cursor < self._earlier_end:
            page = await patiently(partial(self._store.events.read, self._run_seq, after=cursor))
            if not page:
                break
            found.extend(event for event in page if event.seq <= self._earlier_end)
            cursor = page[-1].seq
        return found

    async def close(self) -> tuple[StreamEvent, ...]:
        """Take nothing more, wait until nothing is on its way, and return what is left to commit.

        That is made part of the transaction that ends the attempt, which saves a short run a commit of its own, and is
        told to :meth:`landed` then; until then a second call returns the same. Abandoned code may go on
        emitting: its events would come after the end, and are dropped.

        Raises:
            RunlaneError: Something could not be committed; see :attr:`failure`.
        """
        with self._lock:
            self._closed = True
            if self._in_flight:
                self._closing = self._control.create_future()
        if self._closing is not None:
            await self._closing
        self._call_followers()
        if self.failure is not None:
            raise self.failure
        return tuple(self._buffer)

    def landed(self, rest: tuple[StreamEvent, ...]) -> None:
        """Show what :meth:`close` returned: it is committed."""
        self._buffer, self._buffered = [], 0
        if rest:
            self._show(list(rest))

    def ahead(self, then: Callable[[], None]) -> bool:
        """Commit what was emitted so far without delay, and call *then* afterwards, from any thread.

        Returns:
            ``False``, and *then* is not called, if there is nothing to wait for.
        """
        with self._lock:
            if self._closed or not (self._buffer or self._in_flight):
                return False
            self._followers.append((self._seq, then))
            if not self._in_flight:
                self._submit()
        return True

    def _call_followers(self) -> None:
        with self._lock:
            # What is buffered when it is closed is committed by the transaction that ends the attempt.
            left = self._in_flight or ([] if self._closed else self._buffer)
            committed = left[0].seq - 1 if left else self._seq
            due = [then for seq, then in self._followers if seq <= committed]
            self._followers = [one for one in self._followers if one[1] not in due]
        for then in due:
            then()

    def _on_timer(self) -> None:
        with self._lock:
            self._timer = False
            if self._buffer and not (self._in_flight or self._closed):  # it is empty after a failure
                self._submit()

    def _submit(self) -> None:
        """Commit what is buffered; the lock is held and nothing is in flight."""
        self._in_flight, self._buffer = self._buffer, []
        self._last_flush = self._control.time()
        self._append()

    def _append(self) -> None:
        try:
            self._store.events.submit(self._lease, self._in_flight, self._control, self._on_committed)
        except RunlaneError as error:
            self._control.call_soon_threadsafe(self._on_committed, None, error)

    def _on_committed(self, _: None, error: BaseException | None) -> None:
        if error is not None:
            self._on_error(error)
            return
        self._tries = 0
        with self._lock:
            batch, self._in_flight = self._in_flight, []
            self._buffered -= sum(len(event.data) for event in batch)
        self._call_followers()  # what waits for this batch is not overtaken by the next one
        with self._lock:
            if self._buffer and not (self._in_flight or self._closed):
                self._continue()
        self._show(batch)
        self._tell_waiters()

    def _continue(self) -> None:
        """Arrange the next batch; the lock is held."""
        wait_s = self._wait_s()
        if wait_s <= 0 or self._followers or self._buffered >= FLUSH_BYTES:
            self._submit()
        elif not self._timer:
            self._timer = True
            self._control.call_later(wait_s, self._on_timer)

    def _on_error(self, error: BaseException) -> None:
        if passes(error):
            self._tries += 1
            if self._tries == 1:
                log.warning("events.delayed run_id=%s why=%s", self._lease.run_id, error)
            self._control.call_later(pause_s(self._tries), self._append)
            return
        with self._lock:
            self.failure = error if isinstance(error, RunlaneError) else StoreUnavailable(str(error))
            self._buffer, self._in_flight, self._buffered = [], [], 0
        self._call_followers()
        self._tell_waiters()
        self._on_failure(self.failure)

    def _tell_waiters(self) -> None:
        done = self._closing
        if done is not None and not done.done() and not self._in_flight:
            self._closing = None
            done.set_result(None)
        with self._lock:
            space, self._space = (None, self._space) if self.congested else (self._space, None)
        if space is not None:
            space[0].call_soon_threadsafe(space[1].set)
