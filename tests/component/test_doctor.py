"""The doctor: a ledger with a real history is whole; each way of damaging one is found, shown and, safely, repaired."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from click.testing import CliRunner

from acceptance.kit import Reader, Server, new_thread
from doctor_kit import BUSY, DAMAGES, Damage, in_postgres
from ledger_kit import a_plan, a_run, a_target, ledger_connection
from postgres_cluster import PostgresCluster
from run_kit import Stepper, at_once, ended, graph_run, opened, soon
from runlane.cli.main import app
from runlane.doctor import examine, open_ledger, repair
from runlane.errors import ConflictError, NotFound
from runlane.lifecycle import CancelAction, EndReason
from runlane.records import ANY_OWNER, NO_OWNER
from runlane.runtime import Runtime
from runlane.settings import Settings
from runlane.store.backends import migrate_postgres
from runlane.store.drivers.sqlite import now_us
from runlane.store.ledger import RunStore
from runlane.store.migrations import indexes
from runlane.store.rows import instant
from runlane.store.transactions.admissions import admit
from runlane.store.transactions.assistants import NewAssistant
from runlane.store.transactions.webhooks import Attempted, DeliveryStatus

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
    await runtime.store.threads.delete("gone", owner=ANY_OWNER, extra_writes=lambda: saver.threads.removing("gone"))


async def live_without_graphs(runtime: Runtime) -> None:
    """Do what an application does whose agents are coroutines."""
    await runtime.store.threads.create("noted", owner=NO_OWNER, metadata={"user": "ann"})
    for thread_id, agent in (("fails", fails), ("speaks", speaks), ("speaks", at_once)):
        run = await runtime.runs.create(thread_id, "a")
        runtime.runs.start(run, agent)
        await ended(runtime, run)
    await _others(runtime)


async def _others(runtime: Runtime) -> None:
    """Add an assistant with two versions, crons that go on, that pause and that are over, and a webhook."""
    new = NewAssistant(assistant_id="a", owner=NO_OWNER, graph_id="g", config={}, context={}, metadata={})
    await runtime.store.assistants.create(new, if_exists_return=False)
    await runtime.store.assistants.update("a", owner=NO_OWNER, changes={"name": "second"})
    for name, enabled, end_us in (("goes on", True, None), ("paused", False, None), ("over", True, HOUR_US)):
        plan = a_plan(
            schedule="0 0 * * *",
            end_at=None if end_us is None else instant(end_us),
            enabled=enabled,
            next_run_at=instant(now_us() + HOUR_US) if name == "goes on" else None,
        )
        await runtime.store.crons.create(name, a_target(), plan)
    await _with_webhook(runtime.store, "told")
    [claimed] = await runtime.store.webhooks.claim(capacity=1, per_host=1, busy={}, lease_s=60)
    sent_at = instant(now_us())
    attempted = Attempted(number=claimed.attempt, sent_at=sent_at, duration_s=0.1, status_code=200, error=None)
    assert await runtime.store.webhooks.settle(claimed.run_id, attempted, status=DeliveryStatus.DELIVERED)
    await _with_webhook(runtime.store, "to be told")


async def _with_webhook(store: RunStore, thread_id: str) -> None:
    run = a_run(thread_id, webhook="https://hooks.example.com/run", idempotency_key=thread_id)
    await store.runs.admit(run)
    await store.runs.request_cancel(
        run.run_id, owner=ANY_OWNER, action=CancelAction.INTERRUPT, reason=EndReason.USER_CANCEL, by=None
    )


async def live_on(database: str) -> None:
    """Make a ledger with a real history."""
    stepper = Stepper()
    stepper.go.set()
    async with opened(database=database, graphs={"g": stepper.graph()}) as runtime:
        await live(runtime, stepper)
        await live_without_graphs(runtime)
        items = runtime.long_term_store.for_owner(NO_OWNER)
        await items.aput(("notes",), "long", {"n": 1}, ttl=None)
        await items.aput(("notes",), "short", {"n": 2}, ttl=1000)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the file of a ledger with a real history, which nobody uses any more."""
    path = tmp_path_factory.mktemp("history") / "runlane.db"
    asyncio.run(live_on(f"sqlite:///{path}"))
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
    assert f" runs {runs}," in result.stdout
    assert f" checkpointed values {values}." in result.stdout
    assert runs > 8
    assert values > 8
    assert dump(ledger) == before


def touched(lines: set[str]) -> set[str]:
    """Return the tables of *lines* of a dump."""
    return {line.split('"')[1] for line in lines}


