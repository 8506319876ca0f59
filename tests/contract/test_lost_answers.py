"""A write whose commit was made and whose answer was lost is done once, and returns what it returns otherwise.

Every method of the store that writes has a case here. Each runs twice on PostgreSQL: undisturbed, and with the answer
to its commit lost. The proxy that loses it has the event loop of the test, which therefore never blocks. SQLite has no
connection to lose: a commit that fails there has written nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ledger_kit import (
    A_WORKER,
    LONG_AGO,
    NOON,
    WORKER,
    a_plan,
    a_run,
    a_target,
    admit,
    cancel,
    claim,
    ended,
    held,
    ledger_connection,
    outcome,
    running,
    turn,
    writing_methods,
)
from postgres_cluster import PostgresCluster
from postgres_proxy import Proxy
from run_kit import until
from runlane.agents.documents import JsonDocuments
from runlane.documents.document import Encoded
from runlane.errors import StoreUnavailable
from runlane.journal.remainder import append
from runlane.journal.rows import CheckpointRows
from runlane.leases import SeenWorker
from runlane.lifecycle import CancelAction, EndReason, RunEvent
from runlane.outcomes import Snapshot
from runlane.records import ANY_OWNER, NO_OWNER, Claimant, Lease, RunError, StreamEvent, ThreadTtl
from runlane.store.backends import migrate_postgres
from runlane.store.drivers.postgres import PostgresDriver, open_postgres
from runlane.store.drivers.postgres_link import Times
from runlane.store.drivers.postgres_session import PostgresSession
from runlane.store.ledger import RunStore
from runlane.store.retry import PersistenceRetryPolicy
from runlane.store.statements import Statement, Transaction, statement
from runlane.store.transactions.assistants import NewAssistant
from runlane.store.transactions.audit import Act
from runlane.store.transactions.crons import Firing
from runlane.store.transactions.heads import HeadsWanted
from runlane.store.transactions.saved_views import ViewOwner
from runlane.store.transactions.webhooks import Attempted, DeliveryStatus
from runlane.telemetry.run_log import LogSegment, RunLogRecord
from simulation.seams import applied, method

Operation = Callable[[], Awaitable[Any]]
Case = Callable[[RunStore], Awaitable[Operation]]

ONCE = PersistenceRetryPolicy(max_attempts=1)
#: On a busy machine this process stands still for longer than the server allows it otherwise.
PATIENT = Times(idle_s=3.0, lock_s=20.0)
HOOK = "https://hooks.example.com/run"
#: The same day for all runs, and no run time; and before the minutes that are kept.
AT_ONCE = statement(
    "at_once",
    "UPDATE runs SET not_before = 1760000000000000, started_at = 1760000000000000, ended_at = 1760000000000000",
)
LONG_COUNTED = statement("long_counted", "UPDATE run_totals SET day = 0")
CASES: dict[str, Case] = {}


def case(made: Case) -> Case:
    """Register *made*, named ``<part>_<method>``, possibly with more behind two underscores."""
    CASES[made.__name__] = made
    return made


# Cases: each arranges something, and returns the call whose answer is lost.


@case
async def runs_admit(store: RunStore) -> Operation:
    return lambda: store.runs.admit(a_run(run_id="r"))


@case
async def runs_admit__of_an_answer(store: RunStore) -> Operation:
    """An answer to an interrupt is refused if another run has answered it."""
    question = {"node": [{"value": "?", "id": "i"}]}
    state = Snapshot(values=b"{}", interrupts=question)
    await store.attempts.finish(await running(store, run_id="q"), outcome(RunEvent.PAUSE, state=state))
    return lambda: store.runs.admit(a_run(run_id="r", kwargs={"command": {"resume": {"i": "yes"}}}))


@case
async def runs_admit_all(store: RunStore) -> Operation:
    news = [a_run("t", run_id="r1"), a_run("u", run_id="r2")]
    return lambda: store.runs.admit_all(news)


@case
async def runs_request_cancel(store: RunStore) -> Operation:
    lease = await running(store, run_id="r")
    return lambda: store.runs.request_cancel(
        lease.run_id, owner=ANY_OWNER, action=CancelAction.INTERRUPT, reason=EndReason.USER_CANCEL
    )


@case
async def runs_request_cancel__of_a_pending_run(store: RunStore) -> Operation:
    await admit(store, run_id="r")
    return lambda: cancel(store, "r", CancelAction.ROLLBACK)


@case
async def runs_set_model(store: RunStore) -> Operation:
    await admit(store, run_id="r")
    return lambda: store.runs.set_model("r", "model")


@case
async def runs_set_progress(store: RunStore) -> Operation:
    lease = await running(store, run_id="r")
    return lambda: store.runs.set_progress(lease.run_id, {"llm_calls": 1}, attempt=lease.attempt)


@case
async def runs_complete_usage(store: RunStore) -> Operation:
    await ended(store, run_id="r")
    return lambda: store.runs.complete_usage("r", {"llm_calls": 1})


@case
async def runs_delete(store: RunStore) -> Operation:
    await ended(store, run_id="r")
    return lambda: store.runs.delete("r", owner=ANY_OWNER)


@case
async def runs_purge(store: RunStore) -> Operation:
    await ended(store, run_id="r")
    await turn(store, LONG_AGO, "r")
    return lambda: store.runs.purge(older_than_s=1)


@case
async def queue_give_up(store: RunStore) -> Operation:
    await admit(store, run_id="r")
    return lambda: store.queue.give_up("r", EndReason.NEVER_STARTED, RunError(error="NeverStarted", message="nobody"))


@case
async def queue_free(store: RunStore) -> Operation:
    await admit(store, run_id="r", home="gone")
    return lambda: store.queue.free("r", home="gone")


@case
async def attempts_claim_by(store: RunStore) -> Operation:
    await admit(store, run_id="r")
    return lambda: claim(store, "r")


@case
async def attempts_claim_heads(store: RunStore) -> Operation:
    await admit(store, run_id="r")
    return lambda: store.attempts.claim_heads(
        HeadsWanted(slots=2), Claimant(worker_id=WORKER, lease_s=60, has_code=False)
    )


@case
async def attempts_renew(store: RunStore) -> Operation:
    lease = await running(store, run_id="r")
    await cancel(store, "r")
    return lambda: store.attempts.renew([lease], worker=A_WORKER)


@case
async def attempts_observe_cancel(store: RunStore) -> Operation:
    lease = await running(store, run_id="r")
    await cancel(store, "r")
    return lambda: store.attempts.observe_cancel(lease, 1)


@case
async def attempts_finish(store: RunStore) -> Operation:
    lease = await running(store, run_id="r", webhook=HOOK)
    await admit(store, run_id="next")
    return lambda: store.attempts.finish(lease, outcome(RunEvent.SUCCEED))


@case
async def attempts_rescue(store: RunStore) -> Operation:
    await running(store, run_id="r")
    seen = await held(store, "r")
    return lambda: store.attempts.rescue(seen, max_rescues=1)


@case
async def threads_create(store: RunStore) -> Operation:
    return lambda: store.threads.create("t", owner=NO_OWNER, metadata={"a": 1})


@case
async def threads_get_idle(store: RunStore) -> Operation:
    await store.threads.create("t", owner=NO_OWNER, metadata={})
    return lambda: store.threads.get_idle("t", owner=NO_OWNER)


@case
async def threads_patch(store: RunStore) -> Operation:
    await store.threads.create("t", owner=NO_OWNER, metadata={})
    return lambda: store.threads.patch("t", owner=NO_OWNER, metadata={"a": 1})


@case
async def threads_show_first_values(store: RunStore) -> Operation:
    lease = await running(store, run_id="r")
    return lambda: store.threads.show_first_values(lease, b'{"a":1}')


@case
async def threads_set_state(store: RunStore) -> Operation:
    """A second try finds a thread that has changed since it was *seen*."""
    thread = await store.threads.create("t", owner=NO_OWNER, metadata={})
    return lambda: store.threads.set_state(
        "t", owner=NO_OWNER, state=Snapshot(values=b"{}"), metadata={}, seen=thread.updated_at, extra_writes=note
    )


@case
async def threads_change_idle(store: RunStore) -> Operation:
    await store.threads.create("t", owner=NO_OWNER, metadata={})
    return lambda: store.threads.change_idle("t", owner=NO_OWNER, extra_writes=note)


@case
async def threads_copy(store: RunStore) -> Operation:
    await store.threads.create("t", owner=NO_OWNER, metadata={})
    return lambda: store.threads.copy("t", "u", reads=NO_OWNER, owner=NO_OWNER, metadata={})


@case
async def threads_delete(store: RunStore) -> Operation:
    await store.threads.create("t", owner=NO_OWNER, metadata={})
    return lambda: store.threads.delete("t", owner=NO_OWNER)


@case
async def threads_expire(store: RunStore) -> Operation:
    await store.threads.create("t", owner=NO_OWNER, metadata={}, ttl=ThreadTtl(ttl_s=0, strategy="delete"))
    return lambda: store.threads.expire("t", "delete")


@case
async def assistants_create(store: RunStore) -> Operation:
    return lambda: store.assistants.create(an_assistant())


@case
async def assistants_update(store: RunStore) -> Operation:
    await store.assistants.create(an_assistant())
    return lambda: store.assistants.update("a", owner=NO_OWNER, changes={"name": "another"})


@case
async def assistants_set_latest(store: RunStore) -> Operation:
    await store.assistants.create(an_assistant())
    await store.assistants.update("a", owner=NO_OWNER, changes={"name": "another"})
    return lambda: store.assistants.set_latest("a", owner=NO_OWNER, version=1)


@case
async def assistants_delete(store: RunStore) -> Operation:
    await store.assistants.create(an_assistant())
    return lambda: store.assistants.delete("a", owner=NO_OWNER)


@case
async def crons_create(store: RunStore) -> Operation:
    return lambda: store.crons.create("c", a_target(), a_plan())


@case
async def crons_change(store: RunStore) -> Operation:
    cron = await store.crons.create("c", a_target(), a_plan())
    return lambda: store.crons.change(cron, a_plan(schedule="1 * * * *"))


@case
async def crons_fire(store: RunStore) -> Operation:
    cron = await store.crons.create("c", a_target(), a_plan())
    firing = Firing(slot=NOON, next_run_at=NOON + timedelta(minutes=1), new=a_run("t", run_id="r"))
    return lambda: store.crons.fire(cron, firing)


@case
async def crons_start(store: RunStore) -> Operation:
    cron = await store.crons.create("c", a_target(), a_plan(overlap="skip"))
    return lambda: store.crons.start(cron, a_run("t", run_id="r"))


@case
async def crons_delete(store: RunStore) -> Operation:
    await store.crons.create("c", a_target(), a_plan())
    return lambda: store.crons.delete("c", owner=NO_OWNER)


@case
async def webhooks_claim(store: RunStore) -> Operation:
    await ended(store, run_id="r", webhook=HOOK)
    return lambda: store.webhooks.claim(capacity=1, per_host=1, busy={}, lease_s=60)


@case
async def webhooks_settle(store: RunStore) -> Operation:
    await ended(store, run_id="r", webhook=HOOK)
    await store.webhooks.claim(capacity=1, per_host=1, busy={}, lease_s=60)
    attempted = Attempted(number=1, sent_at=NOON, duration_s=0.25, status_code=500, error=None)
    return lambda: store.webhooks.settle("r", attempted, status=DeliveryStatus.PENDING)


@case
async def webhooks_send_again(store: RunStore) -> Operation:
    await ended(store, run_id="r", webhook=HOOK)
    return lambda: store.webhooks.send_again("r")


@case
async def webhooks_purge(store: RunStore) -> Operation:
    await webhooks_settle(store)
    attempted = Attempted(number=1, sent_at=NOON, duration_s=0.25, status_code=200, error=None)
    await store.webhooks.settle("r", attempted, status=DeliveryStatus.DELIVERED)
    await turn(store, LONG_AGO, "r")
    return lambda: store.webhooks.purge(older_than_s=-1)


@case
async def totals_count(store: RunStore) -> Operation:
    await ended(store, run_id="r")
    await store.driver.write(_once(AT_ONCE))
    return store.totals.count


@case
async def totals_purge(store: RunStore) -> Operation:
    await ended(store, run_id="r")
    await store.driver.write(_once(AT_ONCE))
    await store.totals.count()
    await store.driver.write(_once(LONG_COUNTED))
    return store.totals.purge


def _once(change: Statement) -> Transaction[None]:
    yield change()


@case
async def events_purge(store: RunStore) -> Operation:
    lease = await running(store, run_id="r")
    await submitted(store, lease)
    await store.attempts.finish(lease, outcome(RunEvent.SUCCEED, events_end=1))
    await turn(store, LONG_AGO, "r")
    return lambda: store.events.purge(older_than_s=1)


@case
async def parts_sweep(store: RunStore) -> Operation:
    await store.threads.create("t", owner=NO_OWNER, metadata={}, state=Snapshot(values=values("x")))
    await store.threads.set_state("t", owner=NO_OWNER, state=Snapshot(values=values("y")), metadata={})
    return lambda: store.parts.sweep("t")


@case
async def workers_beat(store: RunStore) -> Operation:
    return lambda: store.workers.beat(A_WORKER)


@case
async def workers_forget(store: RunStore) -> Operation:
    await store.workers.beat(A_WORKER)
    return lambda: store.workers.forget(SeenWorker(worker_id=WORKER, beats=1, lease_s=60))


@case
async def workers_ask_to_drain(store: RunStore) -> Operation:
    await store.workers.beat(A_WORKER)
    return lambda: store.workers.ask_to_drain(WORKER, drain=True)


@case
async def workers_leave(store: RunStore) -> Operation:
    await store.workers.beat(A_WORKER)
    return lambda: store.workers.leave(WORKER)


@case
async def workers_forget_others(store: RunStore) -> Operation:
    await store.workers.beat(A_WORKER)
    return lambda: store.workers.forget_others("w")


@case
async def driver_submit(store: RunStore) -> Operation:
    """What attempts write, in groups."""
    lease = await running(store, run_id="r")
    return lambda: submitted(store, lease)


def values(letter: str) -> Encoded:
    """Return values that are stored as parts."""
    return JsonDocuments().of({"messages": [letter * 10_000]})


def an_assistant() -> NewAssistant:
    return NewAssistant(assistant_id="a", owner=NO_OWNER, graph_id="g", config={}, context={}, metadata={})


def note() -> Transaction[None]:
    """Write something once more each time it is called."""
    yield statement("note", "INSERT INTO events (run_seq, last_seq, first_seq, frames) VALUES (0, 1, 1, '')")()


async def submitted(store: RunStore, lease: Lease) -> Any:
    loop = asyncio.get_running_loop()
    told: asyncio.Future[Any] = loop.create_future()
    event = StreamEvent(seq=1, name="values", data=b"{}")

    def heard(result: Any, error: BaseException | None) -> None:
        told.set_result(error or result)

    for make in (partial(append, lease, [event]), partial(append, lease, (), CheckpointRows())):
        store.driver.submit(make, loop, lambda result, error: None if told.done() else heard(result, error))
    return await told


AN_ACT = Act(
    actor="operator",
    key_id="k",
    action="cancel",
    route="POST /runs/{run_id}/cancel",
    subject={"run_id": "r"},
    request_id=None,
    address=None,
)


@case
async def audit_record(store: RunStore) -> Operation:
    return lambda: store.audit.record(AN_ACT)


@case
async def audit_complete(store: RunStore) -> Operation:
    audit_id = await store.audit.record(AN_ACT)
    return lambda: store.audit.complete(audit_id, 202)


@case
async def audit_key_used(store: RunStore) -> Operation:
    return lambda: store.audit.key_used("k")


@case
async def audit_purge(store: RunStore) -> Operation:
    await store.audit.record(AN_ACT)
    return lambda: store.audit.purge(older_than_s=-1)


@case
async def run_logs_append(store: RunStore) -> Operation:
    lease = await running(store, run_id="r")
    record = RunLogRecord(1, 1, 0, "info", "graph", "said")
    return lambda: store.run_logs.append(lease, LogSegment(records=(record,), oldest=1))


A_VIEW = {"page": "runs", "name": "night"}
VIEWER = ViewOwner(name="ann", operates=True)


@case
async def saved_views_put(store: RunStore) -> Operation:
    return lambda: store.saved_views.put(VIEWER, **A_VIEW, query="status=error", shared=True, revision=0)


@case
async def saved_views_put__changed(store: RunStore) -> Operation:
    await store.saved_views.put(VIEWER, **A_VIEW, query="", shared=True, revision=0)
    return lambda: store.saved_views.put(VIEWER, **A_VIEW, query="status=error", shared=True, revision=1)


@case
async def saved_views_delete(store: RunStore) -> Operation:
    await store.saved_views.put(VIEWER, **A_VIEW, query="", shared=True, revision=0)
    return lambda: store.saved_views.delete(VIEWER, **A_VIEW)


# The proof.


def test_every_method_that_writes_has_a_case() -> None:
    assert {name.partition("__")[0] for name in CASES} == {*writing_methods(), "driver_submit"}


MASKED = (
    (re.compile(r"datetime\.datetime\(.*?tzinfo=datetime\.timezone\.utc\)"), "INSTANT"),
    (re.compile(r"\b\d{13,}\b|\d{4}-\d\d-\d\dT[\d:.+Z]+"), "INSTANT"),
    (re.compile(r" at 0x[0-9a-f]+"), ""),
    (re.compile(r"\b[0-9a-f]{22}\b"), "ACT"),  # its time, and what tells it from others of that time
)


def masked(value: Any) -> str:
    text = repr(value)
    for pattern, instead in MASKED:
        text = pattern.sub(instead, text)
    return text


def contents(url: str) -> dict[str, list[str]]:
    """Return every row of the ledger, without instants."""
    with ledger_connection(url) as connection:
        named = "SELECT tablename FROM pg_tables WHERE schemaname = 'runlane' AND tablename NOT IN ('commits')"
        tables = [name for (name,) in connection.execute(named).fetchall()]
        return {name: sorted(map(masked, connection.execute(f"TABLE {name}".encode()).fetchall())) for name in tables}


@pytest.fixture
async def lossy(postgres_ledger: str, tmp_path: Path) -> AsyncIterator[tuple[RunStore, Proxy]]:
    proxy = Proxy(postgres_ledger, tmp_path)
    async with proxy.running():
        driver = await open_postgres(proxy.url, max_connections=3, times=PATIENT)
        yield RunStore(driver, retry=ONCE), proxy
        await driver.aclose()


@pytest.mark.parametrize("name", CASES)
async def test_a_lost_answer_changes_nothing(
    name: str, lossy: tuple[RunStore, Proxy], postgres_ledger: str, emptied: Callable[[], None]
) -> None:
    store, proxy = lossy
    found = []
    for losses in (0, 1):
        await asyncio.to_thread(emptied)
        operation = await CASES[name](store)
        proxy.losses = losses
        found.append((masked(await operation()), await asyncio.to_thread(contents, postgres_ledger)))
    assert proxy.lost == 1
    assert found[0] == found[1]


async def test_a_planted_retry_that_does_not_ask_for_the_number_of_the_lost_commit_is_found(
    lossy: tuple[RunStore, Proxy], postgres_ledger: str, emptied: Callable[[], None]
) -> None:
    store, proxy = RunStore(lossy[0].driver), lossy[1]
    forgetful = method(PostgresSession, "_was_committed", lambda original: lambda self, last, lost: False)
    with applied([forgetful]), pytest.raises(AssertionError):
        await test_a_lost_answer_changes_nothing("assistants_update", (store, proxy), postgres_ledger, emptied)


async def test_a_commit_that_comes_after_its_connection_was_lost_is_waited_for(
    lossy: tuple[RunStore, Proxy], emptied: Callable[[], None]
) -> None:
    """The server still has the transaction open when it is asked whether it was committed."""
    store, proxy = lossy
    await asyncio.to_thread(emptied)
    await admit(store, run_id="before")
    proxy.losses, proxy.late_s = 1, 0.3
    assert (await store.runs.admit(a_run("u", run_id="r"))).run.run_id == "r"
    assert (await store.runs.get("r", owner=ANY_OWNER)).thread_id == "u"


async def test_a_commit_that_never_comes_is_an_outage(
    lossy: tuple[RunStore, Proxy], emptied: Callable[[], None]
) -> None:
    """The server ends the transaction of a client that is silent, and what it wrote is gone."""
    store, proxy = lossy
    await asyncio.to_thread(emptied)
    await admit(store, run_id="before")
    proxy.losses, proxy.late_s = 1, 1.2 * PATIENT.idle_s
    with pytest.raises(StoreUnavailable):
        await store.runs.admit(a_run("u", run_id="r"))
    assert [run.run_id for run in await store.runs.list(None, owner=ANY_OWNER)] == ["before"]


@pytest.mark.parametrize("name", ["runs_admit", "attempts_finish", "assistants_update", "driver_submit"])
async def test_a_crash_of_the_server_between_commit_and_answer_changes_nothing(
    name: str, durable_cluster: PostgresCluster, tmp_path: Path
) -> None:
    """Nor do transactions of others, which get the numbers again that the crash has taken back."""
    database = f"crash_{name}"
    with psycopg.connect(durable_cluster.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {database}".encode())
        admin.execute(f"ALTER DATABASE {database} SET synchronous_commit = on".encode())
    url = durable_cluster.url(database)
    migrate_postgres(url)
    proxy = Proxy(url, tmp_path)
    async with proxy.running():
        driver = await open_postgres(proxy.url, max_connections=3, times=PATIENT)
        store = RunStore(driver, retry=ONCE)
        operation = await CASES[name](store)
        before = await asyncio.to_thread(contents, url)
        proxy.losses, proxy.committed = 1, lambda: asyncio.to_thread(durable_cluster.restart)
        assert "Error" not in masked(await operation())
        assert proxy.lost == 1
        assert await asyncio.to_thread(contents, url) != before
        await driver.aclose()


async def test_closing_does_not_wait_for_an_outage_to_end(durable_cluster: PostgresCluster, tmp_path: Path) -> None:
    """Only then is it left open whether a write was committed, and its caller is told so."""
    url = durable_cluster.url("ledger")
    migrate_postgres(url)
    proxy = Proxy(url, tmp_path)
    async with proxy.running():
        driver = await open_postgres(proxy.url, max_connections=3)
        proxy.losses, proxy.committed = 1, lambda: asyncio.to_thread(durable_cluster.stop)
        writing = asyncio.create_task(RunStore(driver, retry=ONCE).runs.admit(a_run(run_id="r")))
        await until(lambda: proxy.lost)
        await driver.aclose()
        with pytest.raises(StoreUnavailable, match="could not be asked"):
            await writing
    await asyncio.to_thread(durable_cluster.start)


async def rows_of_commits(driver: PostgresDriver) -> int:
    def count() -> Transaction[int]:
        rows = yield statement("count", "SELECT COUNT(*) AS n FROM commits")()
        return int(rows[0]["n"])

    return await driver.read(count())


async def test_a_connection_has_one_row_for_its_commits_and_takes_it_along(
    postgres_ledger: str, emptied: Callable[[], None]
) -> None:
    emptied()
    one, other = [await open_postgres(postgres_ledger, max_connections=3) for _ in range(2)]  # one connection for this
    for _ in range(20):
        await RunStore(one).probe()
        await RunStore(other).probe()
    assert await rows_of_commits(one) == 2
    await other.aclose()
    assert await rows_of_commits(one) == 1
    with ledger_connection(postgres_ledger, autocommit=True) as connection:
        connection.execute("INSERT INTO commits (connection, last, written_at) VALUES (1, 1, 0)")
    assert await rows_of_commits(one) == 2
    await one.aclose()
    with ledger_connection(postgres_ledger) as connection:
        assert connection.execute("SELECT COUNT(*) FROM commits").fetchone() == (0,)
