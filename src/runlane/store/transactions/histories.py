"""What explains a run beside its record: its attempts, its worker, and what it waits for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from runlane.lifecycle import HandBack, RunStatus
from runlane.records import Owner, RunRecord, WaitingOn
from runlane.store.rows import instant, loads, maybe_instant
from runlane.store.statements import Row, Transaction, statement
from runlane.store.transactions.fleet import Executors, executors, fleet
from runlane.store.transactions.heads import COUNT_RUNNING
from runlane.store.transactions.run_queries import get_run, waiting_on

HISTORY = statement(
    "history",
    """SELECT runs.build, claimed_at, past_attempts, kept_checkpoint, {now} AS now_us, w.draining,
         w.expires_at - {now} AS left_us
       FROM runs LEFT JOIN workers AS w ON w.worker_id = runs.worker_id WHERE run_id = :run_id""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastAttempt:
    """An attempt that ended and was followed, or is to be, by another.

    ``checkpoint_id`` is the thread's newest checkpoint then, where the next attempt goes on. What an earlier version
    did not record is ``None``.
    """

    attempt: int
    worker_id: str | None
    build: str | None
    claimed_at: datetime | None
    ended_at: datetime
    ended_by: HandBack | None
    checkpoint_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningCounts:
    """How many runs execute that the limits count with a run: of its owner, its assistant and its graph."""

    owner: int = 0
    assistant: int = 0
    graph: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHistory:
    """What is known of a run.

    Attributes:
        now: The instant at which it was read, by the ledger's clock.
        build: Of the worker that made the last attempt.
        claimed_at: When that attempt began.
        past: The attempts before it, the first and the newest ones.
        kept_checkpoint: The thread's newest checkpoint when the run ended.
        worker: State of the worker that executes it; ``None`` if nobody does, ``gone`` if it has no row.
        waiting: What a pending run waits for.
        executors: Who can execute it, if it waits for a worker.
        counts: What limits count, if it does.
    """

    run: RunRecord
    now: datetime
    build: str | None = None
    claimed_at: datetime | None = None
    past: tuple[PastAttempt, ...] = ()
    kept_checkpoint: str | None = None
    worker: Literal["ready", "draining", "silent", "gone"] | None = None
    waiting: WaitingOn | None = None
    executors: Executors | None = None
    counts: RunningCounts = RunningCounts()


def history(run_id: str, owner: Owner) -> Transaction[RunHistory]:
    """Return what explains a run.

    Raises:
        NotFound: No such run for *owner*.
    """
    run = yield from get_run(run_id, owner)
    row = (yield HISTORY(run_id=run_id))[0]
    waiting = (yield from waiting_on([run_id])).get(run_id) if run.status is RunStatus.PENDING else None
    able, counts = None, RunningCounts()
    if waiting is not None and waiting.reason == "slots":
        able = (yield from executors(run_id)) or (yield from _alone(run))
        counts = yield from _counts(run)
    return RunHistory(
        run=run,
        now=instant(row["now_us"]),
        build=row["build"],
        claimed_at=maybe_instant(row["claimed_at"]),
        past=tuple(_past(item) for item in loads(row["past_attempts"] or "[]")),
        kept_checkpoint=row["kept_checkpoint"],
        worker=_state(row) if run.status is RunStatus.RUNNING else None,
        waiting=waiting,
        executors=able,
        counts=counts,
    )


def _alone(run: RunRecord) -> Transaction[Executors]:
    """Return who can execute a run of a ledger that one process has."""
    workers = (yield from fleet()).workers
    able = tuple(worker for worker in workers if worker.executes and run.home in (None, worker.worker_id))
    others = tuple(worker for worker in workers if worker not in able)
    return Executors(graph_id=run.graph_id, build=None, home=run.home, able=able, others=others)


def _past(item: Mapping[str, Any]) -> PastAttempt:
    return PastAttempt(
        attempt=item["attempt"],
        worker_id=item["worker_id"],
        build=item["build"],
        claimed_at=maybe_instant(item["claimed_at"]),
        ended_at=instant(item["ended_at"]),
        ended_by=None if item["ended_by"] is None else HandBack(item["ended_by"]),
        checkpoint_id=item["checkpoint_id"],
    )


def _state(row: Row) -> Literal["ready", "draining", "silent", "gone"]:
    if row["left_us"] is None:
        return "gone"
    if row["left_us"] < 0:
        return "silent"
    return "draining" if row["draining"] else "ready"


def _counts(run: RunRecord) -> Transaction[RunningCounts]:
    rows = yield COUNT_RUNNING()

    def of(column: str, value: str | None) -> int:
        return sum(row["running"] for row in rows if value is not None and row[column] == value)

    return RunningCounts(
        owner=of("owner", run.owner), assistant=of("assistant_id", run.assistant_id), graph=of("graph_id", run.graph_id)
    )