def repaired(database: Path | str, damage: Damage) -> None:
    """Repair *damage*, having checked that all of it is found, and that what can be is clean afterwards."""
    result = doctor(database, "--repair", "--yes", "--json")
    assert result.exit_code == (0 if damage.clean else 1), result.output
    told = json.loads(result.stdout)
    done, left = ({finding["code"] for finding in told[kind]} for kind in ("repaired", "findings"))
    assert (done, left) == ((set(damage.codes), set()) if damage.clean else (set(), set(damage.codes)))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found_and_its_repair_shown_before_it_is_made(damage: Damage, ledger: Path) -> None:
    change(ledger, *damage.sql)
    before = dump(ledger)
    result = doctor(ledger, "--repair", answer="n\n")
    assert result.exit_code == 1
    found_ones = result.stdout.partition("\nChecked: ")[0].splitlines()
    assert {line.partition(" ")[0].removesuffix(":") for line in found_ones} == {*damage.codes, *damage.also}
    told = " Repair: " if damage.clean else " To do: "
    assert all(told in line for line in found_ones if line.startswith(damage.codes))
    assert dump(ledger) == before


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_repair_makes_the_ledger_whole_and_touches_nothing_sound(damage: Damage, ledger: Path) -> None:
    whole = set(dump(ledger))
    change(ledger, *damage.sql)
    before = dump(ledger)
    repaired(ledger, damage)
    after = dump(ledger)
    if not damage.clean:
        assert after == before
    assert touched((whole & set(before)) - set(after)) <= set(damage.follows)


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


def test_where_code_was_that_ignored_its_deadline_is_no_finding(ledger: Path) -> None:
    change(ledger, "UPDATE runs SET cancel_blocked_at = 'graph.py:7 node' WHERE thread_id = 'fails'")
    assert found(ledger) == set()


async def test_pages_of_any_size_say_the_same_and_bound_what_is_kept(ledger: Path) -> None:
    change(ledger, "UPDATE runs SET ended_at = NULL", "DELETE FROM threads WHERE thread_id = 'speaks'")
    async with open_ledger(Settings(database=f"sqlite:///{ledger}")) as opened_ledger:
        whole = await examine(opened_ledger)
        paged = await examine(opened_ledger, page_size=1)
        some = await examine(opened_ledger, max_findings=2)
    assert sorted(finding.line for finding in paged.findings) == sorted(finding.line for finding in whole.findings)
    assert paged.checked == whole.checked
    assert (len(some.findings), some.complete) == (2, False)


