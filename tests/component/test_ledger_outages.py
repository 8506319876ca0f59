"""The ledger is out for seconds or for minutes while runs execute: none is lost, none is told a lie about.

``RUNLANE_OUTAGE_S`` (default 2) is how long a real file is locked.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import Runtime as GraphRuntime

from agent_kit import tool_call
from ledger_kit import a_run, claim, held
from run_kit import CLAIMS, FaultyDriver, Queueing, Scripted, graph_run, on_virtual_time, opened, until
from runlane.agents.coroutine import CoroutineAgent, RunContext
from runlane.errors import StoreUnavailable
from runlane.execution.draining import OUTAGE_LIMIT_S
from runlane.journal.queue import MAX_EVENT_BYTES
from runlane.leases import WorkerState
from runlane.lifecycle import CancelAction, EndReason, RunStatus
from runlane.records import ANY_OWNER, RunRecord, StreamEnd, StreamEvent, StreamItem
from runlane.runtime import Runtime
from runlane.store.drivers.sqlite import now_us
from runlane.store.ledger import RunStore
from runlane.store.statements import Transaction
from simulation.mutants import IMPATIENT
from simulation.seams import applied

LEASE_S, STEP_S, STEPS = 30.0, 2.0, 30
LONG_S = 600.0
OUTAGE_S = float(os.environ.get("RUNLANE_OUTAGE_S", "2"))


class Log(TypedDict, total=False):
    log: list[int]


class Walk:
    """A graph of as many steps as are wanted, of some seconds each; it counts how often each is taken."""

    def __init__(self, steps: int = STEPS, step_s: float = STEP_S) -> None:
        self.taken: Counter[int] = Counter()
        self.steps, self._step_s, self.stopped = steps, step_s, False
        self._begun: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)

    def graph(self) -> StateGraph[Any]:
        graph = StateGraph(Log).add_node("step", self._step)
        return graph.add_edge(START, "step").add_conditional_edges("step", self._next, ["step", END])

    async def _step(self, state: Log) -> Log:
        number = len(state.get("log", [])) + 1
        self.taken[number] += 1
        self._begun[number].set()
        try:
            await asyncio.sleep(self._step_s)
        except asyncio.CancelledError:
            self.stopped = True
            raise
        return {"log": [*state.get("log", []), number]}

    def _next(self, state: Log) -> str:
        return "step" if len(state["log"]) < self.steps else END

    async def reaches(self, number: int) -> None:
        await self._begun[number].wait()


def a_ledger() -> FaultyDriver:
    """Return a ledger whose clock goes along, so that leases end there too."""
    loop, began_us = asyncio.get_running_loop(), now_us()
    began_s = loop.time()
    return FaultyDriver(clock=lambda: began_us + int((loop.time() - began_s) * 1_000_000))


async def ended(runtime: Runtime, run: RunRecord) -> RunRecord:
    """Wait, on the virtual clock, until *run* has ended, and return it."""
    await runtime.runs.join(run.run_id)
    return await runtime.runs.get(run.run_id)


def failing(began: asyncio.Event) -> StateGraph[Any]:
    """Return a graph whose model calls a tool that fails after a second."""

    async def agent(state: MessagesState) -> dict[str, list[AnyMessage]]:
        return {"messages": [AIMessage("On it.", tool_calls=[tool_call("slow", "c1")])]}

    async def tools(state: MessagesState) -> dict[str, list[AnyMessage]]:
        began.set()
        await asyncio.sleep(1)
        raise ValueError("as told")

    graph = StateGraph(MessagesState).add_node("agent", agent).add_node("tools", tools)
    return graph.add_edge(START, "agent").add_edge("agent", "tools").add_edge("tools", END)


async def outage(driver: FaultyDriver, seconds: float) -> None:
    driver.out = True
    await asyncio.sleep(seconds)
    driver.out = False


def watched(runtime: Runtime, run: RunRecord) -> asyncio.Task[list[StreamItem]]:
    """Read the run's stream from now on, as a viewer that stays."""

    async def read() -> list[StreamItem]:
        return [item async for item in runtime.streams.subscribe(run.run_id)]

    return asyncio.create_task(read())


