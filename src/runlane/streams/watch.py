"""Readers of one run's stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from runlane.errors import NotFound
from runlane.lifecycle import EndReason, RunStatus
from runlane.records import ANY_OWNER, RunRecord, StreamEnd, StreamGap
from runlane.store.ledger import RunStore
from runlane.store.transactions.run_queries import DELETED
from runlane.streams.batches import EventBatch, LargeEvent, ends
from runlane.streams.budget import ReaderBudget
from runlane.streams.live import Ending, Live, Wake

#: What there is to tell after a time without news.
HEARTBEAT = EventBatch()


class Streamed(Protocol):
    """A run whose stream is read."""

    @property
    def run_id(self) -> str: ...

    @property
    def thread_id(self) -> str: ...

    @property
    def seq(self) -> int: ...

    @property
    def status(self) -> RunStatus: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderHooks:
    """What is called when a reader begins to read events, and not the ending alone, and when it closes."""

    on_read: Callable[[], None]
    on_close: Callable[[], None]


class RunReader:
    """Reads one run's stream, part by part and without waiting; a context manager.

    It keeps no place in memory beyond a flag: *wake* is set whenever there may be more.
    """

    def __init__(self, store: RunStore, run_seq: int, live: Live, *, wake: Wake, hooks: ReaderHooks) -> None:
        self.live = live
        self._store = store
        self._run_seq = run_seq
        self._wake = wake
        self._hooks = hooks
        self._page_begin = 0
        self._reads = False
        live.join(wake)

    def __enter__(self) -> RunReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop hearing of the run; a second call does nothing."""
        if self._wake in self.live.wakes:
            self.live.leave(self._wake)
            self._hooks.on_close()

    def start(self) -> None:
        """Be counted as a reader of events, until :meth:`stop`."""
        self._reads = True
        self.live.readers += 1
        self._hooks.on_read()

    def stop(self) -> None:
        """Be counted no more; a second call does nothing."""
        if self._reads:
            self._reads = False
            self.live.readers -= 1

    async def part(self, cursor: int, limit_bytes: int) -> EventBatch | LargeEvent | None:
        """Return what follows number *cursor*; ``None`` if there is nothing now.

        It has events of at most *limit_bytes*, or is one that is larger; the last part has the end.
        """
        while (found := await self._after(cursor, limit_bytes)) is None:
            end = await self._end()
            if end is None:
                return None
            if end.seq > cursor + 1:
                # Events may have been committed between the two reads; the end comes after the last of them.
                if await self._store.events.read(self._run_seq, after=cursor):
                    continue
                if not await self._taken_back(end):
                    return EventBatch([StreamGap(resumes_at=end.seq), end])
            # The run may have been deleted, or the cursor may be ahead of its log.
            if not end.seq or not cursor <= end.seq <= cursor + 1:
                end = replace(end, seq=cursor + 1)
            return EventBatch([end])
        return found

    def hears(self) -> bool:
        """Return whether nothing happens to the run without this process hearing of it, as far as it knows."""
        return self.live.executing or self.live.followed

    def doubt_since(self, quiet_since: float) -> None:
        """Have the ledger asked again, unless it was since *quiet_since*, from when on nothing was heard."""
        if self.live.followed_at < quiet_since:
            self.live.doubt()

    async def _after(self, cursor: int, limit_bytes: int) -> EventBatch | LargeEvent | None:
        if self.live.covers(cursor):
            page = self.live.since(cursor)
        else:
            page = await self.live.log.page(self._run_seq, begin=self._page_begin, cursor=cursor)
            self._page_begin = page.after
        return page.cut(cursor, limit_bytes)

    async def _end(self) -> StreamEnd | None:
        if self.live.end is not None or self.hears():
            return self.live.end
        return await self._store.events.end(self._run_seq)

    async def _taken_back(self, end: StreamEnd) -> bool:
        """Return whether the run was deleted because it was rolled back: its events are no loss to who reads it."""
        return end.end_reason is EndReason.ROLLED_BACK and await self._store.events.end(self._run_seq) == DELETED


