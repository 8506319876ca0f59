"""Reading runs, and the writes to a run that do not move it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from runlane.errors import ConflictError, NotFound
from runlane.lifecycle import EndReason, RunStatus
from runlane.records import Json, Owner, RunRecord, StreamEnd, Usage, WaitingOn
from runlane.store.conditions import (
    ENDED_LONG_AGO,
    GOES_FIRST,
    IS_ACTIVE,
    IS_DUE,
    IS_MINE,
    IS_MINE_TOO,
    IS_PENDING,
    PENDING,
    RUNNING,
)
from runlane.store.filters import MATCHES, MATCHES_PG, filter_params
from runlane.store.rows import dumps, instant, loads, owner_params, raised, usage_of, usage_text
from runlane.store.statements import Row, Rows, Transaction, statement
from runlane.store.transactions.events import DELETE_EVENTS
from runlane.store.transactions.parts import mark_due
from runlane.store.transactions.purges import mark_all_due, purges_alone
from runlane.store.transactions.run_logs import DELETE_LOG
from runlane.store.transactions.runs import GET_RUN, LOCK_RUN, LOCK_RUN_BESIDE, LOCK_THREAD
from runlane.store.transactions.values import run_of, runs_of, value_of

LIST_RUNS = statement(
    "list_runs",
    f"""SELECT {{run}} FROM runs WHERE thread_id = :thread_id AND {IS_MINE}
          AND (CAST(:status AS TEXT) IS NULL OR status = :status)
        ORDER BY seq DESC LIMIT :limit OFFSET :offset""",
)
LIST_ALL_RUNS = statement(
    "list_all_runs",
    f"""SELECT {{run}} FROM runs WHERE {IS_MINE} AND (CAST(:status AS TEXT) IS NULL OR status = :status)
        ORDER BY seq DESC LIMIT :limit OFFSET :offset""",
)
# `+seq` keeps SQLite on the index of active runs.
INFLIGHT = statement(
    "inflight", f"SELECT {{run}} FROM runs WHERE {IS_ACTIVE} AND +seq > :after ORDER BY +seq LIMIT :limit"
)
# Pending and running together, since a run may start, or be handed back, between two statements.
HAS_ACTIVE = statement(
    "has_active",
    f"SELECT 1 AS found FROM runs WHERE thread_id = :thread_id AND {IS_ACTIVE} AND {IS_MINE} LIMIT 1",
)
_ACTIVE_OF = f"""SELECT {{run}} FROM runs WHERE {IS_ACTIVE} AND (CAST(:status AS TEXT) IS NULL OR status = :status)
  AND {IS_MINE_TOO} AND +seq < :before
  AND EXISTS (SELECT 1 FROM threads WHERE threads.thread_id = runs.thread_id AND {MATCHES})
  ORDER BY +seq DESC LIMIT :limit"""
ACTIVE_RUNS_OF = statement("active_runs_of", _ACTIVE_OF, postgres=_ACTIVE_OF.replace(MATCHES, MATCHES_PG))
# Runs in the order in which they started, or ended without having started.
STARTED_RUNS = statement(
    "started_runs",
    """SELECT {run} FROM runs WHERE thread_id = :thread_id AND start_order >= :from_order
       ORDER BY start_order LIMIT :limit""",
)
LAST_STARTED = statement(
    "last_started",
    """SELECT {run} FROM runs WHERE thread_id = :thread_id AND start_order IS NOT NULL
       ORDER BY start_order DESC LIMIT 1""",
)
# Of pending runs: whether they are due, and else the run of their lane whose end lets them start.
_WAITING = f"""SELECT run_id, not_before, CASE WHEN {IS_DUE} THEN 0 ELSE 1 END AS delayed, COALESCE(
    (SELECT other.run_id FROM runs AS other WHERE other.thread_id = runs.thread_id AND other.{IS_PENDING}
       AND {GOES_FIRST}
       ORDER BY other.seq DESC LIMIT 1),
    (SELECT other.run_id FROM runs AS other WHERE other.thread_id = runs.thread_id
       AND other.status = {RUNNING})) AS behind
  FROM runs WHERE status = {PENDING} AND run_id IN """
WAITING = statement(
    "waiting",
    f"{_WAITING} (SELECT value FROM json_each(:run_ids))",
    postgres=f"{_WAITING} (SELECT jsonb_array_elements_text(CAST(:run_ids AS jsonb)))",
)
GET_RESULT = statement(
    "get_result",
    f"SELECT thread_id, status, error, result, result_refs FROM runs WHERE run_id = :run_id AND {IS_MINE}",
)
RUN_END = statement("run_end", "SELECT thread_id, status, end_reason, events_end FROM runs WHERE seq = :seq")
# Guard: none; the last writer wins.
SET_MODEL = statement(
    "set_model", "UPDATE runs SET model_name = :model_name, updated_at = {now} WHERE run_id = :run_id RETURNING {run}"
)
# Called under the run's lock.
SET_USAGE = statement(
    "set_usage", "UPDATE runs SET usage = :usage, updated_at = {now} WHERE run_id = :run_id RETURNING {run}"
)
# Called under the locks of thread and run, which has ended.
DELETE_RUN = statement("delete_run", "DELETE FROM runs WHERE run_id = :run_id")
THREAD_USAGE = statement(
    "thread_usage",
    f"SELECT usage FROM runs WHERE thread_id = :thread_id AND usage IS NOT NULL AND {IS_MINE} ORDER BY seq",
)
# Those that others work on are left for later.
OLD_RUNS = statement(
    "old_runs",
    f"""SELECT seq AS run_seq, run_id, thread_id FROM runs WHERE ended_at IS NOT NULL AND {ENDED_LONG_AGO}
        ORDER BY ended_at LIMIT :limit {{skip_locked}}""",
)

ROLLED_BACK = statement(
    "rolled_back",
    f"""SELECT run_id FROM runs WHERE ended_at IS NOT NULL AND ended_at > {{now}} - :age_us
          AND end_reason = '{EndReason.ROLLED_BACK.value}' ORDER BY ended_at LIMIT :limit""",
)


def get_run(run_id: str, owner: Owner) -> Transaction[RunRecord]:
    """Return the run, or raise NotFound."""
    rows = yield GET_RUN(run_id=run_id, **owner_params(owner))
    if not rows:
        raise NotFound("run", run_id)
    return (yield from run_of(rows[0]))


def list_runs(
    thread_id: str | None, owner: Owner, status: RunStatus | None, limit: int, offset: int
) -> Transaction[tuple[RunRecord, ...]]:
    """Return runs of a thread (of all threads if ``None``), the newest admission first."""
    params: dict[str, Any] = {
        "status": None if status is None else status.value,
        "limit": limit,
        "offset": offset,
        **owner_params(owner),
    }
    rows: Rows
    if thread_id is None:
        rows = yield LIST_ALL_RUNS(**params)
    else:
        rows = yield LIST_RUNS(thread_id=thread_id, **params)
    return (yield from runs_of(rows))


def waiting_on(run_ids: Sequence[str]) -> Transaction[dict[str, WaitingOn]]:
    """Return what each of *run_ids* waits for, without those that are not pending."""
    rows = yield WAITING(run_ids=dumps(run_ids))
    return {row["run_id"]: _waiting_on(row) for row in rows}


def _waiting_on(row: Row) -> WaitingOn:
    if row["delayed"]:
        return WaitingOn(reason="delay", until=instant(row["not_before"]))
    if row["behind"] is not None:
        return WaitingOn(reason="run", run_id=row["behind"])
    return WaitingOn(reason="slots")


def has_active(thread_id: str, owner: Owner) -> Transaction[bool]:
    """Return whether the thread has a pending or running run."""
    rows = yield HAS_ACTIVE(thread_id=thread_id, **owner_params(owner))
    return bool(rows)


def active_runs(
    owner: Owner, where: Json | None, status: RunStatus | None, before_seq: int, limit: int
) -> Transaction[tuple[RunRecord, ...]]:
    """Return pending or running runs with a ``seq`` below *before_seq*, the newest admission first."""
    rows = yield ACTIVE_RUNS_OF(
        status=None if status is None else status.value,
        before=before_seq,
        limit=limit,
        **filter_params(where),
        **owner_params(owner),
    )
    return (yield from runs_of(rows))


def started_runs(thread_id: str, from_order: int, limit: int) -> Transaction[tuple[RunRecord, ...]]:
    """Return runs of a thread that started, or ended without, from *from_order* on, in their order."""
    rows = yield STARTED_RUNS(thread_id=thread_id, from_order=from_order, limit=limit)
    return (yield from runs_of(rows))


def last_started(thread_id: str) -> Transaction[RunRecord | None]:
    """Return the run of a thread that started, or ended without, last; ``None`` if there is none."""
    rows = yield LAST_STARTED(thread_id=thread_id)
    return (yield from run_of(rows[0])) if rows else None


def inflight_runs(after_seq: int, limit: int) -> Transaction[tuple[RunRecord, ...]]:
    """Return pending and running runs of all owners with a ``seq`` above *after_seq*, oldest first."""
    rows = yield INFLIGHT(after=after_seq, limit=limit)
    return (yield from runs_of(rows))


def run_result(run_id: str, owner: Owner) -> Transaction[tuple[RunStatus, bytes | None, Mapping[str, str] | None]]:
    """Return a run's status, the JSON text that a waiter is answered, and its error."""
    rows = yield GET_RESULT(run_id=run_id, **owner_params(owner))
    if not rows:
        raise NotFound("run", run_id)
    row = rows[0]
    result = yield from value_of(row["thread_id"], row["result"], row["result_refs"])
    return (
        RunStatus(row["status"]),
        result,
        None if row["error"] is None else loads(row["error"]),
    )