def check_whole(found: list[StreamItem]) -> None:
    """Check that a viewer has got all, and no word of an error."""
    events = [item for item in found if isinstance(item, StreamEvent)]
    assert [type(item) for item in found] == [StreamEvent] * len(events) + [StreamEnd]
    assert [item.seq for item in events] == list(range(1, len(events) + 1))
    assert "error" not in {item.name for item in events}


@pytest.mark.parametrize(("seconds", "attempts"), [(5.0, 1), (20.0, 1), (60.0, 2), (LONG_S, 2)])
@on_virtual_time
async def test_a_run_goes_on_after_an_outage_of_any_length_and_repeats_no_step_that_was_done(
    seconds: float, attempts: int
) -> None:
    driver, walk = a_ledger(), Walk()
    async with opened(driver, graphs={"g": walk.graph()}, lease_s=LEASE_S) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run(stream_mode=["updates"]))
        viewer = watched(runtime, run)
        await walk.reaches(3)
        await outage(driver, seconds)
        over = await ended(runtime, run)
        thread = await runtime.store.threads.get("t", owner=ANY_OWNER)
    assert (over.status, over.end_reason) == (RunStatus.SUCCESS, EndReason.COMPLETED)
    assert (over.attempt, over.rescues) == (attempts, 0)
    assert thread.status == "idle"
    assert sorted(walk.taken) == list(range(1, STEPS + 1))
    # The step that was being taken when the lease was over is taken again; what was done before it is not.
    repeated = [step for step, count in walk.taken.items() if count > 1]
    assert len(repeated) <= attempts - 1
    check_whole(await viewer)


@on_virtual_time
async def test_an_outage_is_not_charged_to_the_run_however_often_it_happens() -> None:
    driver, walk = a_ledger(), Walk()
    async with opened(driver, graphs={"g": walk.graph()}, lease_s=LEASE_S, max_rescues=0) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        for step in (3, 20, 26):
            await walk.reaches(step)
            await outage(driver, 2 * LEASE_S)
        over = await ended(runtime, run)
    assert (over.status, over.rescues) == (RunStatus.SUCCESS, 0)


@on_virtual_time
async def test_code_that_is_done_during_an_outage_is_not_executed_again() -> None:
    driver, agent = a_ledger(), Scripted(result="all of it", events=[("e", 1)])
    async with opened(driver, lease_s=LEASE_S) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=agent)
        viewer = watched(runtime, run)
        await agent.started.wait()
        await asyncio.sleep(STEP_S)  # the viewer reads
        driver.out = True
        agent.go.set()
        await asyncio.sleep(LONG_S)
        driver.out = False
        ending = await runtime.runs.join(run.run_id)
        over = await runtime.runs.get(run.run_id)
    assert (ending.status, ending.result) == (RunStatus.SUCCESS, b'"all of it"')
    assert (agent.calls, over.attempt, over.rescues) == (1, 1, 0)
    check_whole(await viewer)


@pytest.mark.parametrize("seconds", [5.0, LONG_S])
@on_virtual_time
async def test_a_graph_that_is_done_during_an_outage_ends_as_a_success_without_another_step(seconds: float) -> None:
    driver, walk = a_ledger(), Walk(steps=4)
    async with opened(driver, graphs={"g": walk.graph()}, lease_s=LEASE_S) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        viewer = watched(runtime, run)
        await walk.reaches(4)
        await outage(driver, seconds)
        over = await ended(runtime, run)
        thread = await runtime.store.threads.get("t", owner=ANY_OWNER)
    assert (over.status, over.rescues) == (RunStatus.SUCCESS, 0)
    assert set(walk.taken.values()) == {1}
    assert thread.values == {"log": [1, 2, 3, 4]}
    check_whole(await viewer)


@on_virtual_time
async def test_a_run_that_was_cancelled_before_the_outage_is_stopped_after_it() -> None:
    driver, walk = a_ledger(), Walk()
    async with opened(driver, graphs={"g": walk.graph()}, lease_s=LEASE_S) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        await walk.reaches(3)
        await runtime.store.runs.request_cancel(  # and nobody is told of it
            run.run_id, owner=ANY_OWNER, action=CancelAction.INTERRUPT, reason=EndReason.USER_CANCEL
        )
        await outage(driver, 2 * LEASE_S)
        over = await ended(runtime, run)
    assert (over.status, over.end_reason, over.attempt) == (RunStatus.INTERRUPTED, EndReason.USER_CANCEL, 1)


