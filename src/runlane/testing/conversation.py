"""One conversation of a client with an agent, in a world in which everything else goes wrong."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final, TypeVar

from runlane.agents.base import Agent
from runlane.errors import AdmissionClosed, StoreUnavailable
from runlane.lifecycle import ActionLike, EndReason, RunStatus, StrategyLike
from runlane.records import ANY_OWNER, RunRecord
from runlane.runtime import Runtime
from runlane.settings import Settings
from runlane.testing.faults import PROFILES, Faults
from runlane.testing.history import History
from runlane.testing.ledger import FaultyDriver, Ledger
from runlane.testing.process import Patience, Process, ProcessGone, ProcessPlan
from runlane.testing.world import Turn, World

T = TypeVar("T")

THREAD: Final = "thread"
GRAPH_ID: Final = "agent"
#: What a run may take, in virtual seconds, before it is said that it does not end.
LIMIT_S: Final = 1200.0
#: How long a process stands still, or is cut off, at most: some leases.
LONG_S: Final = 9.0
#: Steps of a process, or of a client, within which something happens to it, if not at once.
STEPS: Final = (30, 120, 400)
#: How long code of dead processes may clean up after all is over, in virtual seconds.
LAST_WORDS_S: Final = 60

SETTINGS: Final = Settings(
    database="postgresql://simulated/ledger",
    lease_s=2.0,
    poll_s=0.5,
    heartbeat_s=0.5,
    cancel_grace_s=2.0,
    abandon_after_s=2.0,
    drain_grace_s=0.5,
    max_rescues=1000,
)


class _Stuck(Exception):
    """A run does not end."""


class Conversation:
    """Plays all *turns* on one thread while faults happen, then the last one once more in peace."""

    def __init__(self, world: World, history: History, make_agent: Callable[[World], Agent], *, may_fail: bool) -> None:
        self._world = world
        self._history = history
        self._make_agent = make_agent
        self._may_fail = may_fail
        self._dice = random.Random(f"conversation {world.seed}")
        self._ledger = Ledger(history)
        self._faults = Faults(history)
        self._processes: list[Process] = []
        self._continuable = True
        self._may_stop: set[str] = set()
        self._troubles: set[asyncio.Task[None]] = set()
        self._resting = False

    async def play(self, turns: Sequence[Turn]) -> list[str]:
        """Play the conversation; return the promises that were broken."""
        run_ids: list[str] = []
        self._start_process()
        keeper = asyncio.get_running_loop().create_task(self._keep_up())
        try:
            await self._play(turns, run_ids, keeper)
        except _Stuck as stuck:
            self._resting = True
            return [f"turn {len(run_ids)} has not ended after {LIMIT_S:.0f} s: {stuck}"]
        finally:
            keeper.cancel()
        await self._look(run_ids)
        return list(self._broken())

    async def _play(self, turns: Sequence[Turn], run_ids: list[str], keeper: asyncio.Task[None]) -> None:
        dice = self._dice
        for number, turn in enumerate(turns):
            strategy: StrategyLike = dice.choice(("enqueue", "interrupt", "rollback"))
            if strategy != "enqueue":
                self._may_stop.update(run_ids)
            run_ids.append(await self._say(turn, f"turn {number}", strategy))
            self._troubles |= {self._begin_trouble(run_ids[-1]) for _ in range(dice.choice((0, 1, 1, 2, 3)))}
            if dice.random() < 0.7:
                await self._ended(run_ids[-1])
            else:
                await self._moment()
        await self._calm_down(keeper)
        for run_id in run_ids:
            await self._ended(run_id)
        run_ids.append(await self._say(turns[-1], "in peace", "enqueue"))
        await self._ended(run_ids[-1])

    async def dispose(self) -> None:
        """Shut the living down, and let code of dead processes clean up: nothing that it does is seen any more."""
        for process in self._processes:
            if process.alive:
                await process.shut_down(0)
        for _ in range(LAST_WORDS_S):
            for process in self._processes:  # again, as one that has gone down may have left code behind
                process.dispose()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=1.0)
        await asyncio.get_running_loop().shutdown_asyncgens()

    # Processes

    def _start_process(self) -> Process:
        agent = self._make_agent(self._world)
        self._continuable = agent.continuable
        name = f"p{len(self._processes) + 1}"
        dice = random.Random(f"{name} {self._world.seed}")
        driver = FaultyDriver(self._ledger, self._faults, dice, hang_s=LONG_S, process=name)
        process = Process(name, ProcessPlan(SETTINGS, lambda _: lambda _: agent), driver, self._faults, dice)
        self._processes.append(process)
        return process

    async def _keep_up(self) -> None:
        """See that a process serves, or two, as whoever operates them would."""
        while True:
            wanted = self._dice.choice((1, 1, 2))
            if sum(process.serves for process in self._processes) < wanted:
                self._start_process()
            await asyncio.sleep(self._dice.random() * 2)

    async def _asked(self, make: Callable[[Runtime], Coroutine[Any, Any, T]]) -> T:
        """Ask any process that serves, again and again, until one answers."""
        while True:
            serving = [process for process in self._processes if process.serves and not process.frozen]
            if serving:
                try:
                    return await self._dice.choice(serving).ask(make, Patience(seconds=5.0))
                except (ProcessGone, TimeoutError, StoreUnavailable, AdmissionClosed) as error:
                    self._history.note("refused", error=type(error).__name__)
            await asyncio.sleep(0.2)

    # The client

    async def _say(self, turn: Turn, key: str, strategy: StrategyLike) -> str:
        kwargs = {**turn.options, "graph_id": GRAPH_ID}
        kwargs |= {"input": turn.input} if turn.command is None else {"command": dict(turn.command)}

        async def create(runtime: Runtime) -> RunRecord:
            return await runtime.runs.create_or_reject(
                THREAD, kwargs=kwargs, multitask_strategy=strategy, on_disconnect="continue", idempotency_key=key
            )

        run = await self._asked(create)
        self._history.note("told", run=run.run_id, turn=key, strategy=strategy)
        return run.run_id

    async def _ended(self, run_id: str) -> None:
        """Wait until the run has ended.

        Raises:
            _Stuck: It does not.
        """
        until = self._world.now_s + LIMIT_S
        while rows := self._ledger.query(f"SELECT status FROM runs WHERE run_id = '{run_id}' AND ended_at IS NULL"):
            if self._world.now_s > until:
                raise _Stuck(f"it is {rows[0]['status']}")
            await asyncio.sleep(0.1)

    async def _moment(self) -> None:
        """Let some steps of the loop go by, or some time."""
        if self._dice.random() < 0.3:
            await asyncio.sleep(self._dice.random() * 3)
            return
        for _ in range(self._steps()):
            await asyncio.sleep(0)

    # Faults

    def _begin_trouble(self, run_id: str) -> asyncio.Task[None]:
        acts = (
            *(self._kill, self._kill, self._freeze, self._cut, self._deploy, self._switch),
            *(self._interrupt, self._rollback),
        )
        return asyncio.get_running_loop().create_task(self._dice.choice(acts)(run_id))

    def _steps(self) -> int:
        return self._dice.randint(1, self._dice.choice(STEPS))

    async def _busy(self) -> Process | None:
        await self._moment()
        living = [process for process in self._processes if process.alive and not self._resting]
        busy = [process for process in living if process.executing] or living
        return self._dice.choice(busy) if busy else None

    async def _kill(self, _: str) -> None:
        if process := await self._busy():
            process.kill(self._steps())

    async def _freeze(self, _: str) -> None:
        if process := await self._busy():
            process.freeze(self._dice.random() * LONG_S, self._steps())

    async def _cut(self, _: str) -> None:
        if process := await self._busy():
            process.cut_off(self._dice.random() * LONG_S)

    async def _deploy(self, _: str) -> None:
        if process := await self._busy():
            self._history.fault("shutdown asked")
            await process.shut_down(self._dice.choice((0, 0, 2)))

    async def _switch(self, _: str) -> None:
        await self._moment()
        if not self._resting:
            self._faults.switch(self._dice.choice(list(PROFILES)))
            await asyncio.sleep(self._dice.random() * LONG_S)
            self._faults.stop()

    async def _interrupt(self, run_id: str) -> None:
        await self._cancel(run_id, "interrupt")

    async def _rollback(self, run_id: str) -> None:
        await self._cancel(run_id, "rollback")

    async def _cancel(self, run_id: str, action: ActionLike) -> None:
        await self._moment()
        if not self._resting:
            self._may_stop.add(run_id)
            self._history.note("cancel", run=run_id, action=action)
            await self._asked(lambda runtime: runtime.runs.cancel(run_id, action=action))

    async def _calm_down(self, keeper: asyncio.Task[None]) -> None:
        self._resting = True
        for task in self._troubles:
            task.cancel()
        keeper.cancel()
        await asyncio.gather(keeper, *self._troubles, return_exceptions=True)
        self._faults.stop()
        for process in self._processes:
            process.spare()
        self._start_process()
        await asyncio.sleep(LONG_S + 1)  # transactions that were held up are still on their way
        self._history.note("peace")

    # What came of it

    async def _look(self, run_ids: Sequence[str]) -> None:
        async def look(runtime: Runtime) -> None:
            world, store = self._world, runtime.store
            world.runs = tuple([await store.runs.get(run_id, owner=ANY_OWNER) for run_id in run_ids])
            world.values = (await store.threads.get(THREAD, owner=ANY_OWNER)).values
            for run in world.runs:
                shown = world.events[run.run_id] = []
                after = 0
                while page := await store.events.read(run.seq, after=after):
                    shown.extend((event.name, json.loads(event.data)) for event in page)
                    after = page[-1].seq

        await self._asked(look)

    def _broken(self) -> Iterator[str]:
        runs = self._world.runs
        for number, run in enumerate(runs, 1):
            who = f"turn {number}" if number < len(runs) else "the last turn, once more in peace,"
            if (wrong := self._wrong_ending(run)) is not None:
                yield f"{who} {wrong}"
        if runs[-1].end_reason is not EndReason.PAUSED:
            yield from unpaired(self._world.values)

    def _wrong_ending(self, run: RunRecord) -> str | None:
        stopped = run.status is RunStatus.INTERRUPTED
        drained = run.end_reason is EndReason.DRAINED_OVER and not self._continuable
        lost = run.end_reason is EndReason.WORKER_LOST and not self._continuable
        failed = run.status is RunStatus.ERROR and run.end_reason is EndReason.FAILED
        if run.status is RunStatus.SUCCESS or lost or (failed and self._may_fail):
            return None
        if stopped and (drained or run.run_id in self._may_stop):
            return None
        why = f"{run.error.error}: {run.error.message}" if run.error else str(run.end_reason)
        return f"ended as {run.status} ({why})"


def unpaired(values: Any) -> Iterator[str]:
    """Yield what is wrong with the tool calls of a state: each must have exactly one result."""
    messages = values.get("messages") if isinstance(values, dict) else None
    messages = [message for message in messages or () if isinstance(message, dict)]
    results = Counter(message.get("tool_call_id") for message in messages if message.get("type") == "tool")
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    for call in calls:
        if results[call["id"]] != 1:
            yield f"tool call {call['id']} ({call['name']}) has {results[call['id']]} results"
    for tool_call_id in results.keys() - {call["id"] for call in calls}:
        yield f"a result is of tool call {tool_call_id}, which nobody made"
