"""Totals of runs that ended: by day, owner, graph and build; by model; by minute; and of failures.

:func:`count_ended` marks runs as counted in the transaction that adds them to the totals, so that each counts once. A
trigger copies a run that is deleted before it is counted to ``deleted_runs``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from runlane.lifecycle import FAILED
from runlane.store.rows import maybe_instant, usage_of
from runlane.store.statements import Row, Statement, Transaction, listed, statement
from runlane.store.transactions.audit import NOW
from runlane.store.transactions.failures import PURGE_FAILURES, add_failures
from runlane.store.transactions.purges import purges_alone

MINUTE_US: Final = 60_000_000
DAY_US: Final = 86_400_000_000
#: A month can be compared with the same month of the year before.
KEPT_DAYS: Final = 400
#: The overview shows 24 hours.
KEPT_MINUTES: Final = 25 * 60
#: Run times are counted by their logarithm: a step is a factor of 2 ** (1 / 4), or 19 %, from a millisecond on.
STEPS_PER_DOUBLING: Final = 4
MAX_STEP: Final = 160
#: Names of the series of a minute; of ends and run times, they begin so.
STARTED: Final = "started"
TOKENS: Final = "tokens"
ENDED: Final = "ended "
TIME: Final = "time "


class Grain(StrEnum):
    """What totals tell apart beside the day: the fewer rows there are, the sooner they are read."""

    ALL = "all"  # graph, build, status and reason, or model
    OWNER = "owner"  # owner and status, or model
    FULL = "full"  # all of these


#: What a grain does not tell apart.
_LEFT_OUT: Final = {
    Grain.ALL: {"owner": ""},
    Grain.OWNER: {"graph_id": "", "build": "", "end_reason": ""},
    Grain.FULL: dict[str, str](),
}
_RUN_KEY: Final = ("grain", "day", "owner", "graph_id", "build", "status", "end_reason")
RUN_SUMS: Final = ("runs", "executing_us", "queued_us", "input_tokens", "output_tokens", "total_tokens")
_TOKEN_KEY: Final = ("grain", "day", "owner", "graph_id", "build", "model")
TOKEN_SUMS: Final = ("llm_calls", "input_tokens", "cached_input_tokens", "output_tokens", "total_tokens")


def _adding(table: str, key: tuple[str, ...], sums: tuple[str, ...], others: Mapping[str, str]) -> Statement:
    """Return the statement that adds a row to a table of totals; *others* are columns, and what they become."""
    columns = (*key, *sums, *others)
    changes = [f"{name} = {table}.{name} + excluded.{name}" for name in sums]
    changes += [f"{name} = {value}" for name, value in others.items()]
    return statement(
        f"add_to_{table}",
        f"""INSERT INTO {table} ({", ".join(columns)}) VALUES ({", ".join(f":{name}" for name in columns)})
            ON CONFLICT ({", ".join(key)}) DO UPDATE SET {", ".join(changes)}""",
    )


def _one_of(name: str, order: str) -> str:
    return f"CASE WHEN excluded.{name} {order} run_totals.{name} THEN excluded.{name} ELSE run_totals.{name} END"


_ENDED_RUN: Final = (
    "run_id, thread_id, owner, COALESCE(graph_id, '') AS graph_id, COALESCE(build, '') AS build, status, "
    "COALESCE(end_reason, '') AS end_reason, not_before, started_at, ended_at, usage, error"
)
# By its index, which is empty as long as nothing ends.
OLDEST_UNCOUNTED = statement(
    "oldest_uncounted",
    """SELECT (SELECT MIN(ended_at) FROM runs WHERE ended_at IS NOT NULL AND counted = 0) AS ended,
         (SELECT MIN(ended_at) FROM deleted_runs) AS deleted""",
)
# Guard: they are not counted, and nobody deletes them now, or the trigger has them.
TAKE_ENDED = statement(
    "take_ended",
    f"""UPDATE runs SET counted = 1 WHERE seq IN (
         SELECT seq FROM runs WHERE ended_at IS NOT NULL AND counted = 0 ORDER BY ended_at LIMIT :limit {{skip_locked}})
       RETURNING {_ENDED_RUN}""",
)
# Guard: no other process counts.
TAKE_DELETED = statement(
    "take_deleted",
    f"""DELETE FROM deleted_runs WHERE seq IN (
         SELECT seq FROM deleted_runs ORDER BY seq LIMIT :limit {{skip_locked}})
       RETURNING {_ENDED_RUN}""",
)
# The three below: under the guard of TAKE_DELETED.
ADD_RUNS = _adding(
    "run_totals",
    _RUN_KEY,
    RUN_SUMS,
    {"first_ended_at": _one_of("first_ended_at", "<"), "last_ended_at": _one_of("last_ended_at", ">")},
)
ADD_TOKENS = _adding("token_totals", _TOKEN_KEY, TOKEN_SUMS, {})
ADD_MINUTES = _adding("minute_totals", ("minute", "series"), ("amount",), {})
# These have a guard: the day, or minute, is before those that are kept.
PURGE_RUNS = statement("purge_run_totals", f"DELETE FROM run_totals WHERE grain IN {listed(Grain)} AND day < :day")
PURGE_TOKENS = statement(
    "purge_token_totals", f"DELETE FROM token_totals WHERE grain IN {listed(Grain)} AND day < :day"
)
PURGE_MINUTES = statement("purge_minute_totals", "DELETE FROM minute_totals WHERE minute < :minute")


def oldest_uncounted() -> Transaction[datetime | None]:
    """Return when the oldest run ended that is not counted; ``None`` if all are."""
    [row] = yield OLDEST_UNCOUNTED()
    return min(filter(None, map(maybe_instant, (row["ended"], row["deleted"]))), default=None)


def count_ended(limit: int) -> Transaction[int]:
    """Add up to *limit* runs that ended to the totals, and return how many. None while another process does."""
    if not (yield from purges_alone("totals")):
        return 0
    rows = yield TAKE_DELETED(limit=limit)
    rows = [*rows, *(yield TAKE_ENDED(limit=limit - len(rows)))]
    if not rows:
        return 0
    rows = [{**row, "usage": usage_of(row["usage"])} for row in rows]
    [now] = yield NOW()
    yield ADD_RUNS.many(_added(map(_run, rows), _RUN_KEY, RUN_SUMS))
    if tokens := _added((one for row in rows for one in _tokens(row)), _TOKEN_KEY, TOKEN_SUMS):
        yield ADD_TOKENS.many(tokens)
    if minutes := _minutes(rows, now["now_us"] // MINUTE_US - KEPT_MINUTES):
        yield ADD_MINUTES.many(minutes)
    yield from add_failures(
        [row for row in rows if row["error"] is not None and row["status"] in FAILED],
        day_began_at=now["now_us"] // DAY_US * DAY_US,
    )
    return len(rows)


def purge_totals(kept_days: int) -> Transaction[None]:
    """Delete the totals of days that are longer ago. None while another process counts."""
    if not (yield from purges_alone("totals")):
        return
    [row] = yield NOW()
    now_us = row["now_us"]
    yield PURGE_RUNS(day=now_us // DAY_US - kept_days)
    yield PURGE_TOKENS(day=now_us // DAY_US - kept_days)
    yield PURGE_MINUTES(minute=now_us // MINUTE_US - KEPT_MINUTES)
    for purge in PURGE_FAILURES:
        yield purge(now_us=now_us)


def step_of(run_time_us: int) -> int:
    """Return the step of a run time: the least one that is not below it."""
    milliseconds = max(1.0, run_time_us / 1000)
    return min(MAX_STEP, math.ceil(STEPS_PER_DOUBLING * math.log2(milliseconds)))


def seconds_of(step: int) -> float:
    """Return the run time in the middle of a step, from which those in it differ by at most 9 %."""
    return float(2 ** ((step - 0.5) / STEPS_PER_DOUBLING)) / 1000


def _added(rows: Iterable[dict[str, Any]], key: tuple[str, ...], sums: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the sums of *rows* by *key* in each grain, with the first and the last end if they have them."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for one in rows:
        for grain, left_out in _LEFT_OUT.items():
            row = {**one, **left_out, "grain": grain.value}
            total = found.setdefault(tuple(row[name] for name in key), row)
            if total is not row:
                _add(total, row, sums)
    return [found[values] for values in sorted(found)]


def _add(total: dict[str, Any], row: Mapping[str, Any], sums: tuple[str, ...]) -> None:
    for name in sums:
        total[name] += row[name]
    if "first_ended_at" in row:
        total["first_ended_at"] = min(total["first_ended_at"], row["first_ended_at"])
        total["last_ended_at"] = max(total["last_ended_at"], row["last_ended_at"])


def _run(row: Row) -> dict[str, Any]:
    usage, ended_at = row["usage"], row["ended_at"]
    started_at = ended_at if row["started_at"] is None else row["started_at"]
    return {
        **{name: row[name] for name in _RUN_KEY[2:]},
        "day": ended_at // DAY_US,
        "runs": 1,
        "executing_us": max(0, ended_at - started_at),
        "queued_us": max(0, started_at - row["not_before"]),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "first_ended_at": ended_at,
        "last_ended_at": ended_at,
    }


def _tokens(row: Row) -> Iterable[dict[str, Any]]:
    for model, counts in row["usage"].by_model.items():
        used = {name: counts.get(name, 0) for name in TOKEN_SUMS}
        yield {
            **{name: row[name] for name in _TOKEN_KEY[2:-1]},
            "day": row["ended_at"] // DAY_US,
            "model": model,
            **used,
        }


def _minutes(rows: Iterable[Row], first: int) -> list[dict[str, Any]]:
    """Return what *rows* add to the minutes from *first* on."""
    amounts: Counter[tuple[int, str]] = Counter()
    for row in rows:
        minute = row["ended_at"] // MINUTE_US
        amounts[minute, f"{ENDED}{row['status']} {row['end_reason']}"] += 1
        amounts[minute, TOKENS] += row["usage"].total_tokens
        if row["started_at"] is not None:
            amounts[row["started_at"] // MINUTE_US, STARTED] += 1
            amounts[minute, f"{TIME}{step_of(row['ended_at'] - row['started_at'])}"] += 1
    return [
        {"minute": minute, "series": series, "amount": amount}
        for (minute, series), amount in sorted(amounts.items())
        if minute >= first and amount
    ]