@on_virtual_time
async def test_a_cancel_during_an_outage_is_refused_and_one_after_it_stops_the_run() -> None:
    driver, walk = a_ledger(), Walk()
    async with opened(driver, graphs={"g": walk.graph()}, lease_s=LEASE_S) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        await walk.reaches(3)
        driver.out = True
        with pytest.raises(StoreUnavailable):
            await runtime.runs.cancel(run.run_id)
        driver.out = False
        receipt = await runtime.runs.cancel(run.run_id, wait=True)
    assert receipt is not None
    assert receipt.stopped_at is not None


@on_virtual_time
async def test_what_an_agent_reads_and_writes_during_an_outage_waits_for_the_ledger() -> None:
    driver = a_ledger()
    out = asyncio.Event()

    async def inner(state: Log) -> Log:
        return {"log": [1]}

    async def notes(state: Log, runtime: GraphRuntime[None]) -> Log:
        out.set()
        await asyncio.sleep(1)
        assert runtime.store is not None
        await runtime.store.aput(("n",), "key", {"value": 1})
        found = await runtime.store.aget(("n",), "key")
        assert found is not None
        return {"log": [*state["log"], found.value["value"]]}

    sub = StateGraph(Log).add_node("inner", inner).add_edge(START, "inner").add_edge("inner", END)
    graph = StateGraph(Log).add_node("first", inner).add_node("notes", notes).add_node("sub", sub.compile())
    graph.add_edge(START, "first").add_edge("first", "notes").add_edge("notes", "sub").add_edge("sub", END)
    async with opened(driver, graphs={"g": graph}, lease_s=2 * LONG_S) as runtime:
        for _ in range(2):
            out.clear()
            run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
            await out.wait()
            await outage(driver, LONG_S)
            assert (await ended(runtime, run)).status is RunStatus.SUCCESS


@on_virtual_time
async def test_an_attempt_that_begins_as_the_ledger_goes_out_begins_when_it_is_back() -> None:
    driver, walk = a_ledger(), Walk(steps=2)
    async with opened(driver, graphs={"g": walk.graph()}, lease_s=LEASE_S) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        await until(lambda: runtime.worker.executing)
        await outage(driver, LEASE_S / 2)
        over = await ended(runtime, run)
    assert (over.status, over.attempt) == (RunStatus.SUCCESS, 1)


@on_virtual_time
async def test_a_thread_is_repaired_after_the_outage_in_which_its_run_failed() -> None:
    driver, began = a_ledger(), asyncio.Event()

    async with opened(driver, graphs={"g": failing(began)}, lease_s=LEASE_S) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run(input={"messages": [("user", "Go")]}))
        await began.wait()
        await outage(driver, LONG_S)
        over = await ended(runtime, run)
        found = await runtime.saver.aget_tuple({"configurable": {"thread_id": "t"}})
    assert over.error is not None
    assert (over.status, over.error.error, over.attempt) == (RunStatus.ERROR, "ValueError", 1)
    assert found.checkpoint["channel_values"]["messages"][-1].type == "tool"


@on_virtual_time
async def test_an_agent_that_streams_during_an_outage_is_held_back_and_loses_nothing() -> None:
    driver, pieces, made = a_ledger(), 64, 0
    piece = "x" * (MAX_EVENT_BYTES // 8)

    async def talker(context: RunContext) -> AsyncIterator[str]:
        nonlocal made
        for _ in range(pieces):
            made += 1
            yield piece
            await asyncio.sleep(0.1)

    async with opened(driver, lease_s=2 * LONG_S) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=talker)
        await until(lambda: made)
        await outage(driver, LONG_S)
        assert made <= 10
        viewer = watched(runtime, run)
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS
    found = await viewer
    check_whole(found)
    assert len(found) == 1 + pieces + 1


@on_virtual_time
async def test_a_run_that_the_application_executes_is_its_own_after_an_outage() -> None:
    driver = a_ledger()
    async with opened(driver, lease_s=LEASE_S) as runtime:
        run = await runtime.runs.create_or_reject("t")
        await runtime.runs.set_status(run.run_id, "running")
        await outage(driver, LONG_S)
        assert await runtime.rescuer.rescue_lost() == ()
        await asyncio.sleep(2 * LEASE_S)
        over = await runtime.runs.set_status(run.run_id, "success")
    assert (over.status, over.attempt, over.rescues) == (RunStatus.SUCCESS, 1, 0)


