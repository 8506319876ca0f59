"""The one seam between what happens and who observes it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sized
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol, TypedDict

from runlane.records import CancelReceipt, NewRun, RunRecord
from runlane.telemetry.events import (
    CancelObserved,
    CancelRequested,
    CancelStopped,
    JournalFlushed,
    LeaseRenewalFailed,
    LeasesRenewed,
    LoopTurned,
    RunAdmitted,
    RunClaimed,
    RunFinished,
    RunFirstEvent,
    RunLeaseLost,
    RunRejected,
    RunReleased,
    RunRescued,
    RunStarted,
    StoreOutageBegan,
    StoreOutageEnded,
    TelemetryEvent,
    WebhookAttempted,
    WorkerDrained,
)
from runlane.telemetry.observers import Observer

if TYPE_CHECKING:
    from runlane.telemetry.tracing import RunTracer

log = logging.getLogger("runlane.telemetry")


class Flush(Protocol):
    """The result of one transaction of a journal."""

    @property
    def events(self) -> Sized: ...
    @property
    def event_bytes(self) -> int: ...
    @property
    def checkpoints(self) -> int: ...
    @property
    def duration_s(self) -> float: ...


class Telemetry:
    """Tells observers what happens. One method per event; an event that nobody observes is not even made.

    All methods are called on Runlane's event loop. They never raise and never wait.
    """

    def __init__(self, observers: Iterable[Observer] = (), tracer: RunTracer | None = None) -> None:
        """Args:
        tracer: Is one of the observers if traces are on.
        """
        self._observers = (*observers, *(() if tracer is None else tracer.observers))
        self.tracer = tracer
        self._by_kind: dict[type[TelemetryEvent], tuple[Observer, ...]] = {}
        self._reported: set[tuple[type[TelemetryEvent], int, type[Exception]]] = set()

    def emit(self, event: TelemetryEvent) -> None:
        """Call the observers of *event*, in the order in which they were registered."""
        for observer in self._of(type(event)):
            try:
                observer.handler(event)
            except Exception as error:  # noqa: BLE001 - an observer's defect must harm no run
                self._report(event, observer, error)

    def run_admitted(self, run: RunRecord) -> None:
        """Emit that *run* was recorded as pending."""
        if self._of(RunAdmitted):
            self.emit(
                RunAdmitted(
                    run_id=run.run_id,
                    thread_id=run.thread_id,
                    owner=run.owner,
                    graph_id=run.graph_id,
                    attempt=run.attempt,
                    strategy=run.multitask_strategy,
                )
            )

    def run_rejected(self, new: NewRun, code: str) -> None:
        """Emit that *new* was not admitted, for the reason that an error's *code* names."""
        if self._of(RunRejected):
            graph_id = new.request.graph_id
            self.emit(RunRejected(thread_id=new.thread_id, owner=new.owner, graph_id=graph_id, code=code))

    def run_claimed(self, run: RunRecord) -> None:
        """Emit that this process owns *run*, as it is after the claim."""
        if self._of(RunClaimed):
            queued_s = _seconds(_due_at(run), run.started_at or run.updated_at) if run.attempt == 1 else None
            self.emit(
                RunClaimed(
                    run_id=run.run_id,
                    thread_id=run.thread_id,
                    owner=run.owner,
                    graph_id=run.graph_id,
                    attempt=run.attempt,
                    queued_s=queued_s,
                    traceparent=run.stored.traceparent,
                )
            )

    def run_started(self, run: RunRecord) -> None:
        """Emit that the code of *run* begins to execute."""
        if self._of(RunStarted):
            self.emit(
                RunStarted(
                    run_id=run.run_id,
                    thread_id=run.thread_id,
                    owner=run.owner,
                    graph_id=run.graph_id,
                    attempt=run.attempt,
                    resumed=run.attempt > 1,
                )
            )

    def first_event_observer(self, run: RunRecord) -> Callable[[], None] | None:
        """Return what is called when the first event of *run* can be read; ``None`` if nobody observes."""
        if run.attempt != 1 or not self._of(RunFirstEvent):
            return None
        due_at = _due_at(run)
        return lambda: self.emit(RunFirstEvent(**_of_run(run), after_s=_seconds(due_at, datetime.now(UTC))))

    def flush_observer(self, run: RunRecord) -> Callable[[Flush], None] | None:
        """Return what is called with each flush of the journal of the run's attempt; ``None`` if nobody observes."""
        if not self._of(JournalFlushed):
            return None
        return lambda flush: self.emit(
            JournalFlushed(
                run_id=run.run_id,
                thread_id=run.thread_id,
                owner=run.owner,
                graph_id=run.graph_id,
                attempt=run.attempt,
                events=len(flush.events),
                checkpoints=flush.checkpoints,
                bytes=flush.event_bytes,
                duration_s=flush.duration_s,
            )
        )

    def cancel_requested(self, run: RunRecord) -> None:
        """Emit that a cancel of *run* was recorded."""
        if run.cancel is not None and self._of(CancelRequested):
            self.emit(CancelRequested(**_of_run(run), action=run.cancel.action, reason=run.cancel.reason))

    def cancel_observed(self, run: RunRecord, receipt: CancelReceipt, now: datetime) -> None:
        """Emit that the attempt that executes *run* learnt of its cancel."""
        if self._of(CancelObserved):
            after_s = _seconds(receipt.requested_at, now)
            self.emit(CancelObserved(**_of_run(run), action=receipt.action, after_s=after_s))

    def run_finished(self, run: RunRecord) -> None:
        """Emit that *run* is over: that its cancel was carried out, if it was cancelled, and how it ended."""
        cancel, ended_at = run.cancel, run.ended_at or run.updated_at
        if cancel is not None and self._of(CancelStopped):
            after_s = _seconds(cancel.requested_at, cancel.stopped_at or ended_at)
            self.emit(
                CancelStopped(**_of_run(run), action=cancel.action, after_s=after_s, blocked_at=cancel.blocked_at)
            )
        if self._of(RunFinished):
            self.emit(
                RunFinished(
                    run_id=run.run_id,
                    thread_id=run.thread_id,
                    owner=run.owner,
                    graph_id=run.graph_id,
                    attempt=run.attempt,
                    status=run.status,
                    end_reason=run.end_reason,
                    error=None if run.error is None else run.error.error,
                    queued_s=_seconds(_due_at(run), run.started_at or ended_at),
                    executing_s=0.0 if run.started_at is None else _seconds(run.started_at, ended_at),
                    rescues=run.rescues,
                    usage=run.usage,
                    admitted_at=run.created_at,
                    traceparent=run.stored.traceparent,
                )
            )

    def run_released(self, run: RunRecord) -> None:
        """Emit that *run* was handed back."""
        if self._of(RunReleased):
            self.emit(RunReleased(**_of_run(run)))

    def run_rescued(self, run: RunRecord, *, attempt: int) -> None:
        """Emit that *run* was taken from the dead worker that had this *attempt*."""
        if self._of(RunRescued):
            fields = _of_run(run)
            fields["attempt"] = attempt
            self.emit(
                RunRescued(
                    **fields,
                    status=run.status,
                    rescues=run.rescues,
                    began_at=run.started_at if attempt == 1 else None,
                    traceparent=run.stored.traceparent,
                )
            )

    def lease_lost(self, run: RunRecord) -> None:
        """Emit that an attempt of this process no longer owns *run*."""
        if self._of(RunLeaseLost):
            self.emit(RunLeaseLost(**_of_run(run)))

    def leases_renewed(self, *, renewed: int, lost: int, duration_s: float) -> None:
        """Emit that the leases of this process were renewed."""
        if self._of(LeasesRenewed):
            self.emit(LeasesRenewed(renewed=renewed, lost=lost, duration_s=duration_s))

    def lease_renewal_failed(self, *, leases: int, error: Exception) -> None:
        """Emit that the ledger did not take a renewal."""
        if self._of(LeaseRenewalFailed):
            self.emit(LeaseRenewalFailed(leases=leases, error=type(error).__name__))

    def worker_drained(self, *, duration_s: float) -> None:
        """Emit that no code of a run executes here any more."""
        if self._of(WorkerDrained):
            self.emit(WorkerDrained(duration_s=duration_s))

    def webhook_attempted(
        self, run_id: str, *, number: int, outcome: str, status_code: int | None, error: str | None, duration_s: float
    ) -> None:
        """Emit that the end of a run was sent to its webhook."""
        if self._of(WebhookAttempted):
            self.emit(
                WebhookAttempted(
                    run_id=run_id,
                    number=number,
                    outcome=outcome,
                    status_code=status_code,
                    error=error,
                    duration_s=duration_s,
                )
            )

    def loop_turned(self, loop: str, *, duration_s: float, error: Exception | None) -> None:
        """Emit that a supervised loop made a turn."""
        if self._of(LoopTurned):
            name = None if error is None else type(error).__name__
            self.emit(LoopTurned(loop=loop, duration_s=duration_s, error=name))

    def store_outage_began(self, error: Exception) -> None:
        """Emit that the database is unavailable."""
        if self._of(StoreOutageBegan):
            self.emit(StoreOutageBegan(error=str(error)))

    def store_outage_ended(self, *, duration_s: float) -> None:
        """Emit that the database answers again."""
        if self._of(StoreOutageEnded):
            self.emit(StoreOutageEnded(duration_s=duration_s))

    def _of(self, kind: type[TelemetryEvent]) -> tuple[Observer, ...]:
        found = self._by_kind.get(kind)
        if found is None:
            found = tuple(observer for observer in self._observers if issubclass(kind, observer.kind))
            self._by_kind[kind] = found
        return found

    def _report(self, event: TelemetryEvent, observer: Observer, error: Exception) -> None:
        """Log what an observer raised, once for each kind of event and of error."""
        failure = type(event), id(observer), type(error)
        if failure not in self._reported:
            self._reported.add(failure)
            log.error("telemetry.observer_failed event=%s", event.key, exc_info=error)


#: Without observers.
SILENT: Final = Telemetry()


class _RunFields(TypedDict):
    run_id: str
    thread_id: str
    owner: str
    graph_id: str | None
    attempt: int


def _of_run(run: RunRecord) -> _RunFields:
    """Return the fields of every event of *run*, for rare ones: others spell them out, which is 15 times as fast."""
    return {
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "owner": run.owner,
        "graph_id": run.graph_id,
        "attempt": run.attempt,
    }


def _due_at(run: RunRecord) -> datetime:
    return max(run.created_at, run.not_before)


def _seconds(since: datetime, until: datetime) -> float:
    """Return the seconds between two instants; 0 if a clock was set back."""
    return max(0.0, (until - since).total_seconds())
