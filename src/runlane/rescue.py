"""Runs whose worker is dead, lanes whose notice was lost, runs that nobody starts, and what retention removes."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from runlane.announcer import Announcer
from runlane.dispatch.base import Dispatch
from runlane.errors import LeaseLost, StoreUnavailable
from runlane.execution import AgentSource
from runlane.lifecycle import EndReason
from runlane.records import RunError, RunRecord
from runlane.settings import Settings
from runlane.store.ledger import RunStore

log = logging.getLogger("runlane.rescue")

#: A lease is over for others only this much later, so that a slow renewal is not taken for a death.
GRACE_S: Final = 2.0
PURGE_EVERY_S: Final = 60.0
#: A run that has lost its worker too often is not executed again, but claimed to make its thread valid and to end it.
#: A worker may be lost at that too; after so many of them the run is ended with its thread as it is.
REPAIRS: Final = 3


class Rescuer:
    """Looks, at start and then every ``poll_s``, for work that lost its worker or its notice."""

    def __init__(
        self,
        *,
        worker_id: str,
        store: RunStore,
        dispatch: Dispatch,
        source: AgentSource,
        announcer: Announcer,
        settings: Settings,
        exclusive: bool,
        forget_after_s: float | None = None,
    ) -> None:
        """Args:
        exclusive: No other process uses this ledger, so whatever another worker's id runs is lost at once.
        forget_after_s: Delete ended runs after so long; ``None`` keeps them.
        """
        self._worker_id, self._store, self._dispatch, self._source = worker_id, store, dispatch, source
        self._announcer, self._settings = announcer, settings
        self._exclusive, self._forget_after_s = exclusive, forget_after_s
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Rescuer:
        await self.rescue_lost()
        await self.dispatch_runnable()
        self._task = asyncio.get_running_loop().create_task(self._poll())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def rescue_lost(self) -> tuple[RunRecord, ...]:
        """Take every lost run from its dead worker; return what became of them."""
        rescued = []
        while lost := await self._store.lost_runs(self._worker_id, exclusive=self._exclusive, grace_s=GRACE_S):
            for run in lost:
                try:
                    finished = await self._store.rescue(run, max_rescues=self._settings.max_rescues + REPAIRS)
                except LeaseLost:
                    continue  # it was renewed or finished since it was seen
                log.warning(
                    "run.rescued run_id=%s attempt=%d status=%s", run.run_id, run.attempt, finished.run.status.value
                )
                if finished.run.status.terminal:
                    self._source.forget(run.run_id)
                self._announcer.announce(finished)
                rescued.append(finished.run)
        return tuple(rescued)

    async def dispatch_runnable(self) -> None:
        """Tell the dispatch of every lane that could go on; end runs that nobody attached code to in time."""
        for run_id, wait_us in await self._store.runnable():
            wait_s = wait_us / 1_000_000
            if self._source.has(run_id):
                self._dispatch.submit(run_id, delay_s=max(0.0, wait_s))
            elif -wait_s > self._settings.start_within_s:
                await self._give_up(run_id)

    async def _give_up(self, run_id: str) -> None:
        error = RunError(error="NeverStarted", message="No code was attached to this run in time; see start().")
        finished = await self._store.give_up(run_id, EndReason.NEVER_STARTED, error)
        if finished is not None:
            self._announcer.announce(finished)

    async def purge(self) -> None:
        """Remove what retention says."""
        while await self._store.purge_events(older_than_s=self._settings.event_retention_s):
            pass  # in parts, so that writers in between do not wait long
        if self._forget_after_s is None:
            return
        while old := await self._store.forgettable(older_than_s=self._forget_after_s, only_temporary=False):
            for run in old:
                await self._store.delete_run(run.run_id, owner=run.owner)

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        purge_at = loop.time()
        while True:
            await asyncio.sleep(self._settings.poll_s)
            try:
                await self.rescue_lost()
                await self.dispatch_runnable()
                if loop.time() >= purge_at:
                    purge_at = loop.time() + PURGE_EVERY_S
                    await self.purge()
            except StoreUnavailable as error:
                log.warning("rescue.waiting why=%s", error)
            except Exception:  # supervisor: a defect here must not end rescuing
                log.exception("rescue.failed")
