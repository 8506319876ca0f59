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
        """Wait for a run that may be claimed, and count it as one in a slot until :meth:`done`."""
        ...

    def done(self, head: Head) -> None:
        """Announce that *head*, which :meth:`next_run` returned, has left its slot."""
        ...

    async def next_cancel(self) -> str:
        """Wait for a run whose cancel was recorded."""
        ...

    async def aclose(self) -> None:
        """Drop what waits; the ledger has it."""
        ...
