"""Following runs that are watched here and execute in other processes: one read tells of all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from runlane.store.ledger import RunStore
from runlane.store.notifications import Notifications
from runlane.streams.live import Live
from runlane.supervised_loop import SupervisedLoop
from runlane.telemetry.emitter import SILENT, Telemetry

#: How often the ledger is asked at least: what no notification tells of is seen this much later.
POLL_S: Final = 1.0
#: The process that executes a run is told that it is read here: each second, and no sooner than this. It takes the run
#: as read for so long, so that two notifications in a row may be lost.
TELL_S: Final = POLL_S / 2
READ_ELSEWHERE_S: Final = 3 * POLL_S
#: Runs that are asked for at once.
MAX_RUNS: Final = 1000


class Follower:
    """Reads what others write of the runs that are watched here, and shows it to their readers; a context manager.

    Readers who have caught up wait for it. Otherwise each of them would ask the ledger for itself.
    """

    def __init__(
        self,
        store: RunStore,
        watched: Callable[[], Iterable[Live]],
        notifications: Notifications,
        *,
        telemetry: Telemetry = SILENT,
    ) -> None:
        """Args:
        watched: Returns what may be followed: the state of each run that executes here or is watched.
        notifications: Tell who executes a run that it is read here, so that it does not gather events for long.
        """
        self._store = store
        self._notifications = notifications
        self._watched = watched
        self._told: set[int] = set()
        self._poll_at = 0.0
        self._loop = SupervisedLoop("streams", self._look, every_s=POLL_S, stop_grace_s=0.0, telemetry=telemetry)

    async def __aenter__(self) -> Follower:
        self._loop.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._loop.stop()

    def hear(self, run_seqs: Iterable[int]) -> None:
        """Ask for the runs of these numbers now, as far as they are followed."""
        told = {live.run_seq for live in self._followed()}.intersection(run_seqs)
        if told:
            self._told |= told
            self._loop.soon()

    def look(self) -> None:
        """Ask for all runs now: notifications may have been lost."""
        self._poll_at = 0.0
        self._loop.soon()

    def _followed(self) -> Iterable[Live]:
        return (live for live in self._watched() if live.wakes and live.followable)

    async def _look(self) -> None:
        """Ask for the runs of which something was told, or for all of them when that is due."""
        now = asyncio.get_running_loop().time()
        told, self._told = self._told, set()
        is_poll = now >= self._poll_at
        if is_poll:
            self._poll_at = now + POLL_S
        asked = iter([live for live in self._followed() if is_poll or live.run_seq in told])
        while some := list(islice(asked, MAX_RUNS)):
            await self._ask(some)

    async def _ask(self, lives: list[Live]) -> None:
        asked_at = asyncio.get_running_loop().time()
        known = {live.run_seq: live.known_seq for live in lives}
        cursors = {live.run_seq: live.known_seq if live.readers else None for live in lives}
        found = await self._store.events.news(cursors)
        for live in lives:
            # It may have been claimed here meanwhile, and then this is old.
            if live.followable and live.known_seq == known[live.run_seq]:
                news = found[live.run_seq]
                live.follow(news, asked_at)
                if live.readers and live.followed and live.known_seq:
                    self.tell(live)
                if not news.whole:
                    self._told.add(live.run_seq)
                    self._loop.soon()

    def tell(self, live: Live) -> None:
        """Tell who executes the run that it is read here, unless that was told a moment ago."""
        now = asyncio.get_running_loop().time()
        if now - live.told_at >= TELL_S:
            live.told_at = now
            self._notifications.run_read(live.run_seq)
