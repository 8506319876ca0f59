"""Invariant violations of a ledger, page by page, and their repairs, each with its guard. Lock order: thread, then run.

A page is the keys above ``:after`` up to ``:upto``, which a window finds. Every repair looks again at what was found,
under the locks that a change of it takes, and returns ``False`` if that is not so any more.
"""

from __future__ import annotations

from typing import Final

from runlane.lifecycle import EndReason, RunStatus, ThreadStatus
from runlane.requests import SECRET_MARKS, StoredRequest
from runlane.store import migrate
from runlane.store.conditions import BUSY, HAS_ACTIVE_RUN, IS_TERMINAL, RUNNING
from runlane.store.migrations import VERSION_TABLE, Dialect, Index, indexes
from runlane.store.statements import Row, Statement, Transaction, listed, statement
from runlane.store.transactions.assistants import KEEP_VERSION
from runlane.store.transactions.doctor_rules import PLACE, SETTLED, above
from runlane.store.transactions.events import last_event
from runlane.store.transactions.runs import LOCK_RUN, LOCK_THREAD, RESTATE_THREAD
from runlane.store.transactions.webhooks import DeliveryStatus

#: Longer than any waiting for a lock or a restart: a lease that is over for so long is rescued by nobody.
ABANDONED_AFTER_S: Final = 300

_CHECKPOINT_TABLES: Final = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


def _window(table: str, key: str) -> Statement:
    return statement(
        f"doctor.window_{table}",
        f"""SELECT MAX(k) AS upto, COUNT(*) AS n FROM (
              SELECT DISTINCT {key} AS k FROM {table} WHERE {above(key)} ORDER BY k LIMIT :limit) AS page""",
    )


def _in_page(name: str, sql: str, key: str) -> Statement:
    return statement(f"doctor.{name}", f"{sql} AND {key} > :after AND {key} <= :upto ORDER BY {key}")


THREADS: Final = _window("threads", "thread_id")
RUNS: Final = _window("runs", "seq")
LOGS: Final = _window("events", "run_seq")
RECORDS: Final = _window("run_logs", "run_seq")
ASSISTANTS: Final = _window("assistants", "assistant_id")
CRONS: Final = _window("crons", "cron_id")
VERSIONS: Final = _window("assistant_versions", "assistant_id")
DELIVERIES: Final = _window("webhook_deliveries", "run_id")
ATTEMPTS: Final = _window("webhook_attempts", "run_id")
ITEMS: Final = _window("store_items", PLACE)
INDEXES: Final = _window("store_index", PLACE)
_KEYS = " UNION ".join(
    f"SELECT k FROM (SELECT DISTINCT thread_id AS k FROM {table} WHERE thread_id > :after ORDER BY k LIMIT :limit)"
    " AS of_table"
    for table in _CHECKPOINT_TABLES
)
CHECKPOINTED: Final = statement(
    "doctor.window_checkpoints", f"SELECT MAX(k) AS upto, COUNT(*) AS n FROM ({_KEYS} ORDER BY k LIMIT :limit) AS page"
)

HAS_SCHEMA: Final = statement(
    "doctor.has_schema",
    f"SELECT 1 AS found FROM sqlite_schema WHERE name = '{VERSION_TABLE}'",
    postgres=f"SELECT 1 AS found WHERE to_regclass('{VERSION_TABLE}') IS NOT NULL",
)
HAS_MIN_READER: Final = statement("doctor.has_min_reader", migrate.COUNT_MIN_READER, postgres="SELECT 1 AS n")
APPLIED: Final = statement("doctor.applied", migrate.APPLIED)
READABLE_BY: Final = statement("doctor.readable_by", migrate.READABLE_BY, postgres=migrate.READABLE_BY_IN_POSTGRES)
INTEGRITY: Final = statement("doctor.integrity", "PRAGMA integrity_check(100)", postgres="SELECT 'ok' AS said")
FOREIGN_KEYS: Final = statement("doctor.foreign_keys", "PRAGMA foreign_key_check", postgres="SELECT 1 WHERE 1 = 0")
INDEXES_THERE: Final = statement(
    "doctor.indexes",
    "SELECT name FROM sqlite_schema WHERE type = 'index'",
    postgres="SELECT indexname AS name FROM pg_indexes WHERE schemaname = ANY (current_schemas(false))",
)
#: Tables with row-level security, and whether it holds for the role that asks.
ROW_SECURITY: Final = statement(
    "doctor.row_security",
    "",
    postgres="""SELECT c.relname AS name, row_security_active(c.oid) AS active, CURRENT_USER AS role
                FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                WHERE n.nspname = CURRENT_SCHEMA() AND c.relkind = 'r' AND c.relrowsecurity ORDER BY c.relname""",
)

