"""Threads: create, read, change, copy, find, delete, expire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from runlane.documents.document import Encoded, whole
from runlane.errors import AlreadyExists, ConflictError, NotFound, ThreadChanged
from runlane.lifecycle import ThreadStatus
from runlane.outcomes import Snapshot
from runlane.records import Json, Lease, Owner, PruneStrategy, Thread, ThreadTtl
from runlane.store.conditions import BUSY, HOLDS_RUN, IS_ACTIVE, IS_MINE
from runlane.store.rows import dumps, loads, owner_params, thread_record, ttl_params
from runlane.store.statements import ExtraWrites, Row, Rows, Transaction, statement
from runlane.store.transactions.parts import copy_parts, delete_parts, mark_due, sweep_now
from runlane.store.transactions.runs import ACTIVE_RUNS, INSERT_THREAD, LOCK_SHOWN_THREAD, LOCK_THREAD
from runlane.store.transactions.start_order import next_order
from runlane.store.transactions.values import put_value, thread_of

GET_THREAD = statement("get_thread", f"SELECT {{thread}} FROM threads WHERE thread_id = :thread_id AND {IS_MINE}")
IS_THREAD_MINE = statement(
    "is_thread_mine", f"SELECT 1 AS found FROM threads WHERE thread_id = :thread_id AND {IS_MINE}"
)
# These are called under the thread's lock.
PATCH_THREAD = statement(
    "patch_thread",
    "UPDATE threads SET metadata = :metadata, updated_at = {now} WHERE thread_id = :thread_id "
    "RETURNING {thread_without_values}",
)
SET_TTL = statement(
    "set_ttl",
    """UPDATE threads SET ttl_us = :ttl_us, ttl_strategy = :ttl_strategy, updated_at = {now}
       WHERE thread_id = :thread_id RETURNING {thread_without_values}""",
)
SET_STATE = statement(
    "set_state",
    """UPDATE threads SET
         state_refs = CASE WHEN CAST(:state_values AS TEXT) IS NOT NULL THEN :state_refs
                      WHEN state_values IS NOT NULL THEN state_refs END,
         state_values = COALESCE(:state_values, state_values), interrupts = :interrupts, settled = :settled,
         status = :settled, error = NULL, updated_at = {now}, state_updated_at = {now}, state_order = :state_order
       WHERE thread_id = :thread_id RETURNING {thread_without_values}""",
)
# Guard: the attempt owns its run, whose end changes the thread under the same lock; the thread has no values.
SHOW_FIRST = statement(
    "show_first",
    f"""UPDATE threads SET first_values = :first_values, state_refs = :state_refs
        WHERE thread_id = :thread_id AND state_values IS NULL
          AND EXISTS (SELECT 1 FROM runs WHERE {HOLDS_RUN})
        RETURNING thread_id""",
)
BEGUN_RUN = statement(
    "begun_run",
    f"""SELECT run_id FROM runs WHERE thread_id = :thread_id AND {IS_ACTIVE} AND attempt > 0
        ORDER BY seq LIMIT 1""",
)


def _copying(more: str) -> str:
    """Return the statement that copies a thread, with more columns as they are, each after a comma."""
    return f"""INSERT INTO threads (thread_id, owner, status, settled, metadata, config, state_values, state_refs,
                            interrupts, error, created_at, updated_at, state_updated_at, state_order, ttl_us,
                            ttl_strategy{more})
       SELECT :target, :owner, settled, settled, :metadata, config, state_values,
              CASE WHEN state_values IS NOT NULL THEN state_refs END, interrupts, error,
              {{now}}, {{now}}, {{now}}, :state_order, CASE WHEN temporary = 0 THEN ttl_us END,
              CASE WHEN temporary = 0 THEN ttl_strategy END{more}
       FROM threads WHERE thread_id = :source RETURNING {{thread_without_values}}"""


# The copy has the status that the thread has without the runs that wait.
COPY_THREAD = statement("copy_thread", _copying(""), postgres=_copying(", paused_in"))
_EXPIRED = "ttl_us IS NOT NULL AND swept_at < updated_at AND updated_at + ttl_us <= {now}"
EXPIRED_THREADS = statement(
    "expired_threads",
    f"""SELECT thread_id, ttl_strategy FROM threads WHERE {_EXPIRED} AND status <> {BUSY}
          AND temporary = :temporary
        ORDER BY updated_at + ttl_us LIMIT :limit""",
)
LOCK_EXPIRED = statement(
    "lock_expired",
    f"""SELECT {{thread_without_values}} FROM threads
        WHERE thread_id = :thread_id AND ttl_strategy = :strategy AND {_EXPIRED} {{skip_locked}}""",
)
# Called under the thread's lock.
MARK_SWEPT = statement("mark_swept", "UPDATE threads SET swept_at = {now} WHERE thread_id = :thread_id")
# Called under the thread's lock, before what hangs on its runs is deleted: a purge locks runs before their events.
LOCK_THREAD_RUNS = statement(
    "lock_thread_runs", "", postgres="SELECT 1 AS locked FROM runs WHERE thread_id = :thread_id ORDER BY seq FOR UPDATE"
)
# Called under the thread's lock, while no run of it is active.
DELETE_THREAD_EVENTS = statement(
    "delete_thread_events",
    "DELETE FROM events WHERE run_seq IN (SELECT seq FROM runs WHERE thread_id = :thread_id)",
)
# Called under the thread's lock, while no run of it is active.
DELETE_THREAD_LOGS = statement(
    "delete_thread_logs",
    "DELETE FROM run_logs WHERE run_seq IN (SELECT seq FROM runs WHERE thread_id = :thread_id)",
)
# Called under the thread's lock: whoever locks a cron of a thread has locked the thread before.
DELETE_THREAD_CRONS = statement("delete_thread_crons", "DELETE FROM crons WHERE thread_id = :thread_id")
# Both are called under the thread's lock, while no run of it is active.
DELETE_THREAD_RUNS = statement("delete_thread_runs", "DELETE FROM runs WHERE thread_id = :thread_id")
DELETE_THREAD = statement("delete_thread", "DELETE FROM threads WHERE thread_id = :thread_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewThread:
    """A thread to be made, with a state if it has a history; the *extra_writes* write that history's checkpoints."""

    thread_id: str
    owner: str
    metadata: Json
    ttl: ThreadTtl | None = None
    state: Snapshot | None = None
    extra_writes: ExtraWrites | None = None


