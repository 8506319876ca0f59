"""Giving freed pages of an SQLite file back to the file system, while the process goes on."""

from __future__ import annotations

import logging
from typing import Final

from runlane.store.drivers.sqlite import SqliteDriver
from runlane.store.transactions.space import file_space, give_back
from runlane.supervised_loop import SupervisedLoop
from runlane.telemetry.emitter import SILENT, Telemetry

log = logging.getLogger("runlane.space")

LOOK_EVERY_S: Final = 60.0
#: Between two pieces, so that a slow disk serves others meanwhile: some 25 MB/s at most.
PIECE_EVERY_S: Final = 0.01
#: Free pages are for the next writes: a file is shortened when more than so much of it is free, until less is.
BEGIN_SHARE: Final = 0.2
END_SHARE: Final = 0.1
#: Pages that are left in any case: 1 MiB.
LEAST_PAGES: Final = 256


class FreedPages:
    """Shortens the file of *driver* when much of it is free, in pieces between other writes.

    A file that an earlier version made cannot be shortened until ``runlane migrate --compact`` has copied it.
    """

    def __init__(self, driver: SqliteDriver, telemetry: Telemetry = SILENT) -> None:
        self._driver = driver
        self._pages_before = 0
        self._loop = SupervisedLoop(
            "freed pages",
            self.turn,
            every_s=lambda: PIECE_EVERY_S if self._pages_before else LOOK_EVERY_S,
            telemetry=telemetry,
            at_once=False,
        )

    async def __aenter__(self) -> FreedPages:
        self._loop.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._loop.stop()

    async def turn(self) -> bool:
        """Give one piece back if too much is free; return whether there is more."""
        space = await self._driver.read(file_space())
        share = END_SHARE if self._pages_before else BEGIN_SHARE
        if space.shrinkable and space.spare(share, LEAST_PAGES):
            self._pages_before = self._pages_before or space.pages
            await self._driver.write(give_back())
            return True
        if self._pages_before:
            await self._driver.checkpoint()  # until then the log alone says that the file is shorter
            given_back = (self._pages_before - space.pages) * space.page_bytes
            log.info("space.given_back bytes=%d left_bytes=%d", given_back, space.pages * space.page_bytes)
            self._pages_before = 0
        return False
