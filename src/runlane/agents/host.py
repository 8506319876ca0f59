"""Places where agents run: on the caller's loop, or on a loop thread of their own that user code may block."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from runlane.agents.blocking import LoopWatch
from runlane.agents.places import describe, innermost, polls
from runlane.agents.tracking import TrackingExecutor, TrackingTasks, serves_others, track
from runlane.agents.watchdog import Watchdog, WatchedLease, uptime
from runlane.outcomes import Abandoned
from runlane.work import WORK, Work

log = logging.getLogger("runlane.agents")
T = TypeVar("T")

#: Threads for the synchronous nodes of all graphs; idle ones cost nothing, blocked ones must not starve the rest.
SYNC_THREADS = 256
#: How those threads' names begin.
SYNC_THREADS_NAME = "runlane-node"
#: What abandoned code gets for its last words when the loop closes, in seconds.
LAST_WORDS_S = 0.5


class Handle(Generic[T]):
    """A coroutine on the agents' loop, seen from the control loop, with everything that it starts there.

    ``done`` is the coroutine's result or error, once all that it started has ended too, or is abandoned; whatever it
    raises, ``SystemExit`` too, stays in there. ``returned`` is set before, if the coroutine has ended and something
    that it started has not: after a failure that is cancelled at once, otherwise it may finish.
    """

    def __init__(
        self,
        make: Callable[[], Coroutine[Any, Any, T]],
        host: AgentHost,
        name: str,
        *,
        tracked: bool = True,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.done: asyncio.Future[T] = host.control.create_future()
        self.returned: asyncio.Future[None] = host.control.create_future()
        self.abandoned: Abandoned | None = None
        self._make = make
        self._host = host
        self._name = name
        self._abandoned_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._work = Work()
        self._tracked = tracked
        self._watchdog = watchdog
        self._ended: tuple[T | None, BaseException | None] | None = None
        self._begun = self._cancelled = False

    def begin(self) -> None:
        """Start, on the agents' loop."""
        context = contextvars.copy_context()
        context.run(WORK.set, self._work if self._tracked else None)
        if not self._cancelled:
            self._task = asyncio.get_running_loop().create_task(self._run(), context=context)
            if self._watchdog is not None:
                self._watchdog.watch(self._task, self._cancel)
        else:
            self._report(None, asyncio.CancelledError())

    def cancel(self) -> None:
        """Ask the code to stop, and what it started; may be repeated."""
        self._host.call(self._cancel)

    def abandon(self) -> None:
        """Stop waiting for code that does not stop.

        ``done`` fails with :class:`Abandoned`; if only something that the code started goes on, it is the code's own
        result or error. The handle is one of the host's ``abandoned`` until all has ended, if it ever does; both are
        logged.
        """
        if self.done.done():
            return
        place = self.place()
        self.abandoned = Abandoned(place)
        self._tell(*(self._ended or (None, self.abandoned)))
        self._abandoned_at = time.monotonic()
        self._host.abandoned.add(self)
        log.warning("agent.abandoned %s place=%s", self._name, place or "unknown")

    def place(self) -> str | None:
        """Return where the code is now, as ``file:line function``, if that can be told."""
        frames = sys._current_frames()
        for call in tuple(self._work.calls):
            if call.thread_id in frames:
                return describe(frames[call.thread_id])
        blocked = frames.get(self._host.blocked_thread() or 0)
        if blocked is not None and not polls(blocked) and blocked.f_code is not ThreadHost._run.__code__:
            return describe(blocked)  # and not waiting for something to do, with a call on its way to it
        if self._task is not None:
            frame = innermost(self._task.get_coro())
            return None if frame is None else describe(frame)
        return None

    def _cancel(self) -> None:
        self._cancelled = True
        if self._task is not None and self._watchdog is not None:
            self._watchdog.forget(self._task)
        if self._task is not None and self._begun:  # a task that is cancelled before its first step reports nothing
            self._task.cancel()

    async def _run(self) -> None:
        self._begun = True
        result: T | None = None
        failure: BaseException | None = None
        try:
            if self._cancelled:
                raise asyncio.CancelledError
            result = await self._make()
        except BaseException as error:  # noqa: BLE001 - supervisor: the attempt decides what any ending means
            failure = error
        self._ended = result, failure
        await self._rest_over(stop=failure is not None)
        self._work.forget()
        self._report(result, failure)

    async def _rest_over(self, *, stop: bool) -> None:
        """Wait for what the code started and did not wait for, so that "stopped" is true when it is said.

        Tasks are cancelled if they are to *stop*, and at each cancel from then on. A pool thread has to return by
        itself.
        """
        told = False
        told_to_stop: set[asyncio.Task[Any]] = set()
        while (rest := self._rest()) and not self._host.control.is_closed():
            if not told:
                told = True
                self._post(self._set_returned)
            if stop:
                for task in self._tasks() - told_to_stop:
                    told_to_stop.add(task)
                    task.cancel()
            try:
                await asyncio.wait(rest)
            except asyncio.CancelledError:
                stop = True
                told_to_stop.clear()

    def _tasks(self) -> set[asyncio.Task[Any]]:
        return {task for task in self._work.tasks if task is not self._task and not serves_others(task)}

    def _rest(self) -> set[asyncio.Future[Any]]:
        threads = {asyncio.wrap_future(call.future) for call in tuple(self._work.calls) if call.future is not None}
        return self._tasks() | threads

    def _report(self, result: T | None, error: BaseException | None) -> None:
        self._post(self._settle, result, error)

    def _post(self, function: Callable[..., None], *args: Any) -> None:
        try:
            self._host.control.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the control loop is closed: nobody waits for abandoned code
            return

    def _set_returned(self) -> None:
        if not self.done.done():
            self.returned.set_result(None)

    def _settle(self, result: Any, error: BaseException | None) -> None:
        if self in self._host.abandoned:
            self._host.abandoned.discard(self)
            log.warning("agent.abandoned_ended %s after_s=%.3f", self._name, time.monotonic() - self._abandoned_at)
        if not self.done.done():
            self._tell(result, error)

    def _tell(self, result: Any, error: BaseException | None) -> None:
        if error is None:
            self.done.set_result(result)
        elif isinstance(error, asyncio.CancelledError):
            self.done.cancel()
        elif isinstance(error, StopIteration) or not isinstance(error, Exception):  # they would end who awaits
            stands_for_it = RuntimeError(f"The agent raised {type(error).__name__}.")
            stands_for_it.__cause__ = error  # for the log alone: its text may not be for everybody
            self.done.set_exception(stands_for_it)
        else:
            self.done.set_exception(error)


