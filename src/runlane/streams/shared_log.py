"""The log as all readers of a process read it: what several want is read and encoded once, and kept for none of them.

A reader holds its place in the log. What lies there is read when its connection takes more, and is forgotten, what was
used longest ago first, when all that is remembered becomes too much.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Final, cast

from runlane.errors import NotFound
from runlane.records import StreamEvent, StreamGap
from runlane.store.ledger import RunStore
from runlane.streams.batches import EventBatch, LargeEvent
from runlane.streams.budget import MAX_PART_BYTES, ReaderBudget
from runlane.work import own_task

#: What is remembered for all readers together; one event at least, however large that is.
SHARED_BYTES: Final = 32 * 1024 * 1024
#: Reads of the log at once: each has a segment in memory twice, as the database's bytes and as events.
MAX_READS: Final = 4
#: What is read is remembered with what was made of it.
_COPIES: Final = 2

#: A run, and the number after which a page begins; or a run, the number of a large event, and "event".
_Key = tuple[int, int] | tuple[int, int, str]


class LogPage:
    """Consecutive events of one log that are in memory, cut into batches once for all readers.

    Args:
        after: The number that they follow; the first one's is higher by more than one if retention removed some.
    """

    def __init__(self, log: SharedLog, run_seq: int, after: int, events: Sequence[StreamEvent]) -> None:
        self.after = after
        self.size = sum(len(event.data) for event in events)
        self.last = events[-1].seq if events else after
        self._log = log
        self._run_seq = run_seq
        self.events = events
        self._cuts: dict[int, EventBatch | LargeEvent] = {}

    def cut(self, cursor: int, limit_bytes: int) -> EventBatch | LargeEvent | None:
        """Return what follows number *cursor*: events of at most *limit_bytes*, or one that is larger.

        What retention removed before it is a batch of its own. ``None`` means that nothing follows.
        """
        if cursor >= self.last:
            return None
        found = self._cuts.get(cursor)
        if found is None or found.size > limit_bytes:
            found = self._cuts[cursor] = self._cut(cursor, limit_bytes)
        return found

    def _cut(self, cursor: int, limit_bytes: int) -> EventBatch | LargeEvent:
        first = self.events[0].seq
        if first > cursor + 1:
            return EventBatch((StreamGap(resumes_at=first),))
        taken: list[StreamEvent] = []
        size = 0
        for event in islice(self.events, cursor + 1 - first, None):
            if size + len(event.data) > limit_bytes:
                if not taken:
                    return self._log.large(self._run_seq, event)
                break
            size += len(event.data)
            taken.append(event)
        return EventBatch(taken, size=size)


class SharedLog:
    """Reads logs for all readers, and remembers what it read up to *total_bytes*. Used on one event loop."""

    def __init__(self, store: RunStore, budget: ReaderBudget, *, total_bytes: int = SHARED_BYTES) -> None:
        self._store = store
        self.budget = budget
        self._total_bytes = total_bytes
        self._kept: OrderedDict[_Key, tuple[int, LogPage | EventBatch]] = OrderedDict()
        self._kept_bytes = 0
        self._of_run: dict[int, set[_Key]] = {}
        self._reads: dict[_Key, asyncio.Task[LogPage]] = {}
        self._turn = asyncio.Semaphore(MAX_READS)

    @property
    def kept_bytes(self) -> int:
        """Return how much is remembered."""
        return self._kept_bytes

    async def page(self, run_seq: int, *, begin: int, cursor: int) -> LogPage:
        """Return a page in which number *cursor* is followed by something, if there is anything.

        Args:
            begin: The ``after`` of the page that the reader has read from.
        """
        for after in (begin, cursor):
            found = self._recall((run_seq, after))
            if isinstance(found, LogPage) and found.after <= cursor < found.last:
                return found
        large = self._recall((run_seq, cursor + 1, "event"))
        if isinstance(large, EventBatch):
            return LogPage(self, run_seq, cursor, cast(Sequence[StreamEvent], large[:]))
        page = await self._read(run_seq, cursor)
        if page.events and len(page.events[0].data) <= MAX_PART_BYTES:  # a larger one is remembered as an event
            self._keep((run_seq, cursor), _COPIES * page.size, page)
        return page

    def large(self, run_seq: int, event: StreamEvent) -> LargeEvent:
        """Return a reference to *event*, which is remembered for those who send it."""
        key = run_seq, event.seq, "event"
        if self._recall(key) is None:
            self._keep(key, _COPIES * len(event.data), EventBatch((event,)))
        whole = partial(self._event, run_seq, event.seq)
        return LargeEvent(seq=event.seq, whole=whole, part_bytes=self.budget.part_bytes)

    def forget(self, run_seq: int) -> None:
        """Forget a run that nobody reads."""
        for key in self._of_run.pop(run_seq, ()):
            size, _ = self._kept.pop(key)
            self._kept_bytes -= size

    async def _event(self, run_seq: int, seq: int) -> EventBatch:
        key = run_seq, seq, "event"
        found = self._recall(key)
        if isinstance(found, EventBatch):
            return found
        events = (await self._read(run_seq, seq - 1)).events[:1]
        if not events or events[0].seq != seq:
            raise NotFound("event", str(seq))
        found = EventBatch(events)
        self._keep(key, _COPIES * len(events[0].data), found)
        return found

    async def _read(self, run_seq: int, after: int) -> LogPage:
        """Read the log, or wait for a read of the same that is on its way."""
        key = run_seq, after
        reading = self._reads.get(key)
        if reading is not None:
            page = await asyncio.shield(reading)
            if page.events:
                return page
            # It may have begun before what this reader was woken for was committed.
        reading = self._reads[key] = own_task(self._read_now(run_seq, after))
        reading.add_done_callback(lambda done: self._has_read(key, done))
        return await asyncio.shield(reading)

    async def _read_now(self, run_seq: int, after: int) -> LogPage:
        limit_bytes = self.budget.part_bytes(MAX_PART_BYTES)
        async with self._turn:
            events = await self._store.events.read(run_seq, after=after, max_bytes=limit_bytes)
        return LogPage(self, run_seq, after, events)

    def _has_read(self, key: _Key, done: asyncio.Task[LogPage]) -> None:
        if self._reads.get(key) is done:
            del self._reads[key]
        if not done.cancelled():
            done.exception()  # taken, so that it is not reported as lost if its readers have all left

    def _recall(self, key: _Key) -> LogPage | EventBatch | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        self._kept.move_to_end(key)
        return kept[1]

    def _keep(self, key: _Key, size: int, value: LogPage | EventBatch) -> None:
        if key in self._kept:
            self._kept_bytes -= self._kept.pop(key)[0]
        self._kept[key] = size, value
        self._kept_bytes += size
        self._of_run.setdefault(key[0], set()).add(key)
        while self._kept_bytes > self._total_bytes and len(self._kept) > 1:
            old, (old_size, _) = self._kept.popitem(last=False)
            self._kept_bytes -= old_size
            keys = self._of_run[old[0]]
            keys.discard(old)
            if not keys:
                del self._of_run[old[0]]
