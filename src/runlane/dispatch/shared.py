"""Dispatch of a process that shares its ledger with others: it knows its slots, and the ledger what may start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import Final

from runlane.dispatch.base import FreeSlots
from runlane.dispatch.hints import Hints
from runlane.records import Head
from runlane.settings import Limits

#: Heads that are claimed at once. Their threads are locked until the commit.
MAX_CLAIMS: Final = 64
#: Runs at home here that are asked for at once.
MAX_ATTACHED: Final = 1000


class SharedDispatch:
    """A :class:`~runlane.dispatch.base.Dispatch` of free slots, which the ledger fills in its order.

    A hint is no more than a reason to ask the ledger. Fairness and limits are decided there, with the claim. Heads that
    no hint tells of are found by the rescuer, which looks at the ledger every second, and calls :meth:`look`.
    """

    needs_hints = False

    def __init__(self, limits: Limits) -> None:
        """Args:
        limits: ``slots`` of this process, of which 0 are none; of the others whether there are any.
        """
        self._free = limits.slots
        self._draining = False
        self._limited = limits.shared
        self._hints = Hints()
        self._attached: dict[str, None] = {}
        # There may be something to claim.
        self._reason = asyncio.Event()
        self._reason.set()
        self._slot_free = asyncio.Event()
        #: Tells other processes of groups that have heads for which there is no slot here, if anything does.
        self.offer: Callable[[Collection[str]], None] | None = None

    @property
    def _has_slot(self) -> bool:
        return self._free > 0 and not self._draining

    async def slot_freed(self) -> None:
        """Wait until a run could start here."""
        while not self._has_slot:
            self._slot_free.clear()
            await self._slot_free.wait()

    async def take_permit(self, group: str) -> None:
        """Ask the ledger for heads. Without a free slot pass the permit on, and wait until there is one."""
        if not self._has_slot:
            self._offer((group,))
            await self.slot_freed()
        self._reason.set()

    def look(self) -> None:
        self._reason.set()

    def submit(self, head: Head, *, delay_s: float = 0.0) -> None:
        if delay_s > 0:
            self._hints.later(head.run_id, delay_s, lambda: self.submit(head))
            return
        self._hints.now(head.run_id)
        if head.home is not None:
            self._attached[head.run_id] = None
        elif not self._has_slot:
            self._offer((head.graph_id,))
        self._reason.set()

    def cancel(self, run_id: str) -> None:
        self._hints.cancel(run_id)

    async def next_work(self) -> FreeSlots:
        while True:
            await self.slot_freed()
            await self._reason.wait()
            if self._has_slot:
                break
        self._reason.clear()
        free = FreeSlots(slots=min(self._free, MAX_CLAIMS), attached=tuple(islice(self._attached, MAX_ATTACHED)))
        self._free -= free.slots
        return free

    def take(self, head: Head) -> bool:
        if self._limited or not self._free or self._reason.is_set():
            return False
        self._free -= 1
        return True

    def filled(self, free: FreeSlots, heads: Collection[Head], *, more: bool) -> None:
        run_ids = [head.run_id for head in heads]
        full = len(run_ids) == free.slots
        # What could not start although there was a slot waits for another run, whose end tells of it.
        for run_id in run_ids if full else free.attached:
            self._attached.pop(run_id, None)
        if full or more:
            self._reason.set()
        self._release(free.slots - len(run_ids))
        if full and not self._free:
            self._offer(head.graph_id for head in heads if head.home is None)

    def done(self, head: Head) -> None:
        self._release(1)

    def drain(self) -> None:
        self._draining = True

    def resume(self) -> None:
        self._draining = False
        self._slot_free.set()
        self._reason.set()

    def _offer(self, graph_ids: Iterable[str | None]) -> None:
        if self.offer is not None:
            self.offer({graph_id or "" for graph_id in graph_ids})

    def _release(self, slots: int) -> None:
        self._free += slots
        if self._free:
            self._slot_free.set()

    async def next_cancel(self) -> str:
        return await self._hints.next_cancel()

    async def aclose(self) -> None:
        self._hints.close()
