"""The lease of this process: one row, by which others tell that it lives, and with it each run that it executes."""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from importlib.metadata import version

from runlane.errors import StoreUnavailable
from runlane.leases import Renewal, WorkerState
from runlane.records import Lease
from runlane.settings import Settings
from runlane.store.ledger import RunStore

_NOTHING = Renewal(lost=(), cancelled=())


def new_worker_id() -> str:
    """Return a name for this process that tells where it is, and that no other has."""
    return f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"


def worker_state(worker_id: str, settings: Settings, groups: Collection[str] | None) -> WorkerState:
    """Return what others are to see of this process.

    Args:
        groups: Groups of runs that it can execute; ``None``: all.
    """
    return WorkerState(
        worker_id=worker_id,
        lease_s=settings.lease_s,
        build=settings.build,
        capacity=settings.slots,
        groups=None if groups is None else tuple(groups),
        host=socket.gethostname(),
        pid=os.getpid(),
        version=version("runlane"),
    )


class NodeLease:
    """Lasts for ``lease_s`` from the moment at which the last renewal that succeeded was sent, on its clock.

    Nobody takes a run of this process before that is over and a grace time has passed. Once it is over this process has
    to take each run that it executes for lost, also if a later renewal succeeds.

    Attributes:
        worker: What others see of this process.
        now: Its clock, in seconds.
        until: When the lease is over.
    """

    def __init__(
        self,
        worker: WorkerState,
        *,
        store: RunStore,
        exclusive: bool,
        clock: Callable[[], float],
        lag_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Args:
        exclusive: No other process uses the ledger: while nothing is held, there is nothing to renew.
        lag_s: Returns for how long the loop of its agents keeps calls waiting.
        """
        self.worker = worker
        self.now = clock
        self.until = -math.inf
        self._since = math.inf
        self._renewed = asyncio.Event()
        self._store = store
        self._exclusive = exclusive
        self._lag_s = lag_s

    @property
    def lasts(self) -> bool:
        """Return whether runs may be claimed and executed now."""
        return self.left_s() > 0

    def left_s(self) -> float:
        """Return for how many seconds it lasts; may be called on any thread."""
        return self.until - self.now()

    async def lasting(self) -> None:
        """Wait until it lasts."""
        while not self.lasts:
            self._renewed.clear()
            await self._renewed.wait()

    def covers(self, instant: float) -> bool:
        """Return whether it has lasted without a break from *instant* on its clock until now."""
        return self.lasts and self._since <= instant

    async def enter(self) -> None:
        """Show others that this process lives, before it claims anything.

        Raises:
            StoreUnavailable: They cannot see it.
        """
        sent_at = self.now()
        await self._store.workers.beat(self._beating())
        self._confirm(sent_at)

    async def renew(self, held: Sequence[Lease]) -> Renewal:
        """Renew it, and report which of the runs that are *held* are lost or were cancelled.

        Raises:
            StoreUnavailable: It may be renewed or not; try again.
        """
        sent_at = self.now()
        idle = self._exclusive and not held
        renewal = _NOTHING if idle else await self._store.attempts.renew(held, worker=self._beating())
        self._confirm(sent_at)
        return renewal

    async def leave(self) -> None:
        """Tell others, if there are any, that this process is gone."""
        self.until = -math.inf
        if self._exclusive:
            return
        try:
            await self._store.workers.leave(self.worker.worker_id)
        except StoreUnavailable:
            return  # they will see that it does not beat any more

    def show_draining(self, *, active: bool) -> None:
        """Show others from the next renewal on whether this process drains."""
        self.worker = replace(self.worker, draining=active)

    def _beating(self) -> WorkerState:
        self.worker = replace(self.worker, beats=self.worker.beats + 1, lag_s=self._lag_s())
        return self.worker

    def _confirm(self, sent_at: float) -> None:
        now = self.now()
        if now >= self.until:  # it was over, also if this renewal was sent before that
            self._since = now
        self.until = max(self.until, sent_at + self.worker.lease_s)
        self._renewed.set()