_IS_WRONG = f"""(status = {BUSY}) <> ({HAS_ACTIVE_RUN})
  OR (status <> {BUSY} AND status <> settled AND settled IN {listed(SETTLED)})"""
WRONG_STATUS: Final = _in_page(
    "wrong_status",
    f"""SELECT thread_id, status, CASE WHEN {HAS_ACTIVE_RUN} THEN 1 ELSE 0 END AS active
        FROM threads WHERE ({_IS_WRONG})""",
    "thread_id",
)
_STILL_WRONG: Final = statement(
    "doctor.still_wrong", f"SELECT 1 AS found FROM threads WHERE thread_id = :thread_id AND ({_IS_WRONG})"
)
_OWN = "FROM runs AS own WHERE own.thread_id = runs.thread_id"
WITHOUT_THREAD: Final = _in_page(
    "without_thread",
    f"""SELECT thread_id, (SELECT COUNT(*) {_OWN}) AS n, (SELECT MIN(owner) {_OWN}) AS owner,
          (SELECT MAX(owner) {_OWN}) AS other
        FROM runs WHERE NOT EXISTS (SELECT 1 FROM threads WHERE threads.thread_id = runs.thread_id)
          AND NOT EXISTS (SELECT 1 {_OWN} AND own.seq < runs.seq)""",
    "seq",
)
_OWNERS: Final = statement(
    "doctor.owners", "SELECT MIN(owner) AS owner, MAX(owner) AS other FROM runs WHERE thread_id = :thread_id"
)
# Guard: the id is free.
_MAKE_THREAD: Final = statement(
    "doctor.make_thread",
    f"""INSERT INTO threads (thread_id, owner, status, settled, metadata, config, interrupts, created_at, updated_at,
                          state_updated_at)
       VALUES (:thread_id, :owner, '{ThreadStatus.IDLE.value}', '{ThreadStatus.IDLE.value}', '{{}}', '{{}}', '{{}}',
               {{now}}, {{now}}, {{now}})
       ON CONFLICT (thread_id) DO NOTHING RETURNING thread_id""",
)
#: The end of the lease of a run's worker.
_LEASED_UNTIL: Final = "COALESCE((SELECT w.expires_at FROM workers AS w WHERE w.worker_id = runs.worker_id), 0)"
#: What a rescue asks of a lease.
_LEASE: Final = "lease_us, (SELECT w.beats FROM workers AS w WHERE w.worker_id = runs.worker_id) AS beats"
SECOND_RUNNING: Final = _in_page(
    "second_running",
    f"""SELECT {{run}}, {_LEASE}, CASE WHEN {_LEASED_UNTIL} < {{now}} THEN 1 ELSE 0 END AS lapsed FROM runs
        WHERE status = {RUNNING} AND EXISTS (SELECT 1 FROM runs AS first WHERE first.thread_id = runs.thread_id
          AND first.status = {RUNNING} AND first.seq < runs.seq)""",
    "seq",
)
ABANDONED: Final = _in_page(
    "abandoned",
    f"""SELECT {{run}}, {_LEASE} FROM runs
        WHERE status = {RUNNING} AND {_LEASED_UNTIL} < {{now}} - {ABANDONED_AFTER_S * 1_000_000}
          AND updated_at < {{now}} - {ABANDONED_AFTER_S * 1_000_000}""",
    "seq",
)
#: Why a run of each terminal status can have ended.
REASONS: Final = {
    RunStatus.SUCCESS: {EndReason.COMPLETED, EndReason.PAUSED},
    RunStatus.ERROR: {EndReason.FAILED, EndReason.WORKER_LOST, EndReason.NEVER_STARTED},
    RunStatus.TIMEOUT: {EndReason.DEADLINE},
    RunStatus.INTERRUPTED: set(EndReason)
    - {EndReason.COMPLETED, EndReason.PAUSED, EndReason.FAILED, EndReason.DEADLINE},
}
_FITS = " OR ".join(
    f"(status = '{status.value}' AND end_reason IN {listed(reasons)})" for status, reasons in REASONS.items()
)
_NO_REASON = f"(end_reason IS NULL OR NOT ({_FITS}))"
_LACKS = f"(ended_at IS NULL OR events_end IS NULL OR {_NO_REASON})"
UNENDED: Final = _in_page(
    "unended",
    f"""SELECT run_id, thread_id, status, end_reason, error, cancel_action, cancel_reason,
          CASE WHEN ended_at IS NULL THEN 1 ELSE 0 END AS no_instant,
          CASE WHEN {_NO_REASON} THEN 1 ELSE 0 END AS no_reason,
          CASE WHEN events_end IS NULL THEN 1 ELSE 0 END AS no_last_event
        FROM runs WHERE {IS_TERMINAL} AND {_LACKS}""",
    "seq",
)
# Called under the locks of thread and run, which has ended.
_SET_END: Final = statement(
    "doctor.set_end",
    f"""UPDATE runs SET ended_at = COALESCE(ended_at, updated_at), events_end = COALESCE(events_end, :events_end),
          end_reason = CASE WHEN {_NO_REASON} THEN CAST(:end_reason AS TEXT) ELSE end_reason END
        WHERE run_id = :run_id AND {_LACKS} RETURNING run_id""",
)
_MARKED = " OR ".join(f"SUBSTR(kwargs, 1, {len(mark)}) = '{mark}'" for mark in SECRET_MARKS)
_KEEPS = f"{IS_TERMINAL} AND ({_MARKED})"
KEEPING_SECRETS: Final = _in_page(
    "keeping_secrets", f"SELECT run_id, thread_id, status FROM runs WHERE {_KEEPS}", "seq"
)
_KEPT: Final = statement("doctor.kept", f"SELECT kwargs FROM runs WHERE run_id = :run_id AND {_KEEPS} {{for_update}}")
# Called under the run's lock.
_SCRUB: Final = statement("doctor.scrub", "UPDATE runs SET kwargs = :kwargs WHERE run_id = :run_id")
WRONG_LAST_EVENT: Final = _in_page(
    "wrong_last_event",
    f"""SELECT run_id, thread_id, events_end, last_seq, first_after FROM (
          SELECT seq, run_id, thread_id, events_end,
            (SELECT MAX(last_seq) FROM events WHERE run_seq = runs.seq) AS last_seq,
            (SELECT MIN(first_seq) FROM events WHERE run_seq = runs.seq AND last_seq > runs.events_end) AS first_after
          FROM runs WHERE {IS_TERMINAL} AND events_end IS NOT NULL) AS ends
        WHERE last_seq <> events_end""",
    "seq",
)
# Called under the locks of thread and run, which has ended.
_DELETE_LATE: Final = statement(
    "doctor.delete_late", "DELETE FROM events WHERE run_seq = :run_seq AND first_seq > :events_end RETURNING last_seq"
)
GAPS: Final = statement(
    "doctor.gaps",
    """SELECT run_seq, run_id, MIN(first_seq) AS first_seq, MIN(reached) AS reached, COUNT(*) AS n FROM (
         SELECT run_seq, first_seq, COALESCE(LAG(last_seq) OVER (PARTITION BY run_seq ORDER BY last_seq), 0) AS reached
         FROM events WHERE run_seq > :after AND run_seq <= :upto) AS segments
       JOIN runs ON runs.seq = run_seq WHERE first_seq <> reached + 1 GROUP BY run_seq, run_id ORDER BY run_seq""",
)
_SAME = "kept.assistant_id = assistants.assistant_id AND kept.version = assistants.version"
_ALIKE = " AND ".join(
    f"COALESCE(kept.{name}, '') = COALESCE(assistants.{name}, '')"
    for name in ("graph_id", "name", "description", "config", "context", "metadata")
)
_NOT_KEPT = f"NOT EXISTS (SELECT 1 FROM assistant_versions AS kept WHERE {_SAME} AND {_ALIKE})"
_IS_KEPT = f"EXISTS (SELECT 1 FROM assistant_versions AS kept WHERE {_SAME})"
WITHOUT_VERSION: Final = _in_page(
    "without_version",
    f"""SELECT assistant_id, version, CASE WHEN {_IS_KEPT} THEN 1 ELSE 0 END AS differs
        FROM assistants WHERE {_NOT_KEPT}""",
    "assistant_id",
)
_LOCK_ASSISTANT: Final = statement(
    "doctor.lock_assistant",
    f"""SELECT CASE WHEN {_IS_KEPT} THEN 1 ELSE 0 END AS differs
        FROM assistants WHERE assistant_id = :assistant_id AND {_NOT_KEPT} {{for_update}}""",
)
# Called under the assistant's lock.
_RENUMBER: Final = statement(
    "doctor.renumber",
    """UPDATE assistants SET version = (SELECT MAX(kept.version) + 1 FROM assistant_versions AS kept
         WHERE kept.assistant_id = assistants.assistant_id) WHERE assistant_id = :assistant_id""",
)
CRONS_WITHOUT_NEXT: Final = _in_page(
    "crons_without_next",
    "SELECT {cron}, {now} AS now_us FROM crons WHERE enabled = 1 AND next_run_at IS NULL",
    "cron_id",
)
# Guard: nobody has changed or fired it since it was read.
_SET_NEXT: Final = statement(
    "doctor.set_next",
    """UPDATE crons SET next_run_at = :next_run_at, revision = revision + 1
       WHERE cron_id = :cron_id AND revision = :revision AND enabled = 1 AND next_run_at IS NULL RETURNING cron_id""",
)
_STUCK = f"status = '{DeliveryStatus.PENDING.value}' AND next_at > {{now}} + CAST(:longest_us AS BIGINT)"
STUCK_DELIVERIES: Final = _in_page(
    "stuck_deliveries", f"SELECT run_id, next_at, {{now}} AS now_us FROM webhook_deliveries WHERE {_STUCK}", "run_id"
)
# Guard: it still waits for too long.
_MAKE_DUE: Final = statement(
    "doctor.make_due",
    f"UPDATE webhook_deliveries SET next_at = {{now}} WHERE run_id = :run_id AND {_STUCK} RETURNING run_id",
)

