"""What a process does that has nothing to do, beside others on one ledger; how soon it sees that one of them died."""

from __future__ import annotations

import asyncio

import pytest

from run_kit import FaultyDriver, on_jumping_time, opened
from runlane.leases import WorkerState
from runlane.store.statements import Transaction

IDLE_S = 600
#: No whole number of looks.
LEASE_S = 10.3


class CountingDriver(FaultyDriver):
    """A ledger in memory that counts its transactions."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions = 0

    def apply(self, transaction: Transaction[object]) -> object:
        self.transactions += 1
        return super().apply(transaction)


@on_jumping_time
async def test_a_process_at_rest_has_two_transactions_a_second() -> None:
    driver = CountingDriver()
    async with opened(driver, exclusive=False, lease_s=LEASE_S):
        before = driver.transactions
        await asyncio.sleep(IDLE_S)
        assert driver.transactions - before <= 2 * IDLE_S


@pytest.mark.parametrize("phase_s", [0.0, 0.2, 0.5, 0.9])
def test_a_run_is_taken_over_within_the_lease_and_two_seconds_whenever_its_worker_died(phase_s: float) -> None:
    @on_jumping_time
    async def dies() -> None:
        async with opened(FaultyDriver(), exclusive=False, lease_s=LEASE_S) as runtime:
            await asyncio.sleep(5 + phase_s)
            run = await runtime.runs.create("t")
            await runtime.store.workers.beat(WorkerState(worker_id="dead", lease_s=LEASE_S))
            assert await runtime.store.attempts.claim(run.run_id, "dead", lease_s=LEASE_S)
            await asyncio.sleep(LEASE_S + 1.0)
            assert not (await runtime.runs.get(run.run_id)).rescues, "its lease may last so long, by its own clock"
            await asyncio.sleep(1.05)
            assert (await runtime.runs.get(run.run_id)).rescues == 1

    dies()
