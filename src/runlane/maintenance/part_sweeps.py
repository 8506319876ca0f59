"""Removing parts of large values that nothing refers to, after documents of their threads were removed."""

from __future__ import annotations

import logging
from typing import Final

from runlane.errors import RowsLocked, StoreUnavailable
from runlane.store.ledger import RunStore
from runlane.store.transactions.parts import SWEEP_LIMIT
from runlane.supervised_loop import SupervisedLoop
from runlane.telemetry.emitter import SILENT, Telemetry

log = logging.getLogger("runlane.parts")

SWEEP_EVERY_S: Final = 10.0
#: Threads that are looked for at once.
PAGE: Final = 100


class PartSweeper:
    """Sweeps threads that are due, at start and then every ten seconds; one on which a run executes, after that.

    Each transaction looks through one thread and removes a bounded number of parts, so that others write in between.
    """

    def __init__(self, store: RunStore, telemetry: Telemetry = SILENT) -> None:
        self._store = store
        self._loop = SupervisedLoop("part sweep", self.sweep, every_s=SWEEP_EVERY_S, telemetry=telemetry)

    async def __aenter__(self) -> PartSweeper:
        self._loop.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._loop.stop()

    async def sweep(self) -> int:
        """Sweep all threads that are due, and return how many parts were removed."""
        removed, after = 0, ""
        while due := await self._store.parts.due(after=after, limit=PAGE):
            for thread_id in due:
                removed += await self._sweep_thread(thread_id)
            after = due[-1]
        if removed:
            log.info("parts.swept parts=%d", removed)
        return removed

    async def _sweep_thread(self, thread_id: str) -> int:
        removed, found = 0, SWEEP_LIMIT
        try:
            while found == SWEEP_LIMIT:
                found = await self._store.parts.sweep(thread_id)
                removed += found
        except RowsLocked:
            log.info("parts.locked thread_id=%s", thread_id)  # it stays due
        except StoreUnavailable:
            raise
        except Exception:  # supervisor: one thread that cannot be read must not keep the others
            log.exception("parts.sweep_failed thread_id=%s", thread_id)
        return removed