# The tables of checkpoints are SQLite's. A thread that has runs is one whose row is lost: see WITHOUT_THREAD.
_GONE = " AND ".join(
    f"NOT EXISTS (SELECT 1 FROM {table} WHERE {table}.thread_id = stored.thread_id)" for table in ("threads", "runs")
)
_STORED = " UNION ALL ".join(
    f"SELECT thread_id, run_id FROM {table} WHERE thread_id > :after AND thread_id <= :upto"
    for table in _CHECKPOINT_TABLES
)
STORED_WITHOUT_THREAD: Final = statement(
    "doctor.stored_without_thread",
    f"""SELECT thread_id, COUNT(*) AS n, MAX(run_id) AS run_id FROM ({_STORED}) AS stored WHERE {_GONE}
        GROUP BY thread_id ORDER BY thread_id""",
)
_DELETE_STORED: Final = tuple(
    statement(
        f"doctor.delete_{table}",
        f"DELETE FROM {table} AS stored WHERE thread_id = :thread_id AND {_GONE} RETURNING thread_id",
    )
    for table in _CHECKPOINT_TABLES
)


def restate(thread_id: str) -> Transaction[bool]:
    """Compute a thread's status from its runs."""
    yield LOCK_THREAD(thread_id=thread_id)
    if not (yield _STILL_WRONG(thread_id=thread_id)):
        return False
    yield RESTATE_THREAD(thread_id=thread_id)
    return True


