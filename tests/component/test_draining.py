"""A worker that an operator asks to drain goes on as a process, and gives up its runs until they ask no more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from run_kit import Stepper, graph_run, opened, settings, soon, status
from runlane.lifecycle import RunStatus
from runlane.runtime import Runtime
from runlane.store.backends import migrate_postgres
from runlane.store.transactions.fleet import ShownWorker

PATIENCE_S = 30.0


@pytest.fixture
def url(postgres_url: str) -> str:
    migrate_postgres(postgres_url)
    return postgres_url


async def eventually(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            holds = condition()
            if await holds if isinstance(holds, Awaitable) else holds:
                return
            await asyncio.sleep(0.01)


async def shown(runtime: Runtime) -> ShownWorker:
    fleet = await runtime.store.workers.fleet()
    [found] = [worker for worker in fleet.workers if worker.worker_id == runtime.worker.worker_id]
    return found


async def test_a_worker_that_is_asked_to_drain_hands_its_runs_to_another(url: str) -> None:
    here, there = Stepper(), Stepper()
    there.go.set()
    async with AsyncExitStack() as stack:
        given = settings(database=url, poll_s=0.05)
        draining = await stack.enter_async_context(opened(settings=given, graphs={"g": here.graph()}))
        run = await draining.runs.create("t", kwargs=graph_run())
        await soon(here.started.wait())
        other = await stack.enter_async_context(opened(settings=given, graphs={"g": there.graph()}))
        await other.store.workers.ask_to_drain(draining.worker.worker_id, drain=True)
        await eventually(lambda: draining.worker.draining)
        here.go.set()
        await eventually(lambda: "third" in there.calls)
        assert "third" not in here.calls
        await other.runs.join(run.run_id)
        assert (await draining.runs.get(run.run_id)).attempt == 2
        told = await shown(draining)
        assert (told.state, told.running, told.runs) == ("draining", 0, ())
        assert told.drain_asked_at is not None
        assert told.draining_since is not None

        await other.store.workers.ask_to_drain(other.worker.worker_id, drain=True)
        await eventually(lambda: other.worker.draining)
        waiting = await other.runs.create("u", kwargs=graph_run())
        assert await status(other, waiting) is RunStatus.PENDING, "it is admitted all the same"
        await other.store.workers.ask_to_drain(draining.worker.worker_id, drain=False)
        await eventually(lambda: "third" in here.calls)
        await other.runs.join(waiting.run_id)

        async def ready() -> bool:
            one = await shown(draining)
            return one.state == "ready" and one.draining_since is one.drain_asked_at is None

        await eventually(ready)


async def test_a_process_that_is_alone_keeps_what_it_hands_back_until_it_is_asked_to_drain_no_more() -> None:
    stepper = Stepper()
    async with opened(graphs={"g": stepper.graph()}) as runtime:
        run = await runtime.runs.create("t", kwargs=graph_run())
        await soon(stepper.started.wait())
        runtime.worker.drains.follow(asked=True)
        runtime.worker.drains.follow(asked=True)
        stepper.go.set()
        await eventually(lambda: runtime.worker.executing == 0)
        later = await runtime.runs.create("u", kwargs=graph_run())
        assert [await status(runtime, one) for one in (run, later)] == [RunStatus.PENDING] * 2
        assert "third" not in stepper.calls
        runtime.worker.drains.follow(asked=False)
        for one in (run, later):
            assert (await soon(runtime.runs.join(one.run_id))).status is RunStatus.SUCCESS


async def test_a_drain_that_is_withdrawn_in_its_grace_time_stops_nothing() -> None:
    stepper = Stepper()
    async with opened(graphs={"g": stepper.graph()}, settings=settings(drain_grace_s=3600.0)) as runtime:
        run = await runtime.runs.create("t", kwargs=graph_run())
        await soon(stepper.started.wait())
        runtime.worker.drains.follow(asked=True)
        await asyncio.sleep(0)
        runtime.worker.drains.follow(asked=False)
        stepper.go.set()
        await soon(runtime.runs.join(run.run_id))
        assert (await runtime.runs.get(run.run_id)).attempt == 1
        await runtime.runs.shutdown(0.0)


async def test_a_process_that_stops_while_it_was_asked_to_drain_hands_its_runs_back() -> None:
    stepper = Stepper()
    async with opened(graphs={"g": stepper.graph()}, settings=settings(drain_grace_s=3600.0)) as runtime:
        run = await runtime.runs.create("t", kwargs=graph_run())
        await soon(stepper.started.wait())
        runtime.worker.drains.follow(asked=True)
        stopping = asyncio.create_task(runtime.worker.drain(0.0))
        stepper.go.set()
        await soon(stopping)
        runtime.worker.drains.follow(asked=False)
        assert runtime.worker.draining, "a process that stops starts nothing, whatever operators ask for"
        assert await status(runtime, run) is RunStatus.PENDING