def test_every_index_of_the_schema_is_looked_for(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        made = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL").fetchall()
    assert {name for (name,) in made} == {index.name for index in indexes("sqlite")}


def test_every_index_of_the_schema_is_looked_for_in_postgresql(postgres: str) -> None:
    with ledger_connection(postgres) as connection:
        made = connection.execute(
            """SELECT indexname FROM pg_indexes
               WHERE schemaname = current_schema() AND tablename NOT LIKE 'procrastinate%'
                 AND indexname NOT IN (SELECT conname FROM pg_constraint WHERE contype IN ('p', 'u'))"""
        ).fetchall()
    assert {name for (name,) in made} == {index.name for index in indexes("postgres")}


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


# ---------------------------------------------------------------------------------------------------------- sizes


def test_it_tells_what_takes_most_space(ledger: Path) -> None:
    event = (
        "INSERT INTO events SELECT seq, 9000, 9000, zeroblob({bytes}), NULL FROM runs"
        " WHERE thread_id = '{thread}' LIMIT 1"
    )
    write = (
        "INSERT INTO checkpoint_writes SELECT thread_id, checkpoint_ns, checkpoint_id, 9000, run_id, 't', '', 'null',"
        " zeroblob(300000), NULL FROM checkpoints WHERE thread_id = 'graph' LIMIT 1"
    )
    change(ledger, event.format(bytes=2_000_000, thread="speaks"), event.format(bytes=1_000_000, thread="fails"), write)
    free = "CREATE TABLE filler AS SELECT zeroblob(3000000) AS x; DROP TABLE filler"
    with closing(sqlite3.connect(ledger)) as connection:
        connection.executescript(free)
    shown = doctor(ledger).stdout
    assert re.search(r"^Size: 6\.\d MB, of which 3\.\d MB are free; write-ahead log: 0\.\d MB\.$", shown, re.M), shown
    assert "\nLargest tables: events 3." in shown
    assert "\nLargest threads: speaks 2.0 MB, fails 1.0 MB, graph 0.3 MB, " in shown
    assert "--compact" not in shown
    told = json.loads(doctor(ledger, "--json").stdout)["storage"]
    assert told["database_bytes"] == ledger.stat().st_size
    assert told["free_bytes"] > 3_000_000
    assert told["tables"]["events"] > 3_000_000
    assert told["shrinkable"]
    assert list(told["largest_threads"])[:3] == ["speaks", "fails", "graph"]


def test_it_tells_of_a_file_that_does_not_shrink(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        connection.executescript("PRAGMA journal_mode=DELETE; PRAGMA auto_vacuum=NONE; VACUUM")
    result = doctor(ledger)
    assert result.exit_code == 0
    assert "stop the server once, and run `runlane migrate --compact`." in result.stdout


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
            assert "threads 1, runs 1, event logs 1" in beside.stdout
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


IN_POSTGRES = [name for name, damage in DAMAGES.items() if "lane.two_running" not in damage.codes]


@pytest.fixture(scope="module")
def postgres_history(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """Give the name of a database with a real history."""
    name = f"history_{uuid4().hex}"

    with psycopg.connect(postgres_cluster.dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        asyncio.run(live_on(postgres_cluster.url(name)))
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


def test_it_tells_what_takes_most_space_in_postgresql(postgres: str) -> None:
    with ledger_connection(postgres, autocommit=True) as connection:
        connection.execute("UPDATE runs SET kwargs = kwargs || repeat(' ', 300000) WHERE thread_id = 'speaks'")
    told = json.loads(doctor(postgres, "--json").stdout)["storage"]
    assert told["database_bytes"] > sum(told["tables"].values()) > 0
    assert (told["free_bytes"], told["log_bytes"]) == (0, 0)
    assert next(iter(told["largest_threads"])) == "speaks"
    assert "--compact" not in doctor(postgres).stdout


def test_a_history_in_postgresql_is_whole(postgres: str) -> None:
    assert found(postgres) == set()


@pytest.mark.parametrize("name", IN_POSTGRES)
def test_postgresql_is_checked_and_repaired_while_it_is_used(name: str, postgres: str) -> None:
    damage = DAMAGES[name]
    with ledger_connection(postgres, autocommit=True) as connection:
        whole = rows_in(connection)
        for sql in damage.postgres or damage.sql:
            connection.execute(in_postgres(sql))
        before = rows_in(connection)
        repaired(postgres, replace(damage, codes=(*damage.codes, *damage.postgres_codes)))
        lost = (whole & before) - rows_in(connection)
    assert {table for table, _ in lost} <= set(damage.follows)


def rows_in(connection: psycopg.Connection[Any]) -> set[tuple[str, str]]:
    """Return all rows of the ledger, each with its table."""
    names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
    tables = [name for (name,) in names]
    return {(name, row) for name in tables for (row,) in connection.execute(f"SELECT t::text FROM {name} AS t")}


async def traffic(runtime: Runtime, examined: asyncio.Event, *, graphs: bool) -> int:
    """Run, queue, cancel, roll back and delete on a few threads until *examined*; return how many runs there were."""
    number = 0
    while not examined.is_set():
        number += 1
        thread_id = f"t{number % 7}"
        kwargs = graph_run() if graphs and number % 3 == 0 else None
        run = await runtime.runs.create(thread_id, "a", kwargs=kwargs, idempotency_key=f"k{number}")
        if kwargs is None:
            runtime.runs.start(run, speaks)
        if number % 2:
            action = CancelAction.INTERRUPT if number % 4 == 1 else CancelAction.ROLLBACK
            await runtime.runs.cancel(run.run_id, action=action)
        if number % 5 == 0:
            await _with_webhook(runtime.store, f"hook{number}")
            await ended(runtime, run)
            with suppress(ConflictError, NotFound):
                removing = partial(runtime.saver.threads.removing, thread_id) if graphs else None
                await runtime.store.threads.delete(thread_id, owner=ANY_OWNER, extra_writes=removing)
    return number


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_a_ledger_on_which_runs_come_and_go_has_no_finding(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'runlane.db'}" if database == "sqlite" else request.getfixturevalue("postgres_url")
    examined, stepper = asyncio.Event(), Stepper()
    stepper.go.set()

    async def look() -> int:
        async with open_ledger(Settings(database=url)) as beside:
            for _ in range(5):
                report = await examine(beside, page_size=10)
                assert (report.complete, report.findings) == (True, [])
            return report.checked["runs"]

    async with opened(database=url, graphs={"g": stepper.graph()}) as runtime, asyncio.TaskGroup() as group:
        busy = group.create_task(traffic(runtime, examined, graphs=True))
        try:
            while (await soon(asyncio.to_thread(asyncio.run, look()))) < 20:
                pass
        finally:
            examined.set()
    assert busy.result() > 20


def test_runs_that_no_worker_can_execute_are_found_while_there_are_workers(postgres_url: str) -> None:
    async def wait() -> None:
        async with open_ledger(Settings(database=postgres_url)) as ledger:
            for thread_id in ("t", "u"):
                await ledger.database.write(admit(a_run(thread_id, kwargs={"graph_id": "removed"})))

    migrate_postgres(postgres_url)
    asyncio.run(wait())
    assert found(postgres_url) == set(), "nothing is executed at all"
    with ledger_connection(postgres_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO workers (worker_id, beats, lease_us, expires_at, capacity, groups)"
            """ VALUES ('w', 1, 1, 4503599627370496, 4, '["other"]')"""
        )
    result = doctor(postgres_url)
    assert result.exit_code == 1
    said = r"run.no_worker graph=removed threads=2 oldest=2\S+: No live worker has graph 'removed', .* To do: start a "
    assert re.search(said, result.stdout), result.stdout


def test_a_role_that_bypasses_row_level_security_is_told_and_one_that_it_holds_for_is_found(postgres: str) -> None:
    assert "row-level security" not in doctor(postgres).stdout
    with ledger_connection(postgres, autocommit=True) as connection:
        role = f"held_{uuid4().hex}"
        connection.execute("ALTER TABLE runs ENABLE ROW LEVEL SECURITY")
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA runlane TO {role}")
        connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA runlane TO {role}")
        bypassing = doctor(postgres)
        assert "The role runlane bypasses the row-level security of runs" in bypassing.stdout
        assert bypassing.exit_code == 0, "it is what Runlane needs"
        assert json.loads(doctor(postgres, "--json").stdout)["row_security_bypassed"] == ["runs"]
        held = doctor(postgres.replace("//runlane@", f"//{role}@"))
        assert held.exit_code == 1
        assert f"schema.row_security role={role} tables=runs: " in held.stdout
        assert "bypasses" not in held.stdout
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    "damage",
    [
        "head_seq = NULL",
        "head_owner = 'another'",
        "head_group = 'another'",
        "head_home = 'another'",
        "head_seq = 99",
        "head_seq = (SELECT MAX(seq) FROM runs)",
        "head_due = 4503599627370496",
        pytest.param("head_seq = head_seq; UPDATE runs SET status = 'running', attempt = 1", id="it executes"),
    ],
)
def test_a_head_that_is_not_its_lanes_is_found_and_set_right(damage: str, postgres_url: str) -> None:
    async def wait() -> None:
        async with open_ledger(Settings(database=postgres_url)) as ledger:
            for _ in range(2):
                await ledger.database.write(admit(a_run("t", kwargs={"graph_id": "g"})))

    migrate_postgres(postgres_url)
    asyncio.run(wait())
    heads = "SELECT head_seq, head_owner, head_group, head_assistant, head_due, head_home FROM threads"
    with ledger_connection(postgres_url, autocommit=True) as connection:
        whole = connection.execute(heads).fetchall()
        assert found(postgres_url) == set()
        for sql in f"UPDATE threads SET {damage}".split("; "):
            connection.execute(sql.replace("attempt = 1", "attempt = 1 WHERE seq = 1"))
        assert found(postgres_url) >= {"thread.head"}
        doctor(postgres_url, "--repair", "--yes")
        assert "thread.head" not in found(postgres_url)
        executing = connection.execute("SELECT COUNT(*) FROM runs WHERE status = 'running'").fetchone()
        assert connection.execute(heads).fetchall() == ([(None,) * 6] if executing == (1,) else whole)


def test_a_run_that_a_worker_may_still_execute_is_not_taken_from_it(postgres: str) -> None:
    codes = {"lane.two_running", "schema.guard"}
    with ledger_connection(postgres, autocommit=True) as connection:
        for sql in DAMAGES["two running in a lane"].sql:
            connection.execute(sql)
        connection.execute(
            "INSERT INTO workers (worker_id, beats, lease_us, expires_at) VALUES ('w', 1, 1, 4503599627370496)"
        )
        assert doctor(postgres, "--repair", "--yes").exit_code == 1
        assert found(postgres) == codes
        connection.execute("UPDATE workers SET expires_at = 1")
        connection.execute("UPDATE runs SET updated_at = 1 WHERE thread_id = 'speaks'")
        assert found(postgres) == codes | {"run.abandoned"}
        assert doctor(postgres, "--repair", "--yes").exit_code == 0
        statuses = connection.execute("SELECT status, rescues FROM runs WHERE thread_id = 'speaks'").fetchall()
    assert statuses == [("pending", 1), ("pending", 1)]
