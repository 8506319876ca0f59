"""P1, P7 and P12 on PostgreSQL: a session that holds one row for long delays its thread, and nothing of any other.

Transactions wait for locks far longer than these tests for anything: what waits fails its test.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from ledger_kit import LONG_AGO, a_plan, a_run, a_target, claim, ended, ledger_connection
from run_kit import PATIENCE_S, Scripted, opened, soon, turn
from run_kit import ended as run_ended
from runlane.agents.coroutine import CoroutineAgent, RunContext
from runlane.journal.remainder import append
from runlane.journal.rows import CheckpointRows
from runlane.leases import WorkerState
from runlane.lifecycle import RunStatus
from runlane.maintenance.crons import CronScheduler
from runlane.records import ANY_OWNER, Admission, Lease, NewRun, RunRecord, StreamEvent
from runlane.runtime import Runtime
from runlane.store.backends import migrate_postgres
from runlane.store.drivers.postgres import open_postgres
from runlane.store.drivers.postgres_link import Link, Times, plain
from runlane.store.migrations import DEFAULT_SCHEMA
from runlane.store.statements import Query, Rows
from runlane.store.statements import run as drive
from runlane.store.transactions.crons import Cron

LEASE_S = 1.0
DEAD = WorkerState(worker_id="dead", lease_s=LEASE_S)
#: Which rows are held: of the thread on which a run executes, of the one whose run lost its worker, and of what is old.
ROWS = {
    "thread": "SELECT 1 FROM threads WHERE thread_id IN ('held', 'lost') FOR UPDATE",
    "run": "SELECT 1 FROM runs WHERE thread_id IN ('held', 'lost') FOR UPDATE",
    "run in key share": "SELECT 1 FROM runs WHERE thread_id IN ('held', 'lost') FOR KEY SHARE",
    "events": "SELECT 1 FROM events FOR UPDATE",
    "cron": "SELECT 1 FROM crons WHERE cron_id = 'held' FOR UPDATE",
}


CHECKPOINT = {
    "thread_id": "t",
    "checkpoint_ns": "",
    "checkpoint_id": "stale",
    "run_id": "r",
    "parent_id": None,
    "type": "msgpack",
    "checkpoint": b"",
    "metadata_type": "msgpack",
    "metadata": b"",
}


@dataclass
class Talking:
    """An agent that goes on emitting until it is let go."""

    started: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: bool = False

    async def __call__(self, context: RunContext) -> str:
        self.started.set()
        try:
            while not self.go.is_set():
                context.emit("custom", "on")
                await asyncio.sleep(0.02)
            return "done"
        except asyncio.CancelledError:
            self.stopped = True
            raise


@pytest.fixture
async def runtime(postgres_url: str) -> AsyncIterator[Runtime]:
    """Give a process that shares a PostgreSQL ledger, and waits for locks for longer than any test."""
    migrate_postgres(postgres_url)
    driver = await open_postgres(postgres_url, times=Times(lock_s=10 * PATIENCE_S))
    async with opened(driver, exclusive=False, lease_s=LEASE_S, poll_s=0.1) as made:
        yield made
    await driver.aclose()


async def lost_runs(runtime: Runtime, agents: dict[str, Scripted]) -> dict[str, RunRecord]:
    """Return runs of a worker that died, which go on here once they are rescued."""
    await runtime.store.workers.beat(DEAD)
    runs = {}
    for thread_id, agent in agents.items():
        run = (await runtime.store.runs.admit(a_run(thread_id))).run
        runtime.agents.attach(run.run_id, CoroutineAgent(agent, continuable=True))
        await claim(runtime.store, run.run_id, DEAD.worker_id)
        runs[thread_id] = run
    return runs


async def seen(look: Callable[[], Awaitable[object]]) -> None:
    """Look again and again until there is something."""
    async with asyncio.timeout(PATIENCE_S):
        while not await look():  # noqa: ASYNC110 - it is in the database
            await asyncio.sleep(0.02)


async def has_events(runtime: Runtime, run: RunRecord, number: int) -> bool:
    return await runtime.store.events.last(run.seq) >= number


async def beaten(runtime: Runtime, beats: int) -> bool:
    me = runtime.worker.worker_id
    return any(one.worker_id == me and one.beats >= beats for one in await runtime.store.workers.list())


class Slots:
    """A scheduler of crons, and the crons that it has fired."""

    def __init__(self, runtime: Runtime) -> None:
        self.fired: dict[str, asyncio.Event] = {}
        self._store = runtime.store
        self.scheduler = CronScheduler(
            store=runtime.store, make_run=self._run, admitted=self._admitted, closed=lambda: False, poll_s=0.1
        )

    async def make(self, cron_id: str, thread_id: str | None) -> None:
        self.fired[cron_id] = asyncio.Event()
        plan = a_plan(schedule="0 0 1 1 *", next_run_at=datetime.now(UTC) - timedelta(seconds=1))
        await self._store.crons.create(cron_id, a_target(thread_id), plan)

    async def _run(self, cron: Cron, slot: datetime) -> NewRun:
        return a_run(cron.target.thread_id or f"of-{cron.cron_id}", metadata={"cron_id": cron.cron_id})

    def _admitted(self, new: NewRun, _: Admission) -> None:
        self.fired[new.metadata["cron_id"]].set()


@pytest.mark.parametrize("held", ROWS)
async def test_a_row_that_is_held_delays_no_other_thread(held: str, runtime: Runtime, postgres_url: str) -> None:
    store, talking, slots = runtime.store, Talking(), Slots(runtime)
    agents = {name: Scripted() for name in ("lost", "also lost")}
    for agent in agents.values():
        agent.go.set()
    old = [await ended(store, thread_id) for thread_id in ("held", "old")]
    for run_id in old:
        await turn(store, LONG_AGO, run_id)
    on_held = await runtime.runs.create("held", agent=talking)
    await soon(talking.started.wait())
    await seen(lambda: store.events.last(on_held.seq))
    await slots.make("held", "held")
    await slots.make("free", None)
    lost = await lost_runs(runtime, agents)
    with ledger_connection(postgres_url) as other:
        assert other.execute(ROWS[held].encode()).fetchone(), "nothing is held"
        async with slots.scheduler:
            # A run beside the one whose row is held, whose events are flushed together.
            chatter = Talking()
            beside = await runtime.runs.create("beside", agent=chatter)
            for number in (5, 10, 15):
                await seen(lambda number=number: has_events(runtime, beside, number))
            chatter.go.set()
            assert (await run_ended(runtime, beside)).status is RunStatus.SUCCESS
            # A run that lost its worker, a cron, what is past its retention.
            done = await run_ended(runtime, lost["also lost"])
            assert (done.status, done.rescues) == (RunStatus.SUCCESS, 1)
            await soon(slots.fired["free"].wait())
            await soon(store.runs.purge(older_than_s=60))
            assert old[1] not in {run.run_id for run in await store.runs.list("old", owner=ANY_OWNER)}
            # The lease of all that executes here.
            [me] = [one for one in await store.workers.list() if one.worker_id == runtime.worker.worker_id]
            await seen(lambda: beaten(runtime, me.beats + 4))
            assert not talking.stopped
            other.rollback()
            # And all goes on once the row is free.
            talking.go.set()
            assert (await run_ended(runtime, on_held)).status is RunStatus.SUCCESS
            assert (await run_ended(runtime, lost["lost"])).rescues == 1
            await soon(slots.fired["held"].wait())


async def test_what_a_process_wrote_that_stands_still_before_its_commit_never_lands(
    runtime: Runtime, postgres_url: str
) -> None:
    """P3: it has the lock of its run until its session is ended for it, and the run goes on elsewhere then."""
    agent = Scripted()
    agent.go.set()
    run = (await lost_runs(runtime, {"t": agent}))["t"]
    lease = Lease(run_id=run.run_id, thread_id="t", seq=run.seq, worker_id=DEAD.worker_id, attempt=1)
    stale = append(lease, [StreamEvent(seq=1, name="stale", data=b"{}")], CheckpointRows(checkpoints=[CHECKPOINT]))
    frozen = Link(postgres_url, schema=DEFAULT_SCHEMA, times=Times())
    written: list[str] = []

    def write(query: Query) -> Rows:
        written.append(query.statement.name)
        cursor = frozen.send(query, after=[] if written[1:] else [plain("BEGIN")])
        return cursor.fetchall() if cursor.description else ()

    drive(stale, write)
    assert {"insert_segment", "checkpoints.put"} <= set(written)
    done = await run_ended(runtime, run)
    assert (done.status, done.attempt, done.rescues) == (RunStatus.SUCCESS, 2, 1)
    with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
        frozen.send(plain("COMMIT"))
    frozen.discard()
    assert "stale" not in [one.name for one in await runtime.store.events.read(run.seq, after=0)]
    with ledger_connection(postgres_url) as other:
        assert other.execute("SELECT COUNT(*) FROM checkpoints").fetchone() == (0,)
