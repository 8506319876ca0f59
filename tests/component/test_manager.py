"""What callers of ``RunManager`` may say, and what is kept of it."""

from __future__ import annotations

import pytest

from run_kit import at_once, ended
from runlane import CancelRecorded, IllegalTransition, InvalidRequest, MultitaskStrategy, RunStatus
from runlane.runtime import Runtime


async def test_create_takes_every_strategy_and_queues_by_default(runtime: Runtime) -> None:
    first = await runtime.runs.create("t")
    second = await runtime.runs.create("t")
    assert second.multitask_strategy is MultitaskStrategy.ENQUEUE
    third = await runtime.runs.create("t", multitask_strategy="interrupt", agent=at_once)
    assert (await ended(runtime, third)).status is RunStatus.SUCCESS
    for run in (first, second):
        assert (await runtime.runs.get(run.run_id)).status is RunStatus.INTERRUPTED


async def test_an_argument_that_does_not_exist_is_refused(runtime: Runtime) -> None:
    for create in (runtime.runs.create, runtime.runs.create_or_reject):
        with pytest.raises(TypeError, match="idempotency_keys"):
            await create("t", idempotency_keys="k")  # type: ignore[call-arg]  # a misspelt name
    assert await runtime.runs.list_by_thread("t") == []


async def test_counters_may_be_spelt_as_another_run_manager_spells_them(runtime: Runtime) -> None:
    run = await runtime.runs.create_or_reject("t")
    await runtime.runs.set_status(run.run_id, "running")
    assert await runtime.runs.update_run_progress(run.run_id, total_input_tokens=3, last_ai_message="hi")
    done = await runtime.runs.update_run_completion(
        run.run_id, status="success", total_input_tokens=4, total_output_tokens=2, llm_call_count=1, total_tokens=6
    )
    usage = done.usage
    assert (usage.input_tokens, usage.output_tokens, usage.llm_calls, usage.total_tokens) == (4, 2, 1, 6)
    assert usage.last_ai_message == "hi"


async def test_one_counter_in_two_spellings_is_refused(runtime: Runtime) -> None:
    run = await runtime.runs.create_or_reject("t")
    with pytest.raises(InvalidRequest, match="input_tokens"):
        await runtime.runs.update_run_completion(run.run_id, input_tokens=1, total_input_tokens=2)


async def test_counters_are_kept_when_the_final_status_conflicts(runtime: Runtime) -> None:
    """The tokens were spent, however the run ended."""
    run = await runtime.runs.create_or_reject("t")
    await runtime.runs.set_status(run.run_id, "running")
    await runtime.runs.cancel(run.run_id)
    with pytest.raises(CancelRecorded):
        await runtime.runs.update_run_completion(run.run_id, status="success", total_tokens=5)
    assert (await runtime.runs.get(run.run_id)).usage.total_tokens == 5
    await runtime.runs.set_status(run.run_id, "interrupted")
    with pytest.raises(IllegalTransition):
        await runtime.runs.update_run_completion(run.run_id, status="success", total_tokens=7)
    stopped = await runtime.runs.get(run.run_id)
    assert (stopped.status, stopped.usage.total_tokens) == (RunStatus.INTERRUPTED, 7)


async def test_a_completion_says_how_the_run_failed(runtime: Runtime) -> None:
    run = await runtime.runs.create_or_reject("t")
    await runtime.runs.set_status(run.run_id, "running")
    failed = await runtime.runs.update_run_completion(run.run_id, status="error", error="no such city", total_tokens=1)
    assert failed.error is not None
    assert (failed.error.message, failed.usage.total_tokens) == ("no such city", 1)
