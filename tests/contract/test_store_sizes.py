"""Sizes of the database, its tables and threads, on every backend."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from ledger_kit import admit, running
from runlane.maintenance.table_sizes import EVERY_S, FIRST_AFTER_S, PAUSES, TableSizes
from runlane.records import StreamEvent
from runlane.store.ledger import RunStore
from runlane.store.transactions.events import insert_events
from runlane.store.transactions.parts import put_parts

LATER = datetime(2030, 1, 1, tzinfo=UTC)


async def test_a_thread_is_as_large_as_its_runs_and_events(store: RunStore) -> None:
    await running(store, "other", kwargs={"input": "x" * 1000})
    await admit(store, "t", kwargs={"input": "ä" * 1000})
    lease = await running(store, "events")
    data = b"x" * 5000
    for seq in (1, 2):
        event = StreamEvent(seq=seq, name="custom", data=data)
        await store.driver.write(insert_events(lease, [event]))
    found = await store.sizes.thread("t")
    assert (found.runs.count, found.events.count) == (1, 0)
    assert 2000 < found.runs.bytes < 3000  # bytes, not characters
    found = await store.sizes.thread("events")
    assert (found.runs.count, found.events.count) == (1, 2)
    assert 10_000 < found.events.bytes < 10_200
    await store.driver.write(put_parts("events", [], {"." + "A" * 20: random.Random(1).randbytes(3000)}))
    found = await store.sizes.thread("events")
    assert (found.parts.count, found.parts.bytes) == (1, 3000)
    nothing = await store.sizes.thread("nowhere")
    assert (nothing.runs.count, nothing.runs.bytes, nothing.events.bytes) == (0, 0, 0)


async def test_tables_are_measured_with_their_indexes_one_by_one(store: RunStore) -> None:
    names = await store.sizes.table_names()
    assert {"threads", "runs", "events", "thread_terms"} < set(names)
    assert not [name for name in names if name.startswith("sqlite_")]
    before = await store.sizes.table("runs")
    for number in range(100):
        await admit(store, f"t{number}", metadata={"note": random.Random(number).randbytes(4000).hex()})
    assert await store.sizes.table("runs") - before > 100 * 2000  # PostgreSQL compresses, and fills free pages first
    assert await store.sizes.table("nothing") == 0
    database = await store.sizes.database()
    assert database.bytes >= sum([await store.sizes.table(name) for name in names]) > 0
    assert database.free_bytes < database.bytes


async def test_measurements_take_a_thousandth_of_the_time_at_most(store: RunStore) -> None:
    sizes = TableSizes(store.sizes, now=lambda: LATER)
    assert (sizes.latest, sizes.period_s()) == (None, FIRST_AFTER_S)
    measured = await sizes.measure()
    assert sizes.latest == measured
    assert set(measured.tables) == set(await store.sizes.table_names())
    assert measured.at == LATER
    assert sizes.period_s() == max(EVERY_S, PAUSES * measured.took_s)
