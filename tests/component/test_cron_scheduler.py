"""The scheduler of crons, on a clock that jumps to the next slot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from ledger_kit import NOON, a_plan, a_run, a_target
from run_kit import ONCE, FaultyDriver, at_once, on_jumping_time, opened, soon
from runlane.errors import InvalidRequest, NotFound, StoreUnavailable
from runlane.lifecycle import RunStatus
from runlane.maintenance.crons import CronScheduler, due
from runlane.records import ANY_OWNER, Admission, NewRun
from runlane.schedules import Schedule
from runlane.store.ledger import RunStore
from runlane.store.rows import microseconds
from runlane.store.statements import Transaction
from runlane.store.transactions.crons import Cron, Firing

HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
LONG_S = 1e6
#: On the clock that jumps.
PATIENCE_S = 3 * 3600.0


@dataclass
class Fixture:
    """A scheduler on a ledger in memory, with what it admitted and when."""

    new_driver: Callable[..., FaultyDriver] = FaultyDriver
    poll_s: float = LONG_S
    fired: list[tuple[str, timedelta]] = field(default_factory=list)
    faults: dict[str, Exception] = field(default_factory=dict)
    closed: bool = False
    skipped: timedelta = timedelta(0)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.started_s = asyncio.get_running_loop().time()
        self.driver = self.new_driver(clock=lambda: microseconds(self.now()))
        self.store = RunStore(self.driver, retry=ONCE)
        self.scheduler = CronScheduler(
            store=self.store,
            make_run=self.make_run,
            admitted=self.admitted,
            closed=lambda: self.closed,
            poll_s=self.poll_s,
        )

    def now(self) -> datetime:
        return NOON + self.skipped + timedelta(seconds=asyncio.get_running_loop().time() - self.started_s)

    async def make_run(self, cron: Cron, slot: datetime) -> NewRun:
        if cron.cron_id in self.faults:
            raise self.faults[cron.cron_id]
        return a_run(f"{cron.cron_id}-{self.now():%Y%m%dT%H%M%S%f}", metadata={"cron_id": cron.cron_id})

    def admitted(self, new: NewRun, admission: Admission) -> None:
        assert admission.run.run_id == new.run_id
        self.fired.append((new.metadata["cron_id"], self.now() - NOON))
        self.changed.set()

    async def make(self, cron_id: str = "c", schedule: str = "* * * * *", **changes: Any) -> Cron:
        plan = a_plan(**{"schedule": schedule, "next_run_at": Schedule(schedule).after(self.now()), **changes})
        return await self.store.crons.create(cron_id, a_target(), plan)

    async def count(self, fired: int) -> list[tuple[str, int]]:
        """Return what was fired, in whole seconds after noon, once it is *fired* in number."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.fired) < fired:
                self.changed.clear()
                await self.changed.wait()
        return [(cron_id, int(after.total_seconds())) for cron_id, after in self.fired]


@on_jumping_time
async def test_it_sleeps_until_a_slot_is_due() -> None:
    world = Fixture()
    await world.make()
    async with world.scheduler:
        assert await world.count(3) == [("c", 60), ("c", 120), ("c", 180)]
    assert world.driver.counts["due_crons"] <= 1 + 2 * 3  # at the start, and before and after each slot


@on_jumping_time
async def test_a_new_cron_wakes_it() -> None:
    world = Fixture()
    await world.make("rare", "0 0 1 1 *")
    async with world.scheduler:
        await asyncio.sleep(0.5)
        await world.make("soon", "* * * * * *")
        world.scheduler.wake()
        assert await world.count(2) == [("soon", 1), ("soon", 2)]


@on_jumping_time
async def test_a_cron_that_another_process_made_is_found_by_asking() -> None:
    world = Fixture(poll_s=7.0)
    async with world.scheduler:
        await asyncio.sleep(0.5)
        await world.make()
        assert await world.count(1) == [("c", 60)]


@pytest.mark.parametrize("broken", ["due_crons", "advance_cron", "next_cron"])
@on_jumping_time
async def test_an_outage_delays_a_slot_and_does_not_lose_it(broken: str) -> None:
    world = Fixture()
    await world.make(schedule="0 * * * *")
    world.driver.faults[broken] = StoreUnavailable("down")
    world.skipped = HOUR
    async with world.scheduler:
        await asyncio.sleep(5.5)
        world.driver.faults.clear()
        [(cron_id, after)] = await world.count(1)
    assert cron_id == "c"
    assert 3600 + (5 if broken != "next_cron" else 0) <= after < 3615
    assert world.driver.counts[broken] > 5


@on_jumping_time
async def test_a_commit_whose_answer_is_lost_is_not_repeated() -> None:
    class Lossy(FaultyDriver):
        lost = 0

        async def write(self, transaction: Transaction[Any]) -> Any:
            written = await super().write(transaction)
            if transaction.__name__ == "fire_cron" and not self.lost:
                self.lost += 1
                raise StoreUnavailable("the connection broke after the commit")
            return written

    world = Fixture(new_driver=Lossy)
    await world.make()
    async with world.scheduler:
        assert await world.count(1) == [("c", 120)]
    runs = await world.store.runs.list(None, owner=ANY_OWNER)
    assert len(runs) == 2


