"""The hot statements on SQLite, by its own account of how it runs them, beside many ended runs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from runlane.store.drivers.sqlite import configure
from runlane.store.statements import Statement
from runlane.store.transactions.admissions import FIND_KEY, LAST_PLACE
from runlane.store.transactions.claims import CLAIM_RUN
from runlane.store.transactions.crons import DUE_CRONS, NEXT_CRON
from runlane.store.transactions.events import LAST_EVENT, OLD_LOGS, READ_SEGMENTS
from runlane.store.transactions.failure_queries import BEGIN_OF_BUILD
from runlane.store.transactions.failures import PURGE_FAILURES
from runlane.store.transactions.fence import HOLDS_LEASE
from runlane.store.transactions.fleet import RUNNING_RUNS
from runlane.store.transactions.interrupts import (
    ANSWERING,
    ANSWERING_OF_OWNER,
    ANSWERING_OF_THREAD,
    ASKING,
    ASKING_OF_OWNER,
    ASKING_OF_THREAD,
    NEWEST_RUNS,
)
from runlane.store.transactions.leases import HELD, LEASES, RUNNABLE
from runlane.store.transactions.overview import (
    FAILED_DELIVERIES,
    LATE_CRONS,
    OLDEST_WAITING,
    RETRIED_DELIVERIES,
    RUNNING_BY_WORKER,
    RUNNING_SINCE,
    THREADS_OF_STATUS,
    WAITING,
)
from runlane.store.transactions.parts import GET_PARTS, MISSING_PARTS
from runlane.store.transactions.queue import COUNT_QUEUE, MEDIAN_DUE, OLDEST_UNBLOCKED
from runlane.store.transactions.run_queries import (
    GET_RESULT,
    HAS_ACTIVE,
    INFLIGHT,
    LAST_STARTED,
    LIST_RUNS,
    OLD_RUNS,
    RUN_END,
    STARTED_RUNS,
)
from runlane.store.transactions.run_search import (
    COMPARED,
    FIRST_AND_LAST,
    NEWEST,
    NEXT_RUN,
    RunFilter,
    last_compared,
    matching,
)
from runlane.store.transactions.run_states import CHANGED_ACTIVE, CHANGED_ENDED, RUN_STATES
from runlane.store.transactions.runs import (
    ACTIVE_RUNS,
    END_RUN,
    GET_RUN,
    LOCK_RUN,
    NEXT_OF_LANE,
    RESTATE_THREAD,
    SETTLE_THREAD,
    THREAD_OF_RUN,
)
from runlane.store.transactions.selections import selecting
from runlane.store.transactions.threads import EXPIRED_THREADS
from runlane.store.transactions.totals import (
    OLDEST_UNCOUNTED,
    PURGE_MINUTES,
    PURGE_RUNS,
    PURGE_TOKENS,
    TAKE_ENDED,
)
from runlane.store.transactions.usage_of_limits import COUNTED, LONGEST_LANES, RUNNING_BY

ENDED, THREADS, PENDING = 10_000, 10, 20
PER_STATEMENT = 100  # virtual machine steps between two calls of the progress handler
VALUES = {
    "now": 2_000_000,
    "limit": 100,
    "thread_id": "t1",
    "run_id": "run-5",
    "attempt": 1,
    "owner": "",
    "any_owner": 1,
    "status": "idle",
    "settled": "idle",
    "interrupts": "{}",
    "places": 1000,
    "run_ids": '["run-5"]',
    "living": '["w"]',
    "after": 0,
    "since": 2,
    "until": 1,
    "half": 1,
    "age_us": 0,
}
#: Partial indexes that hold active runs alone.
ACTIVE_ONLY = ("runs_active", "runs_one_running")

INSERT = """INSERT INTO runs (run_id, thread_id, owner, status, multitask_strategy, on_disconnect, metadata, kwargs,
                              not_before, created_at, updated_at, ended_at)
            VALUES (?, ?, '', ?, 'enqueue', 'cancel', '{}', '{}', 1, 1, 1, ?)"""

HOT = [
    ACTIVE_RUNS,
    CHANGED_ACTIVE,
    CHANGED_ENDED,
    CLAIM_RUN,
    COUNT_QUEUE,
    DUE_CRONS,
    END_RUN,
    FIND_KEY,
    GET_RUN,
    HELD,
    HOLDS_LEASE,
    INFLIGHT,
    LAST_PLACE,
    LEASES,
    LOCK_RUN,
    MEDIAN_DUE,
    NEXT_CRON,
    NEXT_OF_LANE,
    OLD_LOGS,
    OLDEST_UNBLOCKED,
    RESTATE_THREAD,
    RUNNABLE,
    RUN_STATES,
    SETTLE_THREAD,
    THREAD_OF_RUN,
]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory, sqlite_ledger: Path) -> Iterator[sqlite3.Connection]:
    path = tmp_path_factory.mktemp("plans") / "ledger.db"
    path.write_bytes(sqlite_ledger.read_bytes())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        configure(connection)
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        thread = """INSERT INTO threads (thread_id, owner, status, settled, metadata, config, interrupts,
                                         created_at, updated_at, state_updated_at)
                    VALUES (?, '', 'busy', 'idle', '{}', '{}', '{}', 1, 1, 1)"""
        connection.executemany(thread, [(f"t{n}",) for n in range(THREADS)])
        ended = [(f"run-{n}", f"t{n % THREADS}", "success", 1) for n in range(ENDED)]
        pending = [(f"pending-{n}", f"t{n % THREADS}", "pending", None) for n in range(PENDING)]
        connection.executemany(INSERT, ended + pending)
        connection.execute("UPDATE runs SET log_purged = 1 WHERE ended_at IS NOT NULL")
        connection.execute("COMMIT")
        yield connection


def bound(one: Statement) -> dict[str, object]:
    names = {part.partition(")")[0] for part in one.postgres.split("%(")[1:]}
    return {name: VALUES.get(name) for name in names | {"now"}}


def steps(connection: sqlite3.Connection, one: Statement, changes: dict[str, object] | None = None) -> int:
    """Return how much of SQLite's virtual machine *one* took, in hundreds of steps; its effects are undone."""
    ticks = 0

    def tick() -> int:
        nonlocal ticks
        ticks += 1
        return 0

    connection.execute("SAVEPOINT steps")
    connection.set_progress_handler(tick, PER_STATEMENT)
    try:
        connection.execute(one.sqlite, bound(one) | (changes or {})).fetchall()
    finally:
        connection.set_progress_handler(None, PER_STATEMENT)
        connection.execute("ROLLBACK TO steps")
        connection.execute("RELEASE steps")
    return ticks


