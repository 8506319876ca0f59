"""Workers that share a ledger, and runs whose code lives in the process of one of them."""

from __future__ import annotations

from dataclasses import replace

from ledger_kit import A_WORKER, WORKER, admit, claim, finish, held
from runlane.leases import SeenWorker, WorkerState
from runlane.lifecycle import EndReason, RunEvent
from runlane.records import ANY_OWNER, RunError, RunRecord
from runlane.store.ledger import RunStore

A = WorkerState(worker_id="a", lease_s=15)
ERROR = RunError(error="NeverStarted", message="gone")


async def get(store: RunStore, run_id: str) -> RunRecord:
    return await store.runs.get(run_id, owner=ANY_OWNER)


async def test_a_run_with_a_home_is_claimed_only_by_who_has_its_code(store: RunStore) -> None:
    run_id = await admit(store, home="here")
    assert await store.attempts.claim(run_id, "there", lease_s=60, has_code=False) is None
    assert await store.attempts.claim(run_id, "here", lease_s=60, has_code=False) is None, (
        "its code is not attached yet"
    )
    claimed = await store.attempts.claim(run_id, "here", lease_s=60)
    assert claimed is not None
    assert claimed.run.home == "here"


async def test_who_claims_a_run_with_its_code_is_its_home_from_then_on(store: RunStore) -> None:
    run_id = await admit(store, home="here")
    lease = (await claim(store, run_id, "there")).lease
    await finish(store, lease, RunEvent.RELEASE)
    assert (await get(store, run_id)).home == "there"
    await store.attempts.rescue(await held(store, (await claim(store, run_id, "third")).run.run_id), max_rescues=3)
    assert (await get(store, run_id)).home == "third"


async def test_a_run_without_a_home_is_claimed_by_anyone_and_gets_none(store: RunStore) -> None:
    run_id = await admit(store)
    claimed = await store.attempts.claim(run_id, WORKER, lease_s=60, has_code=False)
    assert claimed is not None
    assert claimed.run.home is None


async def test_a_run_of_a_dead_home_is_set_free_unless_it_has_another_by_now(store: RunStore) -> None:
    run_id = await admit(store, home="dead")
    await store.queue.free(run_id, home="other")
    assert (await get(store, run_id)).home == "dead"
    await store.queue.free(run_id, home="dead")
    assert (await get(store, run_id)).home is None


async def test_a_run_that_executes_or_has_another_home_is_not_given_up(store: RunStore) -> None:
    run_id = await admit(store, home="here")
    assert await store.queue.give_up(run_id, EndReason.NEVER_STARTED, ERROR, home="there") is None
    assert await store.queue.give_up(run_id, EndReason.NEVER_STARTED, ERROR, home=None) is None
    [(head, _)] = await store.queue.runnable()
    assert (head.run_id, head.home) == (run_id, "here")
    done = await store.queue.give_up(run_id, EndReason.NEVER_STARTED, ERROR, home="here")
    assert done is not None
    assert done.run.end_reason is EndReason.NEVER_STARTED


async def test_a_worker_beats_with_its_renewals_until_it_leaves(store: RunStore) -> None:
    await store.workers.beat(A)
    await store.workers.beat(WorkerState(worker_id="b", lease_s=60))
    await store.attempts.renew([], worker=replace(A, beats=2))
    a, b = SeenWorker(worker_id="a", beats=2, lease_s=15), SeenWorker(worker_id="b", beats=1, lease_s=60)
    assert await store.workers.list() == (a, b)
    await store.workers.leave("a")
    assert await store.workers.list() == (b,)


async def test_a_worker_that_has_beaten_since_it_was_seen_is_not_forgotten(store: RunStore) -> None:
    await store.workers.beat(A)
    [seen] = await store.workers.list()
    await store.workers.beat(replace(A, beats=2))
    await store.workers.forget(seen)
    [seen] = await store.workers.list()
    await store.workers.forget(seen)
    assert await store.workers.list() == ()


async def test_a_worker_is_not_forgotten_while_runs_have_yet_to_be_taken_from_it(store: RunStore) -> None:
    await store.workers.beat(A)
    [seen] = await store.workers.list()
    run_id = (await claim(store, await admit(store), "a")).run.run_id
    await store.workers.forget(seen)
    assert await store.workers.list() == (seen,)
    assert await store.attempts.rescue(await held(store, run_id), max_rescues=3) is not None
    await store.workers.forget(seen)
    assert await store.workers.list() == ()


async def test_who_is_alone_on_a_ledger_forgets_all_others(store: RunStore) -> None:
    await store.workers.beat(A)
    await store.workers.beat(A_WORKER)
    await store.workers.forget_others("a")
    assert [worker.worker_id for worker in await store.workers.list()] == ["a"]
