"""The load: what each case asks of a server, and the figures it brings back.

A case asks only for what the public HTTP API offers, checks the answers, and gives figures by name; the unit is in the
name. A figure of processor time or memory covers the server's process and its children, and is left out if its pid is
not known.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

from client import Connection, Figures, Meter, Server, expect, latencies, new_thread, run_of, together
from sizes import Sizes

#: How long the runs that ``create`` made may take to end, in seconds.
FINISH_TIMEOUT_S = 120.0
#: How often a state is asked for that the API cannot be waited for, and how often memory is read, in seconds.
POLL_S, MEMORY_POLL_S = 0.01, 0.5


async def wait(server: Server, sizes: Sizes) -> Figures:
    """Run ``noop`` to its end again and again, on several connections with a thread each."""

    async def client(runs: int) -> None:
        async with Connection(server) as connection:
            thread = await new_thread(connection)
            for _ in range(runs):
                answer = await connection.call("POST", f"/threads/{thread}/runs/wait", run_of("noop", {"count": 0}))
                expect(answer["count"] == 1, f"wait: {answer}")

    await together(client(sizes.warm_runs) for _ in range(4))
    each = sizes.wait_runs // sizes.connections
    runs, meter = each * sizes.connections, Meter(server)
    await together(client(each) for _ in range(sizes.connections))
    return {"runs_per_s": runs / meter.wall_s(), **meter.cpu("cpu_ms_per_run", 1e3 / runs)}


async def create(server: Server, sizes: Sizes) -> Figures:
    """Ask for ``noop`` in the background, on a new thread each time, then wait until all have ended."""
    made: list[str] = []

    async def client(runs: int) -> None:
        async with Connection(server) as connection:
            for _ in range(runs):
                path = f"/threads/{uuid4()}/runs"
                run = await connection.call("POST", path, run_of("noop", {"count": 0}, if_not_exists="create"))
                made.append(f"{path}/{run['run_id']}")

    each = sizes.create_runs // sizes.connections
    runs, meter = each * sizes.connections, Meter(server)
    await together(client(each) for _ in range(sizes.connections))
    accepted_s = meter.wall_s()
    async with Connection(server) as connection:
        while made and meter.wall_s() < FINISH_TIMEOUT_S:
            status = (await connection.call("GET", made[-1]))["status"]
            if status in ("pending", "running"):
                await asyncio.sleep(2 * POLL_S)
                continue
            expect(status == "success", f"create: {made.pop()} is {status}")
    return {
        "accepted_per_s": runs / accepted_s,
        "finished_per_s": runs / meter.wall_s(),
        "unfinished": len(made),
        **meter.cpu("cpu_ms_per_run", 1e3 / runs),
    }


async def ttfe(server: Server, sizes: Sizes) -> Figures:
    """Stream ``noop``, one run after the other, and take the time to the first event."""
    times_s: list[float] = []
    async with Connection(server) as connection:
        thread = await new_thread(connection)
        for _ in range(sizes.warm_runs + sizes.ttfe_runs):
            body = run_of("noop", {"count": 0}, stream_mode=["values"])
            first_s, count = await connection.stream(f"/threads/{thread}/runs/stream", body)
            expect(count >= 2, f"ttfe: {count} events")
            times_s.append(first_s)
    return latencies(times_s[sizes.warm_runs :])


async def _stream_tokens(server: Server, tokens: int) -> int:
    async with Connection(server) as connection:
        thread = await new_thread(connection)
        values = {"messages": [{"role": "user", "content": "go"}], "n": tokens}
        body = run_of("tokens", values, stream_mode=["messages-tuple"])
        _, count = await connection.stream(f"/threads/{thread}/runs/stream", body)
    expect(count >= tokens, f"stream: {count} events of {tokens} tokens")
    return count


async def _token_runs(server: Server, runs: int, tokens: int, warm_tokens: int) -> Figures:
    await _stream_tokens(server, warm_tokens)
    meter = Meter(server)
    count = sum(await together(_stream_tokens(server, tokens) for _ in range(runs)))
    return {"events_per_s": count / meter.wall_s(), **meter.cpu("cpu_us_per_event", 1e6 / count)}


async def stream(server: Server, sizes: Sizes) -> Figures:
    """Stream one long answer."""
    return await _token_runs(server, 1, sizes.stream_tokens, sizes.warm_tokens)


async def fanout(server: Server, sizes: Sizes) -> Figures:
    """Stream many answers at once."""
    return await _token_runs(server, sizes.fanout_runs, sizes.fanout_tokens, sizes.warm_tokens)


async def idle(server: Server, sizes: Sizes) -> Figures:
    """Let many runs sleep at once; memory is the highest seen, above that of before, per run."""

    async def sleep_once() -> bool:
        body = run_of("sleeper", {"seconds": sizes.idle_s}, if_not_exists="create")
        async with Connection(server) as connection:
            answer = await connection.call("POST", f"/threads/{uuid4()}/runs/wait", body)
        return isinstance(answer, dict) and answer.get("count") == 1

    before, meter = server.memory_bytes(), Meter(server)
    peak = before
    runs = [asyncio.create_task(sleep_once()) for _ in range(sizes.idle_runs)]
    unfinished = set(runs)
    try:
        while unfinished:
            _, unfinished = await asyncio.wait(unfinished, timeout=MEMORY_POLL_S)
            peak = max(peak, server.memory_bytes())
    finally:
        for run in unfinished:
            run.cancel()
    wall_s = meter.wall_s()
    succeeded = sum(run.exception() is None and run.result() for run in runs)
    expect(succeeded > 0, f"idle: no run succeeded; the first: {runs[0].exception() or runs[0].result()}")
    memory = {} if server.pid is None else {"kib_per_run": (peak - before) / sizes.idle_runs / 1024}
    return {
        "succeeded": succeeded,
        "failed": sizes.idle_runs - succeeded,
        "wall_s": wall_s,
        "wall_of_ideal": wall_s / sizes.idle_s,
        **memory,
    }


async def started(connection: Connection, path: str) -> None:
    status = "pending"
    while status == "pending":
        await asyncio.sleep(POLL_S)
        status = (await connection.call("GET", path))["status"]


async def cancel(server: Server, sizes: Sizes) -> Figures:
    """Cancel a sleeping run and wait for its end."""
    times_s: list[float] = []
    async with Connection(server) as connection:
        for _ in range(sizes.cancel_runs):
            runs = f"/threads/{await new_thread(connection)}/runs"
            run = await connection.call("POST", runs, run_of("sleeper", {"seconds": 60}))
            path = f"{runs}/{run['run_id']}"
            await started(connection, path)
            start_s = time.perf_counter()
            await connection.call("POST", f"{path}/cancel?wait=1&action=interrupt", {})
            times_s.append(time.perf_counter() - start_s)
            status = (await connection.call("GET", path))["status"]
            expect(status == "interrupted", f"cancel: the run is {status}")
    return latencies(times_s)


async def steps(server: Server, sizes: Sizes) -> Figures:
    """Run ``steps`` to its end again and again on one thread; the first time does not count."""
    body = run_of("steps", {"count": 0, "n": sizes.steps_each})
    async with Connection(server) as connection:
        path = f"/threads/{await new_thread(connection)}/runs/wait"
        await connection.call("POST", path, body)
        meter = Meter(server)
        for _ in range(sizes.steps_runs):
            answer = await connection.call("POST", path, body)
            expect(answer["count"] == sizes.steps_each, f"steps: {answer}")
    total = sizes.steps_runs * sizes.steps_each
    return {"ms_per_step": 1e3 * meter.wall_s() / total, **meter.cpu("cpu_ms_per_step", 1e3 / total)}


async def history(server: Server, sizes: Sizes) -> Figures:
    """List a page of the runs of a thread that has several pages of them."""
    async with Connection(server) as connection:
        runs = f"/threads/{await new_thread(connection)}/runs"
        for _ in range(sizes.history_runs):
            await connection.call("POST", f"{runs}/wait", run_of("noop", {"count": 0}))
        meter = Meter(server)
        for _ in range(sizes.history_calls):
            page = await connection.call("GET", f"{runs}?limit={sizes.history_page}")
            expect(len(page) == sizes.history_page, f"history: {len(page)} runs on a page")
    return {"list_ms": 1e3 * meter.wall_s() / sizes.history_calls}


async def _probe(server: Server, graph: str, sizes: Sizes) -> dict[str, list[float]]:
    """While nodes of *graph* are busy, ask in turn for health, a list and a cancel; give the seconds of each."""
    times_s: dict[str, list[float]] = {"ok": [], "list": [], "cancel": []}
    async with Connection(server) as connection:
        runs = f"/threads/{await new_thread(connection)}/runs"
        later = run_of(graph, {"seconds": 0}, after_seconds=3600, multitask_strategy="enqueue")
        waiting = [await connection.call("POST", runs, later) for _ in range(sizes.control_rounds)]
        busy = await connection.call("POST", runs, run_of(graph, {"seconds": sizes.control_s}))
        await started(connection, f"{runs}/{busy['run_id']}")
        meter = Meter(server)
        for run in waiting:
            for name, method, path in (
                ("ok", "GET", "/ok"),
                ("list", "GET", f"{runs}?limit=10"),
                ("cancel", "POST", f"{runs}/{run['run_id']}/cancel?wait=0&action=interrupt"),
            ):
                start_s = time.perf_counter()
                await connection.call(method, path, None if method == "GET" else {})
                times_s[name].append(time.perf_counter() - start_s)
            if meter.wall_s() > 0.8 * sizes.control_s:
                break
        await connection.call("GET", f"{runs}/{busy['run_id']}/join")
    return times_s


async def control(server: Server, sizes: Sizes) -> Figures:
    """Ask for health, lists and cancels while a node blocks its loop, blocks a thread, or spins."""
    times_s: dict[str, list[float]] = {}
    for graph in ("blocker", "sync_sleeper", "spinner"):
        for name, found in (await _probe(server, graph, sizes)).items():
            times_s.setdefault(name, []).extend(found)
    return {f"{name}_{key}": value for name, found in times_s.items() for key, value in latencies(found).items()}


LOADS: dict[str, Callable[[Server, Sizes], Awaitable[Figures]]] = {
    case.__name__: case for case in (wait, create, ttfe, stream, fanout, idle, cancel, steps, history, control)
}
