"""What runs cost the parts of a cluster: ``PYTHONPATH=tests .venv/bin/python -m cluster.sizing``.

Processor time and what PostgreSQL counts, per run; both say the same on a busy machine, as times would not.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from acceptance.kit import Server, Worker, new_thread
from postgres_cluster import PostgresCluster

PROJECT = Path(__file__).parents[2] / "benchmarks" / "project"
NOOP = "noop"
TALK = {"n": 500, "messages": [{"role": "user", "content": "Talk."}]}
WORKERS = 2
IDLE_S = 30.0
CONNECTIONS = 16
COUNTED = """
SELECT xact_commit + xact_rollback AS transactions, pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS wal_bytes,
    pg_database_size(datname) AS bytes, numbackends AS connections
FROM pg_stat_database WHERE datname = 'ledger'
"""


@dataclass(frozen=True)
class Place:
    """The processes of a cluster, and how they are asked what they have used."""

    server: Server
    workers: tuple[Worker, ...]
    postgres: PostgresCluster
    http: httpx.AsyncClient

    def used(self) -> dict[str, float]:
        """Return the processor time and the counters of the database so far."""
        with psycopg.connect(self.postgres.dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_stat_clear_snapshot()")
            row = connection.execute(COUNTED).fetchone()
        assert row is not None
        counters = dict(zip(("transactions", "wal_bytes", "bytes", "connections"), map(float, row), strict=True))
        workers = sum(_cpu_s(psutil.Process(worker.pid)) for worker in self.workers)
        api = _cpu_s(psutil.Process(self.server.pid))
        return {"api_s": api, "worker_s": workers, "postgres_s": self._postgres_s(), **counters}

    def _postgres_s(self) -> float:
        """Return the processor time of all processes of the database, also of those that have ended."""
        first = (self.postgres.directory / "data" / "postmaster.pid").read_text().splitlines()[0]
        postmaster = psutil.Process(int(first))
        ended = postmaster.cpu_times().children_user + postmaster.cpu_times().children_system
        return sum(_cpu_s(each) for each in (postmaster, *postmaster.children())) + ended


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@asynccontextmanager
async def place(folder: Path, postgres: PostgresCluster) -> AsyncIterator[Place]:
    url = postgres.url("ledger")
    server = Server(folder, project=PROJECT, database=url, flags=["--no-worker"])
    workers = tuple(Worker(folder, url, project=PROJECT) for _ in range(WORKERS))
    async with httpx.AsyncClient(trust_env=False, timeout=120) as http, server:
        await server.start()
        try:
            await asyncio.gather(*(worker.start() for worker in workers))
            yield Place(server, workers, postgres, http)
        finally:
            for worker in workers:
                await worker.kill()


async def measured(name: str, found: Place, work: Callable[[], Awaitable[int]]) -> None:
    """Print what one unit of *work*, which returns how many it did, has used."""
    before, began = found.used(), time.monotonic()
    count = await work()
    took_s = time.monotonic() - began
    await asyncio.sleep(1.5)  # PostgreSQL counts what a connection did once a second
    after = found.used()
    lines = [f"{name}: {count} in {took_s:.1f} s, {count / took_s:.0f} per s"]
    for key, value in after.items():
        if key == "connections":
            lines.append(f"  connections now {value:.0f}")
        elif key.endswith("_s"):
            lines.append(f"  {key.removesuffix('_s')} {(value - before[key]) * 1000 / count:.2f} ms of processor")
        else:
            lines.append(f"  {key} {(value - before[key]) / count:.2f}")
    sys.stdout.write("\n".join([*lines, ""]))


async def runs(found: Place, count: int, graph: str, state: Mapping[str, Any], *, stream: bool) -> int:
    """Have runs of *graph*, each of a connection after the one before it, on threads of their own."""
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            path = f"{found.server.url}/threads/{await new_thread(found.http, found.server.url)}/runs"
            body = {"assistant_id": graph, "input": dict(state), "stream_mode": ["messages-tuple"]}
            if stream:
                async with found.http.stream("POST", f"{path}/stream", json=body) as response:
                    async for _ in response.aiter_raw():
                        pass
            else:
                (await found.http.post(f"{path}/wait", json=body)).raise_for_status()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return count


async def idle(found: Place) -> int:
    await asyncio.sleep(IDLE_S)
    return round(IDLE_S)


async def main() -> None:
    with PostgresCluster(durable=True) as postgres, tempfile.TemporaryDirectory() as folder:
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.execute("CREATE DATABASE ledger")
        async with place(Path(folder), postgres) as found:
            await runs(found, 50, NOOP, {}, stream=False)
            await measured(f"idle seconds, 1 API node and {WORKERS} workers", found, lambda: idle(found))
            await measured("runs of one step", found, lambda: runs(found, 1000, NOOP, {}, stream=False))
            await measured("streams of 500 tokens", found, lambda: runs(found, 64, "tokens", TALK, stream=True))


if __name__ == "__main__":
    asyncio.run(main())
