"""Crons: what starts by the clock. A slot is fired in one transaction: the cron moves on, and its run is admitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from runlane.errors import ConflictError, CronChanged, CronRunActive, NotFound, QueueFull
from runlane.lifecycle import RunStatus
from runlane.records import ANY_OWNER, Admission, Json, NewRun, Order, Owner, RunError, ThreadTtl
from runlane.store.conditions import IS_MINE
from runlane.store.filters import MATCHES, MATCHES_PG, check_size, filter_params
from runlane.store.rows import (
    dumps,
    error_text,
    instant,
    loads,
    maybe_instant,
    microseconds,
    owner_params,
)
from runlane.store.statements import Row, Rows, Statement, Transaction, contains_in_postgres, statement
from runlane.store.transactions.admissions import FIND_KEY, MAX_QUEUED_RUNS, admit
from runlane.store.transactions.runs import GET_RUN, LOCK_FREE_THREAD, LOCK_THREAD

#: What becomes of slots that came while no scheduler was there: the newest is made up for, or none is.
Missed = Literal["once", "skip"]
#: What becomes of a slot while the run of the one before it is still active.
Overlap = Literal["allow", "skip"]

#: Runs of a cron whose ids it keeps.
RECENT_RUNS: Final = 10

SORT_KEYS = ("cron_id", "assistant_id", "thread_id", "next_run_date", "end_time", "created_at", "updated_at")
_COLUMNS = {"next_run_date": "next_run_at", "end_time": "end_at"}

# Guard: the id is free. The thread of a cron on a thread is locked before it.
INSERT_CRON = statement(
    "insert_cron",
    """INSERT INTO crons (cron_id, owner, permissions, assistant_id, assistant_owner, thread_id, thread_owner,
                         thread_where, schedule, timezone, end_at, payload, metadata, on_run_completed, missed, overlap,
                         enabled, next_run_at, revision, created_at, updated_at)
       VALUES (:cron_id, :owner, :permissions, :assistant_id, :assistant_owner, :thread_id, :thread_owner,
               :thread_where, :schedule, :timezone, CAST(:end_at AS BIGINT), :payload, :metadata, :on_run_completed,
               :missed, :overlap, :enabled, CAST(:next_run_at AS BIGINT), 1, {now}, {now})
       ON CONFLICT (cron_id) DO NOTHING RETURNING {cron}""",
)
GET_CRON = statement("get_cron", f"SELECT {{cron}} FROM crons WHERE cron_id = :cron_id AND {IS_MINE}")
# Guard: nobody has changed or fired it since it was read.
CHANGE_CRON = statement(
    "change_cron",
    """UPDATE crons SET schedule = :schedule, timezone = :timezone, end_at = CAST(:end_at AS BIGINT),
         payload = :payload, metadata = :metadata, on_run_completed = :on_run_completed, missed = :missed,
         overlap = :overlap, enabled = :enabled, next_run_at = CAST(:next_run_at AS BIGINT), error = NULL,
         revision = revision + 1, updated_at = {now}
       WHERE cron_id = :cron_id AND revision = :revision RETURNING {cron}""",
)
# Guard: nobody has changed or fired it since it was read, so that a slot has one run, whoever else fires it. It locks
# the cron; the thread of a cron on a thread is locked before it.
ADVANCE_CRON = statement(
    "advance_cron",
    """UPDATE crons SET next_run_at = CAST(:next_run_at AS BIGINT), last_slot_at = :slot, error = :error,
         revision = revision + 1
       WHERE cron_id IN (SELECT cron_id FROM crons
         WHERE cron_id = :cron_id AND revision = :revision AND enabled = 1 {skip_locked}) RETURNING {cron}""",
)
# Tell what another transaction has locked from what is not as it was seen, or not there. SQLite has one writer.
CRON_AS_SEEN = statement(
    "cron_as_seen",
    "",
    postgres="SELECT 1 AS found FROM crons WHERE cron_id = :cron_id AND revision = :revision AND enabled = 1",
)
THREAD_EXISTS = statement("thread_exists", "", postgres="SELECT 1 AS found FROM threads WHERE thread_id = :thread_id")
# The thread of a cron on a thread is locked before it.
LOCK_CRON = statement("lock_cron", "SELECT {cron} FROM crons WHERE cron_id = :cron_id {for_update}")
# These follow ADVANCE_CRON or LOCK_CRON in its transaction, which holds the lock.
RECORD_RUN = statement(
    "record_run",
    """UPDATE crons SET last_run_id = :run_id, recent_run_ids = :recent
       WHERE cron_id = :cron_id RETURNING {cron}""",
)
RECORD_REFUSAL = statement(
    "record_refusal", "UPDATE crons SET error = :error WHERE cron_id = :cron_id RETURNING {cron}"
)
DISABLE_CRON = statement(
    "disable_cron",
    "UPDATE crons SET enabled = 0, next_run_at = NULL, error = :error WHERE cron_id = :cron_id RETURNING {cron}",
)
DUE_CRONS = statement(
    "due_crons",
    """SELECT {cron} FROM crons WHERE enabled = 1 AND next_run_at IS NOT NULL AND next_run_at <= {now}
       ORDER BY next_run_at LIMIT :limit""",
)
NEXT_CRON = statement(
    "next_cron",
    """SELECT MIN(next_run_at) AS next_run_at, {now} AS now_us FROM crons
       WHERE enabled = 1 AND next_run_at IS NOT NULL""",
)
# Guard: none; a cron that is fired meanwhile loses to it.
DELETE_CRON = statement("delete_cron", "DELETE FROM crons WHERE cron_id = :cron_id RETURNING cron_id")

_FILTER = f"""FROM crons WHERE {IS_MINE}
  AND (CAST(:assistant_id AS TEXT) IS NULL OR assistant_id = :assistant_id)
  AND (CAST(:thread_id AS TEXT) IS NULL OR thread_id = :thread_id)
  AND (CAST(:enabled AS BIGINT) IS NULL OR enabled = :enabled)
  AND (CAST(:metadata AS TEXT) IS NULL OR json_contains(metadata, :metadata))
  AND {MATCHES}"""
_FILTER_PG = _FILTER.replace("json_contains(metadata, :metadata)", contains_in_postgres("metadata")).replace(
    MATCHES, MATCHES_PG
)
COUNT_CRONS = statement("count_crons", f"SELECT COUNT(*) AS n {_FILTER}", postgres=f"SELECT COUNT(*) AS n {_FILTER_PG}")


def _search(key: str, order: str) -> Statement:
    column = _COLUMNS.get(key, key)
    tail = f"ORDER BY {column} IS NULL, {column} {order}, cron_id {order} LIMIT :limit OFFSET :offset"
    return statement(
        f"search_crons_{key}_{order}",
        f"SELECT {{cron}} {_FILTER} {tail}",
        postgres=f"SELECT {{cron}} {_FILTER_PG} {tail}",
    )


SEARCH_CRONS = {(key, order): _search(key, order) for key in SORT_KEYS for order in ("asc", "desc")}


@dataclass(frozen=True, slots=True, kw_only=True)
class CronPlan:
    """Fields that clients may change. *payload* is the request for its runs; *next_run_at* ``None`` is never."""

    schedule: str
    timezone: str | None
    end_at: datetime | None
    payload: Json
    metadata: Json
    on_run_completed: str | None
    missed: Missed
    overlap: Overlap
    enabled: bool
    next_run_at: datetime | None

    def params(self) -> dict[str, Any]:
        return {
            "schedule": self.schedule,
            "timezone": self.timezone,
            "end_at": None if self.end_at is None else microseconds(self.end_at),
            "payload": dumps(self.payload),
            "metadata": dumps(self.metadata),
            "on_run_completed": self.on_run_completed,
            "missed": self.missed,
            "overlap": self.overlap,
            "enabled": int(self.enabled),
            "next_run_at": None if self.next_run_at is None else microseconds(self.next_run_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CronTarget:
    """The target of a cron's runs, and their owner: *owner* with *permissions*, as they were when it was made.

    Without a thread each run gets its own. An existing thread has to be *thread_owner*'s and to match *thread_where*.
    """

    owner: str
    permissions: tuple[str, ...] = ()
    assistant_id: str
    assistant_owner: str
    thread_id: str | None = None
    thread_owner: str | None = None
    thread_where: Json | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """A cron, as the ledger has it.

    ``revision`` counts changes and firings; ``last_slot_at`` is the newest slot that was fired or passed over;
    ``recent_run_ids`` are of its newest runs, up to ``RECENT_RUNS``, the newest first, also of those that are deleted;
    ``error`` is why its last slot has no run.
    """

    cron_id: str
    target: CronTarget
    plan: CronPlan
    last_slot_at: datetime | None
    last_run_id: str | None
    recent_run_ids: tuple[str, ...]
    error: RunError | None
    revision: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """The result of a slot: a run, or an error, or (with neither) nothing; and which slot is the next."""

    slot: datetime
    next_run_at: datetime | None
    new: NewRun | None = None
    error: RunError | None = None
    disable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """A cron that has moved on. Without an admission the slot has no run: it was passed over, or refused."""

    cron: Cron
    admission: Admission | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DueCrons:
    """Crons whose next slot has come by the database's clock, which is *now*; and the earliest next slot of all."""

    crons: tuple[Cron, ...]
    now: datetime
    next_run_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CronFilter:
    """A filter on crons; *metadata* matches as PostgreSQL's ``@>``, *where* is a filter of authorisation."""

    assistant_id: str | None = None
    thread_id: str | None = None
    enabled: bool | None = None
    metadata: Json | None = None
    where: Json | None = None

    def __post_init__(self) -> None:
        check_size("metadata", self.metadata)

    def params(self) -> dict[str, Any]:
        return {
            "assistant_id": self.assistant_id,
            "thread_id": self.thread_id,
            "enabled": None if self.enabled is None else int(self.enabled),
            "metadata": dumps(self.metadata) if self.metadata else None,
            **filter_params(self.where),
        }


