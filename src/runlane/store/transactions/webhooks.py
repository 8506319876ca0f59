"""The outbox of webhooks: deliveries, written in the transaction that ends their run, and their attempts.

A run has at most one delivery, which is addressed by the run's id. A claim counts an attempt, which is the fencing
token, and moves the delivery's next instant to the end of its lease: a process that dies leaves a delivery that is due
again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

from runlane.documents.document import Encoded, whole
from runlane.errors import NotFound
from runlane.records import AnyOwner, Json, Owner, RunRecord
from runlane.store.conditions import IS_MINE
from runlane.store.filters import MATCHES, MATCHES_PG, filter_params
from runlane.store.rows import dumps, instant, loads, maybe_instant, microseconds, owner_params, run_record
from runlane.store.shares import allowance
from runlane.store.statements import Row, Statement, Transaction, statement
from runlane.store.transactions.purges import purges_alone
from runlane.store.transactions.values import request_of, value_of

#: Larger values, input or metadata are left out of a webhook: few receivers take more, and it is stored once more here.
MAX_PART_BYTES: Final = 2 * 1024 * 1024
#: Hosts of one owner that are looked at for what is due, by each of two ways: more than can be told at once.
MOST_HOSTS: Final = 256


class DeliveryStatus(StrEnum):
    """The status of a delivery; only ``PENDING`` is tried again."""

    PENDING = "pending"
    DELIVERED = "delivered"  # answered with 2xx
    GONE = "gone"  # answered with 410
    FAILED = "failed"  # never answered so in all tries


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The delivery of one run's webhook. ``next_at`` is when it is tried (again), ``None`` if it is not.

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
class Lane:
    """Deliveries of one owner to one host, by its name in the URL."""

    owner: str
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedDelivery:
    """A delivery to be tried now.

    ``snapshot`` is the run's row as it ended, and ``values`` the thread's, as JSON text; ``omitted`` names what of it
    was too large. ``tries`` counts attempts since the end or the last wish to send it again, this one included.
    """

    run_id: str
    lane: Lane
    url: str
    snapshot: str = field(repr=False)
    values: str | None = field(repr=False)
    omitted: tuple[str, ...]
    attempt: int
    tries: int

    @property
    def run(self) -> RunRecord:
        """The run as it ended; a column that a later version added is NULL."""
        return run_record(_Snapshot(loads(self.snapshot)))


_P = DeliveryStatus.PENDING.value
_D = "webhook_deliveries"

# The values can be large, and are read only if they are :wanted.
THREAD_LEFT = statement(
    "thread_left",
    """SELECT CASE WHEN :wanted = 1 THEN state_values END AS state_values, state_refs, metadata FROM threads
       WHERE thread_id = :thread_id""",
)
# Guard: the run has none yet. It is part of the transaction that ends the run, under its thread's lock.
INSERT_DELIVERY = statement(
    "insert_delivery",
    f"""INSERT INTO {_D} (run_id, thread_id, owner, metadata, url, host, run, state_values, omitted, status,
                        next_at, created_at)
        VALUES (:run_id, :thread_id, :owner, :metadata, :url, :host, :run, :state_values, :omitted, '{_P}',
                {{now}}, {{now}})
        ON CONFLICT (run_id) DO NOTHING""",
)
# Every owner with something due, the one that waits longest first. The recursion jumps from owner to owner in the
# index, so that what one of them has waiting costs the others nothing.
DUE_OWNERS = statement(
    "due_owners",
    f"""WITH RECURSIVE known(owner) AS (
          SELECT MIN(owner) FROM {_D} WHERE status = '{_P}'
          UNION ALL
          SELECT (SELECT MIN(owner) FROM {_D} WHERE status = '{_P}' AND owner > known.owner)
            FROM known WHERE known.owner IS NOT NULL)
        SELECT owner, due FROM (
          SELECT owner, (SELECT MIN(next_at) FROM {_D} WHERE status = '{_P}' AND owner = known.owner) AS due
            FROM known WHERE owner IS NOT NULL) AS waiting
        WHERE due <= {{now}} ORDER BY due LIMIT :limit""",
)
# Hosts of one owner with something due, the one that waits longest first: of the first :most that have anything
# waiting, by jumps in the index, and of the :most deliveries that wait longest. So neither many hosts nor much for one
# host make it long, and whoever waits longest is seen.
DUE_HOSTS = statement(
    "due_hosts",
    f"""WITH RECURSIVE known(host, n) AS (
          SELECT MIN(host), 1 FROM {_D} WHERE status = '{_P}' AND owner = :owner
          UNION ALL
          SELECT (SELECT MIN(host) FROM {_D} WHERE status = '{_P}' AND owner = :owner AND host > known.host), n + 1
            FROM known WHERE known.host IS NOT NULL AND n < :most),
        longest(host) AS (
          SELECT host FROM {_D} WHERE status = '{_P}' AND owner = :owner AND next_at <= {{now}}
            ORDER BY next_at LIMIT :most)
        SELECT host, due FROM (
          SELECT host, (SELECT MIN(next_at) FROM {_D}
                          WHERE status = '{_P}' AND owner = :owner AND host = found.host) AS due
            FROM (SELECT host FROM known WHERE host IS NOT NULL UNION SELECT host FROM longest) AS found) AS waiting
        WHERE due <= {{now}} ORDER BY due LIMIT :limit""",
)
# Guard: pending and due; what another process is claiming is passed over.
CLAIM_DELIVERIES = statement(
    "claim_deliveries",
    f"""UPDATE {_D} SET attempts = attempts + 1, tries = tries + 1, next_at = {{now}} + :lease_us
        WHERE run_id IN (SELECT run_id FROM {_D} WHERE status = '{_P}' AND owner = :owner AND host = :host
                           AND next_at <= {{now}} ORDER BY next_at LIMIT :limit {{skip_locked}})
        RETURNING {{delivery}}""",
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
    f"""UPDATE {_D} SET status = :status, next_at = {{now}} + :delay_us, tries = tries - :uncounted,
          ended_at = CASE WHEN :pending = 1 THEN NULL ELSE {{now}} END
        WHERE run_id = :run_id AND attempts = :attempt AND status = '{_P}' RETURNING run_id""",
)
SEND_AGAIN = statement(
    "send_again",
    f"""UPDATE {_D} SET status = '{_P}', tries = 0, next_at = {{now}}, ended_at = NULL
        WHERE run_id = :run_id RETURNING {{delivery}}""",
)
GET_DELIVERY = statement("get_delivery", f"SELECT {{delivery}} FROM {_D} WHERE run_id = :run_id AND {IS_MINE}")
_BEHIND: Final = "(created_at, run_id) < (:at, :after)"
#: What is listed, by what is known of it, and in which order PostgreSQL reads it: the deliveries of all owners, to find
#: those of one, unless it is a range of owners.
_SCOPES: Final[Mapping[str, tuple[str, str, str]]] = {
    "all": (_BEHIND, _BEHIND, ""),
    "owner": (
        f"owner = :owner AND {_BEHIND}",
        "owner >= :owner AND (owner, created_at, run_id) < (:owner, :at, :after)",
        "owner DESC, ",
    ),
    "run": (f"run_id = :run_id AND {IS_MINE} AND {_BEHIND}", f"run_id = :run_id AND {IS_MINE} AND {_BEHIND}", ""),
}
#: Before all deliveries.
NEWEST_DELIVERY: Final = (2**62, "")


@cache
def listing(scope: str, *, undelivered: bool) -> Statement:
    """Return the statement that lists deliveries behind a place, the newest first; *undelivered*: of those only."""
    lite, postgres, order = _SCOPES[scope]
    sql = f"""SELECT {{delivery}} FROM {_D} WHERE %s AND {"status <> 'delivered'" if undelivered else "1 = 1"}
        AND (CAST(:status AS TEXT) IS NULL OR status = :status) AND %s
        ORDER BY %screated_at DESC, run_id DESC LIMIT :limit OFFSET :offset"""
    name = f"list_deliveries_{scope}{'_undelivered' if undelivered else ''}"
    return statement(name, sql % (lite, MATCHES, ""), postgres=sql % (postgres, MATCHES_PG, order))


LIST_ATTEMPTS = statement(
    "list_attempts",
    """SELECT run_id, number, sent_at, duration_us, status_code, error FROM webhook_attempts WHERE run_id = :run_id
       ORDER BY number""",
)
OLD_DELIVERIES = statement(
    "old_deliveries",
    f"""SELECT run_id FROM {_D} WHERE ended_at IS NOT NULL AND ended_at < {{now}} - :age_us
        ORDER BY ended_at LIMIT :limit {{skip_locked}}""",
)
# Both are for deliveries that have ended, which nobody claims; sent again meanwhile, one is gone all the same.
DELETE_ATTEMPTS = statement("delete_attempts", "DELETE FROM webhook_attempts WHERE run_id = :run_id")
DELETE_DELIVERY = statement("delete_delivery", f"DELETE FROM {_D} WHERE run_id = :run_id")


def record_delivery(run: Row, values: Encoded | None) -> Transaction[None]:
    """Record that the webhook of *run*, which has just ended, is to be told, with *values* or else the thread's own.

    A run without a webhook costs nothing. Values of a temporary thread, which is about to be deleted, are not copied.
    """
    if run["webhook"] is None:
        return
    wanted = values is None and not run["temporary"]
    [thread] = yield THREAD_LEFT(thread_id=run["thread_id"], wanted=int(wanted))
    left = None
    if values is not None:
        left = whole(values).decode()
    elif wanted:
        data = yield from value_of(run["thread_id"], thread["state_values"], thread["state_refs"])
        left = None if data is None else data.decode()
    request = yield from request_of(run)
    parts = {"values": None if run["temporary"] else left, "kwargs": request.whole_text, "metadata": run["metadata"]}
    omitted = [name for name, text in parts.items() if text is not None and len(text.encode()) > MAX_PART_BYTES]
    small: dict[str, Any] = {name: "{}" for name in omitted if name != "values"}
    yield INSERT_DELIVERY(
        run_id=run["run_id"],
        thread_id=run["thread_id"],
        owner=run["owner"],
        metadata=thread["metadata"],
        url=run["webhook"],
        host=_host(run["webhook"]),
        run=dumps(
            {**dict(run), "kwargs": request.whole_text, "input": None, "input_refs": None, "result": None, **small}
        ),
        state_values=None if "values" in omitted else parts["values"],
        omitted=dumps(omitted),
    )


def _host(url: str) -> str:
    """Return the host in *url*; a library's caller may have given none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


