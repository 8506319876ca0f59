"""P1, P2, P3, P5 and P7 on two real processes that share a PostgreSQL ledger, of which one is stopped.

They embed the library: a server with graphs needs a database that has checkpoints. What stands in for these is the
run's log, in which their agent keeps each step that is done.

``RUNLANE_ACCEPTANCE_FREEZES`` times a process stands still (default 1), and the database crashes (default 2);
``RUNLANE_ACCEPTANCE_ROUNDS`` (default 4) runs are cut by ``kill -9``, four at a time.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from acceptance.kit import RUN_LIMIT_S
from acceptance.library_kit import Ledger, Library, Two, Viewer, two_libraries
from postgres_cluster import PostgresCluster
from runlane.lifecycle import RunStatus
from runlane.maintenance.liveness import GRACE_S
from runlane.records import ANY_OWNER

pytestmark = pytest.mark.asyncio(loop_scope="module")

FREEZES = int(os.environ.get("RUNLANE_ACCEPTANCE_FREEZES", "1"))
CRASHES = int(os.environ.get("RUNLANE_ACCEPTANCE_FREEZES", "2"))
ROUNDS = int(os.environ.get("RUNLANE_ACCEPTANCE_ROUNDS", "4"))
SEED = int(os.environ.get("RUNLANE_ACCEPTANCE_SEED", "1"))
STOPS_PER_TEST = 5  # so that no test comes near the time after which one counts as hanging
RUNS, STEPS = 4, 8
#: Which runs are over when a process that stood still goes on, and the steps of the others, which still execute then.
SHORT, LONG = (True, True, False, False), 24
LEASE_S, POLL_S = 1.0, 0.1
#: When a run is taken from a process that is silent, at the latest: the other sees its last renewal when it looks, and
#: that there was none since when it looks again.
SILENT_S = LEASE_S + GRACE_S + 2 * POLL_S
#: P7's bound with another process at hand: from the moment a process stops until each of its runs goes on.
RECOVERY_LIMIT_S = SILENT_S + 5.0
#: Runs that wait on a thread while the database crashes, at most; and how long all that may take.
AHEAD, LOAD_LIMIT_S = 2, 120.0


def parts(whole: int, size: int) -> list[tuple[int, int]]:
    """Return *whole* in parts of *size* at most, each with a seed."""
    return [(SEED + number, min(size, whole - done)) for number, done in enumerate(range(0, whole, size))]


@dataclass
class Figures:
    """What the stops showed."""

    cut: int = 0
    repeated: int = 0
    recovery_s: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        steps = f"{self.repeated} steps in flight repeated"
        return f"{self.cut} runs cut, {steps}, recovery {max(self.recovery_s):.2f} s (leases: {SILENT_S:.1f} s)"


@dataclass
class Pair:
    """The process that is stopped, and the other one."""

    stopped: Library
    other: Library


@dataclass
class Watched:
    """A run with a viewer at each of the two processes."""

    run_id: str
    at_stopped: Viewer
    at_other: Viewer

    @property
    def viewers(self) -> tuple[Viewer, Viewer]:
        return self.at_stopped, self.at_other

    async def ends(self) -> None:
        """Wait until the run has ended."""
        await self.at_other.sees(lambda: self.at_other.ended)

    async def keeps(self, step: int) -> None:
        """Wait until that step of the run is kept."""
        await self.at_other.sees(lambda: self.at_other.kept >= step)

    async def goes_on(self) -> None:
        """Wait until the run's second attempt has begun."""
        await self.at_other.sees(lambda: self.at_other.attempt > 1)


async def watched(
    group: asyncio.TaskGroup,
    pair: Pair,
    thread_id: str,
    name: str,
    seconds: float,
    *,
    steps: int = STEPS,
    at: Library | None = None,
) -> Watched:
    """Admit a run at one of the processes, by default at the one that is stopped, and let it be watched at both."""
    answer = await (at or pair.stopped).ask("create", thread_id=thread_id, name=name, steps=steps, seconds=seconds)
    viewers = Viewer(answer["run_id"], pair.stopped, pair.other), Viewer(answer["run_id"], pair.other, pair.stopped)
    for viewer in viewers:
        group.create_task(viewer.follow())
    return Watched(answer["run_id"], *viewers)


