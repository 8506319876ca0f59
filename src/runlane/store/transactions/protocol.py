"""What the event-streaming protocol asks of the ledger: runs of a thread in order, and answers given at most once."""

from __future__ import annotations

from collections.abc import Sequence

from runlane.errors import NoSuchInterrupt
from runlane.records import NewRun, RunRecord
from runlane.requests import StoredRequest
from runlane.store.conditions import IS_ACTIVE
from runlane.store.rows import loads, run_record
from runlane.store.statements import Row, Transaction, statement

# Runs that have something to be read: they are active, or have events, or ended without any.
RUNS_WITH_EVENTS = statement(
    "runs_with_events",
    f"""SELECT {{run}} FROM runs WHERE thread_id = :thread_id AND seq > :after
          AND ({IS_ACTIVE} OR events_end = 0 OR EXISTS (SELECT 1 FROM events WHERE run_seq = runs.seq))
        ORDER BY seq LIMIT :limit""",
)
# The newest run that answers, or answered, an interrupt is among the thread's newest ones.
NEWEST_RUNS = statement(
    "newest_runs", "SELECT run_id, kwargs FROM runs WHERE thread_id = :thread_id ORDER BY seq DESC LIMIT 20"
)


def runs_with_events(thread_id: str, after_seq: int, limit: int) -> Transaction[tuple[RunRecord, ...]]:
    """Return up to *limit* runs of the thread with a ``seq`` above *after_seq* that have events, or may get some."""
    rows = yield RUNS_WITH_EVENTS(thread_id=thread_id, after=after_seq, limit=limit)
    return tuple(run_record(row) for row in rows)


def check_answers(new: NewRun, thread: Row, active: Sequence[Row]) -> Transaction[None]:
    """Refuse a run that answers an interrupt which is not open any more; called under the thread's lock.

    The thread's row has the interrupts that its last run left open. A run in the lane may be answering some of them
    already; one that answers nothing moves the thread on, so that no answer has its question any more.

    Raises:
        NoSuchInterrupt: One of them was answered, or is not open.
    """
    being_answered: dict[str, str] = {}
    for row in active:
        answers = StoredRequest(row["kwargs"]).request.answers
        if not answers:
            raise NoSuchInterrupt(
                new.request.answers[0], f"the thread goes on with run {row['run_id']!r} without an answer"
            )
        being_answered |= dict.fromkeys(answers, str(row["run_id"]))
    is_open = {item["id"] for items in loads(thread["interrupts"]).values() for item in items}
    for interrupt_id in new.request.answers:
        by = being_answered.get(interrupt_id)
        if by is None and interrupt_id in is_open:
            continue
        if by is None:
            by = yield from _answered_by(new.thread_id, interrupt_id)
        why = "nothing of this thread waits for it" if by is None else f"it was answered already, by run {by!r}"
        raise NoSuchInterrupt(interrupt_id, why)


def _answered_by(thread_id: str, interrupt_id: str) -> Transaction[str | None]:
    rows = yield NEWEST_RUNS(thread_id=thread_id)
    for row in rows:
        if interrupt_id in StoredRequest(row["kwargs"]).request.answers:
            run_id: str = row["run_id"]
            return run_id
    return None
