"""Sweeps remove what nothing refers to, a bounded number of parts at a time, and never under a run that executes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from langgraph.graph import START, MessagesState, StateGraph

from ledger_kit import empty_ledger
from run_kit import FaultyDriver, FaultyLedger, ended, opened, soon
from runlane.checkpoints.transactions import delete_thread
from runlane.documents.parts import BYTES, ref_of
from runlane.errors import RowsLocked
from runlane.maintenance.part_sweeps import PartSweeper
from runlane.records import ANY_OWNER
from runlane.store.drivers.postgres import open_postgres
from runlane.store.ledger import RunStore
from runlane.store.retry import PersistenceRetryPolicy
from runlane.store.statements import Rows, Transaction, statement
from runlane.store.transactions.parts import SWEEP_LIMIT, mark_due, put_parts, sweep

Faulty = FaultyDriver | FaultyLedger
COUNT = statement("test.count", "SELECT count(*) AS parts FROM parts WHERE thread_id = :thread_id")
SWEEPS = statement("test.sweeps", "SELECT thread_id, epoch, due FROM part_sweeps")


@pytest.fixture(scope="module")
def postgres_ledger(new_postgres_ledger: Callable[[], str]) -> str:
    return new_postgres_ledger()


@pytest.fixture(params=["memory", "postgres"])
async def driver(request: pytest.FixtureRequest) -> AsyncIterator[Faulty]:
    made: Faulty = FaultyDriver()
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_ledger")
        empty_ledger(url)
        made = FaultyLedger(await open_postgres(url))
    yield made
    await made.aclose()


def parts_of(number: int) -> dict[str, bytes]:
    return {ref_of(BYTES, b"%d" % at): b"%d" % at for at in range(number)}


def left_behind(thread_id: str, number: int) -> Transaction[None]:
    """Store parts that nothing refers to."""
    yield from put_parts(thread_id, (), parts_of(number))
    yield from mark_due(thread_id)


async def count(driver: Faulty, thread_id: str) -> int:
    def reading() -> Transaction[int]:
        rows = yield COUNT(thread_id=thread_id)
        return int(rows[0]["parts"])

    return await driver.read(reading())


async def sweeps(driver: Faulty) -> list[dict[str, Any]]:
    def reading() -> Transaction[Rows]:
        return (yield SWEEPS())

    return [dict(row) for row in await driver.read(reading())]


async def test_a_sweep_removes_so_many_parts_and_the_next_the_rest(driver: Faulty) -> None:
    await RunStore(driver).threads.create("thread", owner="", metadata={})
    await driver.write(left_behind("thread", 25))
    assert [await driver.write(sweep("thread", limit=10)) for _ in range(4)] == [10, 10, 5, 0]
    assert await count(driver, "thread") == 0


async def test_every_sweep_that_removes_something_raises_the_epoch_and_a_repeated_one_changes_nothing(
    driver: Faulty,
) -> None:
    await RunStore(driver).threads.create("thread", owner="", metadata={})
    await driver.write(left_behind("thread", 15))
    assert await sweeps(driver) == [{"thread_id": "thread", "epoch": 0, "due": 1}]
    await driver.write(sweep("thread", limit=10))
    assert await sweeps(driver) == [{"thread_id": "thread", "epoch": 1, "due": 1}]
    await driver.write(sweep("thread", limit=10))
    for _ in range(2):
        assert await sweeps(driver) == [{"thread_id": "thread", "epoch": 2, "due": 0}]
        assert await driver.write(sweep("thread")) == 0


async def test_the_loop_sweeps_all_threads_and_lets_others_write_in_between(driver: Faulty) -> None:
    store = RunStore(driver)
    for number in range(120):
        await driver.write(left_behind(f"thread {number}", 1))
    await driver.write(left_behind("large", 2 * SWEEP_LIMIT + 1))
    assert await PartSweeper(store).sweep() == 120 + 2 * SWEEP_LIMIT + 1
    assert driver.counts["parts.delete"] == 120 + 3
    assert await sweeps(driver) == []  # there are no such threads


@pytest.mark.parametrize("error", [ValueError("spoilt"), RowsLocked("for long")])
async def test_a_thread_that_cannot_be_swept_does_not_keep_the_others(driver: Faulty, error: Exception) -> None:
    store = RunStore(driver, retry=PersistenceRetryPolicy(max_attempts=1))
    await driver.write(left_behind("a", 1))
    await driver.write(left_behind("b", 1))
    driver.faults["parts.roots"] = error
    assert await PartSweeper(store).sweep() == 0
    assert driver.counts["parts.roots"] == 2
    driver.faults.clear()
    assert await PartSweeper(store).sweep() == 2


async def test_a_thread_is_swept_once_nothing_executes_on_it(driver: Faulty) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def node(state: MessagesState) -> Any:
        started.set()
        await go.wait()
        return {"messages": [("ai", "x" * 5000)]}

    graph = StateGraph(MessagesState).add_node("n", node).add_edge(START, "n")
    async with opened(driver=driver, graphs={"g": graph}) as runtime:
        request = {"graph_id": "g", "input": {"messages": [{"role": "user", "content": "x" * 5000}]}}
        run = await runtime.runs.create_or_reject("thread", kwargs=request)
        await soon(started.wait())
        await driver.write(left_behind("thread", 5))
        sweeper = PartSweeper(runtime.store)
        assert await sweeper.sweep() == 0
        assert await driver.write(sweep("thread")) == 0
        go.set()
        await ended(runtime, run)
        assert await sweeper.sweep() == 5


async def test_a_run_that_is_deleted_makes_its_thread_due(driver: Faulty) -> None:
    async with opened(driver=driver) as runtime:

        async def agent(context: Any) -> str:
            return "done"

        run = await ended(runtime, await runtime.runs.create_or_reject("thread", agent=agent))
        await driver.write(put_parts("thread", (), parts_of(3)))
        await runtime.runs.delete(run.run_id)
        assert await runtime.store.parts.due(limit=10) == ["thread"]


async def test_a_deleted_thread_leaves_nothing(driver: Faulty) -> None:
    store = RunStore(driver)
    await store.threads.create("thread", owner="", metadata={})
    await driver.write(left_behind("thread", 5))
    await store.threads.delete("thread", owner=ANY_OWNER, extra_writes=lambda: delete_thread("thread"))
    assert (await count(driver, "thread"), await sweeps(driver)) == (0, [])
