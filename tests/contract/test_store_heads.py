"""Claims of heads: which runs start, in which order, within which limits; and what moves a lane moves its head."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ledger_kit import WORKER, a_run, admit, cancel, claim, finish, held, running
from runlane.lifecycle import CancelAction, EndReason, RunEvent, RunStatus
from runlane.records import ANY_OWNER, Claimant, NewRun, RunError
from runlane.settings import Limits
from runlane.store.ledger import RunStore
from runlane.store.transactions.heads import HeadsWanted

CLAIMANT = Claimant(worker_id=WORKER, lease_s=60, has_code=False)
ERROR = RunError(error="NeverStarted", message="gone")


async def claimed(store: RunStore, slots: int = 100, **wanted: Any) -> list[str]:
    """Claim heads, and return the runs in the order in which they start."""
    claims, _ = await store.attempts.claim_heads(HeadsWanted(slots=slots, **wanted), CLAIMANT)
    return [one.run.run_id for one in claims]


async def graph_run(store: RunStore, thread_id: str = "t", graph_id: str = "g", **changes: Any) -> str:
    return await admit(store, thread_id, kwargs={"graph_id": graph_id}, **changes)


async def test_heads_of_idle_lanes_are_claimed_and_what_waits_behind_a_run_is_not(store: RunStore) -> None:
    first = await graph_run(store)
    await graph_run(store)
    other = await graph_run(store, "u")
    assert await claimed(store) == [first, other]
    assert await claimed(store) == []
    run = await store.runs.get(first, owner=ANY_OWNER)
    assert (run.status, run.attempt, run.worker_id) == (RunStatus.RUNNING, 1, WORKER)


async def test_no_more_heads_are_claimed_than_there_are_slots(store: RunStore) -> None:
    runs = [await graph_run(store, f"t{n}") for n in range(5)]
    assert await claimed(store, slots=2) == runs[:2]
    assert await claimed(store, slots=0) == []
    assert await claimed(store, slots=100) == runs[2:]


@pytest.mark.parametrize("event", [RunEvent.SUCCEED, RunEvent.FAIL, RunEvent.STOP])
async def test_the_end_of_a_run_makes_the_next_of_its_lane_claimable(store: RunStore, event: RunEvent) -> None:
    lease = await running(store)
    following = await graph_run(store)
    await finish(store, lease, event)
    assert await claimed(store) == [following]


async def test_a_run_that_is_handed_back_goes_before_those_behind_it(store: RunStore) -> None:
    lease = await running(store, kwargs={"graph_id": "g"}, home=None)
    await graph_run(store)
    await finish(store, lease, RunEvent.RELEASE)
    assert await claimed(store, attached=(lease.run_id,)) == [lease.run_id]


async def test_a_rescued_run_goes_before_those_behind_it(store: RunStore) -> None:
    first = await graph_run(store)
    await graph_run(store)
    assert await claimed(store) == [first]
    await store.attempts.rescue(await held(store, first), max_rescues=1)
    assert await claimed(store) == [first]


async def test_a_run_that_is_given_up_makes_the_next_of_its_lane_claimable(store: RunStore) -> None:
    first = await graph_run(store)
    following = await graph_run(store)
    assert await claimed(store) == [first]
    await store.attempts.rescue(await held(store, first), max_rescues=0)
    assert await claimed(store) == [following]
    lost = await admit(store, "u", home="dead")
    after = await graph_run(store, "u")
    await store.queue.give_up(lost, EndReason.NEVER_STARTED, ERROR, home="dead")
    assert await claimed(store) == [after]


async def test_a_cancelled_head_makes_the_next_of_its_lane_claimable(store: RunStore) -> None:
    first = await graph_run(store)
    following = await graph_run(store)
    await cancel(store, first)
    assert await claimed(store) == [following]


async def test_a_cancel_of_a_running_run_does_not_let_its_lane_go_on(store: RunStore) -> None:
    lease = await running(store)
    await graph_run(store)
    await cancel(store, lease.run_id)
    assert await claimed(store) == []


async def test_a_run_that_replaces_others_is_the_head(store: RunStore) -> None:
    await graph_run(store)
    run = await graph_run(store, multitask_strategy="rollback")
    assert await claimed(store) == [run]


async def test_a_delayed_run_is_no_head_before_it_is_due_and_lets_later_ones_pass(store: RunStore) -> None:
    await graph_run(store, delay_s=3600)
    assert await claimed(store) == []
    now = await graph_run(store)
    assert await claimed(store) == [now]
    await store.attempts.rescue(await held(store, now), max_rescues=0)
    assert await claimed(store) == []


async def test_a_delayed_run_is_a_head_once_it_is_due(store: RunStore) -> None:
    now = await graph_run(store)
    assert await claimed(store) == [now]
    late = await graph_run(store, delay_s=0.1)
    await cancel(store, now, CancelAction.INTERRUPT)
    await store.attempts.rescue(await held(store, now), max_rescues=0)
    async with asyncio.timeout(20):
        while not (found := await claimed(store)):  # noqa: ASYNC110 - the ledger says when it is due
            await asyncio.sleep(0.02)
    assert found == [late]


async def test_a_delayed_run_that_is_due_goes_before_later_ones(store: RunStore) -> None:
    late = await graph_run(store, delay_s=0.05)
    await graph_run(store)
    async with asyncio.timeout(10):
        while (await store.queue.waiting_on([late]))[late].reason == "delay":  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
    found = await claimed(store)
    while not found:  # the claim found that another run goes first, and has noted it
        found = await claimed(store)
    assert found == [late]


async def test_a_run_that_is_claimed_by_its_admission_or_its_id_is_no_head(store: RunStore) -> None:
    new = a_run(kwargs={"graph_id": "g"})
    admitted = await store.runs.admit(new, Claimant(worker_id=WORKER, lease_s=60, has_code=False))
    assert admitted.claim is not None
    await claim(store, await graph_run(store, "u"))
    assert await claimed(store) == []


async def test_only_heads_of_a_workers_graphs_are_claimed(store: RunStore) -> None:
    await graph_run(store, "t", "other")
    mine = await graph_run(store, "u", "g")
    assert await claimed(store, groups={}) == []
    assert await claimed(store, groups={"g": "g", "h": "h"}) == [mine]


async def test_a_run_with_a_home_is_claimed_by_who_has_its_code_alone_and_is_at_home_there(store: RunStore) -> None:
    run_id = await graph_run(store, home="here")
    assert await claimed(store) == []
    assert await claimed(store, attached=(run_id,)) == [run_id]
    assert (await store.runs.get(run_id, owner=ANY_OWNER)).home == WORKER


async def test_a_run_that_is_freed_of_its_home_is_claimed_by_anyone(store: RunStore) -> None:
    run_id = await graph_run(store, home="dead")
    await store.queue.free(run_id, home="dead")
    assert await claimed(store) == [run_id]


async def test_a_run_of_which_a_lost_attempt_is_still_here_is_left_to_others(store: RunStore) -> None:
    run_id = await graph_run(store)
    seq = (await store.runs.get(run_id, owner=ANY_OWNER)).seq
    assert await claimed(store, busy=(seq,)) == []
    assert await claimed(store) == [run_id]


async def test_heads_whose_code_lives_in_one_process_are_listed_until_they_are_claimed(store: RunStore) -> None:
    await graph_run(store)
    first = await admit(store, "u", home="here")
    await admit(store, "u", home="here")
    second = await admit(store, "v", home="there", delay_s=3600)
    listed = await store.queue.heads_at_home()
    assert [(head.run_id, head.home) for head, _ in listed] == [(first, "here"), (second, "there")]
    assert [wait_us > 0 for _, wait_us in listed] == [False, True]
    assert [head.run_id for head, _ in await store.queue.heads_at_home(after_seq=listed[0][0].seq)] == [second]
    assert await claimed(store, attached=(first,), groups={}) == [first]
    assert [head.run_id for head, _ in await store.queue.heads_at_home()] == [second]


# Fairness.


async def test_the_next_run_is_of_the_owner_with_the_fewest_running_ones_then_the_oldest(store: RunStore) -> None:
    big = [await graph_run(store, f"big-{n}", owner="big") for n in range(5)]
    small = [await graph_run(store, f"small-{n}", owner="small") for n in range(2)]
    assert await claimed(store, slots=3) == [big[0], small[0], big[1]]
    assert await claimed(store, slots=1) == [small[1]]
    assert await claimed(store) == big[2:], "no slot stays free while a run may start"


async def test_one_owners_many_runs_of_many_graphs_delay_anothers_by_no_more_than_one_slot(store: RunStore) -> None:
    for n in range(30):
        await graph_run(store, f"big-{n}", f"g{n % 3}", owner="big", assistant_id=f"a{n % 2}")
    await claimed(store, slots=3)
    single = await graph_run(store, "single", "g9", owner="small")
    assert await claimed(store, slots=1) == [single]


# Limits.


@pytest.mark.parametrize(
    ("limits", "same"),
    [
        (Limits(per_owner=2), {"owner": "o"}),
        (Limits(per_assistant=2), {"assistant_id": "a"}),
        (Limits(per_graph=2), {"graph_id": "g"}),
    ],
)
async def test_a_limit_holds_and_lets_others_pass(store: RunStore, limits: Limits, same: dict[str, Any]) -> None:
    async def run(number: int, **changes: Any) -> str:
        apart = {"owner": f"o{number}", "assistant_id": f"a{number}", "graph_id": f"g{number}"}
        return await graph_run(store, f"t{number}", **{**apart, **changes})

    limited = [await run(n, **same) for n in range(4)]
    other = await run(9)
    found = await claimed(store, limits=limits)
    while more := await claimed(store, limits=limits):
        found += more
    assert sorted(found) == sorted([*limited[:2], other])
    lease = await held(store, limited[0])
    await store.attempts.rescue(lease, max_rescues=0)
    assert await claimed(store, limits=limits) == [limited[2]]


async def test_a_limit_is_exact_among_workers_that_claim_at_once(store: RunStore) -> None:
    for n in range(20):
        await graph_run(store, f"t{n}", owner="o")
    found = await asyncio.gather(*(claimed(store, slots=2, limits=Limits(per_owner=3)) for _ in range(6)))
    found += [await claimed(store, slots=2, limits=Limits(per_owner=3)) for _ in range(3)]
    assert sum(map(len, found)) == 3


async def test_workers_that_claim_at_once_share_the_heads(store: RunStore) -> None:
    news: list[NewRun] = [a_run(f"t{n}", kwargs={"graph_id": "g"}) for n in range(40)]
    await store.runs.admit_all(news)
    found = [run for runs in await asyncio.gather(*(claimed(store, slots=10) for _ in range(4))) for run in runs]
    found += await claimed(store)
    assert sorted(found) == sorted(new.run_id for new in news)
