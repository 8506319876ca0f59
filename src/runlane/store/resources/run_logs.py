"""The log records of runs."""

from __future__ import annotations

from runlane.records import Lease
from runlane.store.retrying import RetryingDriver
from runlane.store.transactions import run_logs
from runlane.store.transactions.run_logs import LogPlace, RecordsPage
from runlane.telemetry.run_log import LogSegment

_START = LogPlace()


class RunLogs:
    """``store.run_logs``."""

    def __init__(self, database: RetryingDriver) -> None:
        self._database = database

    async def append(self, lease: Lease, segment: LogSegment) -> None:
        """Store records of an attempt; doing it again, or with later ones added, changes nothing that is read.

        Raises:
            LeaseLost: Another attempt has the run, or it is terminal; nothing was written.
        """
        await self._database.write(lambda: run_logs.append_log(lease, segment))

    async def read(self, run_seq: int, *, after: LogPlace = _START, limit: int = 100) -> RecordsPage:
        """Return the next records of a run, the oldest first, up to *limit*."""
        return await self._database.read(lambda: run_logs.read_log(run_seq, after, limit))
