"""The outbox of webhooks: what a run's end has to tell, written with the end itself, and what became of telling it.

A run has at most one delivery, which is addressed by the run's id. A claim counts an attempt, which is the fencing
token, and moves the delivery's next instant to the end of its lease: a process that dies leaves a delivery that is due
again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from runlane.errors import NotFound
from runlane.records import Json, Owner, RunRecord
from runlane.store.filters import MATCHES, MATCHES_PG, filter_params
from runlane.store.rows import dumps, instant, loads, maybe_instant, microseconds, owner_params, run_record
from runlane.store.statements import Row, Transaction, statement

#: Larger values, input or metadata are left out of a webhook: few receivers take more, and it is stored once more here.
MAX_PART_BYTES: Final = 2 * 1024 * 1024


class DeliveryStatus(StrEnum):
    """What became of a delivery; only ``PENDING`` is tried again."""

    PENDING = "pending"
    DELIVERED = "delivered"  # answered with 2xx
    GONE = "gone"  # answered with 410
    FAILED = "failed"  # never answered so in all tries


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of telling one run's end. ``next_at`` is when it is tried (again), ``None`` if it is not.

    ``metadata`` is the thread's when the run ended: who may read the thread may see the delivery.
    """

    run_id: str
    thread_id: str
    owner: str
    metadata: Json
    url: str
    status: DeliveryStatus
    attempts: int
    next_at: datetime | None
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """One attempt: the answer's status code, or why there was none."""

    number: int
    sent_at: datetime
    duration_s: float
    status_code: int | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedDelivery:
    """A delivery to be tried now.

    ``snapshot`` is the run's row as it ended, and ``values`` the thread's, as JSON text; ``omitted`` names what of it
    was too large. ``tries`` counts attempts since the end or the last wish to send it again, this one included.
    """

    run_id: str
    url: str
    origin: str
    snapshot: str = field(repr=False)
    values: str | None = field(repr=False)
    omitted: tuple[str, ...]
    attempt: int
    tries: int

    @property
    def run(self) -> RunRecord:
        """The run as it ended; a column that a later version added is NULL."""
        return run_record(_Snapshot(loads(self.snapshot)))


_P, _D = DeliveryStatus.PENDING.value, "webhook_deliveries"

THREAD_LEFT = statement("thread_left", "SELECT state_values, metadata FROM threads WHERE thread_id = :thread_id")
# Guard: the run has none yet. It is part of the transaction that ends the run, under its thread's lock.
INSERT_DELIVERY = statement(
    "insert_delivery",
    f"""INSERT INTO {_D} (run_id, thread_id, owner, metadata, url, origin, run, state_values, omitted, status,
                        next_at, created_at)
        VALUES (:run_id, :thread_id, :owner, :metadata, :url, :origin, :run, :state_values, :omitted, '{_P}',
                {{now}}, {{now}})
        ON CONFLICT (run_id) DO NOTHING""",
)
# Every receiver with something due, the one that waits longest first. The recursion jumps from origin to origin in the
# index, so that what one receiver has waiting costs the others nothing.
DUE_ORIGINS = statement(
    "due_origins",
    f"""WITH RECURSIVE known(origin) AS (
          SELECT MIN(origin) FROM {_D} WHERE status = '{_P}'
          UNION ALL
          SELECT (SELECT MIN(origin) FROM {_D} WHERE status = '{_P}' AND origin > known.origin)
            FROM known WHERE known.origin IS NOT NULL)
        SELECT origin, due FROM (
          SELECT origin, (SELECT MIN(next_at) FROM {_D} WHERE status = '{_P}' AND origin = known.origin) AS due
            FROM known WHERE origin IS NOT NULL) AS waiting
        WHERE due <= {{now}} ORDER BY due LIMIT :limit""",
)
# Guard: pending and due; what another process is claiming is passed over.
CLAIM_DELIVERIES = statement(
    "claim_deliveries",
    f"""UPDATE {_D} SET attempts = attempts + 1, tries = tries + 1, next_at = {{now}} + :lease_us
        WHERE run_id IN (SELECT run_id FROM {_D} WHERE status = '{_P}' AND origin = :origin AND next_at <= {{now}}
                         ORDER BY next_at LIMIT :limit {{skip_locked}})
        RETURNING *""",
)
# Guard: the delivery is there; retention may have removed one that a later attempt settled.
INSERT_ATTEMPT = statement(
    "insert_attempt",
    f"""INSERT INTO webhook_attempts (run_id, number, sent_at, duration_us, status_code, error)
        SELECT run_id, CAST(:number AS BIGINT), CAST(:sent_at AS BIGINT), CAST(:duration_us AS BIGINT),
               CAST(:status_code AS BIGINT), CAST(:error AS TEXT) FROM {_D} WHERE run_id = :run_id
        ON CONFLICT (run_id, number) DO NOTHING""",
)
# Guard: no later attempt was claimed, and nobody settled it.
SETTLE_DELIVERY = statement(
    "settle_delivery",
    f"""UPDATE {_D} SET status = :status, next_at = {{now}} + :delay_us,
          ended_at = CASE WHEN :pending = 1 THEN NULL ELSE {{now}} END
        WHERE run_id = :run_id AND attempts = :attempt AND status = '{_P}' RETURNING run_id""",
)
SEND_AGAIN = statement(
    "send_again",
    f"""UPDATE {_D} SET status = '{_P}', tries = 0, next_at = {{now}}, ended_at = NULL
        WHERE run_id = :run_id RETURNING *""",
)
GET_DELIVERY = statement(
    "get_delivery", f"SELECT * FROM {_D} WHERE run_id = :run_id AND (:any_owner = 1 OR owner = :owner)"
)
_LIST = f"""SELECT * FROM {_D} WHERE (:any_owner = 1 OR owner = :owner)
              AND (CAST(:run_id AS TEXT) IS NULL OR run_id = :run_id)
              AND (CAST(:status AS TEXT) IS NULL OR status = :status) AND {{matches}}
            ORDER BY created_at DESC, run_id DESC LIMIT :limit OFFSET :offset"""
