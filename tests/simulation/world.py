"""A seeded world: processes come, go and stand still, the network fails, clients do what clients do."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from runlane.maintenance.liveness import GRACE_S
from runlane.settings import Settings
from runlane.store.resources.totals import BATCH
from runlane.store.transactions.totals import count_ended
from runlane.testing.faults import PROFILES, Faults
from runlane.testing.history import History
from runlane.testing.ledger import FaultyDriver
from runlane.testing.process import Process, ProcessPlan
from runlane.testing.virtual_loop import run_virtual
from simulation.agents import WELL_BEHAVED, StepAgent
from simulation.clients import Client, Crowd
from simulation.heads import HeadedLedger, kept_heads

#: How long clients and chaos go on, and how long the world then has to come to rest, in virtual seconds.
ACTIVE_S = 20.0
REST_S = 200.0
#: Steps of a process within which it is killed or frozen, if not at once.
STEPS = 200

SETTINGS = Settings(
    database="postgresql://simulated/ledger",
    lease_s=2.0,
    poll_s=0.5,
    heartbeat_s=0.5,
    cancel_grace_s=0.3,
    abandon_after_s=0.4,
    drain_grace_s=0.5,
    run_timeout_s=8.0,
    max_concurrent_runs=6,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is not drawn from the seed; a test that plants a bug replaces a part. Leases and limits are drawn."""

    settings: Settings = SETTINGS
    driver: Callable[..., FaultyDriver] = FaultyDriver
    behaviours: Sequence[str] = WELL_BEHAVED
    profiles: Sequence[str] = tuple(PROFILES)
    hasty: Sequence[float] = (0.05, 0.3, 1.0)


@dataclass
class Simulated:
    """A simulation that is over: its history and what the ledger holds at the end."""

    seed: int
    settings: Settings
    history: History
    runs: list[dict[str, Any]] = field(default_factory=list)
    threads: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    totals: list[dict[str, Any]] = field(default_factory=list)

    @property
    def faults(self) -> Counter[str]:
        return self.history.faults


def run_world(seed: int, scenario: Scenario | None = None) -> Simulated:
    """Simulate *seed* from beginning to end."""
    logging.getLogger("runlane").setLevel(logging.CRITICAL + 1)

    async def main() -> Simulated:
        return await World(seed, scenario or Scenario()).run()

    with kept_heads():
        return run_virtual(main)


