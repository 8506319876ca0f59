"""The console in a real Chromium, on two servers that execute nothing, two workers, and one PostgreSQL database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from acceptance.kit import Program, servers_and_workers
from clients.conftest import HERE, RunNode

CLUSTER = HERE / "console" / "cluster"
FILES = sorted(CLUSTER.glob("*.test.mjs"))
#: One slot, so that two runs have two workers; a drain waits for the end of a run.
SETTINGS = {"max_concurrent_runs": 1, "lease_s": 3.0, "poll_s": 0.2, "heartbeat_s": 0.2, "drain_grace_s": 120.0}


class Database:
    """A database that lets nobody in, or everybody."""

    pid = None

    def __init__(self, dsn: str, url: str) -> None:
        self._dsn = dsn
        self._name = str(conninfo_to_dict(url)["dbname"])

    async def kill(self) -> None:
        self._allow("false", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self._name])

    async def start(self) -> None:
        self._allow("true")

    def _allow(self, word: str, *then: Any) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as admin:
            admin.execute(f'ALTER DATABASE "{self._name}" ALLOW_CONNECTIONS {word}'.encode())
            if then:
                admin.execute(*then)


class Remote:
    """Kills and starts processes on the word of a test in JavaScript: a connection asks for one thing, in a line."""

    def __init__(self, programs: Mapping[str, Program | Database]) -> None:
        self._programs = programs

    async def obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        verb, name = (await reader.readline()).decode().split()
        program = self._programs[name]
        if verb == "kill":
            await program.kill()
        elif verb == "start":
            await program.start()
        writer.write(json.dumps(program.pid).encode())
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
async def test_the_console_shows_a_cluster_as_its_file_says(
    file: Path,
    run_node: RunNode,
    browser: str,
    postgres_dsn: str,
    postgres_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gates = tmp_path / "gates"
    gates.mkdir()
    monkeypatch.setenv("GATES", str(gates))
    project = CLUSTER / "project" / "langgraph.json"
    async with servers_and_workers(tmp_path, postgres_url, project=project, **SETTINGS) as (servers, workers):
        programs = {"server": servers[0], "other": servers[1], "one": workers[0], "two": workers[1]}
        remote = Remote({**programs, "database": Database(postgres_dsn, postgres_url)})
        async with await asyncio.start_server(remote.obey, "127.0.0.1", 0) as listening:
            environment = {
                "RUNLANE_URL": servers[0].url,
                "OTHER_URL": servers[1].url,
                "REMOTE_PORT": str(listening.sockets[0].getsockname()[1]),
                "CHROMIUM": browser,
            }
            flags = ("--test", "--test-timeout=130000", "--test-reporter=spec")
            await asyncio.to_thread(run_node, *flags, str(file), **environment)
