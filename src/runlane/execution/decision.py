"""The decision how an attempt ends: the whole policy. Pure."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from msgspec.structs import replace

from runlane.error_texts import MASKED, ErrorTexts
from runlane.errors import IllegalTransition, LeaseLost, WorkerLost
from runlane.lifecycle import CancelAction, EndReason, HandBack, RunEvent, RunStatus
from runlane.outcomes import Abandoned, Drained, Outcome
from runlane.records import CancelReceipt, Lease, RunError, RunRecord


class StopReason(StrEnum):
    """Why an attempt is stopped. The first wins, except that those of ``OUTRANKING`` win over all above them.

    A lease lapses if the ledger is unavailable for longer than it lasts: the code has to stop, as another worker may
    begin, but what the attempt has yet to write is still its own unless one did. A lease is lost if one did, or if the
    process gives the run up.
    """

    DRAIN = "drain"
    LAPSED = "lapsed"
    DEADLINE = "deadline"
    CANCEL = "cancel"
    LEASE_LOST = "lease_lost"


_REPORTED: Final[Mapping[RunStatus, tuple[RunEvent, EndReason]]] = {
    RunStatus.SUCCESS: (RunEvent.SUCCEED, EndReason.COMPLETED),
    RunStatus.ERROR: (RunEvent.FAIL, EndReason.FAILED),
    RunStatus.TIMEOUT: (RunEvent.EXPIRE, EndReason.DEADLINE),
    RunStatus.INTERRUPTED: (RunEvent.STOP, EndReason.USER_CANCEL),
}

OUTRANKING: Final = frozenset({StopReason.LAPSED, StopReason.CANCEL, StopReason.LEASE_LOST})


def rescue_limit(max_rescues: int, *, continuable: bool) -> int:
    """Return how many lost owners a run may have had and be executed again: none if its agent cannot go on."""
    return max_rescues if continuable else 0


def decide(
    lease: Lease,
    failure: BaseException | None,
    stop: StopReason | None,
    cancel: CancelReceipt | None,
    *,
    paused: bool,
    continuable: bool,
    once: bool = False,
    errors: ErrorTexts = MASKED,
) -> Outcome:
    """Decide how the attempt of *lease* ends. The whole policy.

    Args:
        failure: What the agent raised, ``None`` if it returned.
        cancel: The receipt of a recorded cancel.
        continuable: Whether another attempt can go on where this one stopped. One that the ledger forced to stop is
            made again in any case, as after a crash, except
        once: code that has begun and must not be executed again.
        errors: What of an exception's text may be shown.

    Raises:
        LeaseLost: Nothing may be written.
    """
    if stop is StopReason.LEASE_LOST or isinstance(failure, LeaseLost):
        raise LeaseLost(lease.run_id, lease.attempt)
    if cancel is not None:
        return _cancelled(cancel)
    if failure is None:
        return Outcome(
            event=RunEvent.PAUSE if paused else RunEvent.SUCCEED,
            end_reason=EndReason.PAUSED if paused else EndReason.COMPLETED,
        )
    stopped = isinstance(failure, asyncio.CancelledError | Abandoned | Drained)
    if stop is StopReason.LAPSED and stopped:
        if not once:
            return Outcome(event=RunEvent.RELEASE, end_reason=None, handed_back=HandBack.OUTAGE)
        error = RunError(error="WorkerLost", message="The run was stopped by an outage, and its code cannot go on.")
        return Outcome(event=RunEvent.FAIL, end_reason=EndReason.WORKER_LOST, error=error)
    if stop is StopReason.DEADLINE and stopped:
        error = RunError(error="TimeoutError", message="The run took longer than it may.")
        return Outcome(event=RunEvent.EXPIRE, end_reason=EndReason.DEADLINE, error=error)
    if isinstance(failure, Drained) or (stop is StopReason.DRAIN and stopped):
        if continuable:
            return Outcome(event=RunEvent.RELEASE, end_reason=None, handed_back=HandBack.DRAIN)
        error = RunError(error="Drained", message="The process was drained or shut down before the run had ended.")
        return Outcome(event=RunEvent.STOP, end_reason=EndReason.DRAINED_OVER, error=error)
    reason = EndReason.WORKER_LOST if isinstance(failure, WorkerLost) else EndReason.FAILED
    return Outcome(event=RunEvent.FAIL, end_reason=reason, error=run_error(failure, errors))


def reported_outcome(run: RunRecord, status: RunStatus, error: str | None) -> Outcome:
    """Return how an attempt ends that the application executes itself, and reports to have ended with *status*.

    Raises:
        IllegalTransition: No attempt ends so.
    """
    if status not in _REPORTED:
        raise IllegalTransition(run.run_id, run.status.value, f"set {status.value}")
    event, reason = _REPORTED[status]
    return Outcome(
        event=event,
        end_reason=reason if run.cancel is None else run.cancel.reason,
        error=None if error is None else RunError(error="Error", message=error),
    )


def minimal_outcome(refused: Outcome, cancel: CancelReceipt | None, why: Exception) -> Outcome:
    """Return how an attempt ends whose ending the ledger *refused*, for the reason *why*.

    After a cancel it is interrupted, otherwise it has failed.
    """
    message = "The run is over, but its ending could not be recorded as it was; the server's log says why."
    return replace(
        refused,
        event=RunEvent.FAIL if cancel is None else RunEvent.STOP,
        end_reason=EndReason.FAILED if cancel is None else cancel.reason,
        error=RunError(error=type(why).__name__, message=message),
        state=None,
        usage=None,
    )


def run_error(failure: BaseException, errors: ErrorTexts = MASKED) -> RunError:
    """Return *failure* as it may be shown: texts of unknown exception classes stay in the log."""
    if isinstance(failure, asyncio.CancelledError):
        return RunError(error="CancelledError", message="The agent cancelled itself.")
    return RunError(error=type(failure).__name__, message=errors.message(failure))


def _cancelled(cancel: CancelReceipt) -> Outcome:
    by = f" by {cancel.requested_by}" if cancel.requested_by else ""
    message = f"The run was stopped{by}: {cancel.reason.value}."
    if cancel.action is CancelAction.ROLLBACK:
        error = RunError(error="UserRollback", message=message)
        return Outcome(event=RunEvent.STOP, end_reason=EndReason.ROLLED_BACK, error=error)
    return Outcome(
        event=RunEvent.STOP, end_reason=cancel.reason, error=RunError(error="UserInterrupt", message=message)
    )
