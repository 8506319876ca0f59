"""Workers that share a ledger: which of them live, and runs whose code lives in one of them, their home."""

from __future__ import annotations

from runlane.records import SeenWorker
from runlane.store.conditions import PENDING
from runlane.store.statements import Transaction, statement
from runlane.store.transactions.heads import move_head
from runlane.store.transactions.runs import LOCK_THREAD, THREAD_OF_RUN

# Guard: none; a worker has one row, which only it beats.
BEAT = statement(
    "beat",
    """INSERT INTO workers (worker_id, beats, lease_us) VALUES (:worker_id, 1, :lease_us)
       ON CONFLICT (worker_id) DO UPDATE SET beats = workers.beats + 1, lease_us = :lease_us""",
)
WORKERS = statement("workers", "SELECT worker_id, beats, lease_us FROM workers ORDER BY worker_id")
# Guard: it has not beaten since it was seen.
FORGET_WORKER = statement("forget_worker", "DELETE FROM workers WHERE worker_id = :worker_id AND beats = :beats")
# Guard: none; a worker removes its own row.
LEAVE = statement("leave", "DELETE FROM workers WHERE worker_id = :worker_id")
# Guard: pending, and of the home that was seen.
FREE_RUN = statement(
    "free_run", f"UPDATE runs SET home = NULL WHERE run_id = :run_id AND home = :home AND status = {PENDING}"
)


def beat(worker_id: str, lease_s: float) -> Transaction[None]:
    """Record that a worker lives; to others it is dead once they have seen no beat for *lease_s* and a grace time."""
    yield BEAT(worker_id=worker_id, lease_us=int(lease_s * 1_000_000))


def workers() -> Transaction[tuple[SeenWorker, ...]]:
    """Return the workers that have not left, dead ones among them."""
    rows = yield WORKERS()
    return tuple(
        SeenWorker(worker_id=row["worker_id"], beats=row["beats"], lease_s=row["lease_us"] / 1_000_000) for row in rows
    )


def forget_worker(dead: SeenWorker) -> Transaction[None]:
    """Remove a dead worker, unless it has beaten since it was seen."""
    yield FORGET_WORKER(worker_id=dead.worker_id, beats=dead.beats)


def leave(worker_id: str) -> Transaction[None]:
    """Remove a worker that stops."""
    yield LEAVE(worker_id=worker_id)


def free_run(run_id: str, home: str) -> Transaction[None]:
    """Let every worker that has its graph execute a pending run of a dead *home*."""
    found = yield THREAD_OF_RUN(run_id=run_id)
    if found:
        yield LOCK_THREAD(thread_id=found[0]["thread_id"])
        yield FREE_RUN(run_id=run_id, home=home)
        yield from move_head(found[0]["thread_id"])
