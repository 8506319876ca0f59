"""P1 and P12: a thread with a very long queue, beside many others, on a real file.

``RUNLANE_LONG_LANE`` runs (default 10,000) wait on the one thread.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from ledger_kit import a_run
from run_kit import Scripted, at_once, opened, soon
from runlane.errors import QueueFull
from runlane.records import RunRecord
from runlane.runtime import Runtime
from runlane.store.drivers.sqlite import SqliteDriver
from runlane.store.ledger import RunStore
from runlane.store.migrate import migrate_sqlite

LONG = int(os.environ.get("RUNLANE_LONG_LANE", "10000"))
OTHERS = 100
AT_ONCE = 500
NEXT = 100
#: One call that reads or changes one thing, with room for a machine that does much else. A scan of the long lane for
#: each of its runs would take minutes.
PROMPT_S = 1.0


async def timed(name: str, call: Awaitable[Any], times_s: dict[str, float]) -> Any:
    began = time.monotonic()
    result = await call
    times_s[name] = time.monotonic() - began
    return result


async def finished(runtime: Runtime, runs: list[RunRecord]) -> None:
    await soon(asyncio.gather(*(runtime.runs.join(run.run_id) for run in runs)))


async def each_thread_once(runtime: Runtime, number: int) -> float:
    """Have one run executed on each of the other threads; return the seconds that this took."""
    began = time.monotonic()
    runs = [await runtime.runs.create(f"t{number}-{n}", agent=at_once) for n in range(OTHERS)]
    await finished(runtime, runs)
    return time.monotonic() - began


async def test_ten_thousand_queued_runs_on_one_thread_delay_no_other_thread(
    tmp_path: Path, record_property: Any
) -> None:
    migrate_sqlite(tmp_path / "ledger.db")
    driver = SqliteDriver(tmp_path / "ledger.db", synchronous="normal")
    head, times_s = Scripted(), dict[str, float]()
    async with opened(driver, max_queued_runs=LONG, poll_s=0.5) as runtime:
        store: RunStore = runtime.store
        alone_s = await each_thread_once(runtime, 0)
        first = await runtime.runs.create("long", agent=head)
        await head.started.wait()
        queued: list[RunRecord] = []
        while len(queued) < LONG:
            news = [a_run("long") for _ in range(min(AT_ONCE, LONG - len(queued)))]
            queued += [admission.run for admission in await store.runs.admit_all(news)]
        for run in queued[:NEXT]:
            runtime.runs.start(run, at_once)
        with pytest.raises(QueueFull):
            await runtime.runs.create("long", agent=at_once)
        beside_s = await each_thread_once(runtime, 1)
        await timed("the lanes that can go on", store.queue.runnable(), times_s)
        await timed("the queue's figures", store.queue.stats(), times_s)
        page = await timed("a page of the thread", runtime.runs.list_by_thread("long", limit=10), times_s)
        assert [run.run_id for run in page] == [run.run_id for run in queued[:-11:-1]]
        await timed("a cancel", runtime.runs.cancel(queued[LONG // 2].run_id), times_s)
        await timed("an admission", runtime.runs.create("long", agent=at_once), times_s)
        head.go.set()
        await timed("the next runs of the lane", finished(runtime, [first, *queued[:NEXT]]), times_s)
        began = [run.started_at for run in [await runtime.runs.get(run.run_id) for run in queued[:NEXT]]]
        assert began == sorted(began)
    record_property("figures", f"alone {alone_s:.3f} s, beside {beside_s:.3f} s, {times_s}")
    print(f"{OTHERS} threads alone {alone_s:.3f} s, beside {LONG} queued runs {beside_s:.3f} s; {times_s}")  # noqa: T201 - the figures of the run
    assert beside_s < 5 * alone_s + PROMPT_S
    assert {what: took_s for what, took_s in times_s.items() if took_s > PROMPT_S} == {}
    await driver.aclose()
