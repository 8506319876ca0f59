"""Starts per second and start latency on PostgreSQL: heads that the ledger hands out, against one job per head.

    python benchmarks/dispatch.py --runs 4000 --threads 200 --workers 1,2,3

Workers are processes that claim and end runs and execute nothing. "heads" claims as a server does, and tells others by
permits. "jobs" defers a Procrastinate job for every head, whose task claims the run by its id. Both write the same rows
of the ledger. The database is a private cluster whose commits are on the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from procrastinate import App, PsycopgConnector

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from postgres_cluster import PostgresCluster  # a helper of the tests
from runlane.dispatch.permits import Permits, _configure
from runlane.dispatch.shared import SharedDispatch
from runlane.lifecycle import EndReason, MultitaskStrategy, RunEvent
from runlane.outcomes import Outcome
from runlane.records import Claim, Claimant, Finished, Head, NewRun
from runlane.requests import RunRequest
from runlane.settings import Limits
from runlane.store.backends import migrate_postgres, open_postgres
from runlane.store.ledger import RunStore
from runlane.store.transactions.heads import HeadsWanted

SCHEMA = "runlane"
SLOTS = 50
DONE = Outcome(event=RunEvent.SUCCEED, end_reason=EndReason.COMPLETED)
LEFT = "SELECT count(*) FROM runlane.runs WHERE status IN ('pending', 'running')"
WAITS = "SELECT started_at - not_before FROM runlane.runs WHERE started_at IS NOT NULL"


async def end(store: RunStore, claim: Claim) -> Head | None:
    """End a run, and return the next one of its lane."""
    done = await store.attempts.finish(claim.lease, DONE)
    assert isinstance(done, Finished)
    return done.next_run


async def work_by_heads(url: str, name: str) -> None:
    """Claim heads for free slots for ever."""
    store = RunStore(await open_postgres(url))
    dispatch = SharedDispatch(Limits(slots=SLOTS))
    claimant = Claimant(worker_id=name, lease_s=60, has_code=False)
    ending: set[asyncio.Task[None]] = set()

    async def one(claim: Claim) -> None:
        following = await end(store, claim)
        dispatch.done(Head.of(claim.run))
        if following is not None:
            dispatch.submit(following)

    async with Permits(url, SCHEMA, dispatch).running(("g",), executes=True):
        await told_to_go()
        while True:
            free = await dispatch.next_work()
            claims, more = await store.attempts.claim_heads(HeadsWanted(slots=free.slots, groups={"g": "g"}), claimant)
            dispatch.filled(free, [Head.of(claim.run) for claim in claims], more=more)
            for claim in claims:
                task = asyncio.create_task(one(claim))
                ending.add(task)
                task.add_done_callback(ending.discard)


async def told_to_go() -> None:
    """Say that this process is ready, and wait until all are."""
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


def jobs_app(url: str) -> App:
    connector = PsycopgConnector(conninfo=url, min_size=2, max_size=10, configure=partial(_configure, SCHEMA))
    return App(connector=connector)


async def defer(app: App, heads: Sequence[str]) -> None:
    await app.configure_task("start", queue="heads").batch_defer_async(*({"run_id": run_id} for run_id in heads))


async def work_by_jobs(url: str, name: str) -> None:
    """Take jobs of one run each for ever."""
    store, app = RunStore(await open_postgres(url)), jobs_app(url)

    @app.task(name="start")
    async def start(run_id: str) -> None:
        claim = await store.attempts.claim(run_id, name, lease_s=60, has_code=False)
        if claim is not None:
            following = await end(store, claim)
            if following is not None:
                await defer(app, [following.run_id])

    async with app.open_async():
        await told_to_go()
        await app.run_worker_async(
            queues=["heads"], concurrency=SLOTS, install_signal_handlers=False, delete_jobs="always"
        )


async def admit(store: RunStore, runs: int, threads: int) -> list[str]:
    """Admit *runs* round the *threads*, and return the heads."""
    heads = []
    for first in range(0, runs, 50):
        news = [a_run(f"t{number % threads}") for number in range(first, min(runs, first + 50))]
        heads += [admission.run.run_id for admission in await store.runs.admit_all(news) if admission.runnable]
    return heads


def a_run(thread_id: str) -> NewRun:
    number = time.perf_counter_ns()
    return NewRun(
        run_id=f"run-{number}",
        thread_id=thread_id,
        owner="",
        multitask_strategy=MultitaskStrategy.ENQUEUE,
        request=RunRequest.of({"graph_id": "g"}),
    )


async def workers_of(kind: str, url: str, number: int) -> list[asyncio.subprocess.Process]:
    made = []
    for place in range(number):
        call = (sys.executable, __file__, "--work", kind, "--database", url, "--name", f"worker-{place}")
        process = await asyncio.create_subprocess_exec(
            *call, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        await process.stdout.readline()
        made.append(process)
    return made


async def over(watch: psycopg.Connection, every_s: float) -> None:
    """Wait until no run is left."""
    while watch.execute(LEFT).fetchone() != (0,):  # noqa: ASYNC110 - other processes have no signal
        await asyncio.sleep(every_s)


async def measure(kind: str, url: str, *, runs: int, threads: int, workers: int) -> str:
    """Have workers end all runs, then start some one by one; return the figures."""
    store, app = RunStore(await open_postgres(url)), jobs_app(url)
    app.task(name="start")(work_by_jobs)
    dispatch = SharedDispatch(Limits())
    permits = Permits(url, SCHEMA, dispatch)
    processes = await workers_of(kind, url, workers)
    async with permits.running(("g",), executes=False), app.open_async():

        async def tell(heads: Sequence[str]) -> None:
            if kind == "heads":
                permits.offer(("g",))
            else:
                await defer(app, heads)

        with psycopg.connect(url, autocommit=True) as watch:
            heads = await admit(store, runs, threads)
            began = time.perf_counter()
            await tell(heads)
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(b"go\n")
            await over(watch, 0.05)
            seconds = time.perf_counter() - began
            watch.execute("TRUNCATE runlane.runs, runlane.threads")
            for number in range(100):
                admission = await store.runs.admit(a_run(f"idle{number}"))
                await tell([admission.run.run_id])
                await over(watch, 0.01)
            waits = sorted(row[0] / 1000 for row in watch.execute(WAITS).fetchall())
    for process in processes:
        process.kill()
        await process.wait()
    await store.aclose()
    middle, slow = statistics.median(waits), waits[int(len(waits) * 0.95)]
    return f"{kind:5} {workers} workers: {runs / seconds:7.0f} starts/s, start p50 {middle:5.1f} ms, p95 {slow:5.1f} ms"


async def main(options: argparse.Namespace) -> None:
    with PostgresCluster(durable=True) as cluster:
        for workers in map(int, options.workers.split(",")):
            for kind in options.kinds.split(","):
                name = f"dispatch_{kind}_{workers}"
                with psycopg.connect(cluster.dsn, autocommit=True) as admin:
                    admin.execute(f"CREATE DATABASE {name}".encode())
                url = cluster.url(name)
                migrate_postgres(url)
                print(await measure(kind, url, runs=options.runs, threads=options.threads, workers=workers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=200)
    parser.add_argument("--workers", default="1,2,3")
    parser.add_argument("--kinds", default="heads,jobs")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--database", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    given = parser.parse_args()
    work: dict[str, Any] = {"heads": work_by_heads, "jobs": work_by_jobs}
    asyncio.run(work[given.work](given.database, given.name) if given.work else main(given))
