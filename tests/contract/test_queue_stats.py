"""How long the queue is, and for how long runs have waited in it."""

from __future__ import annotations

import pytest

from ledger_kit import admit, claim, ended
from runlane.store.ledger import RunStore
from runlane.store.statements import Transaction, statement
from runlane.store.transactions.queue import QueueStats

WAITING = statement("waiting", "UPDATE runs SET not_before = {now} - :waited_us WHERE run_id = :run_id")


async def waiting(store: RunStore, run_id: str, waited_s: float) -> None:
    def move() -> Transaction[None]:
        yield WAITING(run_id=run_id, waited_us=int(waited_s * 1_000_000))

    await store.driver.write(move())


async def test_an_empty_ledger_has_no_queue(store: RunStore) -> None:
    nothing = QueueStats(pending=0, running=0, wait_max_s=0.0, wait_median_s=0.0, unblocked_wait_max_s=0.0)
    assert await store.queue.stats() == nothing
    await ended(store)
    assert await store.queue.stats() == nothing


async def test_a_run_waits_from_when_it_may_start_and_is_blocked_by_its_thread_only(store: RunStore) -> None:
    await claim(store, await admit(store, "busy"))
    for thread_id, waited_s in (("busy", 900.0), ("busy", 50.0), ("free", 100.0), ("free", 400.0), ("other", 10.0)):
        await waiting(store, await admit(store, thread_id), waited_s)
    await admit(store, "late", delay_s=1000.0)
    stats = await store.queue.stats()
    assert (stats.pending, stats.running) == (6, 1)
    assert [stats.wait_max_s, stats.wait_median_s, stats.unblocked_wait_max_s] == pytest.approx([900, 100, 100], abs=5)


async def test_a_delayed_run_does_not_hide_one_that_waits(store: RunStore) -> None:
    await admit(store, "late", delay_s=1000.0)
    await waiting(store, await admit(store, "t"), 60.0)
    assert (await store.queue.stats()).unblocked_wait_max_s == pytest.approx(60, abs=5)
