"""Find runs of all threads, the newest admission first.

A search reads the narrowest index that can answer it, from the newest run on, and compares at most ``MAX_COMPARED``
runs with the filter, or ``MAX_COMPARED_SLOWLY``. A page may therefore have fewer runs than were asked for, or none,
and still name the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final, Literal

from runlane.lifecycle import ACTIVE, TERMINAL, EndReason, RunStatus
from runlane.records import AnyOwner, CancelReceipt, Json, Owner, RunError, Usage, WaitingOn
from runlane.store.conditions import IS_ACTIVE, IS_DUE, IS_MINE_TOO, PENDING, UNBLOCKED
from runlane.store.filters import MATCHES, MATCHES_PG, check_size, filter_params
from runlane.store.rows import (
    dumps,
    error_of,
    instant,
    loads,
    maybe_instant,
    microseconds,
    owner_params,
    receipt_of,
    usage_of,
)
from runlane.store.statements import RECEIPT, Row, Statement, Transaction, contains_in_postgres, listed, statement
from runlane.store.transactions.costs import COSTS_AT_LEAST, COSTS_AT_LEAST_PG, cost_params
from runlane.store.transactions.run_queries import waiting_on
from runlane.telemetry.prices import NO_PRICES, Prices

#: Runs that a statement compares with the filter, and a search at most; fewer, where each of them is slow to compare.
COMPARED: Final = 1_000
MAX_COMPARED: Final = 10_000
MAX_COMPARED_SLOWLY: Final = 4_000
#: More active runs than this are not sorted for a page; the newest of all runs are compared instead.
MANY_ACTIVE: Final = 10_000
#: Runs are numbered in the order of their admission, from which their times may differ this much.
CLOCK_MARGIN_US: Final = 60_000_000
#: Above every number of a run.
NEWEST: Final = 2**62

#: Ids in one filter.
MAX_IDS: Final = 1_000
WaitReason = Literal["run", "delay", "slots"]

UNSUCCESSFUL: Final = TERMINAL - {RunStatus.SUCCESS}
#: Why they ended.
_UNSUCCESSFUL_REASONS: Final = frozenset(EndReason) - {EndReason.COMPLETED, EndReason.PAUSED}
_IS_UNSUCCESSFUL: Final = f"status IN {listed(UNSUCCESSFUL)}"


@dataclass(frozen=True, slots=True)
class _Scope:
    """Which runs are compared: *condition*, numbers below *before* and from *first* on, in *order*."""

    condition: str
    before: str = "seq < :before"
    first: str = "seq >= :first"
    order: str = "seq DESC"


_BEFORE_OF_OWNER: Final = "owner = :owner AND seq < :before"
_FIRST_OF_OWNER: Final = "owner = :owner AND seq >= :first"
_ORDER_OF_OWNER: Final = "owner DESC, seq DESC"
#: By the name of the index that is read. `+seq` keeps SQLite on the index of active runs.
_SCOPES: Final[Mapping[str, _Scope]] = {
    "all": _Scope("1 = 1"),
    "owner": _Scope("1 = 1", _BEFORE_OF_OWNER, _FIRST_OF_OWNER, _ORDER_OF_OWNER),
    "thread": _Scope("thread_id = :thread_id"),
    "ids": _Scope("run_id IN {listed :run_ids}", "+seq < :before", "+seq >= :first", "+seq DESC"),
    "active": _Scope(IS_ACTIVE, "+seq < :before", "+seq >= :first", "+seq DESC"),
    "unsuccessful": _Scope(_IS_UNSUCCESSFUL),
    "unsuccessful_of_owner": _Scope(_IS_UNSUCCESSFUL, _BEFORE_OF_OWNER, _FIRST_OF_OWNER, _ORDER_OF_OWNER),
}
#: What a pending run waits for.
_WAITS_FOR: Final = f"CASE WHEN NOT ({IS_DUE}) THEN 'delay' WHEN {UNBLOCKED} THEN 'slots' ELSE 'run' END"
_TOKENS: Final = "COALESCE(json_extract(usage, '$.total_tokens'), 0)"
_TOKENS_PG: Final = "COALESCE(CAST(CAST(usage AS json) ->> 'total_tokens' AS BIGINT), 0)"
_WANTED = f"""{IS_MINE_TOO}
  AND (CAST(:statuses AS TEXT) IS NULL OR status IN {{listed :statuses}})
  AND (CAST(:thread_id AS TEXT) IS NULL OR thread_id = :thread_id)
  AND (CAST(:graph_id AS TEXT) IS NULL OR graph_id = :graph_id)
  AND (CAST(:assistant_id AS TEXT) IS NULL OR assistant_id = :assistant_id)
  AND (CAST(:end_reasons AS TEXT) IS NULL OR end_reason IN {{listed :end_reasons}})
  AND (CAST(:build AS TEXT) IS NULL OR build = :build)
  AND (CAST(:worker_id AS TEXT) IS NULL OR worker_id = :worker_id)
  AND (:min_tokens = 0 OR {{tokens}} >= :min_tokens)
  AND {{cost}}
  AND (CAST(:waits_for AS TEXT) IS NULL OR (status = {PENDING} AND {_WAITS_FOR} = :waits_for))
  AND created_at >= :since AND created_at < :until"""
_TEXT = "run_id || ' ' || thread_id || ' ' || metadata || ' ' || COALESCE(error, '')"
_HAS_TEXT = f"(CAST(:text AS TEXT) IS NULL OR instr(lower({_TEXT}), :text) > 0)"
_HAS_TEXT_PG = f"""(CAST(:text AS TEXT) IS NULL OR strpos(lower(({_TEXT}) COLLATE "C"), :text) > 0)"""
_OF_THREAD = """(:any_thread = 1 OR EXISTS (SELECT 1 FROM threads WHERE threads.thread_id = runs.thread_id
  AND (CAST(:metadata AS TEXT) IS NULL OR {contains}) AND {matches}))"""
_COLUMNS = (
    "run_id, thread_id, owner, seq, assistant_id, graph_id, status, end_reason, attempt, rescues, worker_id, metadata, "
    f"model_name, error, usage, {RECEIPT}, build, not_before, created_at, updated_at, started_at, ended_at"
)
COUNT_ACTIVE: Final = statement(
    "run_search.count_active", f"SELECT COUNT(*) AS n FROM (SELECT 1 FROM runs WHERE {IS_ACTIVE} LIMIT :limit) AS found"
)
FIRST_AND_LAST: Final = statement(
    "run_search.first_and_last", "SELECT (SELECT MIN(seq) FROM runs) AS first, (SELECT MAX(seq) FROM runs) AS last"
)
NEXT_RUN: Final = statement(
    "run_search.next_run", "SELECT seq, created_at FROM runs WHERE seq >= :seq ORDER BY seq LIMIT 1"
)


def _next_runs(scope: str, *, bounded: bool) -> tuple[str, str]:
    """Return ``runs WHERE`` the next of *scope*, in SQLite and PostgreSQL; *bounded*: down to ``:first``.

    An owner's are read by their index in PostgreSQL, and no more than are compared: it might read those of all owners
    in their order instead, and the lower bound of a comparison of rows does not end a scan of an index, which would go
    on to the owner's first run. Source: PostgreSQL 17, ``_bt_mark_scankey_required``.
    """
    one = _SCOPES[scope]
    plain = f"runs WHERE {one.condition} AND {one.before}{f' AND {one.first}' if bounded else ''}"
    if one.before != _BEFORE_OF_OWNER:
        return plain, plain
    return (
        plain,
        f"""(SELECT {_COLUMNS} FROM runs WHERE {one.condition} AND (owner, seq) < (:owner, :before)
          AND owner BETWEEN :owner AND :owner
        ORDER BY {one.order} LIMIT {COMPARED}) AS runs WHERE seq >= :first""",
    )


@cache
def last_compared(scope: str) -> Statement:
    """Return the statement that finds the last of the next ``COMPARED`` runs of *scope*; no row if there are fewer.

    Of all runs it has no lower bound: with two bounds, PostgreSQL expects few runs, and sorts all of them.
    """
    lite, postgres = (
        f"SELECT seq FROM {runs} ORDER BY {_SCOPES[scope].order} LIMIT 1 OFFSET {COMPARED - 1}"
        for runs in _next_runs(scope, bounded=scope != "all")
    )
    return statement(f"run_search.last_compared_{scope}", lite, postgres=postgres)


@cache
def matching(scope: str) -> Statement:
    """Return the statement that reads runs of *scope* that match, of those between two numbers."""
    return matching_columns(scope, f"run_search.matching_{scope}", _COLUMNS)


def matching_columns(scope: str, name: str, columns: str) -> Statement:
    """Return the same with other *columns*, in which ``{tokens}`` is what a run has used."""
    lite, postgres = (
        f"""SELECT {columns} FROM {runs} AND {_WANTED}
        AND {{text}} AND {{of_thread}} ORDER BY {_SCOPES[scope].order} LIMIT :limit"""
        for runs in _next_runs(scope, bounded=True)
    )
    contains, contains_pg = "json_contains(metadata, :metadata)", contains_in_postgres("metadata")
    return statement(
        name,
        lite.replace("{text}", _HAS_TEXT)
        .replace("{of_thread}", _OF_THREAD.format(contains=contains, matches=MATCHES))
        .replace("{tokens}", _TOKENS)
        .replace("{cost}", COSTS_AT_LEAST),
        postgres=postgres.replace("{text}", _HAS_TEXT_PG)
        .replace("{of_thread}", _OF_THREAD.format(contains=contains_pg, matches=MATCHES_PG))
        .replace("{tokens}", _TOKENS_PG)
        .replace("{cost}", COSTS_AT_LEAST_PG),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """A filter on runs: each given condition must hold.

    Args:
        run_ids: Is one of these, at most ``MAX_IDS``; ``None``: any.
        since: Admitted at this instant or later; *until*: before this one.
        build: That of its last attempt's worker; *worker_id*: that worker.
        min_tokens: Has used as many tokens, or more.
        min_cost: Has cost as much by *prices*, or more.
        waits_for: Is pending, and for this reason.
        text: Is in the run's id, its thread's id, its metadata or its error; the case of ASCII letters is the same.
        metadata: Is contained in the thread's metadata.
        where: A filter on the thread's metadata.

    Raises:
        InvalidRequest: *metadata* is too large or too deep to compare every run with.
    """

    run_ids: frozenset[str] | None = None
    statuses: frozenset[RunStatus] = frozenset()
    end_reasons: frozenset[EndReason] = frozenset()
    thread_id: str | None = None
    graph_id: str | None = None
    assistant_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    build: str | None = None
    worker_id: str | None = None
    min_tokens: int = 0
    min_cost: float = 0
    prices: Prices = NO_PRICES
    waits_for: WaitReason | None = None
    text: str | None = None
    metadata: Json | None = None
    where: Json | None = None

    def __post_init__(self) -> None:
        check_size("metadata", self.metadata)

    def is_slow(self) -> bool:
        """Return whether a run is compared by its tokens of each model, or with the runs of its thread."""
        return bool(self.min_cost) or self.waits_for is not None

    def params(self) -> dict[str, Any]:
        return {
            "run_ids": None if self.run_ids is None else dumps(sorted(self.run_ids)),
            "statuses": dumps(sorted(self.statuses)) if self.statuses else None,
            "end_reasons": dumps(sorted(self.end_reasons)) if self.end_reasons else None,
            "build": self.build,
            "worker_id": self.worker_id,
            "min_tokens": self.min_tokens,
            **cost_params(self.min_cost, self.prices),
            "waits_for": self.waits_for,
            "thread_id": self.thread_id,
            "graph_id": self.graph_id,
            "assistant_id": self.assistant_id,
            "since": 0 if self.since is None else microseconds(self.since),
            "until": NEWEST if self.until is None else microseconds(self.until),
            "text": None if self.text is None else _as_stored(self.text),
            "any_thread": 0 if self.metadata or self.where else 1,
            "metadata": dumps(self.metadata) if self.metadata else None,
            **filter_params(self.where),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run without its request and its result."""

    run_id: str
    thread_id: str
    owner: str
    seq: int
    assistant_id: str | None
    graph_id: str | None
    status: RunStatus
    end_reason: EndReason | None
    attempt: int
    rescues: int
    worker_id: str | None
    build: str | None
    metadata: Json
    model_name: str | None
    error: RunError | None
    usage: Usage
    cancel: CancelReceipt | None
    waiting_on: WaitingOn | None
    not_before: datetime
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """A page of a search; the next one begins before the run with the number *next_before*, if there may be more."""

    runs: tuple[RunSummary, ...]
    next_before: int | None


