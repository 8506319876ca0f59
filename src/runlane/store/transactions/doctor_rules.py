"""Rules of a ledger whose breach one guarded statement mends: what breaks them, page by page, and that statement.

The condition is the same in both, so that a mending looks again at what was found.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, get_args

from runlane.lifecycle import (
    TERMINAL,
    CancelAction,
    DisconnectMode,
    EndReason,
    MultitaskStrategy,
    RunStatus,
    ThreadStatus,
)
from runlane.records import PruneStrategy
from runlane.store.conditions import IS_ACTIVE, PENDING, RUNNING, thread_status
from runlane.store.statements import Row, Statement, Transaction, listed, statement
from runlane.store.transactions.runs import LOCK_THREAD
from runlane.store.transactions.webhooks import DeliveryStatus

#: The key of a table that has no other of one column.
PLACE: Final = "{place}"


def above(key: str) -> str:
    """Return the condition that a row's *key* is above ``:after``, which is NULL before the first place."""
    return f"{key} > COALESCE(:after, {{first_place}})" if key == PLACE else f"{key} > :after"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """``find`` yields what breaks it in a page; ``mend`` changes that, the row (or rows) of ``key``.

    ``locks`` is whether the thread's lock is taken first. Without ``mend`` it takes judgement.
    """

    key: str
    find: Statement
    mend: Statement | None
    locks: bool


def mended(rule: Rule, found: Row) -> Transaction[bool]:
    """Mend what was *found*; ``False`` if it is not so any more."""
    assert rule.mend is not None
    if rule.locks:
        yield LOCK_THREAD(thread_id=found["thread_id"])
    return bool((yield rule.mend(key=found[rule.key])))


def _rule(
    name: str, table: str, key: str, broken: str, *, shows: str = "", mend: str | None = None, locks: bool = False
) -> Rule:
    """Return the rule that no row of *table* is *broken*; *shows* are more columns, *mend* a statement without WHERE.

    A key of several rows is found once, with their number as ``n``.
    """
    several = shows == _NUMBER
    order = f"GROUP BY {key} ORDER BY {key}" if several else f"ORDER BY {key}"
    named = "place" if key == PLACE else key
    columns = f"{key} AS {named}, {shows}" if shows else f"{key} AS {named}"
    page = f"SELECT {columns} FROM {table} WHERE ({broken}) AND {above(key)} AND {key} <= :upto {order}"
    change = None
    if mend is not None:
        change = statement(f"doctor.mend_{name}", f"{mend} WHERE {key} = :key AND ({broken}) RETURNING {key}")
    return Rule(key=named, find=statement(f"doctor.find_{name}", page), mend=change, locks=locks)


def _unknown(column: str, members: Iterable[StrEnum]) -> str:
    return f"{column} NOT IN {listed(members)}"


_NUMBER: Final = "COUNT(*) AS n"
_OF_RUN: Final = "run_id, thread_id, status"

# ---------------------------------------------------------------------------------------------------------- threads

SETTLED: Final = tuple(status for status in ThreadStatus if status is not ThreadStatus.BUSY)
_SETTLED_ANEW = f"""CASE WHEN error IS NOT NULL THEN '{ThreadStatus.ERROR.value}'
  WHEN interrupts <> '{{}}' THEN '{ThreadStatus.INTERRUPTED.value}' ELSE '{ThreadStatus.IDLE.value}' END"""
THREAD_SETTLED: Final = _rule(
    "settled",
    "threads",
    "thread_id",
    _unknown("settled", SETTLED),
    shows="settled",
    mend=f"""UPDATE threads SET settled = {_SETTLED_ANEW},
      status = {thread_status(_SETTLED_ANEW)}""",
    locks=True,
)
_STRATEGIES = "(" + ", ".join(f"'{word}'" for word in get_args(PruneStrategy)) + ")"
THREAD_TTL: Final = _rule(
    "ttl",
    "threads",
    "thread_id",
    f"(ttl_us IS NULL) <> (ttl_strategy IS NULL) OR ttl_strategy NOT IN {_STRATEGIES}",
    mend="UPDATE threads SET ttl_us = NULL, ttl_strategy = NULL",
    locks=True,
)

# ------------------------------------------------------------------------------------------------------------- runs

