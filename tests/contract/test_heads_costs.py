"""What a claim of heads reads on PostgreSQL, by its own account: what may start, and not what waits behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from ledger_kit import ledger_connection
from runlane.store.backends import migrate_postgres
from runlane.store.transactions.heads import TAKE_HEADS

ADMITTED = """INSERT INTO runs (run_id, thread_id, owner, graph_id, status, multitask_strategy, on_disconnect, metadata,
    kwargs, not_before, created_at, updated_at)
  SELECT %(prefix)s || n, %(prefix)s || n %% %(threads)s, %(owner)s, 'g',
    CASE WHEN %(busy)s AND n < %(threads)s THEN 'running' ELSE 'pending' END, 'enqueue', 'cancel', '{}', '{}', 1, 1, 1
  FROM generate_series(0, %(runs)s - 1) AS n"""
THREADS = """INSERT INTO threads (thread_id, owner, status, settled, metadata, config, interrupts, created_at,
    updated_at, state_updated_at, head_seq, head_owner, head_assistant, head_group, head_due)
  SELECT DISTINCT ON (thread_id) thread_id, owner, 'busy', 'idle', '{}', '{}', '{}', 1, 1, 1,
    CASE WHEN NOT %(busy)s THEN seq END, CASE WHEN NOT %(busy)s THEN owner END, CASE WHEN NOT %(busy)s THEN '' END,
    CASE WHEN NOT %(busy)s THEN 'g' END, CASE WHEN NOT %(busy)s THEN 0 END
  FROM runs WHERE starts_with(thread_id, %(prefix)s) ORDER BY thread_id, seq"""


@pytest.fixture
def ledger(postgres_url: str) -> Iterator[psycopg.Connection]:
    migrate_postgres(postgres_url)
    with ledger_connection(postgres_url, autocommit=True) as connection:
        yield connection


def fill(ledger: psycopg.Connection, prefix: str, *, runs: int, threads: int, owner: str, busy: bool) -> None:
    """Admit *runs* to *threads*, of which the first of each executes if they are *busy*."""
    values = {"prefix": prefix, "runs": runs, "threads": threads, "owner": owner, "busy": busy}
    ledger.execute(ADMITTED, values)
    ledger.execute(THREADS, values)
    ledger.execute("VACUUM ANALYZE runs")
    ledger.execute("VACUUM ANALYZE threads")


def pages_read(ledger: psycopg.Connection, *, slots: int = 1, taken: int = 1) -> int:
    """Return how many pages one claim reads, and undo it."""
    values: dict[str, Any] = dict.fromkeys(("attached", "busy", "full_owners", "full_assistants", "full_graphs"), "[]")
    values |= {"any_group": 0, "groups": '{"g": "g"}', "candidates": slots + 16, "slots": slots}
    with ledger.transaction(force_rollback=True):
        cursor = ledger.execute(
            b"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) " + TAKE_HEADS.postgres.encode(), values
        )
        row = cursor.fetchone()
    assert row is not None
    plan = (json.loads(row[0]) if isinstance(row[0], str) else row[0])[0]["Plan"]
    assert plan["Actual Rows"] == taken
    read: int = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return read


def test_4000_runs_that_wait_behind_20_busy_threads_do_not_slow_the_starts_of_others(
    ledger: psycopg.Connection,
) -> None:
    fill(ledger, "free-", runs=50, threads=50, owner="ann", busy=False)
    fill(ledger, "busy-", runs=4_020, threads=20, owner="big", busy=True)
    ledger.execute("UPDATE runs SET status = 'success' WHERE owner = 'big'")
    ledger.execute("VACUUM ANALYZE runs")
    alone = pages_read(ledger)
    ledger.execute(
        "UPDATE runs SET status = CASE WHEN run_id LIKE 'busy-_' THEN 'running' ELSE 'pending' END WHERE owner = 'big'"
    )
    ledger.execute("VACUUM ANALYZE runs")
    assert pages_read(ledger) <= alone / 0.9


def test_an_owner_with_10000_heads_costs_a_claim_no_more_than_one_with_100(ledger: psycopg.Connection) -> None:
    fill(ledger, "ann-", runs=1, threads=1, owner="ann", busy=False)
    fill(ledger, "big-", runs=100, threads=100, owner="big", busy=False)
    few = pages_read(ledger)
    fill(ledger, "more-", runs=9_900, threads=9_900, owner="big", busy=False)
    assert pages_read(ledger) <= few * 1.5, "an index of more levels"


def test_a_claim_of_many_heads_reads_little_more_for_each(ledger: psycopg.Connection) -> None:
    fill(ledger, "big-", runs=1_000, threads=1_000, owner="big", busy=False)
    assert pages_read(ledger, slots=64, taken=64) <= 64 * 20
