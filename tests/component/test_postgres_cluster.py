"""The private PostgreSQL cluster keeps what its fixtures promise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from postgres_cluster import PostgresCluster, PostgresUnavailable, bundled_binaries, chosen_binaries


def test_a_test_that_asks_gets_a_server(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("visit", ["first", "second"])
def test_each_test_gets_an_empty_database(postgres_url: str, visit: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert tables == [], f"{visit} visit finds what another test left"
        connection.execute("CREATE TABLE leftover (id int)")


def test_the_bundled_server_serves_where_none_is_installed() -> None:
    with PostgresCluster(binaries=bundled_binaries()[-1]) as cluster, psycopg.connect(cluster.dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_server_that_does_not_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    for program in ("initdb", "pg_ctl", "postgres"):
        (tmp_path / program).write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
        (tmp_path / program).chmod(0o755)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    cluster = PostgresCluster(binaries=tmp_path)

    with pytest.raises(PostgresUnavailable, match="out of order"):
        cluster.__enter__()

    assert not cluster.directory.exists()


def test_a_named_server_is_used_and_a_wrong_name_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    oldest = bundled_binaries()[0]
    monkeypatch.setenv("RUNLANE_POSTGRES", str(oldest))
    assert chosen_binaries().place == oldest
    assert str(chosen_binaries()).endswith(f"as RUNLANE_POSTGRES says: {oldest}")
    monkeypatch.setenv("RUNLANE_POSTGRES", str(tmp_path))
    with pytest.raises(PostgresUnavailable, match="has no initdb"):
        chosen_binaries()


KILLED_RUN = """
import os, signal
from postgres_cluster import PostgresCluster
print(PostgresCluster().__enter__().directory, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_test_run_leaves_no_server() -> None:
    helpers = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN],
        env={**os.environ, "PYTHONPATH": helpers},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        # The supervisor shares the error stream with the killed run, so this waits for both to end.
        output, errors = run.communicate()

    assert (run.returncode, errors) == (-signal.SIGKILL, "")
    assert not Path(output.strip()).exists()
