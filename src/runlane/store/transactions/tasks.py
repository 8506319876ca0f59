"""Runs of one assistant on one thread, those whose status is newest first, page by page."""

from __future__ import annotations

from dataclasses import dataclass

from runlane.lifecycle import EndReason, RunStatus
from runlane.records import Owner, RunRecord
from runlane.store.conditions import IS_MINE
from runlane.store.rows import owner_params
from runlane.store.statements import Transaction, statement
from runlane.store.transactions.values import runs_of

#: When a run came into the status that it has.
_SINCE = "COALESCE(ended_at, started_at, created_at)"
_CHOSEN = f"""FROM runs WHERE thread_id = :thread_id AND assistant_id = :assistant_id
  AND {IS_MINE}
  AND (CAST(:status AS TEXT) IS NULL OR status = :status OR status = :or_status)
  AND (CAST(:paused AS BIGINT) IS NULL
    OR CASE WHEN end_reason = '{EndReason.PAUSED.value}' THEN 1 ELSE 0 END = :paused)
  AND (CAST(:after_us AS BIGINT) IS NULL OR {_SINCE} > :after_us)"""
# Both read the runs of one thread, by its index.
LIST_TASKS = statement(
    "list_tasks",
    f"""SELECT {{run}} {_CHOSEN}
          AND (CAST(:before_us AS BIGINT) IS NULL OR {_SINCE} < :before_us
            OR ({_SINCE} = :before_us AND seq < :before_seq))
        ORDER BY {_SINCE} DESC, seq DESC LIMIT :limit""",
)
COUNT_TASKS = statement("count_tasks", f"SELECT COUNT(*) AS n {_CHOSEN}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """A filter on runs of a thread: an assistant's, with one of up to two statuses, since when."""

    assistant_id: str
    statuses: tuple[RunStatus, ...] = ()
    paused: bool | None = None
    after_us: int | None = None


def list_tasks(
    thread_id: str, owner: Owner, where: TaskFilter, before: tuple[int, int] | None, limit: int
) -> Transaction[tuple[tuple[RunRecord, ...], int]]:
    """Return the runs after *before* (microseconds and ``seq`` of the last one seen), and how many there are in all."""
    params = {
        "thread_id": thread_id,
        "assistant_id": where.assistant_id,
        "status": where.statuses[0].value if where.statuses else None,
        "or_status": where.statuses[-1].value if where.statuses else None,
        "paused": None if where.paused is None else int(where.paused),
        "after_us": where.after_us,
        **owner_params(owner),
    }
    before_us, before_seq = before if before is not None else (None, None)
    rows = yield LIST_TASKS(before_us=before_us, before_seq=before_seq, limit=limit, **params)
    counted = yield COUNT_TASKS(**params)
    return (yield from runs_of(rows)), counted[0]["n"]
