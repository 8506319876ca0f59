"""Workers that share a ledger: which of them live, and runs whose code lives in one of them, their home."""

from __future__ import annotations

from runlane.errors import NotFound
from runlane.leases import SeenWorker, WorkerState
from runlane.store.conditions import PENDING, RUNNING
from runlane.store.migrations import NEWEST
from runlane.store.rows import dumps
from runlane.store.statements import Rows, Transaction, statement
from runlane.store.transactions.heads import move_head
from runlane.store.transactions.runs import LOCK_FREE_THREAD, THREAD_OF_RUN

# Guard: none; a worker has one row, which only it beats.
BEAT = statement(
    "beat",
    """INSERT INTO workers (worker_id, beats, lease_us, expires_at, build, capacity, draining, started_at, groups,
                            revision, host, pid, version, lag_us, draining_at)
       VALUES (:worker_id, :beats, :lease_us, {now} + :lease_us, :build, :capacity, :draining, {now}, :groups,
               :revision, :host, :pid, :version, :lag_us, CASE WHEN CAST(:draining AS BIGINT) = 1 THEN {now} END)
       ON CONFLICT (worker_id) DO UPDATE SET beats = excluded.beats, lease_us = excluded.lease_us,
         expires_at = excluded.expires_at, capacity = excluded.capacity, draining = excluded.draining,
         lag_us = excluded.lag_us,
         draining_at = CASE WHEN excluded.draining = 1 THEN COALESCE(workers.draining_at, excluded.draining_at) END""",
)
WORKERS = statement("workers", "SELECT worker_id, beats, lease_us, drain_asked_at FROM workers ORDER BY worker_id")
# Guard: it is there; asked again, it stays as it was asked first. Only this writes the column.
ASK_TO_DRAIN = statement(
    "ask_to_drain",
    """UPDATE workers SET drain_asked_at = CASE WHEN :drain = 1 THEN COALESCE(drain_asked_at, {now}) END
       WHERE worker_id = :worker_id RETURNING worker_id""",
)
# What tells a rescuer whether a worker still is as it was seen.
BEATS = statement("beats", "SELECT beats FROM workers WHERE worker_id = :worker_id")
# Guard: it has not beaten since it was seen, everything was taken from it, and nobody has its row.
FORGET_WORKER = statement(
    "forget_worker",
    f"""DELETE FROM workers WHERE worker_id IN (
          SELECT worker_id FROM workers WHERE worker_id = :worker_id AND beats = :beats
            AND NOT EXISTS (SELECT 1 FROM runs WHERE status = {RUNNING} AND worker_id = :worker_id) {{skip_locked}})""",
)
# Guard: none; the ledger is the caller's alone.
FORGET_OTHERS = statement("forget_others", "DELETE FROM workers WHERE worker_id <> :worker_id")
# Guard: none; a worker removes its own row.
LEAVE = statement("leave", "DELETE FROM workers WHERE worker_id = :worker_id")
# Guard: pending, and of the home that was seen; what another transaction works on is left for later.
FREE_RUN = statement(
    "free_run",
    f"""UPDATE runs SET home = NULL WHERE run_id IN (
          SELECT run_id FROM runs WHERE run_id = :run_id AND home = :home AND status = {PENDING} {{skip_locked}})""",
)


def beat(worker: WorkerState) -> Transaction[None]:
    """Record that a worker lives; to others it is dead once they have seen no beat for its lease and a grace time."""
    yield BEAT(
        worker_id=worker.worker_id,
        beats=worker.beats,
        lease_us=int(worker.lease_s * 1_000_000),
        build=worker.build,
        capacity=worker.capacity,
        draining=int(worker.draining),
        groups=None if worker.groups is None else dumps(worker.groups),
        revision=NEWEST,
        host=worker.host,
        pid=worker.pid,
        version=worker.version,
        lag_us=int(worker.lag_s * 1_000_000),
    )


def beats_of(worker_id: str) -> Transaction[int | None]:
    """Return how often a worker has beaten; ``None`` if it has no row."""
    rows = yield BEATS(worker_id=worker_id)
    return rows[0]["beats"] if rows else None


def workers() -> Transaction[tuple[SeenWorker, ...]]:
    """Return the workers that have not left, dead ones among them."""
    return seen_workers((yield WORKERS()))


def seen_workers(rows: Rows) -> tuple[SeenWorker, ...]:
    """Return what the rows of workers say of their leases."""
    return tuple(
        SeenWorker(worker_id=row["worker_id"], beats=row["beats"], lease_s=row["lease_us"] / 1_000_000) for row in rows
    )


def ask_to_drain(worker_id: str, *, drain: bool) -> Transaction[None]:
    """Ask a worker to drain, or not to any more, which it reads with its next look at the ledger.

    Raises:
        NotFound: There is no such worker.
    """
    if not (yield ASK_TO_DRAIN(worker_id=worker_id, drain=int(drain))):
        raise NotFound("worker", worker_id)


def forget_worker(dead: SeenWorker) -> Transaction[None]:
    """Remove a dead worker, unless it has beaten since it was seen, or runs have yet to be taken from it."""
    yield FORGET_WORKER(worker_id=dead.worker_id, beats=dead.beats)


def forget_others(worker_id: str) -> Transaction[None]:
    """Remove all workers but one, whose ledger it is."""
    yield FORGET_OTHERS(worker_id=worker_id)


def leave(worker_id: str) -> Transaction[None]:
    """Remove a worker that stops."""
    yield LEAVE(worker_id=worker_id)


def free_run(run_id: str, home: str) -> Transaction[None]:
    """Let every worker that has its graph execute a pending run of a dead *home*, unless its rows are locked."""
    found = yield THREAD_OF_RUN(run_id=run_id)
    if found and (yield LOCK_FREE_THREAD(thread_id=found[0]["thread_id"])):
        yield FREE_RUN(run_id=run_id, home=home)
        yield from move_head(found[0]["thread_id"])
