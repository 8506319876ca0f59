"""Changes of runs' statuses, for those who show lists of runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final

from runlane.records import AnyOwner, Owner
from runlane.store.ledger import RunStore
from runlane.store.transactions.run_states import RunState
from runlane.supervised_loop import SupervisedLoop
from runlane.telemetry.emitter import Telemetry

#: How often the ledger is asked at least, while somebody wants to know.
POLL_S: Final = 1.0
#: How often it looks whether somebody does: it is woken.
IDLE_S: Final = 3600.0
#: Hints are gathered for so long.
GATHER_S: Final = 0.1
#: What is committed at an instant may have changed so much earlier: each read begins before the one before.
OVERLAP_US: Final = 2_000_000
#: Changes that one read may have, of active runs and of ended ones. With more, lists have to be read again.
MAX_CHANGES: Final = 2_000
#: Changes that wait for one client.
MAX_WAITING: Final = 1_000


class ChangesReader:
    """What one client has not been told yet; a run that changes again is told once."""

    def __init__(self, owner: Owner, on_news: Callable[[], None]) -> None:
        """Args:
        owner: Whose runs it is told of.
        on_news: Called when there is something to take, and when the process closes.
        """
        self.missed = False
        self.on_news = on_news
        self._owner = owner
        self._waiting: dict[int, RunState] = {}

    def take(self, limit: int) -> list[RunState]:
        """Return up to *limit* changes that were not taken yet, the oldest first."""
        taken = list(islice(self._waiting, limit))
        return [self._waiting.pop(run_seq) for run_seq in taken]

    def take_missed(self) -> bool:
        """Return whether there were more changes than can be told, since this was asked last."""
        missed, self.missed = self.missed, False
        return missed

    def tell(self, runs: Iterable[RunState]) -> None:
        """Keep what the owner may know of, until it is taken."""
        mine = [run for run in runs if isinstance(self._owner, AnyOwner) or run.owner == self._owner]
        for run in mine:
            self._waiting.pop(run.seq, None)
            self._waiting[run.seq] = run
        if len(self._waiting) > MAX_WAITING:
            self.miss()
        elif mine:
            self.on_news()

    def miss(self) -> None:
        """Forget what was not taken, but for that there was something."""
        self._waiting.clear()
        self.missed = True
        self.on_news()


class ChangeFeed:
    """Reads from the ledger which runs have changed, once for all readers, and only while there are some.

    A change that was made here, or that a notification hints at, is read soon; any other within ``POLL_S``.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._readers: dict[ChangesReader, None] = {}
        self._begun_at = 0.0  # by the loop's clock
        self._since_us: int | None = None
        self._told: dict[int, RunState] = {}  # what has changed since then
        self._timer: asyncio.TimerHandle | None = None
        self._loop: SupervisedLoop | None = None

    @asynccontextmanager
    async def running(self, telemetry: Telemetry) -> AsyncIterator[None]:
        """Read for those who want to know, until the block is left."""
        self._loop = SupervisedLoop(
            "changes",
            self._look,
            every_s=lambda: POLL_S if self._readers else IDLE_S,
            at_once=False,
            stop_grace_s=0.0,
            telemetry=telemetry,
        )
        async with self._loop:
            yield

    def join(self, owner: Owner, on_news: Callable[[], None]) -> ChangesReader:
        """Return a reader of all changes of *owner*'s runs that are committed from now on, until it leaves."""
        if not self._readers:
            self._begun_at = asyncio.get_running_loop().time()
        reader = ChangesReader(owner, on_news)
        self._readers[reader] = None
        self.soon()
        return reader

    def leave(self, reader: ChangesReader) -> None:
        """Tell *reader* no more; a second call does nothing."""
        self._readers.pop(reader, None)
        if not self._readers:
            self._since_us = None
            self._told.clear()

    def soon(self) -> None:
        """Read soon: something may have changed."""
        if self._readers and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._due)

    def wake(self) -> None:
        """Have all readers look: the process closes."""
        for reader in self._readers:
            reader.on_news()

    def _due(self) -> None:
        self._timer = None
        if self._loop is not None:
            self._loop.soon()

    async def _look(self) -> None:
        if not self._readers:
            return
        since_us = self._since_us
        if since_us is None:
            waited_s = asyncio.get_running_loop().time() - self._begun_at
            since_us = await self._store.runs.database_time() - round(waited_s * 1_000_000) - OVERLAP_US
        found = await self._store.runs.changed(since_us=since_us, limit=MAX_CHANGES)
        self._since_us = found.now_us - OVERLAP_US
        news = sorted((run for run in found.runs if self._told.get(run.seq) != run), key=lambda run: run.updated_at)
        self._told = {run.seq: run for run in found.runs}
        for reader in self._readers:
            if found.whole:
                reader.tell(news)
            else:
                reader.miss()
