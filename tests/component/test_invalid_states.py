"""P8: what a graph cannot read is not kept; the thread reads as before, and the next run works."""

from __future__ import annotations

import asyncio
import json
import operator
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from click.testing import CliRunner
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel
from typing_extensions import TypedDict

from run_kit import FaultyDriver, ended, opened, settings
from runlane.agents.registry import Registry
from runlane.agents.state import ThreadStates
from runlane.checkpoints.saver import LedgerSaver
from runlane.checkpoints.staging import StagingSaver
from runlane.cli.main import app
from runlane.errors import InvalidRequest, StateUnreadable
from runlane.lifecycle import RunStatus
from runlane.runtime import Runtime
from runlane.store.drivers.sqlite import SqliteDriver
from runlane.store.statements import Driver

THREAD: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


class Strict(BaseModel):
    seen: int = 0
    log: Annotated[list[str], operator.add] = []


class Loose(TypedDict, total=False):
    seen: Any
    log: Annotated[list[str], operator.add]
    last: str


def strict() -> StateGraph[Any]:
    def work(state: Strict) -> dict[str, Any]:
        return {"log": ["worked"]}

    return StateGraph(Strict).add_node("work", work).add_edge(START, "work")


def chat() -> StateGraph[Any]:
    def work(state: MessagesState) -> dict[str, Any]:
        return {"messages": [("ai", "hello")]}

    return StateGraph(MessagesState).add_node("work", work).add_edge(START, "work")


def above_a_strict_one() -> StateGraph[Any]:
    """Return a graph whose strict subgraph has a memory of its own."""
    inner = strict().compile(checkpointer=True)

    async def call(state: Loose) -> Loose:
        await inner.ainvoke({"seen": state["seen"]})
        return {"log": ["called"]}

    return StateGraph(Loose).add_node("call", call).add_edge(START, "call")


def two_writers() -> StateGraph[Any]:
    """Return a graph two of whose nodes write the same value at once if what was seen is bad."""

    def before(state: Loose) -> Loose:
        return {"log": ["before"]}

    def writer(state: Loose) -> Loose:
        return {"last": "mine"}

    graph = StateGraph(Loose).add_node("before", before).add_node("left", writer).add_node("right", writer)
    graph.add_conditional_edges("before", lambda state: ["left", "right"] if state["seen"] == "bad" else [])
    return graph.add_edge(START, "before")


def later() -> StateGraph[Any]:
    """Return a graph whose second node writes what its third one refuses."""

    def first(state: Strict) -> dict[str, Any]:
        return {"log": ["first"]}

    def second(state: Strict) -> dict[str, Any]:
        return {"seen": "bad"} if state.seen == 7 else {}

    graph = StateGraph(Strict).add_node("first", first).add_node("second", second).add_node("third", lambda state: {})
    return graph.add_edge(START, "first").add_edge("first", "second").add_edge("second", "third")


CASES = {
    "strict": (strict, {"seen": 1}, {"seen": "bad"}),
    "chat": (chat, {"messages": [("user", "hi")]}, {"messages": [{"role": "alien", "content": "hi"}]}),
    "subgraph": (above_a_strict_one, {"seen": 1}, {"seen": "bad"}),
}


async def run(runtime: Runtime, value: Any, **request: Any) -> RunStatus:
    made = await runtime.runs.create("t", kwargs={"graph_id": "g", "input": value, **request})
    return (await ended(runtime, made)).status


async def stored(saver: LedgerSaver) -> list[str]:
    """Return all that is stored of the thread, but for when its rows came."""
    rows = await saver.threads.rows("t")
    every = [*rows.checkpoints, *rows.blobs, *rows.writes]
    return [repr({name: value for name, value in row.items() if name != "seq"}) for row in every]


@pytest.fixture
async def driver() -> AsyncIterator[FaultyDriver]:
    driver = FaultyDriver()
    yield driver
    await driver.aclose()


@pytest.mark.parametrize("durability", ["async", "exit"])
@pytest.mark.parametrize("earlier", [0, 1])
@pytest.mark.parametrize("name", ["strict", "chat"])
async def test_input_that_a_graph_refuses_leaves_the_thread_as_it_was(
    name: str, earlier: int, durability: str, driver: FaultyDriver
) -> None:
    build, good, bad = CASES[name]
    states, saver = ThreadStates(Registry.from_graphs({"g": build()})), LedgerSaver(driver)
    async with opened(driver, graphs={"g": build()}) as runtime:
        for _ in range(earlier):
            assert await run(runtime, good) is RunStatus.SUCCESS
        before, state = await stored(saver), await states.get("g", saver, "t")
        assert await run(runtime, bad, durability=durability) is RunStatus.ERROR
        assert await stored(saver) == before
        assert await states.get("g", saver, "t") == state
        assert len(json.loads(await states.history("g", saver, "t", limit=99))) == 3 * earlier
        assert await run(runtime, good) is RunStatus.SUCCESS


async def test_input_that_a_subgraph_with_a_memory_refuses_is_not_remembered(driver: FaultyDriver) -> None:
    build, good, bad = CASES["subgraph"]
    async with opened(driver, graphs={"g": build()}) as runtime:
        assert await run(runtime, good) is RunStatus.SUCCESS
        assert await run(runtime, bad) is RunStatus.ERROR
        assert await run(runtime, good) is RunStatus.SUCCESS


