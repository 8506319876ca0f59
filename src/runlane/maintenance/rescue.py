"""Runs whose worker is dead, lanes and cancels whose notification was lost, and runs that nobody starts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final, Protocol, TypeVar

import msgspec

from runlane.dispatch.base import Dispatch
from runlane.errors import LeaseLost, NotFound, RowsLocked, StoreUnavailable
from runlane.execution.node_lease import NodeLease
from runlane.execution.notifier import CompletionNotifier
from runlane.execution.ports import AgentSource
from runlane.execution.worker import RENEWALS_PER_LEASE
from runlane.leases import SeenLease
from runlane.lifecycle import EndReason, RunStatus
from runlane.maintenance.liveness import LOOK_EVERY_S, Contact, LeaseObserver, Neighbours
from runlane.records import ANY_OWNER, Head, RunError, RunRecord
from runlane.settings import Settings
from runlane.store.ledger import RunStore
from runlane.supervised_loop import SupervisedLoop
from runlane.telemetry.emitter import SILENT, Telemetry

T = TypeVar("T")

#: Heads of lanes that are read at once.
PAGE: Final = 1000
#: A run that has lost its worker too often is not executed again, but claimed to make its thread valid and to end it.
#: A worker may be lost at that too; after so many of them the run is ended with its thread as it is.
REPAIRS: Final = 3


class DrainFollower(Protocol):
    """Drains while it is asked for."""

    def __call__(self, *, asked: bool) -> None: ...


class Rescuer:
    """Looks for runs that lost their worker, and every ``poll_s`` for lanes whose notification was lost.

    Where others use the ledger too, one look per second sees all that may have been missed: workers that died, cancels,
    and heads of lanes.

    Each run is treated by itself: one whose rows another transaction has locked is left for the next look.
    """

    def __init__(
        self,
        *,
        lease: NodeLease,
        store: RunStore,
        dispatch: Dispatch,
        source: AgentSource,
        notifier: CompletionNotifier,
        settings: Settings,
        held: Callable[[str, int], bool],
        follow_drain: DrainFollower,
        exclusive: bool,
        telemetry: Telemetry = SILENT,
    ) -> None:
        """Args:
        lease: Of this process, entered before anything is admitted.
        held: Whether this process has an attempt of a run, given its number, which ends it or hands it back by itself.
        follow_drain: Told with each look whether an operator asks this process to drain.
        exclusive: No other process uses this ledger, so whatever another worker's id runs is lost at once.
        """
        self._lease = lease
        self._worker_id = lease.worker.worker_id
        self._store = store
        self._dispatch = dispatch
        self._source = source
        self._notifier = notifier
        self._settings = settings
        self._held = held
        self._follow_drain = follow_drain
        self._exclusive = exclusive
        self._telemetry = telemetry
        every_s = settings.poll_s if exclusive else min(settings.poll_s, LOOK_EVERY_S)
        self._contact = Contact(every_s=every_s, renewal_s=settings.lease_s / RENEWALS_PER_LEASE)
        self._orphans: LeaseObserver[SeenLease] = LeaseObserver(self._contact)
        self._neighbours = Neighbours(
            store=store, worker_id=self._worker_id, exclusive=exclusive, contact=self._contact
        )
        self._told: frozenset[str] = frozenset()
        loop = partial(SupervisedLoop, at_once=False, telemetry=telemetry)
        self._loops = (
            loop("rescue", self.rescue_lost, every_s=lambda: self._until_look_s(every_s), longest_retry_s=every_s),
            loop("lanes", self.dispatch_runnable, every_s=settings.poll_s),
        )

    async def __aenter__(self) -> Rescuer:
        await self._lease.enter()
        await self._neighbours.enter()
        await self.rescue_lost()
        await self.dispatch_runnable()
        for loop in self._loops:
            loop.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(loop.stop() for loop in self._loops))
        await self._lease.leave()

    async def rescue_lost(self) -> tuple[RunRecord, ...]:
        """Take every lost run from its dead worker; return what became of them.

        A run is lost if its worker has not beaten for its lease and a grace time while this process watched; or if it
        has a worker that is not there, or does not know of it, for so long. What this process holds is not lost, and
        what another worker holds of a ledger that is only this process's is lost at once.
        """
        rescued: list[RunRecord] = []
        leases = await self._leases() if self._exclusive else await self._look()
        for lease in leases:
            finished = await self._rescue(lease) if self._is_lost(lease) else None
            if finished is not None:
                rescued.append(finished)
        return tuple(rescued)

    async def _look(self) -> tuple[SeenLease, ...]:
        """Look at what others do: tell of cancels and heads, and return runs of workers that are not known to live."""
        asked_at, living = self._clock(), self._neighbours.living
        can_start = self._settings.execute_runs and not self._dispatch.needs_hints
        groups = self._source.groups if can_start else ()
        view = await self._in_contact(self._store.attempts.view(self._worker_id, living=sorted(living), groups=groups))
        at = self._clock()
        for run_id in frozenset(view.cancelled) - self._told:
            self._dispatch.cancel(run_id)
        self._told = frozenset(view.cancelled)
        self._follow_drain(asked=view.drain_asked)
        if view.has_heads:
            self._dispatch.look()
        dead = self._neighbours.note(view.workers, asked_at=asked_at, at=at)
        for worker in dead:
            await self._in_contact(self._store.workers.forget(worker))
        if living - self._neighbours.living:
            return await self._leases()
        return self._noted(view.leases, asked_at)

    async def _leases(self) -> tuple[SeenLease, ...]:
        """Read the runs of workers that are not known to live."""
        asked_at = self._clock()
        leases = await self._in_contact(self._store.attempts.leases(living=sorted(self._neighbours.living)))
        return self._noted(leases, asked_at)

    def _noted(self, leases: tuple[SeenLease, ...], asked_at: float) -> tuple[SeenLease, ...]:
        orphans = [replace(lease, beats=None) for lease in leases if self._is_orphan(lease)]
        self._orphans.note(orphans, asked_at=asked_at, at=self._clock())
        return leases

    async def _in_contact(self, operation: Awaitable[T]) -> T:
        """Await an operation of the ledger, and take note of whether that answers."""
        asked_at = self._clock()
        try:
            answer = await operation
        except (LeaseLost, RowsLocked):
            asked_at = self._clock()  # it may have been tried again after an outage
            self._contact.made(asked_at=asked_at, at=asked_at)
            raise
        except StoreUnavailable:
            self._contact.broken()
            raise
        self._contact.made(asked_at=asked_at, at=self._clock())
        return answer

    def _clock(self) -> float:
        return asyncio.get_running_loop().time()

    def _until_look_s(self, every_s: float) -> float:
        """Return *every_s*, or the seconds until what is observed is over, if that is sooner."""
        over_at = min(self._neighbours.next_over_at(), self._orphans.next_over_at())
        return max(0.0, min(every_s, over_at - self._clock()))

    def _is_orphan(self, lease: SeenLease) -> bool:
        """Return whether the worker of a run is not there, or does not know of the run."""
        if lease.worker_id == self._worker_id:
            return not self._held(lease.run_id, lease.attempt)
        return lease.beats is None

    def _is_lost(self, lease: SeenLease) -> bool:
        if lease.worker_id != self._worker_id and self._exclusive:
            return True
        if not self._contact.lasts(self._clock()):
            return False
        if self._is_orphan(lease):
            return self._orphans.over(replace(lease, beats=None))
        return self._neighbours.dead(lease.worker_id, lease.beats)

    async def _rescue(self, lease: SeenLease) -> RunRecord | None:
        try:
            finished = await self._in_contact(
                self._store.attempts.rescue(
                    lease,
                    max_rescues=self._settings.max_rescues + REPAIRS,
                    still_lost=lambda: self._is_lost(lease),
                )
            )
        except (LeaseLost, RowsLocked):
            return None  # its worker has beaten or ended it since it was seen; or it is locked, and looked at again
        if finished is None:
            return None
        self._telemetry.run_rescued(finished.run, attempt=lease.attempt)
        if finished.run.status.terminal:
            self._source.forget(lease.run_id)
        self._notifier.announce(finished)
        return finished.run

    async def reconcile(self, error: str | None, before: datetime | None) -> list[RunRecord]:
        """Take lost runs from dead workers, and end pending ones whose code no living process has.

        Args:
            error: The text of those that end.
            before: Only pending runs admitted before this instant are ended; all by default.
        """
        settled = list(await self.rescue_lost())
        failed = RunError(error="WorkerLost", message=error or "The process that was to execute this run is gone.")
        after_seq = 0
        while page := await self._store.runs.inflight(after_seq=after_seq):
            after_seq = page[-1].seq
            await self._neighbours.meet(run.home for run in page if run.status is RunStatus.PENDING)
            for run in page:
                late = before is not None and run.created_at > before
                if run.status is not RunStatus.PENDING or late or not self.orphaned(run.run_id, run.home):
                    continue
                ended = await self._store.queue.give_up(run.run_id, EndReason.WORKER_LOST, failed, home=run.home)
                if ended is not None:
                    self._notifier.announce(ended)
                    settled.append(ended.run)
        return settled

    def orphaned(self, run_id: str, home: str | None) -> bool:
        """Return whether this process knows that no living one has the code of a pending run."""
        if self._source.can_execute(run_id, home) or not self._knows_others:
            return False
        if home is None:
            return not self._neighbours.any_lives
        return not self._neighbours.lives(home)

    @property
    def _knows_others(self) -> bool:
        """Return whether this process knows which others live: what it knew before an outage counts no more."""
        return self._exclusive or self._contact.lasts(self._clock())

    async def dispatch_runnable(self) -> None:
        """Tell the dispatch of every lane that could go on; end runs that nobody attached code to in time.

        Where workers ask the ledger for heads, these are the lanes whose head's code lives in one process.
        """
        after_seq, queue = 0, self._store.queue
        heads = queue.runnable if self._dispatch.needs_hints else queue.heads_at_home
        while page := await heads(after_seq=after_seq, limit=PAGE):
            await self._neighbours.meet(
                head.home for head, _ in page if not self._source.can_execute(head.run_id, head.home)
            )
            for found, wait_us in page:
                head = await self._freed(found)
                wait_s = wait_us / 1_000_000
                if self._source.can_execute(head.run_id, head.home):
                    self._dispatch.submit(head, delay_s=max(0.0, wait_s))
                elif -wait_s > self._settings.start_within_s and self.orphaned(head.run_id, head.home):
                    await self._give_up(head)
            after_seq = page[-1][0].seq

    async def _freed(self, head: Head) -> Head:
        """Return *head*, which loses its home if that is dead and other processes can execute its graph."""
        home = head.home
        if home is None or home == self._worker_id or self._neighbours.lives(home) or head.graph_id is None:
            return head
        if not self._knows_others:
            return head
        await self._store.queue.free(head.run_id, home=home)
        return msgspec.structs.replace(head, home=None)

    async def _give_up(self, head: Head) -> None:
        reason = EndReason.NEVER_STARTED
        error = RunError(error="NeverStarted", message="No code was attached to this run in time; see start().")
        try:
            if (await self._store.runs.get(head.run_id, owner=ANY_OWNER)).rescues:
                reason = EndReason.WORKER_LOST
                error = RunError(error="WorkerLost", message="The process that had this run's code died.")
            finished = await self._store.queue.give_up(head.run_id, reason, error, home=head.home)
        except (NotFound, RowsLocked):
            return
        if finished is not None:
            self._notifier.announce(finished)