class AgentHost(Protocol):
    """Runs coroutines of agents and reports to the control loop.

    ``abandoned`` is code that nobody waits for any more and that has not ended; it belongs to the control loop.
    """

    control: asyncio.AbstractEventLoop

    @property
    def clock(self) -> Callable[[], float]:
        """The clock in seconds by which a lease of what executes here lasts; may be called on any thread."""
        ...

    @property
    def abandoned(self) -> set[Handle[Any]]: ...

    @property
    def blocked_s(self) -> float:
        """For how long code has blocked loops of agents in all, in seconds; 0 where that is not watched."""
        ...

    @property
    def lag_s(self) -> float:
        """For how long a loop of agents has kept the last call waiting, in seconds; 0 where that is not watched."""
        ...

    def at(self, graph_id: str | None) -> AgentHost:
        """Return where runs of the graph execute."""
        ...

    def watch(self, lease: WatchedLease) -> None:
        """Stop what is *leased* by itself once the lease is over and the control loop stands still."""
        ...

    def start(self, make: Callable[[], Coroutine[Any, Any, T]], *, name: str, leased: bool = False) -> Handle[T]:
        """Start the coroutine that *make* returns, on the agents' loop.

        Args:
            name: Says in the log whose it is.
            leased: Whether it may go on only as long as the lease of this process lasts.
        """
        ...

    async def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a short coroutine on the agents' loop, for a caller on the control loop, and return its result."""
        ...

    def call(self, function: Callable[[], None]) -> None:
        """Call *function* on the agents' loop, soon."""
        ...

    def blocked_thread(self) -> int | None:
        """Return the id of the agents' thread if its loop has not answered the last call yet."""
        ...

    async def aclose(self) -> None:
        """Stop the loop; code that still runs is abandoned."""
        ...


