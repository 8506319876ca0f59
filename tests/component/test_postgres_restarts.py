"""P1, P2, P5, P7 and P11 on PostgreSQL, which crashes and comes back while runs are admitted, executed and finished.

``RUNLANE_OUTAGE_S`` (default 2) is how long it is gone in the test of a long outage.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from ledger_kit import ledger_connection
from postgres_cluster import PostgresCluster
from run_kit import ONCE, ended, opened, until
from runlane.agents.coroutine import CoroutineAgent, RunContext
from runlane.cli.main import app
from runlane.errors import StoreUnavailable
from runlane.lifecycle import RunStatus
from runlane.records import ANY_OWNER, RunRecord, StreamEnd, StreamEvent, StreamItem
from runlane.runtime import Runtime
from runlane.store.backends import migrate_postgres
from runlane.store.drivers.postgres import open_postgres
from runlane.store.ledger import RunStore
from runlane.store.migrate import migrate_sqlite
from runlane.store.statements import Rows, Transaction, statement

CRASHES, THREADS, RUNS_EACH = 3, 8, 8
#: The number of the transaction.
XID = "SELECT CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT)"
OUTAGE_S = float(os.environ.get("RUNLANE_OUTAGE_S", "2"))
LEASE_S = 1.0


async def admitted(runtime: Runtime, thread_id: str, key: str, agent: object) -> RunRecord:
    """Admit a run as a client does that does not give up: with a key, until it is told."""
    while True:
        try:
            return await runtime.runs.create(thread_id, idempotency_key=key, agent=agent)
        except StoreUnavailable:
            await asyncio.sleep(0.05)


async def test_runs_admitted_while_the_database_crashes_again_and_again_all_end_once(
    durable_cluster: PostgresCluster,
) -> None:
    calls: Counter[str] = Counter()
    executing: Counter[str] = Counter()

    async def agent(context: RunContext) -> str:
        calls[context.run_id] += 1
        executing[context.thread_id] += 1
        assert executing[context.thread_id] == 1, "two runs of a thread at once"
        try:
            for number in range(10):
                context.emit("custom", number)
                await asyncio.sleep(0.02)
            return "done"
        finally:
            executing[context.thread_id] -= 1

    async def client(runtime: Runtime, thread_id: str) -> list[RunRecord]:
        return [await admitted(runtime, thread_id, f"{thread_id}-{n}", agent) for n in range(RUNS_EACH)]

    async def crash() -> None:
        for _ in range(CRASHES):
            await asyncio.sleep(0.2)  # into the work
            assert len(calls) < THREADS * RUNS_EACH, "all is done already"
            await asyncio.to_thread(durable_cluster.restart)

    async with opened(database=durable_cluster.url("ledger"), poll_s=0.2) as runtime:
        async with asyncio.timeout(90), asyncio.TaskGroup() as group:
            crashing = group.create_task(crash())
            clients = [group.create_task(client(runtime, f"t{n}")) for n in range(THREADS)]
        assert crashing.done()
        runs = [run for one in clients for run in one.result()]
        for run in runs:
            done = await ended(runtime, run)
            assert done.status is RunStatus.SUCCESS, done
            assert 1 <= calls[run.run_id] <= done.attempt
        for number in range(THREADS):
            found = await runtime.store.runs.list(f"t{number}", owner=ANY_OWNER, limit=100)
            assert len(found) == RUNS_EACH
            assert (await runtime.store.threads.get(f"t{number}", owner=ANY_OWNER)).status == "idle"


async def test_a_write_that_a_crash_undid_is_never_reported_as_done(durable_cluster: PostgresCluster) -> None:
    url = durable_cluster.url("ledger")
    with ledger_connection(url, autocommit=True) as other:  # what is not committed is lost, and with it its number
        other.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        other.execute("SELECT pg_reload_conf()")
        other.execute("CREATE TABLE notes (text TEXT)")

    def undone() -> Transaction[None]:
        number = yield statement("number", f"{XID} AS xid")()
        yield statement("note", "INSERT INTO notes VALUES ('kept')")()
        durable_cluster.restart()
        with ledger_connection(url, autocommit=True) as other:  # others go on, and get the number again
            while (given := other.execute(XID).fetchone()) and given[0] < number[0]["xid"]:
                pass

    driver = await open_postgres(url)
    with pytest.raises(StoreUnavailable):
        await driver.write(undone())
    assert await driver.read(notes()) == ()
    await driver.aclose()


async def probed_for_ever(store: RunStore) -> None:
    while True:
        await store.probe()


async def test_a_server_that_takes_no_writes_any_more_is_an_outage_that_ends(durable_cluster: PostgresCluster) -> None:
    """As after a failover: connections to the old one are given up, and no new one is made to it."""
    url = durable_cluster.url("ledger")
    migrate_postgres(url)

    def read_only(value: str) -> None:
        with ledger_connection(url, autocommit=True) as other:
            other.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
            other.execute("SELECT pg_reload_conf()")

    driver = await open_postgres(url)
    store = RunStore(driver, retry=ONCE)
    await store.probe()
    read_only("on")
    async with asyncio.timeout(20):
        with pytest.raises(StoreUnavailable, match="read-only"):
            await probed_for_ever(store)  # until the server has read its configuration
        read_only("off")
        while True:
            try:
                await store.probe()
            except StoreUnavailable:
                continue
            break
    await driver.aclose()


def notes() -> Transaction[Rows]:
    found = yield statement("notes", "SELECT text FROM notes")()
    return tuple(found)


async def test_runs_go_on_after_an_outage_that_outlasts_their_leases(durable_cluster: PostgresCluster) -> None:
    """Those who watch stay, get no word of an error, and see all; who is done meanwhile is not executed again."""
    calls: Counter[str] = Counter()
    meanwhile, done = asyncio.Event(), asyncio.Event()

    async def walker(context: RunContext) -> str:
        calls[context.thread_id] += 1
        for number in range(100):
            context.emit("number", number)
            await asyncio.sleep(0.02)
        await done.wait()
        return "done"

    async def short(context: RunContext) -> str:
        calls[context.thread_id] += 1
        await meanwhile.wait()
        return "done"

    async def watch(runtime: Runtime, run: RunRecord, seen: list[StreamItem]) -> None:
        async for item in runtime.streams.subscribe(run.run_id):
            seen.append(item)  # noqa: PERF401 - the test waits for the first

    async with opened(database=durable_cluster.url("ledger"), lease_s=LEASE_S, poll_s=0.2, heartbeat_s=0.2) as runtime:
        again = CoroutineAgent(walker, continuable=True)
        walking = [await runtime.runs.create(f"w{n}", agent=again) for n in range(4)]
        ending = [await runtime.runs.create(f"s{n}", agent=short) for n in range(4)]
        found: list[list[StreamItem]] = [[] for _ in [*walking, *ending]]
        pairs = zip([*walking, *ending], found, strict=True)
        viewers = [asyncio.create_task(watch(runtime, run, seen)) for run, seen in pairs]
        await until(lambda: all(found))
        await asyncio.to_thread(durable_cluster.stop)
        meanwhile.set()
        await asyncio.sleep(OUTAGE_S)  # the fault itself
        with pytest.raises(StoreUnavailable):
            await runtime.runs.cancel(walking[0].run_id)
        assert not any(viewer.done() for viewer in viewers)
        await asyncio.to_thread(durable_cluster.start)
        done.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*viewers)
        over = [await runtime.runs.get(run.run_id) for run in [*walking, *ending]]
    assert [(run.status, run.rescues) for run in over] == [(RunStatus.SUCCESS, 0)] * len(over)
    assert {run.attempt for run in over[:4]} == {2}, "no lease was over"
    assert [calls[run.thread_id] for run in ending] == [1] * 4
    for items in found:
        events = [item for item in items if isinstance(item, StreamEvent)]
        assert [item.seq for item in events] == list(range(1, len(events) + 1))
        assert [type(item) for item in items] == [StreamEvent] * len(events) + [StreamEnd]
        numbers = [int(item.data) for item in events if item.name == "number"]
        assert numbers[-100:] == list(range(100)) if numbers else len(events) == 1


async def test_a_standby_is_named_as_such(durable_cluster: PostgresCluster, tmp_path: Path) -> None:
    migrate_postgres(durable_cluster.url("ledger"))
    migrate_sqlite(tmp_path / "other.db")
    standby = durable_cluster.data / "standby.signal"
    standby.touch()
    os.chown(standby, durable_cluster.data.stat().st_uid, -1)
    durable_cluster.restart()
    ends = (f"sqlite:///{tmp_path / 'other.db'}", durable_cluster.url("ledger"))
    for source, target in (ends, ends[::-1]):
        refused = CliRunner().invoke(app, ["migrate", "--from", source, "--to", target])
        assert "schema runlane is a standby, whose tables can neither be locked nor written. Name the" in refused.stderr
        assert refused.exit_code == 2
    with pytest.raises(StoreUnavailable, match="name the primary"):
        migrate_postgres(durable_cluster.url("postgres"))
    with pytest.raises(StoreUnavailable, match="that the server runs and takes writes"):
        await open_postgres(durable_cluster.url("ledger"))
