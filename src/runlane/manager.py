"""RunManager: what a caller can ask of runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime
from functools import partial
from typing import Any, Protocol, Unpack

from runlane.admission import check_page, parse_choice
from runlane.agents.sources import AgentLike
from runlane.errors import NotFound
from runlane.execution.application import ApplicationAttempt, ApplicationRuns
from runlane.execution.external import ExternalRuns
from runlane.lifecycle import (
    ActionLike,
    CancelAction,
    CancelSource,
    EndReason,
    MultitaskStrategy,
    RunStatus,
    StatusLike,
)
from runlane.owners import UNNAMED, OwnerArgument, OwnerRule
from runlane.records import CancelReceipt, Counters, RunRecord, Usage
from runlane.runs.cancellation import RunCanceller
from runlane.runs.submission import NewRunOptions, RunSubmitter
from runlane.runs.updates import RunUpdates
from runlane.store.ledger import RunStore
from runlane.streams.bridge import StreamBridge
from runlane.streams.live import Ending
from runlane.work import outlast


class Reconcile(Protocol):
    """Settles runs that no live process can finish."""

    async def __call__(self, error: str | None, before: datetime | None) -> list[RunRecord]: ...


class RunManager:
    """Admits runs, answers for them, and cancels them. It executes nothing and holds no run in memory.

    Every method takes *owner*: the tenant whose runs are meant. Not naming one means the single tenant of an
    application without tenants, unless the manager was told to require one; ``ANY_OWNER`` means all, on purpose. All
    raise StoreUnavailable while the ledger is unavailable, and NotFound for what the owner does not have.
    """

    def __init__(
        self,
        *,
        store: RunStore,
        bridge: StreamBridge,
        submitter: RunSubmitter,
        canceller: RunCanceller,
        updates: RunUpdates,
        application: ApplicationRuns,
        external: ExternalRuns,
        owners: OwnerRule,
        reconcile: Reconcile,
        drain: Callable[[float], Coroutine[Any, Any, None]],
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._submitter = submitter
        self._canceller = canceller
        self._updates = updates
        self._application = application
        self._external = external
        self._owners = owners
        self._reconcile = reconcile
        self._drain = drain

    # Admission

    async def create(
        self, thread_id: str, assistant_id: str | None = None, **options: Unpack[NewRunOptions]
    ) -> RunRecord:
        """Admit a run behind whatever the thread has; otherwise the same as :meth:`create_or_reject`."""
        options.setdefault("multitask_strategy", MultitaskStrategy.ENQUEUE)
        return await self.create_or_reject(thread_id, assistant_id, **options)

    async def create_or_reject(
        self, thread_id: str, assistant_id: str | None = None, **options: Unpack[NewRunOptions]
    ) -> RunRecord:
        """Admit a run to *thread_id*, durably, or refuse it; nothing is touched when it is refused.

        Args:
            options: See :class:`NewRunOptions`.

        Raises:
            ConflictError: Strategy ``reject``, the default, on a busy thread; names the blocking run.
            QueueFull: As many runs wait on the thread as may.
            InvalidRequest: An argument cannot be honoured.
            AdmissionClosed: This process is draining.
        """
        return await self._submitter.create(thread_id, assistant_id, self._owners, **options)

    def start(self, run: RunRecord, agent: AgentLike) -> None:
        """Attach *agent*, an async function or async generator of one argument, to an admitted run.

        It is called once the run is its lane's head. Attaching to a run that has ended does nothing.
        """
        self._submitter.start(run, agent)

    def attempt(self, run: RunRecord) -> AbstractAsyncContextManager[ApplicationAttempt]:
        """Execute an admitted run in the block of ``async with``: its end is the run's.

        See :meth:`ApplicationRuns.attempt`. The block must stay in one task: do not ``yield`` in it, except in a
        generator that one task exhausts.

        Raises:
            IllegalTransition: The run has started or ended, or other code is attached to it.
            AdmissionClosed: This process began to drain before it was the run's turn; the run is ``interrupted``.
            LeaseLost: The block was stopped, or has ended, after another process had taken the run.
        """
        return self._application.attempt(run)

    # Reading

    async def get(self, run_id: str, *, owner: OwnerArgument = UNNAMED) -> RunRecord:
        """Return the run.

        Raises:
            NotFound: No such run for *owner*. An outage is StoreUnavailable, never this.
        """
        return await self._store.runs.get(run_id, owner=self._owners.any("get", owner))

    async def aget(self, run_id: str, *, owner: OwnerArgument = UNNAMED) -> RunRecord:
        """The same as :meth:`get`."""
        return await self.get(run_id, owner=owner)

    async def list_by_thread(
        self, thread_id: str, *, owner: OwnerArgument = UNNAMED, limit: int = 100, offset: int = 0
    ) -> list[RunRecord]:
        """Return up to *limit* (1 to 1000) runs of the thread, the newest admission first.

        Raises:
            InvalidRequest: *limit* or *offset* is out of range.
        """
        check_page(limit, offset)
        found = await self._store.runs.list(
            thread_id, owner=self._owners.any("list_by_thread", owner), limit=limit, offset=offset
        )
        return list(found)

    async def has_inflight(self, thread_id: str, *, owner: OwnerArgument = UNNAMED) -> bool:
        """Return whether the thread has a pending or running run, in any process."""
        return await self._store.runs.has_active(thread_id, owner=self._owners.any("has_inflight", owner))

    async def usage_by_thread(self, thread_id: str, *, owner: OwnerArgument = UNNAMED) -> Usage:
        """Return what all runs of the thread used, whatever their ending."""
        named = self._owners.any("usage_by_thread", owner)
        return sum(await self._store.runs.thread_usage(thread_id, owner=named), start=Usage())

    async def join(self, run_id: str, *, owner: OwnerArgument = UNNAMED) -> Ending:
        """Wait until the run has ended and return its own ending."""
        return await self._bridge.ended(await self.get(run_id, owner=owner))

    # Writing

    async def set_status(
        self, run_id: str, status: StatusLike, *, error: str | None = None, owner: OwnerArgument = UNNAMED
    ) -> RunRecord:
        """Move a run that the application executes itself, without :meth:`start`: to ``running``, then to an ending.

        Raises:
            IllegalTransition: The state table has no such move, or another worker executes the run.
            CancelRecorded: A cancel came first; only ``interrupted`` is left.
        """
        run = await self.get(run_id, owner=owner)
        wanted = parse_choice(RunStatus, "status", status)
        if run.status is RunStatus.PENDING and wanted is RunStatus.INTERRUPTED:
            return await self._canceller.cancel(run_id, owner=run.owner, reason=EndReason.USER_CANCEL)
        return await self._external.set_status(run, wanted, error)

    async def update_model_name(
        self, run_id: str, model_name: str | None, *, owner: OwnerArgument = UNNAMED
    ) -> RunRecord:
        """Record which model the run uses."""
        return await self._updates.model(run_id, model_name, owner=self._owners.any("update_model_name", owner))

    async def update_run_progress(
        self, run_id: str, *, owner: OwnerArgument = UNNAMED, **counters: Unpack[Counters]
    ) -> bool:
        """Record counters of an active run; ``False``, with nothing written, once it has ended.

        Raises:
            InvalidRequest: A name is not one of Usage's fields, or its value is of another kind.
        """
        named = self._owners.any("update_run_progress", owner)
        return await self._updates.progress(run_id, owner=named, **counters)

    async def update_run_completion(
        self,
        run_id: str,
        *,
        status: StatusLike | None = None,
        error: str | None = None,
        owner: OwnerArgument = UNNAMED,
        **counters: Unpack[Counters],
    ) -> RunRecord:
        """Record final counters, for any kind of ending; numbers never fall. With *status*, end the run first.

        Raises:
            IllegalTransition: The run cannot end as *status*; the counters are recorded all the same.
            CancelRecorded: A cancel came first; the counters are recorded all the same.
        """
        run, end = await self.get(run_id, owner=owner), None
        if status is not None and run.status != status:
            end = partial(self.set_status, run_id, status, error=error, owner=run.owner)
        return await self._updates.completion(run_id, counters, end)

    # Control

    async def cancel(
        self,
        run_id: str,
        *,
        action: ActionLike = CancelAction.INTERRUPT,
        reason: EndReason = EndReason.USER_CANCEL,
        by: str | None = None,
        source: CancelSource = CancelSource.APPLICATION,
        wait: bool = False,
        owner: OwnerArgument = UNNAMED,
    ) -> CancelReceipt | None:
        """Ask a run to stop, durably; the first action wins and a second cancel is harmless.

        Args:
            by: Who asks for it, as the receipt names them; *source* is what they are.
            wait: Return only once the run has ended; see ``stopped_at`` of the receipt.

        Returns:
            The receipt; ``None`` if the run had ended without a cancel, which leaves it as it is.
        """
        run = await self._canceller.cancel(
            run_id,
            owner=self._owners.any("cancel", owner),
            reason=reason,
            action=parse_choice(CancelAction, "action", action),
            by=by,
            source=source,
        )
        return await self._canceller.receipt(run, wait=wait)

    async def reconcile_orphaned_inflight_runs(
        self, error: str | None = None, before: datetime | None = None
    ) -> list[RunRecord]:
        """Settle runs that no live process can finish: of dead workers, and pending ones that have no code.

        Runs that can be continued go back to their lane; the others end as ``error`` with *error* as their text.

        Args:
            before: Only pending runs admitted before this instant are ended; all by default.
        """
        return await self._reconcile(error, before)

    async def cleanup(self, run_id: str, *, delay_s: float = 300.0, owner: OwnerArgument = UNNAMED) -> None:
        """Delete an ended run with its events after *delay_s*; an active run stays, an unknown one is no error."""
        wanted = self._owners.any("cleanup", owner)
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        with suppress(NotFound):
            if (await self._store.runs.get(run_id, owner=wanted)).status.terminal:
                await self._store.runs.delete(run_id, owner=wanted)

    async def delete(self, run_id: str, *, owner: OwnerArgument = UNNAMED) -> None:
        """Stop the run if it is active, wait until it has ended, and delete it with its events."""
        wanted = self._owners.any("delete", owner)
        await self.cancel(run_id, wait=True, owner=wanted)
        await self._store.runs.delete(run_id, owner=wanted)

    async def shutdown(self, grace_s: float = 5.0) -> None:
        """Close admission, let runs finish for *grace_s*, stop the rest and record each ending as it settles.

        That takes at most *grace_s*, two times ``cancel_grace_s + abandon_after_s``, and 10 s for a ledger outage.

        Survives any number of cancellations of its caller until it is done; a second call waits for the same.
        """
        self._submitter.close()
        await outlast(self._drain(grace_s))

    @property
    def closed(self) -> bool:
        """Return whether admission is closed."""
        return self._submitter.closed
