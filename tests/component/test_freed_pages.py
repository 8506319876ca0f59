"""What was deleted leaves the file too, while it is used."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph

from ledger_kit import admit
from runlane.checkpoints.saver import LedgerSaver
from runlane.errors import LedgerInUse, StoreUnavailable
from runlane.maintenance.freed_pages import FreedPages
from runlane.records import ANY_OWNER, NO_OWNER
from runlane.settings import Settings
from runlane.store.backends import open_driver
from runlane.store.compacting import compact_sqlite
from runlane.store.drivers.sqlite import SqliteDriver
from runlane.store.ledger import RunStore
from runlane.store.statements import Transaction, statement

MIB = 2**20
TURNS = 16
FILL = statement("fill", "INSERT INTO probes (written_at, filler) VALUES (0, zeroblob(:bytes))")
FREE = statement("free", "DELETE FROM probes WHERE place <= :upto")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
async def driver(path: Path) -> AsyncIterator[SqliteDriver]:
    opened = await open_driver(Settings(database=f"sqlite:///{path}", synchronous="normal"))
    assert isinstance(opened, SqliteDriver)
    yield opened
    await opened.aclose()


class Draft(TypedDict):
    turn: int
    text: str


def graph(saver: Any) -> Any:
    async def write(state: Draft) -> Any:
        return {"text": random.Random(state["turn"]).randbytes(200_000).hex()}

    return StateGraph(Draft).add_node("write", write).add_edge(START, "write").compile(checkpointer=saver)


async def talk(store: RunStore, saver: LedgerSaver, thread_id: str) -> None:
    """Make a thread whose checkpoints take some megabytes."""
    await store.threads.create(thread_id, owner=NO_OWNER, metadata={})
    at: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    for turn in range(TURNS):
        await graph(saver).ainvoke({"turn": turn}, at)


def filled(mib: int = 1) -> Transaction[None]:
    yield FILL(bytes=mib * MIB)


def freed(upto: int) -> Transaction[None]:
    yield FREE(upto=upto)


def size(path: Path) -> int:
    return path.stat().st_size


async def shorten(driver: SqliteDriver) -> int:
    """Give back all that is too much; return in how many pieces."""
    pages, pieces = FreedPages(driver), 0
    while await pages.turn():
        pieces += 1
    return pieces


async def test_the_file_of_an_open_database_shrinks_after_a_prune_and_a_deletion(
    driver: SqliteDriver, path: Path
) -> None:
    store, saver = RunStore(driver), LedgerSaver(driver)
    for thread_id in ("pruned", "deleted"):
        await talk(store, saver, thread_id)
    await driver.checkpoint()
    full = size(path)
    assert full > 5 * MIB

    prune = await saver.threads.pruning("pruned")
    await store.threads.change_idle("pruned", owner=ANY_OWNER, extra_writes=prune)
    await store.threads.delete("deleted", owner=ANY_OWNER, extra_writes=lambda: saver.threads.removing("deleted"))
    assert size(path) == full
    assert await shorten(driver) > 1
    assert size(path) < full / 2
    run_id = await admit(store)

    assert [run.run_id for run in await store.runs.list("t", owner=ANY_OWNER, limit=9)] == [run_id]
    at: Any = {"configurable": {"thread_id": "pruned", "checkpoint_ns": ""}}
    assert (await graph(saver).aget_state(at)).values["turn"] == TURNS - 1
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_file_with_little_free_space_is_left_alone(driver: SqliteDriver) -> None:
    for _ in range(20):
        await driver.write(filled())
    await driver.write(freed(3))
    assert await shorten(driver) == 0
    await driver.write(freed(6))
    assert await shorten(driver) > 0


async def test_writes_are_taken_between_the_pieces(driver: SqliteDriver) -> None:
    store, saver = RunStore(driver), LedgerSaver(driver)
    await talk(store, saver, "gone")
    await store.threads.delete("gone", owner=ANY_OWNER, extra_writes=lambda: saver.threads.removing("gone"))
    pages, admitted = FreedPages(driver), []
    while await pages.turn():
        admitted.append(await admit(store))
    assert len(admitted) > 1
    assert len(await store.runs.list("t", owner=ANY_OWNER, limit=100)) == len(admitted)


async def test_a_long_log_is_cut_when_it_is_begun_again(driver: SqliteDriver, path: Path) -> None:
    store, saver = RunStore(driver), LedgerSaver(driver)
    log = Path(f"{path}-wal")

    await driver.write(filled(24))
    assert size(log) > 24 * MIB
    await driver.checkpoint()
    await talk(store, saver, "t")
    assert size(log) <= 16 * MIB


def make_old(path: Path) -> None:
    """Make a file as earlier versions did: it has a table, so that its format cannot be changed."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE old (x); PRAGMA journal_mode=WAL")


async def test_a_file_of_an_earlier_version_shrinks_once_it_is_compacted(path: Path) -> None:
    make_old(path)
    os.chmod(path, 0o640)
    for turn in ("as it is", "compacted"):
        driver = await open_driver(Settings(database=f"sqlite:///{path}", synchronous="normal"))
        assert isinstance(driver, SqliteDriver)
        store, saver = RunStore(driver), LedgerSaver(driver)
        await talk(store, saver, "gone")
        await store.threads.delete("gone", owner=ANY_OWNER, extra_writes=lambda: saver.threads.removing("gone"))  # noqa: B023
        run_id = await admit(store)
        pieces = await shorten(driver)
        await driver.aclose()
        assert (pieces > 0) == (turn == "compacted")
        told: list[tuple[int, int]] = []
        done = compact_sqlite(path, lambda copied, total: told.append((copied, total)))  # noqa: B023
        assert done.after == size(path) < MIB
        assert told[-1][0] == told[-1][1]
        assert os.stat(path).st_mode & 0o777 == 0o640
    driver = await open_driver(Settings(database=f"sqlite:///{path}"))
    assert isinstance(driver, SqliteDriver)
    assert run_id in [run.run_id for run in await RunStore(driver).runs.list("t", owner=ANY_OWNER, limit=9)]
    await driver.aclose()
    assert sorted(os.listdir(path.parent)) == ["ledger.db", "ledger.db.lock"]


async def test_a_file_that_a_server_uses_is_not_compacted(driver: SqliteDriver, path: Path) -> None:
    with pytest.raises(LedgerInUse):
        compact_sqlite(path, lambda *_: None)
    await admit(RunStore(driver))


def test_a_file_that_somebody_reads_is_not_replaced_under_them(path: Path) -> None:
    make_old(path)
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("SELECT * FROM old").fetchall()
        with pytest.raises(StoreUnavailable, match="locked"):
            compact_sqlite(path, lambda *_: None)
        reader.execute("INSERT INTO old VALUES (1)")
        reader.commit()
    compact_sqlite(path, lambda *_: None)
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("SELECT x FROM old").fetchall() == [(1,)]
