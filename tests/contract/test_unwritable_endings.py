"""P2: texts and numbers that a database does not take end the run all the same, once, and execute nothing again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from agent_kit import StrictModel
from run_kit import at_once, ended, items, opened
from runlane.agents.coroutine import RunContext
from runlane.lifecycle import RunStatus
from runlane.records import StreamEnd, StreamEvent
from runlane.runtime import Runtime
from runlane.store.statements import Driver

LONE = "a\ud800b"
NUL = "a\0b"
HUGE = 2**70


@pytest.fixture
async def runtime(driver: Driver) -> AsyncIterator[Runtime]:
    async with opened(driver, exclusive=True) as made:
        yield made


class Unprintable(ValueError):
    def __str__(self) -> str:
        raise LookupError("no text")


async def ended_once(runtime: Runtime, agent: Any) -> Any:
    """Run *agent*; return its run and its events, and see that it was executed once and that its thread goes on."""
    calls = 0

    async def counting(context: RunContext) -> Any:
        nonlocal calls
        calls += 1
        return await agent(context)

    run = await ended(runtime, await runtime.runs.create_or_reject("t", agent=counting))
    found = await items(runtime, run.run_id)
    assert isinstance(found[-1], StreamEnd)
    following = await ended(runtime, await runtime.runs.create_or_reject("t", agent=at_once))
    assert (following.status, calls, run.attempt) == (RunStatus.SUCCESS, 1, 1)
    return run, [item for item in found if isinstance(item, StreamEvent)]


@pytest.mark.parametrize("text", [LONE, NUL], ids=["lone surrogate", "NUL"])
async def test_an_error_whose_text_no_database_takes_is_recorded_with_a_replacement(
    runtime: Runtime, text: str
) -> None:
    async def agent(context: RunContext) -> None:
        raise ValueError(text)

    run, events = await ended_once(runtime, agent)
    assert (run.status, run.error.message) == (RunStatus.ERROR, "a\ufffdb")
    assert [event.name for event in events] == ["metadata", "error"]


async def test_an_error_that_has_no_text_ends_its_run(runtime: Runtime) -> None:
    async def agent(context: RunContext) -> None:
        raise Unprintable

    run, events = await ended_once(runtime, agent)
    assert run.status is RunStatus.ERROR
    assert [event.name for event in events] == ["metadata", "error"]


@pytest.mark.parametrize("text", [LONE, NUL], ids=["lone surrogate", "NUL"])
async def test_an_event_whose_name_no_database_takes_is_published_with_a_replacement(
    runtime: Runtime, text: str
) -> None:
    async def agent(context: RunContext) -> None:
        context.emit(text, 1)

    run, events = await ended_once(runtime, agent)
    assert (run.status, [event.name for event in events]) == (RunStatus.SUCCESS, ["metadata", "a\ufffdb"])


@pytest.mark.parametrize("text", [LONE, NUL], ids=["lone surrogate", "NUL"])
async def test_messages_and_models_whose_texts_no_database_takes_are_counted(runtime: Runtime, text: str) -> None:
    reply = AIMessage(text, response_metadata={"model_name": text}, usage_metadata=tokens(1))
    model = StrictModel(replies=[reply])

    async def agent(context: RunContext) -> None:
        await model.ainvoke([HumanMessage(text)], config={"callbacks": list(context.call.callbacks)})

    run, _ = await ended_once(runtime, agent)
    assert run.status is RunStatus.SUCCESS
    assert (run.usage.first_human_message, run.usage.last_ai_message) == ("a\ufffdb", "a\ufffdb")


async def test_a_count_of_tokens_that_no_database_takes_does_not_keep_a_run_from_ending(runtime: Runtime) -> None:
    model = StrictModel(replies=[AIMessage("x", usage_metadata=tokens(HUGE))])

    async def agent(context: RunContext) -> None:
        await model.ainvoke([HumanMessage("y")], config={"callbacks": list(context.call.callbacks)})

    run, _ = await ended_once(runtime, agent)
    assert run.status is RunStatus.SUCCESS


@pytest.mark.parametrize("value", [HUGE, LONE, NUL, {LONE: NUL}, [float("nan")]], ids=repr)
async def test_a_result_of_values_that_no_database_takes_is_recorded(runtime: Runtime, value: Any) -> None:
    async def agent(context: RunContext) -> Any:
        return value

    run, _ = await ended_once(runtime, agent)
    assert run.status is RunStatus.SUCCESS


async def test_a_branch_that_is_abandoned_in_a_file_with_an_odd_name_ends_its_run(runtime: Runtime) -> None:
    names: dict[str, Any] = {"asyncio": asyncio}
    source = (
        "async def deaf(go):\n"
        "    while not go.is_set():\n"
        "        try:\n"
        "            await asyncio.sleep(3600)\n"
        "        except asyncio.CancelledError:\n"
        "            continue\n"
    )
    exec(compile(source, "a\udcffb.py", "exec"), names)
    go, began, tasks = asyncio.Event(), asyncio.Event(), []

    async def agent(context: RunContext) -> None:
        tasks.append(asyncio.current_task())
        began.set()
        await names["deaf"](go)

    run = await runtime.runs.create_or_reject("t", agent=agent)
    await began.wait()
    receipt = await runtime.runs.cancel(run.run_id, wait=True)
    assert receipt is not None
    assert "a\ufffdb.py" in str(receipt.blocked_at)
    go.set()
    tasks[0].cancel()


def tokens(count: int) -> Any:
    return {"input_tokens": count, "output_tokens": 0, "total_tokens": count}