def search_runs(owner: Owner, where: RunFilter, before: int, limit: int) -> Transaction[RunPage]:
    """Return runs that match *where* with a number below *before*, the newest admission first."""
    rows, next_before = yield from page_of(owner, where, before, limit, matching)
    found = yield from _summaries(rows)
    return RunPage(runs=found, next_before=next_before)


def page_of(
    owner: Owner, where: RunFilter, before: int, limit: int, matching: Callable[[str], Statement]
) -> Transaction[tuple[list[Row], int | None]]:
    """Return up to *limit* rows of *matching*, and before which number the next page begins."""
    params = {**where.params(), **owner_params(owner)}
    first = (yield from _first_since(where.since, -CLOCK_MARGIN_US)) if where.since else 0
    if where.until:
        before = min(before, (yield from _first_since(where.until, CLOCK_MARGIN_US)))
    scope, rows, more = (yield from _scope(owner, where)), list[Row](), True
    for _ in range((MAX_COMPARED_SLOWLY if where.is_slow() else MAX_COMPARED) // COMPARED):
        last = yield last_compared(scope)(**params, before=before, first=first)
        more = bool(last) and last[0]["seq"] > first
        lowest = last[0]["seq"] if more else first
        rows += yield matching(scope)(**params, before=before, first=lowest, limit=limit + 1 - len(rows))
        before = lowest
        if len(rows) > limit or not more:
            break
    if len(rows) > limit:
        return rows[:limit], rows[limit - 1]["seq"]
    return rows, before if more else None


def _scope(owner: Owner, where: RunFilter) -> Transaction[str]:
    if where.run_ids is not None:
        return "ids"
    if where.thread_id is not None:
        return "thread"
    everybody = isinstance(owner, AnyOwner)
    statuses, reasons = where.statuses, where.end_reasons
    if (statuses and statuses <= UNSUCCESSFUL) or (reasons and reasons <= _UNSUCCESSFUL_REASONS):
        return "unsuccessful" if everybody else "unsuccessful_of_owner"
    if where.waits_for or (statuses and statuses <= ACTIVE):
        active = yield COUNT_ACTIVE(limit=MANY_ACTIVE)
        if active[0]["n"] < MANY_ACTIVE:
            return "active"
    return "all" if everybody else "owner"


def _first_since(at: datetime, margin_us: int) -> Transaction[int]:
    """Return the number of the first run since *at*, or one above all, by bisection."""
    wanted = microseconds(at) + margin_us
    [ends] = yield FIRST_AND_LAST()
    if ends["first"] is None:
        return NEWEST
    low, high = ends["first"], ends["last"] + 1
    while low < high:
        middle = (low + high) // 2
        run = yield NEXT_RUN(seq=middle)
        if not run or run[0]["created_at"] >= wanted:
            high = middle
        else:
            low = run[0]["seq"] + 1
    return int(low)


def _summaries(rows: list[Row]) -> Transaction[tuple[RunSummary, ...]]:
    pending = [row["run_id"] for row in rows if row["status"] == RunStatus.PENDING]
    waiting = (yield from waiting_on(pending)) if pending else {}
    return tuple(_summary(row, waiting.get(row["run_id"])) for row in rows)


def _summary(row: Row, waiting: WaitingOn | None) -> RunSummary:
    metadata = loads(row["metadata"])
    return RunSummary(
        run_id=row["run_id"],
        thread_id=row["thread_id"],
        owner=row["owner"],
        seq=row["seq"],
        assistant_id=row["assistant_id"],
        graph_id=row["graph_id"] or metadata.get("graph_id"),
        status=RunStatus(row["status"]),
        end_reason=None if row["end_reason"] is None else EndReason(row["end_reason"]),
        attempt=row["attempt"],
        rescues=row["rescues"],
        worker_id=row["worker_id"],
        build=row["build"],
        metadata=metadata,
        model_name=row["model_name"],
        error=error_of(row["error"]),
        usage=usage_of(row["usage"]),
        cancel=receipt_of(row),
        waiting_on=waiting,
        not_before=instant(row["not_before"]),
        created_at=instant(row["created_at"]),
        updated_at=instant(row["updated_at"]),
        started_at=maybe_instant(row["started_at"]),
        ended_at=maybe_instant(row["ended_at"]),
    )


def _as_stored(text: str) -> str:
    """Return *text* as JSON text has it, with its ASCII letters in lower case."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in dumps(text)[1:-1])
