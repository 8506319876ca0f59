"""State updates that are kept until they are written in one transaction: on top of a thread, and from nothing."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import StateUpdate

from runlane.checkpoints.saver import LedgerSaver
from runlane.checkpoints.staging import StagingSaver, draft
from runlane.errors import ThreadChanged
from runlane.journal.rows import put
from runlane.store.drivers.postgres import PostgresDriver
from runlane.store.statements import Driver, Row, Transaction, statement

TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


@pytest.fixture
async def saver(driver: Driver) -> LedgerSaver:
    return LedgerSaver(driver)


class State(TypedDict, total=False):
    log: Annotated[list[str], DeltaChannel(lambda state, writes: [*state, *writes], list, snapshot_frequency=3)]
    steps: int


def a_graph(saver: Any) -> Any:
    async def step(state: State) -> Any:
        steps = state.get("steps", 0) + 1
        return {"steps": steps, "log": f"step {steps}"}

    builder = StateGraph(State).add_node("step", step).add_edge(START, "step")
    builder.add_conditional_edges("step", lambda state: "step" if state["steps"] % 4 else END, ["step", END])
    return builder.compile(checkpointer=saver)


def at(thread_id: str = "thread") -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


async def rows(driver: Driver) -> list[list[tuple[Any, ...]]]:
    """Return everything that is stored of checkpoints."""

    def read() -> Transaction[list[list[tuple[Any, ...]]]]:
        found = []
        for table in TABLES:
            of_table: list[Row] = list((yield statement("test.all", f"SELECT * FROM {table}")()))
            found.append([tuple(row.values()) for row in of_table])
        return found

    return await driver.read(read())


async def test_what_is_staged_is_read_back_and_stored_by_nobody_but_its_transaction(
    driver: Driver, saver: LedgerSaver
) -> None:
    await a_graph(saver).ainvoke({}, at())
    before = await rows(driver)
    staging = StagingSaver(driver)
    graph = a_graph(staging)
    supersteps = [[StateUpdate({"log": f"note {n}", "steps": 9}, "step")] for n in range(3)]
    written = await graph.abulk_update_state(at(), supersteps)
    seen = await graph.aget_state(at())
    seen_history = [state.values async for state in graph.aget_state_history(at())]

    assert seen.values["log"] == ["step 1", "step 2", "step 3", "step 4", "note 0", "note 1", "note 2"]
    assert seen.config["configurable"]["checkpoint_id"] == written["configurable"]["checkpoint_id"]
    assert await rows(driver) == before
    assert (await a_graph(saver).aget_state(at())).values["steps"] == 4

    await driver.write(staging.transaction())
    stored = a_graph(saver)
    assert (await stored.aget_state(at())) == seen
    assert [state.values async for state in stored.aget_state_history(at())] == seen_history


async def test_a_draft_becomes_the_thread_that_it_would_have_been(driver: Driver, saver: LedgerSaver) -> None:
    supersteps = [
        [StateUpdate({}, "__input__")],
        *[[StateUpdate({"log": f"note {n}", "steps": n}, "step")] for n in range(1, 9)],
    ]
    before = await rows(driver)
    async with draft() as drafting:
        await a_graph(drafting).abulk_update_state(at(), supersteps)
        batch = await drafting.threads.rows("thread")
    assert await rows(driver) == before
    await driver.write(put(batch))
    in_memory = a_graph(InMemorySaver())
    await in_memory.abulk_update_state(at(), supersteps)
    histories = [
        [(state.values, state.next) async for state in graph.aget_state_history(at())]
        for graph in (a_graph(saver), in_memory)
    ]
    assert histories[0] == histories[1]
    assert len(histories[0]) == 9


async def test_what_was_stored_after_it_was_planned_makes_pruning_start_again(
    driver: Driver, saver: LedgerSaver
) -> None:
    graph = a_graph(saver)
    await graph.ainvoke({}, at())
    prune = await saver.threads.pruning("thread")
    await graph.aupdate_state(at(), {"log": "late"}, as_node="step")
    before = await rows(driver)
    with pytest.raises(ThreadChanged):
        await driver.write(prune())
    assert await rows(driver) == before
    await driver.write((await saver.threads.pruning("thread"))())
    assert (await graph.aget_state(at())).values["log"][-1] == "late"


async def test_a_checkpoint_that_got_the_row_of_one_that_was_rolled_back_makes_pruning_start_again(
    driver: Driver, saver: LedgerSaver
) -> None:
    graph = a_graph(saver)
    await graph.ainvoke({}, at())
    planned = await rows(driver)
    prune = await saver.threads.pruning("thread")
    await driver.write(rolled_back())
    await graph.aupdate_state(at(), {"log": "instead"}, as_node="step")
    before = await rows(driver)
    given_again = not isinstance(driver, PostgresDriver)  # PostgreSQL gives no number twice
    assert ([row[0] for row in before[0]] == [row[0] for row in planned[0]]) is given_again
    with pytest.raises(ThreadChanged):
        await driver.write(prune())
    assert await rows(driver) == before


def rolled_back() -> Transaction[None]:
    """Remove the newest checkpoint, as a rollback does."""
    yield statement("test.roll_back", "DELETE FROM checkpoints WHERE seq = (SELECT MAX(seq) FROM checkpoints)")()


async def test_storage_counts_the_bytes_of_each_channel(driver: Driver, saver: LedgerSaver) -> None:
    graph = a_graph(saver)
    await graph.ainvoke({}, at())
    await graph.ainvoke({}, at("other"))
    _, blobs, writes = await rows(driver)
    found = await saver.threads.storage("thread")
    assert found.checkpoints.count == len([one async for one in saver.alist(at())])
    mine = [row for row in blobs if row[0] == "thread"]
    assert {name: size.count for name, size in found.channels.items()} == {
        name: sum(row[2] == name for row in mine) for name in {row[2] for row in mine}
    }
    assert sum(size.bytes for size in found.channels.values()) == sum(len(row[-2]) for row in mine)
    assert found.writes.bytes == sum(len(row[-2]) for row in writes if row[0] == "thread")
    empty = await saver.threads.storage("nowhere")
    assert (empty.checkpoints.bytes, empty.channels, empty.writes.count) == (0, {}, 0)
