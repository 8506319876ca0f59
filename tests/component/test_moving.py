"""A ledger that moves to another database: all of it, whatever interrupts the move, and nothing twice."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import run as run_process
from typing import Any

import pytest
from click.testing import CliRunner

from ledger_kit import ledger_connection
from run_kit import Stepper, ended, graph_run, items, opened, until
from runlane.cli.main import app
from runlane.errors import ConfigurationError, LedgerInUse
from runlane.moving.ends import End
from runlane.moving.move import Moved, MoveIncomplete, move
from runlane.moving.postgres_end import PostgresEnd
from runlane.moving.sqlite_end import SqliteEnd
from runlane.moving.tables import NOT_COPIED, POSTGRES_ONLY, STATE_TABLE, Table, copied, is_copied
from runlane.store.drivers.sqlite import SqliteDriver
from runlane.store.migrate import migrate_sqlite
from runlane.store.migrations import DEFAULT_SCHEMA

ROWS = 7
NEWEST_ORDER = 900
JSON_TEXT = '{"k": "ü✓ \\\\ \\u0000"}'
#: A move that kills its process when it has reported so often.
KILLED = """
import os, signal, sys
from runlane.moving.opening import open_source, open_target
from runlane.moving import move
move.BATCH_ROWS = 2
reports = 0
def progress(label, done, total):
    global reports
    reports += 1
    if reports == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
move.move(open_source(sys.argv[1], "runlane"), open_target(sys.argv[2], "runlane"), progress)
"""


def lite(path: Path) -> SqliteEnd:
    return SqliteEnd(str(path))


def postgres(url: str) -> PostgresEnd:
    return PostgresEnd(url, DEFAULT_SCHEMA)


def moved(source: End, target: End) -> Moved:
    return move(source, target, lambda label, done, total: None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a file with rows in each table, which have a value of their own in each column."""
    path = tmp_path / "ledger.db"
    migrate_sqlite(path)
    with lite(path) as end, end.transaction():
        for table in end.tables().values():
            if is_copied(table.name):
                types = dict(end.execute("SELECT name, type FROM pragma_table_info(?)", (table.name,)))
                rows = range(ROWS if table.key else 1)
                end.insert(table, [tuple(value_of(types[name], name, row) for name in table.columns) for row in rows])
        end.execute("UPDATE start_orders SET newest = ?", (NEWEST_ORDER,))
        end.execute("DELETE FROM runs WHERE seq = (SELECT MAX(seq) FROM runs)")
    return path


def value_of(kind: str, column: str, row: int) -> Any:
    if kind == "BLOB":
        return f"\0{column} {row}".encode() + b"\xff\xc1\\"
    if kind == "TEXT":
        return JSON_TEXT if column == "metadata" else f"{column} {row} \\N \t\n'ü✓"
    return row if column == "due" else 10**12 + len(column) * 100 + row


