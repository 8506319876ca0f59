"""The newest checkpoint of a thread is the one that was written last, whatever the clocks of the machines say."""

from __future__ import annotations

import operator
import time
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.base import id as ids
from langgraph.graph import END, START, StateGraph

from runlane.checkpoints.saver import LedgerSaver
from runlane.store.statements import Driver

AHEAD_S = 3600


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    name: str


async def note(state: State) -> State:
    return {"log": [state["name"]]}


def graph_of(saver: LedgerSaver) -> Any:
    builder = StateGraph(State).add_node("first", note).add_node("second", note)
    builder.add_edge(START, "first").add_edge("first", "second").add_edge("second", END)
    return builder.compile(checkpointer=saver)


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what makes this process the one of a machine whose clock is wrong by so many seconds."""

    def become(seconds: int) -> None:
        monkeypatch.setattr(ids, "_last_v6_timestamp", None)  # another process has made no id yet
        real = time.time_ns
        monkeypatch.setattr(ids, "time", type("Clock", (), {"time_ns": lambda: real() + seconds * 10**9}))

    return become


async def test_a_run_continues_what_a_machine_wrote_whose_clock_is_ahead(driver: Driver, machines: Any) -> None:
    config = {"configurable": {"thread_id": "thread"}}
    machines(AHEAD_S)
    await graph_of(LedgerSaver(driver)).ainvoke({"name": "a"}, config)
    machines(0)
    graph = graph_of(LedgerSaver(driver))
    await graph.ainvoke({"name": "b"}, config)
    assert (await graph.aget_state(config)).values["log"] == ["a", "a", "b", "b"]
    steps = [found.metadata["step"] async for found in graph.aget_state_history(config)]
    assert steps == sorted(steps, reverse=True)


async def test_a_fork_is_newer_than_what_a_machine_wrote_whose_clock_is_ahead(driver: Driver, machines: Any) -> None:
    config = {"configurable": {"thread_id": "thread"}}
    machines(0)
    await graph_of(LedgerSaver(driver)).ainvoke({"name": "a"}, config)
    machines(AHEAD_S)
    graph = graph_of(LedgerSaver(driver))
    early = [found async for found in graph.aget_state_history(config)][-2]
    await graph.ainvoke({"name": "b"}, config)
    machines(0)
    graph = graph_of(LedgerSaver(driver))
    await graph.aupdate_state(early.config, {"log": ["fork"]}, as_node="second")
    assert (await graph.aget_state(config)).values["log"] == ["fork"]