@pytest.mark.parametrize("one", HOT, ids=lambda one: one.name)
def test_the_hot_statements_never_scan_ended_runs(ledger: sqlite3.Connection, one: Statement) -> None:
    plan = [row["detail"] for row in ledger.execute(f"EXPLAIN QUERY PLAN {one.sqlite}", bound(one))]
    whole = [step for step in plan if step.startswith("SCAN") and not any(index in step for index in ACTIVE_ONLY)]
    given = ("CONSTANT", "json_each")  # what a parameter lists
    assert [step for step in whole if not any(source in step for source in given)] == [], plan
    through_ended = [step for step in plan if "runs_by_thread" in step or "rowid>" in step]
    assert through_ended == [], plan
    assert steps(ledger, one) < ENDED / PER_STATEMENT


@pytest.mark.parametrize(
    "one", [ACTIVE_RUNS, CLAIM_RUN, LAST_PLACE, NEXT_OF_LANE, RESTATE_THREAD], ids=lambda one: one.name
)
def test_a_long_lane_costs_an_admission_and_an_end_no_more_than_a_short_one(
    ledger: sqlite3.Connection, one: Statement
) -> None:
    ledger.execute("BEGIN")
    try:
        queued = [(f"queued-{n}", "t1", "pending", None) for n in range(ENDED)]
        ledger.executemany(INSERT, queued)
        assert steps(ledger, one, {"limit": 1, "run_id": "queued-9000"}) < ENDED / PER_STATEMENT
    finally:
        ledger.execute("ROLLBACK")


