"""P1, P7 and P12 on PostgreSQL: a session that holds one row for long delays its thread, and nothing of any other.

Transactions wait for locks far longer than these tests for anything: what waits fails its test. With
``RUNLANE_HELD_S=30`` the rows are held for so long, and everything is done again and again meanwhile.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import run_kit
from ledger_kit import LONG_AGO, a_plan, a_run, a_target, admit, claim, ended, ledger_connection, outcome, running
from run_kit import PATIENCE_S, at_once, opened, soon, turn
from run_kit import ended as run_ended
from runlane.agents.coroutine import CoroutineAgent, RunContext
from runlane.agents.documents import JsonDocuments
from runlane.journal.remainder import append
from runlane.journal.rows import CheckpointRows
from runlane.leases import WorkerState
from runlane.lifecycle import RunEvent, RunStatus
from runlane.maintenance.crons import CronScheduler
from runlane.outcomes import Snapshot
from runlane.records import ANY_OWNER, NO_OWNER, Admission, Lease, NewRun, RunRecord, StreamEvent
from runlane.runtime import Runtime
from runlane.store.backends import migrate_postgres
from runlane.store.drivers.postgres import open_postgres
from runlane.store.drivers.postgres_link import Link, Times, plain
from runlane.store.ledger import RunStore
from runlane.store.migrations import DEFAULT_SCHEMA
from runlane.store.statements import Query, Rows, statement
from runlane.store.statements import run as drive
from runlane.store.transactions.assistants import NewAssistant
from runlane.store.transactions.crons import Cron
from runlane.store.transactions.runs import LOCK_FREE_THREAD
from runlane.store.transactions.webhooks import Attempted, DeliveryStatus
from simulation.seams import Fragment, applied

#: Of the process that goes on: longer than it stands still on a busy machine.
LEASE_S = 4.0
DEAD = WorkerState(worker_id="dead", lease_s=1.0)
#: Which rows are held: of the thread on which a run executes, of the one whose run lost its worker, and of what is old.
ROWS = {
    "thread": "SELECT 1 FROM threads WHERE thread_id IN ('held', 'lost') FOR UPDATE",
    "run": "SELECT 1 FROM runs WHERE thread_id IN ('held', 'lost') FOR UPDATE",
    "run in key share": "SELECT 1 FROM runs WHERE thread_id IN ('held', 'lost') FOR KEY SHARE",
    "events": "SELECT 1 FROM events FOR UPDATE",
    "cron": "SELECT 1 FROM crons WHERE cron_id = 'held' FOR UPDATE",
    "worker": "SELECT 1 FROM workers WHERE worker_id = 'dead' FOR UPDATE",
}
#: What else has rows in a busy system; those of one thread are held of the thread ``held``.
OTHERS = {
    *("assistants", "assistant_versions", "checkpoints", "job_migrations", "part_sweeps", "parts", "runlane_version"),
    *("store_items", "thread_terms", "webhook_attempts", "webhook_deliveries"),
}
#: Rows of which each connection, or process, has its own; and totals, which only the process that counts locks.
NOT_HELD = {
    *("commits", "probes", "procrastinate_workers"),
    *("deleted_runs", "run_totals", "token_totals", "minute_totals", "failure_groups", "failure_totals"),
}
#: How often a takeover is timed at most.
TAKEOVERS = 20
HELD_S = float(os.environ.get("RUNLANE_HELD_S", "0"))
ATTEMPTED = Attempted(number=1, sent_at=datetime.now(UTC), duration_s=0.25, status_code=500, error=None)
HOOK = "https://hooks.example.com/run"


#: How long the server lets a transaction of this session wait for its next statement.
IDLE_LIMIT = statement(
    "test.idle_limit",
    "",
    postgres="SELECT setting::int AS ms FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'",
)

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


async def lost_runs(runtime: Runtime, *thread_ids: str, worker: WorkerState = DEAD) -> dict[str, RunRecord]:
    """Return runs of a worker that died, which succeed here once they are rescued."""
    await runtime.store.workers.beat(worker)
    runs = {}
    for thread_id in thread_ids:
        run = (await runtime.store.runs.admit(a_run(thread_id))).run
        runtime.agents.attach(run.run_id, CoroutineAgent(at_once, continuable=True))
        await claim(runtime.store, run.run_id, worker.worker_id)
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


class Busy:
    """A process that does everything that there is to do, on other threads than the one whose rows are held."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._store = runtime.store
        self.slots = Slots(runtime)
        self._turns = 0
        self._workers = 1

    async def turn(self) -> None:
        """Do everything once."""
        self._turns += 1
        number, store = self._turns, self._store
        # A run beside the one whose row is held, whose events are flushed together; a cancel.
        chatter, stopped = Talking(), Talking()
        beside = await soon(self._runtime.runs.create(f"beside-{number}", agent=chatter))
        unwanted = await soon(self._runtime.runs.create(f"unwanted-{number}", agent=stopped))
        for events in (5, 10, 15):
            await seen(lambda events=events: has_events(self._runtime, beside, events))
        chatter.go.set()
        assert (await run_ended(self._runtime, beside)).status is RunStatus.SUCCESS
        await soon(self._runtime.runs.cancel(unwanted.run_id, wait=True))
        assert stopped.stopped
        await self._deliver()
        # A cron, what is past its retention, and what nobody needs any more.
        await self.slots.make(f"free-{number}", None)
        await soon(self.slots.fired[f"free-{number}"].wait())
        old = await soon(ended(store, f"old-{number}"))
        await turn(store, LONG_AGO, old)
        await soon(store.runs.purge(older_than_s=60))
        assert not await store.runs.list(f"old-{number}", owner=ANY_OWNER)
        await soon(store.threads.delete(f"old-{number}", owner=ANY_OWNER))
        # The lease of all that executes here.
        [me] = [one for one in await store.workers.list() if one.worker_id == self._runtime.worker.worker_id]
        await seen(lambda: beaten(self._runtime, me.beats + 2))

    async def rescue(self, lost: RunRecord) -> None:
        """See a run that lost its worker end, and then one of another worker, when the first one is forgotten."""
        self._workers += 1
        worker = replace(DEAD, worker_id=f"dead {self._workers}")
        [later] = (await lost_runs(self._runtime, f"lost {self._workers}", worker=worker)).values()
        for run in (lost, later):
            done = await run_ended(self._runtime, run)
            assert (done.status, done.rescues) == (RunStatus.SUCCESS, 1)

    async def leave(self, home: str) -> None:
        """Do what is left for later if the rows of the thread ``held`` are."""
        for run in await soon(self._store.runs.list("held", owner=ANY_OWNER)):
            await soon(self._store.queue.free(run.run_id, home=home))
        await soon(self._store.parts.sweep("held"))

    async def _deliver(self) -> None:
        run_id = await soon(ended(self._store, f"hooked-{self._turns}", webhook=HOOK))
        claimed = await soon(self._store.webhooks.claim(capacity=10, per_host=10, busy={}, lease_s=60))
        assert run_id in [one.run_id for one in claimed]
        await soon(self._store.webhooks.settle(run_id, ATTEMPTED, status=DeliveryStatus.DELIVERED))


