"""A server that executes no runs, and workers that have no API, on one PostgreSQL database."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from acceptance.kit import Reader, Server, Worker, create_run, ended_run, get, new_thread, servers_and_workers
from postgres_cluster import PostgresCluster

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS = {"lease_s": 3.0, "poll_s": 0.2, "heartbeat_s": 0.2, "drain_grace_s": 0.1}


@dataclass
class Parts:
    """Two servers without slots, and two workers."""

    servers: tuple[Server, Server]
    workers: tuple[Worker, Worker]
    http: httpx.AsyncClient
    url: str

    async def run(self, server: Server, run_id: str, thread_id: str) -> dict[str, object]:
        found: dict[str, object] = await get(self.http, f"{server.url}/threads/{thread_id}/runs/{run_id}")
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parts(tmp_path_factory: pytest.TempPathFactory, durable_cluster: PostgresCluster) -> AsyncIterator[Parts]:
    """Give the processes, for all tests: starting them takes longer than most else."""
    folder, url = tmp_path_factory.mktemp("workers"), durable_cluster.url("ledger")
    async with (
        servers_and_workers(folder, url, probe_port=0, **SETTINGS) as (servers, workers),
        httpx.AsyncClient(trust_env=False, timeout=60) as http,
    ):
        yield Parts(servers, workers, http, url)


async def test_a_run_is_executed_by_a_worker_and_known_to_every_server(parts: Parts) -> None:
    here, there = parts.servers
    thread_id = await new_thread(parts.http, here.url)
    run_id = await create_run(parts.http, here, thread_id, "steps", steps=3, seconds=0.01)
    done = await ended_run(parts.http, there, thread_id, run_id)
    assert done["status"] == "success"
    state = await get(parts.http, f"{there.url}/threads/{thread_id}/state")
    assert {entry["pid"] for entry in state["values"]["log"]} <= {worker.pid for worker in parts.workers}


async def test_a_run_is_cancelled_through_a_server_that_did_not_admit_it(parts: Parts) -> None:
    here, there = parts.servers
    thread_id = await new_thread(parts.http, here.url)
    run_id = await create_run(parts.http, here, thread_id, "steps", steps=1000, seconds=0.05)
    answer = await parts.http.post(f"{there.url}/threads/{thread_id}/runs/{run_id}/cancel?wait=true")
    assert answer.status_code == 200, answer.text
    assert (await parts.run(here, run_id, thread_id))["status"] == "interrupted"


def steps(name: str, *, number: int, seconds: float = 0.02) -> dict[str, object]:
    return {"name": name, "steps": number, "seconds": seconds, "done": 0, "log": []}


async def test_a_run_ends_with_the_client_that_created_it_and_with_no_reader_of_another_server(parts: Parts) -> None:
    (here, there), http = parts.servers, parts.http
    thread_id = await new_thread(http, here.url)
    body = {"assistant_id": "steps", "input": steps("left", number=10_000), "on_disconnect": "cancel"}
    async with http.stream("POST", f"{here.url}/threads/{thread_id}/runs/stream", json=body) as created:
        path = created.headers["content-location"]
        lines = created.aiter_lines()
        await anext(lines)
        async with http.stream("GET", f"{there.url}{path}/stream") as reading:
            await anext(reading.aiter_lines())
        for _ in range(60):  # it goes on without that reader
            await anext(lines)
        staying = asyncio.create_task(http.get(f"{there.url}{path}/stream"))
        assert (await get(http, f"{there.url}{path}"))["status"] == "running"
    run = await ended_run(http, there, thread_id, path.rpartition("/")[2])
    assert (run["status"], run["end_reason"]) == ("interrupted", "disconnect")
    assert "event: end" in (await staying).text


async def test_a_stateless_run_that_has_ended_is_read_to_its_end_through_another_server(parts: Parts) -> None:
    (here, there), http = parts.servers, parts.http
    body = {"assistant_id": "steps", "input": steps("stateless", number=5)}
    created = await http.post(f"{here.url}/runs/stream", json=body)
    place = created.headers["location"]
    assert created.text.count("event: end") == 1
    for server in (there, here):
        again = await http.get(f"{server.url}{place}", headers={"Last-Event-ID": "-1"})
        assert events_of(again.text) == events_of(created.text)


def events_of(text: str) -> list[str]:
    """Return the lines of a stream that are not there to keep the connection open."""
    return [line for line in text.splitlines() if line and not line.startswith(":")]


async def test_workers_are_listed_with_their_builds_and_states(parts: Parts) -> None:
    command = (sys.executable, "-P", "-m", "runlane.cli.main", "workers", "ls", "--json", "--database", parts.url)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    fleet = json.loads(out)
    assert len({worker["build"] for worker in fleet["workers"]}) == 1, "all have the same files"
    assert fleet["workers"][0]["build"]
    assert sorted(worker["capacity"] for worker in fleet["workers"]) == [0, 0, 1000, 1000]
    assert {worker["state"] for worker in fleet["workers"]} == {"ready"}
    assert fleet["stranded"] == []


async def test_a_worker_with_a_probe_port_answers_its_health_and_its_numbers_and_nothing_else(parts: Parts) -> None:
    [probes] = re.findall(r"worker\.probes_ready url=(\S+)", parts.workers[0].log)
    health = await get(parts.http, f"{probes}/ok?check_db=true")
    assert health == {"ok": True, "services": {"database": "healthy"}}
    numbers = await parts.http.get(f"{probes}/metrics")
    assert "runlane_queue_wait_unblocked_max_seconds" in numbers.text
    for path in ("/", "/threads", "/runs", "/docs", "/console", "/ok/"):
        for method in ("GET", "POST"):
            answer = await parts.http.request(method, probes + path, json={})
            assert (answer.status_code, answer.text) == (
                404,
                "A worker has no API. It answers GET /ok and GET /metrics.\n",
            )


async def test_a_worker_that_is_told_to_stop_hands_its_runs_to_another_and_viewers_keep_their_streams(
    parts: Parts,
) -> None:
    reader = Reader(parts.servers[0], parts.http, await new_thread(parts.http, parts.servers[0].url), "handed")
    state = {"name": "handed", "steps": 8, "seconds": 0.3, "done": 0, "log": []}
    following = asyncio.create_task(reader.follow({"input": state}))
    await reader.reaches(2)
    pid = int(parts.workers[0].effects.read_text().split("handed 1 ")[1].split()[0])
    executing = next(worker for worker in parts.workers if worker.pid == pid)
    executing.send(signal.SIGTERM)
    assert await executing.ended() == 0
    await following
    assert reader.connections == 1
    steps = [event.data["step"] for event in reader.events if event.name == "custom"]
    assert sorted(set(steps)) == list(range(1, 9))
    assert (await parts.run(parts.servers[1], reader.run_id, reader.thread_id))["status"] == "success"


async def test_a_worker_without_a_shared_database_is_refused(tmp_path: Path) -> None:
    async with Worker(tmp_path, f"sqlite:///{tmp_path / 'runlane.db'}") as worker:
        await worker.launch()
        assert await worker.ended() == 2
        assert "only PostgreSQL" in worker.log
    async with Server(tmp_path, flags=["--no-worker"]) as server:
        await server.launch()
        assert await server.ended() == 2
        assert "execute_runs is false" in server.log
