"""The events that observers are called with, in the lives of runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from ledger_kit import admit, claim, held
from run_kit import (
    ONCE,
    FaultyDriver,
    Queueing,
    Scripted,
    Stepper,
    at_once,
    ended,
    graph_run,
    items,
    opened,
    soon,
    until,
)
from runlane.agents.coroutine import RunContext
from runlane.dispatch.local import LocalDispatch
from runlane.errors import ConflictError, StoreUnavailable
from runlane.lifecycle import CancelAction, EndReason, RunStatus
from runlane.records import StreamEvent
from runlane.store.ledger import RunStore
from runlane.telemetry.events import (
    CancelObserved,
    CancelRequested,
    CancelStopped,
    JournalFlushed,
    OfRun,
    RunAdmitted,
    RunClaimed,
    RunFinished,
    RunFirstEvent,
    RunLeaseLost,
    RunRejected,
    RunReleased,
    RunRescued,
    RunStarted,
    StoreOutageBegan,
    StoreOutageEnded,
    TelemetryEvent,
    WorkerDrained,
)
from runlane.telemetry.observers import Observer, on

E = TypeVar("E", bound=TelemetryEvent)
BEGUN = [RunAdmitted, RunClaimed, RunStarted]


@dataclass
class Seen:
    """All events, in their order."""

    events: list[TelemetryEvent] = field(default_factory=list)

    @property
    def observers(self) -> list[Observer]:
        return [on(TelemetryEvent, self.events.append)]

    def of(self, run_id: str) -> list[type[TelemetryEvent]]:
        """Return the kinds of the events of one run, flushes apart, which depend on time."""
        mine = [event for event in self.events if isinstance(event, OfRun) and event.run_id == run_id]
        return [type(event) for event in mine if not isinstance(event, JournalFlushed | RunFirstEvent)]

    def one(self, kind: type[E]) -> E:
        [event] = [event for event in self.events if isinstance(event, kind)]
        return event


@pytest.fixture
def seen() -> Seen:
    return Seen()


async def test_a_run_that_succeeds(seen: Seen) -> None:
    async with opened(observers=seen.observers) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=at_once, owner="ann")
        await ended(runtime, run)
    assert seen.of(run.run_id) == [*BEGUN, RunFinished]
    finished = seen.one(RunFinished)
    assert (finished.run_id, finished.thread_id, finished.owner) == (run.run_id, "t", "ann")
    assert (finished.graph_id, finished.attempt, finished.rescues) == (None, 1, 0)
    assert (finished.status, finished.end_reason, finished.error) == (RunStatus.SUCCESS, EndReason.COMPLETED, None)
    assert (seen.one(RunClaimed).queued_s, seen.one(RunStarted).resumed) == (finished.queued_s, False)
    assert 0 <= finished.executing_s < 5


async def test_a_run_that_fails(seen: Seen) -> None:
    async def fails(_: RunContext) -> None:
        raise ValueError("sesame")

    async with opened(observers=seen.observers) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=fails)
        await ended(runtime, run)
    assert seen.of(run.run_id) == [*BEGUN, RunFinished]
    assert (seen.one(RunFinished).status, seen.one(RunFinished).error) == (RunStatus.ERROR, "ValueError")
    assert "sesame" not in repr(seen.events)


async def test_a_run_that_is_cancelled_while_it_executes(seen: Seen) -> None:
    agent = Scripted()
    async with opened(observers=seen.observers) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await soon(agent.started.wait())
        await runtime.runs.cancel(run.run_id)
        await ended(runtime, run)
    assert seen.of(run.run_id) == [*BEGUN, CancelRequested, CancelObserved, CancelStopped, RunFinished]
    assert seen.one(CancelRequested).reason is EndReason.USER_CANCEL
    stopped = seen.one(CancelStopped)
    assert (stopped.action, stopped.blocked_at) == (CancelAction.INTERRUPT, None)
    assert 0 <= seen.one(CancelObserved).after_s <= stopped.after_s


async def test_a_run_that_is_cancelled_before_it_starts(seen: Seen) -> None:
    agent = Scripted()
    async with opened(observers=seen.observers) as runtime:
        first = await runtime.runs.create_or_reject("t", agent=agent)
        await soon(agent.started.wait())
        second = await runtime.runs.create_or_reject("t", agent=at_once, multitask_strategy="enqueue")
        await runtime.runs.cancel(second.run_id)
        agent.go.set()
        await ended(runtime, first)
    assert seen.of(second.run_id) == [RunAdmitted, CancelRequested, CancelStopped, RunFinished]


async def test_a_run_that_is_not_admitted(seen: Seen) -> None:
    agent = Scripted()
    async with opened(observers=seen.observers) as runtime:
        await runtime.runs.create_or_reject("t", agent=agent)
        with pytest.raises(ConflictError) as refused:
            await runtime.runs.create_or_reject("t", agent=at_once)
        agent.go.set()
    assert (seen.one(RunRejected).thread_id, seen.one(RunRejected).code) == ("t", refused.value.code)


async def test_a_run_that_a_drain_hands_back_and_another_process_finishes(seen: Seen) -> None:
    stepper, driver, other = Stepper(), FaultyDriver(), Seen()
    graphs = {"g": stepper.graph()}
    async with opened(driver, graphs=graphs, observers=seen.observers) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run())
        await soon(stepper.started.wait())
    assert seen.of(run.run_id) == [*BEGUN, RunReleased]
    assert seen.one(WorkerDrained).duration_s >= 0
    stepper.go.set()
    async with opened(driver, graphs=graphs, observers=other.observers) as runtime:
        await ended(runtime, run)
    assert other.of(run.run_id) == [RunClaimed, RunStarted, RunFinished]
    assert (other.one(RunClaimed).queued_s, other.one(RunStarted).resumed) == (None, True)
    assert (other.one(RunFinished).attempt, other.one(RunFinished).graph_id) == (2, "g")


async def test_a_run_whose_worker_died(seen: Seen) -> None:
    stepper, driver = Stepper(), FaultyDriver()
    stepper.go.set()
    store = RunStore(driver)
    run_id = await admit(store, kwargs=graph_run())
    await claim(store, run_id, "dead")
    async with opened(driver, graphs={"g": stepper.graph()}, observers=seen.observers) as runtime:
        await soon(runtime.runs.join(run_id))
    assert seen.of(run_id) == [RunRescued, RunClaimed, RunStarted, RunFinished]
    rescued = seen.one(RunRescued)
    assert (rescued.attempt, rescued.rescues, rescued.status) == (1, 1, RunStatus.PENDING)
    assert seen.one(RunFinished).rescues == 1


async def test_an_attempt_that_loses_its_lease(seen: Seen) -> None:
    agent, driver = Scripted(), FaultyDriver()
    async with opened(driver, observers=seen.observers, lease_s=0.3, poll_s=3600) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await soon(agent.started.wait())
        await runtime.store.attempts.rescue(await held(runtime.store, run.run_id), max_rescues=3)
        await until(lambda: RunLeaseLost in seen.of(run.run_id))
    assert seen.of(run.run_id)[:4] == [*BEGUN, RunLeaseLost]
    assert seen.one(RunLeaseLost).attempt == 1


async def test_a_run_that_the_application_moves_by_set_status(seen: Seen) -> None:
    async with opened(observers=seen.observers) as runtime:
        run = await runtime.runs.create_or_reject("t")
        await runtime.runs.set_status(run.run_id, "running")
        await runtime.runs.set_status(run.run_id, "success")
    assert seen.of(run.run_id) == [*BEGUN, RunFinished]


async def test_a_run_that_the_application_executes_in_a_block(seen: Seen) -> None:
    async with opened(observers=seen.observers) as runtime:
        run = await runtime.runs.create_or_reject("t")
        async with runtime.runs.attempt(run):
            assert seen.of(run.run_id) == BEGUN
    assert seen.of(run.run_id) == [*BEGUN, RunFinished]


async def test_what_an_executing_run_commits(seen: Seen) -> None:
    stepper = Stepper()
    async with opened(graphs={"g": stepper.graph()}, observers=seen.observers) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run(durability="sync"))
        await soon(stepper.started.wait())
        stepper.go.set()
        await ended(runtime, run)
    flushes = [event for event in seen.events if isinstance(event, JournalFlushed)]
    assert {event.run_id for event in flushes} == {run.run_id}
    assert sum(event.checkpoints for event in flushes) >= 3
    assert all(event.duration_s >= 0 for event in flushes)
    kinds = [type(event) for event in seen.events if isinstance(event, OfRun)]
    assert kinds.index(RunStarted) < kinds.index(JournalFlushed) < kinds.index(RunFinished)


async def test_an_outage_begins_and_ends_once(seen: Seen) -> None:
    driver = FaultyDriver()
    async with opened(driver, observers=seen.observers, retry=ONCE, poll_s=3600) as runtime:
        driver.out = True
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await runtime.runs.create_or_reject("t", agent=at_once)
        driver.out = False
        await ended(runtime, await runtime.runs.create_or_reject("t", agent=at_once))
    assert "unplugged" in seen.one(StoreOutageBegan).error
    assert seen.one(StoreOutageEnded).duration_s >= 0


async def test_an_observer_that_raises_harms_no_run(seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    def fails(_: TelemetryEvent) -> None:
        raise RuntimeError("observer")

    async with opened(observers=[on(TelemetryEvent, fails), *seen.observers]) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=at_once)
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS
    assert seen.of(run.run_id) == [*BEGUN, RunFinished]
    assert "telemetry.observer_failed event=run.finished" in caplog.text


@pytest.mark.parametrize("made", [(), (("custom", 1), ("custom", 2))])
@pytest.mark.parametrize("dispatch", [LocalDispatch, Queueing])
async def test_the_first_event_is_of_the_run_s_code_and_told_once(
    seen: Seen, made: tuple[tuple[str, Any], ...], dispatch: type[LocalDispatch]
) -> None:
    agent = Scripted(events=made)
    async with opened(observers=seen.observers, new_dispatch=dispatch) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await soon(agent.started.wait())
        agent.go.set()
        await ended(runtime, run)
        found = [event for event in await items(runtime, run.run_id) if isinstance(event, StreamEvent)]
    assert [event.name for event in found] == ["metadata", *(name for name, _ in made)]
    first = [event for event in seen.events if isinstance(event, RunFirstEvent)]
    assert [event.run_id for event in first] == [run.run_id] * bool(made)


async def test_the_log_has_one_line_per_transition(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(_: RunContext) -> None:
        raise ValueError("sesame")

    with caplog.at_level("INFO", "runlane"):
        async with opened() as runtime:
            run = await runtime.runs.create_or_reject("t", agent=fails)
            await ended(runtime, run)
    said = [
        (one.levelname, one.getMessage().partition(" queued_s")[0].partition("\n")[0])
        for one in caplog.records
        if one.name in ("runlane.runs", "runlane.execution")
    ]
    ids = f"run_id={run.run_id} thread_id=t attempt=1"
    assert said == [
        ("INFO", f"run.started {ids}"),
        ("WARNING", f'run.failed run_id={run.run_id} error=ValueError cause="ValueError: sesame"'),
        ("INFO", f"run.finished {ids} status=error reason=failed"),
    ]
