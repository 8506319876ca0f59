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


class Work:
    """The tasks and pool threads that the code of one attempt started and that have not ended."""

    __slots__ = ("calls", "tasks")

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self.calls: set[SyncCall] = set()

    def add(self, task: asyncio.Task[Any]) -> None:
        """Record *task* until it is done."""
        if not task.done():
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)


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
