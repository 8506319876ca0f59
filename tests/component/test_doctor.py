"""The doctor: a ledger with a real history is whole; each way of damaging one is found, shown and, safely, repaired."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from typer.testing import CliRunner

from acceptance.kit import Reader, Server, new_thread
from ledger_kit import a_run
from postgres_cluster import PostgresCluster
from run_kit import Stepper, at_once, ended, graph_run, opened, soon
from runlane.cli.main import app
from runlane.doctor import examine, open_ledger, repair
from runlane.lifecycle import CancelAction, EndReason
from runlane.records import ANY_OWNER, NO_OWNER
from runlane.runtime import Runtime
from runlane.settings import Settings
from runlane.store.assistant_transactions import NewAssistant
from runlane.store.cron_transactions import CronPlan, CronTarget
from runlane.store.rows import instant
from runlane.store.sqlite import now_us

HOUR_US = 3_600_000_000


async def fails(context: Any) -> None:
    context.emit("custom", {"n": 1})
    raise ValueError("no")


async def speaks(context: Any) -> str:
    for number in range(3):
        context.emit("custom", {"n": number})
    return "done"


async def live(runtime: Runtime, stepper: Stepper) -> None:
    """Do what an application does: graphs that end, that are cancelled and rolled back; a queue; a deleted thread."""
    for _ in range(2):
        await ended(runtime, await runtime.runs.create("graph", "a", kwargs=graph_run()))
    command = {"graph_id": "g", "command": {"update": {"log": ["begun"]}}}
    await ended(runtime, await runtime.runs.create("commanded", "a", kwargs=command))
    for action in CancelAction:
        stepper.started.clear()
        stepper.go.clear()
        run = await runtime.runs.create(action.value, "a", kwargs=graph_run())
        queued = await runtime.runs.create(action.value, "a", kwargs=graph_run())
        await soon(stepper.started.wait())
        await runtime.runs.cancel(run.run_id, action=action)
        stepper.go.set()
        await ended(runtime, run)
        await ended(runtime, queued)
    await ended(runtime, await runtime.runs.create("gone", "a", kwargs=graph_run()))
    saver = runtime.saver
    await runtime.store.delete_thread("gone", owner=ANY_OWNER, first=lambda: saver.removing("gone"))


async def live_without_graphs(runtime: Runtime) -> None:
    """Do what an application does whose agents are coroutines."""
    for thread_id, agent in (("fails", fails), ("speaks", speaks), ("speaks", at_once)):
        run = await runtime.runs.create(thread_id, "a")
        runtime.runs.start(run, agent)
        await ended(runtime, run)
    await _others(runtime)


async def _others(runtime: Runtime) -> None:
    """Add an assistant with two versions, crons that go on, that pause and that are over, and a webhook."""
    new = NewAssistant(assistant_id="a", owner=NO_OWNER, graph_id="g", config={}, context={}, metadata={})
    await runtime.store.create_assistant(new, if_exists_return=False)
    await runtime.store.update_assistant("a", owner=NO_OWNER, changes={"name": "second"})
    for name, enabled, end_us in (("goes on", True, None), ("paused", False, None), ("over", True, HOUR_US)):
        plan = CronPlan(
            schedule="0 0 * * *",
            timezone=None,
            end_at=None if end_us is None else instant(end_us),
            payload={},
            metadata={},
            on_run_completed=None,
            missed="once",
            overlap="allow",
            enabled=enabled,
            next_run_at=instant(now_us() + HOUR_US) if name == "goes on" else None,
        )
        target = CronTarget(owner=NO_OWNER, assistant_id="a", assistant_owner="*")
        await runtime.store.create_cron(name, target, plan)
    told = a_run("told", webhook="https://hooks.example.com/run")
    await runtime.store.admit(told)
    await runtime.store.request_cancel(
        told.run_id, owner=ANY_OWNER, action=CancelAction.INTERRUPT, reason=EndReason.USER_CANCEL, by=None
    )


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the file of a ledger with a real history, which nobody uses any more."""
    path = tmp_path_factory.mktemp("history") / "runlane.db"

    async def make() -> None:
        stepper = Stepper()
        stepper.go.set()
        async with opened(database=f"sqlite:///{path}", graphs={"g": stepper.graph()}) as runtime:
            await live(runtime, stepper)
            await live_without_graphs(runtime)

    asyncio.run(make())
    return path


