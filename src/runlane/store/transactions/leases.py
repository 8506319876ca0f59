"""Leases: heartbeats, cancels seen, runs whose worker is gone, and lanes that could go on.

A worker has one lease for all that it executes, its row in ``workers``, which nobody else locks. So no lock of a run or
a thread keeps a worker from renewing it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from runlane.leases import Renewal, SeenLease, SharedView, WorkerState
from runlane.records import Head, Lease
from runlane.store.conditions import IS_ACTIVE, IS_DUE, IS_PENDING, RUNNING, UNBLOCKED
from runlane.store.rows import dumps, head_record, receipt_of, seen_lease
from runlane.store.statements import RECEIPT, Transaction, statement
from runlane.store.transactions.heads import any_head
from runlane.store.transactions.workers import WORKERS, beat, seen_workers

# Guard: the attempt's own run, before its end, and there is a cancel to be seen.
OBSERVE_CANCEL = statement(
    "observe_cancel",
    """UPDATE runs SET cancel_observed_at = COALESCE(cancel_observed_at, :at)
       WHERE run_id = :run_id AND attempt = :attempt AND cancel_requested_at IS NOT NULL AND ended_at IS NULL""",
)
_HELD = f"SELECT run_id, attempt, {RECEIPT} FROM runs WHERE status = {RUNNING} AND run_id IN "
# Those of the runs that execute, whoever has them.
HELD = statement("held", f"{_HELD} {{listed :run_ids}}")
# `+seq` keeps SQLite on the index of active runs; by the primary key it would read every run there ever was.
LEASES = statement(
    "leases",
    f"""SELECT runs.run_id, runs.attempt, runs.worker_id, COALESCE(w.lease_us, runs.lease_us) AS lease_us, w.beats
    FROM runs LEFT JOIN workers AS w ON w.worker_id = runs.worker_id
    WHERE {IS_ACTIVE} AND status = {RUNNING} AND runs.worker_id NOT IN {{listed :living}} ORDER BY +seq""",
)
_WAITING: Final = f"""seq, run_id, owner, assistant_id, graph_id, home,
          CASE WHEN {IS_DUE} AND not_before > {{now}} THEN 0 ELSE not_before - {{now}} END AS wait_us"""
RUNNABLE = statement(
    "runnable",
    f"""SELECT {_WAITING}
        FROM runs WHERE {IS_PENDING} AND {UNBLOCKED} AND +seq > :after_seq
        ORDER BY +seq LIMIT :limit""",
)

CANCELLED_RUNS = statement(
    "cancelled_runs",
    f"""SELECT run_id FROM runs WHERE {IS_ACTIVE} AND status = {RUNNING} AND worker_id = :worker_id
          AND cancel_requested_at IS NOT NULL""",
)
HEADS_AT_HOME = statement(
    "heads_at_home",
    f"""SELECT {_WAITING} FROM runs WHERE {IS_PENDING} AND home IS NOT NULL AND {UNBLOCKED} AND +seq > :after_seq
        ORDER BY +seq LIMIT :limit""",
    postgres=f"""SELECT {_WAITING} FROM runs WHERE seq IN (SELECT head_seq FROM threads
          WHERE head_home IS NOT NULL AND head_seq > :after_seq ORDER BY head_seq LIMIT :limit) ORDER BY seq""",
)


def renew(held: Sequence[Lease], worker: WorkerState) -> Transaction[Renewal]:
    """Renew the lease of *worker*, and report which of the runs that it has *held* are lost or were cancelled.

    The runs are read after the worker's row was written, and locked by nobody for it.
    """
    yield from beat(worker)
    rows = yield HELD(run_ids=dumps([lease.run_id for lease in held]))
    found = {(row["run_id"], row["attempt"]): row for row in rows}
    lost, cancelled = [], []
    for lease in held:
        row = found.get((lease.run_id, lease.attempt))
        receipt = None if row is None else receipt_of(row)
        if row is None:
            lost.append(lease)
        elif receipt is not None:
            cancelled.append(receipt)
    return Renewal(lost=tuple(lost), cancelled=tuple(cancelled))


def leases(living: Sequence[str]) -> Transaction[tuple[SeenLease, ...]]:
    """Return every run in execution, in the order of admission, but for those of the *living* workers."""
    rows = yield LEASES(living=dumps(living))
    return tuple(seen_lease(row) for row in rows)


def runnable(after_seq: int, limit: int) -> Transaction[tuple[tuple[Head, int], ...]]:
    """Return the next heads of lanes in which nothing executes, and in how many µs each may start.

    The ledger's clock says when they may start, since the caller's may go wrong.
    """
    rows = yield RUNNABLE(after_seq=after_seq, limit=limit)
    return tuple((head_record(row), row["wait_us"]) for row in rows)


def heads_at_home(after_seq: int, limit: int) -> Transaction[tuple[tuple[Head, int], ...]]:
    """Return the next of them whose code lives in one process."""
    rows = yield HEADS_AT_HOME(after_seq=after_seq, limit=limit)
    return tuple((head_record(row), row["wait_us"]) for row in rows)


def shared_view(worker_id: str, living: Sequence[str], groups: Collection[str] | None) -> Transaction[SharedView]:
    """Return what a worker has to know of the others, of cancels, and of heads of *groups*; ``None``: of all."""
    rows = yield WORKERS()
    left = yield from leases(living)
    cancelled = yield CANCELLED_RUNS(worker_id=worker_id)
    has_heads = yield from any_head(groups)
    return SharedView(
        workers=seen_workers(rows),
        leases=left,
        cancelled=tuple(row["run_id"] for row in cancelled),
        has_heads=has_heads,
        drain_asked=any(row["worker_id"] == worker_id and row["drain_asked_at"] is not None for row in rows),
    )


def observe_cancel(lease: Lease, at_us: int) -> Transaction[None]:
    """Record when the worker saw the cancel."""
    yield OBSERVE_CANCEL(run_id=lease.run_id, attempt=lease.attempt, at=at_us)
