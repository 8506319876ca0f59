"""Records each task and each pool thread with the attempt whose code started it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from runlane.work import WORK, SyncCall

#: Background tasks, as ``module:function``, of clients that serve every run and are started by whoever connects first.
#: Stopping those with one attempt would break the client for all later ones.
SHARED_TASKS: Final = ("psycopg_pool.", "pymongo.periodic_executor:", "langgraph.store.base.batch:_run")


class TrackingExecutor(ThreadPoolExecutor):
    """A thread pool that knows which attempt each running call belongs to; *inner*, if given, runs the calls."""

    def __init__(
        self, max_workers: int | None = None, *, thread_name_prefix: str = "", inner: ThreadPoolExecutor | None = None
    ) -> None:
        super().__init__(max_workers, thread_name_prefix=thread_name_prefix)
        self._inner = inner

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        work = WORK.get()
        if work is None:
            return self._start(fn, *args, **kwargs)
        call, calls = SyncCall(), work.calls

        def tracked() -> Any:
            call.thread_id = threading.get_ident()
            return fn(*args, **kwargs)

        calls.add(call)
        call.future = self._start(tracked)
        call.future.add_done_callback(lambda _: calls.discard(call))
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if self._inner is not None:
            self._inner.shutdown(wait, cancel_futures=cancel_futures)
        super().shutdown(wait, cancel_futures=cancel_futures)

    def _start(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._inner is not None:
            return self._inner.submit(fn, *args, **kwargs)
        return super().submit(fn, *args, **kwargs)


class TrackingTasks:
    """A task factory around the loop's own, *inner*."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        context = options.get("context")
        work = WORK.get() if context is None else context.get(WORK)
        if self._inner is None:
            task = asyncio.Task(coroutine, loop=loop, **options)
        else:
            task = self._inner(loop, coroutine, **options)
        if work is not None:
            work.add(task)
        return task


def track(loop: asyncio.AbstractEventLoop) -> None:
    """Have an application's *loop* record what attempts start on it; what the application has set goes on working.

    This is never undone: without an attempt's context it does nothing, and other runtimes may use the loop.
    """
    factory = loop.get_task_factory()
    if isinstance(factory, TrackingTasks):
        return
    loop.set_task_factory(TrackingTasks(factory))
    # asyncio has no public name for it; uvloop has none at all, and an application's own pool has to be set later.
    loop.set_default_executor(TrackingExecutor(inner=getattr(loop, "_default_executor", None)))


def serves_others(task: asyncio.Task[Any]) -> bool:
    """Return whether *task* belongs to a client that an attempt opened for everybody."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    if frame is None:
        return False
    return f"{frame.f_globals.get('__name__')}:{frame.f_code.co_qualname}".startswith(SHARED_TASKS)
