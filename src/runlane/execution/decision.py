"""How an attempt ends: the whole policy. Pure."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from runlane.agents.base import Drained
from runlane.agents.host import Abandoned
from runlane.error_texts import MASKED, ErrorTexts
from runlane.errors import LeaseLost, WorkerLost
from runlane.lifecycle import CancelAction, EndReason, RunEvent
from runlane.records import CancelReceipt, RunError


class StopReason(StrEnum):
    """Why an attempt is stopped. The first wins, except that those of ``OUTRANKING`` win over all above them.

    A lease lapses if the ledger is out for longer than it lasts: the code has to stop, as another worker may begin, but
    what the attempt leaves behind is still its own unless one did. A lease is lost if one did, or if the process gives
    the run up.
    """

    DRAIN = "drain"
    LAPSED = "lapsed"
    DEADLINE = "deadline"
    CANCEL = "cancel"
    LEASE_LOST = "lease_lost"


OUTRANKING: Final = frozenset({StopReason.LAPSED, StopReason.CANCEL, StopReason.LEASE_LOST})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How an attempt ends: the move, its reason, and the error that caller and thread are shown."""

    event: RunEvent
    end_reason: EndReason | None
    error: RunError | None = None

    @property
    def needs_repair(self) -> bool:
        return self.event in (RunEvent.STOP, RunEvent.FAIL, RunEvent.EXPIRE)


def rescue_limit(max_rescues: int, *, continuable: bool) -> int:
    """Return how many lost owners a run may have had and be executed again: none if its agent cannot go on."""
    return max_rescues if continuable else 0


def classify(
    failure: BaseException | None,
    stop: StopReason | None,
    cancel: CancelReceipt | None,
    *,
    paused: bool,
    continuable: bool,
    once: bool = False,
    errors: ErrorTexts = MASKED,
) -> Verdict | None:
    """Decide how an attempt ends. The whole policy; ``None`` means that nothing may be written.

    Args:
        failure: What the agent raised, ``None`` if it returned.
        cancel: The receipt of a recorded cancel.
        continuable: Whether another attempt can go on where this one stopped. One that the ledger forced to stop is
            made again in any case, as after a crash, except
        once: code that has begun and must not be executed again.
        errors: What of an exception's text may be shown.
    """
    if stop is StopReason.LEASE_LOST or isinstance(failure, LeaseLost):
        return None
    if cancel is not None:
        reason = EndReason.ROLLED_BACK if cancel.action is CancelAction.ROLLBACK else cancel.reason
        kind = "UserRollback" if cancel.action is CancelAction.ROLLBACK else "UserInterrupt"
        return Verdict(event=RunEvent.STOP, end_reason=reason, error=RunError(error=kind, message=_cancel_text(cancel)))
    if failure is None:
        return Verdict(
            event=RunEvent.PAUSE if paused else RunEvent.SUCCEED,
            end_reason=EndReason.PAUSED if paused else EndReason.COMPLETED,
        )
    stopped = isinstance(failure, asyncio.CancelledError | Abandoned | Drained)
    if stop is StopReason.LAPSED and stopped:
        if not once:
            return Verdict(event=RunEvent.RELEASE, end_reason=None)
        error = RunError(error="WorkerLost", message="The run was stopped by an outage, and its code cannot go on.")
        return Verdict(event=RunEvent.FAIL, end_reason=EndReason.WORKER_LOST, error=error)
    if stop is StopReason.DEADLINE and stopped:
        error = RunError(error="TimeoutError", message="The run took longer than it may.")
        return Verdict(event=RunEvent.EXPIRE, end_reason=EndReason.DEADLINE, error=error)
    if isinstance(failure, Drained) or (stop is StopReason.DRAIN and stopped):
        if continuable:
            return Verdict(event=RunEvent.RELEASE, end_reason=None)
        error = RunError(error="Drained", message="The process was shut down before the run had ended.")
        return Verdict(event=RunEvent.STOP, end_reason=EndReason.DRAINED_OVER, error=error)
    reason = EndReason.WORKER_LOST if isinstance(failure, WorkerLost) else EndReason.FAILED
    return Verdict(event=RunEvent.FAIL, end_reason=reason, error=run_error(failure, errors))


def _cancel_text(cancel: CancelReceipt) -> str:
    by = f" by {cancel.requested_by}" if cancel.requested_by else ""
    return f"The run was stopped{by}: {cancel.reason.value}."


def run_error(failure: BaseException, errors: ErrorTexts = MASKED) -> RunError:
    """Return *failure* as it may be shown: texts of unknown exception classes stay in the log."""
    if isinstance(failure, asyncio.CancelledError):
        return RunError(error="CancelledError", message="The agent cancelled itself.")
    return RunError(error=type(failure).__name__, message=errors.message(failure))
