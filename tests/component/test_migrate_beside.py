"""``runlane migrate`` on PostgreSQL beside processes of an earlier version: it leaves what would stop them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from acceptance.kit import PROJECT
from ledger_kit import ledger_connection
from run_kit import soon, until
from runlane.store.backends import migrate_postgres, migrate_postgres_beside
from runlane.store.migrations import NEWEST, VERSION_TABLE, min_reader
from versions_kit import SRC, command, env_of, next_version, runlane

EXPAND = """-- expand
ALTER TABLE runs ADD COLUMN extra TEXT;
CREATE TABLE extras (extra TEXT PRIMARY KEY);
CREATE INDEX runs_extra ON runs (extra, seq);
"""
#: Takes away what EXPAND made: so no later version uses it.
CONTRACT = "-- contract\nDROP INDEX runs_extra;\nALTER TABLE runs DROP COLUMN extra;\n"
BREAK = "-- break\nALTER TABLE runs ADD COLUMN needed TEXT NOT NULL DEFAULT '';\n"


@pytest.fixture(scope="module")
def expanding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the code of a version that needs more."""
    return next_version(tmp_path_factory.mktemp("expanding"), {"9001_more": EXPAND})


@pytest.fixture
def url(new_postgres_ledger: Callable[[], str]) -> str:
    return new_postgres_ledger()


def connected(url: str) -> AbstractContextManager[psycopg.Connection[Any]]:
    return ledger_connection(url, autocommit=True)


def enter(url: str, worker_id: str, revision: str | None = NEWEST, *, for_s: float = 600) -> None:
    """Have a process whose code knows *revision* hold a lease on the ledger."""
    with connected(url) as connection:
        connection.execute(
            """INSERT INTO workers (worker_id, beats, lease_us, expires_at, revision) VALUES (%s, 1, 1000000,
               (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint + %s, %s)""",
            (worker_id, int(for_s * 1_000_000), revision),
        )


def version(url: str) -> tuple[str, str]:
    with connected(url) as connection:
        [row] = connection.execute(f"SELECT version_num, min_reader FROM {VERSION_TABLE}").fetchall()
    return row


def migrated(src: Path, url: str, *options: str) -> tuple[int, str]:
    done = runlane(src, "migrate", "--database", url, *options)
    return done.returncode, done.stdout + done.stderr


def test_a_schema_is_expanded_beside_an_earlier_version_which_may_then_start_again(expanding: Path, url: str) -> None:
    enter(url, "old")
    assert migrated(expanding, url)[0] == 0
    assert version(url) == ("9001", min_reader(NEWEST, "postgres"))
    with connected(url) as connection:
        assert connection.execute("SELECT extra FROM runs").fetchall() == []
        [made] = connection.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'runs_extra'::regclass")
    assert made == (True,)
    assert migrate_postgres(url) is False, "an earlier version uses it"
    assert migrate_postgres_beside(url).applied == ()
    assert "has the schema of a newer version, which this one can use" in migrated(SRC, url)[1]


def test_a_process_does_not_change_the_schema_of_others_when_it_starts(expanding: Path, url: str) -> None:
    enter(url, "old")
    done = runlane(expanding, "worker", str(PROJECT), "--database", url)
    assert done.returncode == 2, done
    assert "it is in use by old. Run `runlane migrate` first" in done.stderr
    assert version(url)[0] == NEWEST


def test_what_an_earlier_version_cannot_do_without_waits_until_its_processes_are_gone(tmp_path: Path, url: str) -> None:
    contracting = next_version(tmp_path, {"9001_more": EXPAND, "9002_less": CONTRACT})
    enter(url, "old")
    enter(url, "older", None)
    enter(url, "new", "9002")
    enter(url, "dead", for_s=-60)
    code, said = migrated(contracting, url)
    assert (code, version(url)[0]) == (0, "9001"), said
    assert "has what this version needs. 9002" in said
    assert "gone: old, older. Replace them" in said
    assert migrated(contracting, url, "--gone", "older")[0] == 0
    assert version(url)[0] == "9001"
    assert migrated(contracting, url, "--gone", "old", "--gone", "older")[0] == 0
    assert version(url) == ("9002", "9002")
    refused = runlane(SRC, "migrate", "--database", url)
    assert refused.returncode == 2
    assert "only versions that know schema 9002 can use" in refused.stderr


def test_what_is_needed_and_stops_an_earlier_version_is_refused_while_that_lives(tmp_path: Path, url: str) -> None:
    breaking = next_version(tmp_path, {"9001_needed": BREAK})
    enter(url, "old")
    code, said = migrated(breaking, url)
    assert code == 1
    assert "does not have the schema of this version: 9001 cannot be applied until these processes" in said
    assert version(url)[0] == NEWEST
    with connected(url) as connection:
        connection.execute("DELETE FROM workers")
    assert migrated(breaking, url)[0] == 0
    assert version(url) == ("9001", "9001")


async def test_a_lock_that_others_hold_is_waited_for_and_stops_nobody_for_long(expanding: Path, url: str) -> None:
    waiting = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%ADD COLUMN extra%'"
    with psycopg.connect(url) as holder, connected(url) as beside:

        async def wait_for(waiters: int) -> None:
            await until(lambda: beside.execute(waiting).fetchall() == [(waiters,)])

        holder.execute(
            "SELECT * FROM runlane.runs"
        )  # ALTER TABLE waits for it, and all that comes after waits for that
        migrate = command("migrate", "--database", url)
        process = await asyncio.create_subprocess_exec(*migrate, env=env_of(expanding), stdout=asyncio.subprocess.PIPE)
        for waiters in (1, 0, 1):  # it waits, gives way, and tries again
            await wait_for(waiters)
        assert version(url)[0] == NEWEST
        holder.rollback()
        said, _ = await soon(process.communicate())
    assert process.returncode == 0, said
    assert version(url)[0] == "9001"


def test_an_index_that_was_not_completed_is_made_again_while_others_write(url: str) -> None:
    with connected(url) as connection:
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'runs_running'::regclass")
        connection.execute("DROP INDEX threads_heads")
        assert migrate_postgres_beside(url).changed
        made = (
            "SELECT indisvalid FROM pg_index WHERE indexrelid IN ('runs_running'::regclass, 'threads_heads'::regclass)"
        )
        assert connection.execute(made).fetchall() == [(True,), (True,)]
    assert not migrate_postgres_beside(url).changed
