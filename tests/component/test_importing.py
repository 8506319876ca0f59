"""Threads, items, assistants and crons that other servers have stored, read as those read them."""

from __future__ import annotations

import asyncio
import json
import operator
import os
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.types import RESUME
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.store.postgres.aio import AsyncPostgresStore
from langgraph.types import Command, Send, interrupt

from run_kit import ended, opened
from runlane.cli.main import app

THREADS = ("11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222", "plain-id")


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    count: int
    nothing: None
    ratio: float
    flags: Annotated[list[str], operator.add]


def graph() -> StateGraph[Any]:
    """A graph with scalars, messages, sends, a subgraph and a question."""

    def begin(state: State) -> Any:
        return {
            "count": state.get("count", 0) + 1,
            "nothing": None,
            "ratio": 0.5,
            "messages": [AIMessage("hello", id="m1")],
        }

    def spread(state: State) -> list[Send]:
        return [Send("one", {"flags": [name]}) for name in "ab"]

    def one(state: State) -> State:
        return {"flags": [state["flags"][0].upper()]}

    def ask(state: State) -> State:
        return {"flags": [interrupt({"question": "go on?"})]}

    inner = StateGraph(State).add_node("ask", ask)
    inner.add_edge(START, "ask").add_edge("ask", END)
    outer = StateGraph(State).add_node("begin", begin).add_node("one", one).add_node("inner", inner.compile())
    outer.add_edge(START, "begin").add_conditional_edges("begin", spread, ["one"])
    outer.add_edge("one", "inner").add_edge("inner", END)
    return outer


def config(thread_id: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread_id}}


@pytest.fixture
async def source(postgres_url: str) -> str:
    """Give a database in which LangGraph itself has kept three threads and some items."""
    async with AsyncPostgresSaver.from_conn_string(postgres_url) as saver:
        await saver.setup()
        app = graph().compile(checkpointer=saver)
        for thread_id in THREADS:
            await app.ainvoke({"messages": [HumanMessage("hi", id="h1")]}, config(thread_id))
        await app.ainvoke(Command(resume="yes"), config(THREADS[0]))
        await app.aupdate_state(config(THREADS[0]), {"count": 40})
    async with AsyncPostgresStore.from_conn_string(postgres_url) as store:
        await store.setup()
        await store.aput(("users", "ann", "notes"), "tea", {"likes": "tea ✓", "n": [1, 2.5, None]})
        await store.aput(("shared",), "k", {"v": 1}, ttl=60)
    return postgres_url


