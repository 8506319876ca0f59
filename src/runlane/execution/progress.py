"""What is recorded of an attempt while it executes: what it has used so far, and the first state of its thread."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from typing import Final

from runlane.errors import StoreUnavailable
from runlane.records import Claim, Usage
from runlane.store.ledger import RunStore
from runlane.work import own_task

log = logging.getLogger("runlane.progress")


#: A run that ends sooner than this after its first state leaves its own values on the thread, with no write more.
FIRST_VALUES_AFTER_S: Final = 0.1


class FirstValues:
    """Shows the first state of a run on its thread, which has no values yet, while the run goes on."""

    def __init__(self, store: RunStore, claim: Claim) -> None:
        self._store = store
        self._lease = claim.lease
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def show(self, values: bytes) -> None:
        """Show *values*, JSON text, soon. May be called from any thread; a later call does nothing."""
        try:
            self._loop.call_soon_threadsafe(self._take, values)
        except RuntimeError:  # the loop is closed: the process is ending
            return

    async def aclose(self) -> None:
        """Show nothing more; the attempt's ending has the values that stay."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _take(self, values: bytes) -> None:
        if not self._closed and self._task is None:
            self._task = own_task(self._write(values))

    async def _write(self, values: bytes) -> None:
        await asyncio.sleep(FIRST_VALUES_AFTER_S)
        try:
            await self._store.threads.show_first_values(self._lease, values)
        except StoreUnavailable as error:
            log.warning("run.first_values_not_written run_id=%s why=%s", self._lease.run_id, error)


class Progress:
    """Records an attempt's usage, one write at a time, the newest state last: none overtakes another."""

    def __init__(self, store: RunStore, claim: Claim) -> None:
        self._store = store
        self._lease = claim.lease
        self._before = claim.run.usage
        self._loop = asyncio.get_running_loop()
        self._newest: Usage | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def report(self, used: Usage) -> None:
        """Record, soon, what the attempt has *used* in all. May be called from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._take, used)
        except RuntimeError:  # the loop is closed: the process is ending
            return

    async def aclose(self) -> None:
        """Record nothing more; the attempt's ending has the final counters."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _take(self, used: Usage) -> None:
        self._newest = used
        if not self._closed and (self._task is None or self._task.done()):
            self._task = own_task(self._write())

    async def _write(self) -> None:
        while self._newest is not None:
            used, self._newest = self._newest, None
            try:
                changes = asdict(self._before + used)
                await self._store.runs.set_progress(self._lease.run_id, changes, attempt=self._lease.attempt)
            except StoreUnavailable as error:
                log.warning("run.progress_not_written run_id=%s why=%s", self._lease.run_id, error)
