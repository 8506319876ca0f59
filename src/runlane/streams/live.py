"""What a process knows of a run that it executes, or that somebody watches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from runlane.lifecycle import EndReason, RunStatus
from runlane.records import RunError, StreamEnd, StreamEvent
from runlane.store.transactions.news import RunNews
from runlane.streams.shared_log import LogPage, SharedLog

#: What a run keeps in memory, of at most so many bytes as the readers' budget gives it.
TAIL_EVENTS: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The ending of a run, for its waiters: ``result`` is JSON text, ``error`` is set if it failed or was stopped."""

    status: RunStatus
    end_reason: EndReason | None
    result: bytes | None
    error: RunError | None


class Wake:
    """A flag that one reader waits for. Many readers wait: an ``asyncio.Event`` takes four times the memory."""

    __slots__ = ("_future", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._future: asyncio.Future[None] | None = None

    def is_set(self) -> bool:
        return self._is_set

    def clear(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """Set the flag, and wake who waits for it."""
        self._is_set = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        """Wait until the flag is set."""
        if not self._is_set:
            self._future = asyncio.get_running_loop().create_future()
            try:
                await self._future
            finally:
                self._future = None


@dataclass(slots=True)
class Live:
    """The live state of a run that this process executes, or that somebody watches.

    ``followed`` says that nothing can happen to the run without this process hearing of it, as far as it knows: the
    ledger need not be asked. A heartbeat without news withdraws that, unless the ledger was asked meanwhile.

    ``read_until``: how long other processes are taken to have readers of a run that executes here, on the loop's clock.
    ``told_at``: when this process last told another one that it has readers.
    """

    run_seq: int
    log: SharedLog
    tail: list[StreamEvent] = field(default_factory=list)
    tail_bytes: int = 0
    known_seq: int | None = None
    attempt: int = 0
    end: StreamEnd | None = None
    ending: Ending | None = None
    executing: bool = False
    readers: int = 0
    read_until: float | None = None
    told_at: float = float("-inf")
    followed: bool = False
    followed_at: float = float("-inf")  # when the ledger was last asked for what others do
    dismissed: bool = False
    wakes: dict[Wake, None] = field(default_factory=dict)  # in the order of their coming
    unwatched: asyncio.Event | None = None
    page: LogPage | None = None

    def join(self, wake: Wake) -> None:
        """Wake somebody more whenever something happens."""
        if not self.wakes:
            self.log.budget.keep_tail()
        self.wakes[wake] = None

    def leave(self, wake: Wake) -> None:
        """Wake them no more."""
        del self.wakes[wake]
        if not self.wakes:
            self.log.budget.drop_tail()

    def covers(self, after: int) -> bool:
        """Return whether the tail has everything after number *after*."""
        if self.known_seq is None:
            return False
        return self.known_seq <= after or (bool(self.tail) and self.tail[0].seq <= after + 1)

    def since(self, after: int) -> LogPage:
        """Return the tail after number *after*, which readers who are as far share."""
        if self.page is None or after < self.page.after:
            count = max(0, self.tail[-1].seq - after) if self.tail else 0
            self.page = LogPage(self.log, self.run_seq, after, self.tail[-count:] if count else [])
        return self.page

    def show(self, events: Sequence[StreamEvent]) -> None:
        """Keep *events* for readers who are not far behind, and wake them; those who come later read the log."""
        self.known_seq = events[-1].seq
        if not self.wakes:
            self.clear()
            return
        self.page = None
        self.tail.extend(events)
        self.tail_bytes += sum(len(event.data) for event in events)
        over = max(0, len(self.tail) - TAIL_EVENTS)
        left = self.tail_bytes - sum(len(event.data) for event in self.tail[:over])
        limit_bytes = self.log.budget.tail_bytes
        while left > limit_bytes and over < len(self.tail) - 1:
            left -= len(self.tail[over].data)
            over += 1
        del self.tail[:over]
        self.tail_bytes = left
        if self.readers:  # who waits for the end alone is not told of every event
            self.wake()

    @property
    def followable(self) -> bool:
        """Return whether only the ledger knows what happens to the run."""
        return not self.executing and self.end is None and self.ending is None

    def follow(self, news: RunNews, asked_at: float) -> None:
        """Take over what the ledger, asked at *asked_at*, says of a run that executes in another process."""
        self.followed_at = asked_at
        self.followed = not (news.whole and news.end is not None)
        if news.events:
            self.show(news.events)
        elif news.whole and news.last != self.known_seq:
            self.known_seq = news.last
            self.clear()
            self.wake()
        if not self.followed:
            self.end = news.end
            self.wake()

    def doubt(self) -> None:
        """No news for long: unless the run executes here, ask the ledger from now on."""
        if not self.executing:
            self.followed, self.known_seq = False, None

    def clear(self) -> None:
        """Forget the events."""
        self.tail.clear()
        self.tail_bytes, self.page = 0, None

    def wake(self) -> None:
        for event in self.wakes:
            event.set()
