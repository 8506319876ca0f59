"""State updates that are stored in one transaction: on top of a thread, and from nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runlane.checkpoints.access import Staged
from runlane.checkpoints.saver import LedgerSaver
from runlane.journal.staging import Stage
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.migrate import apply_scripts
from runlane.store.statements import Driver, Transaction


class StagingSaver(LedgerSaver):
    """Reads as if what is written through it were stored; :meth:`transaction` stores it.

    For one state update on a thread: each of its reads costs as much as writing all that is staged.
    """

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self._stage = Stage(driver)
        self._access = Staged(self._stage)

    def transaction(self) -> Transaction[None]:
        """Return the transaction that stores what was written."""
        return self._stage.transaction()


@asynccontextmanager
async def draft() -> AsyncIterator[LedgerSaver]:
    """Give a saver of a ledger of its own, in memory, for a thread that does not exist yet."""
    driver = MemoryDriver()
    await asyncio.to_thread(apply_scripts, driver)
    try:
        yield LedgerSaver(driver)
    finally:
        await driver.aclose()
