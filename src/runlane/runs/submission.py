"""Submitting runs: an admission is carried through, whatever becomes of its caller; what may start is dispatched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypedDict

import msgspec

from runlane.admission import check_new, parse_choice, parse_strategy
from runlane.agents.sources import AgentLike, RunAgents
from runlane.dispatch.base import Dispatch
from runlane.errors import AdmissionClosed, NotFound, RunlaneError, StoreUnavailable
from runlane.execution.claiming import Reservation
from runlane.lifecycle import CancelSource, DisconnectLike, DisconnectMode, EndReason, MultitaskStrategy, StrategyLike
from runlane.owners import UNNAMED, OwnerArgument, OwnerRule
from runlane.records import Admission, Claim, Head, NewRun, RunRecord
from runlane.requests import RunRequest
from runlane.runs.cancellation import RunCanceller
from runlane.store.ledger import RunStore
from runlane.store.retry import patiently
from runlane.streams.bridge import StreamBridge
from runlane.streams.watch import Watch
from runlane.telemetry.emitter import SILENT, Telemetry
from runlane.work import own_task

log = logging.getLogger("runlane.manager")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A run that was admitted, with a reader of its stream; ``reused`` says that an idempotency key found it."""

    run: RunRecord
    watch: Watch
    reused: bool


class NewRunOptions(TypedDict, total=False):
    """Options of a new run.

    ``kwargs`` is its request: the options of :class:`RunRequest` by name, and the caller's own. ``agent`` is code to
    attach at once, as :meth:`RunManager.start` does; without it the run waits for that.
    """

    multitask_strategy: StrategyLike
    on_disconnect: DisconnectLike
    metadata: Mapping[str, Any] | None
    kwargs: Mapping[str, Any] | None
    model_name: str | None
    delay_s: float
    idempotency_key: str | None
    agent: AgentLike | None
    owner: OwnerArgument