_WORDS: Final = {
    "status": RunStatus,
    "end_reason": EndReason,
    "multitask_strategy": MultitaskStrategy,
    "on_disconnect": DisconnectMode,
    "cancel_action": CancelAction,
    "cancel_reason": EndReason,
}
RUN_WORDS: Final = _rule(
    "run_words",
    "runs",
    "seq",
    " OR ".join(_unknown(column, members) for column, members in _WORDS.items()),
    shows=_OF_RUN,
)
RUN_ENDED_ACTIVE: Final = _rule(
    "ended_active",
    "runs",
    "seq",
    f"{IS_ACTIVE} AND (ended_at IS NOT NULL OR end_reason IS NOT NULL OR events_end IS NOT NULL)",
    shows=_OF_RUN,
    mend="UPDATE runs SET ended_at = NULL, end_reason = NULL, events_end = NULL",
    locks=True,
)
RUN_HELD: Final = _rule(
    "held",
    "runs",
    "seq",
    f"status = {PENDING} AND worker_id IS NOT NULL",
    shows=_OF_RUN,
    mend="UPDATE runs SET worker_id = NULL",
    locks=True,
)
# What executes keeps its number: a higher one would take the run from its worker.
RUN_COUNTS: Final = _rule(
    "counts",
    "runs",
    "seq",
    f"status <> {RUNNING} AND (rescues > attempt OR (started_at IS NOT NULL AND attempt < 1))",
    shows=f"{_OF_RUN}, attempt, rescues",
    mend="UPDATE runs SET attempt = CASE WHEN rescues > 1 THEN rescues ELSE 1 END",
    locks=True,
)
# Without a cancel there may be a cancel_blocked_at: where code was that ignored its deadline.
_ASKED = "cancel_requested_at IS NOT NULL"
RUN_CANCEL: Final = _rule(
    "cancel",
    "runs",
    "seq",
    f"""CASE WHEN {_ASKED} THEN cancel_action IS NULL OR cancel_reason IS NULL
          ELSE COALESCE(cancel_action, cancel_reason) IS NOT NULL
            OR COALESCE(cancel_observed_at, cancel_stopped_at) IS NOT NULL END""",
    shows=_OF_RUN,
    mend=f"""UPDATE runs SET
      cancel_action = CASE WHEN {_ASKED} THEN COALESCE(cancel_action, '{CancelAction.INTERRUPT.value}') END,
      cancel_reason = CASE WHEN {_ASKED} THEN COALESCE(cancel_reason, '{EndReason.USER_CANCEL.value}') END,
      cancel_observed_at = CASE WHEN {_ASKED} THEN cancel_observed_at END,
      cancel_stopped_at = CASE WHEN {_ASKED} THEN cancel_stopped_at END""",
    locks=True,
)
RUN_NOT_CANCELLED: Final = _rule(
    "not_cancelled",
    "runs",
    "seq",
    f"status IN {listed(TERMINAL - {RunStatus.INTERRUPTED})} AND {_ASKED}",
    shows=_OF_RUN,
)
RUN_KEY: Final = _rule(
    "key",
    "runs",
    "seq",
    """idempotency_key IS NOT NULL AND EXISTS (SELECT 1 FROM runs AS first WHERE first.thread_id = runs.thread_id
         AND first.owner = runs.owner AND first.idempotency_key = runs.idempotency_key AND first.seq < runs.seq)""",
    shows=_OF_RUN,
    mend="UPDATE runs SET idempotency_key = NULL",
    locks=True,
)

# ---------------------------------------------------------------------------------- events, assistants, webhooks

