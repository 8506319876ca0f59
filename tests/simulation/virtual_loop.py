"""An event loop whose clock is virtual: when nothing is ready, time jumps to the next timer."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")

#: Turns of the loop after which a simulation is taken to run for ever, in all and without time passing.
MAX_TURNS = 3_000_000
MAX_TURNS_AT_ONCE = 20_000


class Deadlock(Exception):
    """Nothing is ready and no timer is set: whoever waits would wait for ever."""


class Livelock(BaseException):  # no supervisor shall catch it
    """The loop turns without time passing, or does not come to an end."""


class Life:
    """Whether a simulated process lives. Code of a dead one is not run, not even its clean-up.

    ``missed`` is what it would have done next: a process that was only stopped can be continued, see :meth:`go_on`.
    """

    __slots__ = ("alive", "missed")

    def __init__(self) -> None:
        self.alive = True
        self.missed: list[tuple[Callable[..., object], tuple[Any, ...], Context]] = []

    def go_on(self) -> None:
        """Continue it where it was stopped, as a signal does."""
        self.alive = True
        loop = asyncio.get_running_loop()
        for callback, args, context in self.missed:
            loop.call_soon(callback, *args, context=context)
        self.missed = []


#: The process that the running code belongs to; inherited by its tasks and timers.
LIFE: ContextVar[Life | None] = ContextVar("simulated_process", default=None)


def _if_alive(life: Life, callback: Callable[..., object], args: tuple[Any, ...], context: Context) -> None:
    if life.alive:
        callback(*args)
    else:
        life.missed.append((callback, args, context))


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs everything in a deterministic order, in no time. It has no sockets and no threads."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = self
        self._now = 0.0
        self._turns = self._turns_at_once = 0
        self._kept: list[asyncio.Task[Any]] = []
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

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        context = copy_context() if context is None else context
        life = context.get(LIFE)
        if life is None:
            return super().call_soon(callback, *args, context=context)
        return super().call_soon(_if_alive, life, callback, args, context, context=context)

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        context = copy_context() if context is None else context
        life = context.get(LIFE)
        if life is None:
            return super().call_at(when, callback, *args, context=context)
        return super().call_at(when, _if_alive, life, callback, args, context, context=context)

    def _new_task(self, loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        """Make a task and hold it: that of a dead process must not be collected, which would run its clean-up."""
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        self._kept.append(task)
        if len(self._kept) % 1000 == 0:
            self._kept = [kept for kept in self._kept if not kept.done()]
        return task

    def close(self) -> None:
        for task in self._kept:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        super().close()


def simulate(main: Callable[[], Coroutine[Any, Any, T]], new_loop: Callable[[], VirtualLoop] = VirtualLoop) -> T:
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
