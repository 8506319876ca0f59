"""The place that is told of code that does not stop is the code's own, however it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import pytest

from runlane.agents.places import describe, innermost


async def here(entered: asyncio.Event) -> None:
    entered.set()
    await asyncio.Event().wait()


async def directly(entered: asyncio.Event) -> None:
    await here(entered)


async def in_a_gather(entered: asyncio.Event) -> None:
    await asyncio.gather(asyncio.sleep(0), here(entered))


async def in_a_group(entered: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(here(entered))


async def with_a_limit(entered: asyncio.Event) -> None:
    await asyncio.wait_for(here(entered), 60)


async def as_a_graph_does(entered: asyncio.Event) -> None:
    async def parts() -> AsyncIterator[int]:
        yield 1
        await asyncio.wait({asyncio.create_task(here(entered))}, return_when=asyncio.FIRST_COMPLETED)

    async with aclosing(parts()) as found:  # type: ignore[type-var]  # it is an async generator, declared as an iterator
        async for _ in found:
            pass


@pytest.mark.parametrize("waits", [directly, in_a_gather, in_a_group, with_a_limit, as_a_graph_does])
async def test_the_frame_in_which_code_waits_is_found(waits: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    entered = asyncio.Event()
    task = asyncio.ensure_future(waits(entered))
    await asyncio.wait_for(entered.wait(), 20)
    frame = innermost(task.get_coro())
    assert frame is not None
    assert describe(frame).endswith(f":{frame.f_lineno} here")
    task.cancel()
    await asyncio.wait({task})


async def test_code_that_has_ended_is_nowhere() -> None:
    task = asyncio.ensure_future(asyncio.sleep(0))
    await task
    assert innermost(task.get_coro()) is None