def cron_record(row: Row) -> Cron:
    plan = CronPlan(
        schedule=row["schedule"],
        timezone=row["timezone"],
        end_at=maybe_instant(row["end_at"]),
        payload=loads(row["payload"]),
        metadata=loads(row["metadata"]),
        on_run_completed=row["on_run_completed"],
        missed=row["missed"],
        overlap=row["overlap"],
        enabled=bool(row["enabled"]),
        next_run_at=maybe_instant(row["next_run_at"]),
    )
    target = CronTarget(
        owner=row["owner"],
        permissions=tuple(loads(row["permissions"])),
        assistant_id=row["assistant_id"],
        assistant_owner=row["assistant_owner"],
        thread_id=row["thread_id"],
        thread_owner=row["thread_owner"],
        thread_where=None if row["thread_where"] is None else loads(row["thread_where"]),
    )
    return Cron(
        cron_id=row["cron_id"],
        target=target,
        plan=plan,
        last_slot_at=maybe_instant(row["last_slot_at"]),
        last_run_id=row["last_run_id"],
        recent_run_ids=tuple(loads(row["recent_run_ids"])),
        error=None if row["error"] is None else RunError(**loads(row["error"])),
        revision=row["revision"],
        created_at=instant(row["created_at"]),
        updated_at=instant(row["updated_at"]),
    )


