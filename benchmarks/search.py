"""Measure searches of threads in a ledger of many threads: the filters that chat front ends send.

Makes the threads by SQL, straight into the tables, then asks as the server does and prints milliseconds.

    python benchmarks/search.py --threads 1000000                                     # SQLite
    python benchmarks/search.py --threads 1000000 --database postgresql://host/empty  # PostgreSQL, an empty database
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runlane.lifecycle import ThreadStatus
from runlane.records import ANY_OWNER, NO_OWNER, Owner
from runlane.settings import Settings
from runlane.store.backends import open_driver
from runlane.store.drivers.postgres import PostgresDriver
from runlane.store.ledger import RunStore
from runlane.store.statements import Driver, Statement, Transaction, statement
from runlane.store.transactions.thread_search import ThreadFilter

ROUNDS: Final = 20
#: A search that takes so long is not repeated as often.
ENOUGH_MS: Final = 5000.0
#: Threads made by one statement.
BATCH: Final = 100_000
#: What one thread in so many has; the owner '' has all of them, as in an application without tenants.
RARE, SOME, ASKED = 1000, 50, 500
VALUES: Final = '{"messages": [{"type": "human", "content": "' + "x" * 500 + '"}]}'
_COLUMNS: Final = (
    "thread_id, owner, status, settled, metadata, config, state_values, interrupts, created_at, updated_at"
)
_METADATA: Final = f"""'{{"graph_id": "' || CASE WHEN n % {RARE} = 500 THEN 'rare' WHEN n % {SOME} = 7 THEN 'some'
    ELSE 'agent' END || '", "assistant_id": "a0", "user_id": "u' || (n % :users) || '", "number": ' || (n % :users)
    || '}}'"""
_STATUS: Final = f"CASE WHEN n % {ASKED} = 3 THEN 'interrupted' ELSE 'idle' END"
#: A thread is changed 0.2 s after the one before it.
_ROW: Final = f"""{_STATUS}, {_STATUS}, {_METADATA}, '{{}}', CAST(:state_values AS TEXT), '{{}}',
    n * 200000, n * 200000, n * 200000"""
FILL: Final = statement(
    "fill",
    f"""WITH RECURSIVE numbers (n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :upto)
        INSERT INTO threads ({_COLUMNS}, state_updated_at) SELECT printf('t%08d', n), '', {_ROW} FROM numbers""",
    postgres=f"""INSERT INTO threads ({_COLUMNS}, state_updated_at)
        SELECT 't' || lpad(n::text, 8, '0'), '', {_ROW}
        FROM generate_series(CAST(:first AS bigint), CAST(:upto AS bigint) - 1) AS n""",
)
#: As the triggers do it, sorted as the index is: a hundred times as fast as a thread at a time.
FILL_TERMS: Final = statement(
    "fill_terms",
    """INSERT INTO thread_terms (term, minute, thread_id)
       SELECT key || '=' || value AS term, updated_at / 60000000 AS minute, thread_id
       FROM threads, json_each(metadata) WHERE type = 'text' ORDER BY term, minute, thread_id""",
    postgres="""INSERT INTO thread_terms (term, minute, thread_id)
       SELECT thread_terms_of(metadata) AS term, updated_at / 60000000 AS minute, thread_id FROM threads
       ORDER BY term, minute, thread_id""",
)
TRIGGERS: Final = statement("triggers", "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A search: its filter and order."""

    where: ThreadFilter
    sort_by: str = "updated_at"


