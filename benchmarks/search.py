"""Measure searches of threads by metadata in a ledger of many threads: the filters that chat front ends send.

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from runlane.records import ANY_OWNER, NO_OWNER, Owner
from runlane.runtime import open_driver
from runlane.settings import Settings
from runlane.store.ledger import RunStore
from runlane.store.statements import Driver, Transaction, statement
from runlane.store.transactions.thread_search import ThreadFilter

ROUNDS: Final = 20
BATCH: Final = 10_000
#: A thread is changed so long after the one before it.
APART_US: Final = 200_000
INSERT = statement(
    "insert_thread",
    """INSERT INTO threads (thread_id, owner, status, settled, metadata, config, state_values, interrupts,
                            created_at, updated_at, state_updated_at)
       VALUES (:thread_id, '', 'idle', 'idle', :metadata, '{}', :state_values, '{}', :at, :at, :at)""",
)
VALUES = '{"messages": [{"type": "human", "content": "' + "x" * 500 + '"}]}'
#: Each filter, and of how many threads it finds one.
FILTERS: Final[dict[str, dict[str, Any]]] = {
    "graph_id of all": {"graph_id": "agent"},
    "graph_id of 1 in 1,000": {"graph_id": "rare"},
    "graph_id of 1 in 50": {"graph_id": "some"},
    "assistant_id of all": {"assistant_id": "a0"},
    "user of 100 threads": {"user_id": "u17"},
    "user and graph_id": {"user_id": "u17", "graph_id": "agent"},
    "nobody": {"user_id": "nobody"},
}


def rows(first: int, total: int) -> Iterator[dict[str, Any]]:
    users = max(1, total // 100)
    for number in range(first, min(first + BATCH, total)):
        graph = "rare" if number % 1000 == 500 else "some" if number % 50 == 7 else "agent"
        metadata = f'{{"graph_id": "{graph}", "assistant_id": "a0", "user_id": "u{number % users}"}}'
        yield {"thread_id": f"t{number:08}", "metadata": metadata, "state_values": VALUES, "at": number * APART_US}


async def fill(driver: Driver, total: int) -> None:
    def batch(first: int) -> Transaction[None]:
        yield INSERT.many(list(rows(first, total)))

    for first in range(0, total, BATCH):
        await driver.write(batch(first))


async def search_ms(store: RunStore, owner: Owner, where: ThreadFilter, limit: int) -> tuple[float, int]:
    begun = time.perf_counter()
    found = await store.threads.search(owner=owner, where=where, limit=limit)
    return (time.perf_counter() - begun) * 1000, len(found)


async def count_ms(store: RunStore, owner: Owner, where: ThreadFilter) -> float:
    begun = time.perf_counter()
    await store.threads.count(owner=owner, where=where, at_most=1001)
    return (time.perf_counter() - begun) * 1000


async def report(store: RunStore) -> None:
    print(f"{'filter':24} {'owner':6} {'limit':>5} {'found':>5} {'median ms':>9} {'worst ms':>9} {'count ms':>9}")
    for name, metadata in FILTERS.items():
        where = ThreadFilter(metadata=metadata)
        for shown, owner in (("one", NO_OWNER), ("any", ANY_OWNER)):
            for limit in (10, 100):
                searches = [await search_ms(store, owner, where, limit) for _ in range(ROUNDS)]
                counts = [await count_ms(store, owner, where) for _ in range(ROUNDS)]
                times = [spent for spent, _ in searches]
                print(
                    f"{name:24} {shown:6} {limit:5} {searches[0][1]:5} {statistics.median(times):9.2f} "
                    f"{max(times):9.2f} {statistics.median(counts):9.2f}"
                )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=100_000, help="how many (default: 100,000)")
    parser.add_argument("--database", help="an empty one; an SQLite file in a temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        driver = await open_driver(Settings(database=arguments.database or f"sqlite:///{Path(folder) / 'runlane.db'}"))
        try:
            await fill(driver, arguments.threads)
            await report(RunStore(driver))
        finally:
            await driver.aclose()


if __name__ == "__main__":
    asyncio.run(main())
