"""Tasks and threads that an attempt's code started, apart from Runlane's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any, Final, TypeVar

T = TypeVar("T")


class SyncCall:
    """A synchronous function on a pool thread; ``thread_id`` is known once it runs."""

    __slots__ = ("future", "thread_id")

    def __init__(self) -> None:
        self.thread_id: int | None = None
        self.future: Future[Any] | None = None


#: A list of tasks is rid of those that are done when there are so many, or twice those that were left the last time:
#: a task that is done still holds its context and its result.
_FORGET_AT: Final = 4


class Work:
    """The tasks and pool threads that the code of one attempt started and that have not ended."""

    __slots__ = ("_forget_at", "_tasks", "calls")

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Any]] = []
        self._forget_at = _FORGET_AT
        self.calls: set[SyncCall] = set()

    @property
    def tasks(self) -> set[asyncio.Task[Any]]:
        return {task for task in tuple(self._tasks) if not task.done()}

    def add(self, task: asyncio.Task[Any]) -> None:
        """Record *task* until it is done. A callback of each task would cost as much as making it."""
        if len(self._tasks) >= self._forget_at:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._forget_at = max(2 * len(self._tasks), _FORGET_AT)
        self._tasks.append(task)

    def forget(self) -> None:
        """Let go of the tasks, once the attempt's code is over: their contexts refer to this."""
        self._tasks = []


#: The work of the attempt whose code is running; tasks, timers and pool threads inherit it.
WORK: Final[ContextVar[Work | None]] = ContextVar("runlane_work", default=None)


def own_task(coroutine: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
    """Start a task of Runlane's own, which goes on if the attempt whose code caused it is stopped."""
    context = copy_context()
    context.run(WORK.set, None)
    return asyncio.get_running_loop().create_task(coroutine, name=name, context=context)


async def outlast(waiting: Awaitable[T]) -> T:
    """Return what *waiting* does, however often the caller is cancelled; CancelledError is raised after that."""
    future = own_task(waiting) if asyncio.iscoroutine(waiting) else asyncio.ensure_future(waiting)
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({future})
    result = future.result()
    if task.cancelling() > before:
        raise asyncio.CancelledError
    return result