#: What chat front ends look for in metadata.
FILTERS: Final[dict[str, dict[str, Any]]] = {
    "graph_id of all": {"graph_id": "agent"},
    "graph_id of 1 in 1,000": {"graph_id": "rare"},
    "graph_id of 1 in 50": {"graph_id": "some"},
    "assistant_id of all": {"assistant_id": "a0"},
    "user of 100 threads": {"user_id": "u17"},
    "user and graph_id": {"user_id": "u17", "graph_id": "agent"},
    "nobody": {"user_id": "nobody"},
}
#: These and others; the last two read every thread.
SEARCHES: Final[dict[str, Asked]] = {
    "nothing": Asked(where=ThreadFilter()),
    **{name: Asked(where=ThreadFilter(metadata=metadata)) for name, metadata in FILTERS.items()},
    "user, by creation": Asked(where=ThreadFilter(metadata={"user_id": "u17"}), sort_by="created_at"),
    "interrupted": Asked(where=ThreadFilter(status=ThreadStatus.INTERRUPTED)),
    "interrupted, graph_id of all": Asked(
        where=ThreadFilter(status=ThreadStatus.INTERRUPTED, metadata={"graph_id": "agent"})
    ),
    "busy": Asked(where=ThreadFilter(status=ThreadStatus.BUSY)),
    "ids": Asked(where=ThreadFilter(ids=tuple(f"t{number:08}" for number in range(100)))),
    "number, graph_id of 1 in 1,000": Asked(where=ThreadFilter(metadata={"number": 17, "graph_id": "rare"})),
    "nothing, by creation": Asked(where=ThreadFilter(), sort_by="created_at"),
    "number of 100 threads": Asked(where=ThreadFilter(metadata={"number": 17})),
}


async def fill(driver: Driver, total: int) -> None:
    """Make *total* threads and their index, without the triggers that make it a thread at a time."""

    def made() -> Transaction[None]:
        triggers = [] if isinstance(driver, PostgresDriver) else (yield TRIGGERS())
        before = [f"DROP TRIGGER {trigger['name']}" for trigger in triggers]
        after = [trigger["sql"] for trigger in triggers]
        if isinstance(driver, PostgresDriver):
            before = ["ALTER TABLE threads DISABLE TRIGGER USER"]
            # The server analyses tables by itself, but not at once.
            after = ["ALTER TABLE threads ENABLE TRIGGER USER", "ANALYZE threads", "ANALYZE thread_terms"]
        for sql in before:
            yield Statement("before", sql, sql)()
        for first in range(0, total, BATCH):
            upto, users = min(total, first + BATCH), max(1, total // 100)
            yield FILL(first=first, upto=upto, users=users, state_values=VALUES)
        yield FILL_TERMS()
        for sql in after:
            yield Statement("after", sql, sql)()

    await driver.write(made())


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A page, and what it took: by the clock, and of the processor, which other load disturbs less."""

    found: int
    wall_ms: float
    cpu_ms: float


async def timed(store: RunStore, owner: Owner, asked: Asked, limit: int) -> Timed:
    """Ask for a page as the server does: with one more, and counted up to 1,001."""
    begun, begun_cpu = time.perf_counter(), time.process_time()
    page = await store.threads.page(
        owner=owner, where=asked.where, sort_by=asked.sort_by, limit=limit + 1, count_at_most=1001, with_values=False
    )
    return Timed(
        found=min(limit, len(page.threads)),
        wall_ms=(time.perf_counter() - begun) * 1000,
        cpu_ms=(time.process_time() - begun_cpu) * 1000,
    )


async def report(store: RunStore, rounds: int) -> None:
    print(f"| {'filter':30} | owner | limit | found | median ms |  worst ms | median CPU ms |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for name, asked in SEARCHES.items():
        for shown, owner in (("one", NO_OWNER), ("any", ANY_OWNER)):
            for limit in (10, 100):
                pages = [await timed(store, owner, asked, limit)]
                while len(pages) < rounds and sum(page.wall_ms for page in pages) < ENOUGH_MS:
                    pages.append(await timed(store, owner, asked, limit))
                wall, cpu = [page.wall_ms for page in pages], [page.cpu_ms for page in pages]
                print(
                    f"| {name:30} | {shown:5} | {limit:5} | {pages[0].found:5} | {statistics.median(wall):9.2f} "
                    f"| {max(wall):9.2f} | {statistics.median(cpu):13.2f} |",
                    flush=True,
                )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--database", help="an empty one; an SQLite file in a temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        driver = await open_driver(Settings(database=arguments.database or f"sqlite:///{Path(folder) / 'runlane.db'}"))
        try:
            begun = time.perf_counter()
            await fill(driver, arguments.threads)
            print(f"{arguments.threads:,} threads made in {time.perf_counter() - begun:.0f} s\n")
            await report(RunStore(driver), arguments.rounds)
        finally:
            await driver.aclose()


if __name__ == "__main__":
    asyncio.run(main())
