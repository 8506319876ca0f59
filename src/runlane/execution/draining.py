"""Draining: a worker starts nothing more, lets its runs finish for a time, and hands the rest back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final

from runlane.dispatch.base import Dispatch
from runlane.execution.attempt import Attempt
from runlane.execution.decision import StopReason
from runlane.execution.node_lease import NodeLease
from runlane.settings import Settings

log = logging.getLogger("runlane.worker")

#: How long a drain waits for an ending that cannot be written, beyond what stopping and repairing may take.
OUTAGE_LIMIT_S: Final = 10.0
#: How often a drain stops what is left and counts its time.
DRAIN_POLL_S: Final = 0.1


class WorkerDrain:
    """The drain of a worker: for good, as its process stops, or for as long as an operator asks for it.

    Attributes:
        active: The worker starts nothing.
    """

    def __init__(
        self,
        *,
        dispatch: Dispatch,
        lease: NodeLease,
        settings: Settings,
        attempts: Callable[[], Collection[Attempt]],
        tasks: Collection[asyncio.Future[None]],
        show: Callable[[], None],
    ) -> None:
        """Args:
        attempts: Returns those that execute now.
        tasks: Whatever has to end.
        show: Has the lease renewed soon, which shows others what the worker does.
        """
        self._dispatch = dispatch
        self._lease = lease
        self._settings = settings
        self._attempts = attempts
        self._tasks = tasks
        self._show = show
        self._asked: asyncio.Task[None] | None = None
        self._for_good = False
        self.active = False

    def follow(self, *, asked: bool) -> None:
        """Drain while an operator has *asked* for it, and start runs again afterwards; repeated, it changes nothing."""
        if self._for_good or asked == (self._asked is not None):
            return
        if asked:
            log.info("worker.drain_asked")
            self._set_active(active=True)
            self._asked = asyncio.get_running_loop().create_task(self._hand_back())
            return
        assert self._asked is not None
        log.info("worker.drain_withdrawn")
        self._asked.cancel()
        self._asked = None
        self._set_active(active=False)

    def begin_for_good(self) -> bool:
        """Start nothing more until the process stops; return whether that was so already."""
        again, self._for_good = self._for_good, True
        if self._asked is not None:
            self._asked.cancel()
        if not again:
            self._set_active(active=True)
        return again

    async def finish(self, grace_s: float) -> None:
        """Let runs finish for *grace_s*, then stop the rest; return once no code of a run executes here.

        An ending that cannot be written because the ledger is unavailable is given up at last: the run is rescued
        later.
        """
        await self._grace(grace_s)
        stages_s = self._settings.cancel_grace_s + self._settings.abandon_after_s
        polls = int((2 * stages_s + OUTAGE_LIMIT_S) / DRAIN_POLL_S)  # counted, since a process may stand still
        while self._tasks:
            polls -= 1
            await self._stop(StopReason.DRAIN)
            if polls < 0:
                for attempt in tuple(self._attempts()):
                    attempt.stop(StopReason.LEASE_LOST)  # so that nothing is written from now on, half of it least
                for task in tuple(self._tasks):
                    task.cancel()

    async def _hand_back(self) -> None:
        """Let runs finish, then hand back the rest; an outage is waited out, as the process goes on."""
        await self._grace(self._settings.drain_grace_s)
        while self._tasks:
            await self._stop(StopReason.DRAIN)

    async def _grace(self, grace_s: float) -> None:
        if self._tasks and grace_s > 0:
            await asyncio.wait(tuple(self._tasks), timeout=grace_s)

    async def _stop(self, reason: StopReason) -> None:
        for attempt in tuple(self._attempts()):
            attempt.stop(reason)
        await asyncio.wait(tuple(self._tasks), timeout=DRAIN_POLL_S)

    def _set_active(self, *, active: bool) -> None:
        self.active = active
        if active:
            self._dispatch.drain()
        else:
            self._dispatch.resume()
        self._lease.show_draining(active=active)
        self._show()