async def executed_by(ledger: Ledger, library: Library, runs: list[Watched]) -> list[Watched]:
    """Return which of *runs* the process executes."""
    rows = [await ledger.run(one.run_id) for one in runs]
    return [one for one, row in zip(runs, rows, strict=True) if f"-{library.pid}-" in (row.worker_id or "")]


async def recovered(cut: list[Watched], figures: Figures) -> None:
    """Wait until each of the runs goes on at the other process, which must be within P7's bound."""
    began = time.monotonic()
    async with asyncio.timeout(RECOVERY_LIMIT_S):
        for one in cut:
            await one.goes_on()
    figures.recovery_s.append(time.monotonic() - began)
    figures.cut += len(cut)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory, durable_cluster: PostgresCluster) -> AsyncIterator[Two]:
    """Give two processes, for all tests: starting them takes longer than most else."""
    # No run is to be given up because the database is away for longer than a lease, again and again.
    settings = {"lease_s": LEASE_S, "poll_s": POLL_S, "heartbeat_s": 0.2, "max_rescues": 100}
    url = durable_cluster.url("ledger")
    async with two_libraries(tmp_path_factory.mktemp("two"), url, **settings) as libraries:
        yield libraries


@pytest.mark.parametrize(("seed", "freezes"), parts(FREEZES, STOPS_PER_TEST))
async def test_a_process_that_stands_still_past_its_leases_loses_its_runs_to_another_and_writes_nothing_later(
    seed: int, freezes: int, two: Two
) -> None:
    figures = Figures()
    for number in range(freezes):
        pair = Pair(two.first, two.second) if number % 2 == 0 else Pair(two.second, two.first)
        within_write = (seed + number) % 2 == 1
        with two.explained():
            await freeze_once(two.ledger, pair, f"frozen-{seed}-{number}", within_write=within_write, figures=figures)
    print(f"stood still, seed {seed}: {figures}")  # noqa: T201 - the figures of the run


async def freeze_once(ledger: Ledger, pair: Pair, name: str, *, within_write: bool, figures: Figures) -> None:
    """Stop a process while it executes runs, in the middle of a write or anywhere, and check what became of all."""
    frozen, other = pair.stopped, pair.other
    threads = [f"{name}-{number}" for number in range(RUNS)]
    async with asyncio.timeout(RUN_LIMIT_S), asyncio.TaskGroup() as group:
        runs = [
            await watched(group, pair, thread, f"{thread}-first", 0.1, steps=STEPS if short else LONG)
            for thread, short in zip(threads, SHORT, strict=True)
        ]
        stopped = await watched(group, pair, f"{name}-stopped", f"{name}-stopped", 1.0)
        await asyncio.gather(*(one.keeps(2) for one in runs))
        if within_write:
            assert await frozen.ask("hold_still", run_id=runs[0].run_id) == "held"
        else:
            frozen.send(signal.SIGSTOP)
        cut = await executed_by(ledger, frozen, [*runs, stopped])
        assert cut, "the process executed nothing"
        cancelling = group.create_task(other.ask("cancel", run_id=stopped.run_id))
        late, _ = await asyncio.gather(
            watched(group, pair, threads[0], f"{name}-late", 0.01, at=other),
            recovered([one for one in cut if one is not stopped], figures),
        )
        over = [*itertools.compress(runs, SHORT), stopped, late]
        await asyncio.gather(*(one.ends() for one in over))
        assert await cancelling == {"stopped": True}
        before = await ledger.rows(one.run_id for one in over)
        frozen.send(signal.SIGCONT)
        for one in cut:
            assert await frozen.said(f"run.lease_lost run_id={one.run_id} "), "the attempt did not notice"
    assert await ledger.rows(one.run_id for one in over) == before, "a process wrote what was not its own any more"
    for one in [*runs, late]:
        figures.repeated += await ledger.check_run(one.run_id, one.viewers)
    assert (await ledger.run(stopped.run_id)).status is RunStatus.INTERRUPTED
    assert stopped.at_stopped.items == stopped.at_other.items
    await check_threads_work(ledger, pair, [*threads, f"{name}-stopped"])


async def check_threads_work(ledger: Ledger, pair: Pair, threads: list[str]) -> None:
    """Check that the process that was stopped executes a run on each of the threads, and that they are idle then."""
    async with asyncio.timeout(RUN_LIMIT_S), asyncio.TaskGroup() as group:
        again = [await watched(group, pair, thread, f"{thread}-again", 0.01) for thread in threads]
    for one in again:
        await ledger.check_run(one.run_id, one.viewers)
    for thread in threads:
        assert (await ledger.store.threads.get(thread, owner=ANY_OWNER)).status == "idle"


