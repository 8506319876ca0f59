"""The ending of an attempt as one transaction, and what is left of it if the ledger does not take it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from runlane.agents.encode import encode
from runlane.execution.attempt import Attempt
from runlane.lifecycle import RunEvent
from runlane.outcomes import Outcome
from runlane.records import Lease, StreamEvent, Usage
from runlane.store.statements import Transaction
from runlane.store.transactions.events import insert_events

#: Makes the transaction that writes the checkpoints which an attempt has left to write.
Checkpoints = Callable[[], Transaction[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWrites:
    """What is written with an ending; ``events_end`` is ``None`` if the ledger alone knows its last event."""

    lease: Lease
    events: Sequence[StreamEvent] = ()
    events_end: int | None = None
    checkpoints: Checkpoints | None = None

    def transaction(self) -> Transaction[None]:
        """Return the transaction that writes it, to be part of the one that ends the attempt."""
        if self.events:
            yield from insert_events(self.lease, self.events)
        if self.checkpoints is not None:
            yield from self.checkpoints()


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


def minimal_writes(
    lease: Lease,
    events: Sequence[StreamEvent],
    *,
    events_end: int | None,
    outcome: Outcome,
    checkpoints: Checkpoints | None,
) -> list[LastWrites]:
    """Return what may be written with a minimal ending, most first: less each time that the ledger refuses it."""
    writes = partial(LastWrites, lease=lease)
    if events_end is None:
        return [writes(checkpoints=checkpoints), writes()]
    told = any(event.name == "error" for event in events[-1:])
    if outcome.event is RunEvent.FAIL and outcome.error is not None and not told:
        events_end += 1
        data = encode({"error": outcome.error.error, "message": outcome.error.message})
        events = (*events, StreamEvent(seq=events_end, name="error", data=data))
    return [
        writes(events=events, events_end=events_end, checkpoints=checkpoints),
        writes(events=events, events_end=events_end),
        writes(checkpoints=checkpoints),
        writes(),
    ]
