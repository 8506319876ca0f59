"""Another version changes tables under a running node: no run ends, fails or repeats because of it."""

from __future__ import annotations

import asyncio
from collections import Counter

from ledger_kit import ledger_connection
from run_kit import ended, opened
from runlane.agents.coroutine import RunContext
from runlane.lifecycle import RunStatus

RUNS, ROUNDS = 12, 4
#: A column for a later version, and another type of what every node reads: prepared statements are of no use any more.
CHANGES = (
    "ALTER TABLE {table} ADD COLUMN added_{n} TEXT DEFAULT ''",
    "ALTER TABLE threads ALTER COLUMN config TYPE {type}",
    "ALTER TABLE runs ALTER COLUMN model_name TYPE {type}",
)


async def test_tables_are_changed_while_runs_execute(postgres_url: str) -> None:
    calls: Counter[str] = Counter()
    changed = asyncio.Event()

    async def agent(context: RunContext) -> str:
        calls[context.run_id] += 1
        for number in range(5):
            context.emit("number", number)
            await asyncio.sleep(0.01)
        await changed.wait()
        return "done"

    def change() -> None:
        with ledger_connection(postgres_url, autocommit=True) as other:
            for n in range(ROUNDS):
                for table in ("threads", "runs", "events"):
                    for sql in CHANGES:
                        other.execute(sql.format(table=table, n=n, type=("VARCHAR", "TEXT")[n % 2]).encode())

    async with opened(database=postgres_url, lease_s=5, poll_s=0.1, heartbeat_s=0.1) as runtime:
        runs = [await runtime.runs.create(f"t{n}", agent=agent) for n in range(RUNS)]
        await asyncio.to_thread(change)
        runs += [await runtime.runs.create(f"{name}{n}", agent=agent) for n in range(RUNS) for name in ("t", "u")]
        changed.set()
        done = [await ended(runtime, run) for run in runs]
        events = [await runtime.store.events.last(run.seq) for run in runs]
    assert [run.status for run in done] == [RunStatus.SUCCESS] * len(runs)
    assert [run.attempt for run in done] == [1] * len(runs)
    assert set(calls.values()) == {1}
    assert min(events) >= 5
