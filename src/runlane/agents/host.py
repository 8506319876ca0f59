"""Where agents run: on the caller's loop, or on a loop thread of their own that user code may block."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from runlane.agents.places import describe, innermost, polls

log = logging.getLogger("runlane.agents")
T = TypeVar("T")

#: Threads for the synchronous nodes of all graphs; idle ones cost nothing, blocked ones must not starve the rest.
SYNC_THREADS = 256
#: How those threads' names begin.
SYNC_THREADS_NAME = "runlane-node"
#: What code that was left behind gets for its last words when the loop closes, in seconds.
LAST_WORDS_S = 0.5

_current: contextvars.ContextVar[set[_SyncCall] | None] = contextvars.ContextVar("runlane_sync_calls", default=None)


class Abandoned(Exception):  # an outcome, not an error
    """Cancelled code did not stop in time and was left behind; ``place`` says where it is."""

    def __init__(self, place: str | None) -> None:
        self.place = place
        super().__init__(place or "unknown place")


class _SyncCall:
    """A synchronous function that runs on a pool thread for an agent."""

    __slots__ = ("future", "thread_id")

    def __init__(self) -> None:
        self.thread_id: int | None = None
        self.future: Future[Any] | None = None


class _TrackingExecutor(ThreadPoolExecutor):
    """A thread pool that knows which agent each running call belongs to."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        calls = _current.get()
        if calls is None:
            return super().submit(fn, *args, **kwargs)
        call = _SyncCall()

        def tracked() -> Any:
            call.thread_id = threading.get_ident()
            try:
                return fn(*args, **kwargs)
            finally:
                calls.discard(call)

        calls.add(call)
        call.future = super().submit(tracked)
        call.future.add_done_callback(lambda _: calls.discard(call))
        return call.future


class Handle(Generic[T]):
    """A coroutine on the agents' loop, seen from the control loop.

    ``done`` is the coroutine's result or error; whatever it raises, ``SystemExit`` too, stays in there.
    """

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]], host: AgentHost, name: str) -> None:
        self.done: asyncio.Future[T] = host.control.create_future()
        self._make, self._host, self._name = make, host, name
        self._left_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._sync_calls: set[_SyncCall] = set()
        self._begun = self._cancelled = False

    def begin(self) -> None:
        """Start, on the agents' loop."""
        context = contextvars.copy_context()
        context.run(_current.set, self._sync_calls)
        if not self._cancelled:
            self._task = asyncio.get_running_loop().create_task(self._run(), context=context)
        else:
            self._report(None, asyncio.CancelledError())

    def cancel(self) -> None:
        """Ask the code to stop; may be repeated."""
        self._host.call(self._cancel)

    def abandon(self) -> None:
        """Stop waiting for code that does not stop; ``done`` fails with :class:`Abandoned`.

        It is one of the host's ``left_behind`` until it ends, if it ever does; both are logged.
        """
        if self.done.done():
            return
        place = self.place()
        self.done.set_exception(Abandoned(place))
        self._left_at = time.monotonic()
        self._host.left_behind.add(self)
        log.warning("agent.left_behind %s place=%s", self._name, place or "unknown")

    def place(self) -> str | None:
        """Return where the code is now, as ``file:line function``, if that can be told."""
        frames = sys._current_frames()
        for call in tuple(self._sync_calls):
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
        if self._task is not None and self._begun:  # a task that is cancelled before its first step reports nothing
            self._task.cancel()

    async def _run(self) -> None:
        self._begun = True
        try:
            if self._cancelled:
                raise asyncio.CancelledError
            result = await self._make()
        except BaseException as error:  # noqa: BLE001 - supervisor: the attempt decides what any ending means
            await self._sync_calls_over()
            self._report(None, error)
        else:
            self._report(result, None)

    async def _sync_calls_over(self) -> None:
        """Wait for pool threads that a cancel cannot reach, so that "stopped" is true when it is said."""
        if self._host.control.is_closed():
            return
        while waiting := [asyncio.wrap_future(c.future) for c in tuple(self._sync_calls) if c.future is not None]:
            try:
                await asyncio.wait(waiting)
            except asyncio.CancelledError:  # repeated cancels change nothing: the thread has to return by itself
                continue

    def _report(self, result: T | None, error: BaseException | None) -> None:
        try:
            self._host.control.call_soon_threadsafe(self._settle, result, error)
        except RuntimeError:  # the control loop is closed: nobody waits for code that was left behind
            return

    def _settle(self, result: Any, error: BaseException | None) -> None:
        if self in self._host.left_behind:
            self._host.left_behind.discard(self)
            log.warning("agent.left_behind_ended %s after_s=%.3f", self._name, time.monotonic() - self._left_at)
        if self.done.done():
            return
        if error is None:
            self.done.set_result(result)
        elif isinstance(error, asyncio.CancelledError):
            self.done.cancel()
        elif isinstance(error, StopIteration) or not isinstance(error, Exception):  # they would end who awaits
            self.done.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
        else:
            self.done.set_exception(error)


class AgentHost(Protocol):
    """Runs coroutines of agents and reports to the control loop.

    ``left_behind`` is code that nobody waits for any more and that has not ended; it belongs to the control loop.
    """

    control: asyncio.AbstractEventLoop
    left_behind: set[Handle[Any]]

    def start(self, make: Callable[[], Coroutine[Any, Any, T]], *, name: str) -> Handle[T]:
        """Start the coroutine that *make* returns, on the agents' loop; *name* says in the log whose it is."""
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
        """Stop the loop; code that still runs is left behind."""
        ...


class InlineHost:
    """Agents on the control loop itself: for an application that embeds the library."""

    def __init__(self) -> None:
        self.control = asyncio.get_running_loop()
        self.left_behind: set[Handle[Any]] = set()

    def start(self, make: Callable[[], Coroutine[Any, Any, T]], *, name: str) -> Handle[T]:
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
        self.left_behind: set[Handle[Any]] = set()
        self.loop = new_loop()
        self._executor = _TrackingExecutor(SYNC_THREADS, thread_name_prefix=SYNC_THREADS_NAME)
        self.loop.set_default_executor(self._executor)
        self._unanswered = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="runlane-agents", daemon=True)
        self._thread.start()

    def start(self, make: Callable[[], Coroutine[Any, Any, T]], *, name: str) -> Handle[T]:
        handle = Handle(make, self, name)
        self.call(handle.begin)
        return handle

    async def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a short coroutine on the agents' loop and return its result; a cancelled caller cancels it."""
        handle = self.start(make, name="request")
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
        self._end_left_behind()

    def _end_left_behind(self) -> None:
        """Cancel code that was left behind once more, so that it is not torn down half-way by the garbage collector."""
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        if left:
            with suppress(SystemExit, KeyboardInterrupt):
                self.loop.run_until_complete(asyncio.wait(left, timeout=LAST_WORDS_S))