@on_jumping_time
async def test_a_slot_that_a_dying_process_fired_is_executed_by_the_next() -> None:
    world = Fixture()
    cron = await world.make()
    firing = Firing(slot=NOON + MINUTE, next_run_at=None, new=await world.make_run(cron, NOON + MINUTE))
    fired = await world.store.crons.fire(cron, firing)  # and nobody is told
    assert fired is not None
    assert fired.admission is not None
    async with opened(driver=world.driver) as runtime:
        runtime.runs.start(fired.admission.run, at_once)
        ending = await soon(runtime.runs.join(fired.admission.run.run_id))
    assert ending.status is RunStatus.SUCCESS


@on_jumping_time
async def test_slots_that_were_missed_are_made_up_for_by_one_run_or_by_none() -> None:
    world = Fixture()
    await world.make("once", "* * * * *")
    await world.make("skip", "0 * * * *", missed="skip")
    await world.make("seconds", "* * * * * *", end_at=NOON + HOUR)
    world.skipped = HOUR + 90 * SECOND
    async with world.scheduler:
        assert await world.count(2) == [("once", 3690), ("once", 3720)]
    skip = await world.store.crons.get("skip", owner=ANY_OWNER)
    assert (skip.last_slot_at, skip.last_run_id, skip.plan.next_run_at) == (NOON + HOUR, None, NOON + 2 * HOUR)
    once = await world.store.crons.get("once", owner=ANY_OWNER)
    assert once.last_slot_at == NOON + HOUR + 2 * MINUTE
    assert (await world.store.crons.get("seconds", owner=ANY_OWNER)).plan.next_run_at is None


@on_jumping_time
async def test_what_one_cron_is_refused_or_breaks_keeps_no_other_from_its_slots() -> None:
    world = Fixture()
    for cron_id in ("refused", "gone", "graph", "broken", "well"):
        await world.make(cron_id)
    world.faults = {
        "refused": InvalidRequest("no"),
        "gone": NotFound("assistant", "a"),
        "graph": NotFound("graph", "g"),
        "broken": RuntimeError("a defect"),
    }
    async with world.scheduler:
        assert await world.count(2) == [("well", 60), ("well", 120)]
        await asyncio.sleep(1)
    found = {cron_id: await world.store.crons.get(cron_id, owner=ANY_OWNER) for cron_id in world.faults}
    errors = {cron_id: None if one.error is None else one.error.error for cron_id, one in found.items()}
    assert errors == {"refused": "InvalidRequest", "gone": "NotFound", "graph": "NotFound", "broken": "InternalError"}
    assert [cron_id for cron_id, one in found.items() if not one.plan.enabled] == ["gone"]


@on_jumping_time
async def test_many_crons_that_are_due_together_are_fired_together() -> None:
    world = Fixture()
    for number in range(250):
        await world.make(str(number))
    async with world.scheduler:
        fired = await world.count(250)
    assert len({cron_id for cron_id, _ in fired[:250]}) == 250
    assert {after for _, after in fired[:250]} <= set(range(60, 65))


@on_jumping_time
async def test_a_process_that_admits_no_more_runs_fires_nothing() -> None:
    world = Fixture(poll_s=1.0)
    await world.make()
    world.closed = True
    async with world.scheduler:
        await asyncio.sleep(199.5)
        assert world.fired == []
        world.closed = False
        assert await world.count(1) == [("c", 200)]


@on_jumping_time
async def test_a_zone_that_this_machine_does_not_have_disables_its_crons() -> None:
    world = Fixture(poll_s=1.0)
    await world.make(timezone="Nowhere/Land")
    async with world.scheduler:
        await asyncio.sleep(100)
    cron = await world.store.crons.get("c", owner=ANY_OWNER)
    assert cron.error is not None
    assert (cron.plan.enabled, cron.error.error) == (False, "InvalidRequest")


@on_jumping_time
async def test_it_ends_when_it_is_left_and_may_be_left_twice() -> None:
    world = Fixture()
    await world.make()
    async with world.scheduler:
        pass
    await world.scheduler.__aexit__()
    await asyncio.sleep(1000)
    assert world.fired == []


@pytest.mark.parametrize(
    ("missed", "now", "end_at", "slot", "fire", "following"),
    [
        ("once", NOON, None, NOON, True, NOON + HOUR),
        ("skip", NOON, None, NOON, True, NOON + HOUR),
        ("skip", NOON + MINUTE, None, NOON, True, NOON + HOUR),
        ("skip", NOON + 2 * MINUTE, None, NOON, False, NOON + HOUR),
        ("once", NOON + 2 * MINUTE, None, NOON, True, NOON + HOUR),
        ("once", NOON + 5 * HOUR + MINUTE, None, NOON + 5 * HOUR, True, NOON + 6 * HOUR),
        ("once", NOON + MINUTE, NOON, NOON, True, None),
        ("once", NOON + 2 * MINUTE, NOON, NOON, False, None),
        ("once", NOON + 2 * MINUTE, NOON + HOUR, NOON, True, NOON + HOUR),
        ("once", NOON + 5 * HOUR, NOON + HOUR + MINUTE, NOON + HOUR, False, None),
        ("once", NOON - SECOND, None, NOON, True, NOON + HOUR),  # the clock was put back
    ],
)
def test_of_all_that_is_due_the_newest_slot_is_fired(
    missed: Any, now: datetime, end_at: datetime | None, slot: datetime, fire: bool, following: datetime | None
) -> None:
    found = due(Schedule("0 * * * *"), NOON, end_at=end_at, missed=missed, now=now)
    assert (found.slot, found.fire, found.next_run_at) == (slot, fire, following)
