"""Large values that an earlier version stored whole become documents, and read the same before, meanwhile and after."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from runlane.checkpoints.rewriting import rewrite_large_values
from runlane.checkpoints.saver import LedgerSaver
from runlane.checkpoints.serializer import LedgerSerializer
from runlane.cli.main import app
from runlane.store.drivers.sqlite import SqliteDriver
from runlane.store.migrate import migrate_sqlite, upgrade
from runlane.store.migrations import revisions
from runlane.store.statements import Query, Rows, Transaction

BEFORE_PARTS = "0016"
TURNS, THREADS = 12, 3
TEXT = "What was stored once in a thread is not stored again. " * 10
SERDE = LedgerSerializer()


async def _reply(state: MessagesState) -> Any:
    return {"messages": [AIMessage(TEXT, id=f"{len(state['messages'])}")]}


async def histories() -> InMemorySaver:
    saver = InMemorySaver(serde=SERDE)
    graph = StateGraph(MessagesState).add_node("n", _reply).add_edge(START, "n").compile(checkpointer=saver)
    for number in range(THREADS):
        for turn in range(TURNS):
            message = {"role": "user", "content": f"{turn} {TEXT}", "id": f"turn {turn}"}
            await graph.ainvoke({"messages": [message]}, {"configurable": {"thread_id": f"thread {number}"}})
    return saver


def insert(connection: sqlite3.Connection, saver: InMemorySaver) -> None:
    """Store what *saver* has as the version before parts did."""
    for saved in saver.list(None):
        at = saved.config["configurable"]
        body: dict[str, Any] = {**saved.checkpoint}
        values = body.pop("channel_values")
        parent = (saved.parent_config or {"configurable": {}})["configurable"].get("checkpoint_id")
        place = (at["thread_id"], at["checkpoint_ns"])
        row = (*place, at["checkpoint_id"], "", parent, *SERDE.dumps_typed(body), *SERDE.dumps_typed(saved.metadata))
        connection.execute(
            "INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, run_id, parent_id, type, checkpoint,"
            " metadata_type, metadata) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        for channel, version in saved.checkpoint["channel_versions"].items():
            if channel in values:
                blob = (*place, channel, str(version), "", *SERDE.dumps_typed(values[channel]))
                connection.execute("INSERT OR IGNORE INTO checkpoint_blobs VALUES (?, ?, ?, ?, ?, ?, ?)", blob)
        for seq, (task_id, channel, value) in enumerate(saved.pending_writes or (), start=1):
            call = (*place, at["checkpoint_id"], seq, "", task_id, "", *SERDE.dumps_typed([[channel, value]]))
            connection.execute("INSERT INTO checkpoint_writes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", call)


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Return the file of a version that stored every value whole."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        for sql in upgrade("sqlite", tuple(each for each in revisions() if each <= BEFORE_PARTS)):
            connection.execute(sql)
        insert(connection, await histories())
        gone = SERDE.dumps_typed(["gone.module", "Gone", {"text": "x" * 8000}, "model_validate_json"])[1]
        of_a_type_that_is_not_there = struct.pack(">BHB", 0xC8, len(gone), 5) + gone
        connection.execute(
            "UPDATE checkpoint_blobs SET value = ? WHERE channel = '__start__'", (of_a_type_that_is_not_there,)
        )
        connection.commit()
    return path


@asynccontextmanager
async def opened(path: Path, kind: type[SqliteDriver] = SqliteDriver) -> AsyncIterator[SqliteDriver]:
    driver = kind(path, synchronous="normal")
    migrate_sqlite(path)
    try:
        yield driver
    finally:
        await driver.aclose()


async def everything(driver: SqliteDriver) -> list[Any]:
    return [
        (each.config, SERDE.dumps_typed(each.checkpoint["channel_values"].get("messages")), each.pending_writes)
        async for each in LedgerSaver(driver).alist(None)
    ]


def literal(path: Path) -> int:
    """Return how many large values are stored whole."""
    with closing(sqlite3.connect(path)) as connection:
        found = [
            connection.execute(f"SELECT count(*) FROM {table} WHERE refs IS NULL AND length({column}) >= 4096")
            for table, column in (("checkpoint_blobs", "value"), ("checkpoint_writes", "writes"))
        ]
        return sum(each.fetchone()[0] for each in found)


def stored_bytes(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT sum(length(value) + coalesce(length(refs), 0)) FROM checkpoint_blobs"
            " UNION ALL SELECT coalesce(sum(length(data) + length(ref)), 0) FROM parts"
        )
        return sum(row[0] for row in rows)


class Killed(Exception):
    """The process is gone."""


class DyingDriver(SqliteDriver):
    """Dies in the middle of the transaction that rewrites the fifth value."""

    rewrites = 0

    async def write(self, transaction: Transaction[Any]) -> Any:
        return await super().write(self._dying(transaction))

    def _dying(self, transaction: Transaction[Any]) -> Transaction[Any]:
        query: Query = next(transaction)
        while True:
            rows: Rows = yield query
            self.rewrites += query.statement.name == "rewriting.put_value"
            if self.rewrites == 5:
                raise Killed
            try:
                query = transaction.send(rows)
            except StopIteration as stop:
                return stop.value


async def test_old_values_are_rewritten_and_read_the_same(path: Path) -> None:
    told: list[tuple[int, int]] = []
    async with opened(path) as driver:
        before, size = await everything(driver), stored_bytes(path)
        rewritten = await rewrite_large_values(driver, lambda *done: told.append(done))
        assert await everything(driver) == before
        assert rewritten > THREADS * TURNS
        assert await rewrite_large_values(driver) == 0
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert literal(path) == 0
    assert stored_bytes(path) < size / 4


async def test_a_rewriting_that_is_killed_goes_on_where_it_was(path: Path) -> None:
    async with opened(path) as driver:
        before = await everything(driver)
    async with opened(path, DyingDriver) as driver:
        with pytest.raises(Killed):
            await rewrite_large_values(driver)
        assert await everything(driver) == before
    left = literal(path)
    assert left
    async with opened(path) as driver:
        assert await rewrite_large_values(driver) == left
        assert await everything(driver) == before


async def test_a_run_goes_on_with_values_that_were_rewritten(path: Path) -> None:
    async with opened(path) as driver:
        await rewrite_large_values(driver)
        graph = StateGraph(MessagesState).add_node("n", _reply).add_edge(START, "n")
        config: Any = {"configurable": {"thread_id": "thread 1"}}
        state = await graph.compile(checkpointer=LedgerSaver(driver)).ainvoke(
            {"messages": [{"role": "user", "content": TEXT, "id": "last"}]}, config
        )
        assert len(state["messages"]) == 2 * TURNS + 2


def test_the_command_rewrites_and_says_so(path: Path) -> None:
    answer = CliRunner().invoke(app, ["migrate", "--database", f"sqlite:///{path}"])
    assert answer.exit_code == 0, answer.output
    assert "large values share now what they have in common" in answer.output
    assert literal(path) == 0
    again = CliRunner().invoke(app, ["migrate", "--database", f"sqlite:///{path}"])
    assert "share now" not in again.output
