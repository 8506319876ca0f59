"""What is read of checkpoints and items on PostgreSQL is found by an index, however many there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from ledger_kit import ledger_connection
from postgres_cluster import PostgresCluster
from runlane.checkpoints import items, transactions
from runlane.journal import rows
from runlane.lifecycle import ThreadStatus
from runlane.records import ANY_OWNER, Owner
from runlane.store.backends import migrate_postgres
from runlane.store.filters import filter_params
from runlane.store.rows import owner_params
from runlane.store.statements import Statement
from runlane.store.transactions import claims, fence, interrupts, parts, thread_search, webhooks
from runlane.store.transactions.failure_queries import TRENDS
from runlane.store.transactions.run_search import COMPARED, NEWEST, RunFilter, last_compared, matching
from runlane.store.transactions.selections import selecting
from runlane.store.transactions.thread_search import ThreadFilter
from runlane.store.transactions.total_queries import TOKENS_OF_MODELS, TOTALS_OF_DAYS, By

#: One thread has a fifth of the checkpoints.
CHECKPOINTS, OF_THREAD, ITEMS = 100_000, 20_000, 20_000
THREAD = f"CASE WHEN n <= {OF_THREAD} THEN 't' ELSE 't' || n % 1000 END"
FILL = (
    f"""INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, run_id, type, checkpoint, metadata_type,
          metadata) SELECT {THREAD}, '', lpad(n::text, 8, '0'), 'run-' || n / 5, 'msgpack', '', 'msgpack', ''
        FROM generate_series(1, {CHECKPOINTS}) AS n""",
    f"""INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, run_id, type, value)
        SELECT {THREAD}, '', 'messages', n::text, 'run', 'msgpack', '' FROM generate_series(1, {CHECKPOINTS}) AS n""",
    f"""INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, run_id, task_id, task_path, type,
          writes) SELECT {THREAD}, '', lpad(n::text, 8, '0'), 'run', 'task', '', 'msgpack', ''
        FROM generate_series(1, {CHECKPOINTS}) AS n""",
    f"""INSERT INTO parts (thread_id, ref, data)
        SELECT {THREAD}, n::text, '' FROM generate_series(1, {CHECKPOINTS}) AS n""",
    f"""INSERT INTO store_items (owner, namespace, key, value, created_at, updated_at)
        SELECT '', 'n' || n % 100 || '.', n::text, '', 1, n % 3 FROM generate_series(1, {ITEMS}) AS n""",
)
#: An owner in 50 has runs in the same order as all others. They are as wide as real ones: it is quick to read all of a
#: table that is narrow.
RUNS = 50_000
FILL_RUNS = f"""INSERT INTO runs (run_id, thread_id, owner, status, multitask_strategy, on_disconnect, metadata, kwargs,
      not_before, created_at, updated_at)
    SELECT 'run-' || n, 't' || n % 1000, 'o' || n % 50, CASE WHEN n % 10 = 0 THEN 'error' ELSE 'success' END, 'enqueue',
      'cancel', '{{}}', repeat('x', 400), 1, n, 1 FROM generate_series(1, {RUNS}) AS n"""
#: Half of them ask something.
THREADS = 20_000
FILL_THREADS = f"""INSERT INTO threads (thread_id, owner, status, settled, metadata, config, interrupts, created_at,
      updated_at, state_updated_at)
    SELECT 'a' || n, 'o' || n % 5, CASE WHEN n % 2 = 0 THEN 'interrupted' ELSE 'idle' END, 'idle', '{{}}', '{{}}',
      CASE WHEN n % 2 = 0 THEN '{{"task": []}}' ELSE '{{}}' END, n, n, n FROM generate_series(1, {THREADS}) AS n"""
#: A quarter has failed.
DELIVERIES = 20_000
FILL_DELIVERIES = f"""INSERT INTO webhook_deliveries (run_id, thread_id, owner, metadata, url, run, omitted, status,
      next_at, created_at)
    SELECT 'd' || n, 't', 'o' || n % 5, '{{}}', '', '{{}}', '[]',
      CASE WHEN n % 20 < 5 THEN 'failed' ELSE 'delivered' END, 1, n FROM generate_series(1, {DELIVERIES}) AS n"""
FILL_RUNNING = """INSERT INTO runs (run_id, thread_id, owner, status, attempt, worker_id, multitask_strategy,
      on_disconnect, metadata, kwargs, not_before, created_at, updated_at)
    SELECT 'running-' || n, 'running-' || n, 'o' || n % 50, 'running', 1, 'w', 'enqueue', 'cancel', '{}', '{}', 1, n, 1
    FROM generate_series(1, 1000) AS n"""
FILL_BUSY = """INSERT INTO threads (thread_id, owner, status, settled, metadata, config, interrupts, created_at,
      updated_at, state_updated_at)
    SELECT 'running-' || n, 'o' || n % 50, 'busy', 'idle', '{}', '{}', '{}', n, n, n
    FROM generate_series(1, 1000) AS n"""
#: Rows of totals: of a thousand owners, or groups of failures, in 20 days, or hours.
TOTALS = 20_000
FILL_TOTALS = (
    f"""INSERT INTO run_totals SELECT 'owner', n % 20, 'o' || n / 20, '', '', 'success', '', 1, 1, 1, 1, 1, 1, 1, 1
        FROM generate_series(1, {TOTALS}) AS n""",
    f"""INSERT INTO token_totals SELECT 'owner', n % 20, 'o' || n / 20, '', '', 'large', 1, 1, 1, 1, 1
        FROM generate_series(1, {TOTALS}) AS n""",
    f"INSERT INTO failure_totals SELECT n % 20, 'o' || n / 20, '', 1 FROM generate_series(1, {TOTALS}) AS n",
)
AT = {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "00010000"}
VALUES: dict[str, Any] = {
    **AT,
    "run_id": "run-2000",
    "before_id": "00010000",
    "before_seq": 0,
    "least_id": "",
    "page": 10,
    "versions": json.dumps([["messages", str(n)] for n in range(5000, 5010)]),
    "checkpoint_ids": json.dumps([f"{n:08}" for n in range(5000, 5010)]),
    "refs": json.dumps([str(n) for n in range(5000, 5010)]),
    "owner": "",
    "namespace": "n7.",
    "key": "7",
    "expired_too": False,
    "low": "n7.",
    "high": "n7/",
    "inclusive": True,
    "embedded": False,
    "changed_at": 2,
    "limit": 10,
    "offset": 0,
    **dict.fromkeys(("type", "metadata_type", "task_id", "task_path", "channel", "version"), "x"),
    **dict.fromkeys(("checkpoint", "metadata", "writes", "value", "vectors", "text", "other"), b""),
    **dict.fromkeys(("parent_id", "ttl_us")),
}
#: Statements, and how many rows they may look at.
SMALL = [
    transactions.GET_LATEST,
    transactions._GET,
    transactions.GET_BLOBS,
    transactions.GET_WRITES,
    transactions.WRITTEN,
    transactions._LIST_NAMESPACE,
    transactions._NAMESPACES,
    transactions.DELETE_ORPHANED_WRITES,
    rows.PUT_CHECKPOINT,
    parts.GET_PARTS,
    parts.MISSING_PARTS,
    items.GET,
    items.NEWEST,
    items.SCAN,
    items.TOUCH,
    items.SWEEP,
]
ENOUGH = 50


@pytest.fixture(scope="module", params=["analysed", "not analysed"])
def ledger(request: pytest.FixtureRequest, postgres_cluster: PostgresCluster) -> Iterator[psycopg.Connection]:
    """Give a large ledger, with or without what the planner knows of its tables."""
    name = f"plans_{uuid4().hex}"
    with psycopg.connect(postgres_cluster.dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        url = postgres_cluster.url(name)
        migrate_postgres(url)
        with ledger_connection(url, autocommit=True) as made:
            for sql in (*FILL, FILL_RUNS, FILL_THREADS, FILL_DELIVERIES):
                made.execute(sql)
            if request.param == "analysed":
                made.execute("ANALYZE")
            made.execute("SET plan_cache_mode = force_generic_plan")
            yield made
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def looked_at(plan: dict[str, Any]) -> float:
    """Return how many rows of tables were read."""
    read = 0.0
    if "Relation Name" in plan:
        read += (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return read + sum(looked_at(below) for below in plan.get("Plans", ()))


def handled(plan: dict[str, Any]) -> float:
    """Return how many rows all steps handed on."""
    return plan["Actual Rows"] * plan["Actual Loops"] + sum(map(handled, plan.get("Plans", ())))


def literal(value: Any, connection: psycopg.Connection) -> str:
    return psycopg.sql.Literal(value).as_string(connection)


def name_of(one: Statement) -> str:
    return one.name


@pytest.mark.parametrize("one", SMALL, ids=name_of)
def test_a_statement_reads_little_of_a_large_ledger(one: Statement, ledger: psycopg.Connection) -> None:
    found = plan_of(one, VALUES, ledger)
    assert looked_at(found) <= ENOUGH, json.dumps(found, indent=1)


@pytest.mark.parametrize("one", [fence.HOLDS_LEASE, fence.HOLDS_FREE_LEASE, claims.CLAIM_OF_ADMISSION], ids=name_of)
def test_a_running_run_is_found_by_its_id_though_statistics_know_of_none(
    one: Statement, ledger: psycopg.Connection
) -> None:
    """They are of a time when nothing executed, as after a quiet night."""
    given: dict[str, Any] = {"run_id": "running-7", "attempt": 1, "worker_id": "w"}
    forms = [(one, given)]
    if one.together is not None:
        forms.append((one.together, {name: [value] * 5 for name, value in given.items()}))
    with ledger.transaction(force_rollback=True):
        ledger.execute(FILL_RUNNING)
        plans = [plan_of(*form, ledger) for form in forms]
    assert all(looked_at(found) <= ENOUGH for found in plans), json.dumps(plans, indent=1)


@pytest.mark.parametrize("scope", ["all", "owner", "thread", "ids", "unsuccessful", "unsuccessful_of_owner"])
def test_a_search_for_runs_reads_few_of_them(scope: str, ledger: psycopg.Connection) -> None:
    ledger.execute("ANALYZE runs")  # until that, PostgreSQL reads all runs while they are as few as here
    where = RunFilter(
        thread_id="t7" if scope == "thread" else None,
        run_ids=frozenset(f"run-{number}" for number in range(100)) if scope == "ids" else None,
    )
    given = {**where.params(), **owner_params("o7" if "owner" in scope else ANY_OWNER), "limit": 20}
    last = plan_of(last_compared(scope), {**given, "before": NEWEST, "first": 0}, ledger)
    assert looked_at(last) <= RUNS / 10, json.dumps(last, indent=1)
    first = RUNS - COMPARED if scope == "all" else 0
    for one in (matching(scope), selecting(scope)):
        compared = plan_of(one, {**given, "before": NEWEST, "first": first}, ledger)
        assert looked_at(compared) <= RUNS / 10, json.dumps(compared, indent=1)


def test_a_search_for_an_owners_newest_runs_does_not_read_the_index_to_their_first(ledger: psycopg.Connection) -> None:
    """Entries of an index that are passed over are rows of no plan, but blocks."""
    given = {**RunFilter(text="none").params(), **owner_params("large"), "limit": 20, "before": NEWEST}
    with ledger.transaction(force_rollback=True):
        ledger.execute(FILL_RUNS.replace("'run-'", "'large-'").replace("'o' || n % 50", "'large'").encode())
        [[last]] = ledger.execute("SELECT MAX(seq) FROM runs").fetchall()
        found = plan_of(matching("owner"), {**given, "first": last - COMPARED + 1}, ledger)
    assert found["Shared Hit Blocks"] + found["Shared Read Blocks"] <= COMPARED / 5, json.dumps(found, indent=1)


@pytest.mark.parametrize(("scope", "owner"), [("all", ANY_OWNER), ("owner", "o1")])
@pytest.mark.parametrize("sort_by", ["updated_at", "created_at"])
@pytest.mark.parametrize("after", [False, True], ids=["first", "deep"])
def test_a_page_of_threads_reads_few_of_them(
    scope: str, owner: Owner, sort_by: str, after: bool, ledger: psycopg.Connection
) -> None:
    ledger.execute("ANALYZE threads")
    given = {**ThreadFilter().params(), **owner_params(owner), "limit": 20, "offset": 0}
    given |= {"after_key": THREADS // 2, "after_id": ""}
    found = plan_of(thread_search._search(scope, sort_by, "desc", values=False, after=after), given, ledger)
    enough = ENOUGH
    if after and scope == "owner":  # it has a fifth of all threads, and the index by its changes has no ids to sort by
        enough = THREADS / 5 if sort_by == "updated_at" else 3 * ENOUGH
    assert looked_at(found) <= enough, json.dumps(found, indent=1)


@pytest.mark.parametrize(("scope", "owner"), [("all", ANY_OWNER), ("owner", "o1")])
@pytest.mark.parametrize("status", [None, "failed", "delivered"])
def test_a_page_of_deliveries_reads_few_of_them(
    scope: str, owner: Owner, status: str | None, ledger: psycopg.Connection
) -> None:
    ledger.execute("ANALYZE webhook_deliveries")
    place = {"at": DELIVERIES // 2, "after": "", "run_id": None, "limit": 20, "offset": 0}
    given = {**filter_params(None), **owner_params(owner), **place, "status": status}
    found = plan_of(webhooks.listing(scope, undelivered=status == "failed"), given, ledger)
    of_owner = DELIVERIES / 5 / 4 if scope == "owner" and status == "failed" else 0  # those of one owner may be sorted
    assert looked_at(found) <= max(ENOUGH, of_owner), json.dumps(found, indent=1)


def test_a_page_of_the_inbox_reads_few_threads(ledger: psycopg.Connection) -> None:
    ledger.execute("ANALYZE threads, runs")
    given = {"at": THREADS // 2, "after": "", "limit": 20, "owner": "o1", "any_owner": 1, "thread_id": "a9000"}
    for one in (interrupts.ASKING, interrupts.ASKING_OF_OWNER, interrupts.ASKING_OF_THREAD):
        found = plan_of(one, given, ledger)
        assert looked_at(found) <= ENOUGH, json.dumps(found, indent=1)
    for one in (interrupts.ANSWERING, interrupts.ANSWERING_OF_OWNER, interrupts.ANSWERING_OF_THREAD):
        found = plan_of(one, {**given, "owner": "o7"}, ledger)
        assert looked_at(found) <= interrupts.NEWEST_RUNS, json.dumps(found, indent=1)


@pytest.mark.parametrize("one", [TOKENS_OF_MODELS[By.OWNER], TOTALS_OF_DAYS[By.OWNER], TRENDS], ids=name_of)
def test_totals_of_many_names_are_read_once(one: Statement, ledger: psycopg.Connection) -> None:
    """PostgreSQL knows neither the days nor the names when it plans, and does not compare each row with each name."""
    owners = dict.fromkeys((f"o{n}" for n in range(100)), 1)
    given = {
        "grain": "owner",
        "first_day": 0,
        "last_day": 30,
        "owner": None,
        "graph_id": None,
        "model": None,
        "daily": 1,
        "names": json.dumps(owners),
        "group_ids": json.dumps(list(owners)),
        "first_hour": 0,
        "hours": 1,
        "build": None,
    }
    with ledger.transaction(force_rollback=True):
        for sql in FILL_TOTALS:
            ledger.execute(sql)
        found = plan_of(one, given, ledger)
    assert handled(found) <= 10 * TOTALS, json.dumps(found, indent=1)


def test_a_search_for_an_owners_active_runs_does_not_read_the_index_of_all_that_the_owner_has(
    ledger: psycopg.Connection,
) -> None:
    given = {**RunFilter(waits_for="run").params(), **owner_params("large"), "limit": 20, "before": NEWEST, "first": 0}
    with ledger.transaction(force_rollback=True):
        ledger.execute("SET LOCAL plan_cache_mode = force_custom_plan")  # which sees that one owner is meant
        for sql in (FILL_RUNS.replace("'run-'", "'large-'"), FILL_RUNNING):
            ledger.execute(re.sub(r"'o' \|\| n % 50", "'large'", sql).encode())
        ledger.execute("ANALYZE runs")
        found = plan_of(matching("active"), given, ledger)
    assert handled(found) <= 5_000, json.dumps(found, indent=1)


@pytest.mark.parametrize("owner", [ANY_OWNER, "o1"], ids=["all", "owner"])
def test_busy_threads_are_found_by_what_is_active(owner: Owner, ledger: psycopg.Connection) -> None:
    given = {**ThreadFilter(status=ThreadStatus.BUSY).params(), **owner_params(owner), "limit": 2000, "offset": 0}
    search = thread_search._search("busy", "updated_at", "desc", values=False, after=False)
    with ledger.transaction(force_rollback=True):
        ledger.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        for sql in (FILL_RUNNING, FILL_BUSY, "ANALYZE runs, threads"):
            ledger.execute(sql)
        plans = [plan_of(one, given, ledger) for one in (search, thread_search._count("busy", values=False))]
    assert all(looked_at(found) <= 3_000 for found in plans), json.dumps(plans, indent=1)


def plan_of(one: Statement, values: dict[str, Any], ledger: psycopg.Connection) -> dict[str, Any]:
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)[sb]", one.postgres)))
    sql = re.sub(r"%\((\w+)\)[sb]", lambda found: f"${names.index(found[1]) + 1}", one.postgres).replace("%%", "%")
    given = ", ".join(literal(values[name], ledger) for name in names)
    with ledger.transaction(force_rollback=True):
        ledger.execute(f"PREPARE one AS {sql}".encode())
        [[[found]]] = ledger.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE one ({given})".encode()
        ).fetchall()
    ledger.execute("DEALLOCATE one")
    plan: dict[str, Any] = found["Plan"]
    return plan
