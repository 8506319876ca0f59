"""A simulated process: the real runtime on its own connection, which can be killed or frozen between any two steps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from runlane.dispatch.base import Dispatch
from runlane.dispatch.shared import SharedDispatch
from runlane.errors import RunlaneError
from runlane.maintenance.sharing import hear
from runlane.runtime import Runtime, open_runtime
from runlane.settings import Limits, Settings
from runlane.store.retry import PersistenceRetryPolicy
from runlane.testing.faults import Careless, CarelessDispatch, CarelessSharedDispatch, Faults
from runlane.testing.ledger import EPOCH_US, FaultyDriver
from runlane.testing.virtual_loop import LIFE, Life

T = TypeVar("T")
EPOCH = datetime.fromtimestamp(EPOCH_US / 1_000_000, UTC)


class ProcessGone(Exception):
    """The process died before it answered."""


@dataclass(frozen=True, slots=True)
class Patience:
    """When a client leaves: after a time, or after so many steps of the loop, which may be at any await; or never."""

    seconds: float | None = None
    steps: int | None = None


FOR_EVER = Patience()


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """The arguments of a simulated process. ``agents(process_name)(graph_id)`` is the agent of its runs."""

    settings: Settings
    agents: Callable[[str], Callable[[str], Any]]
    skew_s: float = 0.0


class Process:
    """Runs the runtime in tasks that stop for ever when it is killed, without any clean-up."""

    def __init__(self, name: str, plan: ProcessPlan, driver: FaultyDriver, faults: Faults, dice: random.Random) -> None:
        self.name = name
        self.driver = driver
        self._plan = plan
        self._faults = faults
        self._history = faults.history
        self._dice = dice
        self._skew_s = plan.skew_s
        self.runtime: Runtime | None = None
        self._life = Life()
        self._context = copy_context()
        self._context.run(LIFE.set, self._life)
        self._stop = asyncio.Event()
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._made_ids = 0
        if plan.skew_s:
            self._history.fault("clock skewed")
        self._main = self.spawn(self._run())
        self._history.note("up", process=name)

    @property
    def serves(self) -> bool:
        return self._life.alive and self.runtime is not None and not self._stop.is_set()

    @property
    def alive(self) -> bool:
        return self._life.alive

    @property
    def frozen(self) -> bool:
        return self._life.frozen

    @property
    def executing(self) -> int:
        return 0 if self.runtime is None else self.runtime.worker.executing

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run *coroutine* inside of the process."""
        return asyncio.get_running_loop().create_task(coroutine, context=self._context.copy())

    async def ask(self, make: Callable[[Runtime], Coroutine[Any, Any, T]], patience: Patience = FOR_EVER) -> T:
        """Have the process answer a client, who may leave early.

        Raises:
            ProcessGone: It died, or serves nobody.
            TimeoutError: The client left.
            RunlaneError: Its answer.
        """
        if not self.serves or self.runtime is None:
            raise ProcessGone
        task = self.spawn(make(self.runtime))
        await self._until(task, patience)
        if task.done():
            return task.result()
        if self._gone.done():
            raise ProcessGone
        self._history.fault("caller left" if patience.steps is None else "caller cancelled at an await")
        task.cancel()
        await asyncio.wait((task, self._gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done() and not task.cancelled():
            return task.result()
        raise TimeoutError

    async def _until(self, task: asyncio.Task[Any], patience: Patience) -> None:
        if patience.steps is None:
            waited = (task, self._gone)
            await asyncio.wait(waited, timeout=patience.seconds, return_when=asyncio.FIRST_COMPLETED)
            return
        loop, left = asyncio.get_running_loop(), patience.steps
        limit = loop.time() + 2.0
        while left > 0 and not (task.done() or self._gone.done()) and loop.time() < limit:
            left -= 1
            # A step of what is ready; and, so that time passes for what is not, a moment now and then.
            await asyncio.sleep(0.01 if left % 8 == 7 else 0)

    def kill(self, steps: int = 0) -> None:
        """End it as ``kill -9`` does, now or after *steps* more of its steps."""
        self._soon(steps, self._die)

    def freeze(self, seconds: float, steps: int = 0) -> None:
        """Stop it as SIGSTOP does, now or after *steps* more of its steps, and let it go on *seconds* later."""
        loop = asyncio.get_running_loop()

        def stop() -> None:
            if self._life.alive and not self._life.frozen:
                self._life.frozen = True
                self._history.fault("process frozen")
                self._history.note("frozen", process=self.name, seconds=round(seconds, 2))
                outside.run(loop.call_later, seconds, self.thaw)

        outside = copy_context()
        outside.run(LIFE.set, None)
        self._soon(steps, stop)

    def spare(self) -> None:
        """Let nothing happen to it that has not happened yet, and let it go on."""
        self._life.spare()
        self.driver.cut_off_until = 0.0
        self.thaw()

    def thaw(self) -> None:
        """Let it go on, as SIGCONT does."""
        if self._life.alive and self._life.frozen:
            self._history.note("thawed", process=self.name)
            self._life.thaw()

    def _soon(self, steps: int, then: Callable[[], None]) -> None:
        if steps:
            self._life.after_steps(steps, then)
        else:
            then()

    def _die(self) -> None:
        if self._life.alive:
            self._life.alive = False
            self._history.fault("process killed")
            self._history.note("killed", process=self.name)
            self._gone.set_result(None)

    def dispose(self) -> None:
        """Let what is left of a dead process clean up, without a ledger: for the very end, when nobody looks."""
        self.driver.unplugged = True
        self._life.alive = True
        self._life.thaw()

    async def shut_down(self, interruptions: int) -> None:
        """Ask it to stop, and cancel it *interruptions* times more while it does."""
        self._history.note("stopping", process=self.name)
        self._stop.set()
        for _ in range(interruptions):
            await asyncio.wait((self._main, self._gone), timeout=self._dice.random() * 0.4)
            if not self._main.done() and self._life.alive:
                self._history.fault("shutdown signal repeated")
                self._main.cancel()
        await asyncio.wait((self._main, self._gone), return_when=asyncio.FIRST_COMPLETED)

    def cut_off(self, seconds: float) -> None:
        """Cut it off from the ledger."""
        self._history.fault("process cut off")
        self._history.note("cut_off", process=self.name, seconds=round(seconds, 2))
        self.driver.cut_off_until = asyncio.get_running_loop().time() + seconds

    def step_clock(self, seconds: float) -> None:
        """Set its clock forward, or back."""
        self._history.fault("clock stepped")
        self._history.note("clock", process=self.name, seconds=round(seconds, 2))
        self._skew_s += seconds

    async def _run(self) -> None:
        dispatch = self._new_dispatch()
        try:
            async with (
                AsyncExitStack() as exchanging,
                open_runtime(
                    settings=self._plan.settings,
                    driver=self.driver,
                    graph_agent=self._plan.agents(self.name),
                    new_dispatch=lambda limits: dispatch,
                    new_id=self._new_id,
                    retry=PersistenceRetryPolicy(random=self._dice.random),
                    exclusive=False,
                    worker_id=self.name,
                    now=self._now,
                ) as runtime,
            ):
                self._exchange(runtime, dispatch, exchanging)
                self.runtime = runtime
                self._history.note("serving", process=self.name)
                await self._stop.wait()
        except (RunlaneError, asyncio.CancelledError) as error:
            self._history.note("failed", process=self.name, error=type(error).__name__)
        finally:
            if self._life.alive:
                self._history.note("down", process=self.name, troubled_until=self.driver.troubled_until)
                self._life.alive = False
                self._gone.set_result(None)

    def _new_dispatch(self) -> Dispatch:
        """Every other process claims by hints, and the rest ask the ledger for heads."""
        limits, carry = Limits.of(self._plan.settings), Careless(self._faults, self._dice)
        by_hints = sum(self.name.encode()) % 2
        return CarelessDispatch(limits, carry) if by_hints else CarelessSharedDispatch(limits, carry)

    def _exchange(self, runtime: Runtime, dispatch: Dispatch, stack: AsyncExitStack) -> None:
        """Exchange notifications and permits with other processes, until the stack is left."""
        exchange, reachable = self.driver.exchange, self.driver.reachable
        receive, carry = partial(hear, runtime.streams, dispatch), Careless(self._faults, self._dice)
        stack.enter_context(exchange.notifying(runtime.notifications, receive, carry, reachable=reachable))
        if isinstance(dispatch, SharedDispatch):
            permits = Careless(self._faults, self._dice, "permit")
            stack.enter_context(exchange.sharing(dispatch, permits, reachable=reachable))

    def _new_id(self) -> str:
        self._made_ids += 1
        return f"{self.name}-{self._made_ids}"

    def _now(self) -> datetime:
        return EPOCH + timedelta(seconds=self._history.clock() + self._skew_s)
