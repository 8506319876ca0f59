"""Groups of failures, read from their totals."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from runlane.errors import NotFound
from runlane.store.rows import dumps, instant, loads, microseconds
from runlane.store.statements import Row, Transaction, statement
from runlane.store.transactions.failures import HOUR_US, MAX_HASHES, threads_of

#: Hours in each point of a trend.
STEPS: Final = {"hour": 1, "day": 24}

# By the first column of the primary key.
FAILURES = statement(
    "failures",
    """SELECT failure_groups.group_id, graph_id, error, message, threads, first_at, last_at, first_build, last_build,
         run_id, thread_id, runs
       FROM failure_groups JOIN (
         SELECT group_id, CAST(SUM(runs) AS BIGINT) AS runs FROM failure_totals
         WHERE hour >= :first_hour AND (CAST(:build AS TEXT) IS NULL OR build = :build) GROUP BY group_id) AS found
         ON found.group_id = failure_groups.group_id
       WHERE (CAST(:graph_id AS TEXT) IS NULL OR graph_id = :graph_id) AND first_at >= :new_since
       ORDER BY runs DESC, last_at DESC, failure_groups.group_id LIMIT :limit""",
)
TRENDS = statement(
    "trends",
    """SELECT group_id, hour / :hours AS step, CAST(SUM(runs) AS BIGINT) AS runs FROM failure_totals
       WHERE hour >= :first_hour AND (CAST(:build AS TEXT) IS NULL OR build = :build)
         AND group_id IN {listed :group_ids} GROUP BY 1, 2 ORDER BY 1, 2""",
)
BEGIN_OF_BUILD = statement(
    "begin_of_build",
    """SELECT MIN(first_ended_at) AS begun_at FROM run_totals
       WHERE grain = 'all' AND build = :build
         AND day = (SELECT MIN(day) FROM run_totals WHERE grain = 'all' AND build = :build)""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureFilter:
    """Which failures are counted: those since the beginning of the hour of *since*.

    Args:
        build: Of runs of this build.
        new_since_build: Only groups without a failure before the first run of this build ended.
        trend: What each point of a trend is about.
        limit: The most groups: those with the most failures.
    """

    since: datetime
    build: str | None = None
    graph_id: str | None = None
    new_since_build: str | None = None
    trend: Literal["hour", "day"] = "hour"
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendPoint:
    """Failures of an hour or a day of UTC that begins *at*; those without are left out."""

    at: datetime
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroup:
    """Failures of one graph with the same error and, but for numbers and ids, the same message.

    ``runs`` and ``trend`` are of the failures that were asked for. The rest is of all failures of the group:
    ``threads`` is exact below 64 and an estimate from there on; ``run_id`` and ``thread_id`` are of the last one.
    """

    group_id: str
    graph_id: str
    error: str
    message: str
    runs: int
    threads: int
    threads_estimated: bool
    first_at: datetime
    last_at: datetime
    first_build: str
    last_build: str
    run_id: str
    thread_id: str
    trend: tuple[TrendPoint, ...]


def failures(where: FailureFilter) -> Transaction[tuple[FailureGroup, ...]]:
    """Return groups of failures, those with the most failures first.

    Raises:
        NotFound: No run of the build ``new_since_build`` is counted.
    """
    counted = {"first_hour": microseconds(where.since) // HOUR_US, "build": where.build}
    new_since = yield from _begin_of(where.new_since_build)
    rows = yield FAILURES(**counted, graph_id=where.graph_id, new_since=new_since, limit=where.limit)
    trends: defaultdict[str, list[TrendPoint]] = defaultdict(list)
    hours, group_ids = STEPS[where.trend], dumps([row["group_id"] for row in rows])
    for row in (yield TRENDS(**counted, hours=hours, group_ids=group_ids)):
        trends[row["group_id"]].append(TrendPoint(at=instant(row["step"] * hours * HOUR_US), runs=row["runs"]))
    return tuple(_group(row, tuple(trends[row["group_id"]])) for row in rows)


def _begin_of(build: str | None) -> Transaction[int]:
    if build is None:
        return 0
    [row] = yield BEGIN_OF_BUILD(build=build)
    if row["begun_at"] is None:
        raise NotFound("build", build)
    return int(row["begun_at"])


def _group(row: Row, trend: tuple[TrendPoint, ...]) -> FailureGroup:
    hashes = loads(row["threads"])
    return FailureGroup(
        group_id=row["group_id"],
        graph_id=row["graph_id"],
        error=row["error"],
        message=row["message"],
        runs=row["runs"],
        threads=threads_of(hashes),
        threads_estimated=len(hashes) >= MAX_HASHES,
        first_at=instant(row["first_at"]),
        last_at=instant(row["last_at"]),
        first_build=row["first_build"],
        last_build=row["last_build"],
        run_id=row["run_id"],
        thread_id=row["thread_id"],
        trend=trend,
    )
