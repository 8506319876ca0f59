"""Random histories of a ledger against a model of a page."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from ledger_kit import ENDINGS, WORKER, a_run, held, ledger_connection, next_id, outcome
from runlane.errors import ConflictError, LeaseLost, RunlaneError
from runlane.leases import SeenLease
from runlane.lifecycle import CancelAction, EndReason, RunEvent
from runlane.records import ANY_OWNER, CancelReceipt, Lease, NewRun
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.drivers.postgres import PostgresDriver, open_postgres
from runlane.store.drivers.sqlite import SqliteDriver
from runlane.store.ledger import RunStore
from runlane.store.migrate import apply_scripts
from runlane.store.statements import Driver, Transaction, statement
from runlane.store.transactions.thread_search import ThreadFilter

MAX_RESCUES = 1
STATUS = {
    RunEvent.SUCCEED: "success",
    RunEvent.PAUSE: "success",
    RunEvent.FAIL: "error",
    RunEvent.EXPIRE: "timeout",
    RunEvent.STOP: "interrupted",
    RunEvent.RELEASE: "pending",
}
Open = Callable[[], Coroutine[Any, Any, Driver]]


@dataclass
class Run:
    """What the model knows of a run."""

    run_id: str
    thread_id: str
    status: str = "pending"
    attempt: int = 0
    rescues: int = 0
    action: str | None = None


@dataclass
class Model:
    """What a ledger is to do, in memory and in order; a refusal is the error's class."""

    runs: list[Run] = field(default_factory=list)
    settled: dict[str, str] = field(default_factory=dict)

    def lane(self, thread_id: str) -> list[Run]:
        active = ("pending", "running")
        return [run for run in self.runs if run.thread_id == thread_id and run.status in active]

    def head(self, thread_id: str) -> str | None:
        lane = self.lane(thread_id)
        return lane[0].run_id if lane and lane[0].status == "pending" else None

    def admit(self, run_id: str, thread_id: str, strategy: str) -> type[RunlaneError] | bool:
        lane = self.lane(thread_id)
        if lane and strategy == "reject":
            return ConflictError
        if strategy in ("interrupt", "rollback"):
            for run in lane:
                self.cancel(run, strategy)
        self.runs.append(Run(run_id, thread_id))
        self.settled.setdefault(thread_id, "idle")
        return self.head(thread_id) == run_id

    def claim(self, run: Run) -> bool:
        if self.head(run.thread_id) != run.run_id:
            return False
        run.status, run.attempt = "running", run.attempt + 1
        return True

    def cancel(self, run: Run, action: str) -> None:
        if run.status not in ("pending", "running"):
            return
        run.action = run.action or action
        if run.status == "pending" and run.attempt == 0:
            run.status = "interrupted"

    def finish(self, run: Run, attempt: int, event: RunEvent) -> type[RunlaneError] | type[CancelReceipt] | None:
        if run.status != "running" or run.attempt != attempt:
            return LeaseLost
        if run.action and event is not RunEvent.STOP:
            return CancelReceipt
        run.status = STATUS[event]
        if run.status != "pending":
            self.settled[run.thread_id] = "error" if run.status in ("error", "timeout") else "idle"
        return None

    def rescue(self, run: Run) -> type[RunlaneError] | None:
        if run.status != "running":
            return LeaseLost
        if run.rescues < MAX_RESCUES:
            run.status, run.rescues = "pending", run.rescues + 1
        else:
            run.status = "interrupted" if run.action else "error"
            self.settled[run.thread_id] = "idle" if run.action else "error"
        return None

    def delete(self, run: Run) -> type[RunlaneError] | None:
        if run.status in ("pending", "running"):
            return ConflictError
        self.runs.remove(run)
        return None

    def threads(self) -> dict[str, str]:
        return {thread: "busy" if self.lane(thread) else settled for thread, settled in self.settled.items()}


def kept_heads() -> Transaction[tuple[str, ...]]:
    """Return the runs that threads' rows have as heads of their lanes; on PostgreSQL."""
    rows = yield statement("kept_heads", "", postgres="SELECT run_id FROM threads JOIN runs ON seq = head_seq")()
    return tuple(row["run_id"] for row in rows)


