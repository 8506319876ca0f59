"""``./dev cluster --figures``: what a cluster can do, in numbers, each beside what it should be.

Real processes on one PostgreSQL whose commits are on the disk: two API nodes, workers, no proxies. A figure that was
measured while other programs used the machine says so.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from acceptance.kit import Server, Worker
from cluster.nodes import PROJECT, effects_of
from cluster.sizing import Place
from postgres_cluster import PostgresCluster
from runlane.server.auth.keys import new_key

LEASE_S = 3.0
SETTINGS: dict[str, Any] = {"lease_s": LEASE_S, "drain_grace_s": 0.0, "max_rescues": 1000}
#: A machine that other programs use more than this is too busy for a figure.
BUSY_PERCENT = 15.0
STEP_S = 1.0
#: Slots of both workers together, and how long a run of a tenant takes, where tenants compete.
SLOTS, TENANT_STEP_S = 8, 0.25
LOOK_S = 0.01
DISPATCH_LIMIT_S = 180.0
DISPATCH = Path(__file__).parents[2] / "benchmarks" / "dispatch.py"


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured."""

    samples: int = 100
    deaths: int = 9
    costed: int = 400
    finished: tuple[int, int] = (1_000, 1_000_000)
    dispatched: int = 2_000
    flood: int = 400


