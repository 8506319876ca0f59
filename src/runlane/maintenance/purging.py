"""Purging by retention: events of ended runs, finished deliveries of webhooks, and ended runs."""

from __future__ import annotations

from typing import Final

from runlane.settings import Settings
from runlane.store.ledger import RunStore
from runlane.supervised_loop import SupervisedLoop
from runlane.telemetry.emitter import SILENT, Telemetry

PURGE_EVERY_S: Final = 60.0


class Purger:
    """Removes what is past its retention, at start and then every minute."""

    def __init__(
        self,
        *,
        store: RunStore,
        settings: Settings,
        forget_after_s: float | None = None,
        telemetry: Telemetry = SILENT,
    ) -> None:
        """Args:
        forget_after_s: Delete ended runs after so long; ``None`` keeps them.
        """
        self._store = store
        self._settings = settings
        self._forget_after_s = forget_after_s
        self._loop = SupervisedLoop("purge", self.purge, every_s=PURGE_EVERY_S, telemetry=telemetry)

    async def __aenter__(self) -> Purger:
        self._loop.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._loop.stop()

    async def purge(self) -> None:
        """Remove everything that is past its retention, in parts, so that writers in between do not wait long."""
        while await self._store.events.purge(older_than_s=self._settings.event_retention_s):
            continue
        while await self._store.webhooks.purge(older_than_s=self._settings.webhook_retention_s):
            continue
        if self._forget_after_s is None:
            return
        while old := await self._store.runs.forgettable(older_than_s=self._forget_after_s):
            for run in old:
                await self._store.runs.delete(run.run_id, owner=run.owner)