def create_thread(new: NewThread, *, if_exists_return: bool) -> Transaction[Thread]:
    """Create a thread; an existing one is returned as it is with *if_exists_return*, if it is the same owner's.

    Raises:
        AlreadyExists: The id is taken.
    """
    thread_id, owner = new.thread_id, new.owner
    insert = INSERT_THREAD(
        thread_id=thread_id,
        owner=owner,
        status=ThreadStatus.IDLE.value,
        settled=ThreadStatus.IDLE.value,
        metadata=dumps(new.metadata),
        config="{}",
        **ttl_params(new.ttl),
        temporary=0,
    )
    made = yield insert
    if not made and if_exists_return:
        found = yield GET_THREAD(thread_id=thread_id, **owner_params(owner))
        if found:
            return (yield from thread_of(found[0]))
        made = yield insert  # it is another owner's, or was deleted in between
    if not made:
        raise AlreadyExists("thread", thread_id)
    if new.extra_writes is not None:
        yield from new.extra_writes()
    if new.state is None:
        return thread_record(made[0])
    made = yield from _set_state(thread_id, new.state)
    values = new.state.values
    return replace(thread_record(made[0]), values=None if values is None else loads(whole(values).decode()))


def get_thread(thread_id: str, owner: Owner, *, with_values: bool = True) -> Transaction[Thread]:
    """Return the thread, or raise NotFound."""
    row = yield from _mine(thread_id, owner)
    if not with_values:
        return thread_record(row)
    return (yield from thread_of(row))


def _mine(thread_id: str, owner: Owner) -> Transaction[Row]:
    rows = yield GET_THREAD(thread_id=thread_id, **owner_params(owner))
    if not rows:
        raise NotFound("thread", thread_id)
    return rows[0]


def _lock_mine(thread_id: str, owner: Owner) -> Transaction[Row]:
    rows: Rows = ()
    if (yield IS_THREAD_MINE(thread_id=thread_id, **owner_params(owner))):  # nobody waits for what is not theirs
        rows = yield LOCK_SHOWN_THREAD(thread_id=thread_id)
    if not rows:
        raise NotFound("thread", thread_id)
    return rows[0]


def patch_thread(
    thread_id: str, owner: Owner, metadata: Mapping[str, Any], ttl: ThreadTtl | None = None
) -> Transaction[Thread]:
    """Merge *metadata* shallowly into the thread's, and let it expire as *ttl* says, if given, counted from now.

    Returned without its values.
    """
    row = yield from _lock_mine(thread_id, owner)
    merged = {**loads(row["metadata"]), **metadata}
    rows = yield PATCH_THREAD(thread_id=thread_id, metadata=dumps(merged))
    if ttl is not None:
        rows = yield SET_TTL(thread_id=thread_id, **ttl_params(ttl))
    return thread_record(rows[0])


def idle_thread(thread_id: str, owner: Owner) -> Transaction[Thread]:
    """Return the thread, without its values, if no run of it is active.

    Raises:
        ConflictError: A run is active.
    """
    row = yield from _lock_mine(thread_id, owner)
    active = yield ACTIVE_RUNS(thread_id=thread_id, limit=1)
    if active:
        raise ConflictError(thread_id, active[0]["run_id"])
    return thread_record(row)


def set_thread_state(
    thread_id: str,
    owner: Owner,
    state: Snapshot,
    metadata: Json,
    *,
    seen: datetime | None = None,
    extra_writes: ExtraWrites | None = None,
) -> Transaction[Thread]:
    """Record a state that was made outside of a run, and merge *metadata*, after the *extra_writes*.

    Returned without its values.

    Args:
        seen: The thread's ``updated_at`` when that was begun; every run and every other write moves it.

    Raises:
        ConflictError: A run is active.
        ThreadChanged: Something has happened on the thread since *seen*.
    """
    thread = yield from idle_thread(thread_id, owner)
    if seen is not None and thread.updated_at != seen:
        raise ThreadChanged(thread_id)
    if extra_writes is not None:
        yield from extra_writes()
    rows = yield from _set_state(thread_id, state)
    if metadata:
        rows = yield PATCH_THREAD(thread_id=thread_id, metadata=dumps({**thread.metadata, **metadata}))
    return thread_record(rows[0])