@pytest.mark.parametrize(("seed", "rounds"), parts(ROUNDS, RUNS * STOPS_PER_TEST))
async def test_runs_of_a_process_that_is_killed_go_on_in_another_from_the_last_step_that_was_kept(
    seed: int, rounds: int, two: Two
) -> None:
    figures, rng = Figures(), random.Random(seed)
    pair = Pair(two.first, two.second)
    while figures.cut < rounds:
        with two.explained():
            await kill_once(two.ledger, pair, f"killed-{seed}-{figures.cut}", rng=rng, figures=figures)
        pair = Pair(pair.other, pair.stopped)
    print(f"kill -9, seed {seed}: {figures}")  # noqa: T201 - the figures of the run


async def kill_once(ledger: Ledger, pair: Pair, name: str, *, rng: random.Random, figures: Figures) -> None:
    """Kill a process while it executes runs, start it again, and check what became of all."""
    threads = [f"{name}-{number}" for number in range(RUNS)]
    async with asyncio.timeout(RUN_LIMIT_S), asyncio.TaskGroup() as group:
        runs = [await watched(group, pair, thread, f"{thread}-first", rng.uniform(0.1, 0.2)) for thread in threads]
        late = await watched(group, pair, threads[0], f"{name}-late", 0.01)
        await rng.choice(runs).keeps(rng.randint(1, 4))
        cut = await executed_by(ledger, pair.stopped, runs)
        assert cut, "the process executed nothing"
        await pair.stopped.kill()
        await asyncio.gather(recovered(cut, figures), pair.stopped.start())
    for one in [*runs, late]:
        figures.repeated += await ledger.check_run(one.run_id, one.viewers)
    await check_threads_work(ledger, pair, threads)


@pytest.mark.parametrize(("seed", "crashes"), parts(CRASHES, STOPS_PER_TEST))
async def test_two_processes_whose_database_crashes_again_and_again_lose_nothing_and_double_nothing(
    seed: int, crashes: int, two: Two, durable_cluster: PostgresCluster
) -> None:
    rng = random.Random(seed)
    endings: asyncio.Queue[Watched] = asyncio.Queue()

    async def crash() -> None:
        for _ in range(crashes):
            for _ in range(RUNS):  # so much is done in between
                await endings.get()
            await asyncio.sleep(rng.uniform(0.0, 0.2))  # into the work
            await asyncio.to_thread(durable_cluster.restart)

    async def client(thread: str) -> list[Watched]:
        """Admit runs to a thread, at one process and the other, for as long as the database crashes."""
        runs: list[Watched] = []
        while len(runs) < 2 * AHEAD or not crashing.done():
            at, pair = (two.first, two.second)[len(runs) % 2], Pair(two.first, two.second)
            runs.append(await watched(group, pair, thread, f"{thread}-{len(runs)}", 0.03, steps=3, at=at))
            if len(runs) > AHEAD:
                await runs[-AHEAD].ends()
                endings.put_nowait(runs[-AHEAD])
        return runs

    threads = [f"crashed-{seed}-{number}" for number in range(RUNS)]
    with two.explained():
        async with asyncio.timeout(LOAD_LIMIT_S), asyncio.TaskGroup() as group:
            crashing = group.create_task(crash())
            clients = [group.create_task(client(thread)) for thread in threads]
        admitted = [
            await check_load(two.ledger, *pair) for pair in zip(threads, (c.result() for c in clients), strict=True)
        ]
    print(f"database crashed, seed {seed}: {crashes} times, {sum(admitted)} runs")  # noqa: T201 - the figures of the run


async def check_load(ledger: Ledger, thread: str, runs: list[Watched]) -> int:
    """Check that the thread has these runs, executed in turn and to their ends, and no others; return how many."""
    found = await ledger.store.runs.list(thread, owner=ANY_OWNER, limit=1000)
    assert [run.run_id for run in reversed(found)] == [one.run_id for one in runs]
    ledger.check_lane([f"{thread}-{number}" for number in range(len(runs))])
    for one in runs:
        await ledger.check_run(one.run_id, one.viewers)
    assert (await ledger.store.threads.get(thread, owner=ANY_OWNER)).status == "idle"
    return len(runs)
