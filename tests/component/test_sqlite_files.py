"""What becomes of the ledger's file: removed, replaced, torn by a loss of power, or not to be written."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ledger_kit import admit
from runlane.errors import ConfigurationError, LedgerInUse, StoreUnavailable
from runlane.records import ANY_OWNER
from runlane.store.drivers.sqlite import SqliteDriver
from runlane.store.ledger import RunStore
from runlane.store.migrate import migrate_sqlite
from runlane.store.retry import PersistenceRetryPolicy

ONCE = PersistenceRetryPolicy(max_attempts=1)
TEARS, RUNS = 40, 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    migrate_sqlite(path)
    return path


async def runs_in(path: Path) -> list[str]:
    """Open the ledger as a process does that starts; return its runs, the oldest first, once all of it is sound."""
    driver = SqliteDriver(path)
    found = await RunStore(driver).runs.list("t", owner=ANY_OWNER, limit=1000)
    await driver.aclose()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return [run.run_id for run in reversed(found)]


async def test_a_hard_link_to_a_database_is_refused_live_or_not(path: Path) -> None:
    """The second server had a lock and a log of its own on the same file."""
    link = path.with_name("link.db")
    driver = SqliteDriver(path)
    os.link(path, link)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="2 names"):
            SqliteDriver(link)
        await driver.aclose()
    assert sorted(os.listdir(path.parent)) == sorted([path.name, f"{path.name}.lock", link.name])
    link.unlink()
    await SqliteDriver(path).aclose()


@pytest.mark.parametrize("made", [True, False], ids=["of a database", "of what is to be one"])
async def test_a_symbolic_link_is_served_and_is_the_same_database(path: Path, tmp_path: Path, made: bool) -> None:
    file = path if made else tmp_path / "elsewhere" / "new.db"
    file.parent.mkdir(exist_ok=True)
    link = tmp_path / "link.db"
    link.symlink_to(file)
    driver = SqliteDriver(link)
    migrate_sqlite(link)
    run_id = await admit(RunStore(driver))
    for name in (file, link):
        with pytest.raises(LedgerInUse):
            SqliteDriver(name)
    await driver.aclose()
    assert [name for name in os.listdir(tmp_path) if name.startswith("link.db")] == ["link.db"]
    assert await runs_in(file) == await runs_in(link) == [run_id]


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
async def test_nothing_is_accepted_into_a_file_that_is_not_there_any_more(path: Path, replaced: bool) -> None:
    driver = SqliteDriver(path)
    store = RunStore(driver, retry=ONCE)
    first = await admit(store)
    aside = path.with_name("aside.db")
    os.rename(path, aside)
    if replaced:
        shutil.copy(aside, path)
    for refused in (admit(store), store.runs.list("t", owner=ANY_OWNER)):  # no reader has opened the file yet
        with pytest.raises(StoreUnavailable, match="put that one back") as told:
            await refused
        assert str(path) in str(told.value)
    assert (path.name in os.listdir(path.parent)) == replaced
    os.replace(aside, path)
    second = await admit(store)
    await driver.aclose()
    assert await runs_in(path) == [first, second]


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
async def test_nothing_is_accepted_into_a_log_that_is_not_there_any_more_and_what_was_is_kept(
    path: Path, tmp_path: Path, replaced: bool
) -> None:
    driver = SqliteDriver(path)
    store = RunStore(driver, retry=ONCE)
    first = await admit(store)
    log = f"{path}-wal"
    os.unlink(log)
    if replaced:
        os.close(os.open(log, os.O_CREAT))
    with pytest.raises(StoreUnavailable, match=f"{log} .* restart this process"):
        await admit(store)
    left = shutil.copy(path, tmp_path / "left.db")  # what a killed process leaves
    await driver.aclose()
    assert await runs_in(left) == [first]
    assert await runs_in(path) == [first]


async def test_a_log_that_is_put_back_is_written_again(path: Path) -> None:
    driver = SqliteDriver(path)
    store = RunStore(driver, retry=ONCE)
    first = await admit(store)
    log = Path(f"{path}-wal")
    os.rename(log, path.with_name("aside"))
    with pytest.raises(StoreUnavailable, match="cannot be found"):
        await admit(store)
    os.rename(path.with_name("aside"), log)
    second = await admit(store)
    await driver.aclose()
    assert await runs_in(path) == [first, second]


def torn_copy(path: Path, place: Path, at: int, junk: bytes) -> Path:
    """Copy the ledger as it is on the disk, its log cut at a byte, or with *junk* from there."""
    place.mkdir()
    shutil.copy(path, place)
    log = Path(f"{path}-wal")
    data = log.read_bytes()
    (place / log.name).write_bytes(data[:at] + junk + data[at + len(junk) :] if junk else data[:at])
    return place / path.name


def log_bytes(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


async def test_after_a_loss_of_power_all_is_there_that_was_committed_before_the_torn_page(
    path: Path, tmp_path: Path
) -> None:
    """A prefix of the commits is left, and it is all of those before the tear."""
    driver = SqliteDriver(path)
    admitted: list[tuple[str, int]] = []
    for _ in range(RUNS):
        run_id = await admit(RunStore(driver))
        admitted.append((run_id, log_bytes(path)))
    rng = random.Random(1)
    for number in range(TEARS):
        tear = rng.randint(0, log_bytes(path) - 1)
        junk = rng.randbytes(512) if number % 2 else b""
        found = await runs_in(torn_copy(path, tmp_path / f"torn-{number}", tear, junk))
        assert found == [run_id for run_id, _ in admitted[: len(found)]], f"torn at {tear}"
        assert len(found) >= sum(end <= tear for _, end in admitted), f"torn at {tear}"
    await driver.aclose()
