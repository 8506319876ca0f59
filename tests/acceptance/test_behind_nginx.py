"""The topology of ``deploy/compose.yaml`` as plain processes: API nodes behind a real nginx, and workers."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from acceptance.kit import (
    Program,
    Reader,
    Server,
    create_run,
    ended_run,
    free_port,
    get,
    new_thread,
    servers_and_workers,
)
from nginx_kit import nginx_configuration, nginx_program
from postgres_cluster import PostgresCluster

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS = {"lease_s": 3.0, "poll_s": 0.2, "heartbeat_s": 0.2, "drain_grace_s": 0.1}
STREAMED = 'runlane_http_requests_total{method="POST",path="/threads/{thread_id}/runs/stream",status="200"}'


class Nginx(Program):
    """nginx with the configuration of ``deploy/``."""

    READY = "start worker process"

    def __init__(self, folder: Path, servers: tuple[Server, Server]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        file = nginx_configuration(folder, self.port, [server.port for server in servers])
        call = [nginx_program(), "-e", "stderr", "-p", str(folder), "-c", str(file)]
        super().__init__(call, {}, effects=folder / "nginx-effects", takes_input=False)


@dataclass
class Topology:
    """Two API nodes behind a proxy, and workers."""

    proxy: Nginx
    nodes: tuple[Server, Server]
    http: httpx.AsyncClient

    async def streams_of(self, node: Server) -> float:
        """Return how many streams this node has begun for the creators of runs."""
        text = (await self.http.get(f"{node.url}/metrics")).text
        found = re.search(f"^{re.escape(STREAMED)} (\\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def reader(self, name: str) -> Reader:
        """Return a reader that knows the proxy only."""
        return Reader(self.proxy, self.http, await new_thread(self.http, self.proxy.url), name)  # type: ignore[arg-type]


def steps(name: str, count: int, seconds: float) -> dict[str, object]:
    """Return a run whose stream fits into a buffer of nginx, which would show it at the end."""
    return {
        "stream_mode": ["custom"],
        "input": {"name": name, "steps": count, "seconds": seconds, "done": 0, "log": []},
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def topology(
    tmp_path_factory: pytest.TempPathFactory, durable_cluster: PostgresCluster
) -> AsyncIterator[Topology]:
    """Give the processes, for all tests: starting them takes longer than most else."""
    nginx_program()
    folder, url = tmp_path_factory.mktemp("nginx"), durable_cluster.url("ledger")
    async with (
        servers_and_workers(folder, url, **SETTINGS) as (servers, _),
        Nginx(folder, servers) as proxy,
        httpx.AsyncClient(trust_env=False, timeout=60) as http,
    ):
        await proxy.start()
        yield Topology(proxy, servers, http)


async def test_events_pass_the_proxy_one_by_one(topology: Topology) -> None:
    reader = await topology.reader("one-by-one")
    following = asyncio.create_task(reader.follow(steps("one-by-one", 20, 0.1)))
    await reader.reaches(1)
    assert len(topology.nodes[0].starts_of("one-by-one")) < 20, "the first event came when the run had ended"
    await following
    assert [event.data["step"] for event in reader.events if event.name == "custom"] == list(range(1, 21))
    assert reader.connections == 1


async def test_a_waiting_response_shows_through_the_proxy_that_it_is_alive(topology: Topology) -> None:
    thread_id = await new_thread(topology.http, topology.proxy.url)
    run_id = await create_run(topology.http, topology.nodes[0], thread_id, "steps", steps=20, seconds=0.1)
    path = f"/threads/{thread_id}/runs/{run_id}"
    async with topology.http.stream("GET", f"{topology.proxy.url}{path}/join") as response:
        parts = response.aiter_raw()
        first = await anext(parts)
        assert not first.strip()
        assert (await get(topology.http, topology.nodes[1].url + path))["status"] in {"pending", "running"}
        async for _ in parts:
            pass
    assert (await get(topology.http, topology.nodes[1].url + path))["status"] == "success"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_stream_whose_node_is_gone_goes_on_through_the_other(topology: Topology, how: signal.Signals) -> None:
    name, before = f"cut-{how.name}", [await topology.streams_of(node) for node in topology.nodes]
    reader = await topology.reader(name)
    following = asyncio.create_task(reader.follow(steps(name, 20, 0.1)))
    await reader.reaches(2)
    after = [await topology.streams_of(node) for node in topology.nodes]
    [node] = [node for node, was, now in zip(topology.nodes, before, after, strict=True) if now > was]
    node.send(how)
    assert await node.ended() == (-how if how == signal.SIGKILL else 0)
    # Without that node, whatever a client sends is answered by the other.
    for _ in range(10):
        await new_thread(topology.http, topology.proxy.url)
    await following
    await node.start()
    assert reader.connections == 2
    assert [event.data["step"] for event in reader.events if event.name == "custom"] == list(range(1, 21))
    assert await reader.replay() == reader.events
    run = await ended_run(topology.http, topology.nodes[0], reader.thread_id, reader.run_id)
    assert (run["status"], set(node.starts_of(name).values())) == ("success", {1})


async def test_a_websocket_passes_the_proxy(topology: Topology) -> None:
    thread_id = await new_thread(topology.http, topology.proxy.url)
    address = topology.proxy.url.replace("http:", "ws:")
    async with connect(f"{address}/threads/{thread_id}/stream/events", proxy=None) as socket:
        assert await (await socket.ping()) >= 0
