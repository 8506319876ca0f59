"""Outcomes: how an attempt's code ends, what it leaves, and what is recorded. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from runlane.documents.document import Encoded
from runlane.lifecycle import EndReason, HandBack, RunEvent
from runlane.records import RunError, Usage


class Drained(Exception):  # an outcome, not an error
    """The agent stopped at a boundary because a drain was requested; it can be continued."""


class Abandoned(Exception):  # an outcome, not an error
    """Cancelled code did not stop in time and was abandoned; ``place`` says where it is."""

    def __init__(self, place: str | None) -> None:
        self.place = place
        super().__init__(place or "unknown place")


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state that a run left on its thread, as JSON text, serialised once: bytes, or a document that has them.

    Attributes:
        values: The state, which replaces the thread's values; ``None``: they stay as they are.
        result: What a waiter of the run is answered: the values, with ``__interrupt__`` if there is one.
        interrupts: What the graph asks a human: lists of ``{"id", "value"}`` by task id.
        paused: The graph waits for a human.
        unfinished: The last checkpoint has next nodes.
    """

    values: Encoded | None = None
    result: Encoded | None = None
    interrupts: Mapping[str, Any] = msgspec.field(default_factory=dict)
    paused: bool = False
    unfinished: bool = False

    @property
    def resumable(self) -> bool:
        """Return whether the thread has something to continue with, so that it is interrupted rather than idle."""
        return self.unfinished or self.paused or bool(self.interrupts)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of an attempt: decided from its failure or cancel, completed by the repair, recorded by the ledger.

    Attributes:
        handed_back: Why another attempt is to go on, if this one is released.
        error: What caller and thread are shown.
        state: What the run left on its thread; ``None`` if that is not known, or if it goes on.
        events_end: The last event's number in the run's log; ``None``: whatever the log has.
        observed_at: When the attempt learnt of its cancel.
        stopped: Whether the run's code has ended; otherwise it was abandoned.
        blocked_at: Where abandoned code was, as ``file:line function``.
    """

    event: RunEvent
    end_reason: EndReason | None
    handed_back: HandBack | None = None
    error: RunError | None = None
    state: Snapshot | None = None
    usage: Usage | None = None
    events_end: int | None = 0
    observed_at: datetime | None = None
    stopped: bool = True
    blocked_at: str | None = None

    @property
    def needs_repair(self) -> bool:
        """Return whether the run was cut short, so that its thread may be invalid."""
        return self.event in (RunEvent.STOP, RunEvent.FAIL, RunEvent.EXPIRE) and not self.rolled_back

    @property
    def rolled_back(self) -> bool:
        """Return whether the run's checkpoints are rolled back."""
        return self.end_reason is EndReason.ROLLED_BACK
