"""Cases of many: finished runs, threads, viewers, unfinished runs at a start; and the start itself."""

from __future__ import annotations

import asyncio
import re
import socket
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

from client import Connection, Figures, Meter, Server, expect, new_thread, run_of, together
from filling import ROUNDS
from load import started
from search import FILTERS, fill
from sides import RunlaneSide, Side
from sizes import Sizes

from runlane.settings import Settings
from runlane.store.backends import open_driver

#: Clients that open connections or create runs at the same time.
CLIENTS: Final = 16
#: How long many runs may take to end.
ENDED_TIMEOUT_S: Final = 240.0
#: Runs whose cost is measured beside those that are there.
GROWTH_RUNS: Final = 200
#: For how long a run sleeps that makes others wait.
LONG_S: Final = 3600


@asynccontextmanager
async def _queued_run(server: Server, tokens: int) -> AsyncIterator[tuple[str, str]]:
    """Have a run that will stream *tokens* wait for another; give its path, and that of the other, to be cancelled."""
    async with Connection(server) as connection:
        runs = f"/threads/{await new_thread(connection)}/runs"
        first = await connection.call("POST", runs, run_of("sleeper", {"seconds": LONG_S}))
        await started(connection, f"{runs}/{first['run_id']}")
        values = {"messages": [{"role": "user", "content": "go"}], "n": tokens}
        options = {"stream_mode": ["messages-tuple"], "stream_resumable": True, "multitask_strategy": "enqueue"}
        second = await connection.call("POST", runs, run_of("tokens", values, **options))
    yield f"{runs}/{second['run_id']}", f"{runs}/{first['run_id']}"


async def _release(server: Server, path: str) -> None:
    async with Connection(server) as connection:
        await connection.call("POST", f"{path}/cancel?wait=0&action=interrupt", {})


async def viewers(side: Side, sizes: Sizes, folder: Path) -> Figures:
    """Have many viewers join the stream of a run that waits; then let it stream."""
    async with side.serving(folder) as server, _queued_run(server, sizes.viewers_tokens) as (path, other):
        before, meter = server.memory_bytes(), Meter(server)

        async def view() -> int:
            async with Connection(server) as connection:
                return (await connection.stream(f"{path}/stream", method="GET"))[1]

        views = [asyncio.create_task(view()) for _ in range(sizes.viewers)]
        await _connected(server, sizes.viewers)
        connect_s, memory = meter.wall_s(), server.memory_bytes()
        meter = Meter(server)
        await _release(server, other)
        counts = await asyncio.gather(*views)
        expect(min(counts) >= sizes.viewers_tokens, f"viewers: one saw {min(counts)} events")
        return {
            "connect_ms_per_viewer": 1e3 * connect_s / sizes.viewers,
            "events_per_s": sum(counts) / meter.wall_s(),
            **meter.cpu("cpu_us_per_event", 1e6 / sum(counts)),
            **({} if server.pid is None else {"kib_per_viewer": (memory - before) / sizes.viewers / 1024}),
        }


async def _connected(server: Server, number: int) -> None:
    """Wait until the server has accepted *number* connections, which its open sockets show."""
    if server.pid is None:
        await asyncio.sleep(number / 100)
        return
    deadline = time.monotonic() + ENDED_TIMEOUT_S
    while sum(len(process.net_connections("tcp")) for process in server.processes()) < number:
        expect(time.monotonic() < deadline, f"the server did not accept {number} connections")
        await asyncio.sleep(0.1)
    await asyncio.sleep(number / 1000)  # for the requests themselves


async def stalled(side: Side, sizes: Sizes, folder: Path) -> Figures:
    """Have many readers join a stream and read nothing; take the memory that the server has at most."""
    async with side.serving(folder) as server, _queued_run(server, sizes.stalled_tokens) as (path, other):
        before = peak = server.memory_bytes()
        with ExitStack() as stack:
            for _ in range(sizes.stalled_readers):
                stack.enter_context(_reader_that_never_reads(server, f"{path}/stream"))
            await _connected(server, sizes.stalled_readers)
            await _release(server, other)
            deadline = time.monotonic() + ENDED_TIMEOUT_S
            async with Connection(server) as connection:
                while (await connection.call("GET", path))["status"] in ("pending", "running"):
                    expect(time.monotonic() < deadline, "stalled: the run does not end")
                    peak = max(peak, server.memory_bytes())
                    await asyncio.sleep(0.1)
                for _ in range(10):  # readers are served after the run, too
                    peak = max(peak, server.memory_bytes())
                    await asyncio.sleep(0.1)
        return {} if server.pid is None else {"memory_mb": (peak - before) / 1e6}


def _reader_that_never_reads(server: Server, path: str) -> socket.socket:
    address = urlsplit(server.url)
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect((address.hostname, address.port))
    reader.sendall(f"GET {path} HTTP/1.1\r\nhost: {address.netloc}\r\n\r\n".encode())
    return reader


async def restart(side: Side, sizes: Sizes, folder: Path) -> Figures:
    """Kill a server that has many runs in its queue; take the time until the next one serves, and has ended them."""
    async with side.serving(folder, kill=True, max_concurrent_runs=1) as server:
        await _fill_queue(server, sizes.restart_runs)
    start_s = time.perf_counter()
    async with side.serving(folder) as server:
        served_s, meter = time.perf_counter() - start_s, Meter(server)
        async with Connection(server) as connection:
            # The one that held the only slot sleeps on.
            while len(await connection.call("POST", "/threads/search", {"status": "busy", "limit": 2})) > 1:
                expect(meter.wall_s() < ENDED_TIMEOUT_S, "restart: not all runs ended")
                await asyncio.sleep(0.2)
        return {
            "served_s": served_s,
            "ended_s": time.perf_counter() - start_s,
            **meter.cpu("cpu_ms_per_run", 1e3 / sizes.restart_runs),
        }