class Watch(RunReader):
    """A reader of one run's stream that waits for what comes next."""

    def __init__(
        self,
        store: RunStore,
        run: RunRecord,
        live: Live,
        *,
        budget: ReaderBudget,
        heartbeat_s: float,
        hooks: ReaderHooks,
    ) -> None:
        super().__init__(store, run.seq, live, wake=Wake(), hooks=hooks)
        self.run = run
        self._heartbeat_s = heartbeat_s
        self._budget = budget
        self._heard = True  # what woke the reader last was news, not the heartbeat's time
        self._clock = asyncio.get_running_loop().time
        self._quiet_since: float | None = None  # set while it waits for news
        self._silence: asyncio.TimerHandle | None = None

    def __enter__(self) -> Watch:
        return self

    def close(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        super().close()

    async def batches(self, *, after: int | None = 0) -> AsyncGenerator[EventBatch, None]:
        """Yield the run's items in batches, as much as there is at a time and all readers together may hold.

        An empty batch is a heartbeat. An event that is larger than a reader's part is a batch of its own.

        Raises:
            NotFound: A large event was removed while it was about to be read.
        """
        async with aclosing(self.parts(after=after)) as parts:
            async for part in parts:
                yield await part.whole() if isinstance(part, LargeEvent) else part

    async def parts(self, *, after: int | None = 0) -> AsyncGenerator[EventBatch | LargeEvent, None]:
        """Yield the same as :meth:`batches`, but a large event as a reference, for those who send it part by part."""
        self.start()
        self._budget.join()
        try:
            cursor, taken_bytes = await self._newest() if after is None else after, 0
            while True:
                self._wake.clear()
                found = await self.part(cursor, self._budget.part_bytes(taken_bytes))
                if found is not None:
                    cursor, ended = place_after(found), ends(found)
                    taken_bytes += found.size
                    handed = [found]
                    del found  # a client that does not take it must not keep it in memory
                    yield handed.pop()
                    if ended:
                        return
                elif self.live.dismissed:
                    return
                elif not await self._news():
                    yield HEARTBEAT
        finally:
            self._budget.leave()
            self.stop()

    async def ending(self) -> AsyncIterator[Ending | None]:
        """Yield ``None`` as a heartbeat until the run has ended, then its ending; its events are no news here."""
        told_at = self._clock()
        while True:
            self._wake.clear()
            ending = self.live.ending or (None if self.hears() else await self._stored_ending())
            if ending is not None:
                yield ending
                return
            if self.live.dismissed:
                return
            if not await self._news() or self._clock() - told_at >= self._heartbeat_s:
                told_at = self._clock()
                yield None

    async def _newest(self) -> int:
        if self.live.known_seq is not None:
            return self.live.known_seq
        return await self._store.events.last(self.run.seq)

    async def _news(self) -> bool:
        """Wait for news; ``False`` after a heartbeat's time without."""
        self._quiet_since, self._heard = self._clock(), True
        if self._silence is None:
            self._silence = asyncio.get_running_loop().call_later(self._heartbeat_s, self._look)
        try:
            await self._wake.wait()
        finally:
            self._quiet_since = None
        return self._heard

    def _look(self) -> None:
        """End a wait that has been quiet for long. One timer serves all waits: most of them end sooner."""
        self._silence = None
        if self._quiet_since is None or self._wake.is_set():
            return  # the next wait begins from here
        due = self._quiet_since + self._heartbeat_s
        if self._clock() < due:
            self._silence = asyncio.get_running_loop().call_at(due, self._look)
            return
        self._heard = False
        self.doubt_since(self._quiet_since)
        self._wake.set()

    async def _stored_ending(self) -> Ending | None:
        try:
            current = await self._store.runs.get(self.run.run_id, owner=ANY_OWNER)
            if not current.status.terminal:
                return None
            _, result, _ = await self._store.runs.result(self.run.run_id, owner=ANY_OWNER)
        except NotFound:  # which it may become in between
            return Ending(status=RunStatus.INTERRUPTED, end_reason=EndReason.ROLLED_BACK, result=None, error=None)
        return Ending(status=current.status, end_reason=current.end_reason, result=result, error=current.error)


def place_after(found: EventBatch | LargeEvent) -> int:
    """Return the event number after which a reader of *found* continues."""
    last = found if isinstance(found, LargeEvent) else found[-1]
    return last.resumes_at - 1 if isinstance(last, StreamGap) else last.seq
