"""StreamBridge: readers of runs' streams, fed by the log and, while a run executes, by what was just committed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Literal, overload

from runlane.errors import AdmissionClosed, InvalidRequest, NotFound
from runlane.lifecycle import EndReason, RunStatus
from runlane.owners import UNNAMED, OwnerRule
from runlane.records import (
    ANY_OWNER,
    Claim,
    Owner,
    RunError,
    RunRecord,
    StreamEnd,
    StreamEvent,
    StreamGap,
    StreamHeartbeat,
    StreamItem,
)
from runlane.store.ledger import RunStore
from runlane.store.retry import patiently
from runlane.streams.budget import ReaderBudget

#: What a run keeps in memory for readers that are not far behind; a slower one reads the log.
TAIL_EVENTS: Final = 2048
TAIL_BYTES: Final = 4 * 1024 * 1024
#: How many events of earlier attempts are read at most: far more than one superstep streams.
EARLIER_EVENTS: Final = 20_000
HEARTBEAT_S: Final = 5.0

#: A batch of items that are written together; an empty one is a heartbeat.
Batch = Sequence[StreamItem]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The ending of a run, for its waiters: ``result`` is JSON text, ``error`` is set if it failed or was stopped."""

    status: RunStatus
    end_reason: EndReason | None
    result: bytes | None
    error: RunError | None


@dataclass(slots=True)
class _Live:
    """The live state of a run that this process executes, or that somebody watches.

    ``followed`` says that nothing can happen to the run without this process hearing of it, as far as it knows: the
    ledger need not be asked. A heartbeat without news withdraws that.
    """

    tail: deque[StreamEvent] = field(default_factory=deque)
    tail_bytes: int = 0
    known_seq: int | None = None
    attempt: int = 0
    end: StreamEnd | None = None
    ending: Ending | None = None
    executing: bool = False
    readers: int = 0
    followed: bool = False
    dismissed: bool = False
    wakes: dict[asyncio.Event, None] = field(default_factory=dict)  # in the order of their coming
    unwatched: asyncio.Event | None = None

    def covers(self, after: int) -> bool:
        """Return whether the tail has everything after number *after*."""
        if self.known_seq is None:
            return False
        return self.known_seq <= after or (bool(self.tail) and self.tail[0].seq <= after + 1)

    def since(self, after: int) -> list[StreamEvent]:
        if not self.tail or self.tail[-1].seq <= after:
            return []
        skip = max(0, after + 1 - self.tail[0].seq)
        return list(self.tail)[skip:] if skip else list(self.tail)

    def show(self, events: Sequence[StreamEvent]) -> None:
        """Keep *events* for readers who are not far behind, and wake them."""
        self.tail.extend(events)
        self.known_seq = events[-1].seq
        self.tail_bytes += sum(len(event.data) for event in events)
        while len(self.tail) > TAIL_EVENTS or (self.tail_bytes > TAIL_BYTES and len(self.tail) > 1):
            self.tail_bytes -= len(self.tail.popleft().data)
        if self.readers:  # who waits for the end alone is not told of every event
            self.wake()

    def doubt(self) -> None:
        """No news for long: unless the run executes here, ask the ledger from now on."""
        if not self.executing:
            self.followed, self.known_seq = False, None

    def wake(self) -> None:
        for event in self.wakes:
            event.set()


