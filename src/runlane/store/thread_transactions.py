"""Threads: create, read, change, find, delete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runlane.errors import AlreadyExists, ConflictError, NotFound
from runlane.lifecycle import ThreadStatus
from runlane.records import Json, Order, Owner, Thread, ThreadState
from runlane.store.rows import dumps, loads, maybe_text, owner_params, thread_record
from runlane.store.run_transactions import ACTIVE_RUNS, INSERT_THREAD, LOCK_THREAD
from runlane.store.statements import Row, Statement, Transaction, contains_in_postgres, statement

_MINE = "(:any_owner = 1 OR owner = :owner)"
SORT_KEYS = ("thread_id", "status", "created_at", "updated_at", "state_updated_at")

GET_THREAD = statement("get_thread", f"SELECT * FROM threads WHERE thread_id = :thread_id AND {_MINE}")
PATCH_THREAD = statement(
    "patch_thread",
    "UPDATE threads SET metadata = :metadata, updated_at = {now} WHERE thread_id = :thread_id RETURNING *",
)
SET_STATE = statement(
    "set_state",
    """UPDATE threads SET
         state_values = COALESCE(:state_values, state_values), interrupts = :interrupts, settled = :settled,
         status = :settled, error = NULL, updated_at = {now}, state_updated_at = {now}
       WHERE thread_id = :thread_id RETURNING *""",
)
DELETE_THREAD_EVENTS = statement(
    "delete_thread_events",
    "DELETE FROM events WHERE run_seq IN (SELECT seq FROM runs WHERE thread_id = :thread_id)",
)
DELETE_THREAD_RUNS = statement("delete_thread_runs", "DELETE FROM runs WHERE thread_id = :thread_id")
DELETE_THREAD = statement("delete_thread", "DELETE FROM threads WHERE thread_id = :thread_id")

_FILTER = f"""FROM threads WHERE {_MINE}
  AND (CAST(:ids AS TEXT) IS NULL OR thread_id IN (SELECT value FROM json_each(:ids)))
  AND (CAST(:status AS TEXT) IS NULL OR status = :status)
  AND (CAST(:metadata AS TEXT) IS NULL OR json_contains(metadata, :metadata))
  AND (CAST(:state_values AS TEXT) IS NULL OR json_contains(state_values, :state_values))"""
_FILTER_PG = f"""FROM threads WHERE {_MINE}
  AND (CAST(:ids AS TEXT) IS NULL OR CAST(:ids AS jsonb) @> to_jsonb(thread_id))
  AND (CAST(:status AS TEXT) IS NULL OR status = :status)
  AND (CAST(:metadata AS TEXT) IS NULL OR {contains_in_postgres("metadata")})
  AND (CAST(:state_values AS TEXT) IS NULL OR {contains_in_postgres("state_values")})"""

COUNT_THREADS = statement(
    "count_threads", f"SELECT COUNT(*) AS n {_FILTER}", postgres=f"SELECT COUNT(*) AS n {_FILTER_PG}"
)


def _search(key: str, order: str) -> Statement:
    tail = f"ORDER BY {key} {order}, thread_id {order} LIMIT :limit OFFSET :offset"
    return statement(
        f"search_threads_{key}_{order}", f"SELECT * {_FILTER} {tail}", postgres=f"SELECT * {_FILTER_PG} {tail}"
    )


SEARCH_THREADS = {(key, order): _search(key, order) for key in SORT_KEYS for order in ("asc", "desc")}


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadFilter:
    """Which threads: each given condition must hold; mappings match as PostgreSQL's ``@>``."""

    ids: tuple[str, ...] | None = None
    status: ThreadStatus | None = None
    metadata: Json | None = None
    values: Json | None = None

    def params(self) -> dict[str, Any]:
        return {
            "ids": None if self.ids is None else dumps(self.ids),
            "status": None if self.status is None else self.status.value,
            "metadata": dumps(self.metadata) if self.metadata else None,
            "state_values": dumps(self.values) if self.values else None,
        }