@pytest.fixture
def ledger(history: Path, tmp_path: Path) -> Path:
    """Give a copy of that ledger, to be damaged."""
    return Path(shutil.copy(history, tmp_path / "runlane.db"))


def doctor(database: Path | str, *options: str, answer: str | None = None) -> Any:
    url = f"sqlite:///{database}" if isinstance(database, Path) else database
    return CliRunner().invoke(app, ["doctor", "--database", url, *options], input=answer)


def found(path: Path | str) -> set[str]:
    """Return the codes of what the doctor finds, having checked that its exit code says so too."""
    result = doctor(path, "--json")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    codes = {finding["code"] for finding in json.loads(result.stdout)["findings"]}
    assert result.exit_code == (1 if codes else 0)
    return codes


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for sql in statements:
            connection.execute(sql)


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


@dataclass(frozen=True, slots=True)
class Damage:
    """How a ledger is damaged, and what the doctor is to say; *clean* if it can repair it."""

    codes: tuple[str, ...]
    sql: tuple[str, ...]
    clean: bool = True


ONE = "(SELECT run_id FROM runs WHERE thread_id = 'speaks' ORDER BY seq LIMIT 1)"
FAILED = "(SELECT run_id FROM runs WHERE thread_id = 'fails')"
SEQ = "(SELECT seq FROM runs WHERE thread_id = 'speaks' ORDER BY seq LIMIT 1)"
FUTURE = 2**52
SECRET = '{"runlane_secrets":true,"config":{"configurable":{"api_key":"planted"}}}'
RUNNING = "status = 'running', end_reason = NULL, ended_at = NULL, events_end = NULL, worker_id = 'w'"
BUSY = "UPDATE threads SET status = 'busy' WHERE thread_id = 'speaks'"
LATE = f"INSERT INTO events VALUES ({SEQ}, 1000, 1000, x'90')"

