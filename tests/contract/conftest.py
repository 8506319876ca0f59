"""The ledger on each of its databases."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from ledger_kit import empty_ledger
from postgres_cluster import PostgresCluster
from runlane.store.backends import migrate_postgres
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.drivers.postgres import open_postgres
from runlane.store.drivers.sqlite import SqliteDriver
from runlane.store.ledger import RunStore
from runlane.store.migrate import apply_scripts, migrate_sqlite
from runlane.store.statements import Driver


@pytest.fixture(scope="session")
def sqlite_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file with the schema and nothing else, to be copied."""
    path = tmp_path_factory.mktemp("ledger") / "empty.db"
    migrate_sqlite(path)
    return path


@pytest.fixture(scope="session")
def postgres_ledger(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """Give the address of a database with the schema, to be emptied by each test."""
    name = f"ledger_{uuid4().hex}"
    with psycopg.connect(postgres_cluster.dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        url = postgres_cluster.url(name)
        migrate_postgres(url)
        yield url
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def emptied(postgres_ledger: str) -> Callable[[], None]:
    """Give what empties the database with the schema."""
    return partial(empty_ledger, postgres_ledger)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Driver]:
    """Give an open driver on an empty ledger, once per database."""
    made = await _open(request, tmp_path)
    yield made
    await made.aclose()


@pytest.fixture
def store(driver: Driver) -> RunStore:
    """Give an empty ledger, once per database."""
    return RunStore(driver)


async def _open(request: pytest.FixtureRequest, tmp_path: Path) -> Driver:
    if request.param == "memory":
        memory = MemoryDriver()
        apply_scripts(memory)
        return memory
    if request.param == "sqlite":
        path = tmp_path / "ledger.db"
        shutil.copy(request.getfixturevalue("sqlite_ledger"), path)
        return SqliteDriver(path, synchronous="normal")
    url = request.getfixturevalue("postgres_ledger")
    empty_ledger(url)
    return await open_postgres(url)
