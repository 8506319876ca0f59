"""Finds code that blocks the agents' loop, and with it every other run that is on it."""

from __future__ import annotations

import asyncio
import logging
import sys
import sysconfig
from collections.abc import Callable
from types import FrameType
from typing import Final

from runlane.agents.places import describe, polls
from runlane.supervised_loop import SupervisedLoop

log = logging.getLogger("runlane.agents")

#: How often the loop is asked to answer, in seconds.
LOOK_EVERY_S: Final = 0.5
#: A loop that has not answered for so long is blocked: far longer than a healthy callback takes.
BLOCKED_S: Final = 0.5
#: After so much longer it has to be in the same call still: a loop with much to do is busy, and not blocked.
CONFIRM_S: Final = 0.1
#: The same place is warned of once in this time.
WARN_EVERY_S: Final = 60.0
#: Places that are remembered for that.
MAX_PLACES: Final = 1000
#: Where Python and installed packages are: what blocks is more often the code that calls them.
_LIBRARIES: Final = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class LoopWatch:
    """Asks a loop on another thread to answer, from the control loop; warns where its code is if it does not."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        thread_id: Callable[[], int | None],
        *,
        every_s: float = LOOK_EVERY_S,
        patience_s: float = BLOCKED_S,
    ) -> None:
        """Args:
        thread_id: The thread of *loop*.
        """
        self._loop = loop
        self._thread_id = thread_id
        self._patience_s = patience_s
        self._blocked_s = 0.0
        self._lag_s = 0.0
        self._asked_at: float | None = None
        self._since: float | None = None
        self._warned: dict[str, float] = {}
        self._control = asyncio.get_running_loop()
        self._watch = SupervisedLoop("loop watch", self._look, every_s=every_s, at_once=False, stop_grace_s=0.0)
        self._watch.start()

    @property
    def blocked_s(self) -> float:
        """For how long the loop has been blocked in all, in seconds."""
        return self._blocked_s + (0.0 if self._since is None else self._control.time() - self._since)

    @property
    def lag_s(self) -> float:
        """For how long the loop has kept the last call waiting that it was asked to answer."""
        return self._lag_s if self._asked_at is None else max(self._lag_s, self._control.time() - self._asked_at)

    async def aclose(self) -> None:
        """Stop watching."""
        await self._watch.stop()

    async def _look(self) -> None:
        asked_at = self._asked_at = self._control.time()
        try:
            await self._answered(asked_at)
        finally:
            self._lag_s, self._asked_at = self._control.time() - asked_at, None

    async def _answered(self, asked_at: float) -> None:
        """Have the loop answer; warn if it is blocked meanwhile."""
        answered = asyncio.Event()
        self._loop.call_soon_threadsafe(self._control.call_soon_threadsafe, answered.set)
        if await _within(self._patience_s, answered):
            return
        suspect = self._frame()
        if await _within(CONFIRM_S, answered):
            return
        if suspect is None or not _is_within(self._frame(), suspect):
            await answered.wait()
            return
        self._since, place = asked_at, describe(suspect)
        self._warn(place)
        try:
            await answered.wait()
        finally:
            blocked_s, self._since = self._control.time() - asked_at, None
            self._blocked_s += blocked_s
        log.warning("agents.loop_answers blocked_s=%.1f place=%s", blocked_s, place)

    def _frame(self) -> FrameType | None:
        """Return where the loop's code is; ``None`` if it waits for work: then it was the process that stood still."""
        frame = sys._current_frames().get(self._thread_id() or 0)
        return None if frame is None or polls(frame) or _is_ours(frame) else own(frame)

    def _warn(self, place: str) -> None:
        now = self._control.time()
        if now - self._warned.get(place, float("-inf")) < WARN_EVERY_S:
            return
        if len(self._warned) >= MAX_PLACES:
            self._warned.clear()
        self._warned[place] = now
        log.warning(
            "agents.loop_blocked place=%s: other runs wait for this code. Use an async client, or "
            "'await asyncio.to_thread(...)', or make the node a plain 'def', which runs in a thread; the setting "
            "isolate_graphs keeps it from runs of other graphs.",
            place,
        )


async def _within(limit_s: float, event: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(limit_s):
            return await event.wait()
    except TimeoutError:
        return False


def _is_within(frame: FrameType | None, outer: FrameType) -> bool:
    """Return whether *frame* is *outer*, or was called from it."""
    while frame is not None and frame is not outer:
        frame = frame.f_back
    return frame is not None


def own(frame: FrameType) -> FrameType:
    """Return the innermost frame of the application's code that led to *frame*, or else *frame*."""
    found: FrameType | None = frame
    while found is not None and (_is_ours(found) or found.f_code.co_filename.startswith(("<", *_LIBRARIES))):
        found = found.f_back
    return found or frame


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("runlane.")
