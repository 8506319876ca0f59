"""What Aegra 0.11.0 has stored: ``aegra-0.11.0.sql`` is a dump of a database that it made, without authentication.

It was filled by ``langgraph_sdk``: an assistant with two versions, a thread with two ended runs, one that waits for an
answer, an empty one, an item and two crons, which each started a run.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

import psycopg
import pytest
from click.testing import CliRunner
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from run_kit import ended, opened
from runlane.cli.main import app
from runlane.records import ANY_OWNER
from runlane.store.transactions.crons import CronFilter

TIDES = "626f2c02-a1c0-429f-a73d-f75ad2ded5db"
THREAD, QUESTION, EMPTY = (
    "aad1af15-2c2f-4e0b-9d0b-fc97b9455035",
    "2da1010e-ba1e-4045-a9e6-0b021b43eb6c",
    "de12cd69-36a7-4a29-bdd1-a004ac18e2b4",
)


class State(TypedDict, total=False):
    n: int
    answers: list[str]


def ask(state: State) -> State:
    return {"answers": [interrupt({"question": "go on?"})]}


@pytest.fixture
def source(postgres_url: str) -> str:
    with psycopg.connect(postgres_url) as connection:
        connection.execute((Path(__file__).parent / "aegra-0.11.0.sql").read_bytes())
    return postgres_url


async def imported(*arguments: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["import", "aegra", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


async def test_all_that_aegra_has_is_there_or_named(source: str, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/ledger.db"
    dry = await imported("--from", source, "--database", database, "--dry-run")
    told = await imported("--from", source, "--database", database, "--owner", "ann")
    assert "crons        2 found, 2 written" in told
    assert "items        1 found, 1 written" in told
    assert "Not imported: 2 assistants: of a graph" in told
    assert "runs: ended run: its thread has its result" in dry
    again = await imported("--from", source, "--database", database, "--owner", "ann")
    assert "crons        2 found, 0 written, 2 there already" in again
    graph = StateGraph(State).add_node("ask", ask).add_edge(START, "ask").add_edge("ask", END)
    async with opened(database=database, graphs={"asker": graph}) as runtime:
        store = runtime.store
        assistant = await store.assistants.get(TIDES, owner="ann")
        assert (assistant.name, assistant.version, assistant.config["configurable"]) == ("Tides 2", 2, {"k": 2})
        assert [one.name for one in await store.assistants.versions(TIDES, owner="ann")] == ["Tides 2", "Tides"]
        thread = await store.threads.get(THREAD, owner="ann")
        assert (thread.values, thread.metadata["topic"], thread.metadata["graph_id"]) == ({"n": 2}, "tides", "agent")
        assert (await store.threads.get(EMPTY, owner="ann")).values is None
        assert [item.value async for item in items(runtime)] == [{"likes": "tea"}]
        run = await runtime.runs.create(
            QUESTION, owner="ann", kwargs={"graph_id": "asker", "command": {"resume": "yes"}}
        )
        assert (await ended(runtime, run)).status == "success"
        assert (await store.threads.get(QUESTION, owner="ann")).values == {"n": 5, "answers": ["yes"]}
        crons = {one.plan.schedule: one for one in await store.crons.search(owner=ANY_OWNER, where=CronFilter())}
    weekly, monthly = crons["0 9 * * 1"], crons["30 8 1 * *"]
    assert (weekly.plan.timezone, weekly.plan.payload, weekly.plan.metadata) == (
        "Europe/Berlin",
        {"input": {"n": 1}},
        {"m": 1},
    )
    assert weekly.plan.next_run_at == datetime(2026, 12, 7, 8, tzinfo=UTC)
    assert (monthly.target.thread_id, monthly.target.thread_owner) == (THREAD, "ann")
    assert (monthly.plan.on_run_completed, weekly.plan.on_run_completed) == (None, "delete")


async def items(runtime: Any) -> Any:
    for item in await runtime.long_term_store.for_owner("ann").asearch(("notes", "tea")):
        yield item
