"""Measure searches of runs in a ledger of many runs, and previews of actions on them.

Makes the runs by SQL, straight into the tables, then asks as the server does and prints milliseconds.

    python benchmarks/run_search.py --runs 1000000                                     # SQLite
    python benchmarks/run_search.py --runs 1000000 --database postgresql://host/empty  # PostgreSQL, an empty database
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from runlane.lifecycle import EndReason, RunStatus
from runlane.records import ANY_OWNER, Owner
from runlane.settings import Settings
from runlane.store.backends import open_driver
from runlane.store.drivers.postgres import PostgresDriver
from runlane.store.ledger import RunStore
from runlane.store.statements import Driver, Statement, Transaction, statement
from runlane.store.transactions.run_search import RunFilter

ROUNDS: Final = 20
#: Runs made by one statement; and what one run in so many has.
BATCH: Final = 100_000
FAILED, PENDING, RARE, OWNERS, THREADS = 50, 500, 100_000, 100, 10
_COLUMNS: Final = (
    "run_id, thread_id, owner, graph_id, assistant_id, status, end_reason, multitask_strategy, on_disconnect, "
    "metadata, kwargs, usage, build, worker_id, not_before, created_at, updated_at"
)
_ROW: Final = f"""'o' || (n / {THREADS} % {OWNERS}), CASE WHEN n % {RARE} = 7 THEN 'rare' ELSE 'agent' END, 'a0',
    CASE WHEN n % {PENDING} = 3 THEN 'pending' WHEN n % {FAILED} = 1 THEN 'error' ELSE 'success' END,
    CASE WHEN n % {PENDING} = 3 THEN NULL WHEN n % {FAILED} = 1 THEN 'failed' ELSE 'completed' END,
    'enqueue', 'continue', '{{"graph_id": "agent", "assistant_id": "a0"}}', '{{}}',
    '{{"total_tokens":' || (n % 5000) || '}}', 'b' || (n / {RARE}), 'w' || (n / 1000), 1, n * 1000000, n * 1000000"""
FILL: Final = statement(
    "fill_runs",
    f"""WITH RECURSIVE numbers (n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :upto)
        INSERT INTO runs ({_COLUMNS}) SELECT printf('r%08d', n), 't' || (n / {THREADS}), {_ROW} FROM numbers""",
    postgres=f"""INSERT INTO runs ({_COLUMNS}) SELECT 'r' || lpad(n::text, 8, '0'), 't' || (n / {THREADS}), {_ROW}
        FROM generate_series(CAST(:first AS bigint), CAST(:upto AS bigint) - 1) AS n""",
)
WAITS: Final = RunFilter(waits_for="run")


def filters(total: int) -> dict[str, tuple[Owner, RunFilter]]:
    """Return what is searched for, and whose."""
    half = datetime.fromtimestamp(total // 2, UTC)
    return {
        "everything": (ANY_OWNER, RunFilter()),
        "of an owner": ("o7", RunFilter()),
        "failed": (ANY_OWNER, RunFilter(statuses=frozenset({RunStatus.ERROR}))),
        "active": (ANY_OWNER, RunFilter(statuses=frozenset({RunStatus.PENDING, RunStatus.RUNNING}))),
        "wait for a run of their thread": (ANY_OWNER, WAITS),
        "end reason failed": (ANY_OWNER, RunFilter(end_reasons=frozenset({EndReason.FAILED}))),
        "graph of 1 in 100,000": (ANY_OWNER, RunFilter(graph_id="rare")),
        "oldest build": (ANY_OWNER, RunFilter(build="b0")),
        "a worker": (ANY_OWNER, RunFilter(worker_id=f"w{total // 1000 - 1}")),
        "4,900 tokens or more": (ANY_OWNER, RunFilter(min_tokens=4900)),
        "text that none has": (ANY_OWNER, RunFilter(text="no such text")),
        "before the newer half": (ANY_OWNER, RunFilter(until=half)),
        "1,000 ids": (ANY_OWNER, RunFilter(run_ids=frozenset(f"r{number * 7:08}" for number in range(1000)))),
    }


async def fill(driver: Driver, total: int) -> None:
    def made() -> Transaction[None]:
        for first in range(0, total, BATCH):
            yield FILL(first=first, upto=min(total, first + BATCH))
        if isinstance(driver, PostgresDriver):  # the server analyses tables by itself, but not at once
            yield Statement("analyse", "", "ANALYZE runs")()

    await driver.write(made())


async def report(store: RunStore, total: int, rounds: int) -> None:
    print(f"| {'filter':30} | {'asked':13} | found | median ms |  worst ms | median CPU ms |")
    print("|---|---|--:|--:|--:|--:|")
    for name, (owner, where) in filters(total).items():
        for asked, ask in (
            ("page of 100", partial(store.runs.search, limit=100)),
            ("select 100", partial(store.runs.select, limit=100)),
            ("select 1,000", partial(store.runs.select, limit=1000)),
        ):
            await _timed(name, asked, partial(ask, owner=owner, where=where), rounds)


async def _timed(name: str, asked: str, ask: Callable[[], Awaitable[Any]], rounds: int) -> None:
    wall, cpu, found = [], [], 0
    for _ in range(rounds):
        begun, begun_cpu = time.perf_counter(), time.process_time()
        found = len((await ask()).runs)
        wall.append((time.perf_counter() - begun) * 1000)
        cpu.append((time.process_time() - begun_cpu) * 1000)
    print(
        f"| {name:30} | {asked:13} | {found:5} | {statistics.median(wall):9.2f} | {max(wall):9.2f} "
        f"| {statistics.median(cpu):13.2f} |",
        flush=True,
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--database", help="an empty one; an SQLite file in a temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        driver = await open_driver(Settings(database=arguments.database or f"sqlite:///{Path(folder) / 'runlane.db'}"))
        try:
            begun = time.perf_counter()
            await fill(driver, arguments.runs)
            print(f"{arguments.runs:,} runs made in {time.perf_counter() - begun:.0f} s\n")
            await report(RunStore(driver), arguments.runs, arguments.rounds)
        finally:
            await driver.aclose()


if __name__ == "__main__":
    asyncio.run(main())