#: The end of the stream of a run that is not there any more.
DELETED: Final = StreamEnd(seq=0, status=RunStatus.INTERRUPTED, end_reason=EndReason.ROLLED_BACK)


def stream_end(run_seq: int, thread_id: str | None) -> Transaction[StreamEnd | None]:
    """Return the end of a run's stream, or ``None`` while the run is active."""
    rows = yield RUN_END(seq=run_seq)
    if not rows or thread_id not in (None, rows[0]["thread_id"]):
        return DELETED
    return end_of(rows[0])


def end_of(row: Row) -> StreamEnd | None:
    """Return the end of the stream of the run in *row*, or ``None`` while it is active."""
    status = RunStatus(row["status"])
    if not status.terminal:
        return None
    reason = None if row["end_reason"] is None else EndReason(row["end_reason"])
    return StreamEnd(seq=(row["events_end"] or 0) + 1, status=status, end_reason=reason)


def set_model(run_id: str, model_name: str | None) -> Transaction[RunRecord]:
    """Record which model a run uses."""
    rows = yield SET_MODEL(run_id=run_id, model_name=model_name)
    if not rows:
        raise NotFound("run", run_id)
    return (yield from run_of(rows[0]))


def set_progress(run_id: str, changes: Mapping[str, Any], attempt: int | None) -> Transaction[bool]:
    """Record counters of an active run and return whether it was active; see :func:`_merged`.

    With *attempt*, it must be the one that executes: nothing is written once another has the run.
    """
    rows = yield LOCK_RUN_BESIDE(run_id=run_id)
    if not rows or RunStatus(rows[0]["status"]).terminal:
        return False
    executes = RunStatus(rows[0]["status"]) is RunStatus.RUNNING and rows[0]["attempt"] == attempt
    if attempt is not None and not executes:
        return False
    yield SET_USAGE(run_id=run_id, usage=_merged(rows[0], changes))
    return True


