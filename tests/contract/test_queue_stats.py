"""How long the queue is, and for how long runs have waited in it."""

from __future__ import annotations

import pytest

from ledger_kit import a_plan, admit, claim, ended, waiting
from runlane.store.ledger import RunStore
from runlane.store.statements import Transaction, statement
from runlane.store.transactions.crons import CronTarget
from runlane.store.transactions.queue import QueueStats

LATE_WEBHOOK = statement("late_webhook", "UPDATE webhook_deliveries SET next_at = {now} - 60000000")
LATE_CRON = statement("late_cron", "UPDATE crons SET next_run_at = {now} - 900000000")


async def test_an_empty_ledger_has_no_queue(store: RunStore) -> None:
    nothing = QueueStats(
        pending=0, running=0, wait_max_s=0.0, wait_median_s=0.0, unblocked_wait_max_s=0.0, no_build_wait_max_s=0.0
    )
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


async def test_the_owners_with_the_most_pending_runs_come_first(store: RunStore) -> None:
    for owner, runs in (("ann", 2), ("bob", 3), ("cid", 1)):
        for number in range(runs):
            await admit(store, f"{owner}-{number}", owner=owner)
    await claim(store, await admit(store, "running", owner="ann"))
    found = await store.queue.backlog(owners=2)
    assert found.owners == (("bob", 3), ("ann", 2))
    assert (found.webhooks_late_s, found.crons_late_s) == (0.0, 0.0)


async def test_a_cron_and_a_webhook_are_late_from_when_they_were_due(store: RunStore) -> None:
    def late() -> Transaction[None]:
        yield LATE_WEBHOOK()
        yield LATE_CRON()

    target = CronTarget(owner="", assistant_id="a", assistant_owner="*")
    await store.crons.create("c", target, a_plan())
    await ended(store, webhook="https://example.com/hook")
    await store.driver.write(late())
    found = await store.queue.backlog(owners=2)
    assert (found.webhooks_late_s, found.crons_late_s) == (pytest.approx(60, abs=30), pytest.approx(900, abs=30))
