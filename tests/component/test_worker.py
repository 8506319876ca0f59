"""The worker: slots, stages of a cancel, deadlines, drain and hand-back, and agents that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from agent_kit import StrictModel
from run_kit import (
    CLAIMS,
    ONCE,
    PATIENCE_S,
    FaultyDriver,
    Queueing,
    Scripted,
    Stepper,
    at_once,
    ended,
    graph_run,
    items,
    on_jumping_time,
    opened,
    soon,
    status,
    until,
)
from runlane import StoreUnavailable
from runlane.agents.base import AgentCall
from runlane.agents.coroutine import CoroutineAgent, RunContext
from runlane.agents.host import Handle, ThreadHost
from runlane.agents.isolation import GraphHosts
from runlane.execution.attempt import Attempt
from runlane.execution.progress import NewestValue
from runlane.journal.journal import AttemptJournal
from runlane.lifecycle import EndReason, RunStatus
from runlane.outcomes import Drained
from runlane.records import ANY_OWNER, RunRecord, StreamEvent
from runlane.runtime import Runtime
from runlane.store.statements import Transaction
from runlane.store.transactions.run_search import RunFilter
from runlane.work import Work

OF_AN_ATTEMPT = (Attempt, AttemptJournal, AgentCall, Handle, Work, NewestValue, RunRecord)

# ------------------------------------------------------------------------------------------------------------- slots


async def test_no_more_runs_execute_than_there_are_slots_and_none_starves() -> None:
    agents = [Scripted() for _ in range(6)]
    async with opened(max_concurrent_runs=2) as runtime:
        runs = [await runtime.runs.create_or_reject(f"t{n}", agent=agent) for n, agent in enumerate(agents)]
        for agent in agents:
            await soon(agent.started.wait())
            assert sum(other.running for other in agents) <= 2
            agent.go.set()
        for run in runs:
            assert (await ended(runtime, run)).status is RunStatus.SUCCESS


async def test_a_run_that_has_ended_leaves_nothing_to_the_garbage_collector() -> None:
    """What an attempt refers to, such as a large state, is gone with it."""
    stepper = Stepper()
    stepper.go.set()
    left: set[str] = set()
    async with opened(graphs={"g": stepper.graph()}, new_host=ThreadHost) as runtime:
        for thread in ("before", "t"):
            gc.collect()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                run = await runtime.runs.create(thread, kwargs=graph_run())
                assert (await ended(runtime, run)).status is RunStatus.SUCCESS
                await until(lambda: not runtime.worker.executing)
                gc.collect()
                left = {type(thing).__name__ for thing in gc.garbage if isinstance(thing, OF_AN_ATTEMPT)}
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
    assert left == set()


async def test_a_long_lane_holds_one_slot() -> None:
    first, other = Scripted(), Scripted()
    async with opened(max_concurrent_runs=2) as runtime:
        head = await runtime.runs.create("t", agent=first)
        queued = [await runtime.runs.create("t", agent=at_once) for _ in range(5)]
        await soon(first.started.wait())
        await runtime.runs.create("u", agent=other)
        await soon(other.started.wait())
        other.go.set()
        first.go.set()
        for run in (head, *queued):
            assert (await ended(runtime, run)).status is RunStatus.SUCCESS


async def test_a_run_that_waited_is_of_the_build_that_executes_it() -> None:
    stepper = Stepper()
    stepper.go.set()
    async with opened(graphs={"g": stepper.graph()}, max_concurrent_runs=1, build="b1") as runtime:
        agent = Scripted()
        first = await runtime.runs.create_or_reject("t1", agent=agent)
        waiting = await runtime.runs.create_or_reject("t2", kwargs=graph_run())
        agent.go.set()
        await ended(runtime, waiting)
        of_build = await runtime.store.runs.search(owner=ANY_OWNER, where=RunFilter(build="b1"), limit=9)
    assert {run.run_id for run in of_build.runs} == {first.run_id, waiting.run_id}


async def test_a_claim_that_fails_for_a_passing_reason_is_made_later() -> None:
    driver = FaultyDriver()
    async with opened(driver, retry=ONCE, poll_s=0.02, new_dispatch=Queueing) as runtime:
        driver.faults["claim_run"] = StoreUnavailable("busy")
        run = await runtime.runs.create_or_reject("t", agent=at_once)
        await until(lambda: driver.counts.get("claim_run"))
        driver.faults.clear()
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS


# ----------------------------------------------------------------------------------------------- stages of a cancel


async def test_a_cancel_lets_the_agent_clean_up(runtime: Runtime) -> None:
    cleaned: list[str] = []
    started = asyncio.Event()

    async def tidy(context: RunContext) -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(context.run_id)

    run = await runtime.runs.create_or_reject("t", agent=tidy)
    await soon(started.wait())
    receipt = await soon(runtime.runs.cancel(run.run_id, wait=True, by="ann"))
    assert cleaned == [run.run_id]
    assert receipt is not None
    assert receipt.requested_at <= receipt.observed_at <= receipt.stopped_at
    assert (receipt.requested_by, receipt.blocked_at) == ("ann", None)


@pytest.mark.parametrize(("claims", "new_dispatch"), CLAIMS)
@on_jumping_time
async def test_a_cancel_that_comes_while_the_claim_is_answered_is_passed_on_at_once(
    claims: str, new_dispatch: Any
) -> None:
    class SlowAnswers(FaultyDriver):
        async def write(self, transaction: Transaction[Any]) -> Any:
            name, answer = transaction.__name__, await super().write(transaction)
            if name == claims:
                claimed.set()
                await answered.wait()
            return answer

    async def endless(context: RunContext) -> None:
        await asyncio.Event().wait()

    claimed, answered = asyncio.Event(), asyncio.Event()
    async with opened(SlowAnswers(), new_dispatch=new_dispatch) as runtime:
        creating = asyncio.create_task(runtime.runs.create_or_reject("t", agent=endless))
        await soon(claimed.wait())
        (run,) = await runtime.runs.list_by_thread("t")
        cancelling = asyncio.create_task(runtime.runs.cancel(run.run_id, wait=True))
        await asyncio.sleep(0.1)
        assert (await runtime.runs.get(run.run_id)).cancel is not None
        answered.set()
        await creating
        began = asyncio.get_running_loop().time()
        receipt = await soon(cancelling)
    assert receipt is not None
    assert receipt.stopped_at is not None
    assert asyncio.get_running_loop().time() - began < 1


@on_jumping_time
async def test_an_agent_that_swallows_the_first_cancel_is_cancelled_again() -> None:
    cancels = 0
    started = asyncio.Event()

    async def deaf_once(context: RunContext) -> None:
        nonlocal cancels
        started.set()
        while cancels < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancels += 1

    async with opened(cancel_grace_s=5.0, abandon_after_s=5.0) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=deaf_once)
        await started.wait()
        receipt = await runtime.runs.cancel(run.run_id, wait=True)
        assert cancels == 2
        assert receipt is not None
        assert receipt.stopped_at is not None
        assert (await runtime.runs.get(run.run_id)).status is RunStatus.INTERRUPTED  # though it returned


async def test_code_that_ignores_every_cancel_is_abandoned_and_named() -> None:
    never = asyncio.Event()
    started = asyncio.Event()

    async def stubborn(context: RunContext) -> None:
        started.set()
        while not never.is_set():
            try:
                await never.wait()
            except asyncio.CancelledError:
                continue
        context.emit("late", 1)

    async with opened() as runtime:
        run = await runtime.runs.create_or_reject("t", agent=stubborn)
        await soon(started.wait())
        receipt = await soon(runtime.runs.cancel(run.run_id, wait=True))
        before = await items(runtime, run.run_id)
        never.set()
        for _ in range(50):
            await asyncio.sleep(0)
        assert await items(runtime, run.run_id) == before
        assert receipt is not None
        assert receipt.stopped_at is None
        assert "test_worker.py:" in str(receipt.blocked_at)


class Number(TypedDict):
    n: int


async def test_a_blocked_synchronous_node_is_named_by_file_and_line() -> None:
    entered, leave = threading.Event(), threading.Event()

    def node(state: Number) -> Number:
        entered.set()
        leave.wait(30)
        return {"n": 1}

    graph = StateGraph(Number).add_node("node", node).add_edge(START, "node").add_edge("node", END)
    async with opened(graphs={"g": graph}, new_host=ThreadHost) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run(input={"n": 0}))
        await asyncio.get_running_loop().run_in_executor(None, entered.wait, 20)
        began = time.monotonic()
        receipt = await soon(runtime.runs.cancel(run.run_id, wait=True))
        assert time.monotonic() - began < 10
        assert receipt is not None
        assert receipt.stopped_at is None
        assert "threading.py:" in str(receipt.blocked_at) or "test_worker.py:" in str(receipt.blocked_at)
        leave.set()


@pytest.mark.parametrize("synchronous", [True, False], ids=["in a thread", "on the loop"])
async def test_code_that_outlives_its_deadline_is_named_in_the_log_and_so_is_its_end(
    synchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    entered, gate = threading.Event(), threading.Lock()

    def blocking(state: Number) -> Number:
        entered.set()
        with gate:
            return {"n": 1}

    async def blocking_the_loop(state: Number) -> Number:
        return blocking(state)

    node = blocking if synchronous else blocking_the_loop
    graph = StateGraph(Number).add_node("node", node).add_edge(START, "node").add_edge("node", END)
    async with opened(graphs={"g": graph}, new_host=ThreadHost, run_timeout_s=0.2) as runtime:
        with gate:
            run = await runtime.runs.create_or_reject("t", kwargs=graph_run(input={"n": 0}))
            await soon(asyncio.to_thread(entered.wait, 20))
            assert (await ended(runtime, run)).status is RunStatus.TIMEOUT
            left = warnings_of(caplog, "agent.abandoned ")
            [said] = [line for line in left if f"run_id={run.run_id} attempt=1 place=" in line]  # not of the repair
            assert "test_worker.py:" in said
            assert said.endswith("blocking")
            assert len(runtime.host.abandoned) == len(left) - len(warnings_of(caplog, "agent.abandoned_ended"))
        await until(lambda: not runtime.host.abandoned)
        over = warnings_of(caplog, "agent.abandoned_ended ")
        assert len(over) == len(left)
        assert any(f"run_id={run.run_id} attempt=1 after_s=" in line for line in over)


def warnings_of(caplog: pytest.LogCaptureFixture, key: str) -> list[str]:
    """Return the warnings that begin with *key*."""
    return [text for one in caplog.records if one.levelname == "WARNING" and (text := one.getMessage()).startswith(key)]


async def test_code_that_stops_when_it_is_told_to_is_not_abandoned(caplog: pytest.LogCaptureFixture) -> None:
    started = asyncio.Event()

    async def waits(context: RunContext) -> None:
        started.set()
        await asyncio.Event().wait()

    async with opened(run_timeout_s=0.05, cancel_grace_s=PATIENCE_S) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=waits)
        assert (await ended(runtime, run)).status is RunStatus.TIMEOUT
        assert not runtime.host.abandoned
    assert started.is_set()
    assert not warnings_of(caplog, "agent.abandoned")


async def test_an_asynchronous_node_that_swallows_its_cancel_is_named_by_file_and_line() -> None:
    entered, leave = threading.Event(), threading.Event()

    async def swallowing(state: Number) -> Number:
        entered.set()
        while not leave.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        return {"n": 1}

    graph = StateGraph(Number).add_node("node", swallowing).add_edge(START, "node").add_edge("node", END)
    async with opened(graphs={"g": graph}, new_host=ThreadHost) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run(input={"n": 0}))
        await asyncio.get_running_loop().run_in_executor(None, entered.wait, 20)
        receipt = await soon(runtime.runs.cancel(run.run_id, wait=True))
        assert receipt is not None
        assert receipt.stopped_at is None
        assert "test_worker.py:" in str(receipt.blocked_at)
        assert str(receipt.blocked_at).endswith("swallowing")
        leave.set()


async def test_the_control_loop_answers_while_a_node_blocks_its_loop() -> None:
    entered, leave = threading.Event(), threading.Event()

    async def node(state: Number) -> Number:
        entered.set()
        leave.wait(30)
        return {"n": 1}

    graph = StateGraph(Number).add_node("node", node).add_edge(START, "node").add_edge("node", END)
    async with opened(graphs={"g": graph}, new_host=ThreadHost) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run(input={"n": 0}))
        await asyncio.get_running_loop().run_in_executor(None, entered.wait, 20)
        assert await status(runtime, run) is RunStatus.RUNNING
        receipt = await soon(runtime.runs.cancel(run.run_id, wait=True))
        assert receipt is not None
        assert receipt.blocked_at is not None
        leave.set()


async def test_a_node_that_blocks_delays_no_run_of_another_graph_if_graphs_are_isolated() -> None:
    entered, leave = threading.Event(), threading.Event()

    async def blocking(state: Number) -> Number:
        entered.set()
        leave.wait(30)
        return {"n": 1}

    async def quick(state: Number) -> Number:
        return {"n": 2}

    def graph(node: Any) -> Any:
        return StateGraph(Number).add_node("node", node).add_edge(START, "node").add_edge("node", END)

    graphs = {"g": graph(blocking), "quick": graph(quick)}
    async with opened(graphs=graphs, new_host=GraphHosts) as runtime:
        blocked = await runtime.runs.create_or_reject("t", kwargs=graph_run(input={"n": 0}))
        await asyncio.get_running_loop().run_in_executor(None, entered.wait, 20)
        other = await runtime.runs.create_or_reject("u", kwargs={**graph_run(input={"n": 0}), "graph_id": "quick"})
        assert (await ended(runtime, other)).status is RunStatus.SUCCESS
        assert await status(runtime, blocked) is RunStatus.RUNNING
        receipt = await soon(runtime.runs.cancel(blocked.run_id, wait=True))
        assert receipt is not None
        assert receipt.blocked_at is not None
        assert runtime.host.abandoned
        leave.set()
        await until(lambda: not runtime.host.abandoned)


# --------------------------------------------------------------------------------------------------- how runs end


@on_jumping_time
async def test_a_run_that_takes_too_long_ends_as_a_timeout() -> None:
    agent = Scripted()
    async with opened(run_timeout_s=60.0) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=agent)
        ending = await runtime.runs.join(run.run_id)
        assert (ending.status, ending.end_reason) == (RunStatus.TIMEOUT, EndReason.DEADLINE)
        names = [item.name for item in await items(runtime, run.run_id) if isinstance(item, StreamEvent)]
        assert names == ["metadata", "error"]


@pytest.mark.parametrize(
    "raised", [SystemExit("private"), KeyboardInterrupt(), StopIteration("private"), GeneratorExit("private")], ids=repr
)
async def test_an_agent_that_raises_what_ends_processes_fails_its_run_only(
    runtime: Runtime, raised: BaseException
) -> None:
    async def agent(context: RunContext) -> None:
        await asyncio.sleep(0)
        raise raised

    failed = await ended(runtime, await runtime.runs.create_or_reject("t", agent=agent))
    assert (failed.status, failed.end_reason) == (RunStatus.ERROR, EndReason.FAILED)
    assert failed.error is not None
    assert "private" not in failed.error.message
    assert (await ended(runtime, await runtime.runs.create_or_reject("t", agent=at_once))).status is RunStatus.SUCCESS


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt()], ids=repr)
async def test_a_node_that_raises_what_ends_processes_fails_its_run_only(raised: BaseException) -> None:
    async def node(state: Number) -> Number:
        raise raised

    graph = StateGraph(Number).add_node("node", node).add_edge(START, "node").add_edge("node", END)
    async with opened(graphs={"g": graph}, new_host=ThreadHost) as runtime:
        for thread_id in ("t", "u"):
            run = await runtime.runs.create_or_reject(thread_id, kwargs=graph_run(input={"n": 0}))
            assert (await ended(runtime, run)).status is RunStatus.ERROR


async def test_an_agent_that_cancels_itself_has_failed(runtime: Runtime) -> None:
    async def agent(context: RunContext) -> None:
        raise asyncio.CancelledError

    failed = await ended(runtime, await runtime.runs.create_or_reject("t", agent=agent))
    assert (failed.status, failed.end_reason, failed.cancel) == (RunStatus.ERROR, EndReason.FAILED, None)
    assert failed.error is not None
    assert failed.error.error == "CancelledError"


async def test_an_event_without_json_form_fails_its_run(runtime: Runtime) -> None:
    async def agent(context: RunContext) -> None:
        context.emit("bad", object())

    failed = await ended(runtime, await runtime.runs.create_or_reject("t", agent=agent))
    assert failed.status is RunStatus.ERROR


@pytest.mark.parametrize("how", ["cancel", "fail"])
async def test_usage_of_a_run_that_was_cut_short_is_recorded(how: str) -> None:
    called = asyncio.Event()
    model = StrictModel(replies=[AIMessage("hi", usage_metadata=tokens(3, 4))])

    async def node(state: MessagesState) -> dict[str, Any]:
        await model.ainvoke(state["messages"])
        called.set()
        if how == "fail":
            raise ValueError("no")
        await asyncio.Event().wait()
        return {}

    graph = StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").add_edge("node", END)
    async with opened(graphs={"g": graph}) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run(input={"messages": [("user", "hello")]}))
        await soon(called.wait())
        if how == "cancel":
            await runtime.runs.cancel(run.run_id)
        stopped = await ended(runtime, run)
        assert stopped.status is (RunStatus.INTERRUPTED if how == "cancel" else RunStatus.ERROR)
        assert stopped.usage.llm_calls == 1
        assert (await runtime.runs.usage_by_thread("t")).llm_calls == 1


async def test_progress_of_a_later_attempt_has_what_earlier_ones_used() -> None:
    driver, go = FaultyDriver(), asyncio.Event()
    model = StrictModel(replies=[AIMessage("hi", usage_metadata=tokens(3, 4))] * 2)

    async def node(state: MessagesState) -> dict[str, Any]:
        await model.ainvoke(state["messages"])
        await go.wait()
        return {}

    graph = StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").add_edge("node", END)

    async def used(runtime: Runtime, calls: int) -> RunRecord:
        while True:
            found = await runtime.runs.get(run.run_id)
            if found.usage.llm_calls >= calls:
                return found
            await asyncio.sleep(0)  # a ledger in memory answers without letting others go on

    async with opened(driver, graphs={"g": graph}) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run(input={"messages": [("user", "hello")]}))
        await soon(used(runtime, 1))
    async with opened(driver, graphs={"g": graph}) as runtime:
        again = await soon(used(runtime, 2))
        assert (again.status, again.attempt, again.usage.total_tokens) == (RunStatus.RUNNING, 2, 14)
        go.set()
        done = await ended(runtime, run)
        assert (done.usage.llm_calls, done.usage.total_tokens) == (2, 14)
        assert [counts["llm_calls"] for counts in done.usage.by_model.values()] == [2]


async def test_a_hook_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    heard = asyncio.Event()

    async def bad(run: Any) -> None:
        raise RuntimeError("mine")

    async def good(run: Any) -> None:
        heard.set()

    async with opened(hooks=[bad, good]) as runtime:
        assert (await ended(runtime, await runtime.runs.create("t", agent=at_once))).status is RunStatus.SUCCESS
        await soon(heard.wait())
        assert (await ended(runtime, await runtime.runs.create("t", agent=at_once))).status is RunStatus.SUCCESS
    assert "run.hook_failed" in caplog.text


@on_jumping_time
async def test_a_hook_that_hangs_does_not_keep_the_process() -> None:
    hanging, told = asyncio.Event(), asyncio.Event()

    async def hangs(run: Any) -> None:
        hanging.set()
        try:
            await asyncio.Event().wait()
        finally:
            told.set()

    async with asyncio.timeout(600), opened(hooks=[hangs]) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=at_once)
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS
        await hanging.wait()
        assert not told.is_set()
    assert told.is_set()


# ------------------------------------------------------------------------------------------------------------ drain


async def test_a_drain_lets_runs_finish_in_its_grace_time(runtime: Runtime) -> None:
    agent = Scripted()
    run = await runtime.runs.create_or_reject("t", agent=agent)
    queued = await runtime.runs.create("t", agent=at_once)
    await soon(agent.started.wait())
    drain = asyncio.create_task(runtime.worker.drain(60))
    await asyncio.sleep(0)
    agent.go.set()
    await soon(drain)
    assert await status(runtime, run) is RunStatus.SUCCESS
    assert await status(runtime, queued) is RunStatus.PENDING  # nothing more was started


async def test_a_drained_graph_is_handed_back_at_a_boundary_and_goes_on_without_repeating_a_step() -> None:
    driver = FaultyDriver()
    stepper = Stepper()
    async with opened(driver, graphs={"g": stepper.graph()}, cancel_grace_s=20) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        await soon(stepper.started.wait())
        drain = asyncio.create_task(runtime.worker.drain(0.001))
        attempt = runtime.worker._attempts[run.run_id, 1]
        await until(lambda: attempt.reason is not None)
        stepper.go.set()
        await soon(drain)
        released = await runtime.runs.get(run.run_id)
        assert (released.status, released.attempt, released.rescues) == (RunStatus.PENDING, 1, 0)
    assert stepper.calls == ["first", "second"]
    async with opened(driver, graphs={"g": stepper.graph()}) as runtime:
        done = await ended(runtime, run)
        assert (done.status, done.attempt, done.rescues) == (RunStatus.SUCCESS, 2, 0)
    assert stepper.calls == ["first", "second", "third"]


async def test_a_drained_graph_that_reaches_no_boundary_is_stopped_and_handed_back() -> None:
    driver = FaultyDriver()
    stepper = Stepper()
    async with opened(driver, graphs={"g": stepper.graph()}) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        await soon(stepper.started.wait())
    stepper.go.set()
    async with opened(driver, graphs={"g": stepper.graph()}) as runtime:
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS
    assert stepper.calls == ["first", "second", "second", "third"]


async def test_a_coroutine_that_nobody_can_continue_ends_with_the_process(runtime: Runtime) -> None:
    agent = Scripted()
    run = await runtime.runs.create_or_reject("t", agent=agent)
    await soon(agent.started.wait())
    await soon(runtime.runs.shutdown(0))
    stopped = await runtime.runs.get(run.run_id)
    assert (stopped.status, stopped.end_reason) == (RunStatus.INTERRUPTED, EndReason.DRAINED_OVER)


async def test_a_coroutine_that_drains_by_itself_is_handed_back(runtime: Runtime) -> None:
    started = asyncio.Event()

    async def polite(context: RunContext) -> None:
        started.set()
        await until(lambda: context.drain_requested)
        raise Drained

    run = await runtime.runs.create_or_reject("t", agent=CoroutineAgent(polite, continuable=True))
    await soon(started.wait())
    await soon(runtime.runs.shutdown(0))
    assert await status(runtime, run) is RunStatus.PENDING


async def test_a_run_that_was_cancelled_before_the_drain_is_not_handed_back() -> None:
    driver = FaultyDriver()
    stepper = Stepper()
    async with opened(driver, graphs={"g": stepper.graph()}) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        await soon(stepper.started.wait())
        await runtime.runs.cancel(run.run_id)
        await soon(runtime.runs.shutdown(0))
        assert await status(runtime, run) is RunStatus.INTERRUPTED


async def test_a_second_drain_waits_for_the_same(runtime: Runtime) -> None:
    agent = Scripted(clean=False)
    run = await runtime.runs.create_or_reject("t", agent=agent)
    await soon(agent.started.wait())
    drains = [asyncio.create_task(runtime.worker.drain(grace)) for grace in (60, 0, 0)]
    await soon(agent.stopping.wait())  # the shorter grace time counts
    assert not any(drain.done() for drain in drains)
    agent.cleaned.set()
    await soon(asyncio.gather(*drains))
    assert (await runtime.runs.get(run.run_id)).status.terminal
    await soon(runtime.worker.drain(0))


def tokens(read: int, written: int) -> Any:
    return {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
