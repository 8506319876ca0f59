"""Runs that the application moves step by step by ``set_status``; it executes them where Runlane does not see it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping

from runlane.errors import CancelRecorded, IllegalTransition, LeaseLost, NotFound, StoreUnavailable
from runlane.execution.decision import reported_outcome
from runlane.execution.notifier import CompletionNotifier
from runlane.lifecycle import HandBack, RunEvent, RunStatus, move
from runlane.outcomes import Outcome
from runlane.records import CancelReceipt, Claim, Finished, Lease, RunRecord
from runlane.store.ledger import RunStore
from runlane.telemetry.emitter import SILENT, Telemetry
from runlane.work import outlast

log = logging.getLogger("runlane.application")


class ExternalRuns:
    """Claims runs for the application, holds their leases, which the worker renews, and ends them as it says."""

    def __init__(
        self,
        *,
        store: RunStore,
        notifier: CompletionNotifier,
        worker_id: str,
        leases: MutableMapping[str, Lease],
        lease_s: float,
        telemetry: Telemetry = SILENT,
    ) -> None:
        """Args:
        leases: The external leases by run id, shared with the worker, which removes those that are lost.
        """
        self._store = store
        self._notifier = notifier
        self._worker_id = worker_id
        self._leases = leases
        self._lease_s = lease_s
        self._telemetry = telemetry

    async def set_status(self, run: RunRecord, status: RunStatus, error: str | None) -> RunRecord:
        """Claim or end *run*; see :meth:`RunManager.set_status`."""
        if status is RunStatus.RUNNING:
            return await self._claim(run)
        outcome = reported_outcome(run, status, error)
        move(run.run_id, run.status, outcome.event)
        lease = self._leases.get(run.run_id)
        if lease is None:
            raise IllegalTransition(run.run_id, run.status.value, f"set {status.value} by another worker")
        try:
            return await outlast(self._end(lease, outcome))
        except LeaseLost as lost:
            raise IllegalTransition(run.run_id, run.status.value, f"set {status.value} after losing it") from lost

    async def _end(self, lease: Lease, outcome: Outcome) -> RunRecord:
        try:
            finished = await self._store.attempts.finish(lease, outcome)
        except LeaseLost:
            self._leases.pop(lease.run_id, None)
            raise
        if isinstance(finished, CancelReceipt):
            raise CancelRecorded(lease.run_id)
        self._leases.pop(lease.run_id, None)
        self._notifier.announce(finished)
        return finished.run

    async def _claim(self, run: RunRecord) -> RunRecord:
        move(run.run_id, run.status, RunEvent.CLAIM)
        claiming = asyncio.ensure_future(self._store.attempts.claim(run.run_id, self._worker_id, lease_s=self._lease_s))
        try:
            claim = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            await outlast(self._hand_back(claiming))
            raise
        if claim is None:
            raise IllegalTransition(run.run_id, run.status.value, "claim while another run of its thread is before it")
        self._leases[run.run_id] = claim.lease
        self._telemetry.run_claimed(claim.run)
        self._telemetry.run_started(claim.run)
        return claim.run

    async def _hand_back(self, claiming: asyncio.Future[Claim | None]) -> None:
        """Let go of a run whose claim was on its way when its caller was cancelled: nobody knows that it is held."""
        try:
            claim = await claiming
            if claim is not None:
                self._notifier.announce(await self._let_go(claim))
        except (LeaseLost, NotFound, StoreUnavailable) as error:
            log.warning("run.claim_not_handed_back why=%s", error)  # its lease runs out

    async def _let_go(self, claim: Claim) -> Finished:
        released = Outcome(event=RunEvent.RELEASE, end_reason=None, handed_back=HandBack.APPLICATION)
        ended = await self._store.attempts.finish(claim.lease, released)
        if isinstance(ended, CancelReceipt):
            outcome = Outcome(event=RunEvent.STOP, end_reason=ended.reason)
            ended = await self._store.attempts.finish(claim.lease, outcome)
            assert isinstance(ended, Finished), "a run that is stopped after a cancel ends"
        return ended