class _Places:
    """Deliveries in flight, and how many more of an owner's may be sent."""

    def __init__(self, capacity: int, per_host: int, busy: Mapping[Lane, int]) -> None:
        self._capacity = capacity
        self._per_host = per_host
        self._lanes = Counter(busy)

    def of(self, owner: str) -> int:
        return sum(count for lane, count in self._lanes.items() if lane.owner == owner)

    def more(self, lane: Lane) -> int:
        mine = self.of(lane.owner)
        everyones = self._lanes.total()
        at_host = sum(count for one, count in self._lanes.items() if one.host == lane.host)
        of_lane = self._lanes[lane]
        return min(
            allowance(self._capacity, mine=mine, others=everyones - mine),
            allowance(self._per_host, mine=of_lane, others=at_host - of_lane),
        )

    def take(self, lane: Lane, count: int) -> None:
        self._lanes[lane] += count


def claim_deliveries(
    capacity: int, per_host: int, busy: Mapping[Lane, int], lease_s: float
) -> Transaction[tuple[ClaimedDelivery, ...]]:
    """Claim due deliveries for a process that sends *capacity* at once, *per_host* to one host, and *busy* already.

    Nobody takes more than an :func:`~runlane.store.shares.allowance` of either, those first who have the least.
    """
    claimed: list[ClaimedDelivery] = []
    places = _Places(capacity, per_host, busy)
    if sum(busy.values()) >= capacity:
        return ()
    owners = yield DUE_OWNERS(limit=capacity + len(busy))
    for owner in sorted((row["owner"] for row in owners), key=places.of):
        if places.more(Lane(owner=owner, host="")) == 0:
            continue
        hosts = yield DUE_HOSTS(owner=owner, most=MOST_HOSTS, limit=capacity + len(busy))
        for lane in [Lane(owner=owner, host=row["host"]) for row in hosts]:
            limit = places.more(lane)
            if limit > 0:
                rows = yield CLAIM_DELIVERIES(
                    owner=owner, host=lane.host, limit=limit, lease_us=int(lease_s * 1_000_000)
                )
                places.take(lane, len(rows))
                claimed += [_claimed(one) for one in sorted(rows, key=lambda one: one["created_at"])]
    return tuple(claimed)