@on_virtual_time
async def test_a_shutdown_during_an_outage_ends_in_time_and_the_next_process_goes_on() -> None:
    driver, walk = a_ledger(), Walk()
    clock = asyncio.get_running_loop().time
    stages = {"cancel_grace_s": 1.0, "abandon_after_s": 1.0, "drain_grace_s": 1.0}
    async with opened(driver, graphs={"g": walk.graph()}, lease_s=LEASE_S, **stages) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run(durability="sync"))
        await walk.reaches(3)
        driver.out = True
        stopped_at = clock()
    assert clock() - stopped_at < 1.0 + 2 * 2.0 + OUTAGE_LIMIT_S + 1.0
    driver.out = False
    async with opened(driver, graphs={"g": walk.graph()}, lease_s=LEASE_S) as runtime:
        over = await ended(runtime, run)
    assert over.status is RunStatus.SUCCESS
    assert {step for step, count in walk.taken.items() if count > 1} <= {3, 4}


@on_virtual_time
async def test_a_process_that_gives_up_a_run_does_not_end_it_with_its_thread_half_repaired() -> None:
    driver, began = a_ledger(), asyncio.Event()
    async with opened(driver, graphs={"g": failing(began)}, lease_s=LEASE_S) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run(input={"messages": [("user", "Go")]}))
        await began.wait()
        await asyncio.sleep(0.5)
        driver.faults["checkpoints.put"] = StoreUnavailable("unplugged")
        await asyncio.sleep(1)
    assert (await RunStore(driver).runs.get(run.run_id, owner=ANY_OWNER)).status is RunStatus.RUNNING
    driver.faults.clear()
    async with opened(driver, graphs={"g": failing(began)}, lease_s=LEASE_S) as runtime:
        assert (await ended(runtime, run)).status is RunStatus.ERROR
        found = await runtime.saver.aget_tuple({"configurable": {"thread_id": "t"}})
    assert found.checkpoint["channel_values"]["messages"][-1].type == "tool"


@on_virtual_time
async def test_after_an_outage_other_workers_have_the_time_of_a_lease_to_come_back() -> None:
    """A rescuer that was cut off cannot tell the dead from those who were cut off too."""
    driver, agent = a_ledger(), Scripted()
    store = RunStore(driver)
    async with opened(driver, lease_s=LEASE_S, exclusive=False) as runtime:
        admission = await store.runs.admit(a_run("t"))
        run_id = admission.run.run_id
        runtime.agents.attach(run_id, CoroutineAgent(agent, continuable=True))
        lease = (await claim(store, run_id, worker_id="another")).lease
        await asyncio.sleep(LEASE_S / 2)  # it has been seen, and is silent from now on
        await outage(driver, LONG_S)
        await asyncio.sleep(LEASE_S - 1.0)
        current = await runtime.runs.get(run_id, owner=ANY_OWNER)
        assert (current.status, current.rescues) == (RunStatus.RUNNING, 0)
        assert (
            await store.attempts.renew([lease], worker=WorkerState(worker_id="another", lease_s=LEASE_S))
        ).lost == ()
        await agent.started.wait()  # the other one has died since
        agent.go.set()
        assert (await ended(runtime, admission.run)).rescues == 1


def test_a_planted_rescue_at_once_after_an_outage_is_found() -> None:
    with applied([IMPATIENT]), pytest.raises(AssertionError):
        test_after_an_outage_other_workers_have_the_time_of_a_lease_to_come_back()


@on_virtual_time
async def test_a_lease_that_still_lasts_is_kept_once_the_ledger_is_back() -> None:
    driver, agent = a_ledger(), Scripted()
    async with opened(driver, lease_s=LEASE_S) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await agent.started.wait()
        await asyncio.sleep(LEASE_S / 3 + 1)  # just renewed
        await outage(driver, LEASE_S - 6)
        await asyncio.sleep(LEASE_S)
        assert not agent.stopping.is_set()
        agent.go.set()
        assert (await ended(runtime, run)).attempt == 1


