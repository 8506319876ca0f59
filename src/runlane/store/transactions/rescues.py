"""Runs that nobody executes any more: taken from a dead worker, or given up. Lock order: thread, then run.

They wait for no lock: what another transaction works on is looked at again later, so that it keeps nothing else.
"""

from __future__ import annotations

from runlane.errors import LeaseLost
from runlane.leases import SeenLease
from runlane.lifecycle import EndReason, HandBack, RunEvent, RunStatus, move
from runlane.outcomes import Outcome
from runlane.records import Finished, RunError
from runlane.store.rows import head_record
from runlane.store.statements import Row, Transaction
from runlane.store.transactions.heads import move_head
from runlane.store.transactions.runs import (
    LOCK_FREE_RUN,
    LOCK_FREE_THREAD,
    NEXT_OF_LANE,
    RELEASE_RUN,
    THREAD_OF_RUN,
    end_run,
    settle,
)
from runlane.store.transactions.values import run_of
from runlane.store.transactions.workers import beats_of


def rescue(lost: SeenLease, max_rescues: int) -> Transaction[Finished | None]:
    """Take a run from its dead worker: back to its lane, or to ``error`` once it has killed *max_rescues* workers.

    Returns:
        What became of it; ``None`` while another transaction works on the run or its thread.

    Raises:
        LeaseLost: The run moved on, or its worker has beaten, since it was seen.
    """
    found = yield THREAD_OF_RUN(run_id=lost.run_id)
    if not found:
        raise LeaseLost(lost.run_id, lost.attempt)
    thread = yield LOCK_FREE_THREAD(thread_id=found[0]["thread_id"])
    rows = yield LOCK_FREE_RUN(run_id=lost.run_id)
    if not thread or not rows:
        return None
    if rows[0]["attempt"] != lost.attempt:
        raise LeaseLost(lost.run_id, lost.attempt)
    row, current = rows[0], RunStatus(rows[0]["status"])
    if current is not RunStatus.RUNNING or (yield from beats_of(lost.worker_id)) != lost.beats:
        raise LeaseLost(lost.run_id, lost.attempt)
    if row["rescues"] < max_rescues:
        move(lost.run_id, current, RunEvent.RESCUE)
        rows = yield RELEASE_RUN(
            run_id=lost.run_id,
            thread_id=row["thread_id"],
            usage=None,
            rescues=1,
            ended_by=HandBack.LOST.value,
        )
        yield from move_head(rows[0]["thread_id"])
        return Finished(run=(yield from run_of(rows[0])), next_run=head_record(rows[0]))
    error = RunError(
        error="WorkerLost",
        message=f"The worker died {row['rescues'] + 1} times while it executed this run; it is not tried again.",
    )
    finished = yield from _give_up(thread[0], row, EndReason.WORKER_LOST, error)
    return finished


def give_up(run_id: str, reason: EndReason, error: RunError, home: str | None) -> Transaction[Finished | None]:
    """End a pending run that nobody will start; ``None`` if it is no longer pending, or has another home by now.

    Also while another transaction works on the run or its thread.
    """
    found = yield THREAD_OF_RUN(run_id=run_id)
    if not found:
        return None
    thread = yield LOCK_FREE_THREAD(thread_id=found[0]["thread_id"])
    rows = yield LOCK_FREE_RUN(run_id=run_id)
    if not thread or not rows or RunStatus(rows[0]["status"]) is not RunStatus.PENDING or rows[0]["home"] != home:
        return None
    finished = yield from _give_up(thread[0], rows[0], reason, error)
    return finished


def _give_up(thread: Row, row: Row, reason: EndReason, error: RunError) -> Transaction[Finished]:
    """End a run that nobody executes any more; one whose cancel was recorded can only end as stopped."""
    cancelled, current = row["cancel_requested_at"] is not None, RunStatus(row["status"])
    event = RunEvent.GIVE_UP
    if cancelled:
        event = RunEvent.STOP if current is RunStatus.RUNNING else RunEvent.CANCEL
    status = move(row["run_id"], current, event)
    outcome = Outcome(
        event=event,
        end_reason=reason,
        error=error,
        events_end=None,
        stopped=cancelled,
    )
    run = yield from end_run(row, status, outcome, None)
    yield from settle(thread, status, outcome)
    yield from move_head(row["thread_id"])
    following = yield NEXT_OF_LANE(thread_id=row["thread_id"])
    return Finished(run=run, next_run=head_record(following[0]) if following else None)
