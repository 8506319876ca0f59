"""The audit: a row for each act of an operator; and the last use of each API key."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from runlane.store.rows import dumps, instant, loads, microseconds
from runlane.store.statements import Row, Transaction, statement
from runlane.store.transactions.purges import purges_alone

# Guard: none; the id is new.
INSERT_ACT = statement(
    "insert_act",
    """INSERT INTO audit (audit_id, recorded_at, actor, key_id, action, route, subject, request_id, address,
                          user_agent)
       VALUES (:audit_id, :recorded_at, :actor, :key_id, :action, :route, :subject, :request_id, :address,
               :user_agent)""",
)
NOW = statement("now", "SELECT {now} AS now_us")
# Guard: nothing was recorded of its result.
SET_RESULT = statement(
    "set_result",
    "UPDATE audit SET status = :status, result = :result WHERE audit_id = :audit_id AND status IS NULL",
)
# By the primary key, newest first.
ACTS = statement(
    "acts",
    """SELECT audit_id, recorded_at, actor, key_id, action, route, subject, request_id, address, user_agent, status,
         result FROM audit
       WHERE audit_id < :before AND audit_id >= :first AND (CAST(:actor AS TEXT) IS NULL OR actor = :actor)
         AND (CAST(:action AS TEXT) IS NULL OR action = :action)
       ORDER BY audit_id DESC LIMIT :limit""",
)
# Guard: their ids, which begin with their time, are before the retention.
PURGE_ACTS = statement(
    "purge_acts",
    """DELETE FROM audit WHERE audit_id IN (
         SELECT audit_id FROM audit WHERE audit_id < :before ORDER BY audit_id LIMIT :limit)
       RETURNING audit_id""",
)
# Guard: only one that is older by an hour changes, so that a busy key writes nothing.
USE_KEY = statement(
    "use_key",
    """INSERT INTO key_uses (key_id, last_used_at) VALUES (:key_id, {now}) ON CONFLICT (key_id) DO UPDATE
       SET last_used_at = excluded.last_used_at WHERE key_uses.last_used_at < excluded.last_used_at - :age_us""",
)
KEY_USES = statement("key_uses", "SELECT key_id, last_used_at FROM key_uses")
#: How true the last use of a key is.
USED_EVERY_S: Final = 3600.0
#: Sorts after every id.
NEWEST_ACT: Final = "g"


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What an operator is about to do; *subject* are the ids that it is about, and what was asked."""

    actor: str
    key_id: str | None
    action: str
    route: str
    subject: Mapping[str, str | list[str]]
    request_id: str | None
    address: str | None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedAct:
    """An act of an operator; ``status`` is that of the answer, ``None`` if it is not known.

    ``result`` are counts of what an act on many things came to.
    """

    audit_id: str
    recorded_at: datetime
    actor: str
    key_id: str | None
    action: str
    route: str
    subject: Mapping[str, str | list[str]]
    request_id: str | None
    address: str | None
    user_agent: str | None
    status: int | None
    result: Mapping[str, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActFilter:
    """A filter on acts: each given condition must hold. *since* is the first instant, *until* the first one after."""

    actor: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


EVERY_ACT: Final = ActFilter()


def record(act: Act) -> Transaction[str]:
    """Record *act*, which begins, and return its id: ids sort by time."""
    [row] = yield NOW()
    audit_id = f"{_first_id(row['now_us'])}{secrets.token_hex(4)}"
    yield INSERT_ACT(
        audit_id=audit_id,
        recorded_at=row["now_us"],
        actor=act.actor,
        key_id=act.key_id,
        action=act.action,
        route=act.route,
        subject=dumps(act.subject),
        request_id=act.request_id,
        address=act.address,
        user_agent=act.user_agent,
    )
    return audit_id


def complete(audit_id: str, status: int, result: Mapping[str, int] | None) -> Transaction[None]:
    """Record the status of the answer to an act, and what it came to."""
    yield SET_RESULT(audit_id=audit_id, status=status, result=None if result is None else dumps(result))


def acts(before: str, where: ActFilter, limit: int) -> Transaction[tuple[RecordedAct, ...]]:
    """Return acts below *before* that match, the newest first."""
    if where.until is not None:
        before = min(before, _first_id(microseconds(where.until)))
    first = "" if where.since is None else _first_id(microseconds(where.since))
    rows = yield ACTS(before=before, first=first, actor=where.actor, action=where.action, limit=limit)
    return tuple(_act(row) for row in rows)


def purge_acts(older_than_s: float, limit: int) -> Transaction[int]:
    """Delete up to *limit* acts that are older; return how many. None while another process purges."""
    if not (yield from purges_alone("audit")):
        return 0
    [row] = yield NOW()
    before = max(0, row["now_us"] - int(older_than_s * 1_000_000))
    return len((yield PURGE_ACTS(before=_first_id(before), limit=limit)))


def key_used(key_id: str) -> Transaction[None]:
    """Record that an API key is in use."""
    yield USE_KEY(key_id=key_id, age_us=int(USED_EVERY_S * 1_000_000))


def key_uses() -> Transaction[Mapping[str, datetime]]:
    """Return when each API key was used last."""
    rows = yield KEY_USES()
    return {row["key_id"]: instant(row["last_used_at"]) for row in rows}


def _first_id(us: int) -> str:
    """Return the least id of an act that is recorded at *us*."""
    return f"{us:014x}"


def _act(row: Row) -> RecordedAct:
    return RecordedAct(
        audit_id=row["audit_id"],
        recorded_at=instant(row["recorded_at"]),
        actor=row["actor"],
        key_id=row["key_id"],
        action=row["action"],
        route=row["route"],
        subject=loads(row["subject"]),
        request_id=row["request_id"],
        address=row["address"],
        user_agent=row["user_agent"],
        status=row["status"],
        result=None if row["result"] is None else loads(row["result"]),
    )
