"""Purging by retention: events of ended runs, finished deliveries of webhooks, the audit, totals, and ended runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

from runlane.errors import RowsLocked
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
        """Remove everything that is past its retention, in parts, so that writers in between do not wait long.

        What others have locked is left for the next time, and keeps nothing of another kind.
        """
        await _all(partial(self._store.events.purge, older_than_s=self._settings.event_retention_s))
        await _all(partial(self._store.webhooks.purge, older_than_s=self._settings.webhook_retention_s))
        await _all(partial(self._store.audit.purge, older_than_s=self._settings.audit_retention_s))
        await self._store.totals.purge()
        if self._forget_after_s is not None:
            await _all(partial(self._store.runs.purge, older_than_s=self._forget_after_s))


async def _all(purge: Callable[[], Awaitable[int]]) -> None:
    with suppress(RowsLocked):
        while await purge():
            continue