LIST_DELIVERIES = statement("list_deliveries", _LIST.format(matches=MATCHES), postgres=_LIST.format(matches=MATCHES_PG))
LIST_ATTEMPTS = statement("list_attempts", "SELECT * FROM webhook_attempts WHERE run_id = :run_id ORDER BY number")
OLD_DELIVERIES = statement(
    "old_deliveries",
    f"""SELECT run_id FROM {_D} WHERE ended_at IS NOT NULL AND ended_at < {{now}} - :age_us
        ORDER BY ended_at LIMIT :limit""",
)
DELETE_ATTEMPTS = statement("delete_attempts", "DELETE FROM webhook_attempts WHERE run_id = :run_id")
DELETE_DELIVERY = statement("delete_delivery", f"DELETE FROM {_D} WHERE run_id = :run_id")


def record_delivery(run: Row, values: bytes | None) -> Transaction[None]:
    """Record that the webhook of *run*, which has just ended, is to be told, with *values* or else the thread's own.

    A run without a webhook costs nothing. Values of a temporary thread, which is about to be deleted, are not copied.
    """
    if run["webhook"] is None:
        return
    [thread] = yield THREAD_LEFT(thread_id=run["thread_id"])
    left = thread["state_values"] if values is None else values.decode()
    parts = {"values": None if run["temporary"] else left, "kwargs": run["kwargs"], "metadata": run["metadata"]}
    omitted = [name for name, text in parts.items() if text is not None and len(text.encode()) > MAX_PART_BYTES]
    small: dict[str, Any] = {name: "{}" for name in omitted if name != "values"}
    url = urlsplit(run["webhook"])
    yield INSERT_DELIVERY(
        run_id=run["run_id"],
        thread_id=run["thread_id"],
        owner=run["owner"],
        metadata=thread["metadata"],
        url=run["webhook"],
        origin=f"{url.scheme}://{url.netloc}".lower(),
        run=dumps({**dict(run), "result": None, **small}),
        state_values=None if "values" in omitted else parts["values"],
        omitted=dumps(omitted),
    )


def claim_deliveries(
    room: int, per_origin: int, busy: Mapping[str, int], lease_s: float
) -> Transaction[tuple[ClaimedDelivery, ...]]:
    """Claim up to *room* due deliveries, and of no receiver more than *per_origin* less those of it in *busy*."""
    claimed: list[ClaimedDelivery] = []
    origins = yield DUE_ORIGINS(limit=room + len(busy))
    for row in origins:
        limit = min(room - len(claimed), per_origin - busy.get(row["origin"], 0))
        if limit > 0:
            rows = yield CLAIM_DELIVERIES(origin=row["origin"], limit=limit, lease_us=int(lease_s * 1_000_000))
            claimed += [_claimed(one) for one in sorted(rows, key=lambda one: one["created_at"])]
    return tuple(claimed)


