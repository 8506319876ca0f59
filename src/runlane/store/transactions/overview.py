"""What an operator sees first: what waits and runs, what needs attention, and the last minutes and hours.

Everything is read from indexes of what is active, and from totals, and counted up to ``MOST``: no statement's cost
grows with the number of runs that ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from runlane.lifecycle import ThreadStatus
from runlane.store.conditions import IS_DUE, IS_PENDING, RUNNING
from runlane.store.rows import instant
from runlane.store.statements import Row, Rows, Transaction, listed, quoted, statement
from runlane.store.transactions.audit import NOW
from runlane.store.transactions.thread_search import UNSETTLED
from runlane.store.transactions.totals import (
    ENDED,
    MINUTE_US,
    STARTED,
    TIME,
    TOKENS,
    oldest_uncounted,
    seconds_of,
)
from runlane.store.transactions.webhooks import DeliveryStatus

#: Rows of a kind that are looked at.
MOST: Final = 10_000
#: Owners that are named.
OWNERS: Final = 5
MINUTES: Final = 60
MINUTES_OF_DAY: Final = 24 * 60
DAY_US: Final = MINUTES_OF_DAY * MINUTE_US
#: A cron is fired within seconds of its slot.
LATE_US: Final = MINUTE_US

_WAITING = f"""(SELECT run_id, thread_id, COALESCE(graph_id, '') AS graph_id, owner, not_before FROM runs
  WHERE {IS_PENDING} AND {IS_DUE} LIMIT :most) AS waiting"""
WAITING = statement(
    "waiting_by_graph",
    f"""SELECT graph_id, COUNT(*) AS runs, MIN(not_before) AS oldest_at FROM {_WAITING}
        GROUP BY graph_id ORDER BY runs DESC, graph_id""",
)
OLDEST_WAITING = statement(
    "oldest_waiting",
    f"SELECT run_id, thread_id, graph_id, not_before FROM {_WAITING} ORDER BY not_before, run_id LIMIT 1",
)
WAITING_OF_OWNERS = statement(
    "waiting_by_owner",
    f"""SELECT owner, COUNT(*) AS runs FROM {_WAITING}
        GROUP BY owner ORDER BY runs DESC, owner LIMIT {OWNERS}""",
)
RUNNING_BY_WORKER = statement(
    "running_by_graph_and_worker",
    f"""SELECT COALESCE(graph_id, '') AS graph_id, worker_id, COUNT(*) AS runs, MIN(started_at) AS oldest_at FROM runs
        WHERE status = {RUNNING} GROUP BY 1, 2 ORDER BY runs DESC, 1, 2""",
)
RUNNING_SINCE = statement(
    "running_since",
    f"""SELECT started_at / {MINUTE_US} AS minute, COUNT(*) AS runs FROM runs
        WHERE status = {RUNNING} AND started_at >= :since GROUP BY 1""",
)
CAPACITY = statement(
    "capacity",
    """SELECT COUNT(*) AS workers, CAST(SUM(capacity) AS BIGINT) AS slots, SUM(draining) AS draining FROM workers
       WHERE expires_at >= {now}""",
)
# By the primary key.
LAST_MINUTES = statement(
    "last_minutes", "SELECT minute, series, amount FROM minute_totals WHERE minute > :minute ORDER BY minute, series"
)
LAST_ENDINGS = statement(
    "last_endings",
    f"""SELECT series, CAST(SUM(amount) AS BIGINT) AS amount FROM minute_totals
        WHERE minute > :minute AND substr(series, 1, {len(ENDED)}) = '{ENDED}' GROUP BY series
        ORDER BY amount DESC, series""",
)
LATE_CRONS = statement(
    "late_crons",
    """SELECT COUNT(*) AS crons, MIN(next_run_at) AS oldest_at FROM (SELECT next_run_at FROM crons
         WHERE enabled = 1 AND next_run_at IS NOT NULL AND next_run_at < :before LIMIT :most) AS late""",
)
RETRIED_DELIVERIES = statement(
    "retried_deliveries",
    f"""SELECT COUNT(CASE WHEN tries > 0 THEN 1 END) AS deliveries FROM (SELECT tries FROM webhook_deliveries
         WHERE status = {quoted(DeliveryStatus.PENDING)} LIMIT :most) AS due""",
)
FAILED_DELIVERIES = statement(
    "failed_deliveries",
    f"""SELECT COUNT(CASE WHEN status = {quoted(DeliveryStatus.FAILED)} THEN 1 END) AS deliveries FROM (
          SELECT status FROM webhook_deliveries WHERE ended_at IS NOT NULL AND ended_at >= :since
          ORDER BY ended_at DESC LIMIT :most) AS ended""",
)
# The condition of their index, in its words: SQLite does not see that a status implies it. Threads of stateless runs
# are in no list, and nobody can settle them.
_IS_UNSETTLED = f"status IN {listed(UNSETTLED)} AND temporary = 0"
THREADS_OF_STATUS = {
    status: statement(
        f"threads_{status.value}",
        f"""SELECT COUNT(*) AS threads FROM (
              SELECT 1 FROM threads WHERE {_IS_UNSETTLED} AND status = {quoted(status)} LIMIT :most) AS found""",
    )
    for status in (ThreadStatus.ERROR, ThreadStatus.INTERRUPTED)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRun:
    """A run that waits since it was due."""

    run_id: str
    thread_id: str
    graph_id: str
    since: datetime
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphQueue:
    """Due runs of a graph that wait."""

    graph_id: str
    runs: int
    oldest_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnersQueue:
    """Due runs of an owner that wait."""

    owner: str
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRuns:
    """Runs of a graph that a worker executes, and when the oldest started."""

    graph_id: str
    worker_id: str
    runs: int
    oldest_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Endings:
    """Runs that ended with a status, for a reason."""

    status: str
    end_reason: str
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """What happened in a minute that begins *at*.

    ``p50_s`` and ``p95_s`` are estimates of run times, within 9 %; ``None`` if no run ended.
    """

    at: datetime
    started: int
    ended: tuple[Endings, ...]
    tokens: int
    p50_s: float | None
    p95_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """What somebody should look at. Counts end at 10,000.

    Attributes:
        late_crons: Crons whose slot was due more than a minute ago.
        retried_webhooks: Deliveries that failed and are tried again.
        failed_webhooks: Deliveries of the last 24 hours that are not tried again.
        failed_threads: Threads whose last run failed.
        interrupted_threads: Threads with open interrupts.
    """

    late_crons: int
    oldest_late_cron_at: datetime | None
    retried_webhooks: int
    failed_webhooks: int
    failed_threads: int
    interrupted_threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What waits, runs and ended, of all owners.

    Attributes:
        counted_until: Each run that ended before is in ``minutes``, ``endings``, ``p50_s`` and ``p95_s``.
        running: Runs that execute now; their workers have ``slots``.
        workers: Live processes, of which ``draining`` stop.
        waiting: Runs that are due; up to 10,000, and then ``oldest_waiting`` and the queues are of these only.
        queue_by_owner: The five owners with the most waiting runs.
        minutes: The last 60, the current one last.
        endings: Of 24 hours, the most frequent first.
        p50_s: Of the last 60 minutes, as in :class:`Minute`.
    """

    as_of: datetime
    counted_until: datetime
    running: int
    slots: int
    workers: int
    draining: int
    running_by: tuple[RunningRuns, ...]
    waiting: int
    oldest_waiting: WaitingRun | None
    queue: tuple[GraphQueue, ...]
    queue_by_owner: tuple[OwnersQueue, ...]
    minutes: tuple[Minute, ...]
    endings: tuple[Endings, ...]
    p50_s: float | None
    p95_s: float | None
    attention: Attention


