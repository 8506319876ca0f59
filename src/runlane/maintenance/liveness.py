"""Liveness of the workers that share a ledger, as observed by this process, by its own clock."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Final, Generic, Protocol, TypeVar

from runlane.leases import SeenWorker
from runlane.store.ledger import RunStore

#: A lease is over for others only this much later: its owner stops at its end what it executes, which takes a moment.
GRACE_S: Final = 1.0
#: How often others are looked at. A dead one was seen alive so much late at most, and is looked at again in the moment
#: in which its lease is over, so that what it executed goes on within its lease and two seconds.
LOOK_EVERY_S: Final = 1.0


class _Leased(Hashable, Protocol):
    """A value that each renewal changes, and that is over if it stays the same for ``lease_s``."""

    @property
    def lease_s(self) -> float: ...


L = TypeVar("L", bound=_Leased)


class LeaseObserver(Generic[L]):
    """For how long leases have not been renewed, by the clock of this process, which nobody sets.

    The ledger's clock may be set: forward, and all leases look over while their owners live; back, and a dead worker's
    lease lies in the future.

    Source: client-go's leader election, which measures the time since it saw a record change.
    """

    def __init__(self) -> None:
        self._since: dict[L, float] = {}
        self._asked_at = 0.0

    def note(self, leases: Iterable[L], *, asked_at: float, at: float) -> None:
        """Take note of all leases there are, which were *asked* for and are known since, both on the loop's clock."""
        self._since = {lease: self._since.get(lease, at) for lease in leases}
        self._asked_at = asked_at

    def broken(self) -> None:
        """The ledger was unavailable: observe every worker from the beginning."""
        self._since = {}

    def over(self, lease: L) -> bool:
        """Return whether *lease* has been the same for its whole length, and a grace time."""
        return self._over_at(lease) <= self._asked_at

    def next_over_at(self, leases: Iterable[L]) -> float:
        """Return when the next of *leases* is over if it stays the same, on the loop's clock."""
        return min((self._over_at(lease) for lease in leases if not self.over(lease)), default=math.inf)

    def _over_at(self, lease: L) -> float:
        """Return when a lease that stays the same is over; infinity if it has not been seen."""
        return self._since.get(lease, math.inf) + lease.lease_s + GRACE_S


class Neighbours:
    """The other workers of a ledger. One that is only this process's has none: what was at home elsewhere is nobody's.

    Each beats in the ledger while it lives; one that stands still for long is forgotten, once it has nothing left.
    """

    def __init__(self, *, store: RunStore, worker_id: str, exclusive: bool) -> None:
        self._store = store
        self._worker_id = worker_id
        self._exclusive = exclusive
        self._observer: LeaseObserver[SeenWorker] = LeaseObserver()
        self._others: list[SeenWorker] = []
        self._living: frozenset[str] = frozenset()
        self._dead: frozenset[tuple[str, int]] = frozenset()

    @property
    def any_lives(self) -> bool:
        """Return whether another process uses the ledger, which may have graphs that this one has not."""
        return bool(self._living)

    @property
    def living(self) -> frozenset[str]:
        """Return the other workers that have not been found dead."""
        return self._living

    def lives(self, worker_id: str) -> bool:
        """Return whether another worker has not been found dead."""
        return worker_id in self._living

    def dead(self, worker_id: str, beats: int | None) -> bool:
        """Return whether a worker was found dead, and has not beaten since."""
        return self._exclusive or (worker_id, beats) in self._dead

    async def enter(self) -> None:
        """Forget whoever had a ledger before that is this process's now."""
        if self._exclusive:
            await self._store.workers.forget_others(self._worker_id)

    def note(self, workers: Iterable[SeenWorker], *, asked_at: float, at: float) -> tuple[SeenWorker, ...]:
        """Find out who lives by all workers there are, and return the dead ones."""
        if at - asked_at > GRACE_S:
            self._observer.broken()  # the ledger stood still, and may have kept others from renewing their leases
        others = [worker for worker in workers if worker.worker_id != self._worker_id]
        self._others = others
        self._observer.note(others, asked_at=asked_at, at=at)
        dead = tuple(worker for worker in others if self._observer.over(worker))
        self._dead = frozenset((worker.worker_id, worker.beats) for worker in dead)
        self._living = frozenset(worker.worker_id for worker in others if worker not in dead)
        return dead

    def next_over_at(self) -> float:
        """Return when the next worker is dead unless it beats, on the loop's clock."""
        return self._observer.next_over_at(self._others)

    def broken(self) -> None:
        """The ledger was unavailable: observe every worker from the beginning."""
        self._observer.broken()
