"""Calling and waiting across threads and their event loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class Waiters:
    """Waiters for a condition on state that *lock* guards."""

    __slots__ = ("_lock", "_waiting")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until *holds*; it is asked with the lock held, now and at each :meth:`wake`."""
        with self._lock:
            if holds():
                return
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((holds, future))
        await future

    def wake(self) -> None:
        """Wake, each on its own loop, those whose condition holds now. Without the lock."""
        if not self._waiting:
            return
        with self._lock:
            woken = [future for holds, future in self._waiting if holds()]
            self._waiting = [waiter for waiter in self._waiting if waiter[1] not in woken]
        for future in woken:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                future.get_loop().call_soon_threadsafe(_resolve, future)


def call(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *args: Any) -> bool:
    """Call *function* on *loop*, soon, from any thread; return whether there is still such a loop."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:  # it is closed: the process is ending
        return False
    return True


def call_later(wait_s: float, control: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    """Call *function* later on the caller's own loop, which wakes nobody now; on *control* if it has none."""
    try:
        own = asyncio.get_running_loop()
    except RuntimeError:  # a thread without a loop
        call(control, control.call_later, wait_s, function, *args)
    else:
        own.call_later(wait_s, function, *args)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