def overview() -> Transaction[Overview]:
    """Return the overview."""
    [now] = yield NOW()
    now_us = now["now_us"]
    this_minute = now_us // MINUTE_US
    [capacity] = yield CAPACITY()
    running = yield RUNNING_BY_WORKER()
    queue = yield WAITING(most=MOST)
    owners = yield WAITING_OF_OWNERS(most=MOST)
    oldest = yield OLDEST_WAITING(most=MOST)
    totals = yield LAST_MINUTES(minute=this_minute - MINUTES)
    started = yield RUNNING_SINCE(since=(this_minute - MINUTES + 1) * MINUTE_US)
    endings = yield LAST_ENDINGS(minute=this_minute - MINUTES_OF_DAY)
    uncounted = yield from oldest_uncounted()
    attention = yield from _attention(now_us)
    times = _times(totals)
    return Overview(
        as_of=instant(now_us),
        counted_until=uncounted or instant(now_us),
        running=sum(row["runs"] for row in running),
        slots=capacity["slots"] or 0,
        workers=capacity["workers"],
        draining=capacity["draining"] or 0,
        running_by=tuple(_running(row) for row in running),
        waiting=sum(row["runs"] for row in queue),
        oldest_waiting=_waiting(oldest[0], now_us) if oldest else None,
        queue=tuple(
            GraphQueue(graph_id=row["graph_id"], runs=row["runs"], oldest_at=instant(row["oldest_at"])) for row in queue
        ),
        queue_by_owner=tuple(OwnersQueue(owner=row["owner"], runs=row["runs"]) for row in owners),
        minutes=_minutes(totals, {row["minute"]: row["runs"] for row in started}, this_minute),
        endings=tuple(_ending(row["series"], row["amount"]) for row in endings),
        p50_s=quantile(times, 0.5),
        p95_s=quantile(times, 0.95),
        attention=attention,
    )


