"""RunManager: what a caller can ask of runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime
from typing import Any, Final, Unpack

from runlane.admission import check_counters, check_model, check_page, parse_choice, parse_strategy
from runlane.admissions import Admissions, Admitted
from runlane.agents.sources import AgentLike, RunAgents
from runlane.dispatch.base import Dispatch
from runlane.errors import (
    CancelRecorded,
    IllegalTransition,
    NotFound,
    OwnerRequired,
)
from runlane.execution.application import ApplicationAttempt, ApplicationRuns, outlast
from runlane.execution.notifier import CompletionNotifier
from runlane.lifecycle import (
    ActionLike,
    CancelAction,
    DisconnectLike,
    DisconnectMode,
    EndReason,
    MultitaskStrategy,
    RunStatus,
    StatusLike,
    StrategyLike,
)
from runlane.records import (
    ANY_OWNER,
    NO_OWNER,
    Admission,
    Cancelled,
    CancelReceipt,
    Counters,
    Finished,
    Head,
    Lease,
    NewRun,
    Owner,
    RunError,
    RunRecord,
    Usage,
)
from runlane.requests import RunRequest
from runlane.store.ledger import RunStore
from runlane.streams.bridge import Ending, StreamBridge
from runlane.work import own_task


class _Unset:
    """The owner was not named."""


_UNSET: Final = _Unset()
OwnerArgument = Owner | _Unset


class RunManager:
    """Admits runs, answers for them, and cancels them. It executes nothing and holds no run in memory.

    Every method takes *owner*: the tenant whose runs are meant. Not naming one means the single tenant of an
    application without tenants, unless the manager was told to require one; ``ANY_OWNER`` means all, on purpose. All
    raise StoreUnavailable while the ledger is out, and NotFound for what the owner does not have.
    """

    def __init__(
        self,
        *,
        store: RunStore,
        bridge: StreamBridge,
        dispatch: Dispatch,
        source: RunAgents,
        notifier: CompletionNotifier,
        new_id: Callable[[], str],
        worker_id: str,
        reconcile: Callable[[], Awaitable[Sequence[RunRecord]]],
        orphaned: Callable[[str, str | None], bool],
        drain: Callable[[float], Coroutine[Any, Any, None]],
        leases: MutableMapping[str, Lease],
        lease_s: float,
        now: Callable[[], datetime],
        require_owner: bool = False,
    ) -> None:
        self._store, self._bridge, self._dispatch, self._source = store, bridge, dispatch, source
        self._notifier, self._new_id = notifier, new_id
        self._reconcile, self._drain = reconcile, drain
        self._orphaned = orphaned
        self._require_owner, self._now = require_owner, now
        self._closing = asyncio.Event()
        self._admissions = Admissions(
            store=store,
            bridge=bridge,
            dispatch=dispatch,
            source=source,
            tell=self._tell,
            cancel=lambda run: self._cancel(run.run_id, run.owner, CancelAction.INTERRUPT, EndReason.DISCONNECT, None),
            worker_id=worker_id,
            closing=self._closing,
        )
        self._application = ApplicationRuns(
            store=store,
            bridge=bridge,
            source=source,
            notifier=notifier,
            worker_id=worker_id,
            leases=leases,
            lease_s=lease_s,
            start=self.start,
            cancel=lambda run, reason: self.cancel_run(run.run_id, reason=reason, owner=run.owner),
            record_progress=self.update_run_progress,
            closing=self._closing,
        )

    # Admission

    async def create(
        self,
        thread_id: str,
        assistant_id: str | None = None,
        *,
        multitask_strategy: StrategyLike = MultitaskStrategy.ENQUEUE,
        on_disconnect: DisconnectLike = DisconnectMode.CANCEL,
        metadata: Mapping[str, Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        model_name: str | None = None,
        delay_s: float = 0.0,
        idempotency_key: str | None = None,
        agent: AgentLike | None = None,
        owner: OwnerArgument = _UNSET,
    ) -> RunRecord:
        """Admit a run behind whatever the thread has; otherwise the same as :meth:`create_or_reject`."""
        return await self.create_or_reject(
            thread_id,
            assistant_id,
            multitask_strategy=multitask_strategy,
            on_disconnect=on_disconnect,
            metadata=metadata,
            kwargs=kwargs,
            model_name=model_name,
            delay_s=delay_s,
            idempotency_key=idempotency_key,
            agent=agent,
            owner=owner,
        )

    async def create_or_reject(
        self,
        thread_id: str,
        assistant_id: str | None = None,
        *,
        multitask_strategy: StrategyLike = MultitaskStrategy.REJECT,
        on_disconnect: DisconnectLike = DisconnectMode.CANCEL,
        metadata: Mapping[str, Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        model_name: str | None = None,
        delay_s: float = 0.0,
        idempotency_key: str | None = None,
        agent: AgentLike | None = None,
        owner: OwnerArgument = _UNSET,
    ) -> RunRecord:
        """Admit a run to *thread_id*, durably, or refuse it; nothing is touched when it is refused.

        Args:
            agent: Code to attach at once, as :meth:`start` does; without it the run waits for :meth:`start`.

        Raises:
            ConflictError: Strategy ``reject`` on a busy thread; names the blocking run.
            QueueFull: As many runs wait on the thread as may.
            InvalidRequest: An argument cannot be honoured.
            AdmissionClosed: This process is draining.
        """
        new = NewRun(
            run_id=self._new_id(),
            thread_id=thread_id,
            owner=self._one_owner("create_or_reject", owner),
            assistant_id=assistant_id,
            multitask_strategy=parse_strategy(multitask_strategy),
            on_disconnect=parse_choice(DisconnectMode, "on_disconnect", on_disconnect),
            metadata=dict(metadata or {}),
            request=RunRequest.of(kwargs or {}),
            model_name=model_name,
            delay_s=delay_s,
            idempotency_key=idempotency_key,
        )
        admitted = await self.admit(new, agent=agent)
        admitted.watch.close()
        return admitted.run

    async def admit(self, new: NewRun, *, agent: AgentLike | None = None) -> Admitted:
        """Admit *new* and return it with a watch that has missed nothing. The caller closes the watch.

        Once begun, the admission is carried through even if the caller is cancelled: no run is left half admitted.
        A run whose caller is gone before it knew of it is cancelled, unless it is to go on without its client.
        """
        return await self._admissions.admit(new, agent)

    async def admit_all(self, news: Sequence[NewRun]) -> list[Admitted]:
        """Admit each of *news* as :meth:`admit` does, in one transaction: all of them, or none."""
        return await self._admissions.admit_all(news)

    def admitted(self, new: NewRun, admission: Admission) -> Admitted:
        """Tell of an admission that was committed, and watch its run; the caller closes the watch."""
        return self._admissions.admitted(new, admission)

    def start(self, run: RunRecord, agent: AgentLike) -> None:
        """Attach *agent*, an async function or async generator of one argument, to an admitted run.

        It is called once the run is its lane's head. Attaching to a run that has ended does nothing.
        """
        self._source.attach(run.run_id, agent)
        # A run that nobody delayed is due at once, whatever became of the clock since it was admitted.
        wait_s = (run.not_before - self._now()).total_seconds() if run.not_before > run.created_at else 0.0
        self._dispatch.submit(Head.of(run), delay_s=max(0.0, wait_s))

    def attempt(self, run: RunRecord) -> AbstractAsyncContextManager[ApplicationAttempt]:
        """Execute an admitted run in the block of ``async with``: its end is the run's.

        The block begins once it is the run's turn. The run ends as ``success`` if the block is left, as ``error`` if an
        exception leaves it (which is raised again), and as ``interrupted`` if the block's task is cancelled from
        outside. If the run has to stop, the attempt's ``abort_event`` is set and the block is cancelled, and again
        after ``cancel_grace_s``; once it is over, what follows it goes on, and ``attempt.ended`` says how the run
        ended. The block must stay in one task: do not ``yield`` in it, except in a generator that one task exhausts.

        Raises:
            IllegalTransition: The run has started or ended, or other code is attached to it.
            AdmissionClosed: This process began to drain before it was the run's turn; the run is ``interrupted``.
            LeaseLost: The block was stopped, or has ended, after another process had taken the run.
        """
        return self._application.attempt(run)

    # Reading

    async def get(self, run_id: str, *, owner: OwnerArgument = _UNSET) -> RunRecord:
        """Return the run.

        Raises:
            NotFound: No such run for *owner*. An outage is StoreUnavailable, never this.
        """
        return await self._store.runs.get(run_id, owner=self._any_owner("get", owner))

    async def aget(self, run_id: str, *, owner: OwnerArgument = _UNSET) -> RunRecord:
        """The same as :meth:`get`."""
        return await self.get(run_id, owner=owner)

    async def list_by_thread(
        self, thread_id: str, *, owner: OwnerArgument = _UNSET, limit: int = 100, offset: int = 0
    ) -> list[RunRecord]:
        """Return up to *limit* (1 to 1000) runs of the thread, the newest admission first.

        Raises:
            InvalidRequest: *limit* or *offset* is out of range.
        """
        check_page(limit, offset)
        found = await self._store.runs.list(
            thread_id, owner=self._any_owner("list_by_thread", owner), limit=limit, offset=offset
        )
        return list(found)

    async def has_inflight(self, thread_id: str, *, owner: OwnerArgument = _UNSET) -> bool:
        """Return whether the thread has a pending or running run, in any process."""
        return await self._store.runs.has_active(thread_id, owner=self._any_owner("has_inflight", owner))

    async def usage_by_thread(self, thread_id: str, *, owner: OwnerArgument = _UNSET) -> Usage:
        """Return what all runs of the thread used, whatever their ending."""
        total = Usage()
        for usage in await self._store.runs.thread_usage(thread_id, owner=self._any_owner("usage_by_thread", owner)):
            total = total + usage
        return total

    async def join(self, run_id: str, *, owner: OwnerArgument = _UNSET) -> Ending:
        """Wait until the run has ended and return its own ending."""
        return await self._bridge.ended(await self.get(run_id, owner=owner))

    # Writing

    async def set_status(
        self, run_id: str, status: StatusLike, *, error: str | None = None, owner: OwnerArgument = _UNSET
    ) -> RunRecord:
        """Move a run that the application executes itself, without :meth:`start`: to ``running``, then to an ending.

        Raises:
            IllegalTransition: The state table has no such move, or another worker executes the run.
            CancelRecorded: A cancel came first; only ``interrupted`` is left.
        """
        run = await self.get(run_id, owner=owner)
        wanted = parse_choice(RunStatus, "status", status)
        if run.status is RunStatus.PENDING and wanted is RunStatus.INTERRUPTED:
            return (await self.cancel_run(run_id, owner=run.owner)).run
        return await self._application.set_status(run, wanted, error)

    async def update_model_name(
        self, run_id: str, model_name: str | None, *, owner: OwnerArgument = _UNSET
    ) -> RunRecord:
        """Record which model the run uses."""
        check_model(model_name)
        await self.get(run_id, owner=owner)
        return await self._store.runs.set_model(run_id, model_name)

    async def update_run_progress(
        self, run_id: str, *, owner: OwnerArgument = _UNSET, **counters: Unpack[Counters]
    ) -> bool:
        """Record counters of an active run; ``False``, with nothing written, once it has ended.

        Raises:
            InvalidRequest: A name is not one of Usage's fields, or its value is of another kind.
        """
        await self.get(run_id, owner=owner)
        return await self._store.runs.set_progress(run_id, check_counters(counters))

    async def update_run_completion(
        self,
        run_id: str,
        *,
        status: StatusLike | None = None,
        error: str | None = None,
        owner: OwnerArgument = _UNSET,
        **counters: Unpack[Counters],
    ) -> RunRecord:
        """Record final counters, for any kind of ending; numbers never fall. With *status*, end the run first.

        Raises:
            IllegalTransition: The run cannot end as *status*; the counters are recorded all the same.
            CancelRecorded: A cancel came first; the counters are recorded all the same.
        """
        checked = check_counters(counters)
        run = await self.get(run_id, owner=owner)
        try:
            if status is not None and run.status != status:
                await self.set_status(run_id, status, error=error, owner=run.owner)
        except (IllegalTransition, CancelRecorded):
            if checked:
                await self._store.runs.complete_usage(run_id, checked)
            raise
        return await self._store.runs.complete_usage(run_id, checked)

    # Control

    async def cancel(
        self,
        run_id: str,
        *,
        action: ActionLike = CancelAction.INTERRUPT,
        reason: EndReason = EndReason.USER_CANCEL,
        by: str | None = None,
        wait: bool = False,
        owner: OwnerArgument = _UNSET,
    ) -> CancelReceipt | None:
        """Ask a run to stop, durably; the first action wins and a second cancel is harmless.

        Args:
            wait: Return only once the run has ended; the receipt then says whether its code has stopped.

        Returns:
            The receipt; ``None`` if the run had ended without a cancel, which leaves it as it is.
        """
        cancelled = await self.cancel_run(run_id, action=action, reason=reason, by=by, owner=owner)
        run = cancelled.run
        if not wait or run.status.terminal:
            return run.cancel
        await self._bridge.ended(run)
        try:
            return (await self._store.runs.get(run_id, owner=ANY_OWNER)).cancel
        except NotFound:
            return run.cancel

    async def cancel_run(
        self,
        run_id: str,
        *,
        action: ActionLike = CancelAction.INTERRUPT,
        reason: EndReason = EndReason.USER_CANCEL,
        by: str | None = None,
        owner: OwnerArgument = _UNSET,
    ) -> Cancelled:
        """Record a cancel and pass it on; return the run as it is now."""
        wanted = self._any_owner("cancel", owner)
        checked = parse_choice(CancelAction, "action", action)
        return await asyncio.shield(own_task(self._cancel(run_id, wanted, checked, reason, by)))

    async def _cancel(
        self, run_id: str, owner: Owner, action: CancelAction, reason: EndReason, by: str | None
    ) -> Cancelled:
        cancelled = await self._store.runs.request_cancel(run_id, owner=owner, action=action, reason=reason, by=by)
        self._tell(cancelled)
        return cancelled

    def _tell(self, cancelled: Cancelled) -> None:
        """Pass a recorded cancel on: to the worker, or, if the run ended by it, to whoever waits."""
        run = cancelled.run
        if run.cancel is None:
            return
        if not run.status.terminal:
            self._dispatch.cancel(run.run_id)
            if run.status is RunStatus.PENDING:
                self._dispatch.submit(Head.of(run))
        elif cancelled.ended:
            self._source.forget(run.run_id)
            self._dispatch.cancel(run.run_id)
            self._notifier.announce(Finished(run=run, next_run=cancelled.next_run), events_end=0)

    async def reconcile_orphaned_inflight_runs(
        self, error: str | None = None, before: datetime | None = None
    ) -> list[RunRecord]:
        """Settle runs that no live process can finish: of dead workers, and pending ones that have no code.

        Runs that can be continued go back to their lane; the others end as ``error`` with *error* as their text.

        Args:
            before: Only pending runs admitted before this instant are ended; all by default.
        """
        rescued: list[RunRecord] = list(await self._reconcile())
        text = error or "The process that was to execute this run is gone."
        after_seq = 0
        while page := await self._store.runs.inflight(after_seq=after_seq):
            after_seq = page[-1].seq
            for run in page:
                late = before is not None and run.created_at > before
                if run.status is not RunStatus.PENDING or late or not self._orphaned(run.run_id, run.home):
                    continue
                failed = RunError(error="WorkerLost", message=text)
                finished = await self._store.queue.give_up(run.run_id, EndReason.WORKER_LOST, failed, home=run.home)
                if finished is not None:
                    self._notifier.announce(finished)
                    rescued.append(finished.run)
        return rescued

    async def cleanup(self, run_id: str, *, delay_s: float = 300.0, owner: OwnerArgument = _UNSET) -> None:
        """Delete an ended run with its events after *delay_s*; an active run stays, an unknown one is no error."""
        wanted = self._any_owner("cleanup", owner)
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        with suppress(NotFound):
            if (await self._store.runs.get(run_id, owner=wanted)).status.terminal:
                await self._store.runs.delete(run_id, owner=wanted)

    async def delete(self, run_id: str, *, owner: OwnerArgument = _UNSET) -> None:
        """Stop the run if it is active, wait until it has ended, and delete it with its events."""
        wanted = self._any_owner("delete", owner)
        await self.cancel(run_id, wait=True, owner=wanted)
        await self._store.runs.delete(run_id, owner=wanted)

    async def shutdown(self, grace_s: float = 5.0) -> None:
        """Close admission, let runs finish for *grace_s*, stop the rest and record each ending as it settles.

        That takes at most *grace_s*, two times ``cancel_grace_s + abandon_after_s``, and 10 s for a ledger that is out.

        Survives any number of cancellations of its caller until it is done; a second call waits for the same.
        """
        self._closing.set()
        await outlast(self._drain(grace_s))

    @property
    def closed(self) -> bool:
        """Whether admission is closed."""
        return self._closing.is_set()

    # Owners

    def _any_owner(self, operation: str, owner: OwnerArgument) -> Owner:
        if not isinstance(owner, _Unset):
            return owner
        if self._require_owner:
            raise OwnerRequired(operation)
        return NO_OWNER

    def _one_owner(self, operation: str, owner: OwnerArgument) -> str:
        if isinstance(owner, _Unset) and not self._require_owner:
            return NO_OWNER
        if isinstance(owner, str):
            return owner
        raise OwnerRequired(operation, one=True)
