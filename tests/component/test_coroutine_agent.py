"""A plain coroutine, or an async generator of events, runs as an agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_kit import Desk, decoded, run_record
from runlane.agents.base import AgentCall
from runlane.agents.coroutine import CoroutineAgent, RunContext
from runlane.agents.encode import Unserialisable
from runlane.outcomes import Drained, Snapshot


async def test_what_the_function_returns_is_the_result() -> None:
    async def double(context: RunContext) -> dict[str, int]:
        return {"twice": context.input["n"] * 2}

    snapshot = await Desk(CoroutineAgent(double)).run(input={"n": 21})
    assert decoded(snapshot.values) == decoded(snapshot.result) == {"twice": 42}


async def test_a_function_that_returns_nothing_has_no_result() -> None:
    async def nothing(context: RunContext) -> None:
        return None

    assert await Desk(CoroutineAgent(nothing)).run() == Snapshot()


async def test_the_function_knows_its_run_and_emits_events() -> None:
    async def tell(context: RunContext) -> None:
        context.emit("ids", [context.run_id, context.thread_id, dict(context.metadata), context.drain_requested])

    at = Desk(CoroutineAgent(tell))
    run = run_record(run_metadata={"who": "ann"})
    await at.agent.run(at.call(run))
    assert at.events == [("ids", [run.run_id, "t", {"who": "ann"}, False])]


async def test_what_a_generator_yields_are_events_by_name_or_custom() -> None:
    async def count(context: RunContext) -> AsyncIterator[Any]:
        yield "step", {"n": 1}
        yield {"n": 2}
        yield "text"
        yield (1, 2)

    at = Desk(CoroutineAgent(count))
    assert await at.run() == Snapshot()
    assert at.events == [("step", {"n": 1}), ("custom", {"n": 2}), ("custom", "text"), ("custom", [1, 2])]


async def test_a_cancelled_generator_is_closed_before_the_run_is_over() -> None:
    closed: list[bool] = []

    async def endless(context: RunContext) -> AsyncIterator[Any]:
        try:
            yield "began", None
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    at = Desk(CoroutineAgent(endless))
    after = await at.stopped(lambda: at.seen("began"))
    assert closed == [True]
    assert after == Snapshot()


async def test_a_congested_stream_holds_the_generator_back() -> None:
    made: list[int] = []
    free = asyncio.Event()

    async def count(context: RunContext) -> AsyncIterator[Any]:
        for n in range(3):
            made.append(n)
            yield n

    async def ready() -> None:
        await free.wait()

    call = AgentCall(run=run_record(), emit=lambda name, data: None, congested=lambda: True, ready=ready)
    task = asyncio.ensure_future(CoroutineAgent(count).run(call))
    await asyncio.wait([task], timeout=0.01)
    assert made == [0]
    free.set()
    await task
    assert made == [0, 1, 2]


async def test_a_drain_is_seen_by_the_function_which_may_hand_itself_back() -> None:
    async def polite(context: RunContext) -> None:
        if context.drain_requested:
            raise Drained

    at = Desk(CoroutineAgent(polite))
    at.drain.request()
    with pytest.raises(Drained):
        await at.run()


async def test_a_payload_without_json_form_fails_the_run() -> None:
    async def wrong(context: RunContext) -> Any:
        return object()

    with pytest.raises(Unserialisable, match=r"builtins\.object"):
        await Desk(CoroutineAgent(wrong)).run()


def test_a_coroutine_is_not_handed_back_unless_it_says_so() -> None:
    async def nothing(context: RunContext) -> None:
        return None

    assert not CoroutineAgent(nothing).continuable
    assert CoroutineAgent(nothing, continuable=True).continuable
