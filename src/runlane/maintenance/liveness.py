"""Liveness of the workers that share a ledger, as observed by this process, by its own clock."""

from __future__ import annotations

import asyncio
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


class Contact:
    """Since when this process has been in contact with the ledger without a break, on the loop's clock.

    An outage, or a time in which this process stands still, tells nothing of others: they may have been kept from
    renewing. So contact is broken by an operation that fails, or that takes longer than a renewal may; and by a pause
    between operations that is so much longer than the period of looks. What is shorter costs a worker one renewal of
    several, and breaks nothing. A ledger that is always slow shows dead workers too, unless no renewal succeeds there.
    """

    def __init__(self, *, every_s: float, renewal_s: float) -> None:
        """Args:
        every_s: How often the ledger is looked at.
        renewal_s: How long a renewal of a lease may take.
        """
        self.since = math.inf
        self._until = -math.inf
        self._longest_s = max(renewal_s, GRACE_S)
        self._longest_pause_s = every_s + self._longest_s

    def made(self, *, asked_at: float, at: float) -> None:
        """Take note that the ledger answered *at* what it was *asked* before."""
        if at - asked_at > self._longest_s:
            self.broken()  # the answer may be as old as the question
            return
        if not self.lasts(asked_at):
            self.since = at
        self._until = max(self._until, at)

    def broken(self) -> None:
        """Take note that the ledger was unavailable."""
        self.since, self._until = math.inf, -math.inf

    def lasts(self, now: float) -> bool:
        """Return whether there is contact, without a break until *now*."""
        return now - self._until <= self._longest_pause_s


class LeaseObserver(Generic[L]):
    """For how long leases have not been renewed since contact with the ledger began, by the clock of this process.

    Nobody sets that clock. The ledger's may be set: forward, and all leases look over while their owners live; back,
    and a dead worker's lease lies in the future.

    Source: client-go's leader election, which measures the time since it saw a record change.
    """

    def __init__(self, contact: Contact) -> None:
        self._contact = contact
        self._since: dict[L, float] = {}
        self._asked_at = 0.0

    def note(self, leases: Iterable[L], *, asked_at: float, at: float) -> None:
        """Take note of all leases there are, which were *asked* for and are known since, both on the loop's clock."""
        self._since = {lease: self._since.get(lease, at) for lease in leases}
        self._asked_at = asked_at

    def over(self, lease: L) -> bool:
        """Return whether *lease* has been the same for its whole length, and a grace time."""
        return self._over_at(lease) <= self._asked_at

    def next_over_at(self) -> float:
        """Return when the next lease is over if it stays the same, on the loop's clock."""
        return min((self._over_at(lease) for lease in self._since if not self.over(lease)), default=math.inf)

    def _over_at(self, lease: L) -> float:
        """Return when a lease that stays the same is over; infinity if it has not been seen."""
        return max(self._since.get(lease, math.inf), self._contact.since) + lease.lease_s + GRACE_S


class Neighbours:
    """The other workers of a ledger. One that is only this process's has none: what was at home elsewhere is nobody's.

    Each beats in the ledger while it lives; one that stands still for long is forgotten, once it has nothing left.
    """

    def __init__(self, *, store: RunStore, worker_id: str, exclusive: bool, contact: Contact) -> None:
        self._store = store
        self._worker_id = worker_id
        self._exclusive = exclusive
        self._observer: LeaseObserver[SeenWorker] = LeaseObserver(contact)
        self._others: dict[str, SeenWorker] = {}
        self._living: frozenset[str] = frozenset()
        self._asked_at = -math.inf

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
        worker = self._others.get(worker_id)
        return worker is not None and worker.beats == beats and self._observer.over(worker)

    async def enter(self) -> None:
        """Forget whoever had a ledger before that is this process's now."""
        if self._exclusive:
            await self._store.workers.forget_others(self._worker_id)

    async def meet(self, homes: Iterable[str | None]) -> None:
        """Look at the workers again if one of *homes* is unknown: it may have joined since the last look.

        Where a run has no home, that is so while no other worker is known to live.
        """
        if self._exclusive or all(self._knows(home) for home in homes):
            return
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        self.note(await self._store.workers.list(), asked_at=asked_at, at=clock())

    def _knows(self, home: str | None) -> bool:
        if home is None:
            return self.any_lives
        return home == self._worker_id or home in self._others

    def note(self, workers: Iterable[SeenWorker], *, asked_at: float, at: float) -> tuple[SeenWorker, ...]:
        """Find out who lives by all workers there are, and return the dead ones. An outdated answer is passed over."""
        if asked_at < self._asked_at:
            return ()
        self._asked_at = asked_at
        self._others = {worker.worker_id: worker for worker in workers if worker.worker_id != self._worker_id}
        others = self._others.values()
        self._observer.note(others, asked_at=asked_at, at=at)
        dead = tuple(worker for worker in others if self._observer.over(worker))
        self._living = frozenset(self._others.keys() - {worker.worker_id for worker in dead})
        return dead

    def next_over_at(self) -> float:
        """Return when the next worker is dead unless it beats, on the loop's clock."""
        return self._observer.next_over_at()
