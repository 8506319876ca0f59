"""The state table of a run: every move, its guard, and what is refused."""

from __future__ import annotations

import asyncio

import pytest

from ledger_kit import admit, claim, finish
from runlane.errors import LeaseLost
from runlane.lifecycle import RunEvent, RunStatus
from runlane.records import ANY_OWNER
from runlane.store.ledger import RunStore


async def test_a_run_goes_from_pending_over_running_to_its_end(store: RunStore) -> None:
    run_id = await admit(store)
    claimed = await claim(store, run_id)
    assert (claimed.run.status, claimed.run.attempt) == (RunStatus.RUNNING, 1)
    finished = await finish(store, claimed.lease)
    assert finished.run.status is RunStatus.SUCCESS
    assert await store.get_run(run_id, owner=ANY_OWNER) == finished.run
    with pytest.raises(LeaseLost):
        await finish(store, claimed.lease, RunEvent.FAIL)


async def test_of_fifty_concurrent_claims_one_wins(store: RunStore) -> None:
    run_ids = [await admit(store) for _ in range(50)]
    claims = await asyncio.gather(*(store.claim(run_id, "w", lease_s=60) for run_id in run_ids))
    assert [won is not None for won in claims] == [True] + [False] * 49
    lease = await store.list_runs("t", owner=ANY_OWNER, status=RunStatus.RUNNING)
    assert [run.run_id for run in lease] == run_ids[:1]
