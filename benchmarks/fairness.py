"""Measure how long one owner's single run waits while another owner has filled the queue.

Every run sleeps for the same time, so that a slot becomes free about every ``SLEEP_S / SLOTS`` seconds.

    python benchmarks/fairness.py --slots 20 --queued 300
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import Final

from runlane import open_runtime
from runlane.agents.coroutine import RunContext
from runlane.settings import Settings

SLEEP_S: Final = 1.0


async def waited_s(slots: int, queued: int) -> tuple[float, float]:
    """Return how long the single run waited for its start, and how long the others took in all."""
    started = asyncio.get_running_loop().create_future()

    async def sleeps(context: RunContext) -> None:
        await asyncio.sleep(SLEEP_S)

    async def tells(context: RunContext) -> None:
        started.set_result(time.perf_counter())

    async with open_runtime(settings=Settings(database="memory://", max_concurrent_runs=slots)) as runtime:
        begun = time.perf_counter()
        flood = [await runtime.runs.create(f"flood-{n}", agent=sleeps, owner="flood") for n in range(queued)]
        admitted = time.perf_counter()
        await runtime.runs.create("single", agent=tells, owner="ann")
        waited = await started - admitted
        for run in flood:
            await runtime.runs.join(run.run_id, owner="flood")
        return waited, time.perf_counter() - begun


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=20)
    parser.add_argument("--queued", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rounds = [await waited_s(arguments.slots, arguments.queued) for _ in range(arguments.rounds)]
    print(f"single run waits: {statistics.median(waited for waited, _ in rounds):.2f} s (median of {len(rounds)})")
    print(f"the others take:  {statistics.median(total for _, total in rounds):.2f} s in all")


asyncio.run(main())