def create_cron(cron_id: str, target: CronTarget, plan: CronPlan) -> Transaction[Cron]:
    """Create a cron; a repeated creation, whose first answer may be lost, answers the same.

    Raises:
        NotFound: Its thread is gone.
    """
    if target.thread_id is not None and not (yield LOCK_THREAD(thread_id=target.thread_id)):
        raise NotFound("thread", target.thread_id)
    rows = yield INSERT_CRON(
        cron_id=cron_id,
        owner=target.owner,
        permissions=dumps(target.permissions),
        assistant_id=target.assistant_id,
        assistant_owner=target.assistant_owner,
        thread_id=target.thread_id,
        thread_owner=target.thread_owner,
        thread_where=None if target.thread_where is None else dumps(target.thread_where),
        **plan.params(),
    )
    if not rows:
        same = yield from get_cron(cron_id, target.owner)
        return same
    return cron_record(rows[0])


def get_cron(cron_id: str, owner: Owner) -> Transaction[Cron]:
    """Return the cron, or raise NotFound."""
    rows = yield GET_CRON(cron_id=cron_id, **owner_params(owner))
    if not rows:
        raise NotFound("cron", cron_id)
    return cron_record(rows[0])


def change_cron(seen: Cron, plan: CronPlan) -> Transaction[Cron]:
    """Give the cron a new plan, made from *seen*.

    Raises:
        NotFound: It is gone.
        CronChanged: It was changed or fired since.
    """
    rows = yield CHANGE_CRON(cron_id=seen.cron_id, revision=seen.revision, **plan.params())
    if not rows:
        yield from get_cron(seen.cron_id, ANY_OWNER)
        raise CronChanged(seen.cron_id)
    return cron_record(rows[0])


def delete_cron(cron_id: str, owner: Owner) -> Transaction[None]:
    """Delete a cron; its runs stay."""
    yield from get_cron(cron_id, owner)
    if not (yield DELETE_CRON(cron_id=cron_id)):
        raise NotFound("cron", cron_id)


def search_crons(
    owner: Owner, where: CronFilter, *, sort_by: str, order: Order, limit: int, offset: int
) -> Transaction[tuple[Cron, ...]]:
    """Return crons that match *where*, sorted, ties by id, those without a value last."""
    rows = yield SEARCH_CRONS[sort_by, order](limit=limit, offset=offset, **where.params(), **owner_params(owner))
    return tuple(cron_record(row) for row in rows)


def count_crons(owner: Owner, where: CronFilter) -> Transaction[int]:
    """Count crons that match *where*."""
    rows = yield COUNT_CRONS(**where.params(), **owner_params(owner))
    count: int = rows[0]["n"]
    return count


def due_crons(limit: int) -> Transaction[DueCrons]:
    """Return crons of all owners whose next slot has come, the longest due first."""
    following = yield NEXT_CRON()
    rows = yield DUE_CRONS(limit=limit)
    return DueCrons(
        crons=tuple(cron_record(row) for row in rows),
        now=instant(following[0]["now_us"]),
        next_run_at=maybe_instant(following[0]["next_run_at"]),
    )


