"""The sweeper of expired threads, on a real ledger with real checkpoints."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from langgraph.graph import START, MessagesState, StateGraph

from runlane.checkpoints.saver import LedgerSaver
from runlane.checkpoints.threads import ThreadCheckpoints
from runlane.maintenance.retention import ThreadSweeper
from runlane.records import ANY_OWNER, NO_OWNER, ThreadTtl
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.ledger import RunStore
from runlane.store.migrate import apply_scripts
from runlane.store.statements import Transaction, statement
from runlane.telemetry.emitter import Telemetry
from runlane.telemetry.events import LoopTurned
from runlane.telemetry.observers import on

OLDER = statement(
    "older",
    "UPDATE threads SET updated_at = updated_at - 7200000000, swept_at = swept_at - 7200000000"
    " WHERE thread_id = :thread_id",
)
SPOIL = statement("spoil", "UPDATE checkpoints SET type = 'pickle' WHERE thread_id = :thread_id")
KEEP = ThreadTtl(ttl_s=3600, strategy="keep_latest")


@pytest.fixture
async def driver() -> AsyncIterator[MemoryDriver]:
    made = MemoryDriver()
    apply_scripts(made)
    yield made
    await made.aclose()


def graph(saver: Any) -> Any:
    async def answer(state: MessagesState) -> Any:
        return {"messages": [("ai", "yes")]}

    return StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile(checkpointer=saver)


def at(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


async def change(driver: MemoryDriver, what: Any, thread_id: str) -> None:
    def transaction() -> Transaction[None]:
        yield what(thread_id=thread_id)

    await driver.write(transaction())


async def expired(driver: MemoryDriver, saver: LedgerSaver, thread_id: str, ttl: ThreadTtl = KEEP) -> None:
    """Make a thread with a history, whose time is over."""
    await RunStore(driver).threads.create(thread_id, owner=NO_OWNER, metadata={}, ttl=ttl)
    await graph(saver).ainvoke({"messages": [("human", "ok?")]}, at(thread_id))
    await change(driver, OLDER, thread_id)


async def count(saver: LedgerSaver, thread_id: str) -> int:
    return (await saver.threads.storage(thread_id)).checkpoints.count


async def test_a_thread_that_cannot_be_read_does_not_keep_the_others(
    driver: MemoryDriver, caplog: pytest.LogCaptureFixture
) -> None:
    saver = LedgerSaver(driver)
    for thread_id in ("spoilt", "good"):
        await expired(driver, saver, thread_id)
    await change(driver, SPOIL, "spoilt")
    assert await ThreadSweeper(store=RunStore(driver), saver=saver).sweep() == 1
    assert (await count(saver, "spoilt"), await count(saver, "good")) == (3, 1)
    assert "retention.thread_failed thread_id=spoilt" in caplog.text


async def test_a_sweep_treats_so_many_and_the_next_the_rest(driver: MemoryDriver) -> None:
    saver, store = LedgerSaver(driver), RunStore(driver)
    for n in range(5):
        await expired(driver, saver, f"t{n}", ThreadTtl(ttl_s=60))
    sweeper = ThreadSweeper(store=store, saver=saver, limit=2)
    assert [await sweeper.sweep() for _ in range(4)] == [2, 2, 1, 0]
    assert [await count(saver, f"t{n}") for n in range(5)] == [0] * 5


class Interrupted(LedgerSaver):
    """Stores a checkpoint each time somebody has looked what may go, as long as there are *between*."""

    between = 2

    @property
    def threads(self) -> ThreadCheckpoints:
        return LookedAt(self)


class LookedAt(ThreadCheckpoints):
    def __init__(self, saver: Interrupted) -> None:
        super().__init__(saver._driver, saver.serde)
        self._saver = saver

    async def pruning(self, thread_id: str) -> Callable[[], Transaction[None]]:
        planned = await super().pruning(thread_id)
        if self._saver.between:
            self._saver.between -= 1
            late = {"messages": [("human", "late")]}
            await graph(self._saver).aupdate_state(at(thread_id), late, as_node="answer")
        return planned


async def test_what_is_stored_while_a_thread_is_looked_at_is_kept(driver: MemoryDriver) -> None:
    saver = Interrupted(driver)
    await expired(driver, saver, "t")
    assert await ThreadSweeper(store=RunStore(driver), saver=saver).sweep() == 1
    assert await count(saver, "t") == 1
    state = await graph(saver).aget_state(at("t"))
    assert [message.content for message in state.values["messages"]] == ["ok?", "yes", "late", "late"]


async def test_threads_of_a_ledger_without_checkpoints_expire_too(driver: MemoryDriver) -> None:
    store = RunStore(driver)
    for thread_id, ttl in (("gone", ThreadTtl(ttl_s=60)), ("kept", KEEP)):
        await store.threads.create(thread_id, owner=NO_OWNER, metadata={}, ttl=ttl)
        await change(driver, OLDER, thread_id)
    assert await ThreadSweeper(store=store, saver=None).sweep() == 2
    assert (await store.threads.get("kept", owner=ANY_OWNER)).thread_id == "kept"


async def test_an_outage_does_not_end_the_sweeping(driver: MemoryDriver) -> None:
    await driver.aclose()
    turns: asyncio.Queue[LoopTurned] = asyncio.Queue()
    telemetry = Telemetry([on(LoopTurned, turns.put_nowait)])
    sweeper = ThreadSweeper(store=RunStore(driver), saver=None, every_s=0.001, telemetry=telemetry)
    failed: Counter[str] = Counter()
    async with asyncio.timeout(10), sweeper:
        while len(failed) < 2 or min(failed.values()) < 2:
            turn = await turns.get()
            assert turn.error == "LedgerClosed"
            failed[turn.loop] += 1
    assert set(failed) == {"thread sweep", "temporary thread sweep"}