def make_thread(thread_id: str) -> Transaction[bool]:
    """Make the row of a thread again, for the one owner of its runs."""
    [owners] = yield _OWNERS(thread_id=thread_id)
    if owners["owner"] is None or owners["owner"] != owners["other"]:
        return False
    made = yield _MAKE_THREAD(thread_id=thread_id, owner=owners["owner"])
    if not made:
        return False
    yield RESTATE_THREAD(thread_id=thread_id)
    return True


def complete_end(found: Row, end_reason: EndReason | None) -> Transaction[bool]:
    """Fill in what an ended run lacks; *end_reason* is used if it has none."""
    yield LOCK_THREAD(thread_id=found["thread_id"])
    rows = yield LOCK_RUN(run_id=found["run_id"])
    if not rows or not RunStatus(rows[0]["status"]).terminal:
        return False
    events_end = yield from last_event(rows[0]["seq"])
    reason = None if end_reason is None else end_reason.value
    return bool((yield _SET_END(run_id=found["run_id"], events_end=events_end, end_reason=reason)))


def scrub(run_id: str) -> Transaction[bool]:
    """Take the secrets out of what an ended run was called with."""
    rows = yield _KEPT(run_id=run_id)
    scrubbed = StoredRequest(rows[0]["kwargs"]).scrubbed() if rows else None
    if scrubbed is not None:
        yield _SCRUB(run_id=run_id, kwargs=scrubbed.text)
    return scrubbed is not None