class RunSubmitter:
    """Admits runs until the process drains, attaches their code, and dispatches those that may start.

    Once begun, an admission is carried through even if the caller is cancelled: no run is left half admitted. A run
    whose caller is gone before it knew of it is cancelled, unless it is to go on without its client.
    """

    def __init__(
        self,
        *,
        store: RunStore,
        bridge: StreamBridge,
        dispatch: Dispatch,
        source: RunAgents,
        canceller: RunCanceller,
        reserve: Callable[[Head], Reservation | None],
        worker_id: str,
        new_id: Callable[[], str],
        now: Callable[[], datetime],
        telemetry: Telemetry = SILENT,
    ) -> None:
        """Args:
        reserve: Keeps a slot of this process for a run that is to start as soon as it is admitted.
        worker_id: This process, the home of runs that are not of a graph.
        """
        self._store = store
        self._bridge = bridge
        self._dispatch = dispatch
        self._source = source
        self._canceller = canceller
        self._reserve = reserve
        self._worker_id = worker_id
        self._new_id = new_id
        self._now = now
        self._telemetry = telemetry
        #: Set once this process admits no more.
        self.closing = asyncio.Event()
        self._abandoned: set[asyncio.Task[None]] = set()

    @property
    def closed(self) -> bool:
        """Return whether this process admits no more runs."""
        return self.closing.is_set()

    def close(self) -> None:
        """Admit no more."""
        self.closing.set()

    async def create(
        self,
        thread_id: str,
        assistant_id: str | None,
        owners: OwnerRule,
        *,
        multitask_strategy: StrategyLike = MultitaskStrategy.REJECT,
        on_disconnect: DisconnectLike = DisconnectMode.CANCEL,
        metadata: Mapping[str, Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        model_name: str | None = None,
        delay_s: float = 0.0,
        idempotency_key: str | None = None,
        agent: AgentLike | None = None,
        owner: OwnerArgument = UNNAMED,
    ) -> RunRecord:
        """Admit a run of *owner*, as *owners* allow; see :meth:`RunManager.create_or_reject`."""
        new = NewRun(
            run_id=self._new_id(),
            thread_id=thread_id,
            owner=owners.one("create_or_reject", owner),
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

        Raises:
            AdmissionClosed: This process is draining.
            RunlaneError: What :meth:`RunManager.create_or_reject` raises.
        """
        return (await self._carry_through(self._admit(new, agent), new))[0]

    async def admit_by(self, new: NewRun, transaction: Callable[[NewRun], Awaitable[Admission]]) -> Admitted:
        """Admit *new* as :meth:`admit` does, by a *transaction* of the ledger that does more than that."""

        async def admitting() -> list[Admitted]:
            return [self.admitted(new, await transaction(new))]

        return (await self._carry_through(admitting(), new))[0]

    async def admit_all(self, news: Sequence[NewRun]) -> list[Admitted]:
        """Admit each of *news* as :meth:`admit` does, in one transaction: all of them, or none."""
        return await self._carry_through(self._admit_all(news), *news)

    def start(self, run: RunRecord, agent: AgentLike) -> None:
        """Attach *agent* to an admitted run, which executes it once it is its lane's head."""
        self._source.attach(run.run_id, agent)
        # A run that nobody delayed is due at once, whatever became of the clock since it was admitted.
        wait_s = (run.not_before - self._now()).total_seconds() if run.not_before > run.created_at else 0.0
        self._dispatch.submit(Head.of(run), delay_s=max(0.0, wait_s))

    async def _carry_through(self, admitting: Coroutine[Any, Any, list[Admitted]], *news: NewRun) -> list[Admitted]:
        try:
            if self.closed:
                raise AdmissionClosed
            for new in news:
                check_new(new)
        except BaseException as error:
            admitting.close()
            self._reject(news, error)
            raise
        admission = own_task(admitting)
        try:
            return await asyncio.shield(admission)
        except RunlaneError as error:
            self._reject(news, error)
            raise
        except asyncio.CancelledError:
            abandoned = own_task(self._abandon(admission))
            self._abandoned.add(abandoned)
            abandoned.add_done_callback(self._abandoned.discard)
            raise

    def _reject(self, news: Sequence[NewRun], error: BaseException) -> None:
        """Tell observers of runs that were not admitted; what is no RunlaneError is a defect and not a refusal."""
        if isinstance(error, RunlaneError):
            for new in news:
                self._telemetry.run_rejected(new, error.code)

    async def _abandon(self, admission: asyncio.Future[list[Admitted]]) -> None:
        """Settle an admission whose caller was cancelled."""
        try:
            found = await admission
        except RunlaneError:
            return  # nothing was admitted, and nobody is left to be told
        for admitted in found:
            admitted.watch.close()
        for run in (admitted.run for admitted in found if not admitted.reused):
            if self._unwanted(run):
                try:
                    await patiently(partial(self._cancel, run))
                except (NotFound, StoreUnavailable) as error:  # it was deleted, or this process has closed the ledger
                    log.warning("run.unwanted_not_cancelled run_id=%s why=%s", run.run_id, error)

    async def _cancel(self, run: RunRecord) -> None:
        await self._canceller.cancel(
            run.run_id, owner=run.owner, reason=EndReason.DISCONNECT, source=CancelSource.CLIENT
        )

    def _unwanted(self, run: RunRecord) -> bool:
        """Return whether *run* is to be cancelled, as its caller is gone."""
        return run.on_disconnect is DisconnectMode.CANCEL or not self._source.can_execute(run.run_id, run.home)

    async def _admit(self, new: NewRun, agent: AgentLike | None) -> list[Admitted]:
        if agent is not None:
            self._source.attach(new.run_id, agent)
        at_home = self._at_home(new, agent)
        slot = None if new.delay_s > 0 else self._reserve(Head.of_new(at_home))
        claim: Claim | None = None
        try:
            admission = await self._store.runs.admit(at_home, None if slot is None else slot.claimant)
            admitted = self.admitted(new, admission)
            claim = admission.claim
        except BaseException:
            self._source.forget(new.run_id)
            raise
        finally:
            if slot is not None:
                slot.settle(claim)
        return [admitted]

    def _at_home(self, new: NewRun, agent: AgentLike | None = None) -> NewRun:
        """Return *new* with this process as its home, unless every process that has its graph can execute it."""
        names_graph = bool(new.request.graph_id)
        return new if names_graph and agent is None else msgspec.structs.replace(new, home=self._worker_id)

    async def _admit_all(self, news: Sequence[NewRun]) -> list[Admitted]:
        admissions = await self._store.runs.admit_all([self._at_home(new) for new in news])
        return [self.admitted(*pair) for pair in zip(news, admissions, strict=True)]

    def admitted(self, new: NewRun, admission: Admission) -> Admitted:
        """Tell of an admission that was committed, and watch its run; the caller closes the watch."""
        run, reused = admission.run, admission.run.run_id != new.run_id  # not by a repetition of its own admission
        watch = self._bridge.watch(run, admitted_now=not admission.reused)
        if not reused:
            self._telemetry.run_admitted(run)
        for cancelled in admission.cancelled:
            self._canceller.pass_on(cancelled)
        may_start = admission.claim is None and (admission.runnable or new.delay_s > 0)
        if reused:
            self._source.forget(new.run_id)
        elif may_start and self._source.can_execute(run.run_id, run.home):
            self._dispatch.submit(Head.of(run), delay_s=new.delay_s)
        return Admitted(run=run, watch=watch, reused=reused)
