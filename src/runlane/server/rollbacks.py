"""Runs that were rolled back are deleted: by the process that ended them, or by another if that one could not."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from runlane.errors import NotFound
from runlane.records import ANY_OWNER
from runlane.store.ledger import RunStore
from runlane.supervised_loop import SupervisedLoop
from runlane.telemetry.emitter import SILENT, Telemetry

EVERY_S: Final = 60.0
#: How far the first look goes back, and by how much each later one overlaps the one before it.
LOOK_BACK_S: Final = 86_400.0
OVERLAP_S: Final = 60.0
BATCH: Final = 100


async def delete_rolled_back(store: RunStore, run_id: str) -> None:
    """Delete the row of a rolled back run, as the LangGraph API does; does nothing if it is gone."""
    with suppress(NotFound):
        await store.runs.delete(run_id, owner=ANY_OWNER)


class RollbackSweeper:
    """Deletes rolled back runs whose process died, or was cut from the ledger, before it could."""

    def __init__(self, store: RunStore, telemetry: Telemetry = SILENT) -> None:
        self._store = store
        self._looked_at: float | None = None
        self._loop = SupervisedLoop("rollback sweep", self.sweep, every_s=EVERY_S, telemetry=telemetry)

    async def __aenter__(self) -> RollbackSweeper:
        self._loop.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._loop.stop()

    async def sweep(self) -> None:
        """Delete those that ended since the last look that went through."""
        began = asyncio.get_running_loop().time()
        age_s = LOOK_BACK_S if self._looked_at is None else began - self._looked_at + OVERLAP_S
        while found := await self._store.runs.rolled_back(within_s=age_s, limit=BATCH):
            for run_id in found:
                await delete_rolled_back(self._store, run_id)
        self._looked_at = began