async def fill(runtime: Runtime) -> None:
    """Have rows in all tables that a busy system has some in, most of them of the thread ``held``."""
    store = runtime.store
    hooked = await ended(store, "held", webhook=HOOK)
    await store.webhooks.claim(capacity=1, per_host=1, busy={}, lease_s=60)
    await store.webhooks.settle(hooked, ATTEMPTED, status=DeliveryStatus.PENDING, delay_s=0.0)
    for letter in "xy":
        values = JsonDocuments().of({"messages": [letter * 10_000]})
        await store.threads.set_state("held", owner=ANY_OWNER, state=Snapshot(values=values), metadata={"a": "b"})
    await store.assistants.create(
        NewAssistant(assistant_id="a", owner=NO_OWNER, graph_id="g", config={}, context={}, metadata={})
    )
    lease = await running(store, "held")
    await store.driver.write(append(lease, [], CheckpointRows(checkpoints=[{**CHECKPOINT, "thread_id": "held"}])))
    await store.attempts.finish(lease, outcome(RunEvent.SUCCEED))
    assert runtime.long_term_store is not None
    await runtime.long_term_store.aput(("space",), "held", {"a": 1})


def hold(connection: psycopg.Connection[Any], held: str) -> None:
    """Lock rows until the transaction is over."""
    for lock in [ROWS[held]] if held in ROWS else others(connection):
        assert connection.execute(lock.encode()).fetchone(), f"nothing is held by {lock}"


def others(connection: psycopg.Connection[Any]) -> list[str]:
    """Return what locks rows of the tables that are not in ``ROWS``, and check that no table is forgotten."""
    named = """SELECT table_name, bool_or(column_name = 'thread_id') FROM information_schema.columns
               WHERE table_schema = 'runlane' GROUP BY table_name ORDER BY table_name"""
    found = []
    for table, of_thread in connection.execute(named).fetchall():
        where = "WHERE thread_id = 'held'" if of_thread else ""
        lock = f"SELECT 1 FROM {table} {where} FOR UPDATE"
        if table in OTHERS:
            found.append(lock)
        elif connection.execute(f"SELECT 1 FROM {table} {where} LIMIT 1".encode()).fetchone():
            assert any(f" {table} " in f"{row} " for row in ROWS.values()) or table in NOT_HELD, f"nobody holds {table}"
    return found


