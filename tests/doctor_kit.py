"""Ways in which a ledger can be damaged, and what the doctor is to say of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from runlane.store.migrations import VERSION_TABLE, Dialect, revisions, script, statements


@dataclass(frozen=True, slots=True)
class Damage:
    """How a ledger is damaged, and what the doctor is to say; *clean* if it can repair it.

    ``also`` is said too, and is over once the rest is repaired.
    """

    codes: tuple[str, ...]
    sql: tuple[str, ...]
    clean: bool = True
    also: tuple[str, ...] = ()
    #: Tables of which the repair changes more rows than the damage did.
    follows: tuple[str, ...] = ()
    #: The same damage on PostgreSQL, where :func:`in_postgres` cannot say it.
    postgres: tuple[str, ...] = ()
    #: What it breaks on PostgreSQL as well, whose threads carry their heads.
    postgres_codes: tuple[str, ...] = ()


ONE = "(SELECT run_id FROM runs WHERE thread_id = 'speaks' ORDER BY seq LIMIT 1)"
FAILED = "(SELECT run_id FROM runs WHERE thread_id = 'fails')"
SEQ = "(SELECT seq FROM runs WHERE thread_id = 'speaks' ORDER BY seq LIMIT 1)"
CANCELLED = "cancel_requested_at IS NOT NULL"
FUTURE = 2**52
SECRET = '{"runlane_request":1,"secrets":true,"request":{"config":{"configurable":{"api_key":"planted"}}}}'
OLD_SECRET = '{"runlane_secrets":true,"config":{"configurable":{"api_key":"planted"}}}'
RUNNING = "status = 'running', end_reason = NULL, ended_at = NULL, events_end = NULL, worker_id = 'w'"
BUSY = "UPDATE threads SET status = 'busy' WHERE thread_id = 'speaks'"
LATE = f"INSERT INTO events VALUES ({SEQ}, 1000, 1000, x'90', NULL)"

#: What takes back a statement of a migration.
_UNDO = (
    (re.compile(r"ALTER TABLE (\w+) ADD COLUMN (\w+)"), r"ALTER TABLE \1 DROP COLUMN \2"),
    (re.compile(r"ALTER TABLE (\w+) SET \((\w+)"), r"ALTER TABLE \1 RESET (\2)"),
    (re.compile(r"CREATE (TABLE|TRIGGER|FUNCTION) (\w+)"), r"DROP \1 \2"),
    (re.compile(r"CREATE OR REPLACE TRIGGER (\w+) .* ON (\w+)"), r"DROP TRIGGER \1 ON \2"),  # PostgreSQL's
    (re.compile(r"CREATE (?:UNIQUE )?INDEX (\w+)"), r"DROP INDEX \1"),
)
_COMMENT = re.compile(r"--.*")


def in_postgres(sql: str) -> str:
    """Return what damages a ledger in PostgreSQL as *sql* does in SQLite."""
    sql = re.sub(r"x'(\w*)'", r"'\\x\1'", sql).replace("zeroblob(12)", "decode(repeat('00', 12), 'hex')")
    return re.sub(r"INSERT INTO (checkpoints|checkpoint_writes) ", r"INSERT INTO \1 OVERRIDING SYSTEM VALUE ", sql)


def behind(dialect: Dialect) -> tuple[str, ...]:
    """Return what takes the schema back to before the last migration."""
    last, before = revisions()[-1], revisions()[-2]
    return (*undone(script(last, dialect)), f"UPDATE {VERSION_TABLE} SET version_num = '{before}'")


def undone(sql: str) -> Iterator[str]:
    """Return what takes the schema back to before the migration *sql*, the last statement first."""
    for one in reversed([_COMMENT.sub("", one).strip() for one in statements(sql)]):
        undo = [match.expand(text) for pattern, text in _UNDO if (match := pattern.match(one))]
        assert undo or one.startswith(("UPDATE ", "INSERT ", "SELECT ")), f"say in _UNDO how this is taken back: {one}"
        yield from undo


DAMAGES = {
    "busy without a run": Damage(("thread.status",), (BUSY,)),
    "not busy with a run": Damage(
        ("thread.status",),
        (f"UPDATE runs SET {RUNNING} WHERE run_id = {ONE}",),
        follows=("threads",),
    ),
    "a thread that no search by its metadata finds": Damage(("thread.search",), ("DELETE FROM thread_terms",)),
    "two running in a lane": Damage(
        ("lane.two_running", "schema.guard"),
        (
            "DROP INDEX runs_one_running",
            f"UPDATE runs SET {RUNNING} WHERE thread_id = 'speaks'",
            BUSY,
        ),
    ),
    "the index against that is gone": Damage(("schema.guard",), ("DROP INDEX runs_one_running",)),
    "a lease that is long over": Damage(
        ("run.abandoned",),
        (
            "INSERT INTO workers (worker_id, beats, lease_us, expires_at) VALUES ('w', 1, 1, 1)",
            f"UPDATE runs SET {RUNNING}, updated_at = 1 WHERE run_id = {ONE}",
            BUSY,
        ),
    ),
    "running without a worker": Damage(
        ("run.abandoned",), (f"UPDATE runs SET {RUNNING}, updated_at = 1 WHERE run_id = {ONE}", BUSY)
    ),
    "ended without an instant": Damage(("run.end",), (f"UPDATE runs SET ended_at = NULL WHERE run_id = {ONE}",)),
    "ended without a last event": Damage(("run.end",), (f"UPDATE runs SET events_end = NULL WHERE run_id = {ONE}",)),
    "failed without a reason": Damage(("run.end",), (f"UPDATE runs SET end_reason = NULL WHERE run_id = {FAILED}",)),
    "cancelled without a reason": Damage(
        ("run.end",), ("UPDATE runs SET end_reason = NULL WHERE cancel_action IS NOT NULL",)
    ),
    "succeeded without a reason": Damage(
        ("run.end",), (f"UPDATE runs SET end_reason = NULL WHERE run_id = {ONE}",), clean=False
    ),
    "ended with its secrets": Damage(("run.secrets",), (f"UPDATE runs SET kwargs = '{SECRET}' WHERE run_id = {ONE}",)),
    "ended with its secrets, of version 0.1": Damage(
        ("run.secrets",), (f"UPDATE runs SET kwargs = '{OLD_SECRET}' WHERE run_id = {ONE}",)
    ),
    "events after the end": Damage(
        ("events.after_end",),
        (
            f"INSERT INTO events SELECT {SEQ}, events_end + 1, events_end + 1, x'90', NULL "
            f"FROM runs WHERE run_id = {ONE}",
        ),
    ),
    "events after the end, and after a gap": Damage(("events.after_end",), (LATE,), also=("events.gap",)),
    "an end amid a segment": Damage(
        ("events.after_end",), (f"UPDATE runs SET events_end = 1 WHERE run_id = {ONE}",), clean=False
    ),
    "the last events are lost": Damage(
        ("events.cut_off",), (f"UPDATE runs SET events_end = 1000 WHERE run_id = {ONE}",), clean=False
    ),
    "a gap in a log": Damage(
        ("events.gap",), (f"UPDATE events SET first_seq = first_seq + 1 WHERE run_seq = {SEQ}",), clean=False
    ),
    "events of no run": Damage(("events.run",), ("INSERT INTO events VALUES (999999, 1, 1, x'90', NULL)",)),
    "events of a run that was deleted": Damage(
        ("events.run",), (f"DELETE FROM runs WHERE run_id = {ONE}",), follows=("events",)
    ),
    "a log of no run": Damage(("log.run",), ("INSERT INTO run_logs VALUES (999999, 1, 1, 1, x'90')",)),
    "runs of no thread": Damage(("run.thread",), ("DELETE FROM threads WHERE thread_id = 'speaks'",)),
    "runs and checkpoints of no thread": Damage(("run.thread",), ("DELETE FROM threads WHERE thread_id = 'graph'",)),
    "runs of two owners of no thread": Damage(
        ("run.thread",),
        ("DELETE FROM threads WHERE thread_id = 'speaks'", f"UPDATE runs SET owner = 'other' WHERE run_id = {ONE}"),
        clean=False,
    ),
    "checkpoints of no thread": Damage(
        ("checkpoints.thread",),
        tuple(
            f"INSERT INTO {table} SELECT {columns} FROM {table} WHERE thread_id = 'graph'"
            for table, columns in (
                (
                    "checkpoints",
                    "seq + 100000, 'nobody', checkpoint_ns, checkpoint_id, run_id, parent_id, type, checkpoint, "
                    "metadata_type, metadata",
                ),
                ("checkpoint_blobs", "'nobody', checkpoint_ns, channel, version, run_id, type, value, refs"),
                (
                    "checkpoint_writes",
                    "'nobody', checkpoint_ns, checkpoint_id, seq, run_id, task_id, task_path, type, writes, refs",
                ),
            )
        ),
    ),
    "values of no thread": Damage(
        ("checkpoints.thread",),
        ("INSERT INTO checkpoint_blobs VALUES ('nobody', '', 'c', '1', 'r', 'null', x'', NULL)",),
    ),
    "writes of no thread": Damage(
        ("checkpoints.thread",),
        ("INSERT INTO checkpoint_writes VALUES ('nobody', '', 'c', 1, 'r', 't', '', 'null', x'', NULL)",),
    ),
    "what no run stored of no thread": Damage(
        ("checkpoints.thread",),
        ("INSERT INTO checkpoint_blobs VALUES ('nobody', '', 'c', '1', '', 'null', x'', NULL)",),
        clean=False,
    ),
    "values that no checkpoint names": Damage(
        ("checkpoints.values",),
        ("INSERT INTO checkpoint_blobs VALUES ('graph', '', 'log', 'x', 'r', 'null', x'', NULL)",),
    ),
    "parts that nothing refers to": Damage(
        ("parts.unused",), (f"INSERT INTO parts VALUES ('graph', '.{'A' * 20}', '0')",), follows=("part_sweeps",)
    ),
    "parts of no thread": Damage(("parts.unused",), (f"INSERT INTO parts VALUES ('nobody', '.{'A' * 20}', '0')",)),
    "a part that is missing": Damage(
        ("parts.missing",), (f"UPDATE runs SET result_refs = '={'A' * 20}' WHERE run_id = {ONE}",), clean=False
    ),
    "writes of no checkpoint": Damage(
        ("checkpoints.writes",),
        ("INSERT INTO checkpoint_writes VALUES ('graph', '', 'none', 1, 'r', 't', '', 'null', x'', NULL)",),
    ),
    "a checkpoint that cannot be read": Damage(
        ("checkpoints.unreadable",),
        ("UPDATE checkpoints SET checkpoint = x'c1' WHERE seq = (SELECT MIN(seq) FROM checkpoints)",),
        clean=False,
    ),
    "an assistant without its version": Damage(
        ("assistant.version",), ("DELETE FROM assistant_versions WHERE version = 2",)
    ),
    "a cron without its next date": Damage(
        ("cron.next",), ("UPDATE crons SET next_run_at = NULL WHERE cron_id = 'goes on'",)
    ),
    "a cron whose schedule is none": Damage(
        ("cron.next",), ("UPDATE crons SET next_run_at = NULL, schedule = 'x' WHERE cron_id = 'goes on'",), clean=False
    ),
    "a delivery that stays claimed": Damage(
        ("delivery.stuck",), (f"UPDATE webhook_deliveries SET attempts = 1, next_at = {FUTURE}",)
    ),
    "a settled thread that says otherwise": Damage(
        ("thread.status",), ("UPDATE threads SET status = 'error' WHERE thread_id = 'speaks'",)
    ),
    "a thread of no status": Damage(
        ("thread.settled",), ("UPDATE threads SET status = 'x', settled = 'x' WHERE thread_id = 'speaks'",)
    ),
    "a thread that is settled as busy": Damage(
        ("thread.settled",), ("UPDATE threads SET settled = 'busy' WHERE thread_id = 'fails'",)
    ),
    "a time to live without a strategy": Damage(
        ("thread.ttl",), ("UPDATE threads SET ttl_us = 1 WHERE thread_id = 'speaks'",)
    ),
    "a strategy without a time to live": Damage(
        ("thread.ttl",), ("UPDATE threads SET ttl_strategy = 'delete' WHERE thread_id = 'speaks'",)
    ),
    "an unknown strategy": Damage(
        ("thread.ttl",), ("UPDATE threads SET ttl_us = 1, ttl_strategy = 'x' WHERE thread_id = 'speaks'",)
    ),
    "a run of no status": Damage(
        ("run.unreadable",), (f"UPDATE runs SET status = 'x' WHERE run_id = {ONE}",), clean=False
    ),
    "a run with a strategy that is none": Damage(
        ("run.unreadable",), (f"UPDATE runs SET multitask_strategy = 'x' WHERE run_id = {ONE}",), clean=False
    ),
    "an active run that has an end": Damage(
        ("run.active",),
        (
            f"UPDATE runs SET status = 'running', worker_id = 'w' WHERE run_id = {ONE}",
            BUSY,
        ),
    ),
    "a pending run that a worker has": Damage(
        ("run.lease",),
        (
            f"UPDATE runs SET {RUNNING} WHERE run_id = {ONE}",
            f"UPDATE runs SET status = 'pending' WHERE run_id = {ONE}",
            BUSY,
        ),
        postgres_codes=("thread.head",),
    ),
    "rescued more often than claimed": Damage(
        ("run.counts",), (f"UPDATE runs SET rescues = attempt + 1 WHERE run_id = {ONE}",)
    ),
    "started but never claimed": Damage(("run.counts",), (f"UPDATE runs SET attempt = 0 WHERE run_id = {ONE}",)),
    "an end for a reason of another": Damage(
        ("run.end",), (f"UPDATE runs SET end_reason = 'completed' WHERE run_id = {FAILED}",)
    ),
    "a success for a reason of another": Damage(
        ("run.end",), (f"UPDATE runs SET end_reason = 'failed' WHERE run_id = {ONE}",), clean=False
    ),
    "a cancel without an action": Damage(("run.cancel",), (f"UPDATE runs SET cancel_action = NULL WHERE {CANCELLED}",)),
    "a cancel without a reason": Damage(("run.cancel",), (f"UPDATE runs SET cancel_reason = NULL WHERE {CANCELLED}",)),
    "a cancel that nobody asked for": Damage(
        ("run.cancel",), (f"UPDATE runs SET cancel_action = 'rollback' WHERE run_id = {ONE}",)
    ),
    "a cancel that was observed only": Damage(
        ("run.cancel",), (f"UPDATE runs SET cancel_observed_at = 1 WHERE run_id = {ONE}",)
    ),
    "a success after a cancel": Damage(
        ("run.cancelled",),
        (
            "UPDATE runs SET cancel_requested_at = 1, cancel_action = 'interrupt', cancel_reason = 'user_cancel'"
            f" WHERE run_id = {ONE}",
        ),
        clean=False,
    ),
    "two runs by one key": Damage(
        ("run.key", "schema.guard"),
        ("DROP INDEX runs_by_key", "UPDATE runs SET idempotency_key = 'k' WHERE thread_id = 'speaks'"),
    ),
    "an index is gone": Damage(("schema.index",), ("DROP INDEX threads_expiring",)),
    "an error that is no JSON": Damage(
        ("row.unreadable",), (f"UPDATE runs SET end_reason = NULL, error = 'x' WHERE run_id = {FAILED}",), clean=False
    ),
    "a version that is not what the assistant is": Damage(
        ("assistant.version",), ("UPDATE assistants SET name = 'third' WHERE assistant_id = 'a'",)
    ),
    "versions of no assistant": Damage(
        ("assistant.gone",), ("DELETE FROM assistants WHERE assistant_id = 'a'",), follows=("assistant_versions",)
    ),
    "a delivery of no status": Damage(
        ("delivery.unreadable",), ("UPDATE webhook_deliveries SET status = 'x'",), clean=False
    ),
    "a delivery that is to be sent and has ended": Damage(
        ("delivery.end",), ("UPDATE webhook_deliveries SET ended_at = 1 WHERE status = 'pending'",)
    ),
    "a delivery that is over and has not ended": Damage(
        ("delivery.end",), ("UPDATE webhook_deliveries SET ended_at = NULL WHERE status = 'delivered'",)
    ),
    "a delivery of fewer attempts than are recorded": Damage(
        ("delivery.counts",), ("UPDATE webhook_deliveries SET attempts = 0, tries = 0 WHERE status = 'delivered'",)
    ),
    "a delivery of more tries than attempts": Damage(
        ("delivery.counts",), ("UPDATE webhook_deliveries SET tries = 7 WHERE status = 'delivered'",)
    ),
    "attempts at no delivery": Damage(
        ("delivery.gone",),
        ("DELETE FROM webhook_deliveries WHERE status = 'delivered'",),
        follows=("webhook_attempts",),
    ),
    "an item that has a time to live and stays": Damage(
        ("item.expiry",), ("UPDATE store_items SET expires_at = NULL WHERE key = 'short'",)
    ),
    "an item that has none and expires": Damage(
        ("item.expiry",), ("UPDATE store_items SET expires_at = 1 WHERE key = 'long'",)
    ),
    "vectors of another length": Damage(
        ("item.vectors",),
        ("INSERT INTO store_index VALUES (2)", "UPDATE store_items SET vectors = zeroblob(12) WHERE key = 'long'"),
    ),
    "two lengths of vectors": Damage(
        ("item.index",), ("INSERT INTO store_index VALUES (2)", "INSERT INTO store_index VALUES (3)")
    ),
    "a checkpoint that is stored twice": Damage(
        ("checkpoints.twice", "schema.guard"),
        (
            "DROP INDEX checkpoints_by_id",
            """INSERT INTO checkpoints SELECT seq + 100000, thread_id, checkpoint_ns, checkpoint_id, run_id, parent_id,
                 type, checkpoint, metadata_type, metadata FROM checkpoints WHERE thread_id = 'graph' LIMIT 1""",
        ),
        follows=("checkpoints",),
    ),
    "a schema that is behind": Damage(
        ("schema.behind",),
        behind("sqlite"),
        postgres=behind("postgres"),
    ),
}
