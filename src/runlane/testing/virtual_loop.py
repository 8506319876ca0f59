"""An event loop whose clock is virtual: when nothing is ready, time jumps to the next timer.

Code on it belongs to a :class:`Life`, a simulated process, which can be killed or frozen between any two of its steps.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

#: Turns of the loop after which a simulation is taken to run for ever, in all and without time passing.
MAX_TURNS: Final = 3_000_000
MAX_TURNS_AT_ONCE: Final = 20_000


class Deadlock(Exception):
    """Nothing is ready and no timer is set: whoever waits would wait for ever."""


class Livelock(BaseException):  # no supervisor shall catch it
    """The loop turns without time passing, or does not come to an end."""


class Life:
    """A simulated process. Code of a dead one is never run again, not even its clean-up; that of a frozen one waits."""

    __slots__ = ("_fuse", "_parked", "_then", "alive", "frozen")

    def __init__(self) -> None:
        self.alive = True
        self.frozen = False
        self._parked: list[asyncio.Handle] = []
        self._fuse = 0
        self._then: Callable[[], None] | None = None

    def after_steps(self, steps: int, then: Callable[[], None]) -> None:
        """Call *then* in place of the process's step number *steps* from now, which comes after it: at any await."""
        self._fuse, self._then = max(1, steps), then

    def spare(self) -> None:
        """Take back what :meth:`after_steps` announced."""
        self._fuse, self._then = 0, None

    def thaw(self) -> None:
        """Let a frozen process go on: first with all that would have happened meanwhile, in its order.

        So does a dead one that is made alive again, which is for the very end: its code may clean up then.
        """
        self.frozen = False
        loop = cast(Any, asyncio.get_running_loop())
        parked, self._parked = self._parked, []
        loop._ready.extend(parked)

    def takes(self, handle: asyncio.Handle) -> bool:
        """Return whether the process may run *handle* now."""
        if self._fuse and self.alive and not self.frozen:
            self._fuse -= 1
            if not self._fuse and self._then is not None:
                then, self._then = self._then, None
                then()
        if self.frozen or not self.alive:
            self._parked.append(handle)
            return False
        return True


#: The process that the running code belongs to; inherited by its tasks and timers.
LIFE: ContextVar[Life | None] = ContextVar("simulated_process", default=None)


class _Step(asyncio.Handle):
    """A callback of a simulated process."""

    __slots__ = ("life",)
    life: Life

    def _run(self) -> None:
        if self.life.takes(self):
            super()._run()


class _Timer(asyncio.TimerHandle):
    """A timer of a simulated process."""

    __slots__ = ("life",)
    life: Life

    def _run(self) -> None:
        if self.life.takes(self):
            super()._run()


class _CountedTask(asyncio.Task[Any]):
    """A task whose place in a set hangs on its number, and not on its address."""

    def __init__(self, number: int, coroutine: Any, **options: Any) -> None:
        self._number = number
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs everything in a deterministic order, in no time. It has no sockets and no threads.

    What is given to an executor is executed at once, on the loop's own thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self._selector = self
        self._now = 0.0
        self._turns = self._turns_at_once = 0
        self._kept: list[asyncio.Task[Any]] = []
        self._made = 0
        self.set_task_factory(self._new_task)

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """Wait as a selector does: let *timeout* seconds pass."""
        self._turns += 1
        self._turns_at_once += 1
        if timeout is None:
            raise Deadlock
        if timeout > 0:
            self._now += timeout
            self._turns_at_once = 0
        if self._turns > MAX_TURNS or self._turns_at_once > MAX_TURNS_AT_ONCE:
            raise Livelock(f"at {self._now:.3f} s")
        return []

    def _process_events(self, _: list[Any]) -> None:
        return

    def _write_to_self(self) -> None:
        return

    def call_soon(  # type: ignore[override]  # asyncio declares more than it uses
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        context = copy_context() if context is None else context
        life = context.get(LIFE)
        if life is None:
            return super().call_soon(callback, *args, context=context)
        step = _Step(callback, args, self, context)
        step.life = life
        cast(Any, self)._ready.append(step)
        return step

    def run_in_executor(  # type: ignore[override]  # asyncio declares more than it uses
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever awaits it
            done.set_exception(error)
        return done

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there is one thread

    def call_at(  # type: ignore[override]  # asyncio declares more than it uses
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        context = copy_context() if context is None else context
        life = context.get(LIFE)
        if life is None:
            return super().call_at(when, callback, *args, context=context)
        timer = _Timer(when, callback, args, self, context)
        timer.life = life
        heapq.heappush(cast(Any, self)._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]  # as the loop does itself
        return timer

    def _new_task(self, loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        """Make a task and hold it: that of a dead process must not be collected, which would run its clean-up."""
        self._made += 1
        task = _CountedTask(self._made, coroutine, loop=loop, **options)
        self._kept.append(task)
        if len(self._kept) % 1000 == 0:
            self._kept = [kept for kept in self._kept if not kept.done()]
        return task

    def close(self) -> None:
        for task in self._kept:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # they are dropped on purpose
        super().close()


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]], new_loop: Callable[[], VirtualLoop] = VirtualLoop) -> T:
    """Run *main* on a virtual loop of its own, without garbage collection, whose moments nobody can repeat.

    Raises:
        Deadlock: Everybody waits.
        Livelock: It does not come to an end.
    """
    collecting = gc.isenabled()
    gc.disable()
    loop = new_loop()
    loop.set_exception_handler(lambda *_: None)
    try:
        return loop.run_until_complete(main())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
        if collecting:
            gc.enable()
