"""Dispatch within one process."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from runlane.dispatch.base import FreeSlots
from runlane.dispatch.fair import FairQueue
from runlane.dispatch.hints import Hints
from runlane.records import Head
from runlane.settings import Limits


class LocalDispatch:
    """A :class:`~runlane.dispatch.base.Dispatch` within the running event loop, which shares slots among owners."""

    needs_hints = True

    def __init__(self, limits: Limits | None = None) -> None:
        self._waiting = FairQueue(limits or Limits())
        self._draining = False
        self._changed = asyncio.Event()
        self._queued: set[str] = set()
        self._hints = Hints()

    def submit(self, head: Head, *, delay_s: float = 0.0) -> None:
        if delay_s > 0:
            self._hints.later(head.run_id, delay_s, lambda: self.submit(head))
            return
        self._hints.now(head.run_id)
        if head.run_id not in self._queued:
            self._queued.add(head.run_id)
            self._waiting.put(head)
            self._changed.set()

    def look(self) -> None:
        return  # each head has a hint of its own

    def cancel(self, run_id: str) -> None:
        self._hints.cancel(run_id)

    async def next_work(self) -> Head:
        while self._draining or (head := self._waiting.get()) is None:
            self._changed.clear()
            await self._changed.wait()
        self._queued.discard(head.run_id)
        return head

    def take(self, head: Head) -> bool:
        return self._waiting.take(head)

    def filled(self, free: FreeSlots, heads: Collection[Head], *, more: bool) -> None:
        raise NotImplementedError  # each of its slots is for a run that is known

    def done(self, head: Head) -> None:
        self._waiting.done(head)
        if self._waiting:
            self._changed.set()

    def drain(self) -> None:
        self._draining = True

    def resume(self) -> None:
        self._draining = False
        self._changed.set()

    async def next_cancel(self) -> str:
        return await self._hints.next_cancel()

    async def aclose(self) -> None:
        self._hints.close()