def settle_delivery(run_id: str, attempted: Attempted, status: DeliveryStatus, delay_s: float) -> Transaction[bool]:
    """Record an attempt and what follows: an end, or the next one in *delay_s*. ``False``: a later attempt decides."""
    yield INSERT_ATTEMPT(
        run_id=run_id,
        number=attempted.number,
        sent_at=microseconds(attempted.sent_at),
        duration_us=int(attempted.duration_s * 1_000_000),
        status_code=attempted.status_code,
        error=attempted.error,
    )
    rows = yield SETTLE_DELIVERY(
        run_id=run_id,
        attempt=attempted.number,
        status=status.value,
        pending=int(status is DeliveryStatus.PENDING),
        delay_us=int(delay_s * 1_000_000),
    )
    return bool(rows)


def send_again(run_id: str) -> Transaction[Delivery]:
    """Make a delivery due now, with all its tries before it; NotFound if there is none."""
    rows = yield SEND_AGAIN(run_id=run_id)
    if not rows:
        raise NotFound("webhook delivery", run_id)
    return _delivery(rows[0])


def get_delivery(run_id: str, owner: Owner) -> Transaction[tuple[Delivery, tuple[Attempted, ...]]]:
    """Return a run's delivery and its attempts, oldest first; NotFound if there is none."""
    rows = yield GET_DELIVERY(run_id=run_id, **owner_params(owner))
    if not rows:
        raise NotFound("webhook delivery", run_id)
    attempts = yield LIST_ATTEMPTS(run_id=run_id)
    return _delivery(rows[0]), tuple(_attempted(row) for row in attempts)


def list_deliveries(
    owner: Owner,
    *,
    where: Mapping[str, Any] | None,
    run_id: str | None,
    status: DeliveryStatus | None,
    limit: int,
    offset: int,
) -> Transaction[tuple[Delivery, ...]]:
    """Return deliveries, newest first, of threads whose metadata matched *where*."""
    rows = yield LIST_DELIVERIES(
        run_id=run_id,
        status=None if status is None else status.value,
        limit=limit,
        offset=offset,
        **owner_params(owner),
        **filter_params(where),
    )
    return tuple(_delivery(row) for row in rows)


def purge_deliveries(older_than_s: float, limit: int) -> Transaction[int]:
    """Remove up to *limit* deliveries that ended long enough ago; return how many."""
    old = yield OLD_DELIVERIES(age_us=int(older_than_s * 1_000_000), limit=limit)
    for row in old:
        yield DELETE_ATTEMPTS(run_id=row["run_id"])
        yield DELETE_DELIVERY(run_id=row["run_id"])
    return len(old)


class _Snapshot(dict[str, Any]):
    """A run's row as it was stored; a column that a later version added is NULL in it."""

    def __missing__(self, column: str) -> None:
        return None


def _claimed(row: Row) -> ClaimedDelivery:
    return ClaimedDelivery(
        run_id=row["run_id"],
        url=row["url"],
        origin=row["origin"],
        snapshot=row["run"],
        values=row["state_values"],
        omitted=tuple(loads(row["omitted"])),
        attempt=row["attempts"],
        tries=row["tries"],
    )


def _delivery(row: Row) -> Delivery:
    status = DeliveryStatus(row["status"])
    return Delivery(
        run_id=row["run_id"],
        thread_id=row["thread_id"],
        owner=row["owner"],
        metadata=loads(row["metadata"]),
        url=row["url"],
        status=status,
        attempts=row["attempts"],
        next_at=instant(row["next_at"]) if status is DeliveryStatus.PENDING else None,
        created_at=instant(row["created_at"]),
        ended_at=maybe_instant(row["ended_at"]),
    )


def _attempted(row: Row) -> Attempted:
    return Attempted(
        number=row["number"],
        sent_at=instant(row["sent_at"]),
        duration_s=row["duration_us"] / 1_000_000,
        status_code=row["status_code"],
        error=row["error"],
    )