class InlineHost:
    """Agents on the control loop itself: for an application that embeds the library."""

    def __init__(self) -> None:
        self.control = asyncio.get_running_loop()
        self.abandoned: set[Handle[Any]] = set()
        self.blocked_s = self.lag_s = 0.0
        self.clock = self.control.time
        track(self.control)

    def at(self, graph_id: str | None) -> AgentHost:
        return self

    def watch(self, lease: WatchedLease) -> None:
        """Do nothing: agents stand still with the control loop, and it stops them when it goes on."""

    def start(self, make: Callable[[], Coroutine[Any, Any, T]], *, name: str, leased: bool = False) -> Handle[T]:
        handle = Handle(make, self, name)
        handle.begin()
        return handle

    async def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return await make()

    def call(self, function: Callable[[], None]) -> None:
        function()

    def blocked_thread(self) -> int | None:
        return None

    async def aclose(self) -> None:
        return None


class ThreadHost:
    """Agents on a loop thread of their own, so that a node that blocks delays agents only."""

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop) -> None:
        self.control = asyncio.get_running_loop()
        self.abandoned: set[Handle[Any]] = set()
        self.loop = new_loop()
        self._executor = TrackingExecutor(SYNC_THREADS, thread_name_prefix=SYNC_THREADS_NAME)
        self.loop.set_default_executor(self._executor)
        self.loop.set_task_factory(TrackingTasks(None))
        self._unanswered = 0
        self._closing = False
        self.clock = uptime
        self._watchdog: Watchdog | None = None
        self._thread = threading.Thread(target=self._run, name="runlane-agents", daemon=True)
        self._thread.start()
        self._watch = LoopWatch(self.loop, lambda: self._thread.ident)

    @property
    def blocked_s(self) -> float:
        """For how long code has blocked the loop in all, in seconds."""
        return self._watch.blocked_s

    @property
    def lag_s(self) -> float:
        """For how long the loop has kept the last call waiting, in seconds."""
        return self._watch.lag_s

    def at(self, graph_id: str | None) -> AgentHost:
        return self

    def watch(self, lease: WatchedLease) -> None:
        """Stop what is leased by itself once the lease is over and the control loop stands still."""
        self._watchdog = Watchdog(lease)

    def start(self, make: Callable[[], Coroutine[Any, Any, T]], *, name: str, leased: bool = False) -> Handle[T]:
        handle = Handle(make, self, name, watchdog=self._watchdog if leased else None)
        self.call(handle.begin)
        return handle

    async def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a short coroutine on the agents' loop and return its result; a cancelled caller cancels it."""
        handle = Handle(make, self, "request", tracked=False)
        self.call(handle.begin)
        try:
            return await handle.done
        except asyncio.CancelledError:
            handle.cancel()
            raise

    def call(self, function: Callable[[], None]) -> None:
        self._unanswered += 1
        self.loop.call_soon_threadsafe(self._answer, function)

    def blocked_thread(self) -> int | None:
        return self._thread.ident if self._unanswered else None

    async def aclose(self) -> None:
        if self._closing:
            return
        self._closing = True
        await self._watch.aclose()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._executor.shutdown(wait=False, cancel_futures=True)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join, 1.0)

    def _answer(self, function: Callable[[], None]) -> None:
        self._unanswered = 0
        function()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._closing:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                # asyncio lets these out of the loop after it gave them to the task's waiter; other runs go on.
                log.warning("agent.raised_exit error=%s", type(error).__name__)
        self._end_abandoned()

    def _end_abandoned(self) -> None:
        """Cancel abandoned code once more, so that it is not torn down half-way by the garbage collector."""
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        if left:
            with suppress(SystemExit, KeyboardInterrupt):
                self.loop.run_until_complete(asyncio.wait(left, timeout=LAST_WORDS_S))