def show_first_values(lease: Lease, values: Encoded) -> Transaction[bool]:
    """Let a thread that has no values show *values* until the run of *lease* ends; return whether it does now."""
    yield LOCK_THREAD(thread_id=lease.thread_id)
    shown = yield from put_value(lease.thread_id, values)
    rows = yield SHOW_FIRST(
        thread_id=lease.thread_id,
        run_id=lease.run_id,
        attempt=lease.attempt,
        first_values=shown.text,
        state_refs=shown.refs,
    )
    if shown.refs:
        yield from mark_due(lease.thread_id)  # it is shown until the run ends, or not at all
    return bool(rows)


def _set_state(thread_id: str, state: Snapshot) -> Transaction[Rows]:
    state_order = yield from next_order()
    values = yield from put_value(thread_id, state.values)
    yield from mark_due(thread_id)  # what was there before may have been nowhere else
    rows = yield SET_STATE(
        thread_id=thread_id,
        state_order=state_order,
        state_values=values.text,
        state_refs=values.refs,
        interrupts=dumps(state.interrupts),
        settled=(ThreadStatus.INTERRUPTED if state.resumable else ThreadStatus.IDLE).value,
    )
    return rows


def change_idle_thread(thread_id: str, owner: Owner, extra_writes: ExtraWrites) -> Transaction[None]:
    """Do the *extra_writes* while nothing runs on the thread, which it leaves reading as before.

    Raises:
        ConflictError: A run is active.
    """
    yield from idle_thread(thread_id, owner)
    yield from extra_writes()


def copy_thread(
    source: str, target: str, *, reads: Owner, owner: str, metadata: Json, extra_writes: ExtraWrites | None = None
) -> Transaction[Thread]:
    """Make *target* a thread of *owner* that is as *source* is, but for its *metadata* and its runs.

    The *extra_writes* copy the checkpoints. Returned without values.

    Raises:
        ConflictError: A run has begun and not ended: what it has written so far is no state to begin with.
    """
    yield from _lock_mine(source, reads)
    begun = yield BEGUN_RUN(thread_id=source)
    if begun:
        raise ConflictError(source, begun[0]["run_id"])
    yield from copy_parts(source, target)
    if extra_writes is not None:
        yield from extra_writes()
    state_order = yield from next_order()
    rows = yield COPY_THREAD(
        source=source, target=target, owner=owner, metadata=dumps(metadata), state_order=state_order
    )
    yield from sweep_now(target)
    return thread_record(rows[0])


def expired_threads(limit: int, *, temporary: bool) -> Transaction[tuple[tuple[str, PruneStrategy], ...]]:
    """Return idle threads of all owners whose time is over, the longest first, and what is to become of them.

    Those of stateless runs (*temporary*), or all others.
    """
    rows = yield EXPIRED_THREADS(limit=limit, temporary=int(temporary))
    return tuple((row["thread_id"], row["ttl_strategy"]) for row in rows)


def expire_thread(
    thread_id: str, strategy: PruneStrategy, extra_writes: ExtraWrites | None = None
) -> Transaction[Thread | None]:
    """Do what *strategy* says with an expired thread, after the *extra_writes* did so with its checkpoints.

    Returns:
        The thread as it was, without its values, or ``None`` if it is not expired any more, is busy, or is to be
        treated otherwise by now.
    """
    rows = yield LOCK_EXPIRED(thread_id=thread_id, strategy=strategy)
    if not rows or (yield ACTIVE_RUNS(thread_id=thread_id, limit=1)):
        return None
    if extra_writes is not None:
        yield from extra_writes()
    if strategy == "delete":
        yield from _delete(thread_id)
    else:
        yield MARK_SWEPT(thread_id=thread_id)
    return thread_record(rows[0])


def delete_thread(thread_id: str, owner: Owner, extra_writes: ExtraWrites | None = None) -> Transaction[None]:
    """Delete a thread with its crons, its runs and their events, after the *extra_writes* deleted its checkpoints.

    Raises:
        ConflictError: A run is active; cancel it first.
    """
    yield from idle_thread(thread_id, owner)
    if extra_writes is not None:
        yield from extra_writes()
    yield from _delete(thread_id)


def _delete(thread_id: str) -> Transaction[None]:
    yield DELETE_THREAD_CRONS(thread_id=thread_id)
    yield LOCK_THREAD_RUNS(thread_id=thread_id)
    yield DELETE_THREAD_EVENTS(thread_id=thread_id)
    yield DELETE_THREAD_LOGS(thread_id=thread_id)
    yield DELETE_THREAD_RUNS(thread_id=thread_id)
    yield from delete_parts(thread_id)
    yield DELETE_THREAD(thread_id=thread_id)
