"""What only PostgreSQL can get wrong about checkpoints and items: transactions that go on at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.base import PutOp

from ledger_kit import empty_ledger, ledger_connection, running
from runlane.checkpoints import pruning
from runlane.checkpoints.access import Direct
from runlane.checkpoints.store import LedgerLongTermStore
from runlane.documents.parts import BYTES, ref_of
from runlane.errors import ThreadChanged
from runlane.journal.rows import CheckpointRows, put
from runlane.store.drivers.postgres import PostgresDriver, open_postgres
from runlane.store.drivers.postgres_link import Times
from runlane.store.ledger import RunStore
from runlane.store.statements import Rows, Statement, Transaction, statement
from runlane.store.transactions.fence import fenced
from runlane.store.transactions.parts import mark_due, put_parts, sweep

PARTS = statement("test.parts", "SELECT ref FROM parts")
BLOBS = statement("test.blobs", "SELECT version FROM checkpoint_blobs ORDER BY version")
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
BLOB = """INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, run_id, type, value)
          VALUES ('t', '', 'c', 'held', '', 'null', '')"""
#: Longer than a busy machine takes to come to the next step of a test.
PATIENT = Times(lock_s=60.0, idle_s=20.0)
DATA = b"a part"
REF = ref_of(BYTES, DATA)


@pytest.fixture
def url(postgres_ledger: str) -> str:
    empty_ledger(postgres_ledger)
    return postgres_ledger


@pytest.fixture
async def driver(url: str) -> AsyncIterator[PostgresDriver]:
    made = await open_postgres(url, times=PATIENT)
    yield made
    await made.aclose()


@pytest.fixture
async def other(url: str) -> AsyncIterator[PostgresDriver]:
    """Give the driver of another process: one process has the transactions of a thread wait for each other."""
    made = await open_postgres(url, times=PATIENT)
    yield made
    await made.aclose()


class Door:
    """A value that another transaction has stored and not committed: who stores the same waits for that one."""

    def __init__(self, url: str) -> None:
        self._watching = ledger_connection(url, autocommit=True)
        self._holding = ledger_connection(url)
        self._holding.execute(BLOB)

    async def waiting(self, number: int, *unless_done: asyncio.Task[Any]) -> None:
        """Wait until so many transactions wait for a lock, or one of these is over."""
        while await asyncio.to_thread(self._count) < number and not any(task.done() for task in unless_done):
            pass

    def _count(self) -> int:
        row = self._watching.execute(WAITING).fetchone()
        return 0 if row is None else int(row[0])

    def open(self) -> None:
        self._holding.rollback()

    def close(self) -> None:
        self._holding.close()
        self._watching.close()


@pytest.fixture
def door(url: str) -> Iterator[Door]:
    made = Door(url)
    yield made
    made.close()


def all_rows(wanted: Statement) -> Transaction[Rows]:
    return (yield wanted())


def rows(checkpoint_id: str, versions: dict[str, str], *written: str, refs: str | None = None) -> CheckpointRows:
    """Return a checkpoint with these versions of channels, of which some are *written* now."""
    at = {"thread_id": "t", "checkpoint_ns": "", "run_id": ""}
    kind, data = JsonPlusSerializer().dumps_typed({"id": checkpoint_id, "channel_versions": versions})
    body = {"parent_id": None, "type": kind, "checkpoint": data, "metadata_type": "msgpack", "metadata": b"\x80"}
    value = {"channel": "c", "type": "msgpack", "value": b"\xc0", "refs": refs}
    return CheckpointRows(
        checkpoints=[{**at, **body, "checkpoint_id": checkpoint_id}],
        blobs=[{**at, **value, "version": version} for version in written],
        parts={"t": {REF: DATA}} if refs else {},
    )


def left_behind() -> Transaction[None]:
    yield from put_parts("t", (), {REF: DATA})
    yield from mark_due("t")


async def test_a_part_is_not_swept_while_a_document_that_needs_it_is_being_stored(
    driver: PostgresDriver, other: PostgresDriver, door: Door
) -> None:
    await driver.write(left_behind())
    storing = asyncio.create_task(Direct(driver).write(rows("1", {"c": "held"}, "held", refs=REF)))
    await door.waiting(1)
    sweeping = asyncio.create_task(other.write(sweep("t")))
    await door.waiting(2, sweeping)
    door.open()
    await storing

    assert await sweeping == 0
    assert [row["ref"] for row in await driver.read(all_rows(PARTS))] == [REF]


async def test_a_value_is_not_pruned_while_an_attempt_stores_a_checkpoint_that_uses_it(
    driver: PostgresDriver, other: PostgresDriver, door: Door
) -> None:
    await driver.write(put(rows("1", {"c": "first"}, "first")))
    await driver.write(put(rows("2", {"c": "second"}, "second")))
    lease = await running(RunStore(driver), "t")
    planned = await driver.read(pruning.plan("t", JsonPlusSerializer().loads_typed))
    storing = asyncio.create_task(driver.write(fenced(lease, put(rows("3", {"c": "first", "d": "held"}, "held")))))
    await door.waiting(1)
    deleting = asyncio.create_task(other.write(pruning.apply(planned)))
    await door.waiting(2, deleting)
    door.open()
    await storing

    with pytest.raises(ThreadChanged):
        await deleting
    assert [row["version"] for row in await driver.read(all_rows(BLOBS))] == ["first", "held", "second"]


async def test_batches_that_write_the_same_items_in_opposite_orders_do_not_deadlock(driver: PostgresDriver) -> None:
    store = LedgerLongTermStore(driver)
    puts = [PutOp(("n",), str(key), {}) for key in range(30)]
    await asyncio.gather(*(store.abatch(puts[:: 1 if turn % 2 else -1]) for turn in range(12)))
