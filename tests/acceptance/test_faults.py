"""P4, P11, P12 and P13 on a real server process whose machine, clients or nodes do it harm.

Limits are set on the running process from outside, as an administrator or a full machine would.
"""

from __future__ import annotations

import asyncio
import resource
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from acceptance.kit import RUN_LIMIT_S, Reader, Server, create_run, ended_run, get, new_thread

STEPS = 12
DURABILITIES = ("sync", "async", "exit")
#: An answer of the control plane, on a machine that does much else at the same time.
PROMPT_S = 5.0
#: Quick stages of a cancel.
STAGES = {"cancel_grace_s": 0.1, "abandon_after_s": 0.1}
MIB = 1024 * 1024


@contextmanager
def limited(server: Server, what: int, soft: int) -> Iterator[None]:
    """Limit the running process, and lift the limit again."""
    before, hard = resource.prlimit(server.pid, what)
    resource.prlimit(server.pid, what, (soft, hard))
    try:
        yield
    finally:
        resource.prlimit(server.pid, what, (before, hard))


def steps_of(reader: Reader, durability: str = "sync") -> dict[str, Any]:
    state = {"name": reader.name, "steps": STEPS, "seconds": 0.08, "done": 0, "log": []}
    return {"input": state, "durability": durability}


@asynccontextmanager
async def amid_a_run(server: Server, http: httpx.AsyncClient) -> AsyncIterator[Reader]:
    """Start *server* and a run; give its reader after two steps, and leave once all of it was read."""
    await server.start()
    reader = Reader(server, http, await new_thread(http, server.url), "run")
    async with asyncio.timeout(RUN_LIMIT_S):
        following = asyncio.create_task(reader.follow(steps_of(reader)))
        await reader.reaches(2)
        yield reader
        await following


async def nothing_accepted(server: Server, http: httpx.AsyncClient, why: str) -> None:
    """Check that a new thread is refused, and that the log says *why*: that names the file, which no client is told."""
    refused = await http.post(f"{server.url}/threads", json={})
    assert refused.status_code == 503
    assert why not in refused.text
    assert why in server.log


async def check_done(reader: Reader) -> None:
    """Check that the run succeeded, with each step taken once and told once."""
    assert reader.events[-1].data["status"] == "success", (reader.events[-1], reader.server.log)
    assert reader.server.starts_of(reader.name) == dict.fromkeys(range(1, STEPS + 1), 1)
    assert await reader.replay() == reader.events


async def answers(http: httpx.AsyncClient, *urls: str) -> list[float]:
    """Ask each of *urls*, one after the other; return how long each answer took."""
    times_s = []
    for url in urls:
        began = time.monotonic()
        (await http.get(url)).raise_for_status()
        times_s.append(time.monotonic() - began)
    return times_s


def say(record_property: Any, figures: str) -> None:
    record_property("figures", figures)
    print(figures)  # noqa: T201 - the figures of the run


# The machine.


async def test_while_the_disk_is_full_nothing_is_accepted_and_afterwards_everything_goes_on(
    tmp_path: Path, http: httpx.AsyncClient
) -> None:
    async with Server(tmp_path) as server:
        await server.start()
        readers = [Reader(server, http, await new_thread(http, server.url), name) for name in DURABILITIES]
        async with asyncio.timeout(RUN_LIMIT_S), asyncio.TaskGroup() as group:
            for reader in readers:
                group.create_task(reader.follow(steps_of(reader, reader.name)))
            await asyncio.gather(*(reader.reaches(3) for reader in readers))
            mine = f"{server.url}/threads/{readers[0].thread_id}"
            with limited(server, resource.RLIMIT_FSIZE, 4096):  # no file can grow beyond that
                body = {"assistant_id": "steps", "input": {}, "multitask_strategy": "enqueue"}
                refused = await asyncio.gather(
                    http.post(f"{mine}/runs", json=body),
                    http.post(f"{server.url}/threads", json={}),
                    http.post(f"{mine}/runs/{readers[0].run_id}/cancel"),
                )
                for answer in refused:
                    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
                    assert int(answer.headers["retry-after"]) > 0
                await answers(http, f"{server.url}/ok", mine, f"{mine}/runs")
            assert (await http.post(f"{server.url}/threads", json={})).status_code == 200
        for reader in readers:
            await check_done(reader)
        assert len(await get(http, f"{mine}/runs")) == 1, "what was refused was admitted"


