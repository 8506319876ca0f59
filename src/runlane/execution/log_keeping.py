"""Keeping the log of an attempt in the ledger: soon while it executes, and the rest with its ending."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from runlane.errors import LeaseLost, StoreUnavailable
from runlane.journal.loops import call
from runlane.records import Lease
from runlane.store.resources.run_logs import RunLogs
from runlane.telemetry.context import SCOPE
from runlane.telemetry.run_log import LogSegment, RunLog
from runlane.work import own_task

log = logging.getLogger("runlane.execution")

#: While an attempt executes, its new records are written this long after the first of them.
EVERY_S: Final = 2.0


class LogKeeper:
    """Writes the log of one attempt, one segment at a time. What cannot be written is dropped, and fails no run."""

    def __init__(self, logs: RunLogs, lease: Lease, *, max_bytes: int) -> None:
        """Begin, on the running loop, with an empty log."""
        self.log = RunLog(lease.attempt, max_bytes, self._on_unwritten)
        self._logs = logs
        self._lease = lease
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def rest(self) -> LogSegment | None:
        """Write nothing more, and return what is left, to be written with the attempt's ending."""
        await self._stop()
        return self.log.unwritten()

    async def aclose(self) -> None:
        """Write nothing more, and take nothing more."""
        await self._stop()
        self.log.close()

    async def _stop(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _on_unwritten(self) -> None:
        call(self._loop, self._write_later)

    def _write_later(self) -> None:
        if not self._closed:
            self._timer = self._loop.call_later(EVERY_S, self._begin)

    def _begin(self) -> None:
        self._task = own_task(self._write())

    async def _write(self) -> None:
        SCOPE.set(None)  # what is logged here is not the run's
        segment = self.log.unwritten()
        assert segment is not None  # there is something to be written until this has done it
        try:
            await self._logs.append(self._lease, segment)
        except LeaseLost:
            return  # and so is every later one
        except StoreUnavailable:  # once it is back, the ledger gets what there is room for until then
            self._write_later()
            return
        except Exception as error:  # noqa: BLE001 - whatever keeps a log from being written must not fail its run
            run_id, records = self._lease.run_id, len(segment.records)
            log.warning("run.log_refused run_id=%s records=%d why=%s", run_id, records, error)
        if self.log.written(segment):
            self._write_later()