class Feed:
    """The stream of a run that executes here, as its attempt sees it: who reads it, and what they are shown."""

    def __init__(self, store: RunStore, claim: Claim, live: _Live) -> None:
        self._store = store
        self._claim = claim
        self._live = live
        self._control = asyncio.get_running_loop()

    @property
    def present(self) -> bool:
        """Return whether somebody reads the stream; may be asked from any thread."""
        return self._live.readers > 0

    def show(self, events: Sequence[StreamEvent]) -> None:
        """Show events, which are committed."""
        if events and self._live.executing and self._live.attempt == self._claim.lease.attempt:
            self._live.show(events)  # otherwise its readers have asked the ledger since

    async def earlier(self) -> list[StreamEvent]:
        """Return, on any loop, the newest events of the attempts before this one, oldest first."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._read_earlier(), self._control))

    async def _read_earlier(self) -> list[StreamEvent]:
        found: list[StreamEvent] = []
        end = self._claim.events_end
        cursor = max(0, end - EARLIER_EVENTS)
        while cursor < end:
            page = await patiently(partial(self._store.events.read, self._claim.run.seq, after=cursor))
            if not page:
                break
            found.extend(event for event in page if event.seq <= end)
            cursor = page[-1].seq
        return found


class StreamBridge:
    """Streams of runs. Used on one event loop, the control loop, only.

    A stream is the run's log and then one :class:`StreamEnd`, which is derived from the terminal row: it cannot be
    missing, and it cannot come twice. Reading never creates anything: an unknown run is NotFound, an ended run ends.
    """

    def __init__(self, store: RunStore, *, heartbeat_s: float = HEARTBEAT_S, require_owner: bool = False) -> None:
        self._store = store
        self._owners = OwnerRule(required=require_owner)
        self._heartbeat_s = heartbeat_s
        self._live: dict[str, _Live] = {}
        self._thread_wakes: dict[str, dict[asyncio.Event, None]] = {}
        self._dismissed = False
        self._budget = ReaderBudget()

    # For the worker.

    def open(self, claim: Claim) -> Feed:
        """Begin to feed the stream from an attempt; :meth:`close` or :meth:`release` ends that."""
        live = self._live.setdefault(claim.run.run_id, _Live())
        live.executing, live.known_seq, live.attempt = True, claim.events_end, claim.lease.attempt
        live.tail.clear()
        live.tail_bytes = 0
        self.tell_thread(claim.run.thread_id)
        return Feed(self._store, claim, live)

    def release(self, run_id: str, attempt: int) -> None:
        """Forget an attempt whose run goes on elsewhere or later; readers stay, and so does a later attempt."""
        live = self._live.get(run_id)
        if live is not None and live.attempt <= attempt:
            live.executing = False
            live.doubt()
            live.wake()
            self._evict(run_id, live)

    def close(self, run: RunRecord, *, events_end: int | None, result: bytes | None) -> None:
        """Tell readers and waiters that *run* has ended; *events_end* is unknown for a run that this process lost."""
        if run.started_at is None:
            self.tell_thread(run.thread_id)
        live = self._live.get(run.run_id)
        if live is None:
            return
        live.executing = False
        live.ending = Ending(status=run.status, end_reason=run.end_reason, result=result, error=run.error)
        if events_end is None:
            live.doubt()
        else:
            live.end = StreamEnd(seq=events_end + 1, status=run.status, end_reason=run.end_reason)
        live.wake()
        self._evict(run.run_id, live)

    def _evict(self, run_id: str, live: _Live) -> None:
        if not live.wakes and live.unwatched is not None:
            live.unwatched.set()
        if not live.executing and not live.wakes:
            self._live.pop(run_id, None)

    # For readers.

    @overload
    def subscribe(
        self, run_id: str, *, after: int | None = 0, heartbeats: Literal[False] = False, owner: Owner | None = None
    ) -> AsyncGenerator[StreamItem, None]: ...

    @overload
    def subscribe(
        self, run_id: str, *, after: int | None = 0, heartbeats: bool, owner: Owner | None = None
    ) -> AsyncGenerator[StreamItem | StreamHeartbeat, None]: ...

    async def subscribe(
        self, run_id: str, *, after: int | None = 0, heartbeats: bool = False, owner: Owner | None = None
    ) -> AsyncGenerator[StreamItem | StreamHeartbeat, None]:
        """Yield the run's events with numbers above *after* (``None``: from now on), then its one end.

        A :class:`StreamGap` says that retention removed what came next. Without an end the process closes: another one
        has the rest.

        Args:
            heartbeats: Also yield a :class:`StreamHeartbeat` after each ``heartbeat_s`` in which nothing happened.

        Raises:
            NotFound: No such run for *owner*.
            OwnerRequired: Owners must be named, and none was.
            InvalidRequest: *after* is negative.
        """
        if after is not None and after < 0:
            raise InvalidRequest(f"after is {after}; it must be the number of an event, 0 for all, or None.")
        named = self._owners.any("subscribe", UNNAMED if owner is None else owner)
        run = await self._store.runs.get(run_id, owner=named)
        with self.watch(run) as watch:
            async for batch in watch.batches(after=after):
                for item in batch:
                    yield item
                if heartbeats and not batch:
                    yield StreamHeartbeat()

    async def ended(self, run: RunRecord) -> Ending:
        """Wait until the run has ended.

        Raises:
            AdmissionClosed: This process closes, and the run goes on elsewhere or later.
        """
        with self.watch(run) as watch:
            async for ending in watch.ending():
                if ending is not None:
                    return ending
        raise AdmissionClosed

    async def unwatched(self, run_id: str) -> None:
        """Wait until nobody reads the run's stream."""
        live = self._live.get(run_id)
        if live is not None and live.wakes:
            live.unwatched = live.unwatched or asyncio.Event()
            await live.unwatched.wait()

    def dismiss_readers(self) -> None:
        """Let every reader, now and from now on, stop where it is, without an end: the process closes."""
        self._dismissed = True
        for live in self._live.values():
            live.dismissed = True
            live.wake()
        for thread_id in self._thread_wakes:
            self.tell_thread(thread_id)

    @property
    def dismissed(self) -> bool:
        """Return whether the process closes, and readers are to stop."""
        return self._dismissed

    @property
    def heartbeat_s(self) -> float:
        return self._heartbeat_s

    @contextmanager
    def thread_news(self, thread_id: str) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever this process has news of the thread, and when it closes.

        News are a run that is admitted, starts, or ends without having started, and what :meth:`tell_thread` is told.
        """
        wake = asyncio.Event()
        wakes = self._thread_wakes.setdefault(thread_id, {})
        wakes[wake] = None
        try:
            yield wake
        finally:
            del wakes[wake]
            if not wakes:
                self._thread_wakes.pop(thread_id, None)

    def tell_thread(self, thread_id: str) -> None:
        """Wake the readers of the thread's stream."""
        for wake in self._thread_wakes.get(thread_id, ()):
            wake.set()

    def watch(self, run: RunRecord, *, admitted_now: bool = False) -> Watch:
        """Return a reader of *run*'s stream, which hears of everything from now on.

        With *admitted_now* the run is new and has not been dispatched: the ledger need not be asked what it did.
        """
        live = self._live.setdefault(run.run_id, _Live())
        live.dismissed = self._dismissed
        if admitted_now:
            live.known_seq, live.followed = 0, True
            self.tell_thread(run.thread_id)
        return Watch(self._store, run, live, self._budget, self._heartbeat_s, lambda: self._evict(run.run_id, live))