async def imported(*arguments: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["import", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    return request.getfixturevalue("new_postgres_ledger")()


async def test_each_checkpoint_reads_as_langgraph_reads_it(source: str, target: str) -> None:
    told = await imported("langgraph-postgres", "--from", source, "--database", target, "--graph", "g")
    assert "threads      3 found, 3 written" in told
    async with AsyncPostgresSaver.from_conn_string(source) as saver, opened(database=target) as runtime:
        for thread_id in THREADS:
            theirs = [one async for one in saver.alist(config(thread_id))]
            ours = [one async for one in runtime.saver.alist(config(thread_id))]
            assert len(ours) == len(theirs) > 4
            for one, other in zip(sorted(theirs, key=place), sorted(ours, key=place), strict=True):
                assert (one.config, one.parent_config, one.metadata) == (
                    other.config,
                    other.parent_config,
                    other.metadata,
                )
                assert one.checkpoint == other.checkpoint
                assert sorted(kept(one), key=repr) == sorted(kept(other), key=repr)


def kept(saved: Any) -> list[Any]:
    """Return the writes but for an answer that no task has taken, which the ledger does not show."""
    return [write for write in saved.pending_writes if not (write[0] == str(UUID(int=0)) and write[1] == RESUME)]


def place(saved: Any) -> tuple[str, str]:
    return saved.config["configurable"]["checkpoint_ns"], saved.config["configurable"]["checkpoint_id"]


async def test_a_thread_that_waits_for_an_answer_goes_on(source: str, target: str) -> None:
    await imported("langgraph-postgres", "--from", source, "--database", target, "--graph", "g")
    async with opened(database=target, graphs={"g": graph()}) as runtime:
        thread = await runtime.store.threads.get(THREADS[1], owner="")
        assert thread.status == "interrupted"
        assert [[one["value"] for one in asked] for asked in thread.interrupts.values()] == [[{"question": "go on?"}]]
        assert thread.values["flags"] == ["A", "B"]
        run = await runtime.runs.create(THREADS[1], kwargs={"graph_id": "g", "command": {"resume": "yes"}})
        assert (await ended(runtime, run)).status == "success"
        thread = await runtime.store.threads.get(THREADS[1], owner="")
        assert thread.values["flags"] == ["A", "B", "A", "B", "yes"], "the subgraph gives back what it was given, too"


async def test_items_keep_their_namespaces_and_their_expiry(source: str, target: str) -> None:
    await imported("langgraph-postgres", "--from", source, "--database", target, "--owner", "ann")
    async with opened(database=target) as runtime:
        store = runtime.long_term_store.for_owner("ann")
        item = await store.aget(("users", "ann", "notes"), "tea")
        assert item.value == {"likes": "tea ✓", "n": [1, 2.5, None]}
        assert [found.key for found in await store.asearch(("shared",))] == ["k"]
        assert await store.asearch(("users", "a")) == []
    async with AsyncPostgresStore.from_conn_string(source) as theirs:
        other = await theirs.aget(("users", "ann", "notes"), "tea")
        assert (item.created_at, item.updated_at) == (other.created_at, other.updated_at)


async def test_a_dry_run_writes_nothing(source: str, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/ledger.db"
    told = await imported("langgraph-postgres", "--from", source, "--database", database, "--dry-run")
    assert "threads      3 found\n" in told
    assert "Note: 1 threads that only the library reaches: their ids are no UUIDs (plain-id)" in told
    assert "Nothing was written." in told
    assert os.listdir(tmp_path) == []


async def test_threads_that_stay_without_a_graph_are_told(source: str, tmp_path: Path) -> None:
    arguments = ("langgraph-postgres", "--from", source, "--database", f"sqlite:///{tmp_path}/ledger.db", "--dry-run")
    said = "Note: 3 threads without a graph, so that the server cannot read their state: name it with --graph (1111"
    assert said in await imported(*arguments)
    assert "without a graph" not in await imported(*arguments, "--graph", "g")


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
async def test_a_graph_that_the_project_does_not_have_is_refused(
    dry: tuple[str, ...], source: str, target: str, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "langgraph.json").write_text('{"graphs": {"agent": "./a.py:graph", "other": "./a.py:other"}}')
    arguments = ["langgraph-postgres", str(project), "--from", source, "--database", target, *dry, "--graph"]
    refused = await asyncio.to_thread(CliRunner().invoke, app, ["import", *arguments, "nosuch"])
    assert refused.exit_code == 2
    assert refused.stderr == "error: The project has no graph 'nosuch'; its graphs are: agent, other.\n"
    assert "threads      3 found" in await imported(*arguments, "other")


async def test_an_import_is_repeated_without_a_change(source: str, target: str) -> None:
    arguments = ("langgraph-postgres", "--from", source, "--database", target)
    first = await imported(*arguments)
    async with opened(database=target) as runtime:
        await runtime.store.threads.patch(THREADS[0], owner="", metadata={"mine": 1})
    again = await imported(*arguments)
    assert first.replace(" written", " written, ") != again
    assert "threads      3 found, 0 written, 3 there already" in again
    found = json.loads(await imported(*arguments, "--json"))
    assert found["imported"]["threads"] == {"found": 3, "written": 0, "there": 3}
    async with opened(database=target) as runtime:
        assert (await runtime.store.threads.get(THREADS[0], owner="")).metadata == {"mine": 1}


async def test_a_thread_with_a_pickle_is_left_out_and_named(source: str, target: str) -> None:
    with psycopg.connect(source) as connection:
        connection.execute("UPDATE checkpoint_blobs SET type = 'pickle' WHERE thread_id = %s", (THREADS[1],))
    told = await imported("langgraph-postgres", "--from", source, "--database", target)
    assert "threads      3 found, 2 written" in told
    assert f"({THREADS[1]})" in told


@pytest.mark.parametrize("kind", ["aegra", "langgraph-postgres"])
def test_a_database_without_the_tables_is_refused(kind: str, postgres_url: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["import", kind, "--from", postgres_url, "--database", f"sqlite:///{tmp_path}/l.db"]
    )
    assert result.exit_code == 2
    assert "has no checkpoints of langgraph-checkpoint-postgres" in result.stderr