def _merged(row: Row, changes: Mapping[str, Any]) -> str:
    """Return the usage in *row* with *changes*, field by field: a number never falls, a field not given stays."""
    usage = usage_of(row["usage"])
    given = {name: value for name, value in changes.items() if value is not None}
    return usage_text(raised(usage, replace(usage, **given)))


def complete_usage(run_id: str, changes: Mapping[str, Any]) -> Transaction[RunRecord]:
    """Record final counters of a run, for every kind of ending; counters only grow.

    Raises:
        NotFound: No such run; a run that does not exist is never made.
    """
    rows = yield LOCK_RUN_BESIDE(run_id=run_id)
    if not rows:
        raise NotFound("run", run_id)
    rows = yield SET_USAGE(run_id=run_id, usage=_merged(rows[0], changes))
    return (yield from run_of(rows[0]))


def delete_run(run_id: str, owner: Owner) -> Transaction[RunRecord]:
    """Delete an ended run with its events; for its thread that is no change.

    Raises:
        ConflictError: The run is active; cancel it first.
    """
    rows = yield GET_RUN(run_id=run_id, **owner_params(owner))
    if not rows:
        raise NotFound("run", run_id)
    thread_id = rows[0]["thread_id"]
    yield LOCK_THREAD(thread_id=thread_id)
    rows = yield LOCK_RUN(run_id=run_id)
    if not rows:
        raise NotFound("run", run_id)
    if not RunStatus(rows[0]["status"]).terminal:
        raise ConflictError(thread_id, run_id)
    yield DELETE_EVENTS(run_seq=rows[0]["seq"])
    yield DELETE_LOG(run_seq=rows[0]["seq"])
    yield DELETE_RUN(run_id=run_id)
    yield from mark_due(thread_id)
    return (yield from run_of(rows[0]))


def thread_usage(thread_id: str, owner: Owner) -> Transaction[tuple[Usage, ...]]:
    """Return the usage of every run of a thread that has one, whatever its ending, oldest first."""
    rows = yield THREAD_USAGE(thread_id=thread_id, **owner_params(owner))
    return tuple(usage_of(row["usage"]) for row in rows)


def rolled_back_runs(within_s: float, limit: int) -> Transaction[tuple[str, ...]]:
    """Return the oldest of the runs that were rolled back in this time and are still there."""
    rows = yield ROLLED_BACK(age_us=int(within_s * 1_000_000), limit=limit)
    return tuple(row["run_id"] for row in rows)


def purge_runs(older_than_s: float, limit: int) -> Transaction[int]:
    """Delete up to *limit* runs that ended more than *older_than_s* ago, with their events; return how many.

    None while another process purges.
    """
    if not (yield from purges_alone("runs")):
        return 0
    old = yield OLD_RUNS(age_us=int(older_than_s * 1_000_000), limit=limit)
    if old:
        numbers = [{"run_seq": row["run_seq"]} for row in old]
        yield DELETE_EVENTS.many(numbers)
        yield DELETE_LOG.many(numbers)
        yield DELETE_RUN.many([{"run_id": row["run_id"]} for row in old])
        yield from mark_all_due(old)
    return len(old)
