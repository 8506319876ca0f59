"""Readers of one run's stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace

from runlane.errors import NotFound
from runlane.lifecycle import EndReason, RunStatus
from runlane.records import ANY_OWNER, RunRecord, StreamEnd, StreamGap
from runlane.store.ledger import RunStore
from runlane.streams.batches import EventBatch, LargeEvent
from runlane.streams.budget import ReaderBudget
from runlane.streams.live import Ending, Live, Wake

#: What there is to tell after a time without news.
HEARTBEAT = EventBatch()


class Watch:
    """A reader of one run's stream; a context manager. It keeps no place in memory beyond a flag."""

    def __init__(
        self,
        store: RunStore,
        run: RunRecord,
        live: Live,
        *,
        budget: ReaderBudget,
        heartbeat_s: float,
        on_read: Callable[[], None],
        on_close: Callable[[], None],
    ) -> None:
        self.run = run
        self._store = store
        self._live = live
        self._heartbeat_s = heartbeat_s
        self._on_read = on_read
        self._on_close = on_close
        self._budget = budget
        self._wake = Wake()
        self._heard = True  # what woke the reader last was news, not the heartbeat's time
        self._clock = asyncio.get_running_loop().time
        self._quiet_since: float | None = None  # set while it waits for news
        self._silence: asyncio.TimerHandle | None = None
        self._page_begin = 0
        self._taken_bytes = 0
        live.wakes[self._wake] = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop hearing of the run; a second call does nothing."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        if self._wake in self._live.wakes:
            del self._live.wakes[self._wake]
            self._on_close()

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
        self._live.readers += 1
        self._on_read()
        self._budget.join()
        try:
            cursor = await self._newest() if after is None else after
            while True:
                self._wake.clear()
                found = await self._after(cursor)
                if found is not None:
                    cursor = _place_after(found)
                    handed = [found]
                    del found  # a client that does not take it must not keep it in memory
                    yield handed.pop()
                    continue
                end = await self._end()
                if end is not None:
                    # Events may have been committed between the two reads; the end comes after the last of them.
                    if end.seq > cursor + 1 and await self._store.events.read(self.run.seq, after=cursor):
                        continue
                    if not end.seq or end.seq < cursor:  # the run has been deleted, or the cursor was ahead of its log
                        end = replace(end, seq=cursor + 1)
                    yield EventBatch([StreamGap(resumes_at=end.seq), end] if end.seq > cursor + 1 else [end])
                    return
                if self._live.dismissed:
                    return
                if not await self._news():
                    yield HEARTBEAT
        finally:
            self._budget.leave()
            self._live.readers -= 1

    async def ending(self) -> AsyncIterator[Ending | None]:
        """Yield ``None`` as a heartbeat until the run has ended, then its ending; its events are no news here."""
        told_at = self._clock()
        while True:
            self._wake.clear()
            ending = self._live.ending or (None if self._hears() else await self._stored_ending())
            if ending is not None:
                yield ending
                return
            if self._live.dismissed:
                return
            if not await self._news() or self._clock() - told_at >= self._heartbeat_s:
                told_at = self._clock()
                yield None

    def _hears(self) -> bool:
        return self._live.executing or self._live.followed

    async def _newest(self) -> int:
        if self._live.known_seq is not None:
            return self._live.known_seq
        return await self._store.events.last(self.run.seq)

    async def _after(self, cursor: int) -> EventBatch | LargeEvent | None:
        if self._live.covers(cursor):
            page = self._live.since(cursor)
        else:
            page = await self._live.log.page(self.run.seq, begin=self._page_begin, cursor=cursor)
            self._page_begin = page.after
        found = page.cut(cursor, self._budget.part_bytes(self._taken_bytes))
        if found is not None:
            self._taken_bytes += found.size
        return found

    async def _end(self) -> StreamEnd | None:
        if self._live.end is not None or self._hears():
            return self._live.end
        return await self._store.events.end(self.run.seq)

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
        if self._live.followed_at < self._quiet_since:
            self._live.doubt()
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


def _place_after(found: EventBatch | LargeEvent) -> int:
    """Return the event number after which a reader of *found* continues."""
    last = found if isinstance(found, LargeEvent) else found[-1]
    return last.resumes_at - 1 if isinstance(last, StreamGap) else last.seq