DAMAGES = {
    "busy without a run": Damage(("thread.status",), (BUSY,)),
    "not busy with a run": Damage(
        ("thread.status",),
        (f"UPDATE runs SET {RUNNING}, lease_expires_at = {FUTURE} WHERE run_id = {ONE}",),
    ),
    "two running in a lane": Damage(
        ("lane.two_running", "schema.guard"),
        (
            "DROP INDEX runs_one_running",
            f"UPDATE runs SET {RUNNING}, lease_expires_at = {FUTURE} WHERE thread_id = 'speaks'",
            BUSY,
        ),
    ),
    "the index against that is gone": Damage(("schema.guard",), ("DROP INDEX runs_one_running",)),
    "a lease that is long over": Damage(
        ("run.abandoned",), (f"UPDATE runs SET {RUNNING}, lease_expires_at = 1 WHERE run_id = {ONE}", BUSY)
    ),
    "running without a lease": Damage(("run.abandoned",), (f"UPDATE runs SET {RUNNING} WHERE run_id = {ONE}", BUSY)),
    "ended without an instant": Damage(("run.end",), (f"UPDATE runs SET ended_at = NULL WHERE run_id = {ONE}",)),
    "ended without a last event": Damage(("run.end",), (f"UPDATE runs SET events_end = NULL WHERE run_id = {ONE}",)),
    "failed without a reason": Damage(("run.end",), (f"UPDATE runs SET end_reason = NULL WHERE run_id = {FAILED}",)),
    "cancelled without a reason": Damage(
        ("run.end",), ("UPDATE runs SET end_reason = NULL WHERE cancel_action IS NOT NULL",)
    ),
    "succeeded without a reason": Damage(
        ("run.end",), (f"UPDATE runs SET end_reason = NULL WHERE run_id = {ONE}",), clean=False
    ),
    "ended with its secrets": Damage(("run.secrets",), (f"UPDATE runs SET kwargs = '{SECRET}' WHERE run_id = {ONE}",)),
    "events after the end": Damage(
        ("events.after_end",),
        (f"INSERT INTO events SELECT {SEQ}, events_end + 1, events_end + 1, x'90' FROM runs WHERE run_id = {ONE}",),
    ),
    "events after the end, and after a gap": Damage(("events.after_end", "events.gap"), (LATE,)),
    "an end amid a segment": Damage(
        ("events.after_end",), (f"UPDATE runs SET events_end = 1 WHERE run_id = {ONE}",), clean=False
    ),
    "the last events are lost": Damage(
        ("events.cut_off",), (f"UPDATE runs SET events_end = 1000 WHERE run_id = {ONE}",), clean=False
    ),
    "a gap in a log": Damage(
        ("events.gap",), (f"UPDATE events SET first_seq = first_seq + 1 WHERE run_seq = {SEQ}",), clean=False
    ),
    "events of no run": Damage(("events.run",), ("INSERT INTO events VALUES (999999, 1, 1, x'90')",)),
    "events of a run that was deleted": Damage(("events.run",), (f"DELETE FROM runs WHERE run_id = {ONE}",)),
    "runs of no thread": Damage(("run.thread",), ("DELETE FROM threads WHERE thread_id = 'speaks'",)),
    "runs and checkpoints of no thread": Damage(("run.thread",), ("DELETE FROM threads WHERE thread_id = 'graph'",)),
    "runs of two owners of no thread": Damage(
        ("run.thread",),
        ("DELETE FROM threads WHERE thread_id = 'speaks'", f"UPDATE runs SET owner = 'other' WHERE run_id = {ONE}"),
        clean=False,
    ),
    "checkpoints of no thread": Damage(
        ("checkpoints.thread",),
        tuple(
            f"INSERT INTO {table} SELECT {columns} FROM {table} WHERE thread_id = 'graph'"
            for table, columns in (
                (
                    "checkpoints",
                    "seq + 100000, 'nobody', checkpoint_ns, checkpoint_id, run_id, parent_id, type, checkpoint, "
                    "metadata_type, metadata",
                ),
                ("checkpoint_blobs", "'nobody', checkpoint_ns, channel, version, run_id, type, value"),
                (
                    "checkpoint_writes",
                    "'nobody', checkpoint_ns, checkpoint_id, seq, run_id, task_id, task_path, type, writes",
                ),
            )
        ),
    ),
    "values of no thread": Damage(
        ("checkpoints.thread",), ("INSERT INTO checkpoint_blobs VALUES ('nobody', '', 'c', '1', 'r', 'null', x'')",)
    ),
    "writes of no thread": Damage(
        ("checkpoints.thread",),
        ("INSERT INTO checkpoint_writes VALUES ('nobody', '', 'c', 1, 'r', 't', '', 'null', x'')",),
    ),
    "what no run stored of no thread": Damage(
        ("checkpoints.thread",),
        ("INSERT INTO checkpoint_blobs VALUES ('nobody', '', 'c', '1', '', 'null', x'')",),
        clean=False,
    ),
    "values that no checkpoint names": Damage(
        ("checkpoints.values",), ("INSERT INTO checkpoint_blobs VALUES ('graph', '', 'log', 'x', 'r', 'null', x'')",)
    ),
    "writes of no checkpoint": Damage(
        ("checkpoints.writes",),
        ("INSERT INTO checkpoint_writes VALUES ('graph', '', 'none', 1, 'r', 't', '', 'null', x'')",),
    ),
    "a checkpoint that cannot be read": Damage(
        ("checkpoints.unreadable",),
        ("UPDATE checkpoints SET checkpoint = x'c1' WHERE seq = (SELECT MIN(seq) FROM checkpoints)",),
        clean=False,
    ),
    "an assistant without its version": Damage(
        ("assistant.version",), ("DELETE FROM assistant_versions WHERE version = 2",)
    ),
    "a cron without its next date": Damage(
        ("cron.next",), ("UPDATE crons SET next_run_at = NULL WHERE cron_id = 'goes on'",)
    ),
    "a cron whose schedule is none": Damage(
        ("cron.next",), ("UPDATE crons SET next_run_at = NULL, schedule = 'x' WHERE cron_id = 'goes on'",), clean=False
    ),
    "a delivery that stays claimed": Damage(
        ("delivery.stuck",), (f"UPDATE webhook_deliveries SET attempts = 1, next_at = {FUTURE}",)
    ),
    "a schema that is behind": Damage(
        ("schema.behind",),
        (
            "ALTER TABLE runs DROP COLUMN webhook",
            "DROP TABLE webhook_deliveries",
            "DROP TABLE webhook_attempts",
            "UPDATE runlane_version SET version_num = '0005'",
        ),
    ),
}


