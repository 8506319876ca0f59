"""Attempts' journals without a run manager around them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from runlane.checkpoints.saver import AttemptSaver, LedgerSaver
from runlane.errors import RunlaneError
from runlane.journal.delays import Delays
from runlane.journal.journal import AttemptJournal
from runlane.records import Lease, StreamEvent
from runlane.store.statements import Driver


@dataclass
class Audience:
    """Readers of a stream who note what they are shown."""

    present: bool = False
    shown: list[StreamEvent] = field(default_factory=list)

    def show(self, events: Sequence[StreamEvent]) -> None:
        self.shown += events


def journal_of(
    driver: Driver,
    lease: Lease,
    *,
    readers: Audience | None = None,
    failures: list[RunlaneError] | None = None,
) -> AttemptJournal:
    """Return the journal of an attempt, on the running loop."""
    return AttemptJournal(
        driver,
        lease,
        events_end=0,
        control=asyncio.get_running_loop(),
        delays=Delays(),
        readers=readers or Audience(),
        on_failure=([] if failures is None else failures).append,
    )


def attempt_of(
    saver: LedgerSaver, driver: Driver, lease: Lease, *, write_behind: bool
) -> tuple[AttemptSaver, AttemptJournal]:
    """Return the saver of an attempt, and the journal through which it writes."""
    journal = journal_of(driver, lease)
    return saver.of_attempt(journal, write_behind=write_behind), journal
