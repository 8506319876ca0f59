"""The events of a run's life and of its process: frozen values, one class per event.

A new event is a class here, a method of :class:`~runlane.telemetry.emitter.Telemetry`, and one call of that method.
They are structs of msgspec because a frozen dataclass takes 25 times as long to make.
No event holds an input, a state, a header or a secret, so that an observer may pass on whatever it is given.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec

from runlane.lifecycle import CancelAction, EndReason, MultitaskStrategy, RunStatus
from runlane.records import Usage


class TelemetryEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something that happened. ``key`` is the event's name in logs, metrics and traces."""

    key: ClassVar[str]


class OfRun(TelemetryEvent, frozen=True, kw_only=True, gc=False):
    """Something that happened to a run.

    Attributes:
        graph_id: ``None`` if the run executes code that the application attached.
        attempt: Counts the claims of the run; 0 before the first.
    """

    run_id: str
    thread_id: str
    owner: str
    graph_id: str | None
    attempt: int


class RunAdmitted(OfRun, frozen=True, kw_only=True, gc=False):
    """A run was recorded as pending."""

    key: ClassVar[str] = "run.admitted"
    strategy: MultitaskStrategy


class RunRejected(TelemetryEvent, frozen=True, kw_only=True, gc=False):
    """A run was not admitted; ``code`` is the error's, for example ``thread_busy`` or ``queue_full``."""

    key: ClassVar[str] = "run.rejected"
    thread_id: str
    owner: str
    graph_id: str | None
    code: str


class RunClaimed(OfRun, frozen=True, kw_only=True, gc=False):
    """This process owns a run from now on. ``queued_s`` as in :class:`RunFinished`; ``None`` after the first claim."""

    key: ClassVar[str] = "run.claimed"
    queued_s: float | None
    traceparent: str | None


class RunStarted(OfRun, frozen=True, kw_only=True, gc=False):
    """The code of a run began to execute. ``resumed`` if an earlier attempt had begun."""

    key: ClassVar[str] = "run.started"
    resumed: bool


class RunFirstEvent(OfRun, frozen=True, kw_only=True, gc=False):
    """The first event that the code of a run made can be read, ``after_s`` seconds after the run could start."""

    key: ClassVar[str] = "run.first_event"
    after_s: float


class JournalFlushed(OfRun, frozen=True, kw_only=True, gc=False):
    """An attempt's writes since the last flush were committed; ``bytes`` counts the data of events."""

    key: ClassVar[str] = "run.flushed"
    events: int
    checkpoints: int
    bytes: int
    duration_s: float


class CancelRequested(OfRun, frozen=True, kw_only=True, gc=False):
    """A cancel of a run was recorded."""

    key: ClassVar[str] = "run.cancel_requested"
    action: CancelAction
    reason: EndReason


class CancelObserved(OfRun, frozen=True, kw_only=True, gc=False):
    """The worker that executes a run learnt of its cancel, ``after_s`` seconds after it was recorded."""

    key: ClassVar[str] = "run.cancel_observed"
    action: CancelAction
    after_s: float


class CancelStopped(OfRun, frozen=True, kw_only=True, gc=False):
    """A cancelled run ended.

    Attributes:
        after_s: Since the cancel was recorded.
        blocked_at: Where its code was abandoned, because it did not stop; ``None`` if it did.
    """

    key: ClassVar[str] = "run.cancel_stopped"
    action: CancelAction
    after_s: float
    blocked_at: str | None


class RunFinished(OfRun, frozen=True, kw_only=True, gc=False):
    """A run reached its terminal status, and this process wrote it.

    Attributes:
        error: The class name of the error that the run ended with.
        queued_s: From admission, or from the end of its delay, to the first claim; without a claim to the end.
        executing_s: From the first claim to the end, lost and handed back attempts included.
        usage: Tokens and messages; its texts belong to the run's messages, and are not for logs.
        admitted_at: When the run was recorded.
        traceparent: The span that the run is part of, if traces are on and its client named one.
    """

    key: ClassVar[str] = "run.finished"
    status: RunStatus
    end_reason: EndReason | None
    error: str | None
    queued_s: float
    executing_s: float
    rescues: int
    usage: Usage
    admitted_at: datetime
    traceparent: str | None


class RunReleased(OfRun, frozen=True, kw_only=True, gc=False):
    """An attempt handed its run back: another one continues it."""

    key: ClassVar[str] = "run.released"


class RunRescued(OfRun, frozen=True, kw_only=True, gc=False):
    """A run was taken from a worker that is dead: it is pending again, or ``status`` says how it ended.

    ``began_at`` is when the lost attempt began; known of the first attempt only.
    """

    key: ClassVar[str] = "run.rescued"
    status: RunStatus
    rescues: int
    began_at: datetime | None
    traceparent: str | None


class RunLeaseLost(OfRun, frozen=True, kw_only=True, gc=False):
    """An attempt of this process no longer owns its run; its later writes are rejected."""

    key: ClassVar[str] = "run.lease_lost"


class LeasesRenewed(TelemetryEvent, frozen=True, kw_only=True, gc=False):
    """The leases of this process were renewed; ``lost`` of them belong to somebody else by now."""

    key: ClassVar[str] = "lease.renewed"
    renewed: int
    lost: int
    duration_s: float


class LeaseRenewalFailed(TelemetryEvent, frozen=True, kw_only=True, gc=False):
    """The ledger did not take a renewal; it is tried again until the leases expire."""

    key: ClassVar[str] = "lease.renewal_failed"
    leases: int
    error: str


class WorkerDrained(TelemetryEvent, frozen=True, kw_only=True, gc=False):
    """No code of a run executes in this process any more, or it was abandoned."""

    key: ClassVar[str] = "worker.drained"
    duration_s: float


class WebhookAttempted(TelemetryEvent, frozen=True, kw_only=True, gc=False):
    """The end of a run was sent to its webhook.

    Attributes:
        number: Counts the attempts of the delivery, from 1.
        outcome: ``delivered``, ``gone``, ``failed`` for good, or ``pending``: it is sent again.
        status_code: ``None`` if there was no answer.
    """

    key: ClassVar[str] = "webhook.attempted"
    run_id: str
    number: int
    outcome: str
    status_code: int | None
    error: str | None
    duration_s: float


class LoopTurned(TelemetryEvent, frozen=True, kw_only=True, gc=False):
    """A supervised loop made a turn; ``error`` is the class name of what it raised."""

    key: ClassVar[str] = "loop.turned"
    loop: str
    duration_s: float
    error: str | None


class StoreOutageBegan(TelemetryEvent, frozen=True, kw_only=True, gc=False):
    """The database was unavailable for longer than operations are retried."""

    key: ClassVar[str] = "store.outage_began"
    error: str


class StoreOutageEnded(TelemetryEvent, frozen=True, kw_only=True, gc=False):
    """The database answers again."""

    key: ClassVar[str] = "store.outage_ended"
    duration_s: float
