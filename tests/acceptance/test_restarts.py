"""P2, P5, P6 and P7 on real processes: servers that are stopped in the middle of runs, and started again.

A round is one run that is cut by one stop. ``RUNLANE_ACCEPTANCE_ROUNDS`` (default 15) rounds are done of each kind of
stop, RUNS_PER_STOP at a time: the default is three stops that cut five runs each. When a stop comes is drawn from a
seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from acceptance.kit import Reader, Server, get, new_thread
from runlane.checkpoints.saver import LedgerSaver
from runlane.doctor.examination import examine
from runlane.doctor.opening import open_ledger
from runlane.settings import Settings
from runlane.store.drivers.sqlite import SqliteDriver

ROUNDS = int(os.environ.get("RUNLANE_ACCEPTANCE_ROUNDS", "15"))
SEED = int(os.environ.get("RUNLANE_ACCEPTANCE_SEED", "1"))
RUNS_PER_STOP = 5
ROUNDS_PER_TEST = 25  # so that no test comes near the time after which one counts as hanging
BATCHES = [min(ROUNDS_PER_TEST, ROUNDS - done) for done in range(0, ROUNDS, ROUNDS_PER_TEST)]
STEPS = 12
#: Bytes that each step adds to the state: from the second step on it is stored in parts.
PADDING = 2400
#: P7's bound on one machine: from the moment a restarted server answers until every run that was cut goes on.
RECOVERY_LIMIT_S = 5.0

Stop = Callable[[Server], Awaitable[None]]


@dataclass
class Figures:
    """What the rounds of one kind of stop showed."""

    rounds: int = 0
    repeated_steps: int = 0
    recovery_s: list[float] = field(default_factory=list)
    stop_s: list[float] = field(default_factory=list)
    ignored_signals: int = 0


async def terminate(server: Server) -> None:
    server.send(signal.SIGTERM)
    assert await server.ended() == 0, server.log


async def terminate_three_times(server: Server) -> None:
    """The grace time is far longer than the test: only the second signal can end it."""
    server.send(signal.SIGTERM)
    await server.said("server.draining")
    server.send(signal.SIGTERM)
    await server.said("server.drain_hurried")
    server.send(signal.SIGINT)
    assert await server.ended() == 0, server.log


async def kill(server: Server) -> None:
    await server.kill()


@pytest.mark.parametrize(("seed", "rounds"), [(SEED + number, rounds) for number, rounds in enumerate(BATCHES)])
@pytest.mark.parametrize(
    ("stop", "settings"),
    [
        pytest.param(terminate, {"drain_grace_s": 0.1}, id="SIGTERM"),
        pytest.param(terminate_three_times, {"drain_grace_s": 600}, id="SIGTERM-SIGTERM-SIGINT"),
        pytest.param(kill, {}, id="SIGKILL"),
    ],
)
async def test_runs_cut_by_a_stop_go_on_after_the_restart_and_end_once(
    stop: Stop,
    settings: dict[str, Any],
    seed: int,
    rounds: int,
    tmp_path: Path,
    http: httpx.AsyncClient,
    record_property: Any,
) -> None:
    figures, rng = Figures(), random.Random(seed)
    async with Server(tmp_path, **settings) as server:
        await server.start()
        while figures.rounds < rounds:
            await cut_some_runs(server, http, stop, rng, figures)
        await terminate(server)
    await check_ledger(tmp_path / "runlane.db")
    if stop is terminate_three_times:
        assert figures.ignored_signals > 0, "no third signal came during a drain"
    worst = {"recovery_s": max(figures.recovery_s), "stop_s": max(figures.stop_s)}
    record_property("figures", f"{figures.rounds} rounds, {figures.repeated_steps} repeated steps, worst {worst}")
    print(f"seed {seed}: {figures.rounds} rounds, {figures.repeated_steps} steps in flight repeated, worst {worst}")  # noqa: T201 - the figures of the run


async def cut_some_runs(
    server: Server, http: httpx.AsyncClient, stop: Stop, rng: random.Random, figures: Figures
) -> None:
    """Start runs on threads of their own, and one behind the first; stop the server, start it, and check them all."""
    readers = [
        Reader(server, http, await new_thread(http, server.url), f"{figures.rounds}.{number}")
        for number in range(RUNS_PER_STOP)
    ]
    queued = Reader(server, http, readers[0].thread_id, f"{figures.rounds}.queued")
    async with asyncio.TaskGroup() as group:
        for number, reader in enumerate(readers):
            group.create_task(reader.follow(payload(reader, rng.uniform(0.04, 0.12), durability_of(number, stop))))
        await asyncio.gather(*(reader.reaches(1) for reader in readers))
        group.create_task(queued.follow(payload(queued, 0.01, "async")))
        await queued.accepted.wait()
        await rng.choice(readers).reaches(rng.randint(2, 5))
        cut = [reader for reader in readers if not reader.ended]
        seen = {reader.name: reader.step for reader in readers}
        began = time.monotonic()
        await stop(server)
        figures.stop_s.append(time.monotonic() - began)
        figures.ignored_signals += "server.signal_ignored" in server.log
        at_stop = {reader.name: len(reader.events) for reader in cut}
        kept = await steps_kept(server, readers)
        await server.start()
        began = time.monotonic()
        async with asyncio.timeout(RECOVERY_LIMIT_S):
            for reader in cut:
                await grows(reader, at_stop[reader.name])
        figures.recovery_s.append(time.monotonic() - began)
    figures.rounds += len(cut)
    for number, reader in enumerate([*readers, queued]):
        figures.repeated_steps += await check_run(
            reader,
            stop,
            kept_step=kept.get(reader.name, 0),
            seen_step=seen.get(reader.name, 0) if durability_of(number, stop) == "sync" else 0,
        )
    await check_threads(server, http, [*readers, queued])


async def steps_kept(server: Server, readers: list[Reader]) -> dict[str, int]:
    """Return, by the name of a run, the last step that is in a checkpoint of a ledger whose server has ended."""
    folder = server.effects.parent / "kept"
    folder.mkdir()
    for file in folder.parent.glob("runlane.db*"):
        shutil.copy(file, folder)
    driver = SqliteDriver(folder / "runlane.db")
    saver, kept = LedgerSaver(driver), {}
    for reader in readers:
        stored = await saver.aget_tuple({"configurable": {"thread_id": reader.thread_id}})
        if stored is not None:
            values = stored.checkpoint["channel_values"]
            kept[values["name"]] = values["done"]
    await driver.aclose()
    shutil.rmtree(folder)
    return kept


def durability_of(number: int, stop: Stop) -> str:
    """Return how the run of that number writes checkpoints: in each of the three ways, where that is meant to hold."""
    return ("async", "sync", "async" if stop is kill else "exit")[number % 3]


def payload(reader: Reader, seconds: float, durability: str) -> dict[str, Any]:
    state = {"name": reader.name, "steps": STEPS, "seconds": seconds, "done": 0, "log": [], "padding": PADDING}
    return {"input": state, "multitask_strategy": "enqueue", "durability": durability}


async def grows(reader: Reader, length: int) -> None:
    async with reader.news:
        await reader.news.wait_for(lambda: len(reader.events) > length)


async def check_run(reader: Reader, stop: Stop, *, kept_step: int, seen_step: int) -> int:
    """Check the stream and the steps of a run that was cut; return how many steps were started twice.

    *kept_step* was in a checkpoint when the server had ended. With durability ``sync`` a step that was seen to start,
    *seen_step*, came after the checkpoint of the step before it.
    """
    ids = [event.id for event in reader.events]
    assert ids == sorted(set(ids)), f"{reader.name}: ids do not grow: {ids}"
    assert [event.name for event in reader.events].count("end") == 1, reader.name
    assert reader.events[-1].data["status"] == "success", (reader.name, reader.events[-1], reader.server.log)
    assert await reader.replay() == reader.events, f"{reader.name}: the stream had a gap or a repetition"
    starts = reader.server.starts_of(reader.name)
    assert sorted(starts) == list(range(1, STEPS + 1)), (reader.name, starts)
    repeated = sorted(step for step, count in starts.items() if count > 1)
    if stop is not kill:
        assert not repeated, (reader.name, starts)
    assert all(step > kept_step for step in repeated), (reader.name, starts, kept_step)
    assert all(step >= seen_step for step in repeated), (reader.name, starts, seen_step)
    assert len(repeated) <= 1 or not seen_step, (reader.name, starts)
    assert max(starts.values()) <= 2, (reader.name, starts)
    return len(repeated)


async def check_threads(server: Server, http: httpx.AsyncClient, readers: list[Reader]) -> None:
    """Check what the server holds: each run ended once, each step is in the state once, in the order of the lane."""
    for reader in readers:
        run = await get(http, f"{server.url}/threads/{reader.thread_id}/runs/{reader.run_id}")
        assert run["status"] == "success", run
    for thread_id in {reader.thread_id for reader in readers}:
        of_thread = [reader for reader in readers if reader.thread_id == thread_id]
        assert len(await get(http, f"{server.url}/threads/{thread_id}/runs")) == len(of_thread)
        thread = await get(http, f"{server.url}/threads/{thread_id}")
        assert thread["status"] == "idle", thread
        log = thread["values"]["log"]
        assert [entry["padding"] for entry in log] == [f"{entry['step']:02}" * (PADDING // 2) for entry in log]
        steps = [(entry["name"], entry["step"]) for entry in log]
        assert steps == [(reader.name, step) for reader in of_thread for step in range(1, STEPS + 1)], steps


async def check_ledger(file: Path) -> None:
    """Check that the stops have left nothing that doctor finds: no part of a state is missing, and none left over."""
    async with open_ledger(Settings(database=f"sqlite:///{file}")) as ledger:
        examination = await examine(ledger)
    assert examination.complete
    assert not examination.findings
    assert examination.checked["parts of values"] > 0
