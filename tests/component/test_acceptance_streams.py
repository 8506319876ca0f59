"""The acceptance list, items 18 to 23: streams, seen from a run. The bridge and the publisher have their own tests.

Item or known defect -> test:

    18, D9, R8, R9  test_every_ending_has_exactly_one_end
    19, D36      test_reading_an_unknown_run_..., test_an_ended_run_without_events_ends_at_once
    20, D37      test_streams.py: test_a_reader_whose_cursor_retention_has_passed_is_told,
                 test_a_reader_that_comes_back_gets_every_later_event_once_from_any_cursor
    21, D38, R15 test_removing_a_run_wakes_its_readers; test_streams.py: test_numbers_go_on_across_attempts
    22, D41      test_a_viewer_that_leaves_stops_nothing, test_it_can_be_told_when_nobody_reads_a_stream
    23, D42      test_a_waiter_is_answered_with_its_own_runs_result
    D39, D50     test_store_events.py: test_submissions_are_answered_in_the_order_in_which_they_were_queued
    R18          test_streams.py: test_an_outage_of_any_length_loses_no_event
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from run_kit import (
    ENDED_LONG_AGO,
    FaultyDriver,
    Scripted,
    Stepper,
    at_once,
    ended,
    graph_run,
    items,
    opened,
    soon,
    turn,
)
from runlane import InvalidRequest, NotFound
from runlane.agents.coroutine import RunContext
from runlane.lifecycle import RunStatus
from runlane.records import RunRecord, StreamEnd, StreamEvent
from runlane.runtime import Runtime


async def fails(context: RunContext) -> None:
    raise ValueError("mine")


async def cancels_itself(context: RunContext) -> None:
    raise asyncio.CancelledError


async def waits(context: RunContext) -> None:
    await asyncio.Event().wait()


async def succeeded(runtime: Runtime) -> RunRecord:
    return await runtime.runs.create_or_reject("t", agent=at_once)


async def failed(runtime: Runtime) -> RunRecord:
    return await runtime.runs.create_or_reject("t", agent=fails)


async def cancelled_by_itself(runtime: Runtime) -> RunRecord:
    return await runtime.runs.create_or_reject("t", agent=cancels_itself)


async def cancelled_before_start(runtime: Runtime) -> RunRecord:
    run = await runtime.runs.create_or_reject("t")
    await runtime.runs.cancel(run.run_id)
    return run


async def cancelled(runtime: Runtime) -> RunRecord:
    agent = Scripted()
    run = await runtime.runs.create_or_reject("t", agent=agent)
    await soon(agent.started.wait())
    await runtime.runs.cancel(run.run_id, action="rollback")
    return run


async def superseded(runtime: Runtime) -> RunRecord:
    agent = Scripted()
    run = await runtime.runs.create_or_reject("t", agent=agent)
    await soon(agent.started.wait())
    await runtime.runs.create_or_reject("t", agent=at_once, multitask_strategy="interrupt")
    return run


async def given_up(runtime: Runtime) -> RunRecord:
    run = await runtime.runs.create_or_reject("t")
    await runtime.runs.reconcile_orphaned_inflight_runs()
    return run


async def executed_by_the_application(runtime: Runtime) -> RunRecord:
    run = await runtime.runs.create_or_reject("t")
    await runtime.runs.set_status(run.run_id, "running")
    await runtime.runs.set_status(run.run_id, "error", error="mine")
    return run


async def drained(runtime: Runtime) -> RunRecord:
    agent = Scripted()
    run = await runtime.runs.create_or_reject("t", agent=agent)
    await soon(agent.started.wait())
    await soon(runtime.runs.shutdown(0))
    return run


@pytest.mark.parametrize(
    "ending",
    [
        succeeded,
        failed,
        cancelled_by_itself,
        cancelled_before_start,
        cancelled,
        superseded,
        given_up,
        executed_by_the_application,
        drained,
    ],
)
async def test_every_ending_has_exactly_one_end(runtime: Runtime, ending: Any) -> None:
    """Item 18: it carries the final status, and a late reader gets the same."""
    run = await ending(runtime)
    found = await items(runtime, run.run_id)
    done = await runtime.runs.get(run.run_id)
    ends = [item for item in found if isinstance(item, StreamEnd)]
    assert [found[-1]] == ends
    assert (ends[0].status, ends[0].end_reason) == (done.status, done.end_reason)
    assert done.status.terminal
    assert await items(runtime, run.run_id) == found
    ending_seen = await soon(runtime.runs.join(run.run_id))
    assert (ending_seen.status, ending_seen.end_reason) == (done.status, done.end_reason)


async def test_reading_an_unknown_run_is_refused_and_creates_nothing(runtime: Runtime) -> None:
    """Item 19."""
    with pytest.raises(NotFound):
        await items(runtime, "nobody")
    with pytest.raises(NotFound):
        await runtime.runs.join("nobody")
    assert not runtime.streams._live


async def test_a_cursor_that_no_event_can_have_is_refused(runtime: Runtime) -> None:
    """Item 20."""
    run = await runtime.runs.create_or_reject("t", agent=at_once)
    with pytest.raises(InvalidRequest, match="after"):
        await anext(runtime.streams.subscribe(run.run_id, after=-1))


async def test_an_ended_run_without_events_ends_at_once(runtime: Runtime) -> None:
    """Item 19: retention has removed what it published."""
    run = await ended(runtime, await runtime.runs.create_or_reject("t", agent=at_once))
    await turn(runtime.store, ENDED_LONG_AGO, run.run_id)
    await runtime.store.events.purge(older_than_s=60)
    assert isinstance((await items(runtime, run.run_id))[-1], StreamEnd)
    assert not runtime.streams._live


async def test_removing_a_run_wakes_its_readers(runtime: Runtime) -> None:
    """Item 21."""
    agent = Scripted()
    run = await runtime.runs.create_or_reject("t", agent=agent)
    reader = asyncio.create_task(items(runtime, run.run_id))
    waiter = asyncio.create_task(runtime.runs.join(run.run_id))
    await soon(agent.started.wait())
    await soon(runtime.runs.delete(run.run_id))
    assert isinstance((await soon(reader))[-1], StreamEnd)
    assert (await soon(waiter)).status is RunStatus.INTERRUPTED
    with pytest.raises(NotFound):
        await runtime.runs.get(run.run_id)


@pytest.mark.parametrize("mode", ["cancel", "continue"])
async def test_a_viewer_that_leaves_stops_nothing(runtime: Runtime, mode: str) -> None:
    """Item 22: what a disconnect means is decided for the client that created the run."""
    agent = Scripted(events=[("e", 1)])
    run = await runtime.runs.create_or_reject("t", agent=agent, on_disconnect=mode)
    viewer = asyncio.create_task(items(runtime, run.run_id))
    other = asyncio.create_task(items(runtime, run.run_id))
    await soon(agent.started.wait())
    viewer.cancel()
    await asyncio.wait([viewer])
    assert (await runtime.runs.get(run.run_id)).cancel is None
    agent.go.set()
    assert [type(item) for item in await soon(other)][-1] is StreamEnd
    assert (await runtime.runs.get(run.run_id)).status is RunStatus.SUCCESS


async def test_it_can_be_told_when_nobody_reads_a_stream(runtime: Runtime) -> None:
    """Item 22."""
    agent = Scripted(events=[("e", 1)])
    run = await runtime.runs.create_or_reject("t", agent=agent)
    with runtime.streams.watch(run), runtime.streams.watch(run):
        left = asyncio.create_task(runtime.streams.unwatched(run.run_id))
        await asyncio.sleep(0)
        assert not left.done()
    await soon(left)
    agent.go.set()
    await ended(runtime, run)


async def test_a_waiter_is_answered_with_its_own_runs_result() -> None:
    """Item 23: not with what the thread has become by then."""
    async with opened() as runtime:

        def says(text: str) -> Any:
            async def agent(context: RunContext) -> str:
                return text

            return agent

        first = await runtime.runs.create("t", agent=says("first"))
        second = await runtime.runs.create("t", agent=says("second"))
        assert (await soon(runtime.runs.join(second.run_id))).result == b'"second"'
        assert (await soon(runtime.runs.join(first.run_id))).result == b'"first"'


async def test_events_of_an_attempt_that_was_handed_back_are_followed_by_those_of_the_next() -> None:
    """Items 18 and 20: a reader with the last id that it saw misses nothing across processes."""
    driver = FaultyDriver()
    stepper = Stepper()
    async with opened(driver, graphs={"g": stepper.graph()}) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run(stream_mode=["updates"]))
        await soon(stepper.started.wait())
        seen = []
        async for item in runtime.streams.subscribe(run.run_id):
            seen.append(item)
            if isinstance(item, StreamEvent) and item.name == "updates":
                break
    stepper.go.set()
    async with opened(driver, graphs={"g": stepper.graph()}) as runtime:
        rest = await items(runtime, run.run_id, after=seen[-1].seq)  # type: ignore[union-attr]
        whole = await items(runtime, run.run_id)
    assert [*seen, *rest] == whole
    ids = [item.seq for item in whole if isinstance(item, StreamEvent | StreamEnd)]
    assert ids == list(range(1, len(ids) + 1))
    assert [item.name for item in whole if isinstance(item, StreamEvent)].count("updates") == 3
