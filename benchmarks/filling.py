"""What benchmarks of large ledgers share: rows that are made by SQL, a database to make them in, and times."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from postgres_cluster import PostgresCluster  # a helper of the tests
from runlane.settings import Settings
from runlane.store.backends import migrate_postgres, open_driver
from runlane.store.drivers.postgres import PostgresDriver
from runlane.store.statements import Driver, Statement, Transaction, statement

ROUNDS: Final = 20
#: Rows made by one statement.
BATCH: Final = 100_000
T = TypeVar("T")
_TRIGGERS: Final = statement("triggers", "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
#: As the triggers do it, sorted as the index is: a hundred times as fast as a thread at a time.
_FILL_TERMS: Final = statement(
    "fill_terms",
    """INSERT INTO thread_terms (term, minute, thread_id)
       SELECT key || '=' || value AS term, updated_at / 60000000 AS minute, thread_id
       FROM threads, json_each(metadata) WHERE type = 'text' ORDER BY term, minute, thread_id""",
    postgres="""INSERT INTO thread_terms (term, minute, thread_id)
       SELECT thread_terms_of(metadata) AS term, updated_at / 60000000 AS minute, thread_id FROM threads
       ORDER BY term, minute, thread_id""",
)


def numbered(table: str, columns: str, values: str) -> Statement:
    """Return the statement that makes a row of *values* for each ``n`` from ``:first`` to below ``:upto``."""
    insert = f"INSERT INTO {table} ({columns}) SELECT {values} FROM"
    return statement(
        f"fill_{table}",
        f"""WITH RECURSIVE numbers (n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :upto)
            {insert} numbers""",
        postgres=f"{insert} generate_series(CAST(:first AS bigint), CAST(:upto AS bigint) - 1) AS n",
    )


def number_of(before: str, number: str) -> str:
    """Return the SQL of a text that sorts as *number* does, with eight digits after *before*."""
    return f"'{before}' || substr(CAST(100000000 + {number} AS TEXT), 2)"


def batches(fill: Statement, rows: int, /, **values: Any) -> Iterator[Transaction[None]]:
    """Yield transactions that make *rows*, each some of them."""

    def made(first: int) -> Transaction[None]:
        yield fill(first=first, upto=min(rows, first + BATCH), **values)

    return (made(first) for first in range(0, rows, BATCH))


def in_batches(fill: Statement, rows: int, /, **values: Any) -> Transaction[None]:
    """Make *rows* in one transaction."""
    for batch in batches(fill, rows, **values):
        yield from batch


def with_threads(driver: Driver, filling: Transaction[None]) -> Transaction[None]:
    """Make threads by *filling*, and their index, without the triggers that make it a thread at a time."""
    triggers = [] if isinstance(driver, PostgresDriver) else (yield _TRIGGERS())
    before = [f"DROP TRIGGER {trigger['name']}" for trigger in triggers]
    after = [trigger["sql"] for trigger in triggers]
    if isinstance(driver, PostgresDriver):
        before, after = ["ALTER TABLE threads DISABLE TRIGGER USER"], ["ALTER TABLE threads ENABLE TRIGGER USER"]
    for sql in before:
        yield Statement("before", sql, sql)()
    yield from filling
    yield _FILL_TERMS()
    for sql in after:
        yield Statement("after", sql, sql)()


async def analyse(driver: Driver, *tables: str) -> None:
    """Have PostgreSQL analyse *tables*, or all: it does so by itself, but not at once."""

    def analysed() -> Transaction[None]:
        yield Statement("analyse", "", f"ANALYZE {', '.join(tables)}")()

    if isinstance(driver, PostgresDriver):
        await driver.write(analysed())


@asynccontextmanager
async def filled(
    database: str, number: int, of: str, fill: Callable[[Driver], Awaitable[None]]
) -> AsyncIterator[Driver]:
    """Give the driver of *database*, for which *fill* has made its *number* of things; say how long that took."""
    driver = await open_driver(Settings(database=database))
    try:
        begun = time.perf_counter()
        await fill(driver)
        print(f"{number:,} {of} made in {time.perf_counter() - begun:.0f} s\n", flush=True)
        yield driver
    finally:
        await driver.aclose()


@contextmanager
def empty_database(*, postgres: bool) -> Iterator[str]:
    """Give the address of an SQLite file, or of a database of a PostgreSQL server of its own."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if not postgres:
            yield f"sqlite:///{Path(folder) / 'runlane.db'}"
            return
        cluster = stack.enter_context(PostgresCluster(durable=True))
        with psycopg.connect(cluster.dsn, autocommit=True) as admin:
            admin.execute("CREATE DATABASE benchmark")
        address = cluster.url("benchmark")
        migrate_postgres(address)
        yield address


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What one thing took, again and again: by the clock, and of the processor, which other load disturbs less."""

    wall_ms: Sequence[float]
    cpu_ms: Sequence[float]

    def __str__(self) -> str:
        median, worst, cpu = statistics.median(self.wall_ms), max(self.wall_ms), statistics.median(self.cpu_ms)
        return f"{median:9.2f} | {worst:9.2f} | {cpu:13.2f}"


async def timed(ask: Callable[[], Awaitable[T]], rounds: int, *, enough_ms: float = 5000.0) -> tuple[Times, T]:
    """Ask *rounds* times, or until that took *enough_ms*; return the times, and the last answer."""
    wall, cpu = list[float](), list[float]()
    while True:
        begun, begun_cpu = time.perf_counter(), time.process_time()
        answer = await ask()
        wall.append((time.perf_counter() - begun) * 1000)
        cpu.append((time.process_time() - begun_cpu) * 1000)
        if len(wall) >= rounds or sum(wall) >= enough_ms:
            return Times(wall_ms=wall, cpu_ms=cpu), answer


def main(description: str | None, of: str, measure: Callable[[str, int, int], Coroutine[Any, Any, None]]) -> None:
    """Read the command line, and have *measure* measure a database, with so many things *of* a kind, in rounds."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(f"--{of}", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--postgres", action="store_true")
    arguments = vars(parser.parse_args())
    with empty_database(postgres=arguments["postgres"]) as database:
        asyncio.run(measure(database, arguments[of], arguments["rounds"]))