class Watch:
    """A reader of one run's stream; a context manager. It keeps no place in memory beyond a flag."""

    def __init__(
        self,
        store: RunStore,
        run: RunRecord,
        live: _Live,
        budget: ReaderBudget,
        heartbeat_s: float,
        on_close: Callable[[], None],
    ) -> None:
        self.run = run
        self._store = store
        self._live = live
        self._heartbeat_s = heartbeat_s
        self._on_close = on_close
        self._budget = budget
        self._wake = asyncio.Event()
        self._heard = True  # what woke the reader last was news, not the heartbeat's time
        live.wakes[self._wake] = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop hearing of the run; a second call does nothing."""
        if self._wake in self._live.wakes:
            del self._live.wakes[self._wake]
            self._on_close()

    async def batches(self, *, after: int | None = 0) -> AsyncIterator[Batch]:
        """Yield the run's items in batches, as much as there is at a time and all readers together may hold.

        An empty batch is a heartbeat.
        """
        self._live.readers += 1
        self._budget.join()
        try:
            cursor = await self._newest() if after is None else after
            while True:
                self._wake.clear()
                found = await self._after(cursor)
                if found:
                    for part in self._parts(found, cursor):
                        yield part
                    cursor = found[-1].seq
                    continue
                end = await self._end()
                if end is not None:
                    # Events may have been committed between the two reads; the end comes after the last of them.
                    if end.seq > cursor + 1 and await self._store.events.read(self.run.seq, after=cursor):
                        continue
                    if not end.seq or end.seq < cursor:  # the run has been deleted, or the cursor was ahead of its log
                        end = replace(end, seq=cursor + 1)
                    yield [StreamGap(resumes_at=end.seq), end] if end.seq > cursor + 1 else [end]
                    return
                if self._live.dismissed:
                    return
                if not await self._news():
                    yield ()
        finally:
            self._budget.leave()
            self._live.readers -= 1

    async def ending(self) -> AsyncIterator[Ending | None]:
        """Yield ``None`` as a heartbeat until the run has ended, then its ending."""
        while True:
            self._wake.clear()
            ending = self._live.ending or (None if self._hears() else await self._stored_ending())
            if ending is not None:
                yield ending
                return
            if self._live.dismissed:
                return
            if not await self._news():
                yield None

    def _parts(self, found: Sequence[StreamEvent], cursor: int) -> Iterator[Batch]:
        """Yield *found* in parts that fit, the first one with what retention removed after *cursor*."""
        gap = [StreamGap(resumes_at=found[0].seq)] if found[0].seq > cursor + 1 else []
        while found:
            part = self._budget.part(found)
            found = found[len(part) :]
            yield [*gap, *part] if gap else part
            gap = []

    def _hears(self) -> bool:
        return self._live.executing or self._live.followed

    async def _newest(self) -> int:
        if self._live.known_seq is not None:
            return self._live.known_seq
        return await self._store.events.last(self.run.seq)

    async def _after(self, cursor: int) -> Sequence[StreamEvent]:
        if self._live.covers(cursor):
            return self._budget.part(self._live.since(cursor))  # the rest is there, and not this reader's
        return await self._store.events.read(self.run.seq, after=cursor, max_bytes=self._budget.part_bytes)

    async def _end(self) -> StreamEnd | None:
        if self._live.end is not None or self._hears():
            return self._live.end
        return await self._store.events.end(self.run.seq)

    async def _news(self) -> bool:
        """Wait for news; ``False`` after a heartbeat's time without."""
        silence = asyncio.get_running_loop().call_later(self._heartbeat_s, self._silent)
        self._heard = True
        try:
            await self._wake.wait()
        finally:
            silence.cancel()
        return self._heard

    def _silent(self) -> None:
        self._heard = False
        self._live.doubt()
        self._wake.set()

    async def _stored_ending(self) -> Ending | None:
        try:
            current = await self._store.runs.get(self.run.run_id, owner=ANY_OWNER)
        except NotFound:
            return Ending(status=RunStatus.INTERRUPTED, end_reason=EndReason.ROLLED_BACK, result=None, error=None)
        if not current.status.terminal:
            return None
        _, result, _ = await self._store.runs.result(self.run.run_id, owner=ANY_OWNER)
        return Ending(status=current.status, end_reason=current.end_reason, result=result, error=current.error)
