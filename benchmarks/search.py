"""Measure searches of threads in a ledger of many threads: the filters that chat front ends send.

Makes the threads by SQL, straight into the tables, then asks as the server does and prints milliseconds.

    python benchmarks/search.py --threads 1000000             # an SQLite file in a temporary folder
    python benchmarks/search.py --threads 1000000 --postgres  # a PostgreSQL server of its own
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from filling import analyse, filled, in_batches, main, number_of, numbered, timed, with_threads

from runlane.lifecycle import ThreadStatus
from runlane.records import ANY_OWNER, NO_OWNER
from runlane.store.ledger import RunStore
from runlane.store.statements import Driver
from runlane.store.transactions.thread_search import ThreadFilter

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
FILL: Final = numbered("threads", f"{_COLUMNS}, state_updated_at", f"{number_of('t', 'n')}, '', {_ROW}")


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
    """Make *total* threads and their index."""
    filling = in_batches(FILL, total, users=max(1, total // 100), state_values=VALUES)
    await driver.write(with_threads(driver, filling))
    await analyse(driver, "threads", "thread_terms")


async def report(store: RunStore, rounds: int) -> None:
    """Ask for pages as the server does: with one more, and counted up to 1,001."""
    print(f"| {'filter':30} | owner | limit | found | median ms |  worst ms | median CPU ms |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for name, asked in SEARCHES.items():
        for shown, owner in (("one", NO_OWNER), ("any", ANY_OWNER)):
            for limit in (10, 100):
                ask = partial(
                    store.threads.page,
                    owner=owner,
                    where=asked.where,
                    sort_by=asked.sort_by,
                    limit=limit + 1,
                    count_at_most=1001,
                    with_values=False,
                )
                times, page = await timed(ask, rounds)
                found = min(limit, len(page.threads))
                print(f"| {name:30} | {shown:5} | {limit:5} | {found:5} | {times} |", flush=True)


async def measure(database: str, threads: int, rounds: int) -> None:
    async with filled(database, threads, "threads", partial(fill, total=threads)) as driver:
        await report(RunStore(driver), rounds)


if __name__ == "__main__":
    main(__doc__, "threads", measure)
