"""The durable log of events behind every stream."""

from __future__ import annotations

from collections.abc import Mapping

from runlane.records import StreamEnd, StreamEvent
from runlane.store.retrying import RetryingDriver
from runlane.store.transactions import events, log_pages, news, run_queries
from runlane.store.transactions.news import RunNews

#: Segments of a log read at once, and their bytes; bounds the memory of one catching-up reader.
READ_SEGMENTS = 64
READ_BYTES = 1024 * 1024
#: News of many runs that are read at once.
NEWS_BYTES = 4 * 1024 * 1024


class Events:
    """``store.events``."""

    def __init__(self, database: RetryingDriver) -> None:
        self._database = database

    async def read(self, run_seq: int, *, after: int, max_bytes: int = READ_BYTES) -> tuple[StreamEvent, ...]:
        """Return the next events with numbers above *after*; a later first number means that retention removed some.

        Args:
            max_bytes: It stops once there is so much, as nearly as the segments of the log let it.
        """
        return await self._database.read(lambda: events.read_events(run_seq, after, READ_SEGMENTS, max_bytes))

    async def read_before(self, run_seq: int, *, before: int, limit: int) -> tuple[StreamEvent, ...]:
        """Return the last *limit* events with numbers below *before*, or fewer if they are large; oldest first."""
        return await self._database.read(lambda: log_pages.read_events_before(run_seq, before, limit, READ_BYTES))

    async def news(self, cursors: Mapping[int, int | None]) -> dict[int, RunNews]:
        """Return what has happened to each of the runs in *cursors*, by its number.

        Args:
            cursors: After which event each is to be read; ``None``: its events are not wanted.
        """
        return await self._database.read(lambda: news.read_news(cursors, NEWS_BYTES))

    async def last(self, run_seq: int) -> int:
        """Return the number of the newest event in a run's log; 0 if there is none."""
        return await self._database.fast_read(lambda: events.last_event(run_seq))

    async def end(self, run_seq: int, *, thread_id: str | None = None) -> StreamEnd | None:
        """Return the end of a run's stream, or ``None`` while the run is active.

        A run of another thread than *thread_id*, if that is given, is as one that was deleted.
        """
        return await self._database.fast_read(lambda: run_queries.stream_end(run_seq, thread_id))

    async def purge(self, *, older_than_s: float, limit: int = 100) -> int:
        """Remove the events of up to *limit* runs that ended long enough ago; return of how many."""
        return await self._database.write(lambda: events.purge_events(older_than_s, limit))