READING = [GET_RESULT, GET_RUN, HAS_ACTIVE, LAST_EVENT, LAST_STARTED, READ_SEGMENTS, RUN_END]
LISTING = [LIST_RUNS, STARTED_RUNS]


@pytest.mark.parametrize(("one", "rows"), [(one, 1) for one in READING] + [(one, 20) for one in LISTING])
def test_a_join_a_list_and_a_stream_cost_no_more_beside_many_ended_runs(
    ledger: sqlite3.Connection, one: Statement, rows: int
) -> None:
    """A row that is read takes some hundred steps; the thread has a thousand ended runs, and the ledger ten times."""
    places = {"run_seq": ENDED // 2, "seq": ENDED // 2, "from_order": 0, "limit": rows, "offset": 0}
    assert steps(ledger, one, {**places, "status": None}) <= 2 + 2 * rows


@pytest.mark.parametrize("scope", ["all", "owner", "thread", "ids", "active", "unsuccessful", "unsuccessful_of_owner"])
def test_a_page_of_a_search_for_runs_costs_no_more_beside_many_runs(ledger: sqlite3.Connection, scope: str) -> None:
    where = RunFilter(
        thread_id="t1" if scope == "thread" else None,
        run_ids=frozenset(f"run-{number}" for number in range(100)) if scope == "ids" else None,
    )
    given = {**where.params(), "before": NEWEST, "first": 0, "limit": 20}
    for statement in (matching(scope), selecting(scope)):
        assert steps(ledger, statement, given) <= (2 + 100 if scope == "ids" else 2 + 2 * 20)
    assert steps(ledger, last_compared(scope), given) <= COMPARED / 10
    assert steps(ledger, FIRST_AND_LAST) + steps(ledger, NEXT_RUN, {"seq": ENDED // 2}) <= 2


@pytest.mark.parametrize("one", [ASKING, ASKING_OF_OWNER, ASKING_OF_THREAD], ids=lambda one: one.name)
def test_a_page_of_the_inbox_costs_no_more_beside_many_threads(ledger: sqlite3.Connection, one: Statement) -> None:
    ledger.execute("SAVEPOINT inbox")
    try:
        thread = """INSERT INTO threads (thread_id, owner, status, settled, metadata, config, interrupts, created_at,
              updated_at, state_updated_at) VALUES (?, ?, 'interrupted', 'idle', '{}', '{}', ?, 1, 1, ?)"""
        asking = [(f"a{n}", f"o{n % 5}", '{"task": []}', n) for n in range(ENDED)]
        ledger.executemany(thread, asking + [(f"c{n}", "o1", "{}", n) for n in range(ENDED)])  # those were cancelled
        given = {"at": ENDED // 2, "after": "", "owner": "o1", "any_owner": 0, "thread_id": "a9001"}
        assert steps(ledger, one, given) <= 2 + 2 * 20
    finally:
        ledger.execute("ROLLBACK TO inbox")
        ledger.execute("RELEASE inbox")


@pytest.mark.parametrize("one", [ANSWERING, ANSWERING_OF_OWNER, ANSWERING_OF_THREAD], ids=lambda one: one.name)
def test_answers_are_looked_for_among_the_newest_runs_only(ledger: sqlite3.Connection, one: Statement) -> None:
    assert steps(ledger, one, {"limit": 20}) <= NEWEST_RUNS / 2


@pytest.mark.parametrize("one", [RUNNING_RUNS, *RUNNING_BY.values(), LONGEST_LANES, COUNTED], ids=lambda one: one.name)
def test_what_operators_see_of_active_runs_costs_no_more_beside_many_ended_ones(
    ledger: sqlite3.Connection, one: Statement
) -> None:
    assert steps(ledger, one, {"most": 1000}) <= 2 * PENDING


@pytest.mark.parametrize(
    "one",
    [
        *(WAITING, OLDEST_WAITING, RUNNING_BY_WORKER, RUNNING_SINCE, LATE_CRONS, RETRIED_DELIVERIES, FAILED_DELIVERIES),
        *(OLDEST_UNCOUNTED, TAKE_ENDED),
    ],
    ids=lambda one: one.name,
)
def test_an_overview_and_counting_cost_no_more_beside_many_ended_runs(
    ledger: sqlite3.Connection, one: Statement
) -> None:
    given = {"most": ENDED, "limit": 10, "since": 0, "before": 2}
    assert steps(ledger, one, given) <= 20


@pytest.mark.parametrize("one", THREADS_OF_STATUS.values(), ids=lambda one: one.name)
def test_an_overview_costs_no_more_beside_many_idle_threads(ledger: sqlite3.Connection, one: Statement) -> None:
    ledger.execute("SAVEPOINT idle")
    try:
        thread = """INSERT INTO threads (thread_id, owner, status, settled, metadata, config, interrupts, created_at,
              updated_at, state_updated_at) VALUES (?, '', 'idle', 'idle', '{}', '{}', '{}', 1, 1, 1)"""
        ledger.executemany(thread, [(f"idle-{n}",) for n in range(ENDED)])
        assert steps(ledger, one, {"most": ENDED}) <= 2
    finally:
        ledger.execute("ROLLBACK TO idle")
        ledger.execute("RELEASE idle")


@pytest.mark.parametrize(
    "one", [PURGE_RUNS, PURGE_TOKENS, PURGE_MINUTES, *PURGE_FAILURES, BEGIN_OF_BUILD], ids=lambda one: one.name
)
def test_totals_are_found_by_their_day(ledger: sqlite3.Connection, one: Statement) -> None:
    plan = [row["detail"] for row in ledger.execute(f"EXPLAIN QUERY PLAN {one.sqlite}", bound(one))]
    assert [step for step in plan if step.startswith("SCAN")] == [], plan


@pytest.mark.parametrize("one", [GET_PARTS, MISSING_PARTS], ids=lambda one: one.name)
def test_each_part_is_found_by_an_index(ledger: sqlite3.Connection, one: Statement) -> None:
    refs = [f"part-{number}" for number in range(2000)]
    ledger.execute("SAVEPOINT parts")
    try:
        rows = [("t1", ref, b"data") for ref in refs]
        ledger.executemany("INSERT INTO parts (thread_id, ref, data) VALUES (?, ?, ?)", rows)
        some, many = (steps(ledger, one, {"refs": json.dumps(refs[:size])}) for size in (200, 2000))
    finally:
        ledger.execute("ROLLBACK TO parts")
        ledger.execute("RELEASE parts")
    assert many < 15 * some, "looking for ten times as many takes about ten times as long"
    assert many * PER_STATEMENT < 50 * len(refs)


def test_a_statement_that_scans_ended_runs_would_be_found(ledger: sqlite3.Connection) -> None:
    scan = Statement("scan", "SELECT run_id FROM runs WHERE status = 'pending' AND not_before < :now", "")
    assert steps(ledger, scan) > ENDED / PER_STATEMENT


@pytest.mark.parametrize(
    ("one", "index"),
    [
        (EXPIRED_THREADS, "threads_expiring"),
        (OLD_RUNS, "runs_ended"),
        (LAST_STARTED, "runs_by_start"),
        (LIST_RUNS, "runs_by_thread"),
        (STARTED_RUNS, "runs_by_start"),
        (OLD_LOGS, "runs_with_log"),
        (READ_SEGMENTS, "sqlite_autoindex_events_1"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_lists_are_read_in_the_order_of_an_index(ledger: sqlite3.Connection, one: Statement, index: str) -> None:
    plan = [row["detail"] for row in ledger.execute(f"EXPLAIN QUERY PLAN {one.sqlite}", bound(one))]
    assert len(plan) == 1, plan  # one step: no sorting
    assert index in plan[0]
