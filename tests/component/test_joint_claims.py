"""A run that may start at once is claimed by the transaction that admits it, and loses nothing by that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph.graph import END, START, StateGraph

from ledger_kit import a_run
from run_kit import (
    FaultyDriver,
    Scripted,
    Steps,
    at_once,
    ended,
    graph_run,
    on_jumping_time,
    on_virtual_time,
    opened,
    soon,
    until,
)
from runlane.agents.coroutine import RunContext
from runlane.errors import AdmissionClosed, ConflictError, StoreUnavailable
from runlane.lifecycle import EndReason, RunStatus
from runlane.records import Claimant, StreamEvent
from runlane.store.drivers import sqlite
from runlane.store.drivers.sqlite import commit_group
from runlane.store.retry import PersistenceRetryPolicy
from runlane.store.statements import Transaction
from runlane.telemetry.events import OfRun
from runlane.telemetry.observers import on
from server_kit import running_server

REQUEST: ContextVar[str] = ContextVar("request", default="none")


class LostAnswers(FaultyDriver):
    """Commits the first admission and loses its answer."""

    lost = False

    async def write(self, transaction: Transaction[Any]) -> Any:
        name, answer = transaction.__name__, await super().write(transaction)
        if name == "admit" and not self.lost:
            self.lost = True
            raise StoreUnavailable("the connection was lost while it committed")
        return answer


class CountingDriver(FaultyDriver):
    """Notes its commits."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[str] = []

    async def write(self, transaction: Transaction[Any]) -> Any:
        self.commits.append(transaction.__name__)
        return await super().write(transaction)

    def submit(self, make: Callable[[], Transaction[Any]], loop: Any, callback: Any, *, size: int = 0) -> None:
        self.commits.append(make().__name__)
        super().submit(make, loop, callback, size=size)


def one_step() -> Any:
    async def step(state: Steps) -> Steps:
        return {"log": ["stepped"]}

    return StateGraph(Steps).add_node("step", step).add_edge(START, "step").add_edge("step", END)


@on_virtual_time
async def test_a_run_of_one_step_takes_two_commits() -> None:
    driver = CountingDriver()
    async with opened(driver, graphs={"g": one_step()}) as runtime:
        for thread in ("new", "new", "other"):
            await asyncio.sleep(1)  # what is done at the start is done
            driver.commits.clear()
            run = await runtime.runs.create(thread, kwargs=graph_run())
            assert (await runtime.runs.join(run.run_id)).status is RunStatus.SUCCESS
            assert driver.commits == ["admit", "finish"]


@on_virtual_time
async def test_the_start_of_a_run_that_is_streamed_takes_no_commit_of_its_own() -> None:
    driver = CountingDriver()
    async with opened(driver, graphs={"g": one_step()}) as runtime:
        await asyncio.sleep(1)  # what is done at the start is done
        driver.commits.clear()
        admitted = await runtime.submitter.admit(a_run(kwargs=graph_run(), streamed=True))
        batches = admitted.watch.batches()
        first = await anext(batches)
        assert driver.commits == ["admit"]
        rest = [item async for batch in batches for item in batch]
        events = [item for item in [*first, *rest] if isinstance(item, StreamEvent)]
        assert [(event.seq, event.name) for event in events] == [(1, "metadata"), (2, "values"), (3, "values")]
        assert await runtime.store.events.read(admitted.run.seq, after=0) == tuple(events)


@on_virtual_time
async def test_the_start_that_is_streamed_is_known_again_when_the_answer_was_lost() -> None:
    async with opened(LostAnswers(), graphs={"g": one_step()}) as runtime:
        admitted = await runtime.submitter.admit(a_run(kwargs=graph_run(), streamed=True))
        items = [item async for batch in admitted.watch.batches() for item in batch]
        events = [item for item in items if isinstance(item, StreamEvent)]
        assert [event.name for event in events] == ["metadata", "values", "values"]
        assert await runtime.store.events.read(admitted.run.seq, after=0) == tuple(events)