def fire_cron(
    seen: Cron, firing: Firing, ttl: ThreadTtl | None = None, max_queued_runs: int = MAX_QUEUED_RUNS
) -> Transaction[Fired | None]:
    """Move the cron on and admit the slot's run: both, or, if somebody else fired the slot, neither.

    Returns:
        What became of the slot; ``None`` while another transaction works on the cron or its thread.

    Raises:
        CronChanged: It was changed, fired, disabled or deleted since it was *seen*; nothing was written.
    """
    if seen.target.thread_id is not None:
        thread_id = seen.target.thread_id  # locked before the cron, as a thread's deletion does
        if not (yield LOCK_FREE_THREAD(thread_id=thread_id)) and (yield THREAD_EXISTS(thread_id=thread_id)):
            return None
    rows = yield ADVANCE_CRON(
        cron_id=seen.cron_id,
        revision=seen.revision,
        slot=microseconds(firing.slot),
        next_run_at=None if firing.next_run_at is None else microseconds(firing.next_run_at),
        error=error_text(firing.error),
    )
    if not rows:
        if (yield CRON_AS_SEEN(cron_id=seen.cron_id, revision=seen.revision)):
            return None
        raise CronChanged(seen.cron_id)
    if firing.disable:
        rows = yield DISABLE_CRON(cron_id=seen.cron_id, error=error_text(firing.error))
    if firing.new is None or (yield from _active_run(rows[0])) is not None:
        return Fired(cron=cron_record(rows[0]), admission=None)
    try:
        admission = yield from admit(firing.new, ttl, max_queued_runs)
    except ConflictError:  # the thread is busy, and the cron's strategy is to leave it alone
        return Fired(cron=cron_record(rows[0]), admission=None)
    except QueueFull as error:  # the slot is lost, and the cron says so until its next one
        full = RunError(error="QueueFull", message=str(error))
        rows = yield RECORD_REFUSAL(cron_id=seen.cron_id, error=error_text(full))
        return Fired(cron=cron_record(rows[0]), admission=None)
    except NotFound as error:
        gone = RunError(error="NotFound", message=str(error))
        rows = yield DISABLE_CRON(cron_id=seen.cron_id, error=error_text(gone))
        return Fired(cron=cron_record(rows[0]), admission=None)
    rows = yield from _record_run(rows[0], admission.run.run_id)
    return Fired(cron=cron_record(rows[0]), admission=admission)


def start_cron(
    seen: Cron, new: NewRun, ttl: ThreadTtl | None = None, max_queued_runs: int = MAX_QUEUED_RUNS
) -> Transaction[Admission]:
    """Admit a run of the cron beside its slots, which stay as they are; it is the cron's last run then.

    Raises:
        NotFound: The cron or its thread is gone.
        CronRunActive: The cron's runs do not overlap, and its last one is active.
        ConflictError: The thread is busy, and the cron's strategy is to leave it alone.
        QueueFull: As many runs wait on the thread as may.
        KeyReused: The run's idempotency key has admitted a run of another request.
    """
    if seen.target.thread_id is not None:  # locked before the cron, as a thread's deletion does
        yield LOCK_THREAD(thread_id=seen.target.thread_id)
    rows = yield LOCK_CRON(cron_id=seen.cron_id)
    if not rows:
        raise NotFound("cron", seen.cron_id)
    active = yield from _active_run(rows[0])
    if active not in (None, new.run_id) and not (yield from _has_admitted(new)):
        raise CronRunActive(seen.cron_id, str(active))
    admission = yield from admit(new, ttl, max_queued_runs)
    if not admission.reused:
        yield from _record_run(rows[0], admission.run.run_id)
    return admission


def _record_run(row: Row, run_id: str) -> Transaction[Rows]:
    """Make a run the last one of the cron, whose *row* this transaction has locked."""
    recent = [run_id, *loads(row["recent_run_ids"])][:RECENT_RUNS]
    return (yield RECORD_RUN(cron_id=row["cron_id"], run_id=run_id, recent=dumps(recent)))


def _has_admitted(new: NewRun) -> Transaction[bool]:
    """Return whether the run's idempotency key has admitted one, which is the answer then."""
    if new.idempotency_key is None:
        return False
    return bool((yield FIND_KEY(owner=new.owner, thread_id=new.thread_id, key=new.idempotency_key)))


def _active_run(row: Mapping[str, Any]) -> Transaction[str | None]:
    """Return the cron's last run if it is in the way of the next."""
    if row["overlap"] != "skip" or row["last_run_id"] is None:
        return None
    last = yield GET_RUN(run_id=row["last_run_id"], **owner_params(ANY_OWNER))
    if not last or RunStatus(last[0]["status"]).terminal:
        return None
    return str(row["last_run_id"])
