"""Slots in which runs execute, the leases of those runs, and the drain of a process that is told to stop."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, MutableMapping
from contextvars import copy_context
from datetime import datetime
from functools import partial
from typing import Any, Final

from runlane.dispatch.base import Dispatch
from runlane.errors import NotFound, RunlaneError, StoreUnavailable
from runlane.execution.attempt import Attempt
from runlane.execution.claiming import Claims, Reservation, count_down
from runlane.execution.decision import StopReason
from runlane.execution.draining import WorkerDrain
from runlane.execution.executor import Executor
from runlane.execution.fetching import Fetcher
from runlane.execution.node_lease import NodeLease
from runlane.execution.ports import AgentSource
from runlane.records import ANY_OWNER, CancelReceipt, Claim, Head, Lease
from runlane.settings import Settings
from runlane.store.ledger import RunStore
from runlane.supervised_loop import SupervisedLoop
from runlane.telemetry.emitter import SILENT, Telemetry

log = logging.getLogger("runlane.worker")

#: Leases are renewed this many times in their lifetime, so that one lost renewal costs nothing.
RENEWALS_PER_LEASE: Final = 3
#: How often they are tried while the ledger is unavailable, so that leases that still last are kept once it is back.
RENEWAL_RETRY_S: Final = 1.0


#: A run's id and the number of an attempt: nothing of one attempt counts for another, not within a process either.
AttemptKey = tuple[str, int]


class Worker:
    """Claims runs that may start, executes each in a slot, keeps their leases, and passes cancels on.

    The ledger decides what is executed: a hint of the dispatch that finds nothing to claim ends quietly.

    Attributes:
        drains: Its drain, which follows what operators ask for.
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
        now: Callable[[], datetime],
        lease: NodeLease,
        external: MutableMapping[str, Lease] | None = None,
        telemetry: Telemetry = SILENT,
    ) -> None:
        """Args:
        lease: Of this process, which it renews.
        external: Leases of runs that the application moves by ``set_status``; removed if lost.
        """
        self.worker_id = worker_id
        self._external = {} if external is None else external
        self._store = store
        self._dispatch = dispatch
        self._executor = executor
        self._source = source
        self._settings = settings
        self._now = now
        self._lease = lease
        self._telemetry = telemetry
        self._attempts: dict[AttemptKey, Attempt] = {}
        self._executing: Counter[str] = Counter()
        self._claims = Claims(worker_id=worker_id, store=store, dispatch=dispatch, source=source, settings=settings)
        self._fenced: set[AttemptKey] = set()
        self._tasks: set[asyncio.Future[None]] = set()
        self._context = copy_context()  # attempts must not inherit that of a request which admits a run
        self._period_s = settings.lease_s / RENEWALS_PER_LEASE
        self._unavailable = False  # the ledger did not take the last renewal
        loop = partial(SupervisedLoop, stop_grace_s=0.0, telemetry=telemetry)
        fetcher = Fetcher(
            dispatch=dispatch,
            source=source,
            claims=self._claims,
            lease=lease,
            attempts=self._attempts,
            spawn=self._spawn,
            occupy=self._occupy,
            execute=lambda claim, sent_at: self._execute(self._begin(claim, sent_at)),
        )
        self._fetching = loop("fetch", fetcher.fetch, every_s=0.0)
        self._cancelling = loop("cancels", self._pass_cancel, every_s=0.0)
        self._renewing = loop("leases", self._renew, every_s=self._until_renewal_s, at_once=False)
        self.drains = WorkerDrain(
            dispatch=dispatch,
            lease=lease,
            settings=settings,
            attempts=self._attempts.values,
            tasks=self._tasks,
            show=self._renewing.soon,
        )

    @property
    def draining(self) -> bool:
        """Return whether nothing is started here."""
        return self.drains.active

    @property
    def executing(self) -> int:
        """Return how many runs execute here now."""
        return len(self._attempts)

    def holds(self, run_id: str, attempt: int) -> bool:
        """Return whether the attempt is here, or about to be: its code executes, or its ending is not written yet."""
        external = self._external.get(run_id)
        here = (run_id, attempt) in self._attempts or (external is not None and external.attempt == attempt)
        return here or run_id in self._claims

    async def __aenter__(self) -> Worker:
        for loop in (self._fetching, self._cancelling, self._renewing):
            loop.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain(0.0)

    async def drain(self, grace_s: float) -> None:
        """Start nothing more, let runs finish for *grace_s*, then stop the rest and hand them back.

        An ending that cannot be written because the ledger is unavailable is given up at last: the run is rescued
        later.

        Returns once no code of a run executes here, or it is abandoned. A second call waits for the same.
        """
        began = asyncio.get_running_loop().time()
        again = self.drains.begin_for_good()
        await self._fetching.stop()
        await self.drains.finish(grace_s)
        await self._cancelling.stop()
        await self._renewing.stop()
        if not again:
            self._telemetry.worker_drained(duration_s=asyncio.get_running_loop().time() - began)

    def reserve(self, head: Head) -> Reservation | None:
        """Keep a slot for a run that is being admitted, to be claimed with its admission; ``None``: it has to wait.

        It has to if runs wait before it, a limit holds it back, or this process cannot execute it, or has no lease.
        """
        if (
            self.draining
            or not self._lease.lasts
            or not self._source.can_execute(head.run_id, head.home)
            or not self._dispatch.take(head)
        ):
            return None
        claimant = self._claims.claimant(head.run_id)
        reservation = Reservation(head, claimant, self._settle, sent_at=self._lease.now())
        self._claims.sent(head.run_id)
        self._tasks.add(reservation.settled)
        reservation.settled.add_done_callback(self._tasks.discard)
        return reservation

    def _settle(self, reservation: Reservation, claim: Claim | None) -> None:
        head, abandoned = reservation.head, reservation.settled.cancelled()
        if claim is None or abandoned or head.run_id in self._executing:
            self._dispatch.done(head)
        else:
            self._occupy(head, self._execute(self._begin(claim, reservation.sent_at)))
        self._claims.arrived(head.run_id)
        if not abandoned:
            reservation.settled.set_result(None)

    def _occupy(self, head: Head, executing: Coroutine[Any, Any, None]) -> None:
        """Execute in the slot in which *head* is counted."""
        self._spawn(executing).add_done_callback(lambda _: self._dispatch.done(head))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that a drain waits for."""
        task = asyncio.get_running_loop().create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("run.attempt_crashed", exc_info=task.exception())

    def _begin(self, claim: Claim, sent_at: float) -> Attempt:
        """Hold *claim*, which was asked for at *sent_at*: from now on it is fenced with the lease, and cancelled."""
        run_id, attempt = claim.run.run_id, Attempt(claim, self._settings, self._now)
        key = run_id, claim.lease.attempt
        self._telemetry.run_claimed(claim.run)
        self._attempts[key] = attempt
        if not self._lease.covers(sent_at):
            log.warning("run.claimed_late run_id=%s", run_id)  # others may have taken it meanwhile
            self._fence(key.__eq__, StopReason.LAPSED)  # handed back by one fenced write: to ask first costs as much
        self._executing[run_id] += 1
        return attempt

    async def _execute(self, attempt: Attempt) -> None:
        lease = attempt.claim.lease
        try:
            await self._executor.execute(attempt)
        finally:
            del self._attempts[lease.run_id, lease.attempt]
            self._fenced.discard((lease.run_id, lease.attempt))
            count_down(self._executing, lease.run_id)

    async def _pass_cancel(self) -> None:
        """Pass the next cancel that the dispatch tells of to the attempt that it stops."""
        run_id = await self._dispatch.next_cancel()
        self._claims.cancelled(run_id)
        if run_id not in self._executing:
            return
        try:
            run = await self._store.runs.get(run_id, owner=ANY_OWNER)
        except (NotFound, StoreUnavailable):
            return  # the next renewal reports the cancel again
        if run.cancel is not None:
            self._cancel(run.cancel)

    def _until_renewal_s(self) -> float:
        return self._until_fence(min(RENEWAL_RETRY_S, self._period_s) if self._unavailable else self._period_s)

    def _until_fence(self, period_s: float) -> float:
        """Return *period_s*, or the seconds until the lease of what executes is over, if that is sooner."""
        if self._fenced.issuperset(self._attempts):
            return period_s
        return min(period_s, max(0.0, self._lease.left_s()))

    def lapse(self) -> None:
        """Stop all attempts: the lease of this process is over, or was."""
        # Without an outage it is this process that stood still, perhaps by what a run did: that is for the rescuer.
        over = StopReason.LAPSED if self._unavailable else StopReason.LEASE_LOST
        self._fence(lambda key: key not in self._fenced, over)

    async def _renew(self) -> None:
        """Renew the lease of this process, and stop the attempts that are lost."""
        now = asyncio.get_running_loop().time()
        if not self._lease.lasts:
            self.lapse()
        held = [
            attempt.claim.lease for attempt in self._attempts.values() if attempt.reason is not StopReason.LEASE_LOST
        ]
        held.extend(self._external.values())
        try:
            async with asyncio.timeout(self._until_fence(self._period_s)):
                renewal = await self._lease.renew(held)
        except (RunlaneError, TimeoutError) as error:
            if not self._unavailable:
                log.warning("lease.renewal_failed leases=%d why=%s", len(held), error)
            self._unavailable = True
            self._telemetry.lease_renewal_failed(leases=len(held), error=error)
            return
        self._unavailable = False
        self._telemetry.leases_renewed(
            renewed=len(held) - len(renewal.lost),
            lost=len(renewal.lost),
            duration_s=asyncio.get_running_loop().time() - now,
        )
        lost = {(lease.run_id, lease.attempt) for lease in renewal.lost}
        for run_id, external in tuple(self._external.items()):
            if (run_id, external.attempt) in lost:
                del self._external[run_id]
        self._fence(lost.__contains__, StopReason.LEASE_LOST)
        for receipt in renewal.cancelled:
            self._cancel(receipt)

    def _cancel(self, receipt: CancelReceipt) -> None:
        """Stop whatever executes the run here: a cancel is the run's, and holds for each of its attempts."""
        if receipt.run_id in self._executing:
            for (run_id, _), attempt in tuple(self._attempts.items()):
                if run_id == receipt.run_id:
                    known = attempt.cancel
                    attempt.stop(StopReason.CANCEL, receipt)
                    if known is None and attempt.cancel is not None:
                        self._telemetry.cancel_observed(attempt.claim.run, receipt, self._now())

    def _fence(self, over: Callable[[AttemptKey], bool], reason: StopReason) -> None:
        for key, attempt in tuple(self._attempts.items()):
            if over(key):
                self._fenced.add(key)
                attempt.stop(reason)
