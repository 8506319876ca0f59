"""The commit of an attempt's ending: one transaction, tried with less each time that the ledger refuses it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from msgspec.structs import replace

from runlane.agents.encode import encode
from runlane.errors import LeaseLost, RollbackFailed, StoreUnavailable
from runlane.execution.attempt import Attempt
from runlane.execution.decision import StopReason, minimal_outcome, run_error
from runlane.execution.ports import AttemptCheckpointer
from runlane.journal.remainder import Remainder
from runlane.lifecycle import EndReason, RunEvent
from runlane.outcomes import Outcome
from runlane.records import CancelReceipt, Finished, Lease, StreamEvent
from runlane.store.resources.attempts import Attempts
from runlane.store.statements import Transaction

log = logging.getLogger("runlane.execution")

#: Pause between tries to write an ending that the ledger does not take.
FINISH_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The ledger's answer to an ending, and the events that were committed with it, which nobody has been shown.

    It is ``whole`` if everything that the attempt wrote has been stored.
    """

    finished: Finished
    events: tuple[StreamEvent, ...]
    whole: bool


async def commit(
    ledger: Attempts, attempt: Attempt, outcome: Outcome, remainder: Remainder, saver: AttemptCheckpointer | None
) -> Recorded | CancelReceipt:
    """Record how *attempt* ended, with the *remainder* of what it wrote, for as long as its lease is held.

    An ending that the ledger refuses becomes a minimal one: its run must not be executed again.

    Returns:
        What was committed; or the receipt of a cancel that was recorded before, and then nothing was written.

    Raises:
        LeaseLost: Another attempt may have the run.
    """
    lease, writes = attempt.claim.lease, last_writes(remainder, outcome, saver)
    everything = writes
    lesser: Iterator[Remainder] | None = None
    while True:
        complete = replace(outcome, events_end=writes.events_end)
        try:
            finished = await ledger.finish(lease, complete, extra_writes=writes.transaction)
        except LeaseLost:
            raise
        except StoreUnavailable as error:
            await _pause(attempt, error)
        except RollbackFailed as error:
            log.exception("run.rollback_failed run_id=%s", lease.run_id)
            outcome = replace(outcome, end_reason=EndReason.USER_CANCEL, error=run_error(error))
            writes = writes.without_checkpoints()
        except Exception as error:  # whatever stands in the way of an ending must not have the run executed again
            if lesser is None:
                log.exception("run.ending_refused run_id=%s attempt=%d", lease.run_id, lease.attempt)
                outcome = minimal_outcome(outcome, attempt.cancel, error)
                lesser = iter(minimal_writes(remainder, outcome))
            refused, writes = writes, next(lesser, writes)
            if writes is refused:
                await _pause(attempt, error)
        else:
            if isinstance(finished, CancelReceipt):
                return finished
            whole = writes is everything and not outcome.rolled_back
            return Recorded(finished=finished, events=writes.events, whole=whole)


def last_writes(remainder: Remainder, outcome: Outcome, saver: AttemptCheckpointer | None) -> Remainder:
    """Return what is written with an ending: what is left, with the event of a failure; or a rollback."""
    if outcome.rolled_back and saver is not None:
        return remainder.rolled_back(partial(_roll_back, remainder.lease, saver))
    return _with_error(remainder, outcome)


def minimal_writes(remainder: Remainder, outcome: Outcome) -> list[Remainder]:
    """Return what may be written with a minimal ending, most first."""
    everything = _with_error(remainder, outcome)
    nothing = everything.without_events().without_checkpoints()
    if everything.events_end is None:
        return [everything, nothing]
    return [everything, everything.without_checkpoints(), everything.without_events(), nothing]


def _with_error(remainder: Remainder, outcome: Outcome) -> Remainder:
    if outcome.event not in (RunEvent.FAIL, RunEvent.EXPIRE) or outcome.error is None:
        return remainder
    return remainder.with_event("error", encode({"error": outcome.error.error, "message": outcome.error.message}))


def _roll_back(lease: Lease, saver: AttemptCheckpointer) -> Transaction[None]:
    try:
        yield from saver.rollback()
    except (ValueError, TypeError, LookupError) as error:  # what is stored makes no sense, now and at another try
        raise RollbackFailed(lease.run_id, str(error)) from error


async def _pause(attempt: Attempt, error: Exception) -> None:
    """Wait before the next try to end *attempt*.

    Raises:
        LeaseLost: Another worker may have the run by now.
    """
    lease = attempt.claim.lease
    log.error("run.finish_delayed run_id=%s why=%s", lease.run_id, error)
    if attempt.reason is StopReason.LEASE_LOST:
        raise LeaseLost(lease.run_id, lease.attempt) from error
    await asyncio.sleep(FINISH_RETRY_S)
