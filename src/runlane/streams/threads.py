"""The stream of a thread: the streams of its runs, one after the other, in the order of their starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from runlane.records import RunRecord, Thread
from runlane.store.ledger import RunStore
from runlane.streams.batches import EventBatch, LargeEvent, ends
from runlane.streams.bridge import StreamBridge

#: Runs looked up at once by a reader that catches up.
PAGE: Final = 50


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a thread's stream, after which a reader goes on.

    ``order`` is the run's ``start_order``, or that of a state that was written while no run was active; ``seq`` is the
    event's number. Runs of a thread do not overlap, so that places sort as they were reached.
    """

    order: int
    seq: int


START: Final = Position(0, 0)


def start_of(run: RunRecord) -> Position:
    """Return the place before the first event of a run that has started, or ended without."""
    assert run.start_order is not None, "it has not started"
    return Position(run.start_order, 0)


def past(run: RunRecord) -> Position:
    """Return the place after a run's end: of the end itself."""
    return Position(start_of(run).order + 1, 0)


def state_of(thread: Thread) -> Position:
    """Return the place of the state that was last written outside of a run; ``START`` if none was."""
    return Position(thread.state_order, 1) if thread.state_order else START


async def newest_position(store: RunStore, thread: Thread) -> Position:
    """Return the place from which on nothing has happened yet."""
    found = await store.runs.last_started(thread.thread_id)
    if found is None:
        newest = START
    elif found.status.terminal:
        newest = past(found)
    else:
        newest = Position(start_of(found).order, await store.events.last(found.seq))
    return max(newest, state_of(thread))


async def read_thread(
    bridge: StreamBridge, store: RunStore, thread_id: str, after: Position, news: asyncio.Event
) -> AsyncIterator[tuple[RunRecord, EventBatch | LargeEvent] | None]:
    """Yield parts of the thread's runs after a place; an empty batch is a heartbeat, ``None`` says: all is read.

    It holds no more than a batch, and ends only when the process closes. Who waits for *news* after ``None`` is
    the caller.
    """
    while not bridge.dismissed:
        news.clear()
        found = await store.runs.started(thread_id, from_order=after.order, limit=PAGE)
        for run in found:
            ended, seen = False, after.seq if run.start_order == after.order else 0
            with bridge.watch(run) as watch:
                async for part in watch.parts(after=seen):
                    yield run, part
                    ended = ends(part)
            if not ended:
                return
            after = past(run)
        if not found:
            yield None