async def test_a_step_that_cannot_be_applied_is_taken_back_and_the_steps_before_it_are_kept(
    driver: FaultyDriver,
) -> None:
    states, saver = ThreadStates(Registry.from_graphs({"g": two_writers()})), LedgerSaver(driver)
    async with opened(driver, graphs={"g": two_writers()}) as runtime:
        assert await run(runtime, {"seen": "bad"}) is RunStatus.ERROR
        state = json.loads(await states.get("g", saver, "t"))
        assert (state["values"]["log"], state["next"]) == (["before"], ["left", "right"])
        assert await run(runtime, {"seen": "good"}) is RunStatus.SUCCESS


async def test_a_value_that_a_node_wrote_and_the_next_one_refuses_is_taken_back(driver: FaultyDriver) -> None:
    states, saver = ThreadStates(Registry.from_graphs({"g": later()})), LedgerSaver(driver)
    async with opened(driver, graphs={"g": later()}) as runtime:
        assert await run(runtime, {"seen": 7}) is RunStatus.ERROR
        state = json.loads(await states.get("g", saver, "t"))
        assert (state["values"], state["next"]) == ({"seen": 7, "log": ["first"]}, ["second"])
        assert await run(runtime, {"seen": 1}) is RunStatus.SUCCESS


async def damage(driver: Driver) -> LedgerSaver:
    """Have an earlier version's run leave a thread with what its graph cannot read."""
    saver = LedgerSaver(driver)
    graph = strict().compile(checkpointer=saver)
    await graph.ainvoke({"seen": 1}, {**THREAD, "metadata": {"graph_id": "g"}})
    with pytest.raises(ValueError, match="seen"):
        await graph.ainvoke({"seen": "bad"}, {**THREAD, "metadata": {"graph_id": "g"}})
    return saver


async def test_a_damaged_thread_is_named_with_its_cause_and_goes_on_from_the_checkpoint_that_is_named(
    driver: FaultyDriver,
) -> None:
    states, saver = ThreadStates(Registry.from_graphs({"g": strict()})), await damage(driver)
    with pytest.raises(StateUnreadable, match="valid integer") as unreadable:
        await states.get("g", saver, "t")
    with pytest.raises(StateUnreadable, match="valid integer"):
        await states.history("g", saver, "t", limit=10)
    with pytest.raises(StateUnreadable, match="valid integer"):
        await states.snapshot("g", saver, "t")
    await states.update("g", saver, "t", {"seen": 3}, as_node="work", checkpoint=unreadable.value.readable)
    assert json.loads(await states.get("g", saver, "t"))["values"]["seen"] == 3


async def test_an_update_that_would_make_a_thread_unreadable_is_refused(driver: FaultyDriver) -> None:
    states, saver = ThreadStates(Registry.from_graphs({"g": strict()})), LedgerSaver(driver)
    await strict().compile(checkpointer=saver).ainvoke({"seen": 1}, THREAD)
    with pytest.raises(InvalidRequest, match="valid integer"):
        await states.update("g", StagingSaver(driver), "t", {"seen": "bad"}, as_node=START, checkpoint=None)


PROJECT = """
    import operator
    from typing import Annotated
    from langgraph.graph import START, StateGraph
    from pydantic import BaseModel

    class Strict(BaseModel):
        seen: int = 0
        log: Annotated[list[str], operator.add] = []

    graph = StateGraph(Strict).add_node("work", lambda state: {"log": ["worked"]}).add_edge(START, "work").compile()
"""


async def test_the_doctor_finds_a_thread_that_its_graph_cannot_read_and_repairs_it(tmp_path: Path) -> None:
    (tmp_path / "graphs.py").write_text(textwrap.dedent(PROJECT))
    (tmp_path / "langgraph.json").write_text('{"dependencies": ["."], "graphs": {"g": "./graphs.py:graph"}}')
    path = tmp_path / "ledger.db"
    async with opened(settings=settings(database=f"sqlite:///{path}"), graphs={"g": strict()}) as runtime:
        assert await run(runtime, {"seen": 1}) is RunStatus.SUCCESS
    driver = SqliteDriver(path, synchronous="normal")
    before = json.loads(await ThreadStates(Registry.from_graphs({"g": strict()})).get("g", LedgerSaver(driver), "t"))
    await damage(driver)
    await driver.aclose()

    def doctor(*options: str) -> Any:
        database = ["--database", f"sqlite:///{path}"]
        return asyncio.to_thread(CliRunner().invoke, app, ["doctor", str(tmp_path), *database, "--states", *options])

    found = await doctor()
    assert (found.exit_code, "thread.state thread=t graph=g" in found.stdout) == (1, True)
    assert (await doctor("--repair", "--yes")).exit_code == 0
    driver = SqliteDriver(path, synchronous="normal")
    after = json.loads(await ThreadStates(Registry.from_graphs({"g": strict()})).get("g", LedgerSaver(driver), "t"))
    assert after["values"] == {"seen": 1, "log": [*before["values"]["log"], "worked"]}
    await driver.aclose()
