"""The queue of an attempt's journal: what waits, what is on its way, and what is left. No I/O, no threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from runlane.documents.document import Document, Encoded, whole
from runlane.errors import LeaseLost, RunlaneError, StoreUnavailable
from runlane.journal.remainder import Remainder
from runlane.journal.rows import CheckpointRows
from runlane.records import Lease, StreamEvent

#: An agent with more than this uncommitted is asked to wait.
MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
#: Whoever writes a checkpoint waits while more than this is uncommitted.
MAX_ROW_BYTES: Final = 16 * 1024 * 1024
#: A batch that waits for its transaction grows to this size. Many of them are committed together, and a driver knows
#: their sizes from when they were sent.
MAX_GROWN_BYTES: Final = 16 * 1024


@dataclass(slots=True, kw_only=True)
class Batch:
    """The writes of one transaction; ``settles`` appends are settled once it is.

    ``begun`` says that the transaction may have been committed: what is written again is the same.
    """

    events: list[StreamEvent] = field(default_factory=list)
    #: Those of the events that are documents, by number.
    documents: dict[int, Document] = field(default_factory=dict)
    event_bytes: int = 0
    rows: CheckpointRows = field(default_factory=CheckpointRows)
    settles: int = 0
    begun: bool = False

    def __bool__(self) -> bool:
        return bool(self.events or self.rows)

    @property
    def size(self) -> int:
        return self.event_bytes + self.rows.size

    def extend(self, other: Batch) -> None:
        """Append what *other* has."""
        self.events += other.events
        self.documents |= other.documents
        self.event_bytes += other.event_bytes
        self.rows.extend(other.rows)


class Queue:
    """At most one batch is on its way, and it has everything that was appended before it was taken.

    ``due`` says that what is open is to be taken as soon as nothing is on its way. Once the ledger has refused a batch
    of both kinds for good, they are taken apart, events first, so that only what cannot be written is dropped.
    """

    __slots__ = (
        *("appended", "closed", "due", "event_bytes", "events_refused", "flying", "lost", "open", "row_bytes"),
        *("rows_refused", "seq", "settled", "_apart", "_held", "_lease"),
    )

    def __init__(self, lease: Lease, seq: int) -> None:
        """Begin after event number *seq*."""
        self._lease = lease
        self.seq = seq
        self.open = Batch()
        self.flying: Batch | None = None
        self.due = False
        self.closed = False
        self.event_bytes = 0  # uncommitted, here and on their way
        self.row_bytes = 0
        self.appended = 0
        self.settled = 0  # how many appends are committed or dropped
        self.lost: LeaseLost | None = None
        self.events_refused: RunlaneError | None = None
        self.rows_refused: BaseException | None = None
        self._apart = False
        self._held: Batch | None = None  # checkpoints that follow the events on their way

    @property
    def congested(self) -> bool:
        return self.event_bytes > MAX_EVENT_BYTES or self.row_bytes > MAX_ROW_BYTES

    @property
    def flying_bytes(self) -> int:
        """How large the batch on its way is."""
        return 0 if self.flying is None else self.flying.size

    @property
    def batches(self) -> tuple[Batch, ...]:
        """Everything that is not committed."""
        return tuple(batch for batch in (self.open, self.flying, self._held) if batch is not None)

    def append_event(self, name: str, encoded: Encoded) -> bool:
        """Append an event, unless events are not taken any more; return whether it was."""
        if self.closed or self.events_refused is not None:
            return False
        self.seq += 1
        self.appended += 1
        if isinstance(encoded, Document):
            self.open.documents[self.seq] = encoded
            encoded = whole(encoded)
        self.open.events.append(StreamEvent(seq=self.seq, name=name, data=encoded))
        self.open.event_bytes += len(encoded)
        self.event_bytes += len(encoded)
        return True

    def append_rows(self, rows: CheckpointRows) -> None:
        """Append rows.

        Raises:
            LeaseLost: Nothing is taken any more.
            BaseException: Why earlier rows were not written.
        """
        self.check()
        if self.closed:
            raise self.over
        self.appended += 1
        self.open.rows.extend(rows)
        self.row_bytes += rows.size

    @property
    def over(self) -> LeaseLost:
        """The error for writes of an attempt that is over."""
        return LeaseLost(self._lease.run_id, self._lease.attempt)

    def check(self) -> None:
        """Raise why checkpoints cannot be written, if that is so."""
        refused = self.lost or self.rows_refused
        if refused is not None:
            raise refused

    def take(self) -> bool:
        """Put what is open on its way, or have it due after what is; return whether there is something to send."""
        if self.flying is not None:
            self.due = self.due or bool(self.open)
            return False
        if self._held is not None:
            self.flying, self._held = self._held, None
            return True
        self.due = False
        if self.closed or not self.open:
            return False
        self.flying, self.open = self.open, Batch()
        self.flying.settles = self.appended
        if self._apart and self.flying.events and self.flying.rows:
            self._held = Batch(rows=self.flying.rows, settles=self.appended)
            self.flying.rows, self.flying.settles = CheckpointRows(), 0
            self.due = True
        return True

    def begin(self) -> Batch:
        """Return the batch on its way, whose transaction begins now, with what was appended since it was taken.

        Otherwise that would be seen a whole transaction later.
        """
        assert self.flying is not None
        batch = self.flying
        grows = not (batch.begun or self.closed or self._apart) and bool(self.open)
        batch.begun = True
        if grows and batch.size + self.open.size <= MAX_GROWN_BYTES:
            batch.extend(self.open)
            batch.settles = self.appended
            self.open, self.due = Batch(), False
        return batch

    def commit(self) -> Batch:
        """Take note that what was on its way is committed, and return it."""
        batch = self._landed()
        self._settle(batch)
        return batch

    def refuse(self, error: BaseException) -> RunlaneError | None:
        """Take note that what was on its way will never be written as it is.

        Returns:
            Why no event is written from now on, if that is news.
        """
        batch = self._landed()
        if isinstance(error, LeaseLost) and self.lost is None:
            self.lost = error
        final = isinstance(error, LeaseLost | StoreUnavailable)  # it is about the attempt or the ledger, not the batch
        if not final and batch.events and batch.rows:
            self._put_back(batch)
            return None
        news = None
        if (final or batch.events) and self.events_refused is None:
            news = self.events_refused = error if isinstance(error, RunlaneError) else StoreUnavailable(str(error))
            self._drop_events()
        if (final or batch.rows) and self.rows_refused is None:
            self.rows_refused = error
            self._drop_rows()
        self._settle(batch)
        return news

    def remainder(self, staged: Sequence[CheckpointRows]) -> Remainder:
        """Return what is left once nothing is on its way, with what was *staged* on top of it."""
        return Remainder(
            lease=self._lease,
            events=tuple(self.open.events),
            documents=self.open.documents,
            events_end=self.seq if self.events_refused is None else None,
            rows=tuple(rows for rows in (self.open.rows, *staged) if rows),
        )

    def drop(self, why: LeaseLost) -> None:
        """Drop what is not on its way, and take nothing more."""
        self.closed = True
        self.lost = self.lost or why
        self._drop_events()
        self._drop_rows()

    def _landed(self) -> Batch:
        assert self.flying is not None
        batch, self.flying = self.flying, None
        return batch

    def _settle(self, batch: Batch) -> None:
        self.event_bytes -= batch.event_bytes
        self.row_bytes -= batch.rows.size
        nothing_left = not self.open and self._held is None
        self.settled = max(self.settled, self.appended if nothing_left else batch.settles)

    def _put_back(self, batch: Batch) -> None:
        batch.extend(self.open)
        self.open, self._apart, self.due = batch, True, True

    def _drop_events(self) -> None:
        self.event_bytes -= self.open.event_bytes
        self.open.events, self.open.documents, self.open.event_bytes = [], {}, 0

    def _drop_rows(self) -> None:
        for batch in (self.open, self._held):
            if batch is not None:
                self.row_bytes -= batch.rows.size
                batch.rows = CheckpointRows()
        self._held = None