async def test_without_free_file_descriptors_runs_go_on_and_clients_are_served_again_once_there_are_some(
    tmp_path: Path, http: httpx.AsyncClient
) -> None:
    async with Server(tmp_path) as server:
        async with amid_a_run(server, http) as reader:
            with limited(server, resource.RLIMIT_NOFILE, psutil.Process(server.pid).num_fds() + 2), ExitStack() as many:
                for _ in range(20):
                    many.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                await reader.reaches(STEPS // 2)
            async with httpx.AsyncClient(trust_env=False, timeout=PROMPT_S) as newcomer:
                assert (await newcomer.get(f"{server.url}/ok")).status_code == 200
        await check_done(reader)
        server.send(signal.SIGTERM)
        assert await server.ended() == 0, server.log


@pytest.mark.parametrize(("hard", "allowed"), [(2000, 556), (400, 400)], ids=["as far as wanted", "as far as allowed"])
async def test_a_small_limit_of_open_files_is_raised_at_the_start(
    hard: int, allowed: int, tmp_path: Path, http: httpx.AsyncClient
) -> None:
    async with Server(tmp_path, max_connections=300) as server:
        server.run_with_open_files(64, hard)
        await server.start()
        assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (allowed, hard)
        warned = [line for line in server.lines if "server.few_open_files" in line]
        assert bool(warned) == (allowed < 556)
        assert all("allowed=400 wanted=556 setting=max_connections" in line for line in warned)
        with ExitStack() as many:
            for _ in range(100):
                many.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            assert (await http.get(f"{server.url}/ok")).status_code == 200


async def test_a_database_that_may_not_be_written_is_told_in_one_line_at_the_start(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        await server.start()
        server.send(signal.SIGTERM)
        assert await server.ended() == 0
        (tmp_path / "runlane.db").chmod(0o444)
        server.run_without_privileges()
        await server.launch()
        assert await server.ended() == 1
        assert len(server.lines) == 1, server.log
        assert f"cannot open {tmp_path / 'runlane.db'}: it may only be read" in server.lines[0]
        (tmp_path / "runlane.db").chmod(0o644)
        await server.start()


async def test_when_the_database_s_log_is_removed_nothing_is_accepted_and_all_is_there_after_a_restart(
    tmp_path: Path, http: httpx.AsyncClient
) -> None:
    log = tmp_path / "runlane.db-wal"
    async with Server(tmp_path) as server:
        async with amid_a_run(server, http) as reader:
            log.unlink()
            await nothing_accepted(server, http, f"{log} cannot be found")
            await server.kill()
            await server.start()
        assert reader.ended
        assert set(server.starts_of("run")) == set(range(1, STEPS + 1))


async def test_a_database_file_that_is_removed_is_told_and_once_it_is_back_the_run_goes_on(
    tmp_path: Path, http: httpx.AsyncClient
) -> None:
    database, aside = tmp_path / "runlane.db", tmp_path / "aside.db"
    async with Server(tmp_path) as server:
        async with amid_a_run(server, http) as reader:
            shutil.move(database, aside)
            await nothing_accepted(server, http, f"{database} cannot be found")
            shutil.move(aside, database)
        await check_done(reader)


# Clients.


async def test_readers_that_never_read_cost_little_memory_and_delay_nobody(
    tmp_path: Path, http: httpx.AsyncClient, record_property: Any
) -> None:
    lazy, events = 20, 400
    async with Server(tmp_path) as server:
        await server.start()
        thread_id, other = await new_thread(http, server.url), await new_thread(http, server.url)
        await ended_run(http, server, other, await create_run(http, server, other, "steps"))
        before = psutil.Process(server.pid).memory_info().rss
        run_id = await create_run(http, server, thread_id, "flooder", steps=events, stream_mode=("custom",))
        with ExitStack() as readers:
            for _ in range(lazy):
                connection = readers.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                path = f"/threads/{thread_id}/runs/{run_id}/stream"
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nLast-Event-ID: -1\r\n\r\n".encode())
            assert (await ended_run(http, server, thread_id, run_id))["status"] == "success"
            worst_s = max(await answers(http, f"{server.url}/ok", f"{server.url}/threads/{other}/runs"))
            assert (await ended_run(http, server, other, await create_run(http, server, other, "steps")))["status"] == (
                "success"
            )
            grown = (psutil.Process(server.pid).memory_info().rss - before) / MIB
        say(record_property, f"{lazy} readers, {events * 0.1:.0f} MB: {grown:.0f} MiB, {worst_s:.3f} s")
        # All of it in the memory of each reader would be 800 MB; the database's own caches take up to 200.
        assert grown < 300
        assert worst_s < PROMPT_S
        told = await Reader(server, http, thread_id, "run", run_id=run_id).replay()
        assert [event.data["step"] for event in told if event.name == "custom"] == list(range(events))


# Nodes.


async def test_a_state_of_50_mb_is_kept_while_others_are_served(
    tmp_path: Path, http: httpx.AsyncClient, record_property: Any
) -> None:
    async with Server(tmp_path) as server:
        await server.start()
        thread_id = await new_thread(http, server.url)
        neighbour = Reader(server, http, await new_thread(http, server.url), "neighbour")
        following = asyncio.create_task(neighbour.follow(steps_of(neighbour)))
        run_id = await create_run(http, server, thread_id, "grower", steps=50)
        growing = asyncio.create_task(ended_run(http, server, thread_id, run_id))
        times_s: list[float] = []
        while not growing.done():
            times_s += await answers(http, f"{server.url}/ok")
        assert (await growing)["status"] == "success"
        await following
        await check_done(neighbour)
        values = (await get(http, f"{server.url}/threads/{thread_id}/state"))["values"]
        assert [len(entry["text"]) for entry in values["log"]] == [1_000_000] * 50
        say(record_property, f"worst answer beside it {max(times_s):.3f} s")
        assert max(times_s) < PROMPT_S


async def test_while_a_node_computes_for_seconds_the_server_answers_and_a_cancel_says_where_it_is(
    tmp_path: Path, http: httpx.AsyncClient, record_property: Any
) -> None:
    async with Server(tmp_path, **STAGES) as server:
        await server.start()
        thread_id = await new_thread(http, server.url)
        run_id = await create_run(http, server, thread_id, "spinner", seconds=3)
        await begins(server)
        run = f"{server.url}/threads/{thread_id}/runs/{run_id}"
        times_s = await answers(http, *[f"{server.url}/ok", f"{server.url}/threads/{thread_id}/runs", run] * 5)
        began = time.monotonic()
        await cancelled(http, run, "spin")
        say(record_property, f"worst answer {max(times_s):.3f} s, cancel {time.monotonic() - began:.3f} s")
        assert max(times_s) < PROMPT_S
        again = await create_run(http, server, thread_id, "steps", name="again")
        assert (await ended_run(http, server, thread_id, again))["status"] == "success"
        assert (await get(http, f"{server.url}/threads/{thread_id}"))["values"]["done"] == 5


async def test_a_node_in_a_c_call_that_never_returns_is_reported_as_not_stopped_and_the_process_still_ends(
    tmp_path: Path, http: httpx.AsyncClient
) -> None:
    async with Server(tmp_path, drain_grace_s=0, **STAGES) as server:
        await server.start()
        thread_id = await new_thread(http, server.url)
        run_id = await create_run(http, server, thread_id, "caller")
        await begins(server)
        await cancelled(http, f"{server.url}/threads/{thread_id}/runs/{run_id}", "wait_in_c")
        [said] = [line for line in server.lines if "agent.abandoned " in line]
        assert f"run_id={run_id} attempt=1" in said
        assert "wait_in_c" in said
        assert "\nrunlane_abandoned 1.0\n" in (await http.get(f"{server.url}/metrics")).text
        again = await create_run(http, server, thread_id, "steps", name="again")
        assert (await ended_run(http, server, thread_id, again))["status"] == "success"
        server.send(signal.SIGTERM)
        assert await server.ended() == 0, server.log
        assert "server.threads_abandoned" in server.log


async def begins(server: Server) -> None:
    """Wait until the node has left its trace."""
    async with asyncio.timeout(RUN_LIMIT_S):
        while not server.starts_of("run"):  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.01)


async def cancelled(http: httpx.AsyncClient, run: str, function: str) -> None:
    """Cancel a run whose node cannot be stopped; check that its receipt says so, and where it is."""
    (await http.post(f"{run}/cancel", params={"wait": "true"})).raise_for_status()
    ended = await get(http, run)
    assert ended["status"] == "interrupted"
    assert ended["cancel"]["stopped_at"] is None
    assert "graphs.py:" in ended["cancel"]["blocked_at"]
    assert function in ended["cancel"]["blocked_at"]
