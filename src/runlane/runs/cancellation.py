"""Cancelling runs: recorded first, then passed on to whoever has to know."""

from __future__ import annotations

import asyncio

from runlane.agents.sources import RunAgents
from runlane.dispatch.base import Dispatch
from runlane.errors import NotFound
from runlane.execution.notifier import CompletionNotifier
from runlane.lifecycle import CancelAction, CancelSource, EndReason, RunStatus
from runlane.records import ANY_OWNER, Cancelled, CancelReceipt, Finished, Head, Owner, RunRecord
from runlane.store.ledger import RunStore
from runlane.store.notifications import Notifications
from runlane.streams.bridge import StreamBridge
from runlane.telemetry.emitter import SILENT, Telemetry
from runlane.work import own_task


class RunCanceller:
    """Records cancels and passes them on. A cancel that was begun is carried through if its caller is cancelled."""

    def __init__(
        self,
        *,
        store: RunStore,
        bridge: StreamBridge,
        dispatch: Dispatch,
        source: RunAgents,
        notifier: CompletionNotifier,
        notifications: Notifications,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._store = store
        self._notifications = notifications
        self._bridge = bridge
        self._dispatch = dispatch
        self._source = source
        self._notifier = notifier
        self._telemetry = telemetry

    async def cancel(
        self,
        run_id: str,
        *,
        owner: Owner,
        reason: EndReason,
        action: CancelAction = CancelAction.INTERRUPT,
        by: str | None = None,
        source: CancelSource = CancelSource.APPLICATION,
    ) -> RunRecord:
        """Record a cancel and pass it on; return the run as it is now.

        Raises:
            NotFound: The owner has no such run.
        """
        return await asyncio.shield(own_task(self._cancel(run_id, owner, action, reason, by, source)))

    async def receipt(self, run: RunRecord, *, wait: bool) -> CancelReceipt | None:
        """Return the receipt of a run that was cancelled.

        Args:
            wait: Return only once the run has ended; see ``stopped_at`` of the receipt.
        """
        if not wait or run.status.terminal:
            return run.cancel
        await self._bridge.ended(run)
        try:
            return (await self._store.runs.get(run.run_id, owner=ANY_OWNER)).cancel
        except NotFound:
            return run.cancel

    def pass_on(self, cancelled: Cancelled) -> None:
        """Tell of a recorded cancel: the worker, or, if the run ended by it, whoever waits."""
        run = cancelled.run
        if run.cancel is None:
            return
        if cancelled.ended or not run.status.terminal:
            self._telemetry.cancel_requested(run)
        if not run.status.terminal:
            self._dispatch.cancel(run.run_id)
            self._notifications.cancel_recorded(run.run_id)
            if run.status is RunStatus.PENDING:
                self._dispatch.submit(Head.of(run))
        elif cancelled.ended:
            self._source.forget(run.run_id)
            self._dispatch.cancel(run.run_id)
            self._notifier.announce(Finished(run=run, next_run=cancelled.next_run, events_end=0))

    async def _cancel(
        self,
        run_id: str,
        owner: Owner,
        action: CancelAction,
        reason: EndReason,
        by: str | None,
        source: CancelSource,
    ) -> RunRecord:
        cancelled = await self._store.runs.request_cancel(
            run_id, owner=owner, action=action, reason=reason, by=by, source=source
        )
        self.pass_on(cancelled)
        return cancelled.run
