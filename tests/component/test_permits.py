"""Permits between processes that share a PostgreSQL ledger: heads are claimed where slots are free, without a poll."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from procrastinate import PsycopgConnector
from procrastinate.manager import JobManager
from procrastinate.schema import SchemaManager

from ledger_kit import ledger_connection
from run_kit import Stepper, graph_run, opened, settings
from runlane.dispatch.permits import TASK, Permits, queue_of
from runlane.dispatch.shared import SharedDispatch
from runlane.maintenance import rescue
from runlane.runtime import Runtime
from runlane.store.backends import migrate_postgres

NEVER_S = 3600.0
PATIENCE_S = 30.0


@pytest.fixture
def url(postgres_url: str) -> str:
    migrate_postgres(postgres_url)
    return postgres_url


@pytest.fixture(autouse=True)
def _no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescue, "LOOK_EVERY_S", NEVER_S)


@asynccontextmanager
async def process(url: str, *, poll_s: float = NEVER_S, **options: Any) -> AsyncIterator[Runtime]:
    """Give a process that asks the ledger for heads when it is told of some, and looks for them every *poll_s*."""
    changes = {"execute_runs": True, "max_concurrent_runs": 100, **options}
    graphs = changes.pop("graphs")
    given = settings(database=url, poll_s=poll_s, **changes)
    async with opened(settings=given, graphs=graphs, new_dispatch=SharedDispatch) as runtime:
        yield runtime


async def eventually(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - another connection has no signal for tests
            await asyncio.sleep(0.005)


def jobs(url: str) -> list[tuple[str, str]]:
    with ledger_connection(url) as connection:
        return connection.execute("SELECT status::text, queue_name FROM procrastinate_jobs").fetchall()


async def test_a_run_that_is_admitted_without_a_slot_starts_in_another_process(url: str) -> None:
    stepper = Stepper()
    graphs = {"g": stepper.graph()}
    async with process(url, graphs=graphs, execute_runs=False) as here, process(url, graphs=graphs):
        await here.runs.create("t", kwargs=graph_run())
        await eventually(stepper.started.is_set)
        stepper.go.set()
        await eventually(lambda: "third" in stepper.calls)


async def test_a_run_that_a_drain_hands_back_starts_in_another_process(url: str) -> None:
    here, there = Stepper(), Stepper()
    there.go.set()
    async with AsyncExitStack() as stack:
        draining = await stack.enter_async_context(process(url, graphs={"g": here.graph()}))
        await draining.runs.create("t", kwargs=graph_run())
        await eventually(here.started.is_set)
        await stack.enter_async_context(process(url, graphs={"g": there.graph()}))
        leaving = asyncio.create_task(draining.worker.drain(0.0))
        await eventually(lambda: draining.worker.draining)
        here.go.set()
        await eventually(lambda: "third" in there.calls)
        await leaving
        assert "third" not in here.calls


async def test_one_permit_fills_the_slots_of_many_processes(url: str) -> None:
    stepper = Stepper()
    graphs = {"g": stepper.graph()}
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(process(url, graphs=graphs, execute_runs=False))
        for _ in range(3):
            await stack.enter_async_context(process(url, graphs=graphs, max_concurrent_runs=2))
        await asyncio.gather(*(here.runs.create(f"t{n}", kwargs=graph_run()) for n in range(10)))
        await eventually(lambda: stepper.calls.count("second") == 6)
        stepper.go.set()
        await eventually(lambda: stepper.calls.count("third") == 10)


async def test_permits_that_nobody_can_use_do_not_add_up(url: str) -> None:
    graphs = {"g": Stepper().graph()}
    async with process(url, graphs=graphs, execute_runs=False) as here:
        for n in range(20):
            await here.runs.create(f"t{n}", kwargs=graph_run())
        await eventually(lambda: len(jobs(url)) == 1)
        for n in range(20, 40):
            await here.runs.create(f"t{n}", kwargs=graph_run())
    assert [status for status, _ in jobs(url)] == ["todo"], "one stands for all heads of its group"


async def test_a_used_permit_leaves_no_row(url: str) -> None:
    stepper = Stepper()
    stepper.go.set()
    graphs = {"g": stepper.graph()}
    async with process(url, graphs=graphs, execute_runs=False) as here, process(url, graphs=graphs):
        await here.runs.create("t", kwargs=graph_run())
        await eventually(lambda: "third" in stepper.calls)
        await eventually(lambda: not jobs(url))


def put_job(url: str, group: str) -> None:
    """Insert a permit as another process does, which tells those that listen."""
    with ledger_connection(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, args) VALUES (%s, %s, %s)",
            (queue_of(group), TASK, json.dumps({"group": group})),
        )


async def test_a_permit_that_comes_before_a_process_listens_is_taken_once_it_does(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen, fetch = PsycopgConnector.listen_notify, JobManager.fetch_job
    looked, may_listen = asyncio.Event(), asyncio.Event()

    async def listen_later(self: PsycopgConnector, *args: Any, **options: Any) -> None:
        await may_listen.wait()
        await listen(self, *args, **options)

    async def fetched(self: JobManager, *args: Any, **options: Any) -> Any:
        found = await fetch(self, *args, **options)
        looked.set()
        return found

    monkeypatch.setattr(PsycopgConnector, "listen_notify", listen_later)
    monkeypatch.setattr(JobManager, "fetch_job", fetched)
    async with process(url, graphs={"g": Stepper().graph()}):
        await eventually(looked.is_set)
        put_job(url, "g")
        may_listen.set()
        await eventually(lambda: not jobs(url))


async def test_a_permit_that_comes_while_a_process_looks_for_one_is_taken(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen, fetch = JobManager.listen_for_jobs, JobManager.fetch_job
    told, heard, put = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def listening(self: JobManager, *, on_notification: Any, **options: Any) -> None:
        async def hear(**notification: Any) -> None:
            told.set()
            await on_notification(**notification)
            heard.set()

        await listen(self, on_notification=hear, **options)

    async def fetched(self: JobManager, *args: Any, **options: Any) -> Any:
        found = await fetch(self, *args, **options)
        if heard.is_set() and not put.is_set():  # it listens, no notification waits for this look, and it found nothing
            told.clear()
            put_job(url, "g")
            put.set()
            async with asyncio.timeout(PATIENCE_S):
                await told.wait()
        return found

    monkeypatch.setattr(JobManager, "listen_for_jobs", listening)
    monkeypatch.setattr(JobManager, "fetch_job", fetched)
    async with process(url, graphs={"g": Stepper().graph()}):
        await eventually(put.is_set)
        await eventually(lambda: not jobs(url))


async def test_a_permit_that_is_lost_costs_no_more_than_the_poll(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Permits, "offer", lambda self, groups: None)
    stepper = Stepper()
    graphs = {"g": stepper.graph()}
    async with process(url, graphs=graphs, execute_runs=False) as here, process(url, graphs=graphs, poll_s=0.05):
        await here.runs.create("t", kwargs=graph_run())
        await eventually(stepper.started.is_set)
        stepper.go.set()


async def test_permits_that_come_twice_and_for_nothing_start_nothing_twice(url: str) -> None:
    stepper = Stepper()
    stepper.go.set()
    graphs = {"g": stepper.graph()}
    async with process(url, graphs=graphs, execute_runs=False) as here, process(url, graphs=graphs):
        dispatch = here.submitter._dispatch
        assert isinstance(dispatch, SharedDispatch)
        assert dispatch.offer is not None
        for n in range(5):
            dispatch.offer(("g", "unknown"))
            await here.runs.create(f"t{n}", kwargs=graph_run())
            await eventually(lambda done=n + 1: stepper.calls.count("third") == done)
    assert stepper.calls.count("first") == 5


async def test_a_job_of_a_process_that_died_is_removed_by_the_next_one(url: str) -> None:
    with ledger_connection(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, status) VALUES ('q', 'runlane.claim', 'doing')"
        )
    async with process(url, graphs={"g": Stepper().graph()}):
        await eventually(lambda: not jobs(url))


def test_tables_of_an_earlier_procrastinate_are_migrated(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not migrate_postgres(url)
    scripts = tmp_path / "migrations"
    shutil.copytree(SchemaManager.get_migrations_path(), scripts)
    (scripts / "98.00.00_01_made.sql").write_text("CREATE TABLE procrastinate_new (n INT)")
    (scripts / "98.00.00_50_filled.sql").write_text("INSERT INTO procrastinate_new VALUES (7)")
    monkeypatch.setattr(SchemaManager, "get_migrations_path", staticmethod(lambda: str(scripts)))
    assert migrate_postgres(url)
    assert not migrate_postgres(url)
    with ledger_connection(url) as connection:
        assert connection.execute("SELECT n FROM procrastinate_new").fetchall() == [(7,)]