def test_a_ledger_with_a_real_history_is_whole(ledger: Path) -> None:
    before = dump(ledger)
    result = doctor(ledger)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "Nothing is wrong."
    with closing(sqlite3.connect(ledger)) as connection:
        of_no_checkpoint = "checkpoint_id NOT IN (SELECT checkpoint_id FROM checkpoints)"
        assert connection.execute(f"SELECT 1 FROM checkpoint_writes WHERE {of_no_checkpoint}").fetchone()
        runs = connection.execute("SELECT COUNT(*) FROM runs").fetchone()[0]
        values = connection.execute("SELECT COUNT(*) FROM checkpoint_blobs").fetchone()[0]
    assert f" {runs} runs," in result.stdout
    assert f" {values} checkpointed values." in result.stdout
    assert runs > 8
    assert values > 8
    assert dump(ledger) == before


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found(damage: Damage, ledger: Path) -> None:
    change(ledger, *damage.sql)
    assert found(ledger) == set(damage.codes)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_repair_is_shown_before_it_is_made(damage: Damage, ledger: Path) -> None:
    change(ledger, *damage.sql)
    before = dump(ledger)
    result = doctor(ledger, "--repair", answer="n\n")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    for code in damage.codes:
        [line, *_] = [line for line in lines if line.startswith(f"{code} ")]
        assert (" Repair: " in line) or (" To do: " in line)
    assert dump(ledger) == before


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_needs_no_judgement_is_repaired_and_the_rest_is_left(damage: Damage, ledger: Path) -> None:
    change(ledger, *damage.sql)
    before = dump(ledger)
    result = doctor(ledger, "--repair", "--yes")
    assert result.exit_code == (0 if damage.clean else 1), result.output
    assert found(ledger) == (set() if damage.clean else set(damage.codes))
    if not damage.clean:
        assert dump(ledger) == before


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_a_repair_that_comes_too_late_changes_nothing(damage: Damage, ledger: Path) -> None:
    change(ledger, *damage.sql)
    async with open_ledger(Settings(database=f"sqlite:///{ledger}")) as opened_ledger:
        found_before = (await examine(opened_ledger)).findings
        for finding in found_before:
            assert await repair(opened_ledger, finding) is (finding.fix is not None), finding
        before = dump(ledger)
        assert not any([await repair(opened_ledger, finding) for finding in found_before])
        assert dump(ledger) == before


async def test_pages_of_any_size_say_the_same_and_bound_what_is_kept(ledger: Path) -> None:
    change(ledger, "UPDATE runs SET ended_at = NULL", "DELETE FROM threads WHERE thread_id = 'speaks'")
    async with open_ledger(Settings(database=f"sqlite:///{ledger}")) as opened_ledger:
        whole = await examine(opened_ledger)
        paged = await examine(opened_ledger, page_size=1)
        some = await examine(opened_ledger, max_findings=2)
    assert sorted(finding.line for finding in paged.findings) == sorted(finding.line for finding in whole.findings)
    assert paged.checked == whole.checked
    assert (len(some.findings), some.complete) == (2, False)


def test_a_damaged_file_is_said_to_be_and_left_alone(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        [size] = connection.execute("PRAGMA page_size").fetchone()
        [page] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'runs_by_thread'").fetchone()
    with ledger.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    damaged = ledger.read_bytes()
    result = doctor(ledger, "--repair", "--yes")
    assert result.exit_code == 1
    assert result.stdout.startswith("file.integrity: SQLite says that the file is damaged (")
    assert ledger.read_bytes() == damaged


def test_a_file_that_cannot_even_be_opened_is_said_to_be_damaged(ledger: Path) -> None:
    with ledger.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (ledger.stat().st_size - 4096))
    result = doctor(ledger)
    assert result.exit_code == 1
    assert result.stdout.startswith("file.integrity: SQLite says that the file is damaged (database disk image is")


