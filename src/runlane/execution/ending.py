"""The ending of an attempt as one transaction, and what is left of it if the ledger does not take it. Pure."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from runlane.agents.encode import encode
from runlane.errors import RollbackFailed
from runlane.execution.attempt import Attempt
from runlane.journal.remainder import Remainder
from runlane.lifecycle import RunEvent
from runlane.outcomes import Outcome
from runlane.records import Lease, Usage
from runlane.store.statements import Transaction


def completed(attempt: Attempt, outcome: Outcome, *, usage: Usage | None, events_end: int | None) -> Outcome:
    """Return *outcome* with what else is recorded of an attempt that ends so."""
    abandoned = attempt.abandoned
    return replace(
        outcome,
        usage=usage,
        events_end=events_end,
        observed_at=attempt.observed_at,
        stopped=abandoned is None,
        blocked_at=None if abandoned is None else abandoned.place,
    )


def last_writes(remainder: Remainder, outcome: Outcome, saver: Any) -> Remainder:
    """Return what is written with *outcome*: what is left, with the event of a failure; or a rollback."""
    remainder = _with_error(remainder, outcome)
    if outcome.rolled_back and saver is not None:
        return remainder.rolled_back(partial(_roll_back, remainder.lease, saver))
    return remainder


def minimal_writes(remainder: Remainder, outcome: Outcome) -> list[Remainder]:
    """Return what may be written with a minimal ending, most first: less each time that the ledger refuses it."""
    everything = _with_error(remainder, outcome)
    nothing = everything.without_events().without_checkpoints()
    if everything.events_end is None:
        return [everything, nothing]
    return [everything, everything.without_checkpoints(), everything.without_events(), nothing]


def _with_error(remainder: Remainder, outcome: Outcome) -> Remainder:
    if outcome.event not in (RunEvent.FAIL, RunEvent.EXPIRE) or outcome.error is None:
        return remainder
    return remainder.with_event("error", encode({"error": outcome.error.error, "message": outcome.error.message}))


def _roll_back(lease: Lease, saver: Any) -> Transaction[None]:
    try:
        yield from saver.rollback()
    except (ValueError, TypeError, LookupError) as error:  # what is stored makes no sense, now and at another try
        raise RollbackFailed(lease.run_id, str(error)) from error