QUICK = Size(samples=30, deaths=3, costed=100, finished=(1_000, 100_000), dispatched=500, flood=100)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure; ``met`` is None where nothing was promised."""

    what: str
    value: str
    wanted: str
    met: bool | None
    others_percent: float


@dataclass
class Bench:
    """The processes that are measured, and what was."""

    size: Size
    folder: Path
    postgres: PostgresCluster
    http: httpx.AsyncClient
    servers: tuple[Server, Server]
    workers: list[Worker]
    keys: dict[str, dict[str, str]]
    figures: list[Figure] = field(default_factory=list)
    _names: Any = field(default_factory=count)

    # What the figures share

    def body(self, name: str, *, steps: int, seconds: float) -> dict[str, Any]:
        state = {"run": name, "kind": "steps", "steps": steps, "seconds": seconds, "done": 0, "messages": []}
        return {"assistant_id": "work", "input": state, "stream_mode": ["updates"], "if_not_exists": "create"}

    async def run(self, *, steps: int, seconds: float, owner: str = "small") -> tuple[str, str]:
        """Admit a run on a thread of its own; return its name and its path."""
        name = f"run{next(self._names)}"
        thread = f"/threads/00000000-0000-4000-8000-{int(name[3:]):012}"
        body = self.body(name, steps=steps, seconds=seconds)
        answer = await self.http.post(self.servers[0].url + thread + "/runs", json=body, headers=self.keys[owner])
        return name, f"{thread}/runs/{answer.raise_for_status().json()['run_id']}"

    def steps_of(self, name: str) -> list[list[str]]:
        return [effect for effect in effects_of(self.folder) if effect[0] == name]

    async def began(self, name: str, *, attempt: int = 1, after: int = 0) -> list[str]:
        """Wait until a step after *after* of an attempt has begun, and return its trace."""
        async with asyncio.timeout(60):
            while True:
                for effect in self.steps_of(name):
                    if int(effect[2]) >= attempt and int(effect[1]) > after:
                        return effect
                await asyncio.sleep(LOOK_S)

    async def cancel(self, path: str) -> float:
        """Cancel through the node that did not admit the run; return how long it took until its code had stopped."""
        url = f"{self.servers[1].url}{path}/cancel?wait=true"
        began = time.perf_counter()
        (await self.http.post(url, headers=self.keys["small"])).raise_for_status()
        return time.perf_counter() - began

    def worker_of(self, pid: str) -> Worker:
        return next(worker for worker in self.workers if worker.pid == int(pid))

    # The figures

    async def start_latency(self) -> None:
        name, _ = await self.run(steps=1, seconds=0.0)
        await self.began(name)
        mark = self.rows("SELECT max(seq) FROM runlane.runs")[0][0]
        for _ in range(self.size.samples):
            name, _ = await self.run(steps=1, seconds=0.0)
            await self.began(name)
        waits = self.rows(f"SELECT (started_at - not_before) / 1000.0 FROM runlane.runs WHERE seq > {mark}")
        middle = statistics.median(float(wait) for (wait,) in waits)
        self.add("start of a run, idle, p50", f"{middle:.1f} ms", "≤ 25 ms", middle <= 25)

    async def cancels(self) -> None:
        times = []
        for _ in range(self.size.samples):
            name, path = await self.run(steps=1, seconds=3600.0)
            await self.began(name)
            times.append(await self.cancel(path) * 1000)
        middle, slow = statistics.median(times), sorted(times)[int(len(times) * 0.99)]
        self.add(
            "cancel through another node until the code has stopped, p50", f"{middle:.1f} ms", "≤ 25 ms", middle <= 25
        )
        self.add(f"the same, p99 of {len(times)}", f"{slow:.1f} ms", "", None)

    async def takeovers(self) -> None:
        times = []
        for _ in range(self.size.deaths):
            name, path = await self.run(steps=1000, seconds=0.2)
            worker = self.worker_of((await self.began(name, after=1))[3])
            killed_at = time.time()
            await worker.kill()
            following = await self.began(name, attempt=2)
            times.append(float(following[4]) - killed_at)
            await asyncio.gather(self.cancel(path), worker.start())
        middle, slow = statistics.median(times), max(times)
        wanted = f"≤ lease of {LEASE_S:.0f} s + 2 s"
        self.add(f"takeover after kill -9, median of {len(times)}", f"{middle:.2f} s", wanted, middle <= LEASE_S + 2)
        self.add("the same, longest", f"{slow:.2f} s", wanted, slow <= LEASE_S + 2)

    async def hand_overs(self) -> None:
        times, again = [], 0
        for _ in range(self.size.deaths):
            name, path = await self.run(steps=1000, seconds=STEP_S)
            worker = self.worker_of((await self.began(name))[3])
            await asyncio.sleep(random.uniform(0.2, 0.8) * STEP_S)
            worker.send(signal.SIGTERM)
            following = await self.began(name, attempt=2)
            last = [effect for effect in self.steps_of(name) if effect[2] == "1"][-1]
            times.append(float(following[4]) - float(last[4]) - STEP_S)
            again += int(following[1]) <= int(last[1])
            await asyncio.gather(self.cancel(path), worker.ended())
            await worker.start()
        middle, slow = statistics.median(times), max(times)
        what = f"hand-over at SIGTERM, past the end of the step, median of {len(times)}"
        self.add(what, f"{middle:.2f} s", "≤ 1 s", middle <= 1)
        self.add("the same, longest", f"{slow:.2f} s", "≤ 1 s", slow <= 1)
        self.add(f"steps executed again after {len(times)} drains", str(again), "0", again == 0)

    async def costs(self) -> None:
        few, many = [await self._cost(finished) for finished in self.size.finished]
        for finished, cost in zip(self.size.finished, (few, many), strict=True):
            parts = ", ".join(f"{what} {value:.1f}" for what, value in cost.items())
            self.add(f"cost of a run beside {finished:,} finished ones", parts, "", None)
        for what in few:
            ratio = many[what] / few[what]
            self.add(f"{what}: many finished runs against few", f"{ratio:.2f} ×", "≤ 1.2 ×", ratio <= 1.2)

    async def _cost(self, finished: int) -> dict[str, float]:
        have = self.rows("SELECT count(*) FROM runlane.runs")[0][0]
        await asyncio.to_thread(self._seed, finished - have)
        place = Place(self.servers[0], tuple(self.workers), self.postgres, self.http)
        await self._costed(self.size.costed // 4)  # caches and statements are warm
        before = place.used()
        await self._costed(self.size.costed)
        await asyncio.sleep(1.5)  # PostgreSQL counts what a connection did once a second
        after = place.used()
        used = {key: (after[key] - before[key]) / self.size.costed for key in after}
        return {
            "node ms": (used["api_s"] + used["worker_s"]) * 1000,
            "PostgreSQL ms": used["postgres_s"] * 1000,
            "transactions": used["transactions"],
        }

    async def _costed(self, number: int) -> None:
        left = iter(range(number))

        async def client() -> None:
            for _ in left:
                name = f"run{next(self._names)}"
                body = self.body(name, steps=1, seconds=0.0)
                path = f"/threads/00000000-0000-4000-8000-{int(name[3:]):012}/runs/wait"
                answer = await self.http.post(self.servers[0].url + path, json=body, headers=self.keys["small"])
                answer.raise_for_status()

        await asyncio.gather(*(client() for _ in range(8)))

    def _seed(self, number: int) -> None:
        """Copy the rows of a finished run and its thread *number* times, under other names."""
        with psycopg.connect(self.postgres.url("ledger"), autocommit=True) as connection:
            found = connection.execute(
                "SELECT run_id, thread_id FROM runlane.runs WHERE status = 'success' ORDER BY seq DESC LIMIT 1"
            ).fetchone()
            assert found is not None
            first = connection.execute("SELECT count(*) FROM runlane.runs").fetchone()
            assert first is not None
            names = {"run_id": f"'seed-' || n + {first[0]}", "thread_id": f"'seeded-' || n + {first[0]}"}
            for table, key, value in (("threads", "thread_id", found[1]), ("runs", "run_id", found[0])):
                columns = connection.execute(
                    "SELECT column_name FROM information_schema.columns WHERE table_schema = 'runlane' "
                    "AND table_name = %s AND is_identity = 'NO' AND is_generated = 'NEVER'",
                    (table,),
                ).fetchall()
                into = [column for (column,) in columns]
                copied = ", ".join(names.get(column, f'"{column}"') for column in into)
                connection.execute(
                    f"INSERT INTO runlane.{table} ({', '.join(into)}) SELECT {copied} FROM runlane.{table}, "
                    f"generate_series(1, {max(0, number)}) n WHERE {key} = '{value}'".encode()
                )
            connection.execute("VACUUM ANALYZE runlane.runs, runlane.threads")
            connection.execute("CHECKPOINT")

    async def tenants(self) -> None:
        alone = statistics.median([await self._single() for _ in range(self.size.deaths)])
        flood = [
            asyncio.ensure_future(self.run(steps=1, seconds=TENANT_STEP_S, owner="big")) for _ in range(self.size.flood)
        ]
        await asyncio.gather(*flood)
        beside = [await self._single() for _ in range(self.size.deaths)]
        waiting = self.rows("SELECT count(*) FROM runlane.runs WHERE status = 'pending' AND owner = 'big'")[0][0]
        middle = statistics.median(beside)
        slot = TENANT_STEP_S + 0.1
        self.add("run of a small tenant alone", f"{alone:.2f} s", "", None)
        what = f"beside {self.size.flood} runs of a big one, of which {waiting} still wait"
        self.add(what, f"{middle:.2f} s", f"≤ {slot:.2f} s later: a slot", middle <= alone + slot and waiting > 0)

    async def _single(self) -> float:
        began = time.perf_counter()
        _, path = await self.run(steps=1, seconds=TENANT_STEP_S)
        await self.http.get(f"{self.servers[0].url}{path}/join", headers=self.keys["small"])
        return time.perf_counter() - began

    async def starts(self) -> None:
        call = [sys.executable, str(DISPATCH), "--kinds", "heads", "--runs", str(self.size.dispatched)]
        process = await asyncio.create_subprocess_exec(*call, stdout=asyncio.subprocess.PIPE, start_new_session=True)
        try:
            async with asyncio.timeout(DISPATCH_LIMIT_S):
                said, _ = await process.communicate()
        except TimeoutError:  # one of its workers did not start, which has said why; or the machine is slow
            os.killpg(process.pid, signal.SIGKILL)  # its workers, too
            said = b""
        if not said:
            self.add("starts per second", "not measured", "", None)
        for workers, starts in re.findall(r"heads (\d) workers: +(\d+) starts/s", said.decode()):
            self.add(f"starts per second, {workers} workers that execute nothing", starts, "", None)

    # Notes

    def rows(self, query: str) -> list[Any]:
        with psycopg.connect(self.postgres.url("ledger"), autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()

    def add(self, what: str, value: str, wanted: str, met: bool | None) -> None:
        self.figures.append(Figure(what, value, wanted, met, self._others))
        sys.stderr.write(f"{what}: {value}\n")

    _others: float = 0.0

    async def measured(self, figure: Callable[[], Awaitable[None]]) -> None:
        """Measure after a look at what others use of the machine."""
        self._others = await asyncio.to_thread(psutil.cpu_percent, 2.0)
        await figure()


@asynccontextmanager
async def bench(folder: Path, postgres: PostgresCluster, size: Size) -> AsyncIterator[Bench]:
    keys = {owner: {"x-api-key": new_key(owner, folder / "keys")} for owner in ("small", "big")}
    settings = {**SETTINGS, "api_keys": folder / "keys"}
    url = postgres.url("ledger")

    def server() -> Server:
        return Server(folder, project=PROJECT, database=url, flags=["--no-worker"], **settings)

    limits = httpx.Limits(max_connections=50)
    async with (
        httpx.AsyncClient(trust_env=False, timeout=120, limits=limits) as http,
        server() as one,
        server() as other,
    ):
        await one.start()
        await other.start()
        yield Bench(size, folder, postgres, http, (one, other), [], keys)


@asynccontextmanager
async def working(found: Bench, **settings: Any) -> AsyncIterator[None]:
    """Have two workers."""
    url, more = found.postgres.url("ledger"), {**SETTINGS, **settings, "api_keys": found.folder / "keys"}
    async with (
        Worker(found.folder, url, project=PROJECT, **more) as one,
        Worker(found.folder, url, project=PROJECT, **more) as other,
    ):
        await asyncio.gather(one.start(), other.start())
        found.workers = [one, other]
        yield


async def measure(size: Size) -> list[Figure]:
    with PostgresCluster(durable=True) as postgres, tempfile.TemporaryDirectory() as folder:
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.execute("CREATE DATABASE ledger")
        async with bench(Path(folder), postgres, size) as found:
            async with working(found):
                for figure in (found.start_latency, found.cancels, found.takeovers, found.hand_overs, found.costs):
                    await found.measured(figure)
            async with working(found, max_concurrent_runs=SLOTS // 2):
                await found.measured(found.tenants)
        await found.measured(found.starts)
        return found.figures


def table(figures: list[Figure]) -> str:
    rows = ["| figure | measured | wanted | |", "|---|---|---|---|"]
    for each in figures:
        notes = [{True: "met", False: "**not met**", None: ""}[each.met]]
        if each.others_percent > BUSY_PERCENT:
            notes.append(f"busy: others used {each.others_percent:.0f} %")
        rows.append(f"| {each.what} | {each.value} | {each.wanted} | {', '.join(filter(None, notes))} |")
    return "\n".join(rows)


def report(size: Size, out: Path | None) -> int:
    """Measure, print a table, and write it with its machine as JSON to *out*."""
    began = time.monotonic()
    figures = asyncio.run(measure(size))
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    busy = sum(each.others_percent > BUSY_PERCENT for each in figures)
    lines = [table(figures), "", f"{machine}; {time.strftime('%Y-%m-%d %H:%M')}; {time.monotonic() - began:.0f} s."]
    if busy:
        lines.append(f"{busy} of {len(figures)} figures were measured on a busy machine: measure them again.")
    sys.stdout.write("\n".join([*lines, ""]))
    if out is not None:
        out.write_text(json.dumps({"machine": machine, "figures": [asdict(each) for each in figures]}, indent=2) + "\n")
    missed = Counter(each.met for each in figures)[False]
    return 1 if missed else 0