@pytest.mark.parametrize("database", ["memory://", "sqlite:///{folder}/none/runlane.db"])
def test_where_there_is_nothing_to_check_nothing_is_made(database: str, tmp_path: Path) -> None:
    result = doctor(database.format(folder=tmp_path))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_something_else_is_not_made_a_ledger(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    change(file, "CREATE TABLE other (a)")
    before = dump(file)
    result = doctor(file, "--repair", "--yes")
    assert (result.exit_code, dump(file)) == (2, before)
    assert "is no ledger" in result.stderr


def test_json_does_not_ask(ledger: Path) -> None:
    change(ledger, BUSY)
    assert doctor(ledger, "--json", "--repair").exit_code == 2
    result = doctor(ledger, "--json", "--repair", "--yes")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["findings"], told["complete"]) == (0, [], True)
    [repaired] = told["repaired"]
    assert repaired["code"] == "thread.status"
    assert repaired["subject"] == {"thread": "speaks", "status": "busy"}


# --------------------------------------------------------------------------------------------------------- in use


async def test_a_server_s_file_is_checked_beside_it_and_whole_after_kill_9(tmp_path: Path) -> None:
    file = tmp_path / "runlane.db"
    async with Server(tmp_path) as server, httpx.AsyncClient(timeout=30.0, trust_env=False) as http:
        await server.start()
        thread_id = await new_thread(http, server.url)
        reader = Reader(server, http, thread_id, "one")
        payload = {"input": {"name": "one", "steps": 6}}
        async with asyncio.TaskGroup() as group:
            group.create_task(reader.follow(payload))
            await reader.reaches(2)
            beside = await asyncio.to_thread(doctor, file)
            assert (beside.exit_code, beside.stderr) == (0, ""), beside.output
            assert "1 threads, 1 runs, 1 event logs" in beside.stdout
            assert "nothing can be repaired while it does" in beside.stdout
            await server.kill()
            assert await asyncio.to_thread(found, file) == set()
            await server.start()
        assert reader.ended
        change(file, "UPDATE threads SET status = 'busy'")
        refused = await asyncio.to_thread(doctor, file, "--repair", "--yes")
        assert refused.exit_code == 1
        assert refused.stdout.startswith("thread.status ")
        assert f"in use by another Runlane process (pid {server.pid})" in refused.stderr
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("SELECT status FROM threads").fetchall() == [("busy",)]


IN_POSTGRES = [
    name
    for name, damage in DAMAGES.items()
    if "lane.two_running" not in damage.codes
    and not any(word in sql for sql in damage.sql for word in ("checkpoint", "'graph'", "DROP TABLE"))
]


@pytest.fixture(scope="module")
def postgres_history(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """Give the name of a database with a real history."""
    name = f"history_{uuid4().hex}"

    async def make() -> None:
        async with opened(database=postgres_cluster.url(name)) as runtime:
            await live_without_graphs(runtime)

    with psycopg.connect(postgres_cluster.dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        asyncio.run(make())
        yield name
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def postgres(postgres_cluster: PostgresCluster, postgres_history: str) -> Iterator[str]:
    """Give the address of a copy of that database."""
    name = f"copy_{uuid4().hex}"
    with psycopg.connect(postgres_cluster.dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{postgres_history}"')
        yield postgres_cluster.url(name)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.mark.parametrize("name", IN_POSTGRES)
def test_postgresql_is_checked_and_repaired_while_it_is_used(name: str, postgres: str) -> None:
    damage = DAMAGES[name]
    assert found(postgres) == set()
    with psycopg.connect(postgres, autocommit=True) as connection:
        for sql in damage.sql:
            connection.execute(sql.replace("x'90'", "'\\x90'"))
        assert found(postgres) == set(damage.codes)
        result = doctor(postgres, "--repair", "--yes")
        assert result.exit_code == (0 if damage.clean else 1), result.output
        assert found(postgres) == (set() if damage.clean else set(damage.codes))


def test_a_run_that_a_worker_may_still_execute_is_not_taken_from_it(postgres: str) -> None:
    codes = {"lane.two_running", "schema.guard"}
    with psycopg.connect(postgres, autocommit=True) as connection:
        for sql in DAMAGES["two running in a lane"].sql:
            connection.execute(sql)
        assert doctor(postgres, "--repair", "--yes").exit_code == 1
        assert found(postgres) == codes
        connection.execute("UPDATE runs SET lease_expires_at = 1 WHERE thread_id = 'speaks'")
        assert found(postgres) == codes | {"run.abandoned"}
        assert doctor(postgres, "--repair", "--yes").exit_code == 0
        statuses = connection.execute("SELECT status, rescues FROM runs WHERE thread_id = 'speaks'").fetchall()
    assert statuses == [("pending", 1), ("pending", 1)]
