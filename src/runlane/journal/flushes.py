"""Passing on what a journal has committed: events to readers, and what each flush wrote to whoever observes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from runlane.journal.loops import call
from runlane.journal.queue import Batch
from runlane.records import StreamEvent


class Readers(Protocol):
    """The readers of a run, as its attempt knows them."""

    @property
    def present(self) -> bool:
        """Return whether somebody reads the stream; may be asked from any thread."""
        ...

    def show(self, events: Sequence[StreamEvent]) -> None:
        """Show events, which are committed. Called on the control loop, in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Flushed:
    """The result of one transaction, and how long that took, tries during an outage included."""

    events: Sequence[StreamEvent]
    event_bytes: int
    checkpoints: int
    duration_s: float


class Flushes:
    """Tells of committed batches on the control loop, in order. Without *on_flush*, only of those that have events."""

    __slots__ = ("_control", "_on_flush", "_passed", "_readers", "_sent_at")

    def __init__(
        self, control: asyncio.AbstractEventLoop, readers: Readers, on_flush: Callable[[Flushed], None] | None
    ) -> None:
        self._control = control
        self._readers = readers
        self._on_flush = on_flush
        self._passed: list[Flushed] = []
        self._sent_at = 0.0

    def sending(self, *, again: bool) -> None:
        """Note that a batch is sent, *again* if the database was unavailable before."""
        if not again:
            self._sent_at = self._control.time()

    def add(self, batch: Batch) -> None:
        """Have the readers and observers told of *batch*, which was committed; from any thread."""
        if batch.events or self._on_flush is not None:
            flushed = Flushed(
                events=batch.events,
                event_bytes=batch.event_bytes,
                checkpoints=len(batch.rows.checkpoints),
                duration_s=self._control.time() - self._sent_at,
            )
            self._passed.append(flushed)
            call(self._control, self.receive)

    def receive(self) -> None:
        """Tell now, on the control loop, what has been added."""
        while self._passed:
            self._show(self._passed.pop(0))

    def _show(self, flushed: Flushed) -> None:
        if flushed.events:
            self._readers.show(flushed.events)
        if self._on_flush is not None:
            self._on_flush(flushed)
