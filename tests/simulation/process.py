"""A simulated process: the real runtime on its own connection, which can be killed at any moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from runlane.errors import RunlaneError
from runlane.runtime import Runtime, open_runtime
from runlane.settings import Settings
from runlane.store.retry import PersistenceRetryPolicy
from simulation.agents import StepAgent
from simulation.history import History
from simulation.ledger import EPOCH_US, FaultyDriver
from simulation.virtual_loop import LIFE, Life

T = TypeVar("T")
EPOCH = datetime.fromtimestamp(EPOCH_US / 1_000_000, UTC)


class ProcessGone(Exception):
    """The process died before it answered."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What every process of a simulation is started with."""

    settings: Settings
    skew_s: float = 0.0


class Process:
    """Runs the runtime in tasks that stop for ever when it is killed, without any clean-up."""

    def __init__(self, name: str, plan: Plan, driver: FaultyDriver, history: History, dice: random.Random) -> None:
        self.name, self.driver = name, driver
        self._plan, self._history, self._dice = plan, history, dice
        self.runtime: Runtime | None = None
        self._life = Life()
        self._context = copy_context()
        self._context.run(LIFE.set, self._life)
        self._stop = asyncio.Event()
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._made_ids = 0
        self._main = self.spawn(self._run())
        history.note("up", process=name)

    @property
    def serves(self) -> bool:
        return self._life.alive and self.runtime is not None and not self._stop.is_set()

    @property
    def alive(self) -> bool:
        return self._life.alive

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run *coroutine* inside of the process."""
        return asyncio.get_running_loop().create_task(coroutine, context=self._context.copy())

    async def ask(self, make: Callable[[Runtime], Coroutine[Any, Any, T]], *, leave_after_s: float | None = None) -> T:
        """Have the process answer a client, who may leave after a while.

        Raises:
            ProcessGone: It died, or serves nobody.
            asyncio.TimeoutError: The client left.
            RunlaneError: Its answer.
        """
        if not self.serves or self.runtime is None:
            raise ProcessGone
        task = self.spawn(make(self.runtime))
        await asyncio.wait((task, self._gone), timeout=leave_after_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if self._gone.done():
            raise ProcessGone
        task.cancel()
        await asyncio.wait((task, self._gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done() and not task.cancelled():
            return task.result()
        raise TimeoutError

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        if self._life.alive:
            self._life.alive = False
            self._history.note("killed", process=self.name)
            self._gone.set_result(None)

    async def shut_down(self, interruptions: int) -> None:
        """Ask it to stop, and cancel it *interruptions* times more while it does."""
        self._history.note("stopping", process=self.name)
        self._stop.set()
        for _ in range(interruptions):
            await asyncio.wait((self._main, self._gone), timeout=self._dice.random() * 0.4)
            if not self._main.done() and self._life.alive:
                self._main.cancel()
        await asyncio.wait((self._main, self._gone), return_when=asyncio.FIRST_COMPLETED)

    def cut_off(self, seconds: float) -> None:
        """Cut it off from the ledger."""
        self._history.note("cut_off", process=self.name, seconds=round(seconds, 2))
        self.driver.cut_off_until = asyncio.get_running_loop().time() + seconds

    async def _run(self) -> None:
        try:
            async with open_runtime(
                settings=self._plan.settings,
                driver=self.driver,
                graph_agent=lambda behaviour: StepAgent(behaviour, self._history, self.name),
                new_id=self._new_id,
                retry=PersistenceRetryPolicy(random=self._dice.random),
                exclusive=False,
                worker_id=self.name,
                now=self._now,
            ) as runtime:
                self.runtime = runtime
                self._history.note("serving", process=self.name)
                await self._stop.wait()
        except (RunlaneError, asyncio.CancelledError) as error:
            self._history.note("failed", process=self.name, error=type(error).__name__)
        finally:
            if self._life.alive:
                self._history.note("down", process=self.name)
                self._life.alive = False
                self._gone.set_result(None)

    def _new_id(self) -> str:
        self._made_ids += 1
        return f"{self.name}-{self._made_ids}"

    def _now(self) -> datetime:
        return EPOCH + timedelta(seconds=self._history.clock() + self._plan.skew_s)
