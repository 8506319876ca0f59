"""The uncommitted writes of an attempt that is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from runlane.documents.document import Document
from runlane.journal.rows import CheckpointRows, put
from runlane.records import Lease, StreamEvent
from runlane.store.statements import Transaction
from runlane.store.transactions.events import NO_DOCUMENTS, insert_events
from runlane.store.transactions.fence import fence_free
from runlane.store.transactions.run_logs import put_log
from runlane.telemetry.run_log import LogSegment


@dataclass(frozen=True, slots=True, kw_only=True)
class Remainder:
    """Writes of the transaction that ends an attempt.

    Attributes:
        documents: Those of the events that are documents, by number.
        events_end: ``None`` if only the ledger knows it.
        log: Log records that are not stored yet.
    """

    lease: Lease
    events: tuple[StreamEvent, ...] = ()
    documents: Mapping[int, Document] = field(default_factory=dict)
    events_end: int | None = None
    rows: Sequence[CheckpointRows] = field(default=())
    log: LogSegment | None = None

    def transaction(self) -> Transaction[None]:
        """Return the transaction that writes it, to be part of the one that ends the attempt, whose guard fences it."""
        if self.events:
            yield from insert_events(self.lease, self.events, self.documents)
        for rows in self.rows:
            yield from put(rows)
        if self.log is not None:
            yield from put_log(self.lease, self.log)

    def with_log(self, log: LogSegment | None) -> Remainder:
        return replace(self, log=log)

    def with_event(self, name: str, data: bytes) -> Remainder:
        """Return this with one event more, if events can be written: their numbers are known."""
        if self.events_end is None:
            return self
        last = StreamEvent(seq=self.events_end + 1, name=name, data=data)
        return replace(self, events=(*self.events, last), events_end=last.seq)

    def without_events(self) -> Remainder:
        """Return this without what only readers see: events, and the log."""
        return replace(self, events=(), events_end=None, log=None)

    def without_checkpoints(self) -> Remainder:
        return replace(self, rows=())

    def rolled_back(self, change: Callable[[], Transaction[None]]) -> Remainder:
        """Return this with *change*, which takes back what the run checkpointed, in the place of checkpoints."""
        return replace(self, rows=(CheckpointRows(changes=[change]),))


def append(
    lease: Lease,
    events: Sequence[StreamEvent],
    rows: CheckpointRows | None = None,
    documents: Mapping[int, Document] = NO_DOCUMENTS,
) -> Transaction[None]:
    """Append *events*, consecutive and following the log's last one, and write *rows*, while *lease* holds.

    Doing it again changes nothing that is read.

    Raises:
        LeaseLost: Another attempt has the run, or it is terminal; nothing was written.
        RowsLocked: The run is being ended or taken; nothing was written.
    """
    yield from insert_events(lease, events, documents, fence=fence_free(lease))
    if rows is not None:
        yield from put(rows)
