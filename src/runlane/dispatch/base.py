"""Dispatch: how pending runs reach a worker, and how a cancel reaches the worker that executes its run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from runlane.records import Head


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeSlots:
    """Slots of this process that are free, for heads that the ledger chooses.

    ``attached`` are runs at home in one process whose code is here, as far as it is known that they may start.
    """

    slots: int
    attached: tuple[str, ...]


class Dispatch(Protocol):
    """Hints, never facts: the ledger decides. A lost or repeated hint does no harm, since workers also ask the ledger.

    Source: design of job queues whose queue holds only runnable work.
    """

    @property
    def needs_hints(self) -> bool:
        """Return whether a head is found by its hint alone; otherwise the ledger is asked for heads of any lane."""
        ...

    def submit(self, head: Head, *, delay_s: float = 0.0) -> None:
        """Announce that *head* may be claimed, now or in *delay_s* seconds."""
        ...

    def look(self) -> None:
        """Ask the ledger for heads once there is a slot, if it is asked for heads of any lane: it has some."""
        ...

    def cancel(self, run_id: str) -> None:
        """Notify the worker of *run_id* that a cancel was recorded."""
        ...

    async def next_work(self) -> Head | FreeSlots:
        """Wait for a free slot and something to claim: a run, counted as one in a slot until :meth:`done`; or slots.

        Slots are all counted as taken until :meth:`filled`.
        """
        ...

    def take(self, head: Head) -> bool:
        """Count *head*, which is being admitted, as one in a slot if it would be the next run; else change nothing."""
        ...

    def filled(self, free: FreeSlots, heads: Collection[Head], *, more: bool) -> None:
        """Count the runs that were claimed for *free* as ones in slots, until :meth:`done`, and free the other slots.

        Args:
            more: The ledger is to be asked again at once.
        """
        ...

    def done(self, head: Head) -> None:
        """Announce that *head*, which was counted as one in a slot, has left it."""
        ...

    def drain(self) -> None:
        """Start nothing more here: what may start from now on, such as a run that is handed back, is for others."""
        ...

    def resume(self) -> None:
        """Start runs here again after :meth:`drain`."""
        ...

    async def next_cancel(self) -> str:
        """Wait for a run whose cancel was recorded."""
        ...

    async def aclose(self) -> None:
        """Drop what waits; the ledger has it."""
        ...