def test_a_run_of_one_step_takes_two_commits_on_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[str] = []

    def counting(connection: Any, group: Any, clock: Any) -> Any:
        commits.append(" ".join(one.transaction.__name__ for one in group))
        return commit_group(connection, group, clock)

    monkeypatch.setattr(sqlite, "commit_group", counting)
    taken = []
    with (
        running_server(f"sqlite:///{tmp_path / 'ledger.db'}", graphs={"g": one_step()}) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        for _ in range(9):
            before = len(commits)
            answer = client.post("/runs/wait", json={"assistant_id": "g", "input": {"log": []}})
            assert answer.json() == {"log": ["stepped"]}
            taken.append(commits[before:])
    # Steps that take longer than the journal gathers are committed before the ending.
    assert [[name for name in names if name != "append"] for names in taken] == [["admit", "finish"]] * len(taken)
    assert ["admit", "finish"] in taken


async def test_who_admits_a_run_is_told_of_it_as_it_was_admitted_and_observers_of_each_step() -> None:
    told: list[str] = []
    observer = on(OfRun, lambda event: told.append(type(event).__name__))
    agent = Scripted()
    async with opened(observers=[observer]) as runtime:
        run = await runtime.runs.create("t", agent=agent)
        assert (run.status, run.attempt) == (RunStatus.PENDING, 0)
        await soon(agent.started.wait())
        agent.go.set()
        await ended(runtime, run)
    assert told == ["RunAdmitted", "RunClaimed", "RunStarted", "RunFinished"]


async def test_a_run_that_is_being_admitted_has_its_slot_already() -> None:
    driver, agents = FaultyDriver(), [Scripted() for _ in range(3)]
    async with opened(driver, max_concurrent_runs=1) as runtime:
        gate = driver.gates["admit"] = asyncio.Event()
        creating = [asyncio.create_task(runtime.runs.create(f"t{n}", agent=agent)) for n, agent in enumerate(agents)]
        await soon(driver.held.wait())
        gate.set()
        for run in await soon(asyncio.gather(*creating)):
            await until(lambda: any(agent.running for agent in agents))
            assert sum(agent.running for agent in agents) == 1
            next(agent for agent in agents if agent.running).go.set()
            await until(lambda: not any(agent.running and agent.go.is_set() for agent in agents))
            assert run.status is RunStatus.PENDING
        await until(lambda: all(agent.calls for agent in agents))


async def test_a_run_that_is_being_admitted_counts_for_its_owners_limit() -> None:
    driver, agents = FaultyDriver(), [Scripted() for _ in range(2)]
    async with opened(driver, max_runs_per_owner=1) as runtime:
        gate = driver.gates["admit"] = asyncio.Event()
        creating = [
            asyncio.create_task(runtime.runs.create(f"t{n}", agent=agent, owner="ann"))
            for n, agent in enumerate(agents)
        ]
        await soon(driver.held.wait())
        gate.set()
        await soon(asyncio.gather(*creating))
        other = await runtime.runs.create("u", agent=at_once, owner="bob")
        await ended(runtime, other)
        assert sum(agent.running for agent in agents) == 1
        for agent in agents:
            agent.go.set()
        await until(lambda: all(agent.calls for agent in agents))


async def test_what_waits_goes_before_what_is_admitted() -> None:
    first, waiting, late = Scripted(), Scripted(), Scripted()
    async with opened(max_concurrent_runs=1) as runtime:
        await runtime.runs.create("a", agent=first)
        await soon(first.started.wait())
        await runtime.runs.create("b", agent=waiting)
        first.go.set()
        await until(lambda: not first.running)
        await runtime.runs.create("c", agent=late)
        await soon(waiting.started.wait())
        assert late.calls == 0
        waiting.go.set()
        await soon(late.started.wait())
        late.go.set()


async def test_what_is_refused_or_repeated_leaves_its_slot() -> None:
    blocker, agent = Scripted(), Scripted()
    async with opened(max_concurrent_runs=2) as runtime:
        await runtime.runs.create("busy", agent=blocker)
        await soon(blocker.started.wait())
        for _ in range(3):
            with pytest.raises(ConflictError):
                await runtime.runs.create_or_reject("busy", agent=at_once)
        first = await runtime.runs.create("t", agent=agent, idempotency_key="k")
        await soon(agent.started.wait())
        agent.go.set()
        await ended(runtime, first)
        for _ in range(3):
            again = await runtime.runs.create("t", agent=at_once, idempotency_key="k")
            assert again.run_id == first.run_id
        run = await runtime.runs.create("u", agent=at_once)
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS
        blocker.go.set()


async def test_a_run_on_a_busy_thread_waits_in_its_lane_and_not_in_a_slot() -> None:
    blocker = Scripted()
    async with opened(max_concurrent_runs=2) as runtime:
        await runtime.runs.create("t", agent=blocker)
        await soon(blocker.started.wait())
        behind = await runtime.runs.create("t", agent=at_once)
        other = await runtime.runs.create("u", agent=at_once)
        assert (await ended(runtime, other)).status is RunStatus.SUCCESS
        assert (await runtime.runs.get(behind.run_id)).attempt == 0
        blocker.go.set()
        assert (await ended(runtime, behind)).status is RunStatus.SUCCESS


async def test_an_admission_whose_answer_was_lost_is_executed_once_and_at_once() -> None:
    driver, agent = LostAnswers(), Scripted()
    told: list[str] = []
    quick = PersistenceRetryPolicy(initial_delay_s=0.001)
    observer = on(OfRun, lambda event: told.append(type(event).__name__))
    async with opened(driver, retry=quick, observers=[observer]) as runtime:
        run = await runtime.runs.create("t", agent=agent)
        await soon(agent.started.wait())
        agent.go.set()
        over = await ended(runtime, run)
    assert (over.status, over.attempt, over.rescues, agent.calls) == (RunStatus.SUCCESS, 1, 0, 1)
    assert told == ["RunAdmitted", "RunClaimed", "RunStarted", "RunFinished"]


@pytest.mark.parametrize("reused", [False, True])
async def test_an_admission_of_a_key_whose_answer_was_lost_is_its_own(reused: bool) -> None:
    driver = LostAnswers()
    quick = PersistenceRetryPolicy(initial_delay_s=0.001)
    async with opened(driver, retry=quick) as runtime:
        run = await runtime.runs.create("t", agent=at_once, idempotency_key="k")
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS
        if reused:
            again = await runtime.runs.create("t", agent=at_once, idempotency_key="k")
            assert again.run_id == run.run_id


async def test_a_run_whose_admission_is_answered_during_a_drain_is_handed_back() -> None:
    driver = FaultyDriver()
    calls: list[str] = []

    async def step(state: Steps) -> Steps:
        calls.append("step")
        await asyncio.Event().wait()
        return {}

    graph = StateGraph(Steps).add_node("step", step).add_edge(START, "step").add_edge("step", END)
    async with opened(driver, graphs={"g": graph}) as runtime:
        gate = driver.gates["admit"] = asyncio.Event()
        creating = asyncio.create_task(runtime.runs.create("t", kwargs=graph_run()))
        await soon(driver.held.wait())
        draining = asyncio.create_task(runtime.runs.shutdown(0.0))
        await asyncio.sleep(0)
        gate.set()
        run = await soon(creating)
        await soon(draining)
        assert runtime.worker.executing == 0
        handed_back = await runtime.runs.get(run.run_id)
        assert (handed_back.status, handed_back.rescues) == (RunStatus.PENDING, 0)
        with pytest.raises(AdmissionClosed):
            await runtime.runs.create("t", kwargs=graph_run())


@on_jumping_time
async def test_a_drain_does_not_wait_for_ever_for_an_admission_that_is_not_answered() -> None:
    driver, agent = FaultyDriver(), Scripted()
    async with opened(driver) as runtime:
        gate = driver.gates["admit"] = asyncio.Event()
        creating = asyncio.create_task(runtime.runs.create("t", agent=agent))
        await soon(driver.held.wait())
        await runtime.runs.shutdown(0.0)
        gate.set()
        run = await soon(creating)
        assert not runtime.worker.holds(run.run_id, 1)
        assert (agent.calls, runtime.worker.executing) == (0, 0)


async def test_a_cancel_right_after_the_admission_is_not_lost() -> None:
    agent = Scripted()
    async with opened() as runtime:
        run = await runtime.runs.create("t", agent=agent)
        receipt = await soon(runtime.runs.cancel(run.run_id, wait=True))
        assert receipt is not None
        over = await runtime.runs.get(run.run_id)
    assert (over.status, over.end_reason) == (RunStatus.INTERRUPTED, EndReason.USER_CANCEL)


async def test_an_agent_does_not_inherit_the_context_of_the_request_that_admitted_it() -> None:
    seen: list[str] = []

    async def agent(context: RunContext) -> None:
        seen.append(REQUEST.get())

    async with opened() as runtime:
        REQUEST.set("of this request")
        await ended(runtime, await runtime.runs.create("t", agent=agent))
    assert seen == ["none"]


async def test_a_run_of_a_dead_process_that_was_just_admitted_is_executed_by_the_next(tmp_path: Path) -> None:
    """A crash between the admission, which claimed the run, and the first step of its attempt."""
    database = f"sqlite:///{tmp_path / 'ledger.db'}"
    async with opened(database=database, graphs={"g": one_step()}) as runtime:
        claimant = Claimant(worker_id=runtime.worker.worker_id, lease_s=30.0, has_code=False)
        admission = await runtime.store.runs.admit(a_run("t", kwargs=graph_run()), claimant)
        assert admission.claim is not None
    async with opened(database=database, graphs={"g": one_step()}) as runtime:
        over = await ended(runtime, admission.run)
    assert (over.status, over.attempt, over.rescues) == (RunStatus.SUCCESS, 2, 1)


async def test_who_admitted_a_run_and_its_attempt_share_one_copy_of_its_request() -> None:
    async with opened(graphs={"g": one_step()}) as runtime:
        claimant = Claimant(worker_id=runtime.worker.worker_id, lease_s=30.0, has_code=False)
        admission = await runtime.store.runs.admit(a_run("t", kwargs=graph_run()), claimant)
        assert admission.claim is not None
        assert admission.claim.run.stored is admission.run.stored
