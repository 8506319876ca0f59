"""Runs that the application executes in a block of its own: ``async with runtime.runs.attempt(run)``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from ledger_kit import held
from run_kit import FaultyDriver, Stepper, at_once, ended, items, on_jumping_time, opened, soon, until
from runlane import (
    AdmissionClosed,
    EndReason,
    IllegalTransition,
    LeaseLost,
    RunRecord,
    RunStatus,
    StoreUnavailable,
    StreamEnd,
    StreamEvent,
)
from runlane.agents.host import ThreadHost
from runlane.execution.application import ApplicationAttempt
from runlane.runtime import Runtime
from runlane.work import WORK

Body = Callable[[ApplicationAttempt], Any]


class Application:
    """Executes a run in a task of its own, and says what became of it."""

    def __init__(self, runtime: Runtime, run: RunRecord, body: Body | None = None) -> None:
        self.runtime, self.run, self.body = runtime, run, body
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        self.attempt: ApplicationAttempt | None = None
        self.cancelled = self.went_on = False
        self.task = asyncio.get_running_loop().create_task(self._execute())

    async def _execute(self) -> None:
        async with self.runtime.runs.attempt(self.run) as self.attempt:
            self.begun.set()
            try:
                await (self.go.wait() if self.body is None else self.body(self.attempt))
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        await asyncio.sleep(0)  # what cancelled the block does not cancel what follows it
        self.went_on = True

    @property
    def ended(self) -> tuple[RunStatus, EndReason | None]:
        assert self.attempt is not None
        assert self.attempt.ended is not None
        return self.attempt.ended.status, self.attempt.ended.end_reason


async def begun(runtime: Runtime, thread_id: str = "t", body: Body | None = None) -> Application:
    application = Application(runtime, await runtime.runs.create_or_reject(thread_id), body)
    await soon(application.begun.wait())
    return application


async def test_a_block_that_is_left_ends_its_run_as_a_success(runtime: Runtime) -> None:
    run = await runtime.runs.create_or_reject("t", kwargs={"input": 3})
    async with runtime.runs.attempt(run) as attempt:
        assert (attempt.run.status, attempt.run.attempt) == (RunStatus.RUNNING, 1)
        assert (attempt.abort_event.is_set(), attempt.abort_action, attempt.ended) == (False, None, None)
        await attempt.publish("step", {"doing": "read"})
        attempt.emit("step", {"doing": "think"})
        assert await attempt.record_progress(total_tokens=7)
        attempt.set_result({"answer": 6})
    assert attempt.ended is not None
    assert (attempt.ended.status, attempt.ended.end_reason) == (RunStatus.SUCCESS, EndReason.COMPLETED)
    assert await runtime.runs.get(run.run_id) == attempt.ended
    assert attempt.ended.usage.total_tokens == 7
    assert json.loads((await runtime.runs.join(run.run_id)).result or b"") == {"answer": 6}
    seen = await items(runtime, run.run_id)
    assert [item.data for item in seen if isinstance(item, StreamEvent) and item.name == "step"] == [
        b'{"doing":"read"}',
        b'{"doing":"think"}',
    ]
    assert isinstance(seen[-1], StreamEnd)


async def test_an_exception_ends_the_run_and_reaches_the_application_as_it_was(runtime: Runtime) -> None:
    run = await runtime.runs.create_or_reject("t")
    failure = ValueError("no such city")
    with pytest.raises(ValueError, match="no such city") as caught:
        async with runtime.runs.attempt(run):
            raise failure
    assert caught.value is failure
    assert [entry.name for entry in caught.traceback] == [
        "test_an_exception_ends_the_run_and_reaches_the_application_as_it_was"
    ]
    failed = await runtime.runs.get(run.run_id)
    assert failed.error is not None
    assert (failed.status, failed.error.error, failed.error.message) == (RunStatus.ERROR, "ValueError", "no such city")


@pytest.mark.parametrize(
    ("action", "reason"), [("interrupt", EndReason.USER_CANCEL), ("rollback", EndReason.ROLLED_BACK)]
)
async def test_a_cancel_stops_the_block_and_says_so_when_it_has(
    runtime: Runtime, action: str, reason: EndReason
) -> None:
    application = await begun(runtime)
    receipt = await soon(runtime.runs.cancel(application.run.run_id, action=action, wait=True))
    await soon(application.task)
    assert application.attempt is not None
    assert application.attempt.abort_action is not None
    assert application.attempt.abort_action.value == action
    assert (application.cancelled, application.went_on) == (True, True)
    assert application.ended == (RunStatus.INTERRUPTED, reason)
    assert receipt is not None
    assert receipt.stopped_at is not None


async def test_a_block_that_heeds_the_abort_event_is_no_success(runtime: Runtime) -> None:
    application = await begun(runtime, body=heed)
    await runtime.runs.cancel(application.run.run_id)
    await soon(application.task)
    assert application.ended == (RunStatus.INTERRUPTED, EndReason.USER_CANCEL)
    assert (application.went_on, application.task.cancelling()) == (True, 0)


async def test_a_cancel_that_meets_a_block_at_its_end_cancels_nothing_after_it(runtime: Runtime) -> None:
    async def cancel_itself(attempt: ApplicationAttempt) -> None:
        await runtime.runs.cancel(attempt.run.run_id)

    application = await begun(runtime, body=cancel_itself)
    await soon(application.task)
    assert application.ended == (RunStatus.INTERRUPTED, EndReason.USER_CANCEL)
    assert application.went_on


async def test_a_run_that_was_cancelled_before_its_turn_is_not_begun(runtime: Runtime) -> None:
    first = await begun(runtime)
    second = await runtime.runs.create("t")
    waiting = Application(runtime, second)
    await runtime.runs.cancel(second.run_id)
    with pytest.raises(IllegalTransition):
        await soon(waiting.task)
    assert not waiting.begun.is_set()
    first.go.set()
    await soon(first.task)


async def test_a_block_begins_when_it_is_the_turn_of_its_run(runtime: Runtime) -> None:
    first = await begun(runtime)
    second = Application(runtime, await runtime.runs.create_or_reject("t", multitask_strategy="interrupt"))
    await soon(asyncio.wait({first.task, second.task}, return_when=asyncio.FIRST_COMPLETED))
    assert first.ended == (RunStatus.INTERRUPTED, EndReason.SUPERSEDED)
    await soon(second.begun.wait())
    second.go.set()
    await soon(second.task)
    assert second.ended[0] is RunStatus.SUCCESS


async def test_a_block_whose_task_is_cancelled_ends_its_run_as_interrupted(runtime: Runtime) -> None:
    application = await begun(runtime)
    application.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(application.task)
    assert application.ended == (RunStatus.INTERRUPTED, EndReason.DISCONNECT)
    assert application.attempt is not None
    assert application.attempt.ended is not None
    assert application.attempt.ended.cancel is not None
    assert application.attempt.ended.cancel.stopped_at is not None


async def test_an_application_that_waits_no_longer_leaves_no_run_behind(runtime: Runtime) -> None:
    first = await begun(runtime)
    waiting = Application(runtime, await runtime.runs.create("t"))
    await until(lambda: runtime.agents.attached(waiting.run.run_id))
    waiting.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(waiting.task)
    assert (await runtime.runs.get(waiting.run.run_id)).end_reason is EndReason.DISCONNECT
    first.go.set()
    await soon(first.task)
    assert not waiting.begun.is_set()


async def test_an_application_that_leaves_at_once_leaves_no_run_behind() -> None:
    driver = FaultyDriver()
    async with opened(driver) as runtime:
        waiting = Application(runtime, await runtime.runs.create("t"))
        await asyncio.sleep(0)
        waiting.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(waiting.task)
        assert (await runtime.runs.get(waiting.run.run_id)).end_reason is EndReason.DISCONNECT
        assert not waiting.begun.is_set()


async def test_a_timeout_of_the_application_around_its_block_works(runtime: Runtime) -> None:
    run = await runtime.runs.create_or_reject("t")
    timed_out = False
    try:
        async with asyncio.timeout(None) as timeout, runtime.runs.attempt(run):
            timeout.reschedule(asyncio.get_running_loop().time())
            await asyncio.Event().wait()
    except TimeoutError:
        timed_out = True
    assert timed_out
    assert (await runtime.runs.get(run.run_id)).status is RunStatus.INTERRUPTED


async def test_a_generator_that_is_closed_within_its_block_ends_its_run(runtime: Runtime) -> None:
    run = await runtime.runs.create_or_reject("t")

    async def steps() -> AsyncIterator[int]:
        async with runtime.runs.attempt(run):
            yield 1
            yield 2

    async with aclosing(steps()) as generator:
        async for _ in generator:
            break
    assert (await runtime.runs.get(run.run_id)).end_reason is EndReason.DISCONNECT


async def test_blocks_are_part_of_the_drain() -> None:
    """What does not finish in the grace time is stopped; who waits for a turn is told; no run is left behind."""
    async with opened() as runtime:
        quick = await begun(runtime, "quick", lambda _: runtime.submitter.closing.wait())
        slow = await begun(runtime, "slow")
        waiting = Application(runtime, await runtime.runs.create("slow"))
        await until(lambda: runtime.agents.attached(waiting.run.run_id))
        await soon(runtime.runs.shutdown(0.2))
        await soon(asyncio.wait({quick.task, slow.task, waiting.task}))
        assert quick.ended == (RunStatus.SUCCESS, EndReason.COMPLETED)
        assert slow.ended == (RunStatus.INTERRUPTED, EndReason.DRAINED_OVER)
        assert isinstance(waiting.task.exception(), AdmissionClosed)
        withdrawn = await runtime.runs.get(waiting.run.run_id)
        assert (withdrawn.status, withdrawn.end_reason) == (RunStatus.INTERRUPTED, EndReason.DRAINED_OVER)


async def heed(attempt: ApplicationAttempt) -> None:
    """Leave the block quietly once it has to stop."""
    with suppress(asyncio.CancelledError):
        await attempt.abort_event.wait()
    assert attempt.abort_event.is_set()


async def test_a_block_that_a_drain_cut_short_is_no_success() -> None:
    async with opened() as runtime:
        application = await begun(runtime, body=heed)
        await soon(runtime.runs.shutdown(0.0))
        await soon(application.task)
        assert application.ended == (RunStatus.INTERRUPTED, EndReason.DRAINED_OVER)


async def test_a_block_has_the_deadline_of_every_run() -> None:
    async with opened(run_timeout_s=0.01) as runtime:
        application = await begun(runtime)
        await soon(application.task)
        assert application.ended == (RunStatus.TIMEOUT, EndReason.DEADLINE)


async def test_a_block_that_does_not_stop_is_abandoned_and_its_place_is_told(runtime: Runtime) -> None:
    deaf = asyncio.Event()

    async def ignore_cancels(_: ApplicationAttempt) -> None:
        while not deaf.is_set():
            try:
                await deaf.wait()
            except asyncio.CancelledError:
                continue

    application = await begun(runtime, body=ignore_cancels)
    receipt = await soon(runtime.runs.cancel(application.run.run_id, wait=True))
    assert receipt is not None
    assert (receipt.stopped_at, "ignore_cancels" in str(receipt.blocked_at)) == (None, True)
    before = await items(runtime, application.run.run_id)
    deaf.set()
    await soon(application.task)
    assert application.ended == (RunStatus.INTERRUPTED, EndReason.USER_CANCEL)
    assert await items(runtime, application.run.run_id) == before


async def test_what_a_block_started_ends_before_its_run_does(runtime: Runtime) -> None:
    """A task that the block leaves behind is stopped, and the run waits for it."""
    stopped: list[RunStatus] = []
    tasks: list[asyncio.Task[None]] = []

    async def beside(attempt: ApplicationAttempt) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append((await runtime.runs.get(attempt.run.run_id)).status)

    async def start_and_fail(attempt: ApplicationAttempt) -> None:
        tasks.append(asyncio.create_task(beside(attempt)))
        await asyncio.sleep(0)
        raise ValueError("no such city")

    application = await begun(runtime, body=start_and_fail)
    with pytest.raises(ValueError, match="no such city"):
        await soon(application.task)
    assert stopped == [RunStatus.RUNNING]
    assert application.ended[0] is RunStatus.ERROR


async def test_what_follows_a_block_is_not_of_its_run(runtime: Runtime) -> None:
    run = await runtime.runs.create_or_reject("t")
    async with runtime.runs.attempt(run):
        assert WORK.get() is not None
    assert WORK.get() is None


async def test_a_block_that_lost_its_run_writes_nothing_and_is_told() -> None:
    driver = FaultyDriver()
    async with opened(driver, lease_s=0.1, poll_s=3600) as runtime:

        async def go_on(attempt: ApplicationAttempt) -> None:
            try:
                await attempt.abort_event.wait()
            finally:
                attempt.emit("late", {})

        application = await begun(runtime, body=go_on)
        lost = await runtime.store.attempts.rescue(await held(runtime.store, application.run.run_id), max_rescues=0)
        with pytest.raises(LeaseLost):
            await soon(application.task)
        assert await runtime.runs.get(application.run.run_id) == lost.run
        assert "late" not in [getattr(item, "name", "") for item in await items(runtime, application.run.run_id)]


@on_jumping_time
async def test_a_block_whose_lease_an_outage_took_ends_its_run_and_is_not_begun_again() -> None:
    driver = FaultyDriver()
    async with opened(driver, lease_s=30.0, poll_s=3600) as runtime:
        application = await begun(runtime, body=heed)
        driver.faults["held"] = StoreUnavailable("unplugged")
        await application.task
        failed = await ended(runtime, application.run)
        assert (failed.status, failed.end_reason) == (RunStatus.ERROR, EndReason.WORKER_LOST)


async def test_a_cancel_of_the_task_while_the_ending_is_written_is_kept_until_then() -> None:
    driver = FaultyDriver()
    async with opened(driver) as runtime:
        application = await begun(runtime)
        driver.gates["finish"] = asyncio.Event()
        application.go.set()
        await soon(driver.held.wait())
        application.task.cancel()
        await asyncio.sleep(0)
        application.task.cancel()
        driver.gates.pop("finish").set()
        with pytest.raises(asyncio.CancelledError):
            await soon(application.task)
        assert application.ended == (RunStatus.SUCCESS, EndReason.COMPLETED)


@on_jumping_time
async def test_a_block_keeps_its_lease_and_waits_out_an_outage_at_its_end() -> None:
    driver = FaultyDriver()
    async with opened(driver, lease_s=30.0, poll_s=3600) as runtime:
        application = await begun(runtime)
        await asyncio.sleep(100)
        assert driver.counts["beat"] >= 9
        driver.out = True
        application.go.set()
        await asyncio.sleep(10)
        assert not application.task.done()
        driver.out = False
        await application.task
        assert application.ended == (RunStatus.SUCCESS, EndReason.COMPLETED)


async def test_a_rollback_removes_what_a_graph_of_the_block_checkpointed(runtime: Runtime) -> None:
    stepper = Stepper()
    config: Any = {"configurable": {"thread_id": "t"}}

    async def run_graph(attempt: ApplicationAttempt) -> None:
        await stepper.graph().compile(checkpointer=attempt.checkpointer).ainvoke({"log": []}, config)

    stepper.go.set()
    await soon((await begun(runtime, body=run_graph)).task)
    before = await runtime.saver.aget_tuple(config)
    assert before.checkpoint["channel_values"]["log"] == ["first", "second", "third"]
    stepper.go.clear()
    stepper.started.clear()
    application = await begun(runtime, body=run_graph)
    await soon(stepper.started.wait())
    await soon(runtime.runs.cancel(application.run.run_id, action="rollback", wait=True))
    await soon(application.task)
    assert await runtime.saver.aget_tuple(config) == before


async def test_a_process_with_graphs_leaves_a_run_to_its_block() -> None:
    """However long the application takes to enter it."""
    async with opened(graphs={"g": Stepper().graph()}, poll_s=0.01) as runtime:
        run = await runtime.runs.create_or_reject("t")
        await runtime.rescuer.dispatch_runnable()
        for _ in range(100):
            await asyncio.sleep(0)
        async with runtime.runs.attempt(run) as attempt:
            pass
        assert attempt.ended is not None
        assert attempt.ended.status is RunStatus.SUCCESS


async def test_a_run_has_one_executor(runtime: Runtime) -> None:
    application = await begun(runtime)
    for run in (application.run, await runtime.runs.create("t", agent=at_once)):
        with pytest.raises(IllegalTransition):
            async with runtime.runs.attempt(run):
                pytest.fail("it was begun")
    application.go.set()
    await soon(application.task)
    with pytest.raises(IllegalTransition):
        async with runtime.runs.attempt(application.run):
            pytest.fail("it was begun again")


async def test_a_block_works_beside_a_loop_of_agents() -> None:
    async with opened(new_host=ThreadHost) as runtime:
        application = await begun(runtime)
        await soon(runtime.runs.cancel(application.run.run_id, wait=True))
        await soon(application.task)
        assert application.ended == (RunStatus.INTERRUPTED, EndReason.USER_CANCEL)
        other = await begun(runtime, body=lambda attempt: attempt.publish("step", 1))
        await soon(other.task)
        assert other.ended[0] is RunStatus.SUCCESS


async def test_a_handler_of_fastapi_executes_a_run_and_streams_it(runtime: Runtime) -> None:
    app = FastAPI()

    @app.post("/ask/{thread_id}")
    async def ask(thread_id: str) -> StreamingResponse:
        run = await runtime.runs.create_or_reject(thread_id)

        async def answer() -> AsyncIterator[bytes]:
            async with runtime.runs.attempt(run) as attempt:
                for word in ("high", "tide"):
                    await attempt.publish("word", word)
                    yield f"data: {word}\n\n".encode()

        return StreamingResponse(answer(), headers={"X-Run": run.run_id})

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        answer = await soon(client.post("/ask/t"))
    assert answer.text == "data: high\n\ndata: tide\n\n"
    assert (await runtime.runs.get(answer.headers["X-Run"])).status is RunStatus.SUCCESS