def quantile(times: Mapping[int, int], share: float) -> float | None:
    """Return the run time below which *share* of the runs are; *times* are numbers of runs by step."""
    wanted = share * sum(times.values())
    for step in sorted(times):
        wanted -= times[step]
        if wanted <= 0:
            return seconds_of(step)
    return None


def _attention(now_us: int) -> Transaction[Attention]:
    [crons] = yield LATE_CRONS(before=now_us - LATE_US, most=MOST)
    [retried] = yield RETRIED_DELIVERIES(most=MOST)
    [failed] = yield FAILED_DELIVERIES(since=now_us - DAY_US, most=MOST)
    threads = {}
    for status, count in THREADS_OF_STATUS.items():
        threads[status] = (yield count(most=MOST))[0]["threads"]
    return Attention(
        late_crons=crons["crons"],
        oldest_late_cron_at=None if crons["oldest_at"] is None else instant(crons["oldest_at"]),
        retried_webhooks=retried["deliveries"],
        failed_webhooks=failed["deliveries"],
        failed_threads=threads[ThreadStatus.ERROR],
        interrupted_threads=threads[ThreadStatus.INTERRUPTED],
    )


def _minutes(totals: Rows, running: Mapping[int, int], this_minute: int) -> tuple[Minute, ...]:
    by_minute: defaultdict[int, list[Row]] = defaultdict(list)
    for row in totals:
        by_minute[row["minute"]].append(row)
    numbers = range(this_minute - MINUTES + 1, this_minute + 1)
    return tuple(_minute(number, by_minute[number], running.get(number, 0)) for number in numbers)


def _minute(number: int, rows: list[Row], running: int) -> Minute:
    amounts: dict[str, Any] = {row["series"]: row["amount"] for row in rows}
    times = _times(rows)
    return Minute(
        at=instant(number * MINUTE_US),
        started=amounts.get(STARTED, 0) + running,
        ended=tuple(_ending(series, amount) for series, amount in amounts.items() if series.startswith(ENDED)),
        tokens=amounts.get(TOKENS, 0),
        p50_s=quantile(times, 0.5),
        p95_s=quantile(times, 0.95),
    )


def _times(rows: Rows) -> dict[int, int]:
    found: defaultdict[int, int] = defaultdict(int)
    for row in rows:
        if row["series"].startswith(TIME):
            found[int(row["series"][len(TIME) :])] += row["amount"]
    return found


def _ending(series: str, runs: int) -> Endings:
    status, _, reason = series[len(ENDED) :].partition(" ")
    return Endings(status=status, end_reason=reason, runs=runs)


def _running(row: Row) -> RunningRuns:
    return RunningRuns(
        graph_id=row["graph_id"], worker_id=row["worker_id"], runs=row["runs"], oldest_at=instant(row["oldest_at"])
    )


def _waiting(row: Row, now_us: int) -> WaitingRun:
    return WaitingRun(
        run_id=row["run_id"],
        thread_id=row["thread_id"],
        graph_id=row["graph_id"],
        since=instant(row["not_before"]),
        age_s=max(0, now_us - row["not_before"]) / 1_000_000,
    )
