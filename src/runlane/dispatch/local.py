"""Dispatch within one process."""

from __future__ import annotations

import asyncio


class LocalDispatch:
    """A :class:`~runlane.dispatch.base.Dispatch` on queues of the running event loop."""

    def __init__(self) -> None:
        self._runs: asyncio.Queue[str] = asyncio.Queue()
        self._cancels: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def submit(self, run_id: str, *, delay_s: float = 0.0) -> None:
        self._drop_timer(run_id)
        if delay_s > 0:
            self._timers[run_id] = asyncio.get_running_loop().call_later(delay_s, self.submit, run_id)
        elif run_id not in self._queued:
            self._queued.add(run_id)
            self._runs.put_nowait(run_id)

    def cancel(self, run_id: str) -> None:
        self._drop_timer(run_id)
        self._cancels.put_nowait(run_id)

    async def next_run(self) -> str:
        run_id = await self._runs.get()
        self._queued.discard(run_id)
        return run_id

    async def next_cancel(self) -> str:
        return await self._cancels.get()

    async def aclose(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _drop_timer(self, run_id: str) -> None:
        timer = self._timers.pop(run_id, None)
        if timer is not None:
            timer.cancel()
