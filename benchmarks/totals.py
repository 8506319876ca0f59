"""Measure reports of operators in a ledger of many runs: the overview, totals and failures; and counting the runs.

Makes the runs by SQL, straight into the tables, over 30 days, and the totals of those that succeeded; has the product
count those that failed; then asks as the server does and prints milliseconds.

    python benchmarks/totals.py --runs 1000000             # an SQLite file in a temporary folder
    python benchmarks/totals.py --runs 1000000 --postgres  # a PostgreSQL server of its own
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from filling import analyse, batches, filled, in_batches, main, numbered, timed

from runlane.records import ANY_OWNER
from runlane.store.ledger import RunStore
from runlane.store.rows import microseconds
from runlane.store.statements import Driver, Transaction, statement
from runlane.store.transactions.failure_queries import FailureFilter
from runlane.store.transactions.total_queries import By, TotalFilter

DAYS: Final = 30
OWNERS, GRAPHS, BUILDS, MODELS, MESSAGES = 1000, 5, 30, 3, 200
#: A run in so many fails; so many runs wait and execute, in threads of their own.
FAILS, WAITING, RUNNING = 50, 5_000, 20
COUNTS: Final = {"llm_calls": 3, "input_tokens": 900, "output_tokens": 100, "total_tokens": 1000}
_USAGE: Final = json.dumps(
    {**COUNTS, "by_model": {"model-?": COUNTS}, "first_human_message": "x" * 100}, separators=(",", ":")
)
#: Replaced, so that models differ by run.
USAGE: Final = f"""replace('{_USAGE}', '?', CAST(n % {MODELS} AS TEXT))"""


def _letter(number: str) -> str:
    return f"substr('abcdefghijklmnopqrst', CAST({number} % 20 + 1 AS INTEGER), 1)"


_KIND: Final = f"{_letter(f'n / {FAILS}')} || {_letter(f'n / 1000 % {MESSAGES // 20}')}"
_ERROR: Final = f"""CASE WHEN n % {FAILS} = 0
    THEN '{{"error":"ValueError","message":"failure of kind ' || {_KIND} || ' for user ' || n || '"}}' END"""
_COLUMNS: Final = (
    "run_id, thread_id, owner, graph_id, build, status, end_reason, multitask_strategy, on_disconnect, metadata, "
    "kwargs, usage, error, not_before, created_at, updated_at, started_at, ended_at, model_name, counted"
)
_AT: Final = ":begun + n * :every"
_ENDED: Final = f"""'t' || (n % :threads), 'owner-' || (n * 7919 % {OWNERS}), 'graph-' || (n / 7 % {GRAPHS}),
    'build-' || (n * {BUILDS} / :total), CASE WHEN n % {FAILS} = 0 THEN 'error' ELSE 'success' END,
    CASE WHEN n % {FAILS} = 0 THEN 'failed' ELSE 'completed' END, 'enqueue', 'cancel', '{{}}', '{{}}', {USAGE},
    {_ERROR}, {_AT} - 2000000, {_AT} - 2000000, {_AT}, {_AT} - 1900000 + n % 1000 * 1000, {_AT},
    'model-' || (n % {MODELS}), CASE WHEN n % {FAILS} = 0 THEN 0 ELSE 1 END"""
FILL: Final = numbered("runs", _COLUMNS, f"'run-' || n, {_ENDED}")
_ACTIVE: Final = f"""'active-' || n, 'active-' || n, 'owner-' || (n % {OWNERS}), 'graph-' || (n % {GRAPHS}), :build,
    CASE WHEN n < {RUNNING} THEN 'running' ELSE 'pending' END, NULL, 'enqueue', 'cancel', '{{}}', '{{}}', NULL, NULL,
    :now, :now, :now, CASE WHEN n < {RUNNING} THEN :now END, NULL,
    NULL, 0, CASE WHEN n < {RUNNING} THEN 'worker-' || (n % 2) END"""
FILL_ACTIVE: Final = numbered("runs", f"{_COLUMNS}, worker_id", _ACTIVE)
#: A grain, and what it has of owner, graph and build, and reason.
GRAINS: Final = (
    ("all", "''", "graph_id, build", "end_reason"),
    ("owner", "owner", "'', ''", "''"),
    ("full", "owner", "graph_id, build", "end_reason"),
)
#: What counting the runs that are marked as counted would have made, but for the spread of their run times.
FILL_TOTALS: Final = tuple(
    statement(f"fill_{table}", f"INSERT INTO {table} SELECT {columns} FROM runs WHERE counted = 1 {condition}")
    for table, columns, condition in (
        *(
            (
                "run_totals",
                f"""'{grain}', ended_at / 86400000000, {owner}, {graph}, status, {reason}, COUNT(*),
                SUM(ended_at - started_at), SUM(started_at - not_before), COUNT(*) * 900, COUNT(*) * 100,
                COUNT(*) * 1000, MIN(ended_at), MAX(ended_at)""",
                "GROUP BY 1, 2, 3, 4, 5, 6, 7",
            )
            for grain, owner, graph, reason in GRAINS
        ),
        *(
            (
                "token_totals",
                f"""'{grain}', ended_at / 86400000000, {owner}, {graph}, model_name, COUNT(*) * 3, COUNT(*) * 900, 0,
                COUNT(*) * 100, COUNT(*) * 1000""",
                "GROUP BY 1, 2, 3, 4, 5, 6",
            )
            for grain, owner, graph, _ in GRAINS
        ),
        *(
            ("minute_totals", f"ended_at / 60000000, {series}, {amount}", "AND ended_at >= :recent GROUP BY 1, 2")
            for series, amount in (
                ("'started'", "COUNT(*)"),
                ("'tokens'", "COUNT(*) * 1000"),
                ("'ended success completed'", "COUNT(*)"),
                ("'time ' || CAST(seq % 30 + 20 AS TEXT)", "COUNT(*)"),
            )
        ),
    )
)
FILL_THREADS: Final = statement(
    "fill_threads",
    """INSERT INTO threads (thread_id, owner, status, settled, metadata, config, interrupts, created_at, updated_at,
         state_updated_at)
       SELECT thread_id, '', CASE WHEN MIN(seq) % :part = 0 THEN 'error' WHEN MIN(seq) % :part = 1 THEN 'interrupted'
         ELSE 'idle' END, 'idle', '{}', '{}', '{}', 1, 1, 1 FROM runs GROUP BY thread_id""",
)


def fill_totals(now: int) -> Transaction[None]:
    """Make the totals of runs that are marked as counted, and of the last 25 hours by the minute."""
    for totals in FILL_TOTALS:
        yield totals(**({"recent": now - 90_000_000_000} if "minute" in totals.name else {}))


async def fill(driver: Driver, total: int) -> None:
    """Make *total* runs that ended within 30 days, the last one now, and some that wait and execute."""
    now = microseconds(datetime.now(UTC))
    every, threads = DAYS * 86_400_000_000 // total, max(1, total // 10)

    def rest() -> Transaction[None]:
        yield from fill_totals(now)
        yield from in_batches(FILL_ACTIVE, WAITING + RUNNING, now=now, build=f"build-{BUILDS - 1}")
        yield FILL_THREADS(part=100)

    given = {"begun": now - every * total, "every": every, "total": total, "threads": threads}
    for batch in batches(FILL, total, **given):
        await driver.write(batch)
    await driver.write(rest())
    await analyse(driver, "runs", "threads")


async def count_all(store: RunStore) -> None:
    """Have the product count the runs, and print what that takes."""
    begun, begun_cpu, batches = time.perf_counter(), time.process_time(), list[float]()
    counted, found = 0, -1
    while found:
        batch_begun = time.perf_counter()
        found = await store.totals.count()
        batches.append((time.perf_counter() - batch_begun) * 1000)
        counted += found
    wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - begun_cpu
    each, cpu_each = (seconds / counted * 1_000_000 for seconds in (wall_s, cpu_s))
    print(f"{counted:,} runs counted in {wall_s:.0f} s: {each:.0f} us each, {cpu_each:.0f} us of this process")
    print(f"A transaction takes {statistics.median(batches):.1f} ms, at most {max(batches):.0f} ms\n")


def reports(store: RunStore) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Return what is asked, by name."""
    until = datetime.now(UTC)
    day, month = until - timedelta(days=1), until - timedelta(days=DAYS)

    def totals(by: By, since: datetime, **where: Any) -> Callable[[], Awaitable[Any]]:
        wanted = TotalFilter(**{"owner": ANY_OWNER, "since": since, "until": until, **where})
        return lambda: store.totals.list(by, wanted)

    def failures(since: datetime, **where: Any) -> Callable[[], Awaitable[Any]]:
        return lambda: store.totals.failures(FailureFilter(since=since, **where))

    return {
        "overview": store.totals.overview,
        **{f"totals by {by.value}, 1 day": totals(by, day) for by in By},
        **{f"totals by {by.value}, 30 days": totals(by, month) for by in By},
        "totals by model and day, 30 days": totals(By.MODEL, month, daily=True),
        "totals by graph and day, 30 days": totals(By.GRAPH, month, daily=True),
        "totals of one owner by day, 30 days": totals(By.DAY, month, owner="owner-17"),
        "failures, 1 day": failures(day),
        "failures, 30 days by day": failures(month, trend="day"),
        "failures that are new since a build": failures(month, new_since_build=f"build-{BUILDS - 1}"),
    }


async def report(store: RunStore, rounds: int) -> None:
    print(f"| {'report':36} | median ms |  worst ms | median CPU ms |")
    print("|---|--:|--:|--:|")
    for name, ask in reports(store).items():
        times, _ = await timed(ask, rounds)
        print(f"| {name:36} | {times} |", flush=True)


async def measure(database: str, runs: int, rounds: int) -> None:
    async with filled(database, runs, "runs", partial(fill, total=runs)) as driver:
        store = RunStore(driver)
        await count_all(store)
        await analyse(driver, "run_totals", "token_totals", "minute_totals", "failure_groups", "failure_totals")
        await report(store, rounds)


if __name__ == "__main__":
    main(__doc__, "runs", measure)