def delete_late_events(found: Row) -> Transaction[bool]:
    """Delete the segments that begin after the run's end."""
    yield LOCK_THREAD(thread_id=found["thread_id"])
    rows = yield LOCK_RUN(run_id=found["run_id"])
    if not rows or not RunStatus(rows[0]["status"]).terminal or rows[0]["events_end"] != found["events_end"]:
        return False
    return bool((yield _DELETE_LATE(run_seq=rows[0]["seq"], events_end=found["events_end"])))


def keep_version(assistant_id: str) -> Transaction[bool]:
    """Keep what an assistant is among its versions; as a new one if its number is another's."""
    found = yield _LOCK_ASSISTANT(assistant_id=assistant_id)
    if not found:
        return False
    if found[0]["differs"]:
        yield _RENUMBER(assistant_id=assistant_id)
    yield KEEP_VERSION(assistant_id=assistant_id)
    return True


def set_next_slot(cron_id: str, revision: int, next_run_us: int) -> Transaction[bool]:
    """Give an enabled cron its next slot, if nobody has changed or fired it."""
    return bool((yield _SET_NEXT(cron_id=cron_id, revision=revision, next_run_at=next_run_us)))


def make_due(run_id: str, longest_us: int) -> Transaction[bool]:
    """Make a delivery due now that waits longer than any delivery does."""
    return bool((yield _MAKE_DUE(run_id=run_id, longest_us=longest_us)))


def delete_stored(thread_id: str) -> Transaction[bool]:
    """Delete what is checkpointed of a thread that does not exist."""
    deleted = False
    for delete in _DELETE_STORED:
        deleted |= bool((yield delete(thread_id=thread_id)))
    return deleted


def missing_indexes(dialect: Dialect) -> Transaction[tuple[Index, ...]]:
    """Return the indexes of the schema that are not there."""
    rows = yield INDEXES_THERE()
    there = {row["name"] for row in rows}
    return tuple(index for index in indexes(dialect) if index.name not in there)


def make_index(index: Index, dialect: Dialect) -> Transaction[bool]:
    """Make a missing index; not one that rows stand in the way of."""
    if index not in (yield from missing_indexes(dialect)):
        return False
    if index.unique and (yield statement("doctor.twice", index.twice)()):
        return False
    yield statement("doctor.make_index", index.sql)()
    return True
