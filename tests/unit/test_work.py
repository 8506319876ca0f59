"""The tasks and pool threads of one attempt."""

from __future__ import annotations

import asyncio

from runlane.work import Work


async def test_tasks_are_known_until_they_are_done_however_many_there_were() -> None:
    work, go = Work(), asyncio.Event()

    async def wait() -> None:
        await go.wait()

    waiting = [asyncio.create_task(wait()) for _ in range(40)]
    for task in waiting:
        work.add(task)
    for _ in range(100):
        done = asyncio.create_task(asyncio.sleep(0))
        work.add(done)
        await done
    assert work.tasks == set(waiting)
    go.set()
    await asyncio.gather(*waiting)
    assert work.tasks == set()


async def test_results_of_tasks_are_not_held_for_long() -> None:
    work = Work()
    for _ in range(1000):
        task = asyncio.create_task(asyncio.sleep(0))
        work.add(task)
        await task
    assert len(work._tasks) < 100
