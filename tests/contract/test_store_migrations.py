"""Migrations: complete, in one transaction, once, and never backwards."""

from __future__ import annotations

import re
import shutil
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from subprocess import run as run_process
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ledger_kit import admit, ledger_connection
from runlane.errors import ConfigurationError, StoreUnavailable
from runlane.records import ANY_OWNER
from runlane.store import migrations
from runlane.store.backends import migrate_postgres
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.drivers.postgres import open_postgres
from runlane.store.drivers.sqlite import SqliteDriver
from runlane.store.ledger import RunStore
from runlane.store.migrate import HAS_MIN_READER, Version, apply_scripts, migrate_sqlite, pending
from runlane.store.migrations import (
    NEWEST,
    VERSION_TABLE,
    Dialect,
    index_of,
    kind,
    min_reader,
    revisions,
    script,
    statements,
)
from runlane.store.statements import Rows, Transaction, statement

#: The row of the version table in a database of this version; both dialects have the same.
CURRENT = (NEWEST, min_reader(NEWEST, "postgres"))
SCHEMA = statement("schema", "SELECT type, name, sql FROM sqlite_schema ORDER BY name")


def schema_of(path: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()


def tables_of(url: str) -> set[str]:
    with ledger_connection(url) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'runlane'").fetchall()
    return {name for (name,) in rows if not name.startswith("procrastinate_") and name != "job_migrations"}


def stamp(connection: sqlite3.Connection | psycopg.Connection, revision: str, min_reader: str) -> None:
    connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '{revision}', min_reader = '{min_reader}'")
    connection.commit()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def test_a_new_file_gets_the_whole_schema_once(path: Path) -> None:
    assert migrate_sqlite(path) is True
    made = schema_of(path)
    assert {"threads", "runs", "events", VERSION_TABLE} <= {name for _, name, _ in made}
    assert migrate_sqlite(path) is False
    assert schema_of(path) == made


def test_a_new_database_gets_the_whole_schema_once(postgres_url: str) -> None:
    assert migrate_postgres(postgres_url) is True
    assert {"threads", "assistants", "assistant_versions", "runs", "events", VERSION_TABLE} <= tables_of(postgres_url)
    assert migrate_postgres(postgres_url) is False


def test_processes_that_start_together_do_not_collide(postgres_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(migrate_postgres, [postgres_url] * 4)) == [False, False, False, True]
    assert migrate_postgres(postgres_url) is False


def as_alembic_left_it(connection: sqlite3.Connection | psycopg.Connection, dialect: Dialect) -> str:
    """Make the schema of an earlier version of Runlane, which used Alembic; return its revision."""
    before = [revision for revision in revisions() if revision < "0025"]
    for revision in before:
        for sql in statements(script(revision, dialect)):
            connection.execute(sql)
    # The statements that Alembic 1.16 sends.
    connection.execute(
        f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, "
        f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
    )
    connection.execute(f"INSERT INTO {VERSION_TABLE} (version_num) VALUES ('{before[-1]}')")
    connection.commit()
    return before[-1]


def test_a_file_that_alembic_migrated_is_upgraded_to_the_same_schema(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        as_alembic_left_it(connection, "sqlite")
    assert migrate_sqlite(path) is True
    migrate_sqlite(tmp_path / "new.db")
    assert schema_of(path) == schema_of(tmp_path / "new.db")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(f"SELECT * FROM {VERSION_TABLE}").fetchall() == [CURRENT]


def test_a_database_that_alembic_migrated_is_upgraded(postgres_url: str) -> None:
    with ledger_connection(postgres_url) as connection:
        connection.execute("CREATE SCHEMA runlane")
        as_alembic_left_it(connection, "postgres")
    assert migrate_postgres(postgres_url) is True
    assert migrate_postgres(postgres_url) is False
    with ledger_connection(postgres_url) as connection:
        assert connection.execute(f"SELECT * FROM {VERSION_TABLE}").fetchall() == [CURRENT]


def test_processes_that_open_a_file_together_upgrade_it_once(path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(migrate_sqlite, [path] * 4)) == [False, False, False, True]


async def test_a_file_is_migrated_while_its_driver_owns_it(path: Path) -> None:
    driver = SqliteDriver(path)
    migrate_sqlite(path)

    def count() -> Transaction[Rows]:
        rows = yield statement("count", "SELECT COUNT(*) AS n FROM runs")()
        return rows

    assert (await driver.write(count()))[0]["n"] == (await driver.read(count()))[0]["n"] == 0
    await driver.aclose()


async def test_a_memory_ledger_gets_the_same_schema_as_a_file(path: Path) -> None:
    migrate_sqlite(path)
    driver = MemoryDriver()
    apply_scripts(driver)

    def read() -> Transaction[Rows]:
        rows = yield SCHEMA()
        return rows

    in_memory = {tuple(row.values()) for row in await driver.read(read())}
    assert in_memory == set(schema_of(path))
    await driver.aclose()


#: What a ledger that many processes share has beyond one in a file: the heads of its lanes.
ONLY_IN_POSTGRES = {
    *("head_seq", "head_group", "head_owner", "head_assistant", "head_due", "head_home", "pinned_to", "paused_in"),
    *("threads_heads", "threads_heads_at_home", "runs_running", "runs_cancelled"),
}


def test_both_dialects_have_the_same_tables_columns_and_indexes(path: Path, postgres_url: str) -> None:
    migrate_sqlite(path)
    migrate_postgres(postgres_url)
    with closing(sqlite3.connect(path)) as lite, ledger_connection(postgres_url) as other:
        for table in tables_of(postgres_url) - {VERSION_TABLE, "commits"}:
            columns = "SELECT column_name FROM information_schema.columns WHERE table_name = %s"
            constraints = "SELECT conname FROM pg_constraint"
            indexes = f"SELECT indexname FROM pg_indexes WHERE tablename = %s AND indexname NOT IN ({constraints})"
            assert {row[1] for row in lite.execute(f"PRAGMA table_info({table})")} == {
                name for (name,) in other.execute(columns, (table,)) if name not in ONLY_IN_POSTGRES
            }
            named = {row[1] for row in lite.execute(f"PRAGMA index_list({table})") if not row[1].startswith("sqlite_")}
            assert named == {name for (name,) in other.execute(indexes, (table,))} - ONLY_IN_POSTGRES


def test_a_newer_schema_is_refused_by_name(path: Path, postgres_url: str) -> None:
    migrate_sqlite(path)
    migrate_postgres(postgres_url)
    with closing(sqlite3.connect(path)) as lite:
        stamp(lite, "9999", "9998")
    with ledger_connection(postgres_url) as other:
        stamp(other, "9999", "9998")
    with pytest.raises(
        ConfigurationError, match="schema 9999, made by a newer Runlane, which only versions that know schema 9998"
    ):
        migrate_sqlite(path)
    with pytest.raises(
        ConfigurationError, match="schema 9999, made by a newer Runlane, which only versions that know schema 9998"
    ):
        migrate_postgres(postgres_url)


def test_a_schema_that_a_newer_version_has_expanded_is_used(path: Path, postgres_url: str) -> None:
    migrate_sqlite(path)
    migrate_postgres(postgres_url)
    with closing(sqlite3.connect(path)) as lite:
        stamp(lite, "9999", NEWEST)
    with ledger_connection(postgres_url) as other:
        stamp(other, "9999", NEWEST)
    assert migrate_sqlite(path) is False
    assert migrate_postgres(postgres_url) is False
    with ledger_connection(postgres_url) as other:
        assert other.execute(f"SELECT * FROM {VERSION_TABLE}").fetchall() == [("9999", NEWEST)]


def test_only_the_last_revision_is_current() -> None:
    assert pending(Version(revision=NEWEST)) == ()
    assert pending(Version()) == revisions()
    assert pending(Version(revision=revisions()[0])) == revisions()[1:]


#: Statements that processes which do not know of them do not notice.
ADDITIVE = re.compile(
    r"CREATE TABLE |CREATE INDEX |SELECT 1;|ALTER TABLE \w+ SET \(|"
    r"ALTER TABLE \w+ ADD COLUMN (?!.*NOT NULL(?!.* DEFAULT )).*;$"
)


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
@pytest.mark.parametrize("revision", revisions())
def test_a_script_says_what_it_is_and_expands_by_additions_only(revision: str, dialect: Dialect) -> None:
    text = script(revision, dialect)
    if revision >= HAS_MIN_READER:
        assert re.match(r"-- (expand|contract|break)\n", text), "its first line says what it is: see decision 38"
    if kind(revision, dialect) != "expand":
        return
    made = re.findall(r"CREATE TABLE (\w+)", text)
    for sql in statements(re.sub(r"--.*\n", "", text)):
        index = index_of(sql)
        unique_on_new = index is not None and index.unique and index.table in made
        writes = re.findall(r"(?:INSERT(?: OR IGNORE)? INTO|UPDATE(?! OF)|DELETE FROM) (\w+)", sql)
        notes_in_new = re.match(r"CREATE (OR REPLACE )?(FUNCTION|TRIGGER) ", sql.strip()) and set(writes) <= {*made}
        assert unique_on_new or notes_in_new or ADDITIVE.match(sql.strip()), (
            f"processes of an earlier version may fail: {sql}"
        )


def test_a_failed_script_leaves_the_file_as_it_was(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE events (mine)")  # in the way of the first script's last statement
        connection.commit()
    before = schema_of(path)
    with pytest.raises(ConfigurationError, match="SQLite says: table events already exists"):
        migrate_sqlite(path)
    assert schema_of(path) == before


def test_a_failed_script_leaves_the_database_as_it_was(postgres_url: str) -> None:
    with ledger_connection(postgres_url) as connection:
        connection.execute("CREATE SCHEMA runlane")
        connection.execute("CREATE TABLE events (mine int)")
    with pytest.raises(ConfigurationError, match=r'PostgreSQL says: relation "events" already exists$'):
        migrate_postgres(postgres_url)
    assert tables_of(postgres_url) == {"events"}


async def test_a_database_with_tables_of_other_applications_is_used_beside_them(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        for table in ("runs", "threads", "events", VERSION_TABLE):
            connection.execute(f"CREATE TABLE public.{table} (mine int)")
    assert migrate_postgres(postgres_url)
    driver = await open_postgres(postgres_url)
    await admit(RunStore(driver))
    await driver.aclose()
    with psycopg.connect(postgres_url) as connection:
        counts = "SELECT (SELECT COUNT(*) FROM public.runs), (SELECT COUNT(*) FROM runlane.runs)"
        assert connection.execute(counts).fetchone() == (0, 1)


async def test_a_database_holds_a_ledger_in_each_schema(postgres_url: str) -> None:
    for schema in ("one", "user"):  # the second is a word of SQL
        migrate_postgres(postgres_url, schema)
    one = await open_postgres(postgres_url, schema="one")
    other = await open_postgres(postgres_url, schema="user")
    run_id = await admit(RunStore(one))
    assert await RunStore(one).runs.has_active("t", owner=ANY_OWNER)
    assert not await RunStore(other).runs.has_active("t", owner=ANY_OWNER)
    assert (await RunStore(one).runs.get(run_id, owner=ANY_OWNER)).start_order is None
    await one.aclose()
    await other.aclose()


def test_who_may_not_make_a_schema_uses_one_that_is_there_or_is_told(postgres_url: str) -> None:
    role, database = f"app_{uuid4().hex}", conninfo_to_dict(postgres_url)["dbname"]
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(f'REVOKE CREATE ON DATABASE "{database}" FROM PUBLIC'.encode())
    url = make_conninfo(postgres_url, user=role)
    with pytest.raises(ConfigurationError, match=rf"PostgreSQL says: permission denied for database {database}$"):
        migrate_postgres(url)
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"CREATE SCHEMA runlane AUTHORIZATION {role}")
    assert migrate_postgres(url)


async def test_an_address_that_is_none_is_a_configuration_error_of_one_line() -> None:
    url = "postgresql://h/x?nonsense=1"
    with pytest.raises(ConfigurationError) as migrated:
        migrate_postgres(url)
    with pytest.raises(ConfigurationError) as opened:
        await open_postgres(url)
    assert [len(str(refused.value).splitlines()) for refused in (migrated, opened)] == [1, 1]


def test_a_database_that_cannot_be_reached_is_an_outage(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        migrate_postgres(f"postgresql://nobody@/none?host={tmp_path}")
    with pytest.raises(StoreUnavailable):
        migrate_sqlite(tmp_path / "missing" / "x.db")


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("these are my notes, " * 100)
    with pytest.raises(StoreUnavailable, match=r"not a database\. See what is damaged with `runlane doctor`"):
        migrate_sqlite(path)
    assert path.read_text().startswith("these are my notes")


def test_every_revision_has_a_script_of_each_dialect() -> None:
    for revision in revisions():
        assert list(statements(script(revision, "sqlite")))
        assert list(statements(script(revision, "postgres")))


def test_a_script_that_ends_within_a_statement_is_refused() -> None:
    assert list(statements("-- a; b\nSELECT 1;\nSELECT ';'\n;\n")) == ["-- a; b\nSELECT 1;", "SELECT ';'\n;"]
    with pytest.raises(ValueError, match="within a statement"):
        list(statements("SELECT 1;\nSELECT 2"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, place = Path(__file__).parents[2], tmp_path_factory.mktemp("wheel")
    # A copy, so that the build leaves nothing in the tree.
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, place)
    shutil.copytree(root / "src", place / "src", ignore=shutil.ignore_patterns("__pycache__"))
    build = "import hatchling.build; print(hatchling.build.build_wheel('.'))"
    done = run_process([sys.executable, "-c", build], cwd=place, capture_output=True, text=True, check=True)
    return place / done.stdout.split()[-1]


def test_the_wheel_contains_the_scripts(wheel: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(wheel, tmp_path, "zip")
    unpacked = tmp_path / "runlane" / "store" / "migrations"
    for folder in ("", "sql"):
        expected = {
            entry.name for entry in files(migrations).joinpath(folder).iterdir() if not entry.name.startswith("__py")
        }
        assert {entry.name for entry in (unpacked / folder).iterdir()} == expected
