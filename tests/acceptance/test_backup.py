"""The commands of `how-to/backup-and-restore`, called while runs execute, give a database that servers start on."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import psycopg
import pytest

from acceptance.kit import Reader, Server, create_run, ended_run, get, new_thread
from postgres_cluster import PostgresCluster, chosen_binaries

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "backup-and-restore.md"
#: Where `runlane` is, as the page calls it.
PROGRAMS = Path(sys.executable).parent
SETTINGS = {"lease_s": 2.0, "poll_s": 0.2, "heartbeat_s": 0.2, "drain_grace_s": 0.1}


def snippets(section: str) -> list[str]:
    """Return the shell blocks of a section of the page."""
    [text] = [part for part in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE) if part.startswith(section)]
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


async def call(snippet: str, folder: Path, **environment: str) -> str:
    """Do in *folder* what a snippet says, and return what it prints."""
    paths = [str(PROGRAMS), str(chosen_binaries().place), os.environ["PATH"]]
    env = {**os.environ, **environment, "PATH": os.pathsep.join(paths)}
    done = await asyncio.to_thread(
        subprocess.run,
        ["/bin/sh", "-euc", snippet],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


async def interrupted_by_a_backup(
    server: Server, http: httpx.AsyncClient, folder: Path, snippet: str, **environment: str
) -> tuple[Reader, tuple[str, str]]:
    """Back up while a run executes, and one waits behind it; return the first one's reader, and the second."""
    reader = Reader(server, http, await new_thread(http, server.url), "executing")
    state = {"name": "executing", "steps": 30, "seconds": 0.2, "done": 0, "log": []}
    following = asyncio.create_task(reader.follow({"input": state}))
    await reader.reaches(3)
    waiting = await create_run(http, server, reader.thread_id, "steps", name="waiting", steps=2)
    await call(snippet, folder, **environment)
    assert not reader.ended, "the run ended before its backup was made"
    following.cancel()
    return reader, (reader.thread_id, waiting)


async def continued(server: Server, http: httpx.AsyncClient, reader: Reader, waiting: tuple[str, str]) -> None:
    """Start a server on the backup, and see both runs end, the first one without repeating what it had done."""
    await server.start()
    executed = await ended_run(http, server, reader.thread_id, reader.run_id)
    assert executed["status"] == "success"
    assert (await ended_run(http, server, *waiting))["status"] == "success"
    values = (await get(http, f"{server.url}/threads/{reader.thread_id}/state"))["values"]
    log = [(entry["name"], entry["step"]) for entry in values["log"]]
    assert log == [*(("executing", step) for step in range(1, 31)), ("waiting", 1), ("waiting", 2)]
    assert min(server.starts_of("executing")) > 1, "it began from the start"


async def test_a_dump_made_while_runs_execute_is_restored_and_continued(
    tmp_path: Path, durable_cluster: PostgresCluster, http: httpx.AsyncClient
) -> None:
    for program in ("pg_dump", "pg_restore"):
        if not (chosen_binaries().place / program).exists():
            pytest.skip(f"{program} is not beside the PostgreSQL of the tests")
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir(), after.mkdir()
    url, restored = durable_cluster.url("ledger"), durable_cluster.url("restored")
    with psycopg.connect(durable_cluster.dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE restored")
    back_up, restore = snippets("PostgreSQL")
    async with Server(before, database=url, **SETTINGS) as server:
        await server.start()
        found = await interrupted_by_a_backup(server, http, tmp_path, back_up, RUNLANE_DATABASE=url)
    assert "Nothing is wrong." in await call(restore, tmp_path, RESTORED_DATABASE=restored)
    async with Server(after, database=restored, **SETTINGS) as server:
        await continued(server, http, *found)


async def test_a_copy_of_a_file_made_while_runs_execute_is_continued(tmp_path: Path, http: httpx.AsyncClient) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("sqlite3 is not installed")
    before, after = tmp_path / "before", tmp_path / "after"
    (before / ".runlane").mkdir(parents=True), after.mkdir()
    back_up, check = snippets("SQLite")
    async with Server(before, database=f"sqlite:///{before}/.runlane/runlane.db", **SETTINGS) as server:
        await server.start()
        found = await interrupted_by_a_backup(server, http, before, back_up)
    assert "Nothing is wrong." in await call(check, before)
    (before / "backup.db").rename(after / "runlane.db")
    async with Server(after, **SETTINGS) as server:
        await continued(server, http, *found)
