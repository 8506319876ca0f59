"""Queries of the event-streaming protocol: runs of a thread in order, and answers given at most once."""

from __future__ import annotations

from runlane.records import RunRecord
from runlane.store.conditions import IS_ACTIVE
from runlane.store.statements import Transaction, statement
from runlane.store.transactions.values import runs_of

# Runs that have something to be read: they are active, or have events, or ended without any.
RUNS_WITH_EVENTS = statement(
    "runs_with_events",
    f"""SELECT {{run}} FROM runs WHERE thread_id = :thread_id AND seq > :after
          AND ({IS_ACTIVE} OR events_end = 0 OR EXISTS (SELECT 1 FROM events WHERE run_seq = runs.seq))
        ORDER BY seq LIMIT :limit""",
)


def runs_with_events(thread_id: str, after_seq: int, limit: int) -> Transaction[tuple[RunRecord, ...]]:
    """Return up to *limit* runs of the thread with a ``seq`` above *after_seq* that have events, or may get some."""
    rows = yield RUNS_WITH_EVENTS(thread_id=thread_id, after=after_seq, limit=limit)
    return (yield from runs_of(rows))