@on_virtual_time
async def test_a_lease_that_runs_out_stops_code_that_was_only_asked_to_drain() -> None:
    driver, walk = a_ledger(), Walk(step_s=LONG_S)
    async with opened(driver, graphs={"g": walk.graph()}, lease_s=LEASE_S, cancel_grace_s=LONG_S) as runtime:
        await runtime.runs.create_or_reject("t", kwargs=graph_run())
        await walk.reaches(1)
        driver.out = True
        draining = asyncio.create_task(runtime.runs.shutdown(0.0))
        await asyncio.sleep(LEASE_S + 1)
        assert walk.stopped
        driver.out = False
        await draining


@pytest.mark.parametrize(("claims", "new_dispatch"), CLAIMS)
@on_virtual_time
async def test_a_claim_whose_answer_comes_late_is_handed_back_and_not_charged(claims: str, new_dispatch: Any) -> None:
    driver, agent = a_ledger(), Scripted()
    async with opened(driver, lease_s=LEASE_S, new_dispatch=new_dispatch, exclusive=False) as runtime:
        gate = driver.gates[claims] = asyncio.Event()
        creating = asyncio.create_task(runtime.runs.create_or_reject("t", agent=agent))
        await driver.held.wait()
        driver.faults["held"] = StoreUnavailable("unplugged")
        await asyncio.sleep(LEASE_S)  # it is over: others might have taken the run from this process
        driver.faults.clear()
        await asyncio.sleep(LEASE_S / 2)
        driver.gates.clear()
        gate.set()
        run = await creating
        await agent.started.wait()
        agent.go.set()
        over = await ended(runtime, run)
    assert (over.status, over.attempt, over.rescues, agent.calls) == (RunStatus.SUCCESS, 2, 0, 1)


class LateAnswers(FaultyDriver):
    """Keeps the answer of a write back, which is committed, while there is an event of its transaction's name."""

    def __init__(self) -> None:
        super().__init__()
        self.late: dict[str, asyncio.Event] = {}

    async def write(self, transaction: Transaction[Any]) -> Any:
        answer = await super().write(transaction)
        if (told := self.late.get(transaction.__name__)) is not None:
            self.held.set()
            await told.wait()
        return answer


@on_virtual_time
async def test_a_late_claim_of_a_run_that_another_has_taken_meanwhile_changes_nothing() -> None:
    driver, walk = LateAnswers(), Walk()
    told = driver.late["claim"] = asyncio.Event()
    async with opened(
        driver, graphs={"g": walk.graph()}, lease_s=LEASE_S, new_dispatch=Queueing, exclusive=False
    ) as runtime:
        run_id = (await runtime.runs.create_or_reject("t", kwargs=graph_run())).run_id
        await driver.held.wait()
        driver.faults["held"] = StoreUnavailable("unplugged")
        await asyncio.sleep(LEASE_S)
        driver.faults.clear()
        await asyncio.sleep(LEASE_S / 2)  # renewed, as if nothing had been
        driver.late.clear()
        await runtime.store.attempts.rescue(await held(runtime.store, run_id), max_rescues=1)
        await claim(runtime.store, run_id, "another")
        told.set()
        await asyncio.sleep(1.0)
        run = await runtime.runs.get(run_id)
        assert (run.worker_id, run.attempt, run.status, walk.taken) == ("another", 2, RunStatus.RUNNING, Counter())
        assert not runtime.worker.executing


async def test_a_run_goes_on_after_another_program_has_locked_the_file_for_longer_than_leases_last(
    tmp_path: Path,
) -> None:
    file, walk = tmp_path / "ledger.db", Walk(steps=40, step_s=0.05)
    async with opened(database=f"sqlite:///{file}", graphs={"g": walk.graph()}, lease_s=1.0, poll_s=0.2) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run(stream_mode=["updates"]))
        viewer = watched(runtime, run)
        await walk.reaches(5)
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(OUTAGE_S)  # the fault itself
        other.close()
        over = await ended(runtime, run)
    assert (over.status, over.attempt, over.rescues) == (RunStatus.SUCCESS, 2, 0)
    assert sorted(walk.taken) == list(range(1, 41))
    assert len([step for step, count in walk.taken.items() if count > 1]) <= 1
    check_whole(await viewer)