def create_thread(thread_id: str, owner: str, metadata: Json, *, if_exists_return: bool) -> Transaction[Thread]:
    """Create a thread; an existing one is returned with *if_exists_return*, if it is the same owner's.

    Raises:
        AlreadyExists: The id is taken.
    """
    made = yield INSERT_THREAD(
        thread_id=thread_id, owner=owner, status=ThreadStatus.IDLE.value, metadata=dumps(metadata), config="{}"
    )
    if made:
        return thread_record(made[0])
    found = yield GET_THREAD(thread_id=thread_id, **owner_params(owner))
    if not found or not if_exists_return:
        raise AlreadyExists("thread", thread_id)
    return thread_record(found[0])


def get_thread(thread_id: str, owner: Owner) -> Transaction[Thread]:
    """Return the thread, or raise NotFound."""
    row = yield from _mine(thread_id, owner)
    return thread_record(row)


def _mine(thread_id: str, owner: Owner) -> Transaction[Row]:
    rows = yield GET_THREAD(thread_id=thread_id, **owner_params(owner))
    if not rows:
        raise NotFound("thread", thread_id)
    return rows[0]


def _lock_mine(thread_id: str, owner: Owner) -> Transaction[Row]:
    yield from _mine(thread_id, owner)  # nobody waits for a lock on what is not theirs
    rows = yield LOCK_THREAD(thread_id=thread_id)
    if not rows:
        raise NotFound("thread", thread_id)
    return rows[0]


def patch_thread(thread_id: str, owner: Owner, metadata: Mapping[str, Any]) -> Transaction[Thread]:
    """Merge *metadata* shallowly into the thread's."""
    row = yield from _lock_mine(thread_id, owner)
    merged = {**loads(row["metadata"]), **metadata}
    rows = yield PATCH_THREAD(thread_id=thread_id, metadata=dumps(merged))
    return thread_record(rows[0])


def idle_thread(thread_id: str, owner: Owner) -> Transaction[Thread]:
    """Return the thread if no run of it is active.

    Raises:
        ConflictError: A run is active.
    """
    row = yield from _lock_mine(thread_id, owner)
    active = yield ACTIVE_RUNS(thread_id=thread_id, limit=1)
    if active:
        raise ConflictError(thread_id, active[0]["run_id"])
    return thread_record(row)


def set_thread_state(thread_id: str, owner: Owner, state: ThreadState, metadata: Json) -> Transaction[Thread]:
    """Record a state that was written outside of a run, and merge *metadata*.

    Raises:
        ConflictError: A run is active.
    """
    thread = yield from idle_thread(thread_id, owner)
    waiting = state.unfinished or bool(state.interrupts)
    rows = yield SET_STATE(
        thread_id=thread_id,
        state_values=maybe_text(state.values),
        interrupts=dumps(state.interrupts),
        settled=(ThreadStatus.INTERRUPTED if waiting else ThreadStatus.IDLE).value,
    )
    if metadata:
        rows = yield PATCH_THREAD(thread_id=thread_id, metadata=dumps({**thread.metadata, **metadata}))
    return thread_record(rows[0])


def search_threads(
    owner: Owner, where: ThreadFilter, *, sort_by: str, order: Order, limit: int, offset: int
) -> Transaction[tuple[Thread, ...]]:
    """Return threads that match *where*, sorted, ties by id."""
    rows = yield SEARCH_THREADS[sort_by, order](limit=limit, offset=offset, **where.params(), **owner_params(owner))
    return tuple(thread_record(row) for row in rows)


def count_threads(owner: Owner, where: ThreadFilter) -> Transaction[int]:
    """Count threads that match *where*."""
    rows = yield COUNT_THREADS(**where.params(), **owner_params(owner))
    count: int = rows[0]["n"]
    return count


def delete_thread(thread_id: str, owner: Owner) -> Transaction[None]:
    """Delete a thread with its runs and their events.

    Raises:
        ConflictError: A run is active; cancel it first.
    """
    yield from idle_thread(thread_id, owner)
    yield DELETE_THREAD_EVENTS(thread_id=thread_id)
    yield DELETE_THREAD_RUNS(thread_id=thread_id)
    yield DELETE_THREAD(thread_id=thread_id)
