"""A rolling upgrade: processes of the last version and of the next one share a database, whose schema was expanded."""

from __future__ import annotations

import asyncio
import signal
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from acceptance.kit import Program, Reader, Server, Worker, create_run, ended_run, new_thread
from versions_kit import archived, next_version, previous_archive, previous_version, runlane

SETTINGS = {"lease_s": 5.0, "poll_s": 0.2, "heartbeat_s": 0.2, "drain_grace_s": 0.1}
EXPAND = """-- expand
ALTER TABLE runs ADD COLUMN extra TEXT;
ALTER TABLE threads ADD COLUMN extra TEXT;
CREATE TABLE extras (extra TEXT PRIMARY KEY);
CREATE INDEX runs_extra ON runs (extra, seq);
"""
P = TypeVar("P", bound=Program)


def of(src: Path, program: P) -> P:
    """Have *program* run the code in *src*."""
    program.run_code_in(src)
    return program


def test_the_last_version_is_the_code_of_the_commit_that_is_stated() -> None:
    commit, archive = previous_archive()
    found = archived(commit)
    if found is None:
        pytest.skip("the repository's history is not here")
    assert found == archive


@dataclass
class Deploy:
    """A cluster whose processes are replaced."""

    http: httpx.AsyncClient
    effects: Path

    async def hand_over(self, name: str, through: Server, leaving: Worker, staying: Worker | None = None) -> None:
        """Stop a worker while it executes a run, which *staying*, or else the same worker restarted, continues."""
        reader = Reader(through, self.http, await new_thread(self.http, through.url), name)
        state = {"name": name, "steps": 8, "seconds": 0.25, "done": 0, "log": []}
        async with nullcontext() if staying is None else staying.frozen():  # so that it does not begin the run
            following = asyncio.create_task(reader.follow({"input": state}))
            await reader.reaches(2)
        pids = [leaving.pid]
        await self.stop(leaving)
        if staying is None:
            await leaving.start()
        pids.append((staying or leaving).pid)
        await following
        assert reader.connections == 1, "viewers keep their stream"
        assert [event.data["step"] for event in reader.events if event.name == "custom"] == list(range(1, 9))
        traced = (line.split() for line in self.effects.read_text().splitlines())
        executed = [(int(step), int(pid)) for run, step, pid in traced if run == name]
        assert [step for step, _ in executed] == list(range(1, 9)), "no step is repeated"
        assert list(dict.fromkeys(pid for _, pid in executed)) == pids

    async def stop(self, program: Program) -> None:
        program.send(signal.SIGTERM)
        assert await program.ended() == 0

    async def run_one(self, server: Server) -> None:
        thread_id = await new_thread(self.http, server.url)
        run_id = await create_run(self.http, server, thread_id, "steps", steps=1)
        assert (await ended_run(self.http, server, thread_id, run_id))["status"] == "success"


async def test_versions_work_side_by_side_while_each_process_is_replaced(tmp_path: Path, postgres_url: str) -> None:
    old, new = previous_version(tmp_path / "old"), next_version(tmp_path / "new", {"9001_more": EXPAND})
    old_api = of(old, Server(tmp_path, database=postgres_url, flags=["--no-worker"], **SETTINGS))
    new_api = of(new, Server(tmp_path, database=postgres_url, flags=["--no-worker"], **SETTINGS))
    old_worker = of(old, Worker(tmp_path, postgres_url, **SETTINGS))
    new_worker = of(new, Worker(tmp_path, postgres_url, **SETTINGS))
    http = httpx.AsyncClient(trust_env=False, timeout=60)
    async with old_api, new_api, old_worker, new_worker, http:
        deploy = Deploy(http, old_worker.effects)
        await old_api.start()  # it makes the schema
        await old_worker.start()
        migrated = await asyncio.to_thread(runlane, new, "migrate", "--database", postgres_url)
        assert migrated.returncode == 0, migrated.stdout + migrated.stderr
        await deploy.hand_over("restarted_on_the_new_schema", old_api, old_worker)
        await new_worker.start()
        await deploy.hand_over("to_the_new_version", old_api, old_worker, new_worker)
        await old_worker.start()
        await deploy.hand_over("to_the_old_version", old_api, new_worker, old_worker)
        await new_api.start()
        await deploy.run_one(new_api)  # which the old worker executes
        await new_worker.start()
        await deploy.hand_over("the_last_old_worker_leaves", new_api, old_worker, new_worker)
        await deploy.stop(old_api)
        await deploy.run_one(new_api)
    checked = await asyncio.to_thread(runlane, new, "doctor", "--database", postgres_url)
    assert checked.returncode == 0, checked.stdout


async def test_the_last_version_starts_again_on_the_file_of_the_next_one(tmp_path: Path) -> None:
    old, new = previous_version(tmp_path / "old"), next_version(tmp_path / "new", {"9001_more": EXPAND})
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        deploy = Deploy(http, tmp_path / "effects")
        for src in (old, new, old):
            async with of(src, Server(tmp_path, **SETTINGS)) as server:
                await server.start()
                await deploy.run_one(server)
                await deploy.stop(server)