LOG_WITHOUT_RUN: Final = _rule(
    "log_without_run",
    "events",
    "run_seq",
    "NOT EXISTS (SELECT 1 FROM runs WHERE runs.seq = events.run_seq)",
    shows=_NUMBER,
    mend="DELETE FROM events",
)
RECORDS_WITHOUT_RUN: Final = _rule(
    "records_without_run",
    "run_logs",
    "run_seq",
    "NOT EXISTS (SELECT 1 FROM runs WHERE runs.seq = run_logs.run_seq)",
    shows=_NUMBER,
    mend="DELETE FROM run_logs",
)
VERSION_WITHOUT_ASSISTANT: Final = _rule(
    "version_without_assistant",
    "assistant_versions",
    "assistant_id",
    "NOT EXISTS (SELECT 1 FROM assistants WHERE assistants.assistant_id = assistant_versions.assistant_id)",
    shows=_NUMBER,
    mend="DELETE FROM assistant_versions",
)
_TO_BE_SENT = f"status = '{DeliveryStatus.PENDING.value}'"
DELIVERY_WORDS: Final = _rule(
    "delivery_words", "webhook_deliveries", "run_id", _unknown("status", DeliveryStatus), shows="status"
)
DELIVERY_END: Final = _rule(
    "delivery_end",
    "webhook_deliveries",
    "run_id",
    f"({_TO_BE_SENT}) <> (ended_at IS NULL) AND status IN {listed(DeliveryStatus)}",
    shows="status",
    mend=f"UPDATE webhook_deliveries SET ended_at = CASE WHEN {_TO_BE_SENT} THEN NULL ELSE {{now}} END",
)
_RECORDED = "(SELECT MAX(number) FROM webhook_attempts WHERE webhook_attempts.run_id = webhook_deliveries.run_id)"
_AT_LEAST = f"CASE WHEN tries > COALESCE({_RECORDED}, 0) THEN tries ELSE {_RECORDED} END"
DELIVERY_COUNTS: Final = _rule(
    "delivery_counts",
    "webhook_deliveries",
    "run_id",
    f"tries > attempts OR COALESCE({_RECORDED}, 0) > attempts",
    shows="attempts, tries",
    mend=f"UPDATE webhook_deliveries SET attempts = {_AT_LEAST}",
)
ATTEMPT_WITHOUT_DELIVERY: Final = _rule(
    "attempt_without_delivery",
    "webhook_attempts",
    "run_id",
    "NOT EXISTS (SELECT 1 FROM webhook_deliveries AS told WHERE told.run_id = webhook_attempts.run_id)",
    shows=_NUMBER,
    mend="DELETE FROM webhook_attempts",
)

# ------------------------------------------------------------------------------ the long-term store and checkpoints

ITEM_EXPIRY: Final = _rule(
    "item_expiry",
    "store_items",
    PLACE,
    "(ttl_us IS NULL) <> (expires_at IS NULL)",
    shows="namespace, key",
    mend="UPDATE store_items SET expires_at = {now} + ttl_us",
)
ITEM_VECTORS: Final = _rule(
    "item_vectors",
    "store_items",
    PLACE,
    """vectors IS NOT NULL AND (LENGTH(vectors) = 0
         OR LENGTH(vectors) % (4 * (SELECT dims FROM store_index ORDER BY {place} LIMIT 1)) <> 0)""",
    shows="namespace, key",
    mend="UPDATE store_items SET vectors = NULL",
)
SECOND_INDEX: Final = _rule(
    "second_index",
    "store_index",
    PLACE,
    "EXISTS (SELECT 1 FROM store_index AS first WHERE first.{place} < store_index.{place})",
    shows="dims",
    mend="DELETE FROM store_index",
)
_OLDER = """seq IN (SELECT seq FROM (
  SELECT seq, ROW_NUMBER() OVER (PARTITION BY thread_id, checkpoint_ns, checkpoint_id, run_id ORDER BY seq DESC) AS nth
  FROM checkpoints WHERE {of}) AS rows WHERE nth > 1)"""
_PAGE = "thread_id > :after AND thread_id <= :upto"
CHECKPOINT_TWICE: Final = Rule(
    key="thread_id",
    find=statement(
        "doctor.find_checkpoint_twice",
        f"SELECT thread_id, {_NUMBER} FROM checkpoints WHERE {_OLDER.format(of=_PAGE)} GROUP BY thread_id",
    ),
    mend=statement(
        "doctor.mend_checkpoint_twice",
        f"DELETE FROM checkpoints WHERE {_OLDER.format(of='thread_id = :key')} RETURNING seq",
    ),
    locks=True,
)
# A Command that begins a thread is written by LangGraph for an empty checkpoint, which is never stored, as no task's.
_OF_NO_TASK: Final = "00000000-0000-0000-0000-000000000000"
# The thread is there, and nothing of it executes: what does may be between two of its writes.
_AT_REST = f"""EXISTS (SELECT 1 FROM threads WHERE threads.thread_id = checkpoint_writes.thread_id)
  AND NOT EXISTS (
    SELECT 1 FROM runs WHERE runs.thread_id = checkpoint_writes.thread_id AND runs.status = {RUNNING})"""
WRITES_WITHOUT_CHECKPOINT: Final = _rule(
    "writes_without_checkpoint",
    "checkpoint_writes",
    "thread_id",
    f"""task_id <> '{_OF_NO_TASK}' AND {_AT_REST} AND NOT EXISTS (
          SELECT 1 FROM checkpoints AS c WHERE c.thread_id = checkpoint_writes.thread_id
            AND c.checkpoint_ns = checkpoint_writes.checkpoint_ns
            AND c.checkpoint_id = checkpoint_writes.checkpoint_id)""",
    shows=_NUMBER,
    mend="DELETE FROM checkpoint_writes",
    locks=True,
)
