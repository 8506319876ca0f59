"""Dispatch within one process."""

from __future__ import annotations

import asyncio

from runlane.dispatch.fair import FairQueue
from runlane.records import Head
from runlane.settings import Limits


class LocalDispatch:
    """A :class:`~runlane.dispatch.base.Dispatch` within the running event loop, which shares slots among owners."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._waiting = FairQueue(limits or Limits())
        self._changed = asyncio.Event()
        self._cancels: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def submit(self, head: Head, *, delay_s: float = 0.0) -> None:
        self._drop_timer(head.run_id)
        if delay_s > 0:
            self._timers[head.run_id] = asyncio.get_running_loop().call_later(delay_s, self.submit, head)
        elif head.run_id not in self._queued:
            self._queued.add(head.run_id)
            self._waiting.put(head)
            self._changed.set()

    def cancel(self, run_id: str) -> None:
        self._drop_timer(run_id)
        self._cancels.put_nowait(run_id)

    async def next_run(self) -> Head:
        while (head := self._waiting.get()) is None:
            self._changed.clear()
            await self._changed.wait()
        self._queued.discard(head.run_id)
        return head

    def take(self, head: Head) -> bool:
        return self._waiting.take(head)

    def done(self, head: Head) -> None:
        self._waiting.done(head)
        self._changed.set()

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
