"""The one loop on which everything periodic of a process runs."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final

from runlane.errors import StoreUnavailable
from runlane.telemetry.emitter import SILENT, Telemetry

log = logging.getLogger("runlane.loop")

#: The first pause after a turn that failed, which is doubled with every further failure.
RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 30.0
#: A turn that goes on when the loop is stopped may end for so long; then it is cancelled.
STOP_GRACE_S: Final = 2.0


class SupervisedLoop:
    """Awaits *turn* again and again, from :meth:`start` to :meth:`stop`, whatever it raises.

    After a turn the loop pauses for *every_s*, or until :meth:`soon` is called. A turn that raises is tried again after
    a pause of *retry_s*, doubled with every failure in a row, up to *longest_retry_s* and never longer than a period;
    :meth:`soon` does not shorten that pause. The first of several equal failures in a row is logged:
    ``StoreUnavailable``, which passes, as a warning, anything else as an error with its traceback; the turn that
    succeeds again is logged too. Every turn is a ``LoopTurned`` event.

    Nothing is drawn or waited for that is not the running loop's, so that it behaves the same on a virtual clock.
    """

    def __init__(
        self,
        name: str,
        turn: Callable[[], Awaitable[object]],
        *,
        every_s: float | Callable[[], float],
        telemetry: Telemetry = SILENT,
        at_once: bool = True,
        jitter: float = 0.0,
        chance: Callable[[], float] = random.random,
        retry_s: float = RETRY_S,
        longest_retry_s: float = LONGEST_RETRY_S,
        stop_grace_s: float = STOP_GRACE_S,
    ) -> None:
        """Args:
        name: What logs and metrics call it.
        turn: What it returns is ignored.
        every_s: The period. A function is asked after every turn. 0: the turn itself waits for something to do, such
            as the next item of a queue; its turns are events only if they fail.
        at_once: Whether the first turn is made at the start, and not after a period.
        jitter: The greatest part of a period that is left out, so that processes do not all do the same at once.
        chance: From 0 to 1, for the jitter.
        stop_grace_s: For how long :meth:`stop` awaits the running turn before it cancels it.
        """
        self.name = name
        self._turn = turn
        self._every_s = every_s
        self._telemetry = telemetry
        self._at_once = at_once
        self._jitter = jitter
        self._chance = chance
        self._retry_s = retry_s
        self._longest_retry_s = longest_retry_s
        self._stop_grace_s = stop_grace_s
        self._failures = 0
        self._failed_with: type[Exception] | None = None
        self._wanted = asyncio.Event()
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> SupervisedLoop:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def start(self) -> None:
        """Begin; the caller has to :meth:`stop` it."""
        self._task = asyncio.get_running_loop().create_task(self._forever(), name=f"runlane {self.name}")

    async def stop(self) -> None:
        """Begin no further turn, await the running one for a grace time, and cancel it then. May be called twice."""
        self._stopped.set()
        self._wanted.set()
        if self._task is None:
            return
        if self._stop_grace_s > 0:
            await asyncio.wait((self._task,), timeout=self._stop_grace_s)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def soon(self) -> None:
        """End the pause: there is something to do. During a turn, another one follows it."""
        self._wanted.set()

    async def _forever(self) -> None:
        if not self._at_once:
            await _pause(self._wanted, self._period_s())
        while not self._stopped.is_set():
            self._wanted.clear()
            await self._one_turn()
            if self._failures:
                await _pause(self._stopped, self._retry_after_s())
            else:
                await _pause(self._wanted, self._period_s())

    async def _one_turn(self) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        failure: Exception | None = None
        try:
            await self._turn()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            failure = RuntimeError("The turn awaited something that was cancelled.")  # which is nobody's stop
            failure.__cause__ = error
        except Exception as error:  # noqa: BLE001 - supervisor: a defect must not end what the loop is for
            failure = error
        self._note(failure)
        if self._every_s or failure is not None:
            self._telemetry.loop_turned(self.name, duration_s=clock() - began, error=failure)

    def _note(self, failure: Exception | None) -> None:
        """Count and log a turn that failed, or the first one that did not any more."""
        if failure is None:
            if self._failures:
                log.info("loop.recovered loop=%s failures=%d", self.name, self._failures)
            self._failures, self._failed_with = 0, None
            return
        self._failures += 1
        if type(failure) is self._failed_with:
            return
        self._failed_with = type(failure)
        if isinstance(failure, StoreUnavailable):
            log.warning("loop.waiting loop=%s why=%s", self.name, failure)
        else:
            log.error("loop.failed loop=%s", self.name, exc_info=failure)

    def _period_s(self) -> float:
        every_s = self._every_s() if callable(self._every_s) else self._every_s
        return every_s * (1 - self._jitter * self._chance()) if self._jitter else every_s

    def _retry_after_s(self) -> float:
        pause_s = min(self._longest_retry_s, self._retry_s * 2.0 ** min(self._failures - 1, 10))
        if callable(self._every_s) or not self._every_s:
            return pause_s
        return min(pause_s, self._every_s)


@asynccontextmanager
async def together(*loops: AbstractAsyncContextManager[Any]) -> AsyncIterator[None]:
    """Enter *loops* one after the other, and leave them at once: turns that hang share the grace time."""
    entered: list[AbstractAsyncContextManager[Any]] = []
    try:
        for loop in loops:
            await loop.__aenter__()
            entered.append(loop)
        yield
    finally:
        await asyncio.gather(*(loop.__aexit__(None, None, None) for loop in entered))


async def _pause(until: asyncio.Event, limit_s: float) -> None:
    """Wait for *until*, at most *limit_s*, and at least until other tasks have run."""
    if limit_s <= 0:
        await asyncio.sleep(0)
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await until.wait()