def settle_delivery(
    run_id: str, attempted: Attempted, status: DeliveryStatus, delay_s: float, *, counts: bool = True
) -> Transaction[bool]:
    """Record an attempt and what follows: an end, or the next one in *delay_s*. ``False``: a later attempt decides.

    Args:
        counts: The attempt is one of the tries that a delivery has.
    """
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
        uncounted=int(not counts),
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
    after: tuple[int, str],
) -> Transaction[tuple[Delivery, ...]]:
    """Return deliveries, newest first, of threads whose metadata matched *where*, behind one of this age and run."""
    scope = "run" if run_id else "all" if isinstance(owner, AnyOwner) else "owner"
    rows = yield listing(scope, undelivered=status not in (None, DeliveryStatus.DELIVERED))(
        run_id=run_id,
        at=after[0],
        after=after[1],
        status=None if status is None else status.value,
        limit=limit,
        offset=offset,
        **owner_params(owner),
        **filter_params(where),
    )
    return tuple(_delivery(row) for row in rows)


def purge_deliveries(older_than_s: float, limit: int) -> Transaction[int]:
    """Remove up to *limit* deliveries that ended long enough ago; return how many. None while another process does."""
    if not (yield from purges_alone("deliveries")):
        return 0
    old = yield OLD_DELIVERIES(age_us=int(older_than_s * 1_000_000), limit=limit)
    if old:
        yield DELETE_ATTEMPTS.many([{"run_id": row["run_id"]} for row in old])
        yield DELETE_DELIVERY.many([{"run_id": row["run_id"]} for row in old])
    return len(old)


class _Snapshot(dict[str, Any]):
    """A run's row as it was stored; a column that a later version added is NULL in it."""

    def __missing__(self, column: str) -> None:
        return None


def _claimed(row: Row) -> ClaimedDelivery:
    return ClaimedDelivery(
        run_id=row["run_id"],
        lane=Lane(owner=row["owner"], host=row["host"]),
        url=row["url"],
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
