"""Totals of runs that ended, and the groups of their failures."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from runlane.store.retrying import RetryingDriver
from runlane.store.transactions import failure_queries, overview, total_queries, totals
from runlane.store.transactions.failure_queries import FailureFilter, FailureGroup
from runlane.store.transactions.overview import Overview
from runlane.store.transactions.total_queries import By, Total, TotalFilter
from runlane.store.transactions.totals import KEPT_DAYS

#: Runs of one transaction: it takes a few milliseconds, for which other writers wait on SQLite.
BATCH: Final = 200


class Totals:
    """``store.totals``."""

    def __init__(self, database: RetryingDriver) -> None:
        self._database = database

    async def count(self, *, limit: int = BATCH) -> int:
        """Add up to *limit* runs that ended to the totals, and return how many. If there are none, it only reads."""
        if await self.oldest_uncounted() is None:
            return 0
        return await self._database.write(lambda: totals.count_ended(limit))

    async def oldest_uncounted(self) -> datetime | None:
        """Return when the oldest run ended that is not in the totals; ``None`` if all are."""
        return await self._database.read(totals.oldest_uncounted)

    async def purge(self, *, kept_days: int = KEPT_DAYS) -> None:
        """Delete the totals of days that are longer ago."""
        await self._database.write(lambda: totals.purge_totals(kept_days))

    async def list(self, by: By, where: TotalFilter) -> tuple[Total, ...]:
        """Return totals, those with the most tokens first; of days, the newest first."""
        return await self._database.read(lambda: total_queries.totals(by, where))

    async def overview(self) -> Overview:
        """Return what waits, runs and ended."""
        return await self._database.read(overview.overview)

    async def failures(self, where: FailureFilter) -> tuple[FailureGroup, ...]:
        """Return groups of failures, those with the most failures first.

        Raises:
            NotFound: No run of the build ``new_since_build`` is counted.
        """
        return await self._database.read(lambda: failure_queries.failures(where))