class LedgerMachine(RuleBasedStateMachine):
    """Does the same to a ledger and to the model, and compares all there is after each step."""

    def __init__(self, open_driver: Open) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = RunStore(self.runner.run(open_driver()))
        self.model = Model()
        self.admitted: list[NewRun] = []
        self.leases: list[Lease] = []

    def teardown(self) -> None:
        self.runner.run(self.store.aclose())
        self.runner.close()

    def ask(self, question: Coroutine[Any, Any, Any]) -> Any:
        """Return the answer, or the class of the refusal."""
        try:
            return self.runner.run(question)
        except RunlaneError as refusal:
            return type(refusal)

    def pick(self, index: int) -> Run:
        return self.model.runs[index % len(self.model.runs)]

    @rule(
        thread_id=st.sampled_from("ab"), strategy=st.sampled_from(["enqueue"] * 3 + ["reject", "interrupt", "rollback"])
    )
    def admit(self, thread_id: str, strategy: str) -> None:
        new = a_run(thread_id, multitask_strategy=strategy)
        answer = self.ask(self.store.runs.admit(new))
        expected = self.model.admit(new.run_id, thread_id, strategy)
        assert expected == (answer if isinstance(answer, type) else answer.runnable)
        if not isinstance(answer, type):
            self.admitted.append(new)

    @precondition(lambda self: self.model.runs)
    @rule(index=st.integers(0, 99))
    def admit_again(self, index: int) -> None:
        run = self.pick(index)
        new = next(new for new in self.admitted if new.run_id == run.run_id)
        answer = self.ask(self.store.runs.admit(new))
        assert (answer.reused, answer.run.run_id) == (True, run.run_id)
        assert answer.runnable == (self.model.head(run.thread_id) == run.run_id)

    @precondition(lambda self: self.model.runs)
    @rule(index=st.integers(0, 99))
    def claim(self, index: int) -> None:
        run = self.pick(index)
        answer = self.ask(self.store.attempts.claim(run.run_id, WORKER, lease_s=60))
        assert (answer is not None) == self.model.claim(run)
        if answer is not None:
            self.leases.append(answer.lease)

    @precondition(lambda self: self.model.runs)
    @rule(index=st.integers(0, 99), action=st.sampled_from(CancelAction))
    def cancel(self, index: int, action: CancelAction) -> None:
        run = self.pick(index)
        ended_here = run.status == "pending" and run.attempt == 0
        asked = self.store.runs.request_cancel(
            run.run_id, owner=ANY_OWNER, action=action, reason=EndReason.USER_CANCEL, by=None
        )
        answer = self.ask(asked)
        self.model.cancel(run, action.value)
        assert answer.run.status.value == run.status
        assert next_id(answer) == (self.model.head(run.thread_id) if ended_here else None)

    @precondition(lambda self: self.leases)
    @rule(
        index=st.integers(0, 99),
        event=st.sampled_from([*ENDINGS, RunEvent.STOP, RunEvent.RELEASE]),
        newest=st.booleans(),
    )
    def finish(self, index: int, event: RunEvent, newest: bool) -> None:
        lease = self.leases[-1 if newest else index % len(self.leases)]
        answer = self.ask(self.store.attempts.finish(lease, outcome(event)))
        run = next((run for run in self.model.runs if run.run_id == lease.run_id), None)
        expected = LeaseLost if run is None else self.model.finish(run, lease.attempt, event)
        if expected is None:
            assert next_id(answer) == self.model.head(lease.thread_id)
        else:
            assert (CancelReceipt if isinstance(answer, CancelReceipt) else answer) is expected

    @precondition(lambda self: self.model.runs)
    @rule(index=st.integers(0, 99))
    def rescue(self, index: int) -> None:
        run = self.pick(index)
        seen: SeenLease = self.ask(held(self.store, run.run_id))
        answer = self.ask(self.store.attempts.rescue(seen, max_rescues=MAX_RESCUES))
        expected = self.model.rescue(run)
        assert expected is None or answer is expected

    @precondition(lambda self: self.model.runs)
    @rule(index=st.integers(0, 99))
    def delete(self, index: int) -> None:
        run = self.pick(index)
        answer = self.ask(self.store.runs.delete(run.run_id, owner=ANY_OWNER))
        expected = self.model.delete(run)
        assert expected is None or answer is expected

    @invariant()
    def the_ledger_is_as_the_model(self) -> None:
        runs = self.ask(self.store.runs.list(None, owner=ANY_OWNER, limit=1000))
        found = [
            (run.run_id, run.status, run.attempt, run.rescues, run.cancel and run.cancel.action.value)
            for run in reversed(runs)
        ]
        assert found == [(run.run_id, run.status, run.attempt, run.rescues, run.action) for run in self.model.runs]
        threads = self.ask(self.store.threads.search(owner=ANY_OWNER, where=ThreadFilter(), limit=10))
        assert {thread.thread_id: thread.status.value for thread in threads} == self.model.threads()
        heads = {head for head in map(self.model.head, self.model.settled) if head is not None}
        assert {head.run_id for head, _ in self.ask(self.store.queue.runnable())} == heads
        if isinstance(self.store.driver, PostgresDriver):
            assert set(self.ask(self.store.driver.read(kept_heads()))) == heads
        for run in runs:
            assert run.status.terminal == (run.ended_at is not None) == (run.end_reason is not None)


def fresh_copy(empty: Path, directory: Path) -> Path:
    for old in directory.glob("ledger.db*"):
        old.unlink()
    return Path(shutil.copy(empty, directory / "ledger.db"))


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def open_driver(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Give what opens a driver on an emptied ledger, once per database."""

    async def memory() -> Driver:
        driver = MemoryDriver()
        apply_scripts(driver)
        return driver

    async def sqlite() -> Driver:
        path = fresh_copy(request.getfixturevalue("sqlite_ledger"), tmp_path)
        return SqliteDriver(path, synchronous="normal")

    async def postgres() -> Driver:
        url = request.getfixturevalue("postgres_ledger")
        with ledger_connection(url, autocommit=True) as connection:
            connection.execute("TRUNCATE threads, thread_terms, runs, events RESTART IDENTITY")
        return await open_postgres(url, max_connections=3)

    # Asked for here, since a fixture cannot be set up on the loop that a driver is opened on.
    request.getfixturevalue("postgres_ledger" if request.param == "postgres" else "sqlite_ledger")
    return {"memory": memory, "sqlite": sqlite, "postgres": postgres}[request.param]


def test_any_history_leaves_the_ledger_as_the_model_says(open_driver: Open) -> None:
    examples = {"memory": 60, "sqlite": 15, "postgres": 8}[open_driver.__name__]
    run_state_machine_as_test(
        lambda: LedgerMachine(open_driver),
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
