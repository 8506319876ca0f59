"""What is read of many runs at once: their states, without what was asked of them, and what their threads are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runlane.errors import RequestUnreadable
from runlane.lifecycle import EndReason, RunStatus
from runlane.records import Json, Owner
from runlane.requests import StoredRequest
from runlane.store.conditions import IS_MINE
from runlane.store.rows import dumps, instant, loads, owner_params
from runlane.store.statements import Row, Transaction, statement

_STATE = "run_id, thread_id, owner, seq, status, end_reason, updated_at"
RUN_STATES = statement(
    "run_states", f"SELECT {_STATE}, kwargs FROM runs WHERE run_id IN {{listed :run_ids}} AND {IS_MINE}"
)
# Each from its index.
CHANGED_ACTIVE = statement(
    "changed_active",
    f"""SELECT {_STATE} FROM runs WHERE ended_at IS NULL AND updated_at >= :since
        ORDER BY updated_at LIMIT :limit""",
)
CHANGED_ENDED = statement(
    "changed_ended",
    f"SELECT {_STATE} FROM runs WHERE ended_at IS NOT NULL AND ended_at >= :since ORDER BY ended_at LIMIT :limit",
)
THREADS_METADATA = statement(
    "threads_metadata", "SELECT thread_id, metadata FROM threads WHERE thread_id IN {listed :thread_ids}"
)
NOW = statement("run_states.now", "SELECT {now} AS now_us")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """Where a run stands."""

    run_id: str
    thread_id: str
    owner: str
    seq: int
    status: RunStatus
    end_reason: EndReason | None
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedRun(RunState):
    """A run whose stream is read; with *protocol* its events are those of the event-streaming protocol."""

    protocol: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedRuns:
    """Runs whose status has changed, the database's time when they were read, and whether they are all there are."""

    runs: tuple[RunState, ...]
    now_us: int
    whole: bool


def changed_runs(since_us: int, limit: int) -> Transaction[ChangedRuns]:
    """Return up to *limit* active runs, and as many that have ended, whose status changed since *since_us*.

    What is committed later may have changed before: read from a little earlier each time.
    """
    [now] = yield NOW()
    ended = yield CHANGED_ENDED(since=since_us, limit=limit)
    active = yield CHANGED_ACTIVE(since=since_us, limit=limit)
    return ChangedRuns(
        runs=tuple(RunState(**_state(row)) for row in (*active, *ended)),
        now_us=now["now_us"],
        whole=max(len(active), len(ended)) < limit,
    )


def database_time() -> Transaction[int]:
    """Return the database's time, in microseconds of UTC."""
    rows = yield NOW()
    return int(rows[0]["now_us"])


def run_states(run_ids: Sequence[str], owner: Owner) -> Transaction[tuple[StreamedRun, ...]]:
    """Return those of the runs that *owner* has."""
    rows = yield RUN_STATES(run_ids=dumps(list(run_ids)), **owner_params(owner))
    return tuple(StreamedRun(**_state(row), protocol=_has_protocol(row["kwargs"])) for row in rows)


def _state(row: Row) -> dict[str, Any]:
    return {
        "run_id": row["run_id"],
        "thread_id": row["thread_id"],
        "owner": row["owner"],
        "seq": row["seq"],
        "status": RunStatus(row["status"]),
        "end_reason": None if row["end_reason"] is None else EndReason(row["end_reason"]),
        "updated_at": instant(row["updated_at"]),
    }


def _has_protocol(kwargs: str) -> bool:
    with suppress(RequestUnreadable):  # a newer version wrote it, whose events are read as they are
        return StoredRequest(kwargs).request.protocol is not None
    return False


def threads_metadata(thread_ids: Collection[str]) -> Transaction[dict[str, Json]]:
    """Return the metadata of those of the threads that are there, by their ids."""
    rows = yield THREADS_METADATA(thread_ids=dumps(list(thread_ids)))
    return {row["thread_id"]: loads(row["metadata"]) for row in rows}
