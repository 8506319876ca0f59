"""Slots in which runs execute, the leases of those runs, and the drain of a process that is told to stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from runlane.dispatch.base import Dispatch
from runlane.errors import NotFound, RunlaneError, StoreUnavailable
from runlane.execution import AgentSource, Attempt, Executor, StopReason
from runlane.records import ANY_OWNER
from runlane.settings import Settings
from runlane.store.ledger import RunStore

log = logging.getLogger("runlane.worker")

#: Leases are renewed this many times in their lifetime, so that one lost renewal costs nothing.
RENEWALS_PER_LEASE: Final = 3


class Worker:
    """Claims runs that may start, executes each in a slot, keeps their leases, and passes cancels on.

    The ledger decides what is executed: a hint of the dispatch that finds nothing to claim ends quietly.
    """

    def __init__(
        self,
        *,
        worker_id: str,
        store: RunStore,
        dispatch: Dispatch,
        executor: Executor,
        source: AgentSource,
        settings: Settings,
    ) -> None:
        self.worker_id = worker_id
        self._store, self._dispatch, self._executor, self._source = store, dispatch, executor, source
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.max_concurrent_runs)
        self._attempts: dict[str, Attempt] = {}
        self._confirmed: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self.draining = False

    @property
    def executing(self) -> int:
        """How many runs execute here now."""
        return len(self._attempts)

    async def __aenter__(self) -> Worker:
        for loop in (self._fetch, self._pass_cancels, self._keep_leases):
            self._loops.append(asyncio.get_running_loop().create_task(_supervised(loop)))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain(0.0)

    async def drain(self, grace_s: float) -> None:
        """Start nothing more, let runs finish for *grace_s*, then stop the rest and hand them back.

        Returns once no code of a run executes here, or was left behind. A second call waits for the same.
        """
        self.draining = True
        for task in self._loops[:1]:
            task.cancel()
        if self._tasks and grace_s > 0:
            await asyncio.wait(tuple(self._tasks), timeout=grace_s)
        while self._tasks:
            for attempt in tuple(self._attempts.values()):
                attempt.stop(StopReason.DRAIN)
            await asyncio.wait(tuple(self._tasks), timeout=0.1)
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def _fetch(self) -> None:
        while True:
            await self._slots.acquire()
            try:
                run_id = await self._dispatch.next_run()
            except BaseException:
                self._slots.release()
                raise
            if not self._source.has(run_id):
                self._slots.release()
                continue
            task = asyncio.get_running_loop().create_task(self._execute(run_id))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled() and task.exception() is not None:
            log.error("run.attempt_crashed", exc_info=task.exception())

    async def _execute(self, run_id: str) -> None:
        sent_at = asyncio.get_running_loop().time()
        try:
            claim = await self._store.claim(run_id, self.worker_id, lease_s=self._settings.lease_s)
        except StoreUnavailable as error:
            log.warning("run.claim_failed run_id=%s why=%s", run_id, error)
            return
        if claim is None:
            return
        attempt = Attempt(claim, self._settings)
        self._attempts[run_id] = attempt
        self._confirmed[run_id] = sent_at + self._settings.lease_s
        log.info("run.started run_id=%s attempt=%d", run_id, claim.lease.attempt)
        try:
            await self._executor.execute(attempt)
        finally:
            self._attempts.pop(run_id, None)
            self._confirmed.pop(run_id, None)

    async def _pass_cancels(self) -> None:
        while True:
            run_id = await self._dispatch.next_cancel()
            attempt = self._attempts.get(run_id)
            if attempt is None:
                continue
            try:
                run = await self._store.get_run(run_id, owner=ANY_OWNER)
            except (NotFound, StoreUnavailable):
                continue  # the next renewal reports the cancel again
            if run.cancel is not None:
                attempt.stop(StopReason.CANCEL, run.cancel)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_s / RENEWALS_PER_LEASE)
            await self._renew()

    async def _renew(self) -> None:
        now = asyncio.get_running_loop().time()
        held = {run_id: attempt.claim.lease for run_id, attempt in self._attempts.items()}
        if not held:
            return
        try:
            async with asyncio.timeout(self._settings.lease_s / RENEWALS_PER_LEASE):
                renewal = await self._store.renew(tuple(held.values()), lease_s=self._settings.lease_s)
        except (RunlaneError, TimeoutError) as error:
            log.warning("lease.renewal_failed runs=%d why=%s", len(held), error)
            self._fence(lambda run_id: self._confirmed.get(run_id, now) <= asyncio.get_running_loop().time())
            return
        for lease in renewal.renewed:
            if lease.run_id in self._confirmed:
                self._confirmed[lease.run_id] = now + self._settings.lease_s
        lost = {lease.run_id for lease in renewal.lost}
        self._fence(lost.__contains__)
        for receipt in renewal.cancelled:
            attempt = self._attempts.get(receipt.run_id)
            if attempt is not None:
                attempt.stop(StopReason.CANCEL, receipt)

    def _fence(self, lost: Callable[[str], bool]) -> None:
        for run_id, attempt in tuple(self._attempts.items()):
            if lost(run_id):
                attempt.stop(StopReason.LEASE_LOST)


async def _supervised(loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop of this process for ever: an error in it is a defect, and no reason to stop serving."""
    while True:
        try:
            await loop()
        except Exception:  # supervisor
            log.exception("worker.loop_failed")
            await asyncio.sleep(1.0)
