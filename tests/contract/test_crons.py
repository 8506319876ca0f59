"""Crons in the ledger: a slot is fired once, with its run or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace

import ledger_kit
from ledger_kit import NOON, a_run, a_target, admit, cancel, ended, running
from runlane.errors import ConflictError, CronChanged, CronRunActive, KeyReused, NotFound
from runlane.lifecycle import MultitaskStrategy
from runlane.maintenance.crons import CronScheduler
from runlane.records import ANY_OWNER, NO_OWNER, Admission, NewRun, RunError
from runlane.requests import RunOrigin
from runlane.store.ledger import RunStore
from runlane.store.statements import Driver
from runlane.store.transactions.crons import (
    RECENT_RUNS,
    SORT_KEYS,
    Cron,
    CronFilter,
    CronPlan,
    CronTarget,
    Fired,
    Firing,
)

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)


def a_plan(**changes: Any) -> CronPlan:
    return ledger_kit.a_plan(**{"on_run_completed": "delete", **changes})


async def make(store: RunStore, cron_id: str = "c", **changes: Any) -> Cron:
    target: dict[str, Any] = {"owner": NO_OWNER, "assistant_id": "a", "assistant_owner": "*"}
    for name in CronTarget.__dataclass_fields__:
        if name in changes:
            target[name] = changes.pop(name)
    if target.get("thread_id") is not None:
        await store.threads.create(target["thread_id"], owner=NO_OWNER, metadata={}, if_exists_return=True)
    return await store.crons.create(cron_id, CronTarget(**target), a_plan(**changes))


def a_firing(slot: datetime = NOON, **changes: Any) -> Firing:
    return Firing(**{"slot": slot, "next_run_at": slot + MINUTE, "new": a_run(str(uuid4())), **changes})


async def search(store: RunStore, owner: Any = ANY_OWNER, **where: Any) -> list[str]:
    page = {name: where.pop(name) for name in ("sort_by", "order", "limit", "offset") if name in where}
    found = await store.crons.search(owner=owner, where=CronFilter(**where), **{"limit": 100, **page})
    if not {"limit", "offset"} & set(page):
        assert await store.crons.count(owner=owner, where=CronFilter(**where)) == len(found)
    return [one.cron_id for one in found]


async def fire(store: RunStore, cron: Cron, firing: Firing) -> Fired:
    fired = await store.crons.fire(cron, firing)
    assert fired is not None, "nobody has locked it"
    return fired


async def test_a_cron_reads_back_as_it_was_made(store: RunStore) -> None:
    await store.threads.create("t", owner="bob", metadata={})
    target = CronTarget(
        owner="ann",
        permissions=("read", "write"),
        assistant_id="a",
        assistant_owner="eve",
        thread_id="t",
        thread_owner="bob",
        thread_where={"team": "x"},
    )
    plan = a_plan(
        timezone="Europe/Berlin",
        end_at=NOON + MINUTE,
        payload={"input": [1, None]},
        metadata={"m": "\x00"},
        on_run_completed=None,
        missed="skip",
        overlap="skip",
        enabled=False,
        next_run_at=None,
    )
    made = await store.crons.create("c", target, plan)
    assert await store.crons.get("c", owner="ann") == made
    assert (made.cron_id, made.target, made.plan) == ("c", target, plan)
    assert (made.last_slot_at, made.last_run_id, made.error) == (None, None, None)


async def test_a_repeated_creation_answers_the_first_cron(store: RunStore) -> None:
    made = await make(store)
    assert await make(store, schedule="0 0 * * *") == made


async def test_a_fired_slot_has_its_run_and_the_cron_moves_on(store: RunStore) -> None:
    cron, firing = await make(store), a_firing()
    fired = await fire(store, cron, firing)
    assert fired.admission is not None
    assert fired.admission.runnable
    run_id = fired.admission.run.run_id
    assert firing.new is not None
    assert run_id == firing.new.run_id == (await store.runs.get(run_id, owner=ANY_OWNER)).run_id
    now = await store.crons.get("c", owner=ANY_OWNER)
    assert (now.plan.next_run_at, now.last_slot_at, now.last_run_id) == (NOON + MINUTE, NOON, run_id)
    assert fired.cron == now


async def test_a_slot_that_two_fire_has_one_run(store: RunStore) -> None:
    cron = await make(store)
    both = await asyncio.gather(*(store.crons.fire(cron, a_firing()) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(one, Fired) for one in both) == 1
    assert all(one is None or isinstance(one, Fired | CronChanged) for one in both)
    assert len(await store.runs.list(None, owner=ANY_OWNER)) == 1


async def test_a_slot_whose_run_cannot_be_written_is_still_to_be_fired(store: RunStore) -> None:
    cron = await make(store)
    with pytest.raises(Exception, match="stored as JSON"):
        await store.crons.fire(cron, a_firing(new=replace(a_run(), metadata={"note": object()})))
    assert await store.crons.get("c", owner=ANY_OWNER) == cron
    assert await store.runs.list(None, owner=ANY_OWNER) == ()


@pytest.mark.parametrize("act", ["change", "disable", "delete", "fire"])
async def test_what_has_changed_since_it_was_seen_is_not_fired(store: RunStore, act: str) -> None:
    cron = await make(store)
    acts = {
        "change": lambda: store.crons.change(cron, a_plan(payload={"new": 1})),
        "disable": lambda: store.crons.change(cron, a_plan(enabled=False)),
        "delete": lambda: store.crons.delete("c", owner=ANY_OWNER),
        "fire": lambda: store.crons.fire(cron, a_firing(new=None)),
    }
    await acts[act]()
    with pytest.raises(CronChanged):
        await store.crons.fire(cron, a_firing())
    assert await store.runs.list(None, owner=ANY_OWNER) == ()


async def test_what_was_fired_since_it_was_seen_is_not_changed(store: RunStore) -> None:
    cron = await make(store)
    fired = await fire(store, cron, a_firing())
    with pytest.raises(CronChanged):
        await store.crons.change(cron, a_plan(schedule="0 0 * * *"))
    assert await store.crons.get("c", owner=ANY_OWNER) == fired.cron
    changed = await store.crons.change(fired.cron, a_plan(schedule="0 0 * * *"))
    assert (changed.plan.schedule, changed.last_slot_at) == ("0 0 * * *", NOON)


async def test_a_slot_whose_thread_is_busy_is_passed_over_if_the_strategy_rejects(store: RunStore) -> None:
    blocking = await admit(store)
    cron = await make(store, thread_id="t")
    new = a_run(multitask_strategy="reject", create_thread=False)
    fired = await fire(store, cron, a_firing(new=new))
    assert (fired.admission, fired.cron.plan.next_run_at, fired.cron.error) == (None, NOON + MINUTE, None)
    assert [run.run_id for run in await store.runs.list("t", owner=ANY_OWNER)] == [blocking]


async def test_a_slot_whose_thread_has_a_full_queue_is_lost_and_the_cron_says_so_until_the_next(driver: Driver) -> None:
    store = RunStore(driver, max_queued_runs=1)
    first = await admit(store)
    await admit(store)
    cron = await make(store)
    fired = await fire(store, cron, a_firing(next_run_at=NOON + MINUTE, new=a_run()))
    assert fired.admission is None
    assert fired.cron.error is not None
    assert (fired.cron.error.error, fired.cron.plan.next_run_at) == ("QueueFull", NOON + MINUTE)
    assert fired.cron.plan.enabled
    await cancel(store, first)
    again = await fire(store, fired.cron, a_firing(NOON + MINUTE, new=a_run()))
    assert (again.admission is not None, again.cron.error) == (True, None)


async def test_a_slot_that_interrupts_says_what_it_cancelled(store: RunStore) -> None:
    lease = await running(store)
    cron = await make(store, thread_id="t")
    fired = await fire(store, cron, a_firing(new=a_run(multitask_strategy="interrupt")))
    assert fired.admission is not None
    assert [one.run.run_id for one in fired.admission.cancelled] == [lease.run_id]


@pytest.mark.parametrize(("overlap", "is_active", "runs"), [("skip", True, 1), ("skip", False, 2), ("allow", True, 2)])
async def test_a_slot_is_passed_over_while_the_last_run_is_active_if_the_cron_says_so(
    store: RunStore, overlap: str, is_active: bool, runs: int
) -> None:
    cron = await make(store, overlap=overlap)
    fired = await fire(store, cron, a_firing(new=a_run("first")))
    assert fired.admission is not None
    if not is_active:
        await cancel(store, fired.admission.run.run_id)
    again = await fire(store, fired.cron, a_firing(NOON + MINUTE))
    assert (again.admission is None, again.cron.plan.next_run_at) == (runs == 1, NOON + 2 * MINUTE)
    assert len(await store.runs.list(None, owner=ANY_OWNER)) == runs


async def test_a_cron_whose_thread_is_not_its_owners_is_disabled_and_says_why(store: RunStore) -> None:
    await ended(store, "t", owner="eve")
    target = a_target("t")
    cron = await store.crons.create("c", target, a_plan())
    fired = await fire(store, cron, a_firing(new=a_run("t", create_thread=False)))
    assert (fired.admission, fired.cron.plan.enabled, fired.cron.plan.next_run_at) == (None, False, None)
    assert fired.cron.error is not None
    assert fired.cron.error.error == "NotFound"
    assert await store.crons.get("c", owner=ANY_OWNER) == fired.cron
    assert (await store.crons.due()).next_run_at is None


async def test_the_crons_of_a_deleted_thread_are_deleted_with_it_and_not_fired(store: RunStore) -> None:
    cron = await make(store, thread_id="t")
    await make(store, "other")
    await store.threads.delete("t", owner=ANY_OWNER)
    assert await search(store) == ["other"]
    with pytest.raises(CronChanged):
        await store.crons.fire(cron, a_firing(new=a_run("t", create_thread=False)))
    with pytest.raises(NotFound):
        await store.crons.create("late", cron.target, a_plan())


async def test_a_thread_is_deleted_while_its_crons_fire_and_nothing_of_it_is_left(store: RunStore) -> None:
    crons = [await make(store, f"{number}", thread_id="t") for number in range(8)]

    async def fire(cron: Cron) -> None:
        with contextlib.suppress(CronChanged):
            await store.crons.fire(cron, a_firing(new=a_run("t", create_thread=False)))

    async def delete() -> None:
        while True:
            for run in await store.runs.list("t", owner=ANY_OWNER):
                await cancel(store, run.run_id)
            with contextlib.suppress(ConflictError):
                await store.threads.delete("t", owner=ANY_OWNER)
                return

    await asyncio.gather(*map(fire, crons), delete())
    assert await search(store) == []
    assert await store.runs.list("t", owner=ANY_OWNER) == ()


async def test_an_error_stays_until_a_slot_is_fired_or_the_cron_is_changed(store: RunStore) -> None:
    error = RunError(error="InvalidRequest", message="why")
    cron = await make(store)
    refused = await fire(store, cron, a_firing(new=None, error=error))
    assert (refused.cron.error, refused.cron.plan.enabled) == (error, True)
    fired = await fire(store, refused.cron, a_firing(NOON + MINUTE))
    assert fired.cron.error is None
    gone = await fire(store, fired.cron, a_firing(NOON + 2 * MINUTE, new=None, error=error, disable=True))
    assert (gone.cron.error, gone.cron.plan.enabled) == (error, False)
    assert (await store.crons.change(gone.cron, a_plan())).error is None


async def test_due_are_those_whose_slot_has_come_and_who_are_enabled(store: RunStore) -> None:
    now = datetime.now(UTC)
    await make(store, "later", next_run_at=now + MINUTE)
    await make(store, "now", next_run_at=now - SECOND)
    await make(store, "before", next_run_at=now - MINUTE, owner="ann")
    await make(store, "off", next_run_at=now - MINUTE, enabled=False)
    await make(store, "over", next_run_at=None)
    found = await store.crons.due()
    assert [one.cron_id for one in found.crons] == ["before", "now"]
    assert found.next_run_at == now - MINUTE
    assert abs(found.now - now) < MINUTE
    assert [one.cron_id for one in (await store.crons.due(limit=1)).crons] == ["before"]


async def test_search_by_assistant_thread_state_metadata_and_what_a_handler_permits(store: RunStore) -> None:
    await make(store, "a", assistant_id="x", metadata={"team": "p", "tags": ["q", "r"]})
    await make(store, "b", thread_id="t", enabled=False, metadata={"team": "q"})
    assert set(await search(store)) == {"a", "b"}
    assert await search(store, assistant_id="x") == ["a"]
    assert await search(store, thread_id="t") == ["b"]
    assert await search(store, enabled=False) == ["b"]
    assert await search(store, enabled=True) == ["a"]
    assert await search(store, metadata={"tags": ["r"]}) == ["a"]
    assert await search(store, where={"team": "q"}) == ["b"]
    assert await search(store, where={"team": "q"}, enabled=True) == []


@pytest.mark.parametrize("key", SORT_KEYS)
async def test_search_sorts_and_pages_with_missing_values_last(store: RunStore, key: str) -> None:
    for number, name in enumerate(("b", "a", "c")):
        at = NOON + number * MINUTE
        await make(store, name, assistant_id=name, thread_id=name, next_run_at=at, end_at=at)
    await make(store, "none", assistant_id="none", thread_id=None, next_run_at=None, end_at=None)
    ascending = await search(store, sort_by=key, order="asc")
    by_name = key in ("cron_id", "assistant_id", "thread_id")
    assert ascending == (["a", "b", "c", "none"] if by_name else ["b", "a", "c", "none"])
    missing_last = key in ("thread_id", "next_run_date", "end_time")
    expected = [*ascending[:3][::-1], "none"] if missing_last else ascending[::-1]
    assert await search(store, sort_by=key, order="desc") == expected
    pages = [await search(store, sort_by=key, order="asc", limit=3, offset=offset) for offset in (0, 3)]
    assert [one for page in pages for one in page] == ascending


async def test_another_owners_cron_is_not_found(store: RunStore) -> None:
    await make(store, owner="ann")
    for absent in (store.crons.get("c", owner="eve"), store.crons.delete("c", owner="eve")):
        with pytest.raises(NotFound):
            await absent
    assert await search(store, owner="eve") == []
    assert await search(store, owner="ann") == ["c"]


async def test_what_was_deleted_is_not_found(store: RunStore) -> None:
    cron = await make(store)
    await store.crons.delete("c", owner=ANY_OWNER)
    for absent in (
        store.crons.get("c", owner=ANY_OWNER),
        store.crons.change(cron, a_plan()),
        store.crons.delete("c", owner=ANY_OWNER),
    ):
        with pytest.raises(NotFound):
            await absent


async def test_schedulers_that_share_a_ledger_fire_each_slot_once(store: RunStore) -> None:
    fired: list[str] = []

    async def make_run(cron: Cron, slot: datetime) -> NewRun:
        return a_run(str(uuid4()), metadata={"cron_id": cron.cron_id, "slot": slot.isoformat()})

    def admitted(new: NewRun, _: Admission) -> None:
        fired.append(new.metadata["cron_id"])

    schedulers = [
        CronScheduler(store=store, make_run=make_run, admitted=admitted, closed=lambda: False, poll_s=1.0)
        for _ in range(3)
    ]
    names = [f"c{number}" for number in range(10)]
    for name in names:
        await make(store, name, schedule="0 0 1 1 *", next_run_at=datetime.now(UTC) - SECOND)
    await asyncio.gather(*(scheduler.fire_due() for scheduler in schedulers))
    assert sorted(fired) == names
    assert len(await store.runs.list(None, owner=ANY_OWNER)) == len(names)


async def test_a_run_by_hand_leaves_the_slots_as_they_are(store: RunStore) -> None:
    cron = await make(store, enabled=False)
    admission = await store.crons.start(cron, a_run("by-hand"))
    now = await store.crons.get("c", owner=ANY_OWNER)
    assert now == dataclasses.replace(cron, last_run_id=admission.run.run_id, recent_run_ids=(admission.run.run_id,))
    slot = await make(store, "d")
    await store.crons.start(slot, a_run("beside"))
    assert (await fire(store, slot, a_firing())).admission is not None


async def test_a_cron_keeps_the_ids_of_its_newest_runs(store: RunStore) -> None:
    cron, made = await make(store), []
    for n in range(RECENT_RUNS + 2):
        if n % 2:
            admission = await store.crons.start(cron, a_run(f"t{n}"))
        else:
            fired = await fire(store, cron, a_firing(NOON + n * MINUTE, new=a_run(f"t{n}")))
            assert fired.admission is not None
            cron, admission = fired.cron, fired.admission
        made.append(admission.run.run_id)
    assert (await store.crons.get("c", owner=ANY_OWNER)).recent_run_ids == tuple(made[: -RECENT_RUNS - 1 : -1])


async def test_of_runs_by_hand_that_do_not_overlap_one_is_made(store: RunStore) -> None:
    cron = await make(store, overlap="skip")
    both = await asyncio.gather(*(store.crons.start(cron, a_run(f"t{n}")) for n in range(8)), return_exceptions=True)
    [made] = [one for one in both if isinstance(one, Admission)]
    refused = [one for one in both if isinstance(one, CronRunActive)]
    assert {one.active_run_id for one in refused} == {made.run.run_id}
    assert len(refused) == 7
    assert (await fire(store, cron, a_firing())).admission is None
    await cancel(store, made.run.run_id)
    assert (await store.crons.start(cron, a_run("later"))).run.run_id != made.run.run_id


@pytest.mark.parametrize("overlap", ["allow", "skip"])
async def test_a_key_makes_one_run_by_hand(store: RunStore, overlap: str) -> None:
    cron = await make(store, overlap=overlap)
    new = [a_run("keyed", run_id=str(uuid4()), idempotency_key="k") for _ in range(8)]
    made = await asyncio.gather(*(store.crons.start(cron, one) for one in new))
    assert len({one.run.run_id for one in made}) == 1
    assert [one.reused for one in made].count(False) == 1
    await cancel(store, made[0].run.run_id)
    await fire(store, cron, a_firing())
    assert (await store.crons.start(cron, new[-1])).run.run_id == made[0].run.run_id
    other = replace(new[0], run_id=str(uuid4()), origin=RunOrigin(fingerprint="other"))
    with pytest.raises(KeyReused):
        await store.crons.start(cron, other)


async def test_a_run_by_hand_that_cannot_be_made_leaves_the_cron_as_it_was(store: RunStore) -> None:
    cron = await make(store, thread_id="t", thread_owner=NO_OWNER)
    await admit(store, "t")
    with pytest.raises(ConflictError):
        await store.crons.start(cron, a_run("t", multitask_strategy=MultitaskStrategy.REJECT, create_thread=False))
    assert await store.crons.get("c", owner=ANY_OWNER) == cron
    await store.crons.delete("c", owner=NO_OWNER)
    with pytest.raises(NotFound, match="Cron 'c'"):
        await store.crons.start(cron, a_run("nowhere"))
    assert len(await store.runs.list(None, owner=ANY_OWNER)) == 1
