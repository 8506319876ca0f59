"""One reader of many runs' streams: in turn, a bounded part at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

from runlane.streams.batches import EventBatch, LargeEvent, ends
from runlane.streams.budget import FIRST_PART_BYTES, ReaderBudget
from runlane.streams.live import Wake
from runlane.streams.watch import RunReader, Streamed, place_after

#: A frame has no more data than this and one turn's, but for one event that is larger.
FRAME_BYTES: Final = 64 * 1024
#: What a run gives before it is another's turn.
TURN_BYTES: Final = FIRST_PART_BYTES

R = TypeVar("R", bound=Streamed)
#: Parts of streams that are sent together, each with its run; a large event is the last one.
Frame = list[tuple[R, EventBatch | LargeEvent]]


class SourceWake(Wake):
    """A flag of one of several runs, which is set for all of them together."""

    __slots__ = ("_on_set",)

    def __init__(self, on_set: Callable[[], None]) -> None:
        super().__init__()
        self._on_set = on_set

    def set(self) -> None:
        self._on_set()


@dataclass(eq=False, slots=True)
class _Source(Generic[R]):
    """One of the runs, and the number after which it is read on."""

    run: R
    reader: RunReader
    cursor: int


class Multiplexer(Generic[R]):
    """Reads many runs' streams; a context manager.

    Runs that have something take turns, so that none waits for another's whole log. Nothing is read before the last
    frame was taken, and no more than a frame is held.
    """

    def __init__(
        self,
        places: Mapping[R, int],
        open_reader: Callable[[R, Wake], RunReader],
        *,
        budget: ReaderBudget,
        heartbeat_s: float,
        dismissed: Callable[[], bool],
    ) -> None:
        """Args:
        places: The runs, each with the number of the event after which it is read.
        dismissed: Returns whether the process closes, and readers are to stop.
        """
        self._budget = budget
        self._heartbeat_s = heartbeat_s
        self._dismissed = dismissed
        self._sources: dict[int, _Source[R]] = {}
        self._ready: dict[int, None] = {}  # numbers of the runs that may have something, in the order of their turns
        self._wake = Wake()
        self._asked = False  # a frame is wanted, if only an empty one
        self._taken_bytes = 0
        self._looked_at = asyncio.get_running_loop().time()
        self._timer: asyncio.TimerHandle | None = None
        for run, after in places.items():
            reader = open_reader(run, SourceWake(partial(self._news_of, run.seq)))
            self._sources[run.seq] = _Source(run, reader, after)
            self._ready[run.seq] = None

    def close(self) -> None:
        """Stop hearing of the runs; a second call does nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for run_seq in list(self._sources):
            self._leave(run_seq)
        self._wake.set()

    def wake(self) -> None:
        """Have a frame yielded soon, if only an empty one."""
        self._asked = True
        self._wake.set()

    async def frames(self, *, go_on_without_runs: bool = False) -> AsyncIterator[Frame[R]]:
        """Yield what there is, until all runs have ended or the process closes; an empty frame when :meth:`wake` asks.

        Args:
            go_on_without_runs: It does not end with the last run: there is other news.
        """
        self._timer = asyncio.get_running_loop().call_later(self._heartbeat_s, self._look)
        self._budget.join()
        try:
            for source in self._sources.values():
                source.reader.start()
            while not self._dismissed():
                self._wake.clear()
                handed = [await self._frame()]
                if handed[0]:
                    yield handed.pop()  # a client that does not take it must not keep it in memory
                elif not self._sources and not go_on_without_runs:
                    return
                elif self._asked:
                    self._asked = False
                    yield []
                else:
                    await self._wake.wait()
        finally:
            self._budget.leave()
            self.close()

    async def _frame(self) -> Frame[R]:
        frame: Frame[R] = []
        size, limit_bytes = 0, min(FRAME_BYTES, self._budget.part_bytes(self._taken_bytes))
        while self._ready and size < limit_bytes:
            run_seq = next(iter(self._ready))
            del self._ready[run_seq]  # what is committed from here on makes it ready again
            source = self._sources.get(run_seq)
            part = None if source is None else await source.reader.part(source.cursor, min(TURN_BYTES, limit_bytes))
            if source is None or part is None:
                continue
            source.cursor = place_after(part)
            frame.append((source.run, part))
            if ends(part):
                self._leave(run_seq)
                continue
            self._ready[run_seq] = None
            size += part.size
            if isinstance(part, LargeEvent):
                break
        self._taken_bytes += size
        return frame

    def _news_of(self, run_seq: int) -> None:
        self._ready[run_seq] = None
        self._wake.set()

    def _leave(self, run_seq: int) -> None:
        reader = self._sources.pop(run_seq).reader
        reader.stop()
        reader.close()
        self._ready.pop(run_seq, None)

    def _look(self) -> None:
        """Ask the ledger again for what was not heard of for long."""
        loop = asyncio.get_running_loop()
        for source in self._sources.values():
            source.reader.doubt_since(self._looked_at)
            self._ready[source.run.seq] = None
        self._looked_at = loop.time()
        self._timer = loop.call_later(self._heartbeat_s, self._look)
        self.wake()
