"""A seeded world: processes come and go, the network fails, clients do what clients do."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from runlane.errors import ConflictError, NotFound, RunlaneError
from runlane.lifecycle import MultitaskStrategy
from runlane.records import ANY_OWNER, NewRun, StreamEnd, StreamEvent, StreamGap
from runlane.runtime import Runtime
from runlane.settings import Settings
from simulation.agents import MISBEHAVED, WELL_BEHAVED
from simulation.history import History
from simulation.ledger import FaultyDriver, Ledger, Weather
from simulation.process import Plan, Process, ProcessGone
from simulation.virtual_loop import simulate

#: How long clients and chaos go on, and how long the world then has to come to rest, in virtual seconds.
ACTIVE_S = 20.0
REST_S = 200.0

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
    repeat_ends: bool = False
    chaos: bool = True


@dataclass
class Simulated:
    """A simulation that is over: its history and what the ledger holds at the end."""

    seed: int
    history: History
    runs: list[dict[str, Any]] = field(default_factory=list)
    threads: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)


def run_world(seed: int, scenario: Scenario | None = None) -> Simulated:
    """Simulate *seed* from beginning to end."""
    logging.getLogger("runlane").setLevel(logging.CRITICAL + 1)

    async def main() -> Simulated:
        return await World(seed, scenario or Scenario()).run()

    return simulate(main)


class World:
    """One simulation."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        self._scenario, self._dice = scenario, random.Random(f"world {seed}")
        self._seed = seed
        self._loop = asyncio.get_running_loop()
        self.history = History(self._loop.time)
        self._ledger = Ledger(self.history)
        self._weather = Weather()
        self._processes: list[Process] = []
        self._started = 0
        self._run_ids: list[str] = []
        self._readers: list[asyncio.Task[None]] = []
        self._ending = False
        dice = self._dice
        self._threads = [f"t{n}" for n in range(dice.randint(1, 4))]
        self._unruly = dice.choice((0.0, 0.15, 0.5))
        self._busyness_s = dice.choice((0.15, 0.4, 1.0))
        self._settings = replace(
            scenario.settings,
            lease_s=dice.choice((1.0, 2.0, 2.0, 15.0)),
            max_rescues=dice.choice((0, 1, 3)),
            run_timeout_s=dice.choice((1.0, 8.0)),
            max_concurrent_runs=dice.choice((1, 2, 6)),
        )
        self._long_s = min(self._settings.lease_s, 4.0) * 3

    async def run(self) -> Simulated:
        for _ in range(self._dice.randint(1, 3)):
            self._start_process()
        self._change_weather()
        clients = [self._loop.create_task(self._client(f"c{n}")) for n in range(self._dice.randint(2, 4))]
        chaos = self._loop.create_task(self._chaos())
        await asyncio.gather(*clients)
        await chaos
        await self._come_to_rest()
        done = Simulated(self._seed, self.history)
        done.runs = self._ledger.query("SELECT * FROM runs ORDER BY seq")
        done.threads = self._ledger.query("SELECT * FROM threads ORDER BY thread_id")
        done.checkpoints = self._ledger.query("SELECT DISTINCT run_id FROM checkpoints ORDER BY run_id")
        return done

    # Processes and weather

    def _start_process(self) -> Process:
        self._started += 1
        name = f"p{self._started}"
        dice = random.Random(f"process {self._seed} {self._started}")
        driver = self._scenario.driver(self._ledger, self._weather, dice, hang_s=self._long_s)
        skew_s = dice.choice((0.0, 0.0, -1.5, 1.5))
        process = Process(name, Plan(self._settings, skew_s), driver, self.history, dice)
        self._processes.append(process)
        return process

    def _change_weather(self) -> None:
        dice = self._dice
        kind = dice.choice(("fair", "slow", "rough", "storm", "lossy", "outage"))
        values = {
            "fair": (0.1, 0.0, 0.0, 0.0),
            "slow": (0.7, 0.0, 0.0, 0.01),
            "rough": (0.3, 0.03, 0.02, 0.01),
            "storm": (0.4, 0.15, 0.1, 0.05),
            "lossy": (0.2, 0.0, 0.2, 0.0),
            "outage": (0.0, 1.0, 0.0, 0.0),
        }[kind]
        weather = self._weather
        weather.slow, weather.fails_before, weather.fails_after, weather.hangs = values
        self.history.note("weather", is_=kind)

    async def _chaos(self) -> None:
        dice = self._dice
        while self._loop.time() < ACTIVE_S:
            await asyncio.sleep(dice.random() * 4)
            if not self._scenario.chaos:
                continue
            living = [process for process in self._processes if process.alive]
            what = dice.choice(("weather", "weather", "kill", "cut", "cut", "shut", "shut", "start"))
            if what == "weather":
                self._change_weather()
            elif what == "start" or not living:
                if len(living) < 4:
                    self._start_process()
            elif what == "cut":
                dice.choice(living).cut_off(dice.random() * self._long_s)
            elif what == "kill":
                dice.choice(living).kill()
            else:
                self._loop.create_task(dice.choice(living).shut_down(dice.randint(0, 4)))

    async def _come_to_rest(self) -> None:
        """Let the sun shine, and wait until every run has ended and every reader knows it."""
        self._weather.clear()
        for process in self._processes:
            process.driver.cut_off_until = 0.0
        last = self._start_process()
        await asyncio.sleep(self._long_s + 1)  # transactions that were held up before are still on their way
        until = self._loop.time() + REST_S
        while self._ledger.query("SELECT 1 FROM runs WHERE ended_at IS NULL LIMIT 1") and self._loop.time() < until:
            await asyncio.sleep(0.5)
            if not last.alive:
                last = self._start_process()
        self.history.note("rest")
        self._ending = True
        if self._readers:
            _, late = await asyncio.wait(self._readers, timeout=30)
            for reader in self._readers:
                if reader in late:
                    reader.cancel()
            if late:
                self.history.note("readers_hang", number=len(late))
                await asyncio.wait(self._readers)
        stops = [self._loop.create_task(process.shut_down(0)) for process in self._processes if process.alive]
        if stops:
            _, hanging = await asyncio.wait(stops, timeout=30)
            if hanging:
                self.history.note("processes_hang", number=len(hanging))

    # Clients

    async def _client(self, name: str) -> None:
        dice = random.Random(f"client {self._seed} {name}")
        acts = (self._admit, self._admit, self._admit, self._cancel, self._cancel, self._watch, self._join)
        while self._loop.time() < ACTIVE_S:
            await asyncio.sleep(dice.random() * self._busyness_s * 2)
            serving = [process for process in self._processes if process.serves]
            if not serving:
                continue
            try:
                await dice.choice(acts)(name, dice, dice.choice(serving))
            except (ProcessGone, TimeoutError, RunlaneError) as error:
                self.history.note("refused", client=name, error=type(error).__name__)

    async def _admit(self, name: str, dice: random.Random, process: Process) -> None:
        strategy = dice.choice(list(MultitaskStrategy))
        unruly = dice.random() < self._unruly
        new = NewRun(
            run_id=f"r{len(self._run_ids)}",
            thread_id=dice.choice(self._threads),
            owner="",
            multitask_strategy=strategy,
            delay_s=dice.choice((0.0,) * 6 + (0.7, 3.0)),
            idempotency_key=dice.choice((None, None, None, f"key{dice.randint(0, 3)}")),
            kwargs={
                "graph_id": dice.choice(MISBEHAVED if unruly else WELL_BEHAVED),
                "steps": dice.randint(0, 4),
                "pace_s": dice.choice((0.0, 0.02, 0.1, 0.5)),
            },
        )
        self._run_ids.append(new.run_id)

        async def admit(runtime: Runtime) -> Any:
            admitted = await runtime.runs.admit(new)
            admitted.watch.close()
            return admitted

        try:
            admitted = await process.ask(admit, leave_after_s=dice.choice((None, dice.random() * 0.1)))
        except ConflictError as conflict:
            self.history.note("conflict", run=new.run_id, by=conflict.active_run_id)
            return
        run_id = admitted.run.run_id
        self.history.note("told_admitted", run=run_id, reused=admitted.reused, asked=new.run_id)
        for _ in range(dice.choice((0, 1, 1, 2))):
            self._read(run_id, dice.getrandbits(32), process)

    async def _cancel(self, name: str, dice: random.Random, process: Process) -> None:
        if not self._run_ids:
            return
        run_id = dice.choice(self._run_ids[-6:])
        action, wait = dice.choice(("interrupt", "rollback")), dice.random() < 0.3

        async def cancel(runtime: Runtime) -> Any:
            return await runtime.runs.cancel(run_id, action=action, wait=wait)

        for _ in range(dice.choice((1, 1, 2))):
            asked_at = len(self.history.notes)
            try:
                receipt = await process.ask(cancel, leave_after_s=dice.choice((2.0, dice.random() * 0.1)))
            except NotFound:
                self.history.note("told_absent", run=run_id, asked_at=asked_at)
                continue
            facts: dict[str, Any] = {"action": None}
            if receipt is not None:
                facts = {
                    "action": receipt.action.value,
                    "stopped": receipt.stopped_at is not None,
                    "blocked": receipt.blocked_at is not None,
                }
            self.history.note("told_cancel", run=run_id, wait=wait, **facts)

    async def _watch(self, name: str, dice: random.Random, process: Process) -> None:
        if told := [note.run for note in self.history.of("told_admitted")]:
            self._read(dice.choice(told[-8:]), dice.getrandbits(32), process)

    async def _join(self, name: str, dice: random.Random, process: Process) -> None:
        told = [note.run for note in self.history.of("told_admitted")]
        if not told:
            return
        run_id = dice.choice(told[-4:])

        async def join(runtime: Runtime) -> Any:
            return await runtime.runs.join(run_id)

        ending = await process.ask(join, leave_after_s=2.0)
        self.history.note("told_ending", run=run_id, status=ending.status.value)

    def _read(self, run_id: str, seed: int, process: Process) -> None:
        name = f"reader{len(self._readers)}"
        self._readers.append(self._loop.create_task(self._reader(name, run_id, random.Random(seed), process)))

    async def _reader(self, name: str, run_id: str, dice: random.Random, process: Process) -> None:
        """Read a run's stream to its end, going away now and then and coming back to any process."""
        cursor = [0]
        while cursor[0] >= 0:

            async def follow(runtime: Runtime) -> None:
                async for item in runtime.streams.subscribe(run_id, after=cursor[0], owner=ANY_OWNER):
                    self._read_item(name, run_id, item, cursor)

            patience_s = dice.choice((None, 30.0, dice.random())) if not self._ending else None
            try:
                await process.ask(follow, leave_after_s=patience_s)
            except (ProcessGone, TimeoutError):
                self.history.note("reconnect", reader=name, run=run_id)
            except NotFound:
                self.history.note("told_absent", run=run_id, asked_at=len(self.history.notes))
            except RunlaneError as error:
                self.history.note("reconnect", reader=name, run=run_id, error=type(error).__name__)
            if cursor[0] >= 0:
                await asyncio.sleep(0.05 + dice.random() * 0.2)
                serving = [process for process in self._processes if process.serves]
                process = dice.choice(serving) if serving else process

    def _read_item(self, name: str, run_id: str, item: Any, cursor: list[int]) -> None:
        if isinstance(item, StreamGap):
            self.history.note("gap", reader=name, run=run_id, resumes_at=item.resumes_at)
        elif isinstance(item, StreamEvent):
            cursor[0] = item.seq
            self.history.note("read", reader=name, run=run_id, seq=item.seq, name=item.name, data=item.data)
        elif isinstance(item, StreamEnd):
            cursor[0] = -1
            for _ in range(2 if self._scenario.repeat_ends else 1):
                self.history.note("end", reader=name, run=run_id, seq=item.seq, status=item.status.value)
