"""StreamBridge: streams of runs, fed by the log and, while a run executes, by what was just committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from functools import partial
from typing import Final, Literal, TypeVar, overload

from runlane.errors import AdmissionClosed, InvalidRequest
from runlane.lifecycle import RunStatus
from runlane.owners import UNNAMED, OwnerRule
from runlane.records import Claim, Owner, RunRecord, StreamEnd, StreamEvent, StreamHeartbeat, StreamItem
from runlane.store.ledger import RunStore
from runlane.store.notifications import Changes, Notifications
from runlane.store.retry import patiently
from runlane.store.transactions.events import START_EVENT
from runlane.streams.budget import ReaderBudget
from runlane.streams.changes import ChangeFeed
from runlane.streams.following import READ_ELSEWHERE_S, Follower
from runlane.streams.live import Ending, Live, Wake
from runlane.streams.multiplex import Multiplexer
from runlane.streams.shared_log import SharedLog
from runlane.streams.thread_news import ThreadNews
from runlane.streams.watch import ReaderHooks, RunReader, Streamed, Watch
from runlane.telemetry.emitter import SILENT, Telemetry

#: How many events of earlier attempts are read at most: far more than one superstep streams.
EARLIER_EVENTS: Final = 20_000
HEARTBEAT_S: Final = 5.0
R = TypeVar("R", bound=Streamed)


class Feed:
    """The stream of a run that executes here, as its attempt sees it: who reads it, and what they are shown."""

    def __init__(
        self,
        store: RunStore,
        claim: Claim,
        live: Live,
        notifications: Notifications,
        on_first: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._claim = claim
        self._live = live
        self._notifications = notifications
        self._control = asyncio.get_running_loop()
        self._on_first = on_first

    @property
    def present(self) -> bool:
        """Return whether somebody reads the stream, here or elsewhere; may be asked from any thread."""
        live = self._live
        return live.readers > 0 or (live.read_until is not None and self._control.time() < live.read_until)

    def show(self, events: Sequence[StreamEvent]) -> None:
        """Show events, which are committed."""
        if events:
            self._notifications.run_changed(self._claim.run.seq)
            if self._on_first is not None and events[-1].name != START_EVENT:
                self._on_first()
                self._on_first = None
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

    def __init__(
        self,
        store: RunStore,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        require_owner: bool = False,
        notifications: Notifications | None = None,
    ) -> None:
        """Args:
        notifications: What other processes are to be told of.
        """
        self._store = store
        self._notifications = notifications or Notifications()
        self._owners = OwnerRule(required=require_owner)
        self._heartbeat_s = heartbeat_s
        self._live: dict[str, Live] = {}
        self._thread_news = ThreadNews()
        self._dismissed = False
        self._budget = ReaderBudget()
        self._log = SharedLog(store, self._budget)
        self._follower: Follower | None = None
        #: Which runs have changed, for those who show lists of them.
        self.changes = ChangeFeed(store)

    # For the worker.

    def open(self, claim: Claim, on_first: Callable[[], None] | None = None) -> Feed:
        """Begin to feed the stream from an attempt; :meth:`close` or :meth:`release` ends that.

        Args:
            on_first: Called when the first event that the attempt's code made is committed.
        """
        live = self._live_of(claim.run)
        live.executing, live.known_seq, live.attempt = True, claim.events_end, claim.lease.attempt
        live.clear()
        if claim.start is not None:
            live.show((claim.start,))
            self._notifications.run_changed(claim.run.seq)
        self.tell_thread(claim.run.thread_id)
        return Feed(self._store, claim, live, self._notifications, on_first)

    def release(self, run_id: str, attempt: int) -> None:
        """Forget an attempt whose run goes on elsewhere or later; readers stay, and so does a later attempt."""
        live = self._live.get(run_id)
        if live is not None and live.attempt <= attempt:
            live.executing = False
            self.changes.soon()
            live.doubt()
            live.wake()
            self._evict(run_id, live)

    def close(self, run: RunRecord, *, events_end: int | None, result: bytes | None) -> None:
        """Tell readers and waiters that *run* has ended; *events_end* is unknown for a run that this process lost."""
        self._notifications.run_changed(run.seq)
        self.changes.soon()
        if run.started_at is None:
            self.tell_thread(run.thread_id)
        live = self._live.get(run.run_id)
        if live is None:
            return
        live.executing = False
        live.ending = Ending(status=run.status, end_reason=run.end_reason, result=result, error=run.error)
        if events_end is not None:
            live.end = StreamEnd(seq=events_end + 1, status=run.status, end_reason=run.end_reason)
        if live.known_seq != events_end:
            live.doubt()  # what was committed meanwhile is not shown here any more: its readers ask the ledger
        live.wake()
        self._evict(run.run_id, live)

    def _evict(self, run_id: str, live: Live) -> None:
        if not live.wakes and live.unwatched is not None:
            live.unwatched.set()
        if not live.executing and not live.wakes:
            self._live.pop(run_id, None)
            self._log.forget(live.run_seq)

    def _live_of(self, run: Streamed) -> Live:
        live = self._live.get(run.run_id)
        if live is None:
            live = self._live[run.run_id] = Live(run_seq=run.seq, log=self._log)
        live.dismissed = self._dismissed
        return live

    # For what other processes do.

    @asynccontextmanager
    async def following(self, telemetry: Telemetry = SILENT) -> AsyncIterator[None]:
        """Follow runs that others execute and somebody watches here, until the block is left."""
        follower = Follower(self._store, self._live.values, self._notifications, telemetry=telemetry)
        async with follower as self._follower:
            yield

    def hear(self, changes: Changes) -> None:
        """Have readers told of what another process has changed."""
        if self._follower is not None:
            self._follower.hear(changes.runs)
        for thread_id in changes.threads:
            self._thread_news.tell(thread_id)
        self.changes.soon()
        if changes.read:
            self._note_readers(frozenset(changes.read))
        if changes.missed:
            self.look()

    def _note_readers(self, run_seqs: frozenset[int]) -> None:
        until = asyncio.get_running_loop().time() + READ_ELSEWHERE_S
        for live in self._live.values():
            if live.executing and live.run_seq in run_seqs:
                live.read_until = until

    def look(self) -> None:
        """Have readers told of whatever was missed."""
        if self._follower is not None:
            self._follower.look()
        self._thread_news.tell_all()

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
            async with aclosing(watch.batches(after=after)) as batches:
                async for batch in batches:
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
        self.changes.wake()
        for live in self._live.values():
            live.dismissed = True
            live.wake()
        self._thread_news.tell_all()

    @property
    def readers(self) -> int:
        """Return how many readers streams of runs and of threads have in this process."""
        return len(self._thread_news) + sum(live.readers for live in self._live.values())

    @property
    def dismissed(self) -> bool:
        """Return whether the process closes, and readers are to stop."""
        return self._dismissed

    @property
    def heartbeat_s(self) -> float:
        return self._heartbeat_s

    def thread_news(self, thread_id: str) -> AbstractContextManager[asyncio.Event]:
        """Give an event that is set whenever this process hears news of the thread, and when it closes.

        News are a run that is admitted, starts, or ends without having started, and what :meth:`tell_thread` is told.
        """
        return self._thread_news.awaited(thread_id)

    def tell_thread(self, thread_id: str) -> None:
        """Wake the readers of the thread's stream, in all processes."""
        self._notifications.thread_changed(thread_id)
        self.changes.soon()
        self._thread_news.tell(thread_id)

    def watch(self, run: RunRecord, *, admitted_now: bool = False) -> Watch:
        """Return a reader of *run*'s stream, which hears of everything from now on.

        With *admitted_now* the run is new and has not been dispatched: the ledger need not be asked what it did.
        """
        live = self._live_of(run)
        if admitted_now:
            live.known_seq, live.followed = 0, True
            self.tell_thread(run.thread_id)
        hooks = self._hooks(run, live)
        return Watch(self._store, run, live, budget=self._budget, heartbeat_s=self._heartbeat_s, hooks=hooks)

    def multiplex(self, places: Mapping[R, int]) -> Multiplexer[R]:
        """Return a reader of many runs' streams, each after an event's number; it hears of everything from now on."""
        return Multiplexer(
            places, self._reader, budget=self._budget, heartbeat_s=self._heartbeat_s, dismissed=lambda: self._dismissed
        )

    def _reader(self, run: Streamed, wake: Wake) -> RunReader:
        live = self._live_of(run)
        return RunReader(self._store, run.seq, live, wake=wake, hooks=self._hooks(run, live))

    def _hooks(self, run: Streamed, live: Live) -> ReaderHooks:
        return ReaderHooks(on_read=partial(self._tell_read, run, live), on_close=partial(self._evict, run.run_id, live))

    def _tell_read(self, run: Streamed, live: Live) -> None:
        if self._follower is not None and run.status is RunStatus.RUNNING and live.followable:
            self._follower.tell(live)
