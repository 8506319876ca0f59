"""The acceptance list, items 9 to 14: the state machine, cancels, rollback, writes that meet no row, retries, counters.

Item or known defect -> test:

    9, D7, D8, D19, D30   test_only_legal_moves_are_made, test_a_terminal_run_never_changes,
                          test_a_cancel_before_the_end_was_written_is_never_followed_by_success
    10, D9, D10, D16, D35 test_a_run_cancelled_before_it_starts_never_executes, test_the_first_cancel_wins,
                          test_an_unknown_action_is_refused, test_a_second_cancel_...,
                          test_a_cancel_that_comes_after_...
    11, D45               test_a_rollback_leaves_the_thread_as_before_the_run, test_a_rollback_that_failed_is_said, ...
    12, D25               test_the_end_of_a_run_that_is_gone_writes_nothing
    13, D27               test_a_passing_outage_is_not_noticed, test_a_permanent_error_is_not_tried_again
    14, D29, D34, D55     test_counters_..., test_progress_..., test_usage_of_every_kind_of_ending_is_counted
    D32                   test_worker.py: test_a_run_that_takes_too_long_ends_as_a_timeout
    D43, D44              test_store_threads.py: test_a_thread_shows_how_its_last_run_ended;
                          test_weaknesses.py: test_a_thread_is_busy_exactly_while_a_run_is_active
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from run_kit import (
    ONCE,
    VANISH,
    FaultyDriver,
    Scripted,
    Stepper,
    at_once,
    ended,
    graph_run,
    items,
    opened,
    soon,
    status,
    turn,
    until,
)
from runlane import ConflictError, IllegalTransition, InvalidRequest, NotFound, StoreUnavailable, Usage
from runlane.errors import CancelRecorded
from runlane.execution.progress import usage_progress
from runlane.lifecycle import CancelAction, EndReason, RunStatus
from runlane.records import ANY_OWNER, Claim, RunRecord, StreamEnd
from runlane.runtime import Runtime
from runlane.store.retry import PersistenceRetryPolicy

ALL = [found.value for found in RunStatus]
LEGAL = {
    "pending": {"running", "interrupted"},
    "running": {"success", "error", "timeout", "interrupted"},
}


async def in_status(runtime: Runtime, wanted: str) -> RunRecord:
    """Return a run, executed by the application itself, that is in the status *wanted*."""
    run = await runtime.runs.create_or_reject("t")
    if wanted != "pending":
        run = await runtime.runs.set_status(run.run_id, "running")
    if wanted not in ("pending", "running"):
        run = await runtime.runs.set_status(run.run_id, wanted)
    assert run.status.value == wanted
    return run


@pytest.mark.parametrize("before", ALL)
async def test_only_legal_moves_are_made(before: str) -> None:
    """Item 9: every other move is refused, and says so."""
    for after in ALL:
        async with opened() as runtime:
            run = await in_status(runtime, before)
            if after in LEGAL.get(before, ()):
                assert (await runtime.runs.set_status(run.run_id, after)).status.value == after
            else:
                with pytest.raises(IllegalTransition):
                    await runtime.runs.set_status(run.run_id, after)
                assert (await runtime.runs.get(run.run_id)) == run


async def test_a_terminal_run_never_changes(runtime: Runtime) -> None:
    """Item 9: whatever is asked of it."""
    run = await ended(runtime, await runtime.runs.create_or_reject("t", agent=at_once))
    assert await runtime.runs.cancel(run.run_id) is None
    assert await runtime.runs.cancel(run.run_id, action="rollback", wait=True) is None
    with pytest.raises(IllegalTransition):
        await runtime.runs.set_status(run.run_id, "running")
    with pytest.raises(IllegalTransition):
        await runtime.runs.update_run_completion(run.run_id, status="error")
    runtime.runs.start(run, Scripted())
    await runtime.runs.reconcile_orphaned_inflight_runs()
    assert await runtime.runs.get(run.run_id) == run


async def test_a_status_that_does_not_exist_is_refused(runtime: Runtime) -> None:
    """Item 9."""
    run = await runtime.runs.create_or_reject("t")
    with pytest.raises(InvalidRequest):
        await runtime.runs.set_status(run.run_id, "finished")


async def test_a_run_of_another_executor_cannot_be_ended(runtime: Runtime) -> None:
    """Item 9: the application did not claim it."""
    agent = Scripted()
    run = await runtime.runs.create_or_reject("t", agent=agent)
    await soon(agent.started.wait())
    with pytest.raises(IllegalTransition):
        await runtime.runs.set_status(run.run_id, "success")
    with pytest.raises(IllegalTransition):
        await runtime.runs.set_status(run.run_id, "running")
    agent.go.set()
    assert (await ended(runtime, run)).status is RunStatus.SUCCESS


async def test_a_run_that_the_application_executes_meets_the_cancel_that_came_first(runtime: Runtime) -> None:
    """Items 9 and 10."""
    run = await in_status(runtime, "running")
    await runtime.runs.cancel(run.run_id)
    with pytest.raises(CancelRecorded):
        await runtime.runs.set_status(run.run_id, "success")
    stopped = await runtime.runs.set_status(run.run_id, "interrupted")
    assert (stopped.status, stopped.end_reason) == (RunStatus.INTERRUPTED, EndReason.USER_CANCEL)


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
async def test_a_cancel_before_the_end_was_written_is_never_followed_by_success(action: str) -> None:
    """Item 9: the agent has returned, its ending is on its way, and a cancel overtakes it."""
    driver = FaultyDriver()
    async with opened(driver) as runtime:
        driver.gates["finish"] = asyncio.Event()
        run = await runtime.runs.create_or_reject("t", agent=at_once)
        await soon(driver.held.wait())
        receipt = await runtime.runs.cancel(run.run_id, action=action)
        assert receipt is not None
        driver.gates.pop("finish").set()
        stopped = await ended(runtime, run)
        assert stopped.status is RunStatus.INTERRUPTED
        assert stopped.end_reason is (EndReason.USER_CANCEL if action == "interrupt" else EndReason.ROLLED_BACK)
        assert stopped.cancel is not None
        assert stopped.cancel.stopped_at is not None


async def test_an_outage_while_an_ending_meets_a_cancel_is_waited_out(caplog: pytest.LogCaptureFixture) -> None:
    """Item 9."""
    driver = FaultyDriver()
    async with opened(driver, retry=ONCE) as runtime:
        driver.gates["finish"] = asyncio.Event()
        run = await runtime.runs.create_or_reject("t", agent=at_once)
        await soon(driver.held.wait())
        await runtime.runs.cancel(run.run_id)
        driver.faults["end_run"] = StoreUnavailable("unplugged")
        driver.gates.pop("finish").set()
        await until(lambda: "run.finish_delayed" in caplog.text)
        driver.faults.clear()
        assert (await ended(runtime, run)).status is RunStatus.INTERRUPTED


async def test_a_cancel_that_comes_after_the_end_changes_nothing(runtime: Runtime) -> None:
    """Item 9: D8."""
    agent = Scripted()
    run = await runtime.runs.create_or_reject("t", agent=agent)
    await soon(agent.started.wait())
    agent.go.set()
    assert (await ended(runtime, run)).status is RunStatus.SUCCESS
    assert await runtime.runs.cancel(run.run_id) is None


async def test_a_run_cancelled_before_it_starts_never_executes(runtime: Runtime) -> None:
    """Item 10: its stream ends, its waiter is answered, its receipt is complete, the next run starts."""
    first, agent = Scripted(), Scripted()
    head = await runtime.runs.create("t", agent=first)
    run = await runtime.runs.create("t", agent=agent)
    last = await runtime.runs.create("t", agent=at_once)
    reader = asyncio.create_task(items(runtime, run.run_id))
    receipt = await soon(runtime.runs.cancel(run.run_id, wait=True, by="ann"))
    assert receipt is not None
    assert (receipt.requested_by, receipt.action) == ("ann", CancelAction.INTERRUPT)
    assert receipt.requested_at <= receipt.observed_at <= receipt.stopped_at
    (end,) = await reader
    assert isinstance(end, StreamEnd)
    assert end.status is RunStatus.INTERRUPTED
    first.go.set()
    await ended(runtime, head)
    assert (await ended(runtime, last)).status is RunStatus.SUCCESS
    assert agent.calls == 0


async def test_code_attached_after_the_cancel_never_executes(runtime: Runtime) -> None:
    """Item 10: D10, the window between admission and the attachment of code."""
    agent = Scripted()
    run = await runtime.runs.create_or_reject("t")
    await runtime.runs.cancel(run.run_id)
    runtime.runs.start(run, agent)
    await ended(runtime, await runtime.runs.create("t", agent=at_once))
    assert agent.calls == 0
    assert (await runtime.runs.get(run.run_id)).attempt == 0
    await soon(shrunk(runtime))


async def test_the_first_cancel_wins(runtime: Runtime) -> None:
    """Item 10: a second one is harmless, and is told what was decided."""
    agent = Scripted(clean=False)
    run = await runtime.runs.create_or_reject("t", agent=agent)
    await soon(agent.started.wait())
    first = await runtime.runs.cancel(run.run_id, action="interrupt", by="ann")
    second = await runtime.runs.cancel(run.run_id, action="rollback", by="bob")
    assert second is not None
    assert first is not None
    assert (second.action, second.requested_by, second.requested_at) == (first.action, "ann", first.requested_at)
    await soon(agent.stopping.wait())
    agent.cleaned.set()
    assert (await ended(runtime, run)).end_reason is EndReason.USER_CANCEL


async def test_an_unknown_action_is_refused(runtime: Runtime) -> None:
    """Item 10: and nothing is recorded."""
    run = await runtime.runs.create_or_reject("t")
    with pytest.raises(InvalidRequest):
        await runtime.runs.cancel(run.run_id, action="explode")
    assert (await runtime.runs.get(run.run_id)).cancel is None


async def test_a_second_cancel_of_a_run_that_ended_by_the_first_announces_nothing() -> None:
    """Item 10: hooks hear of an ending once."""
    heard: list[str] = []

    async def hook(run: RunRecord) -> None:
        heard.append(run.run_id)

    async with opened(hooks=[hook]) as runtime:
        run = await runtime.runs.create_or_reject("t")
        for _ in range(3):
            receipt = await runtime.runs.cancel(run.run_id)
            assert receipt is not None
    assert heard == [run.run_id]


async def test_a_cancel_is_recorded_before_it_is_answered() -> None:
    """Item 10: an outage is said; the run goes on, since nobody could say that it was stopped."""
    driver = FaultyDriver()
    async with opened(driver, retry=ONCE) as runtime:
        agent = Scripted()
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await soon(agent.started.wait())
        driver.faults["record_cancel"] = StoreUnavailable("unplugged")
        with pytest.raises(StoreUnavailable):
            await runtime.runs.cancel(run.run_id)
        driver.faults.clear()
        assert not agent.stopping.is_set()
        agent.go.set()
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS


async def test_a_cancel_whose_caller_leaves_is_carried_through() -> None:
    """Item 10."""
    driver = FaultyDriver()
    async with opened(driver) as runtime:
        agent = Scripted()
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await soon(agent.started.wait())
        driver.gates["request_cancel"] = asyncio.Event()
        caller = asyncio.create_task(runtime.runs.cancel(run.run_id))
        await soon(driver.held.wait())
        caller.cancel()
        await asyncio.wait([caller])
        driver.gates.pop("request_cancel").set()
        assert (await ended(runtime, run)).status is RunStatus.INTERRUPTED


async def test_a_cancel_of_a_run_that_was_handed_back_ends_it_without_executing_it() -> None:
    """Item 10: its next attempt only repairs, or removes, what the first one left."""
    driver = FaultyDriver()
    stepper = Stepper()
    async with opened(driver, graphs={"g": stepper.graph()}) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        await soon(stepper.started.wait())
    calls = list(stepper.calls)
    async with opened(driver) as runtime:  # a process that cannot execute it
        assert (await runtime.runs.get(run.run_id)).status is RunStatus.PENDING
        await runtime.runs.cancel(run.run_id, action="rollback")
        assert (await runtime.runs.get(run.run_id)).status is RunStatus.PENDING
    async with opened(driver, graphs={"g": stepper.graph()}) as runtime:
        stopped = await ended(runtime, run)
        assert (stopped.status, stopped.end_reason) == (RunStatus.INTERRUPTED, EndReason.ROLLED_BACK)
        assert await runtime.saver.aget_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": ""}}) is None
    assert stepper.calls == calls


async def test_a_rollback_leaves_the_thread_as_before_the_run(tmp_path: Any) -> None:
    """Item 11."""
    stepper = Stepper()
    database = f"sqlite:///{tmp_path / 'runs.db'}"
    async with opened(graphs={"g": stepper.graph()}, database=database) as runtime:
        stepper.go.set()
        await ended(runtime, await runtime.runs.create_or_reject("t", kwargs=graph_run()))
        before = await checkpoints(runtime)
        thread = await runtime.store.threads.get("t", owner=ANY_OWNER)
        stepper.go.clear()
        stepper.started.clear()
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        await soon(stepper.started.wait())
        receipt = await soon(runtime.runs.cancel(run.run_id, action="rollback", wait=True))
        assert receipt is not None
        assert receipt.stopped_at is not None
        stopped = await runtime.runs.get(run.run_id)
        assert (stopped.status, stopped.end_reason) == (RunStatus.INTERRUPTED, EndReason.ROLLED_BACK)
        assert await checkpoints(runtime) == before
        after = await runtime.store.threads.get("t", owner=ANY_OWNER)
        assert (after.values, after.status) == (thread.values, thread.status)


async def test_a_rollback_of_an_abandoned_agent_removes_what_it_writes_afterwards() -> None:
    """Item 11: the agent goes on after it was abandoned; its later checkpoints do not land."""
    stepper = Stepper()

    class Deaf(asyncio.Event):
        async def wait(self) -> Any:
            while not self.is_set():
                try:
                    await super().wait()
                except asyncio.CancelledError:
                    continue
            return True

    stepper.go = Deaf()
    async with opened(graphs={"g": stepper.graph()}) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        await soon(stepper.started.wait())
        await soon(runtime.runs.cancel(run.run_id, action="rollback", wait=True))
        stopped = await runtime.runs.get(run.run_id)
        assert stopped.end_reason is EndReason.ROLLED_BACK
        assert stopped.cancel is not None
        assert stopped.cancel.stopped_at is None
        assert stopped.cancel.blocked_at is not None
        stepper.go.set()
        await settled()
        assert await checkpoints(runtime) == []


async def test_a_rollback_that_failed_is_said() -> None:
    """Item 11: the run does not claim to be rolled back."""
    driver = FaultyDriver()
    stepper = Stepper()
    async with opened(driver, graphs={"g": stepper.graph()}) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        await soon(stepper.started.wait())
        driver.faults["checkpoints.delete_checkpoints_of_runs"] = ValueError("what is stored makes no sense")
        await soon(runtime.runs.cancel(run.run_id, action="rollback", wait=True))
        stopped = await runtime.runs.get(run.run_id)
        assert (stopped.status, stopped.end_reason) == (RunStatus.INTERRUPTED, EndReason.USER_CANCEL)
        assert stopped.error is not None
        assert stopped.error.error == "RollbackFailed"


async def test_a_rollback_is_written_together_with_its_outcome() -> None:
    """Item 11: an outage in the middle leaves neither, and then both."""
    driver = FaultyDriver()
    stepper = Stepper()
    async with opened(driver, graphs={"g": stepper.graph()}, retry=ONCE) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        await soon(stepper.started.wait())
        await until(lambda: driver.counts.get("checkpoints.put"))
        driver.faults["end_run"] = StoreUnavailable("unplugged")
        await runtime.runs.cancel(run.run_id, action="rollback")
        await until(lambda: driver.counts.get("end_run"))
        assert await status(runtime, run) is RunStatus.RUNNING
        assert await checkpoints(runtime) != []
        driver.faults.clear()
        assert (await ended(runtime, run)).end_reason is EndReason.ROLLED_BACK
        assert await checkpoints(runtime) == []


async def test_the_end_of_a_run_that_is_gone_writes_nothing() -> None:
    """Item 12: a row that vanished is not made again."""
    driver = FaultyDriver()
    async with opened(driver) as runtime:
        agent = Scripted()
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await soon(agent.started.wait())
        await turn(runtime.store, VANISH, run.run_id)
        agent.go.set()
        await until(lambda: not runtime.worker.executing)
        with pytest.raises(NotFound):
            await runtime.runs.get(run.run_id)
        assert await runtime.runs.list_by_thread("t") == []


async def test_writes_to_an_unknown_run_make_none(runtime: Runtime) -> None:
    """Item 12: D29."""
    for write in (
        runtime.runs.set_status("nobody", "running"),
        runtime.runs.update_model_name("nobody", "m"),
        runtime.runs.update_run_progress("nobody", total_tokens=1),
        runtime.runs.update_run_completion("nobody", total_tokens=1),
        runtime.runs.cancel("nobody"),
        runtime.runs.delete("nobody"),
    ):
        with pytest.raises(NotFound):
            await write


async def test_cleaning_up_an_unknown_run_is_no_error(runtime: Runtime) -> None:
    await runtime.runs.cleanup("nobody", delay_s=0)
    assert await runtime.store.runs.list(None, owner=ANY_OWNER) == ()


async def test_a_passing_outage_is_not_noticed() -> None:
    """Item 13."""
    driver = FaultyDriver()
    quick = PersistenceRetryPolicy(initial_delay_s=0.001, max_attempts=50)
    async with opened(driver, retry=quick) as runtime:
        driver.faults["insert_run"] = StoreUnavailable("busy")
        admission = asyncio.create_task(runtime.runs.create_or_reject("t", agent=at_once))
        await until(lambda: driver.counts.get("insert_run", 0) >= 3)
        driver.faults.clear()
        assert (await ended(runtime, await soon(admission))).status is RunStatus.SUCCESS


async def test_a_permanent_error_is_not_tried_again() -> None:
    """Item 13."""
    driver = FaultyDriver()
    async with opened(driver) as runtime:
        driver.faults["insert_run"] = ValueError("permanent")
        with pytest.raises(ValueError, match="permanent"):
            await runtime.runs.create_or_reject("t", agent=at_once)
        assert driver.counts["insert_run"] == 1
        driver.faults.clear()
        await runtime.runs.create_or_reject("t")
        refused = driver.counts["lock_thread"]
        with pytest.raises(ConflictError):
            await runtime.runs.create_or_reject("t")
        assert driver.counts["lock_thread"] == refused + 1


async def test_counters_never_fall(runtime: Runtime) -> None:
    """Item 14."""
    run = await in_status(runtime, "running")
    assert await runtime.runs.update_run_progress(run.run_id, total_tokens=10, input_tokens=4)
    assert await runtime.runs.update_run_progress(run.run_id, total_tokens=7)
    usage = (await runtime.runs.get(run.run_id)).usage
    assert (usage.total_tokens, usage.input_tokens) == (10, 4)
    done = await runtime.runs.update_run_completion(run.run_id, status="success", total_tokens=8, llm_calls=2)
    assert done.status is RunStatus.SUCCESS
    assert (done.usage.total_tokens, done.usage.llm_calls) == (10, 2)


async def test_progress_that_arrives_late_overwrites_nothing_newer() -> None:
    driver = FaultyDriver()
    async with opened(driver) as runtime:
        run = await in_status(runtime, "running")
        await runtime.runs.update_run_progress(run.run_id, last_ai_message="older")
        gate = driver.gates["set_progress"] = asyncio.Event()
        late = asyncio.create_task(runtime.runs.update_run_progress(run.run_id, total_tokens=5))
        await soon(driver.held.wait())
        del driver.gates["set_progress"]
        await runtime.runs.update_run_progress(run.run_id, last_ai_message="newer")
        gate.set()
        assert await soon(late)
        assert (await runtime.runs.get(run.run_id)).usage == Usage(total_tokens=5, last_ai_message="newer")


async def test_progress_that_is_written_again_after_an_outage_overwrites_nothing_newer() -> None:
    driver = FaultyDriver()
    async with opened(driver) as runtime:
        claim = await running_elsewhere(runtime)
        progress = usage_progress(runtime.store, claim)
        driver.faults["set_usage"] = StoreUnavailable("unplugged")
        progress.put(Usage(llm_calls=1, last_ai_message="older"))
        await until(lambda: driver.counts.get("set_usage"))
        driver.faults.clear()
        progress.put(Usage(llm_calls=2, last_ai_message="newer"))
        await until(lambda: driver.counts["set_usage"] == 3)
        await progress.aclose()
        usage = (await runtime.runs.get(claim.run.run_id)).usage
        assert (usage.llm_calls, usage.last_ai_message) == (2, "newer")


async def running_elsewhere(runtime: Runtime) -> Claim:
    run = await runtime.runs.create_or_reject("t")
    claim = await runtime.store.attempts.claim(run.run_id, "another-worker", lease_s=60)
    assert claim is not None
    return claim


@pytest.mark.parametrize("ending", ["success", "error", "timeout", "interrupted"])
async def test_progress_after_the_end_writes_nothing(runtime: Runtime, ending: str) -> None:
    """Item 14."""
    run = await in_status(runtime, ending)
    assert not await runtime.runs.update_run_progress(run.run_id, total_tokens=5)
    assert (await runtime.runs.get(run.run_id)).usage == Usage()


@pytest.mark.parametrize("ending", ["success", "error", "timeout", "interrupted"])
async def test_usage_of_every_kind_of_ending_is_counted(runtime: Runtime, ending: str) -> None:
    """Item 14: D55, R11."""
    run = await in_status(runtime, "running")
    await runtime.runs.update_run_completion(run.run_id, status=ending, total_tokens=5)
    other = await runtime.runs.create_or_reject("t")
    await runtime.runs.set_status(other.run_id, "running")
    await runtime.runs.update_run_progress(other.run_id, total_tokens=3)
    assert (await runtime.runs.usage_by_thread("t")).total_tokens == 8


async def test_no_control_field_can_be_written_as_a_counter(runtime: Runtime) -> None:
    """Item 14: D34."""
    run = await runtime.runs.create_or_reject("t")
    for field in ("status_", "run_id_", "task", "owner_", "attempt"):
        with pytest.raises(InvalidRequest):
            await runtime.runs.update_run_progress(run.run_id, **{field: 1})
        with pytest.raises(InvalidRequest):
            await runtime.runs.update_run_completion(run.run_id, **{field: 1})
    assert await runtime.runs.get(run.run_id) == run


async def checkpoints(runtime: Runtime) -> list[Any]:
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    return [saved.config async for saved in runtime.saver.alist(config)]


async def settled() -> None:
    """Let everything that was started come to its end: nothing else is awaited here."""
    for _ in range(200):
        await asyncio.sleep(0)


async def shrunk(runtime: Runtime) -> None:
    """Wait until no map of the process has an entry."""
    await until(lambda: not (runtime.agents._attached or runtime.streams._live or runtime.worker._attempts))
