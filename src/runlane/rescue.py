"""Runs whose worker is dead, lanes whose notice was lost, runs that nobody starts, and what retention removes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from runlane.announcer import Announcer
from runlane.dispatch.base import Dispatch
from runlane.errors import LeaseLost, StoreUnavailable
from runlane.execution import AgentSource
from runlane.lifecycle import EndReason
from runlane.records import RunError, RunRecord, SeenLease
from runlane.settings import Settings
from runlane.store.ledger import RunStore

log = logging.getLogger("runlane.rescue")

#: A lease is over for others only this much later, so that a slow renewal is not taken for a death.
GRACE_S: Final = 2.0
PURGE_EVERY_S: Final = 60.0
#: Heads of lanes that are read at once.
PAGE: Final = 1000
#: A run that has lost its worker too often is not executed again, but claimed to make its thread valid and to end it.
#: A worker may be lost at that too; after so many of them the run is ended with its thread as it is.
REPAIRS: Final = 3


class LeaseObserver:
    """For how long workers have not renewed their leases, by the clock of this process, which nobody sets.

    The ledger's clock may be set: forward, and all leases look over while their owners live; back, and a dead worker's
    lease lies in the future.

    Source: client-go's leader election, which measures the time since it saw a record change.
    """

    def __init__(self) -> None:
        self._since: dict[SeenLease, float] = {}
        self._asked_at = 0.0

    def note(self, leases: Iterable[SeenLease], *, asked_at: float, at: float) -> None:
        """Take note of all leases there are, which were *asked* for and are known since, both on the loop's clock."""
        self._since = {lease: self._since.get(lease, at) for lease in leases}
        self._asked_at = asked_at

    def broken(self) -> None:
        """The ledger was out: nobody knows who would have spoken, and all are given their time again."""
        self._since = {}

    def over(self, lease: SeenLease) -> bool:
        """Return whether *lease* has been the same for its whole length, and a grace time."""
        since = self._since.get(lease)
        return since is not None and self._asked_at - since >= lease.lease_s + GRACE_S


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
        held: Callable[[str], bool],
        exclusive: bool,
        forget_after_s: float | None = None,
    ) -> None:
        """Args:
        held: Whether this process has the run's attempt, which ends it or hands it back by itself.
        exclusive: No other process uses this ledger, so whatever another worker's id runs is lost at once.
        forget_after_s: Delete ended runs after so long; ``None`` keeps them.
        """
        self._worker_id, self._store, self._dispatch, self._source = worker_id, store, dispatch, source
        self._announcer, self._settings = announcer, settings
        self._held, self._exclusive, self._forget_after_s = held, exclusive, forget_after_s
        self._observer = LeaseObserver()
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
        """Take every lost run from its dead worker; return what became of them.

        A run is lost if its lease was not renewed for its length while this process watched. What this process holds is
        not lost, and what another worker holds of a ledger that is only this process's is lost at once.
        """
        rescued: list[RunRecord] = []
        asked_at = asyncio.get_running_loop().time()
        leases = await self._store.leases()
        self._observer.note(leases, asked_at=asked_at, at=asyncio.get_running_loop().time())
        for lease in leases:
            finished = await self._rescue(lease) if self._is_lost(lease) else None
            if finished is not None:
                rescued.append(finished)
        return tuple(rescued)

    def _is_lost(self, lease: SeenLease) -> bool:
        if lease.worker_id == self._worker_id:
            return not self._held(lease.run_id) and self._observer.over(lease)
        return self._exclusive or self._observer.over(lease)

    async def _rescue(self, lease: SeenLease) -> RunRecord | None:
        try:
            finished = await self._store.rescue(lease, max_rescues=self._settings.max_rescues + REPAIRS)
        except LeaseLost:
            return None  # it was renewed or finished since it was seen
        log.warning(
            "run.rescued run_id=%s attempt=%d status=%s", lease.run_id, lease.attempt, finished.run.status.value
        )
        if finished.run.status.terminal:
            self._source.forget(lease.run_id)
        self._announcer.announce(finished)
        return finished.run

    async def dispatch_runnable(self) -> None:
        """Tell the dispatch of every lane that could go on; end runs that nobody attached code to in time."""
        after_seq = 0
        while page := await self._store.runnable(after_seq=after_seq, limit=PAGE):
            for head, wait_us in page:
                wait_s = wait_us / 1_000_000
                if self._source.has(head.run_id):
                    self._dispatch.submit(head, delay_s=max(0.0, wait_s))
                elif -wait_s > self._settings.start_within_s:
                    await self._give_up(head.run_id)
            after_seq = page[-1][0].seq

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
        while old := await self._store.forgettable(older_than_s=self._forget_after_s):
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
                self._observer.broken()
                log.warning("rescue.waiting why=%s", error)
            except Exception:  # supervisor: a defect here must not end rescuing
                log.exception("rescue.failed")
