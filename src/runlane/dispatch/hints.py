"""Hints within one event loop: timers of delayed runs, and cancels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Hints:
    """Timers by run, and the queue of cancels, which a cancel also stops."""

    def __init__(self) -> None:
        self._cancels: asyncio.Queue[str] = asyncio.Queue()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def later(self, run_id: str, delay_s: float, then: Callable[[], None]) -> None:
        """Call *then* in *delay_s* seconds, in place of what was to be called for the run."""
        self.now(run_id)
        self._timers[run_id] = asyncio.get_running_loop().call_later(delay_s, then)

    def now(self, run_id: str) -> None:
        """Call nothing for the run any more."""
        timer = self._timers.pop(run_id, None)
        if timer is not None:
            timer.cancel()

    def cancel(self, run_id: str) -> None:
        """Queue the cancel of a run."""
        self.now(run_id)
        self._cancels.put_nowait(run_id)

    async def next_cancel(self) -> str:
        """Wait for a cancel."""
        return await self._cancels.get()

    def close(self) -> None:
        """Stop all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
