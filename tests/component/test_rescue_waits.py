"""A rescuer takes a run from a worker that was silent for a lease's time, while it could have seen it beat."""

from __future__ import annotations

import asyncio
from typing import Any

from ledger_kit import a_run
from run_kit import FaultyDriver, on_virtual_time, opened
from runlane.errors import StoreUnavailable
from runlane.leases import WorkerState
from runlane.maintenance.liveness import GRACE_S
from runlane.records import ANY_OWNER
from runlane.store.ledger import RunStore
from runlane.store.statements import Transaction

LEASE_S = 30.0
#: A slow rescue, of which several take longer than a pause in contact may.
RESCUE_S = 5.0
#: Within what a dead worker's run is taken, and some seconds less.
TAKEN_S, NOT_TAKEN_S = LEASE_S + GRACE_S + 2.0, LEASE_S - 2.0


async def a_run_of(store: RunStore, worker_id: str, thread_id: str = "t", *, lease_s: float = LEASE_S) -> str:
    """Return the id of a run that a worker executes which has beaten once."""
    await store.workers.beat(WorkerState(worker_id=worker_id, lease_s=lease_s))
    run_id = (await store.runs.admit(a_run(thread_id))).run.run_id
    assert await store.attempts.claim(run_id, worker_id, lease_s=lease_s)
    return run_id


async def rescues(store: RunStore, run_id: str) -> int:
    return (await store.runs.get(run_id, owner=ANY_OWNER)).rescues


class Hanging(FaultyDriver):
    """Makes readers wait too."""

    async def read(self, transaction: Transaction[Any]) -> Any:
        if (gate := self.gates.get(transaction.__name__)) is not None:
            await gate.wait()
        return await super().read(transaction)


@on_virtual_time
async def test_a_run_whose_worker_has_left_is_observed_since_then() -> None:
    """And not since a look at which nobody knew yet whether its worker lives."""
    driver = Hanging()
    store = RunStore(driver)
    run_id = await a_run_of(store, "another")
    async with opened(driver, lease_s=LEASE_S, exclusive=False):
        driver.gates["shared_view"] = asyncio.Event()
        for beats in range(2, 7):
            await asyncio.sleep(LEASE_S / 3)
            await store.workers.beat(WorkerState(worker_id="another", lease_s=LEASE_S, beats=beats))
        await store.workers.leave("another")
        driver.gates.pop("shared_view").set()
        await asyncio.sleep(NOT_TAKEN_S)
        assert await rescues(store, run_id) == 0
        await asyncio.sleep(TAKEN_S - NOT_TAKEN_S)
        assert await rescues(store, run_id) == 1


@on_virtual_time
async def test_a_rescuer_that_was_kept_from_looking_observes_everybody_from_the_beginning() -> None:
    driver = FaultyDriver()
    store = RunStore(driver)
    await store.workers.beat(WorkerState(worker_id="idle", lease_s=LEASE_S))
    driver.gates["forget_worker"] = asyncio.Event()
    async with opened(driver, lease_s=LEASE_S, exclusive=False):
        await asyncio.sleep(LEASE_S / 2)
        run_id = await a_run_of(store, "another")
        await driver.held.wait()  # the idle worker is dead, and is forgotten for a long time
        await asyncio.sleep(3 * LEASE_S)
        driver.gates.pop("forget_worker").set()
        await asyncio.sleep(NOT_TAKEN_S)
        assert await rescues(store, run_id) == 0
        await asyncio.sleep(TAKEN_S - NOT_TAKEN_S)
        assert await rescues(store, run_id) == 1


@on_virtual_time
async def test_a_rescue_that_an_outage_kept_back_is_not_tried_again_after_it() -> None:
    driver = FaultyDriver()
    store, lease_s, hung_s = RunStore(driver), 3.0, 4.0
    run_id = await a_run_of(store, "another", lease_s=lease_s)
    driver.gates["rescue"] = asyncio.Event()
    async with opened(driver, lease_s=lease_s, exclusive=False):
        await driver.held.wait()
        await asyncio.sleep(hung_s)  # less than an operation is tried again for
        driver.faults["lock_free_thread"] = StoreUnavailable("the connection was lost")
        driver.gates.pop("rescue").set()
        await asyncio.sleep(0.01)
        driver.faults.clear()
        await asyncio.sleep(lease_s)
        assert await rescues(store, run_id) == 0
        await asyncio.sleep(GRACE_S + 2.0)
        assert await rescues(store, run_id) == 1


@on_virtual_time
async def test_a_worker_that_takes_many_runs_one_after_the_other_is_in_contact_all_the_time() -> None:
    """So that it takes all at once that a dead worker had, however long that lasts."""
    driver = FaultyDriver()
    store = RunStore(driver)
    run_ids = [await a_run_of(store, "another", f"t{number}") for number in range(6)]

    async def slowly() -> None:
        while True:
            driver.gates["rescue"] = asyncio.Event()
            driver.held.clear()
            await driver.held.wait()
            await asyncio.sleep(RESCUE_S)
            driver.gates.pop("rescue").set()

    async with opened(driver, lease_s=LEASE_S, exclusive=False, execute_runs=False):
        slow = asyncio.create_task(slowly())
        await asyncio.sleep(TAKEN_S + RESCUE_S * len(run_ids))
        slow.cancel()
        assert [await rescues(store, run_id) for run_id in run_ids] == [1] * len(run_ids)
