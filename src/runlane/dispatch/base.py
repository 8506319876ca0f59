"""Dispatch: how pending runs reach a worker, and how a cancel reaches the worker that executes its run."""

from __future__ import annotations

from typing import Protocol

from runlane.records import Head


class Dispatch(Protocol):
    """Hints, never facts: the ledger decides. A lost or repeated hint does no harm, since workers also ask the ledger.

    Source: design of job queues whose queue holds only runnable work.
    """

    def submit(self, head: Head, *, delay_s: float = 0.0) -> None:
        """Announce that *head* may be claimed, now or in *delay_s* seconds."""
        ...

    def cancel(self, run_id: str) -> None:
        """Notify the worker of *run_id* that a cancel was recorded."""
        ...

    async def next_run(self) -> Head:
        """Wait for a free slot and a run that may be claimed, and count the run as one in it until :meth:`done`."""
        ...

    def take(self, head: Head) -> bool:
        """Count *head*, which is being admitted, as one in a slot if it would be the next run; else change nothing."""
        ...

    def done(self, head: Head) -> None:
        """Announce that *head*, which was counted as one in a slot, has left it."""
        ...

    async def next_cancel(self) -> str:
        """Wait for a run whose cancel was recorded."""
        ...

    async def aclose(self) -> None:
        """Drop what waits; the ledger has it."""
        ...
