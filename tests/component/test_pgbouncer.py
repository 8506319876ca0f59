"""The ledger behind a PgBouncer, whose sessions last for one transaction of anybody's."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from ledger_kit import a_run, admit, finish, ledger_connection, running
from pgbouncer import pgbouncer
from runlane.errors import ConfigurationError, RowsLocked
from runlane.journal.remainder import append
from runlane.lifecycle import RunStatus
from runlane.records import ANY_OWNER, StreamEvent
from runlane.store.backends import migrate_postgres
from runlane.store.drivers.postgres import open_postgres
from runlane.store.drivers.postgres_link import Times
from runlane.store.ledger import RunStore
from runlane.store.retry import PersistenceRetryPolicy
from runlane.store.statements import Transaction, statement

ONCE = PersistenceRetryPolicy(max_attempts=1)
SETTINGS = statement(
    "settings",
    "SELECT current_setting('lock_timeout') AS lock, current_setting('search_path') AS path,"
    " current_setting('idle_in_transaction_session_timeout') AS idle",
)


@pytest.fixture
def url(postgres_url: str) -> str:
    migrate_postgres(postgres_url)
    return postgres_url


def read_settings() -> Transaction[tuple[str, ...]]:
    rows = yield SETTINGS()
    return tuple(rows[0].values())


async def test_two_processes_share_fewer_connections_to_the_server_than_they_have(url: str) -> None:
    with pgbouncer(url, mode="transaction", servers=3) as pooled:
        one, other = await open_postgres(pooled), await open_postgres(pooled)
        stores = RunStore(one, retry=ONCE), RunStore(other, retry=ONCE)
        admitted = await asyncio.gather(*(stores[n % 2].runs.admit(a_run(f"t{n % 40}")) for n in range(200)))
        assert len({done.run.run_id for done in admitted}) == 200
        lease = await running(stores[0], "t")
        event = StreamEvent(seq=1, name="values", data=b"{}")
        told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        one.submit(partial(append, lease, [event]), told.get_loop(), lambda result, error: told.set_result(error))
        assert await told is None
        assert (await finish(stores[1], lease)).run.status is RunStatus.SUCCESS
        assert await stores[1].events.read(lease.seq, after=0) == (event,)
        with ledger_connection(url) as direct:
            prepared = "SELECT COUNT(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            count = direct.execute(
                f"{prepared} AND datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone()
            assert count == (3,)
        await one.aclose()
        await other.aclose()


async def test_each_transaction_makes_its_settings_and_leaves_none_behind(url: str) -> None:
    with pgbouncer(url, mode="transaction", servers=1) as pooled:
        quick = await open_postgres(pooled, max_connections=3, times=Times(lock_s=0.05))
        slow = await open_postgres(pooled, max_connections=3)
        for _ in range(3):
            assert await quick.read(read_settings()) == ("50ms", '"runlane"', "800ms")
            assert await slow.write(read_settings()) == ("3s", '"runlane"', "800ms")
        await quick.aclose()
        await slow.aclose()


async def test_waiting_for_a_lock_is_limited_there_too(url: str) -> None:
    with pgbouncer(url, mode="transaction") as pooled:
        driver = await open_postgres(pooled, max_connections=3, times=Times(lock_s=0.05))
        store = RunStore(driver, retry=ONCE)
        run_id = await admit(store, "t")
        with ledger_connection(url) as other:
            other.execute("SELECT 1 FROM threads WHERE thread_id = 't' FOR UPDATE")
            with pytest.raises(RowsLocked):
                await admit(store, "t")
        assert (await store.runs.get(run_id, owner=ANY_OWNER)).thread_id == "t"
        await driver.aclose()


async def test_a_pooler_of_statements_is_refused_at_the_start_with_what_it_says(url: str) -> None:
    refused = pytest.raises(ConfigurationError, match="Let it pool transactions")
    with pgbouncer(url, mode="statement") as pooled, refused:
        await open_postgres(pooled)


async def test_a_pooler_of_sessions_works(url: str) -> None:
    with pgbouncer(url, mode="session", servers=10) as pooled:
        driver = await open_postgres(pooled, max_connections=3)
        lease = await running(RunStore(driver), "t")
        assert (await finish(RunStore(driver), lease)).run.status is RunStatus.SUCCESS
        await driver.aclose()