def everything(end: End) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of the ledger at *end*, but for columns that only PostgreSQL has."""
    with end, end.transaction():
        found = {}
        for table in end.tables().values():
            if is_copied(table.name):
                columns = tuple(name for name in table.columns if name not in POSTGRES_ONLY.get(table.name, ()))
                rows = end.rows(Table(name=table.name, columns=columns, key=table.key))
                found[table.name] = sorted(rows, key=repr)
        return found


def test_every_table_and_column_is_copied_or_named_as_one_that_is_not(
    file: Path, new_postgres_ledger: Callable[[], str]
) -> None:
    with lite(file) as one, postgres(new_postgres_ledger()) as other:
        schemas = [one.tables(), other.tables()]
    for here, there in (schemas, schemas[::-1]):
        tables = {table.name: {*table.columns} for table in copied(here, there)}
        assert set(tables) == {name for name in here if is_copied(name)}
        for name, columns in tables.items():
            assert {*here[name].columns} - columns == POSTGRES_ONLY.get(name, set()) & {*here[name].columns}
    named = {*NOT_COPIED} - {STATE_TABLE, "store_vectors"}
    assert named <= {*schemas[0], *schemas[1]}, "a table that there is no more"
    without_key = {name for schema in schemas for name, table in schema.items() if is_copied(name) and not table.key}
    assert without_key == {"store_index"}, "a table that cannot be copied in parts"


@pytest.mark.parametrize("change", ["ALTER TABLE threads ADD COLUMN colour TEXT", "CREATE TABLE colours (c TEXT)"])
def test_what_only_one_database_has_is_refused(change: str, file: Path, new_postgres_ledger: Callable[[], str]) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(change)
    for ends in ((lite(file), postgres(new_postgres_ledger())), (postgres(new_postgres_ledger()), lite(file))):
        with pytest.raises(ConfigurationError, match=r"Only one of the databases has (threads.colour|colours)\."):
            moved(*ends)


def test_a_ledger_that_goes_there_and_back_is_the_same(file: Path, tmp_path: Path, postgres_url: str) -> None:
    before = everything(lite(file))
    assert moved(lite(file), postgres(postgres_url)).rows == {name: len(rows) for name, rows in before.items()}
    assert everything(postgres(postgres_url)) == before
    moved(postgres(postgres_url), lite(tmp_path / "back.db"))
    assert everything(lite(tmp_path / "back.db")) == before
    assert schema_of(tmp_path / "back.db") == schema_of(file)


def schema_of(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()


def test_counters_go_on_after_the_last_number_that_was_given_out(file: Path, tmp_path: Path, postgres_url: str) -> None:
    with lite(file) as end:
        last = end.counters()
        assert last["runs.seq"] > end.execute("SELECT MAX(seq) FROM runs")[0][0]
    moved(lite(file), postgres(postgres_url))
    with ledger_connection(postgres_url) as connection:
        assert connection.execute("SELECT nextval('start_orders')").fetchone() == (NEWEST_ORDER + 1,)
        sequence = "SELECT nextval(pg_get_serial_sequence('runlane.runs', 'seq'))"
        assert connection.execute(sequence).fetchone() == (last["runs.seq"] + 1,)
        connection.commit()
    moved(postgres(postgres_url), lite(tmp_path / "back.db"))
    with lite(tmp_path / "back.db") as end:
        assert end.counters() == {"runs.seq": last["runs.seq"] + 1, "start_orders": NEWEST_ORDER + 1}


@pytest.mark.parametrize("back", [False, True])
def test_a_move_that_is_killed_goes_on_where_it_was(back: bool, file: Path, tmp_path: Path, postgres_url: str) -> None:
    before, source, target = everything(lite(file)), f"sqlite:///{file}", postgres_url
    if back:
        moved(lite(file), postgres(postgres_url))
        source, target = postgres_url, f"sqlite:///{tmp_path}/back.db"
    for reports in (3, 20):
        killed = run_process([sys.executable, "-c", KILLED, source, target, str(reports)], check=False)
        assert killed.returncode == -signal.SIGKILL
    served = CliRunner().invoke(app, ["migrate", "--database", target])
    assert served.exit_code == 2
    assert "is the target of a move that is not complete" in served.stderr
    result = CliRunner().invoke(app, ["migrate", "--from", source, "--to", target, *(["--json"] if back else [])])
    assert result.exit_code == 0, result.output
    if back:
        told = json.loads(result.stdout)
        assert (told["moved"], told["resumed"], told["rows"]["runs"] > 0) == (True, True, True)
    else:
        assert "going on where it was interrupted" in result.stdout
    assert everything(lite(tmp_path / "back.db") if back else postgres(postgres_url)) == before


def test_a_source_that_has_changed_since_is_found_by_the_comparison(file: Path, postgres_url: str) -> None:
    run_process([sys.executable, "-c", KILLED, f"sqlite:///{file}", postgres_url, "20"], check=False)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE assistants SET name = 'other'")
        connection.commit()
    with pytest.raises(MoveIncomplete, match=r"assistants \(7 and 7 rows\)"):
        moved(lite(file), postgres(postgres_url))


def refusal(source: str, target: str) -> str:
    result = CliRunner().invoke(app, ["migrate", "--from", source, "--to", target])
    assert result.exit_code in (1, 2)
    return result.stderr


def test_what_cannot_be_moved_is_refused_and_nothing_is_made(file: Path, tmp_path: Path, postgres_url: str) -> None:
    here, nowhere = f"sqlite:///{file}", f"sqlite:///{tmp_path}/none.db"
    assert "does not exist" in refusal(nowhere, postgres_url)
    assert not (tmp_path / "none.db").exists()
    assert "has no ledger" in refusal(postgres_url, nowhere)
    assert not list(tmp_path.glob("none.db*"))
    assert "cannot be moved to itself" in refusal(here, here)
    assert "cannot be moved to itself" in refusal(postgres_url, postgres_url)
    assert "memory:// cannot be moved" in refusal("memory://", postgres_url)
    assert "db/x?password=*** cannot be moved" in refusal("mysql://db/x?password=hunter2", postgres_url)
    assert "--from and --to belong together" in CliRunner().invoke(app, ["migrate", "--from", here]).stderr
    both = CliRunner().invoke(app, ["migrate", "--from", here, "--to", postgres_url, "--compact"])
    assert "leave out --database and --compact" in both.stderr


def test_a_target_that_is_not_empty_is_refused(file: Path, tmp_path: Path, postgres_url: str) -> None:
    moved(lite(file), postgres(postgres_url))
    assert "is not empty: it has rows in assistant_versions" in refusal(f"sqlite:///{file}", postgres_url)


def test_the_target_of_another_move_is_refused(file: Path, tmp_path: Path, postgres_url: str) -> None:
    run_process([sys.executable, "-c", KILLED, f"sqlite:///{file}", postgres_url, "3"], check=False)
    migrate_sqlite(tmp_path / "other.db")
    assert f"A move from sqlite:///{file}" in refusal(f"sqlite:///{tmp_path}/other.db", postgres_url)


def test_a_source_of_another_version_is_refused(file: Path, postgres_url: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE runlane_version SET version_num = '0009'")
        connection.commit()
        assert "has the schema of an earlier version" in refusal(f"sqlite:///{file}", postgres_url)
        connection.execute("UPDATE runlane_version SET version_num = '9999'")
        connection.commit()
    assert "has the schema of a newer version" in refusal(f"sqlite:///{file}", postgres_url)


async def test_a_ledger_in_use_is_refused_as_either_end(file: Path, tmp_path: Path, postgres_url: str) -> None:
    driver = SqliteDriver(file)
    with pytest.raises(LedgerInUse, match=r"Stop that process, or name another file\.$"):
        moved(lite(file), postgres(postgres_url))
    await driver.aclose()
    before = sorted(os.listdir(tmp_path))
    async with opened(database=postgres_url, lease_s=60):
        for ends in ((postgres(postgres_url), lite(tmp_path / "new.db")), (lite(file), postgres(postgres_url))):
            with pytest.raises(ConfigurationError, match="is in use by"):
                moved(*ends)
            assert sorted(os.listdir(tmp_path)) == before, "nothing is made"


def test_a_text_that_postgresql_cannot_store_is_named_by_its_row_and_not_shown(file: Path, postgres_url: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE assistants SET name = 'private' || char(0) WHERE rowid = 2")
        connection.commit()
        [(assistant_id,)] = connection.execute("SELECT assistant_id FROM assistants WHERE rowid = 2")
    said = refusal(f"sqlite:///{file}", postgres_url)
    assert "assistants.name" in said
    assert f"assistant_id {assistant_id!r}" in said
    assert "private" not in said


async def test_a_moved_ledger_goes_on(tmp_path: Path, postgres_url: str) -> None:
    """A thread continues, a stream replays, what waits is executed, and what ran is taken from its dead process."""
    stepper, crashed = Stepper(), tmp_path / "crashed.db"
    graphs = {"g": stepper.graph()}
    database = f"sqlite:///{tmp_path}/ledger.db"
    async with opened(database=database, graphs=graphs, max_concurrent_runs=1, lease_s=1.0) as runtime:
        stepper.go.set()
        done = await ended(runtime, await runtime.runs.create("done", kwargs=graph_run()))
        stream = await items(runtime, done.run_id)
        stepper.go.clear()
        stepper.started.clear()
        runs = [
            await runtime.runs.create(thread, kwargs=graph_run(durability="sync"))
            for thread in ("busy", "waits", "busy")
        ]
        await until(stepper.started.is_set)
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as one, closing(sqlite3.connect(crashed)) as other:
            one.backup(other)
        stepper.go.set()
    moved(lite(crashed), postgres(postgres_url))
    stepper.calls.clear()
    async with opened(database=postgres_url, graphs=graphs, lease_s=1.0, poll_s=0.2) as runtime:
        ends = [await ended(runtime, run) for run in runs]
        assert [run.status for run in ends] == ["success"] * 3
        assert [run.attempt for run in ends] == [2, 1, 1]
        assert stepper.calls.count("first") == 2, "the run that had ended its first step goes on after it"
        assert await items(runtime, done.run_id) == stream
        again = await ended(runtime, await runtime.runs.create("done", kwargs=graph_run(input={})))
        assert again.seq > max(run.seq for run in ends)
        thread = await runtime.store.threads.get("done", owner="")
        assert thread.values == {"log": ["first", "second", "third"] * 2}
