"""Taking a run back: afterwards the thread reads exactly as before the run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from journal_kit import attempt_of
from runlane.checkpoints.saver import LedgerSaver
from runlane.checkpoints.transactions import delete_runs
from runlane.errors import LeaseLost
from runlane.records import Lease
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.migrate import apply_scripts
from runlane.store.statements import Driver, Rows, Transaction, statement
from runlane.store.transactions.fence import fenced

TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
CLAIM = statement(
    "test.claim",
    """
    INSERT INTO runs (
        run_id, thread_id, owner, status, attempt, multitask_strategy, on_disconnect, metadata, kwargs, not_before,
        created_at, updated_at
    ) VALUES (:run_id, :thread_id, '', 'running', 1, 'reject', 'cancel', '{}', '{}', 0, 0, 0)
    """,
)
FINISH = statement("test.finish", "UPDATE runs SET status = 'success' WHERE run_id = :run_id")


def claim(run_id: str) -> Transaction[None]:
    yield CLAIM(run_id=run_id, thread_id="thread")


def finish(run_id: str) -> Transaction[None]:
    yield FINISH(run_id=run_id)


async def begin(driver: Driver, run_id: str, seq: int = 1) -> Lease:
    await driver.write(claim(run_id))
    return Lease(run_id=run_id, thread_id="thread", seq=seq, worker_id="w", attempt=1)


def at(run_id: str = "", **more: str) -> Any:
    return {
        "configurable": {"thread_id": "thread", "checkpoint_ns": "", **more},
        "metadata": {"run_id": run_id} if run_id else {},
    }


async def read_all(saver: LedgerSaver) -> list[Any]:
    """Return everything that can be read of the thread: each checkpoint as listed, and as asked for by its id."""
    listed = [found async for found in saver.alist({"configurable": {"thread_id": "thread"}})]
    assert [await saver.aget_tuple(found.config) for found in listed] == listed
    return [*listed, await saver.aget_tuple(at())]


def all_rows(table: str) -> Transaction[Rows]:
    return (yield statement("test.all", f"SELECT * FROM {table}")())


async def raw(driver: Driver) -> list[Any]:
    return [[tuple(row) for row in await driver.read(all_rows(table))] for table in TABLES]


class State(TypedDict, total=False):
    asked: str
    answer: str
    kept: str
    done: list[str]


async def ask(state: State) -> State:
    first = interrupt("first?")
    second = interrupt("second?")
    return {"answer": f"{first} {second}"}


async def side(state: State) -> State:
    return {"asked": "side"}


async def fail_once(state: State) -> State:
    if state["answer"].endswith("fail"):
        raise ValueError("as asked")
    return {"done": ["done"]}


async def inner(state: State) -> State:
    return {"answer": interrupt("inside?")}


def asking_graph() -> Any:
    """Two nodes at once, of which one pauses twice; then one that may fail."""
    builder = StateGraph(State).add_node("ask", ask).add_node("side", side).add_node("fail_once", fail_once)
    return builder.add_edge(START, "ask").add_edge(START, "side").add_edge("ask", "fail_once")


def nested_graph() -> Any:
    subgraph = StateGraph(State).add_node("inner", inner).add_edge(START, "inner").compile()
    return StateGraph(State).add_node("outer", subgraph).add_edge(START, "outer")


@dataclass
class Thread:
    """Runs a graph on one thread, one run after the other, and takes runs back."""

    driver: Driver
    saver: LedgerSaver
    builder: Any
    write_behind: bool
    seq: int = 0

    async def run(self, run_id: str, value: Any, *, durability: Any = "async") -> Any:
        self.seq += 1
        lease = await begin(self.driver, run_id, self.seq)
        bound, journal = attempt_of(self.saver, self.driver, lease, write_behind=self.write_behind)
        try:
            return await self.builder.compile(checkpointer=bound).ainvoke(value, at(run_id), durability=durability)
        finally:
            await journal.flush()
            await self.driver.write(finish(run_id))

    async def state(self) -> Any:
        return await self.builder.compile(checkpointer=self.saver).aget_state(at())


@pytest.mark.parametrize("write_behind", [True, False])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_resumed_run_that_is_taken_back_leaves_the_pause_as_it_was(
    driver: Driver, write_behind: bool, durability: str
) -> None:
    saver = LedgerSaver(driver)
    thread = Thread(driver, saver, asking_graph(), write_behind)
    await thread.run("asking", {"asked": "?"}, durability=durability)
    before, raw_before, state_before = await read_all(saver), await raw(driver), await thread.state()

    await thread.run("halfway", Command(resume="one"), durability=durability)
    assert await read_all(saver) != before
    await driver.write(delete_runs("thread", ["halfway"]))
    assert await read_all(saver) == before
    assert await raw(driver) == raw_before

    await thread.run("answered once", Command(resume="one"), durability=durability)
    halfway = await read_all(saver)
    with pytest.raises(ValueError, match="as asked"):
        await thread.run("failing", Command(resume="fail"), durability=durability)
    await driver.write(delete_runs("thread", ["failing"]))
    assert await read_all(saver) == halfway
    result = await thread.run("whole", Command(resume="two"), durability=durability)
    assert result["answer"] == "one two"
    assert result["done"] == ["done"]

    await driver.write(delete_runs("thread", ["whole", "answered once"]))
    assert await read_all(saver) == before
    assert await raw(driver) == raw_before
    assert await thread.state() == state_before


async def test_a_new_turn_that_is_taken_back_leaves_nothing(driver: Driver) -> None:
    saver = LedgerSaver(driver)
    thread = Thread(driver, saver, asking_graph(), write_behind=True)
    await thread.run("first", {"asked": "?"})
    await driver.write(delete_runs("thread", ["first"]))

    assert await raw(driver) == [[], [], []]


async def test_a_run_inside_a_subgraph_is_taken_back_with_it(driver: Driver) -> None:
    saver = LedgerSaver(driver)
    thread = Thread(driver, saver, nested_graph(), write_behind=True)
    await thread.run("asking", {"asked": "?"})
    before = await read_all(saver)
    await thread.run("answering", Command(resume="yes"))
    await driver.write(delete_runs("thread", ["answering"]))

    assert await read_all(saver) == before
    assert (await thread.run("again", Command(resume="yes")))["answer"] == "yes"


async def test_a_rollback_under_a_lost_lease_deletes_nothing(driver: Driver) -> None:
    saver = LedgerSaver(driver)
    lease = await begin(driver, "run")
    bound, journal = attempt_of(saver, driver, lease, write_behind=False)
    await bound.aput(at(), empty_checkpoint(), {}, {})
    await driver.write(finish("run"))

    with pytest.raises(LeaseLost):
        await driver.write(fenced(journal.lease, bound.rollback()))

    assert len(await read_all(saver)) == 2


async def test_deleting_an_earlier_run_keeps_the_values_that_later_checkpoints_use(driver: Driver) -> None:
    saver = LedgerSaver(driver)
    thread = Thread(driver, saver, asking_graph(), write_behind=True)
    await thread.run("asking", {"asked": "?", "kept": "since the first"})
    await thread.run("answered once", Command(resume="one"))
    result = await thread.run("whole", Command(resume="two"))
    await saver.adelete_for_runs(["asking", "no such run"])

    assert (await thread.state()).values == result
    assert result["kept"] == "since the first"


async def test_taking_back_a_run_leaves_a_copy_of_its_thread(driver: Driver) -> None:
    saver = LedgerSaver(driver)
    thread = Thread(driver, saver, asking_graph(), write_behind=True)
    await thread.run("asking", {"asked": "?"})
    state = await thread.state()
    await saver.acopy_thread("thread", "copy")
    await saver.adelete_for_runs(["asking"])

    graph = asking_graph().compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "copy"}}
    assert (await graph.aget_state(config)).interrupts == state.interrupts
    await graph.ainvoke(Command(resume="one"), config)
    assert (await graph.ainvoke(Command(resume="two"), config))["answer"] == "one two"


WRITES = st.lists(
    st.tuples(st.sampled_from(["c", "d", "__error__", "__resume__", "__interrupt__"]), st.integers(0, 99)),
    min_size=1,
    max_size=3,
)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("checkpoint"), st.sampled_from(["0", "1", "2", "3"]), st.integers(0, 99)),
        st.tuples(st.just("writes"), st.sampled_from(["0", "1", "2", "3"]), WRITES, st.sampled_from(["t", "u"])),
    ),
    max_size=6,
)


async def change(saver: LedgerSaver, changes: list[Any]) -> None:
    for kind, checkpoint_id, *rest in changes:
        config = at(checkpoint_id=checkpoint_id)
        if kind == "writes":
            await saver.aput_writes(config, *rest)
        else:
            versions = {"c": saver.get_next_version(None, None)}
            checkpoint = {
                **empty_checkpoint(),
                "id": checkpoint_id,
                "channel_values": {"c": rest[0]},
                "channel_versions": versions,
            }
            await saver.aput(at(), checkpoint, {}, versions)


@settings(max_examples=60, deadline=None)
@given(runs=st.lists(CHANGES, min_size=2, max_size=4), write_behind=st.booleans())
def test_whatever_a_run_wrote_over_earlier_runs_can_be_taken_back(runs: list[Any], write_behind: bool) -> None:
    """Even where a run stores a checkpoint under an id, or a write in a place, that an earlier run has used."""

    async def check() -> None:
        driver = MemoryDriver()
        apply_scripts(driver)
        saver = LedgerSaver(driver)
        states = [await read_all(saver)]
        for seq, changes in enumerate(runs):
            lease = await begin(driver, f"run {seq}", seq)
            bound, journal = attempt_of(saver, driver, lease, write_behind=write_behind)
            await change(bound, changes)
            await journal.flush()
            await driver.write(finish(f"run {seq}"))
            states.append(await read_all(saver))
        for seq in range(len(runs) - 1, -1, -1):
            assert await read_all(saver) == states[seq + 1]
            await driver.write(delete_runs("thread", [f"run {seq}"]))
        assert await read_all(saver) == states[0]
        assert await raw(driver) == [[], [], []]
        await driver.aclose()

    asyncio.run(check())