async def _fill_queue(server: Server, runs: int) -> None:
    async with Connection(server) as connection:
        path = f"/threads/{await new_thread(connection)}/runs"
        first = await connection.call("POST", path, run_of("sleeper", {"seconds": LONG_S}))
        await started(connection, f"{path}/{first['run_id']}")

    async def client(number: int) -> None:
        async with Connection(server) as connection:
            for _ in range(number):
                body = run_of("noop", {"count": 0}, if_not_exists="create")
                await connection.call("POST", f"/threads/{uuid4()}/runs", body)

    shares = [runs // CLIENTS + (number < runs % CLIENTS) for number in range(CLIENTS)]
    await together(client(share) for share in shares)


async def growth(side: Side, sizes: Sizes, folder: Path) -> Figures:
    """Take what a run costs beside 1,000 finished runs, and beside as many as the scale says."""
    figures: Figures = {}
    for name, number in {"at_first": min(1000, sizes.scale // 2), "at_last": sizes.scale}.items():
        async with side.serving(folder) as server:
            await _runs(server, sizes.warm_runs)
        assert isinstance(side, RunlaneSide)
        await asyncio.to_thread(_multiply, side.file(folder), number)
        async with side.serving(folder) as server:
            await _runs(server, sizes.warm_runs)
            meter = Meter(server)
            times_s = await _runs(server, GROWTH_RUNS)
            figures |= {
                f"ms_{name}": 1e3 * statistics.median(times_s),
                **meter.cpu(f"cpu_ms_{name}", 1e3 / GROWTH_RUNS),
            }
    figures["finished_runs"] = sizes.scale
    return {**figures, "last_of_first": figures["ms_at_last"] / figures["ms_at_first"]}


async def _runs(server: Server, number: int) -> list[float]:
    """Create a thread and run it to its end, one after the other."""
    times_s = []
    async with Connection(server) as connection:
        for _ in range(number):
            start_s = time.perf_counter()
            body = run_of("noop", {"count": 0}, if_not_exists="create")
            await connection.call("POST", f"/threads/{uuid4()}/runs/wait", body)
            times_s.append(time.perf_counter() - start_s)
    return times_s


def _multiply(file: Path, total: int) -> None:
    """Have *total* finished runs, each on a thread of its own, by copying the rows of one run and its thread."""
    connection = sqlite3.connect(file)
    try:
        connection.execute("PRAGMA synchronous=OFF")
        there = int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])
        counted = f"n(i) AS (SELECT {there} UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {total})"
        numbers = f"(WITH RECURSIVE {counted} SELECT i FROM n)"
        thread = "printf('00000000-0000-4000-8000-%012x', i)"
        values = {"thread_id": thread, "run_id": "printf('00000000-0000-7000-8000-%012x', i)", "seq": "NULL"}
        if there < total:
            for table, where in (("threads", "thread_id = (SELECT thread_id FROM runs LIMIT 1)"), ("runs", "seq = 1")):
                names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
                wanted = ", ".join(values.get(name, name) for name in names)
                connection.execute(f"INSERT INTO {table} SELECT {wanted} FROM {table}, {numbers} WHERE {where}")
            connection.commit()
        connection.execute("ANALYZE")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


async def search(side: Side, sizes: Sizes, folder: Path) -> Figures:
    """Search threads by metadata, with the filters that chat front ends send."""
    assert isinstance(side, RunlaneSide)
    driver = await open_driver(Settings(database=f"sqlite:///{side.file(folder)}", synchronous="normal"))
    try:
        await fill(driver, sizes.scale)
    finally:
        await driver.aclose()
    figures: Figures = {"threads": sizes.scale}
    async with side.serving(folder) as server, Connection(server) as connection:
        for name, metadata in FILTERS.items():
            figures[f"{re.sub('[^a-z0-9]+', '_', name)}_ms"] = await _search_ms(connection, {"metadata": metadata})
        figures["newest_ms"] = await _search_ms(connection, {})
        figures["newest_without_values_ms"] = await _search_ms(connection, {"select": ["thread_id", "metadata"]})
    figures["worst_ms"] = max(value for name, value in figures.items() if name != "threads")
    return figures


async def _search_ms(connection: Connection, body: dict[str, Any]) -> float:
    times_s = []
    for _ in range(ROUNDS):
        start_s = time.perf_counter()
        await connection.read("POST", "/threads/search", {"limit": 20, **body})
        times_s.append(time.perf_counter() - start_s)
    return 1e3 * statistics.median(times_s)


async def start(side: Side, sizes: Sizes, folder: Path) -> Figures:
    """Start the server; take the time from the start of the process to its first answer."""
    times_s: list[float] = []
    cpu_s: list[float] = []
    for _ in range(sizes.starts + 1):
        begun = time.perf_counter()
        async with side.serving(folder) as server:
            times_s.append(time.perf_counter() - begun)
            cpu_s.append(server.cpu_s())
    # The first one makes the database, and may compile.
    figures = {"first_s": times_s[0], "s": _median(times_s[1:])}
    return figures if server.pid is None else {**figures, "cpu_s": _median(cpu_s[1:])}


def _median(values: Sequence[float]) -> float:
    return float(statistics.median(values))
