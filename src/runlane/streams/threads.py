"""The stream of a thread: the streams of its runs, one after the other, in the order in which their turns came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from runlane.records import RunRecord, StreamEnd
from runlane.store.ledger import RunStore
from runlane.store.rows import microseconds
from runlane.streams.bridge import Batch, StreamBridge

#: Runs looked up at once by a reader that catches up.
PAGE: Final = 50


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a thread's stream, after which a reader goes on.

    A run's turn comes when it starts, or when it ends without having started. ``turn_us`` is that instant in
    microseconds of UTC, ``run_seq`` the run's number and ``seq`` the event's. Runs of a thread do not overlap, so that
    places sort as they were reached.
    """

    turn_us: int
    run_seq: int
    seq: int


START: Final = Position(0, 0, 0)


def turn_of(run: RunRecord) -> Position:
    """Return the place before the first event of a run whose turn has come."""
    return Position(_turn_us(run), run.seq, 0)


def past(run: RunRecord) -> Position:
    """Return the place after a run's end: of the end itself."""
    return Position(_turn_us(run), run.seq + 1, 0)


def between_runs(at: datetime) -> Position:
    """Return the place of something that happened at *at*, while no run was active."""
    return Position(microseconds(at), 0, 0)


def _turn_us(run: RunRecord) -> int:
    came_at = run.started_at or run.ended_at
    assert came_at is not None, "its turn has not come"
    return microseconds(came_at)


async def newest_position(store: RunStore, thread_id: str) -> Position:
    """Return the place from which on nothing has happened yet."""
    found = await store.last_turn(thread_id)
    if found is None:
        return START
    if found.status.terminal:
        return past(found)
    return Position(_turn_us(found), found.seq, await store.last_event(found.seq))


async def read_thread(
    bridge: StreamBridge, store: RunStore, thread_id: str, after: Position, news: asyncio.Event
) -> AsyncIterator[tuple[RunRecord, Batch] | None]:
    """Yield batches of the thread's runs after a place; an empty batch is a heartbeat, ``None`` says: all is read.

    It holds no more than a batch, and ends only when the process closes. Who waits for *news* after ``None`` is
    the caller.
    """
    while not bridge.dismissed:
        news.clear()
        found = await store.turns(thread_id, after_us=after.turn_us, after_seq=after.run_seq, limit=PAGE)
        for run in found:
            start, ended = turn_of(run), False
            seen = after.seq if (start.turn_us, start.run_seq) == (after.turn_us, after.run_seq) else 0
            with bridge.watch(run) as watch:
                async for batch in watch.batches(after=seen):
                    yield run, batch
                    ended = bool(batch) and isinstance(batch[-1], StreamEnd)
            if not ended:
                return
            after = past(run)
        if not found:
            yield None
