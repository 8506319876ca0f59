"""Measure searches of runs in a ledger of many runs, and previews of actions on them.

Makes the runs by SQL, straight into the tables, then asks as the server does and prints milliseconds.

    python benchmarks/run_search.py --runs 1000000             # an SQLite file in a temporary folder
    python benchmarks/run_search.py --runs 1000000 --postgres  # a PostgreSQL server of its own
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from filling import analyse, filled, in_batches, main, number_of, numbered, timed

from runlane.lifecycle import EndReason, RunStatus
from runlane.records import ANY_OWNER, Owner
from runlane.store.ledger import RunStore
from runlane.store.statements import Driver
from runlane.store.transactions.run_search import RunFilter

#: What one run in so many has.
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
FILL: Final = numbered("runs", _COLUMNS, f"{number_of('r', 'n')}, 't' || (n / {THREADS}), {_ROW}")
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
    await driver.write(in_batches(FILL, total))
    await analyse(driver, "runs")


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
    times, page = await timed(ask, rounds)
    print(f"| {name:30} | {asked:13} | {len(page.runs):5} | {times} |", flush=True)


async def measure(database: str, runs: int, rounds: int) -> None:
    async with filled(database, runs, "runs", partial(fill, total=runs)) as driver:
        await report(RunStore(driver), runs, rounds)


if __name__ == "__main__":
    main(__doc__, "runs", measure)