class World:
    """One simulation."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        self._scenario, self._dice = scenario, random.Random(f"world {seed}")
        self._seed = seed
        self._loop = asyncio.get_running_loop()
        self.history = History(self._loop.time)
        self._ledger = HeadedLedger(self.history)
        self._faults = Faults(self.history)
        self._processes: list[Process] = []
        self._started = 0
        dice = self._dice
        self._crowd = Crowd(
            seed=seed,
            history=self.history,
            processes=self._processes,
            threads=[f"t{n}" for n in range(dice.randint(1, 4))],
            behaviours=scenario.behaviours,
            unruly=dice.choice((0.0, 0.15, 0.5)),
            hasty=dice.choice(scenario.hasty),
            busyness_s=dice.choice((0.15, 0.4, 1.0)),
            until_s=ACTIVE_S,
            flood=dice.choice((0,) * 12 + (40, 40, 200)),
            running=self._running,
        )
        self._settings = replace(
            scenario.settings,
            lease_s=dice.choice((1.0, 2.0, 2.0, 15.0)),
            max_rescues=dice.choice((0, 1, 3)),
            run_timeout_s=dice.choice((1.0, 8.0)),
            max_concurrent_runs=dice.choice((1, 2, 6)),
            max_queued_runs=dice.choice((1000, 1000, 1000, 3)),
            event_retention_s=dice.choice((86_400.0, 86_400.0, 86_400.0, 1.0)),
        )
        self._calm_s = 0.0
        # Long enough for others to take what a silent process has.
        self._long_s = max(3 * min(self._settings.lease_s, 4.0) + 3.0, self._settings.lease_s + GRACE_S + 3.0)

    async def run(self) -> Simulated:
        for _ in range(self._dice.randint(1, 3)):
            self._start_process()
        self._faults.switch(self._dice.choice(self._scenario.profiles))
        clients = [Client(self._crowd, f"c{n}") for n in range(self._dice.randint(2, 4))]
        living = [self._loop.create_task(client.live()) for client in clients]
        chaos = self._loop.create_task(self._chaos())
        await asyncio.gather(*living)
        await chaos
        await self._come_to_rest()
        while self._ledger.apply(count_ended(BATCH)):
            continue  # those that no process has counted yet
        done = Simulated(self._seed, self._settings, self.history)
        done.runs = self._ledger.query("SELECT * FROM runs ORDER BY seq")
        done.threads = self._ledger.query("SELECT * FROM threads ORDER BY thread_id")
        done.checkpoints = self._ledger.query("SELECT DISTINCT run_id FROM checkpoints ORDER BY run_id")
        done.totals = self._ledger.query("SELECT * FROM run_totals ORDER BY grain, day")
        return done

    def _start_process(self, *, sound: bool = False) -> Process:
        self._started += 1
        name = f"p{self._started}"
        dice = random.Random(f"process {self._seed} {self._started}")
        driver = self._scenario.driver(self._ledger, self._faults, dice, hang_s=self._long_s, process=name)
        skew_s = dice.choice((0.0, 0.0, 0.0, -1.5, 1.5, -3600.0, 3600.0))
        plan = ProcessPlan(self._settings, self._agents, 0.0 if sound else skew_s)
        process = Process(name, plan, driver, self._faults, dice)
        self._processes.append(process)
        return process

    def _running(self) -> list[str]:
        rows = self._ledger.query("SELECT run_id FROM runs WHERE status = 'running' ORDER BY seq")
        return [row["run_id"] for row in rows]

    def _agents(self, process: str) -> Callable[[str], StepAgent]:
        return lambda behaviour: StepAgent(behaviour, self.history, process)

    # Chaos

    async def _chaos(self) -> None:
        dice = self._dice
        acts = (
            *(self._switch, self._switch, self._start, self._kill, self._cut, self._cut),
            *(self._freeze, self._freeze, self._shut, self._shut, self._clock, self._ledger_clock),
            self._go_out,
        )
        while self._loop.time() < ACTIVE_S:
            await asyncio.sleep(self._calm_s)
            self._calm_s = 0.0
            if any(process.alive for process in self._processes):
                await asyncio.sleep(dice.random() * 2)
                await self._something_executes()
            else:
                await asyncio.sleep(dice.random() * 0.5)  # as a service is started again
            living = [process for process in self._processes if process.alive]
            dice.choice(acts if living else (self._start,))(living)

    async def _something_executes(self) -> None:
        """Wait for a moment in which a fault can hurt, for a while."""
        for _ in range(self._dice.choice((0, 20, 40))):
            if any(process.executing for process in self._processes if process.alive and not process.frozen):
                return
            await asyncio.sleep(0.05)

    def _switch(self, _: list[Process]) -> None:
        self._faults.switch(self._dice.choice(self._scenario.profiles))

    def _start(self, living: list[Process]) -> None:
        if len(living) < 4:
            self._start_process()

    def _victim(self, living: list[Process]) -> Process:
        """Return a process that executes something, if there is one: it has more to lose."""
        return self._dice.choice([process for process in living if process.executing] or living)

    def _kill(self, living: list[Process]) -> None:
        self._victim(living).kill(self._steps())

    def _cut(self, living: list[Process]) -> None:
        self._dice.choice(living).cut_off(self._dice.random() * self._long_s)

    def _freeze(self, living: list[Process]) -> None:
        seconds = self._long_s * self._dice.choice((self._dice.random(), 1.0))
        self._victim(living).freeze(seconds, self._steps())

    def _shut(self, living: list[Process]) -> None:
        self.history.fault("shutdown asked")
        self._loop.create_task(self._victim(living).shut_down(self._dice.randint(0, 4)))

    def _clock(self, living: list[Process]) -> None:
        self._dice.choice(living).step_clock(self._dice.choice((-3600.0, -30.0, -1.0, 1.0, 30.0, 3600.0)))

    def _ledger_clock(self, _: list[Process]) -> None:
        self._ledger.set_clock(self._dice.random() * self._dice.choice((-5.0, -5.0, 5.0, 60.0, 3600.0)))

    def _go_out(self, _: list[Process]) -> None:
        if self._dice.random() < 0.2:
            seconds = 10.0 + self._dice.random() * self._settings.lease_s
            self._faults.begin_outage(seconds)
            self._calm_s = self._dice.choice((0.0, seconds))  # else few runs live to see the end of it

    def _steps(self) -> int:
        return self._dice.choice((0, self._dice.randint(1, STEPS)))

    # Rest

    async def _come_to_rest(self) -> None:
        """Let the sun shine, and wait until every run has ended and every reader knows it."""
        self._faults.stop()
        for process in self._processes:
            process.spare()
        last = self._start_process(sound=True)
        await asyncio.sleep(self._long_s + 1)  # transactions that were held up before are still on their way
        until = self._loop.time() + REST_S
        while self._ledger.query("SELECT 1 FROM runs WHERE ended_at IS NULL LIMIT 1") and self._loop.time() < until:
            await asyncio.sleep(0.5)
            if not last.alive:
                last = self._start_process(sound=True)
        self.history.note("rest")
        self._crowd.ending = True
        await self._end_readers()
        stops = [self._loop.create_task(process.shut_down(0)) for process in self._processes if process.alive]
        if stops:
            _, hanging = await asyncio.wait(stops, timeout=30)
            if hanging:
                self.history.note("processes_hang", number=len(hanging))

    async def _end_readers(self) -> None:
        readers = self._crowd.readers
        if not readers:
            return
        _, late = await asyncio.wait(readers, timeout=30)
        for reader in readers:
            if reader in late:
                reader.cancel()
        if late:
            self.history.note("readers_hang", number=len(late))
            await asyncio.wait(readers)
