"""Leases: heartbeats, cancels seen, runs whose worker is gone, and lanes that could go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from runlane.records import Head, Lease, Renewal, SeenLease
from runlane.store.conditions import HOLDS_RUN, IS_ACTIVE, IS_DUE, IS_PENDING, RUNNING, UNBLOCKED
from runlane.store.rows import head_record, lease_record, receipt_of, seen_lease
from runlane.store.statements import Transaction, statement
from runlane.store.transactions.workers import beat

# Guard: the attempt's own run, before its end, and there is a cancel to be seen.
OBSERVE_CANCEL = statement(
    "observe_cancel",
    """UPDATE runs SET cancel_observed_at = COALESCE(cancel_observed_at, :at)
       WHERE run_id = :run_id AND attempt = :attempt AND cancel_requested_at IS NOT NULL AND ended_at IS NULL""",
)
# Guard: the fence. It locks the run only.
RENEW = statement(
    "renew",
    f"""UPDATE runs SET lease_expires_at = {{now}} + :lease_us, lease_us = :lease_us
        WHERE {HOLDS_RUN} RETURNING {{run}}""",
)
# `+seq` keeps SQLite on the index of active runs; by the primary key it would read every run there ever was.
LEASES = statement(
    "leases",
    f"""SELECT run_id, attempt, worker_id, lease_us, lease_expires_at FROM runs
        WHERE {IS_ACTIVE} AND status = {RUNNING} ORDER BY +seq""",
)
_WAITING: Final = f"""seq, run_id, owner, assistant_id, graph_id, home,
          CASE WHEN {IS_DUE} AND not_before > {{now}} THEN 0 ELSE not_before - {{now}} END AS wait_us"""
RUNNABLE = statement(
    "runnable",
    f"""SELECT {_WAITING}
        FROM runs WHERE {IS_PENDING} AND {UNBLOCKED} AND +seq > :after_seq
        ORDER BY +seq LIMIT :limit""",
)

HEADS_AT_HOME = statement(
    "heads_at_home",
    f"""SELECT {_WAITING} FROM runs WHERE {IS_PENDING} AND home IS NOT NULL AND {UNBLOCKED} AND +seq > :after_seq
        ORDER BY +seq LIMIT :limit""",
    postgres=f"""SELECT {_WAITING} FROM runs WHERE seq IN (SELECT head_seq FROM threads
          WHERE head_home IS NOT NULL AND head_seq > :after_seq ORDER BY head_seq LIMIT :limit) ORDER BY seq""",
)


def renew(leases: Sequence[Lease], lease_s: float, worker_id: str | None) -> Transaction[Renewal]:
    """Extend *leases* and report which are lost and which runs were cancelled meanwhile; *worker_id* lives."""
    if worker_id is not None:
        yield from beat(worker_id, lease_s)
    renewed, lost, cancelled = [], [], []
    for lease in leases:
        rows = yield RENEW(run_id=lease.run_id, attempt=lease.attempt, lease_us=int(lease_s * 1_000_000))
        if not rows:
            lost.append(lease)
            continue
        renewed.append(lease_record(rows[0]))
        receipt = receipt_of(rows[0])
        if receipt is not None:
            cancelled.append(receipt)
    return Renewal(renewed=tuple(renewed), lost=tuple(lost), cancelled=tuple(cancelled))


def leases() -> Transaction[tuple[SeenLease, ...]]:
    """Return the lease of every running run, in the order of admission."""
    rows = yield LEASES()
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


def observe_cancel(lease: Lease, at_us: int) -> Transaction[None]:
    """Record when the worker saw the cancel."""
    yield OBSERVE_CANCEL(run_id=lease.run_id, attempt=lease.attempt, at=at_us)
