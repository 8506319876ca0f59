"""Calling the asynchronous interface from threads that have no event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def wait_from_another_thread(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """Run *coroutine* on *loop* and wait for its result, blocking the calling thread.

    Raises:
        asyncio.InvalidStateError: The caller is on *loop*'s own thread, which would wait for itself for ever.
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:  # the usual case: a thread without a loop
        running = None
    if running is loop:
        coroutine.close()
        raise asyncio.InvalidStateError(
            "A synchronous call was made on the event loop's own thread, which it would block for ever. "
            "Use the asynchronous method: 'await graph.ainvoke(...)', 'await checkpointer.aget_tuple(...)', "
            "'await store.aput(...)'."
        )
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