@pytest.mark.parametrize("held", [*ROWS, "all others"])
async def test_a_row_that_is_held_delays_no_other_thread(held: str, runtime: Runtime, postgres_url: str) -> None:
    store, talking, busy = runtime.store, Talking(), Busy(runtime)
    await fill(runtime)
    on_held = await runtime.runs.create("held", agent=talking)
    await soon(talking.started.wait())
    await seen(lambda: store.events.last(on_held.seq))
    await busy.slots.make("held", "held")
    await admit(store, "held", home="gone")
    lost = await lost_runs(runtime, "lost", "also lost")
    with ledger_connection(postgres_url) as other:
        hold(other, held)
        until = time.monotonic() + HELD_S
        async with busy.slots.scheduler:
            await busy.leave("gone")
            await busy.turn()
            await busy.rescue(lost["also lost"])
            while time.monotonic() < until:
                await busy.turn()
            assert not talking.stopped
            other.rollback()
            # And all goes on once the row is free.
            talking.go.set()
            assert (await run_ended(runtime, on_held)).status is RunStatus.SUCCESS
            assert (await run_ended(runtime, lost["lost"])).rescues == 1
            await soon(busy.slots.fired["held"].wait())


async def test_a_planted_rescue_that_waits_for_locks_is_found(
    runtime: Runtime, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (run_kit, sys.modules[__name__]):
        monkeypatch.setattr(module, "PATIENCE_S", 8.0)
    waiting = Fragment(statement=LOCK_FREE_THREAD, text="SKIP LOCKED", other="")
    with applied([waiting]), pytest.raises(TimeoutError):
        await test_a_row_that_is_held_delays_no_other_thread("thread", runtime, postgres_url)


def frozen_before_its_commit(run: RunRecord, url: str) -> tuple[Link, list[str]]:
    """Write for the first attempt of a run, stand still, and return the session and the names of its statements."""
    lease = Lease(run_id=run.run_id, thread_id="t", seq=run.seq, worker_id=DEAD.worker_id, attempt=1)
    stale = append(lease, [StreamEvent(seq=1, name="stale", data=b"{}")], CheckpointRows(checkpoints=[CHECKPOINT]))
    frozen = Link(url, schema=DEFAULT_SCHEMA, times=Times())
    written: list[str] = []

    def write(query: Query) -> Rows:
        written.append(query.statement.name)
        cursor = frozen.send(query, after=[] if written[1:] else [plain("BEGIN")])
        return cursor.fetchall() if cursor.description else ()

    drive(stale, write)
    return frozen, written


async def test_what_a_process_wrote_that_stands_still_before_its_commit_never_lands(
    runtime: Runtime, postgres_url: str
) -> None:
    """P3: it has the lock of its run until its session is ended for it, and the run goes on elsewhere then."""
    run = (await lost_runs(runtime, "t"))["t"]
    frozen, written = frozen_before_its_commit(run, postgres_url)
    assert {"insert_segment", "checkpoints.put"} <= set(written)
    [limit] = frozen.send(IDLE_LIMIT()).fetchall()
    assert 0 < limit["ms"] < 1000, "nobody waits for its locks for longer"
    done = await run_ended(runtime, run)
    assert (done.status, done.attempt, done.rescues) == (RunStatus.SUCCESS, 2, 1)
    with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
        frozen.send(plain("COMMIT"))
    frozen.discard()
    assert "stale" not in [one.name for one in await runtime.store.events.read(run.seq, after=0)]
    with ledger_connection(postgres_url) as other:
        assert other.execute("SELECT COUNT(*) FROM checkpoints").fetchone() == (0,)


async def test_a_takeover_waits_for_a_process_that_stands_still_before_its_commit_for_less_than_a_second(
    postgres_url: str,
) -> None:
    """The shortest of some waits, since a busy machine makes any of them longer."""
    migrate_postgres(postgres_url)
    driver = await open_postgres(postgres_url)
    store = RunStore(driver)
    run = (await store.runs.admit(a_run("t"))).run
    await claim(store, run.run_id, DEAD.worker_id)

    def waits_s() -> float:
        frozen, _ = frozen_before_its_commit(run, postgres_url)
        began = time.monotonic()
        with ledger_connection(postgres_url) as taker:
            taker.execute("SELECT 1 FROM runs WHERE run_id = %s FOR UPDATE", (run.run_id,))
            waited_s = time.monotonic() - began
        frozen.discard()
        return waited_s

    shortest_s = math.inf
    for _ in range(TAKEOVERS):
        shortest_s = min(shortest_s, await asyncio.to_thread(waits_s))
        if shortest_s < 1.0:
            break
    await driver.aclose()
    assert shortest_s < 1.0
