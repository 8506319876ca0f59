"""Draining an application that embeds the library when its process is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any, Final

from runlane.runtime import Runtime
from runlane.work import own_task

log = logging.getLogger("runlane.signals")

#: What service managers and terminals send to stop a process.
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@asynccontextmanager
async def drain_on_signals(
    runtime: Runtime, *, signals: Sequence[signal.Signals] = STOP_SIGNALS
) -> AsyncIterator[None]:
    """Drain *runtime* as soon as the process gets one of *signals*, and pass the signal on to who handled it before.

    A web server waits for open responses before it leaves its lifespan, and a reader of a stream keeps its response
    open: without this, neither ends. The first signal begins :meth:`Runtime.drain`, the second hurries it. A signal
    that nobody else handles ends the process by its default action once the drain is over.

    To be entered in the main thread, the only one that can handle signals; in another, such as that of a test client,
    signals are left alone, which is logged. A signal that is ignored stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        log.warning("signals.not_handled why=not_in_the_main_thread")
        yield
        return
    hook = _Hook(runtime)
    hook.install(signals)
    try:
        yield
    finally:
        hook.remove()
        await hook.drained()


class _Hook:
    """Handlers of signals in front of those that were there."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._loop = asyncio.get_running_loop()
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}
        self._drains: list[asyncio.Task[None]] = []

    def install(self, signals: Sequence[signal.Signals]) -> None:
        for number in signals:
            before = signal.getsignal(number)
            if before is signal.SIG_IGN or before is None:  # None: a handler that Python cannot call
                continue
            self._before[number] = before
            signal.signal(number, self._received)

    def remove(self) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) == self._received:
                signal.signal(number, before)

    async def drained(self) -> None:
        """Wait for the drains that were begun."""
        await asyncio.gather(*self._drains)

    def _received(self, number: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._drain, number)
        before = self._before[number]
        if callable(before):
            before(number, frame)

    def _drain(self, number: int) -> None:
        log.info("runtime.draining signal=%s", signal.Signals(number).name)
        grace_s = 0.0 if self._drains else None
        drain = own_task(self._runtime.drain(grace_s))  # a handler runs in the context of whatever it interrupts
        self._drains.append(drain)
        if not callable(self._before[number]):
            drain.add_done_callback(lambda _: self._default(number))

    @staticmethod
    def _default(number: int) -> None:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
