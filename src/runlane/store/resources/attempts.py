"""Executions of runs: claimed, leased, ended, or taken from a dead worker."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from runlane.errors import LeaseLost
from runlane.leases import Renewal, SeenLease, SharedView, WorkerState
from runlane.outcomes import Outcome
from runlane.records import CancelReceipt, Claim, Claimant, Finished, Lease
from runlane.store.retrying import RetryingDriver
from runlane.store.statements import ExtraWrites, Transaction
from runlane.store.transactions import claims, leases, rescues, runs
from runlane.store.transactions.heads import HeadsWanted


class Attempts:
    """``store.attempts``."""

    def __init__(self, database: RetryingDriver) -> None:
        self._database = database

    async def claim(self, run_id: str, worker_id: str, *, lease_s: float, has_code: bool = True) -> Claim | None:
        """Start an attempt as :meth:`claim_by` does, by a worker that has no build.

        Args:
            has_code: The caller executes the run's own code, so that the run is at home there from now on. Without it
                only a run without a home is claimed.
        """
        return await self.claim_by(Claimant(worker_id=worker_id, lease_s=lease_s, has_code=has_code), run_id)

    async def claim_by(self, claimant: Claimant, run_id: str) -> Claim | None:
        """Start an attempt if the run is its lane's head, due, and nothing of its thread executes; else ``None``."""
        return await self._database.write(lambda: claims.claim(run_id, claimant))

    async def claim_heads(self, wanted: HeadsWanted, claimant: Claimant) -> tuple[tuple[Claim, ...], bool]:
        """Start attempts at heads of lanes of any threads, shared fairly among owners; see :class:`HeadsWanted`.

        Returns:
            The claims, at most ``wanted.slots``; and whether more might start now, as some that were chosen could not.
        """
        return await self._database.write(lambda: claims.claim_heads(wanted, claimant))

    async def renew(self, held: Sequence[Lease], *, worker: WorkerState) -> Renewal:
        """Renew the lease of *worker*; report which of the runs that it has *held* are lost, and cancels meanwhile."""
        return await self._database.write(lambda: leases.renew(held, worker), urgent=True)

    async def leases(self, *, living: Sequence[str] = ()) -> tuple[SeenLease, ...]:
        """Return every run in execution, but for those of the *living* workers."""
        return await self._database.read(lambda: leases.leases(living), urgent=True)

    async def view(
        self, worker_id: str, *, living: Sequence[str] = (), groups: Collection[str] | None = None
    ) -> SharedView:
        """Return what a worker has to know of what others do.

        Args:
            living: Workers whose runs are of no interest.
            groups: Groups of runs that the worker can start now; ``None``: all.
        """
        return await self._database.read(lambda: leases.shared_view(worker_id, living, groups), urgent=True)

    async def observe_cancel(self, lease: Lease, at_us: int) -> None:
        """Record that the worker saw the cancel at *at_us* (microseconds of UTC)."""
        await self._database.write(lambda: leases.observe_cancel(lease, at_us))

    async def finish(
        self, lease: Lease, outcome: Outcome, *, extra_writes: ExtraWrites | None = None
    ) -> Finished | CancelReceipt:
        """End the attempt of *lease*, or hand its run back, and make the lane's next run claimable.

        Args:
            extra_writes: Part of the same transaction, such as the removal of checkpoints.

        Returns:
            What became of the run; or the receipt of a cancel that came first, if *outcome* is not a stop: then nothing
            was written, and the run can only be stopped.

        Raises:
            LeaseLost: Another attempt has the run, or it is terminal; nothing was written.
        """
        return await self._database.write(lambda: runs.finish(lease, outcome, extra_writes))

    async def rescue(
        self, lost: SeenLease, *, max_rescues: int, still_lost: Callable[[], bool] = lambda: True
    ) -> Finished | None:
        """Take a run from its dead worker, back to its lane or to ``error``; ``None`` while its rows are locked.

        Args:
            still_lost: Asked before each try: the worker needs time to come back after an outage.

        Raises:
            LeaseLost: The run moved on, or its worker has beaten, since *lost* was read; or it is not *still_lost*.
        """

        def take() -> Transaction[Finished | None]:
            if not still_lost():
                raise LeaseLost(lost.run_id, lost.attempt)
            return rescues.rescue(lost, max_rescues)

        return await self._database.write(take, urgent=True)
