"""Channels that are kept as changes since a snapshot."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from runlane.checkpoints.saver import LedgerSaver
from runlane.store.statements import Driver

CONFIG: Any = {"configurable": {"thread_id": "thread", "checkpoint_ns": ""}}


@pytest.fixture
async def saver(driver: Driver) -> LedgerSaver:
    return LedgerSaver(driver)


class Changing(TypedDict, total=False):
    log: Annotated[list[str], DeltaChannel(lambda state, writes: [*state, *writes], list, snapshot_frequency=3)]
    steps: int


def changing_graph() -> Any:
    """A loop whose log is stored as changes, with a snapshot after every third."""

    async def step(state: Changing) -> Any:
        steps = state.get("steps", 0) + 1
        return {"steps": steps, "log": f"step {steps}"}

    builder = StateGraph(Changing).add_node("step", step).add_edge(START, "step")
    return builder.add_conditional_edges("step", lambda state: "step" if state["steps"] % 8 else END, ["step", END])


async def history(saver: LedgerSaver) -> list[CheckpointTuple]:
    return [found async for found in saver.alist(CONFIG)]


@pytest.mark.parametrize("durability", ["async", "exit"])
async def test_changes_since_a_snapshot_rebuild_every_checkpoint(saver: LedgerSaver, durability: Any) -> None:
    histories = []
    for one in (saver, InMemorySaver()):
        graph = changing_graph().compile(checkpointer=one)
        for _ in range(2):
            await graph.ainvoke({}, CONFIG, durability=durability)
        histories.append([state.values async for state in graph.aget_state_history(CONFIG)])

    assert histories[0] == histories[1]
    assert histories[0][0]["log"] == [f"step {n}" for n in range(1, 17)]


async def test_one_read_finds_what_a_walk_along_the_parents_finds(saver: LedgerSaver) -> None:
    await changing_graph().compile(checkpointer=saver).ainvoke({}, CONFIG)

    for found in await history(saver):
        wanted: Any = {"config": found.config, "channels": ["log", "steps", "none"]}
        one_read = await saver.aget_delta_channel_history(**wanted)
        assert one_read == await super(LedgerSaver, saver).aget_delta_channel_history(**wanted)


async def test_pruning_leaves_the_changes_that_the_latest_state_is_rebuilt_from(saver: LedgerSaver) -> None:
    graph = changing_graph().compile(checkpointer=saver)
    await graph.ainvoke({}, CONFIG)
    before, count_before = (await graph.aget_state(CONFIG)).values, len(await history(saver))
    await saver.aprune(["thread"])

    assert (await graph.aget_state(CONFIG)).values == before
    assert 1 < len(await history(saver)) < count_before


async def test_a_fork_from_a_checkpoint_that_was_superseded_changes_no_other_branch(saver: LedgerSaver) -> None:
    found = []
    for one in (saver, InMemorySaver()):
        graph = changing_graph().compile(checkpointer=one)
        await graph.ainvoke({}, CONFIG)
        states = [state async for state in graph.aget_state_history(CONFIG)]
        newest, earlier = states[0], states[4]
        fork = await graph.aupdate_state(earlier.config, {"log": "forked"}, as_node="step")
        forked = await graph.ainvoke(None, fork)
        seen = [(await graph.aget_state(state.config)).values for state in (newest, earlier)]
        found.append((forked, *seen))
    assert found[0] == found[1]
    assert found[0][0]["log"][:5] == ["step 1", "step 2", "step 3", "step 4", "forked"]
    assert found[0][1]["log"] == [f"step {n}" for n in range(1, 9)]
