"""The workers that share the ledger; only a database that many processes use has any."""

from __future__ import annotations

from runlane.leases import SeenWorker, WorkerState
from runlane.store.retrying import RetryingDriver
from runlane.store.transactions import fleet, workers
from runlane.store.transactions.fleet import Executors, Fleet


class Workers:
    """``store.workers``."""

    def __init__(self, database: RetryingDriver) -> None:
        self._database = database

    async def beat(self, worker: WorkerState) -> None:
        """Record that the worker lives; :meth:`Attempts.renew` does so too."""
        await self._database.write(lambda: workers.beat(worker), urgent=True)

    async def fleet(self) -> Fleet:
        """Return what operators see of the workers, and of runs that none of them can execute."""
        return await self._database.read(fleet.fleet)

    async def executors(self, run_id: str) -> Executors | None:
        """Return who can execute a run; ``None`` if it is not pending, or if one process has the ledger."""
        return await self._database.read(lambda: fleet.executors(run_id))

    async def list(self) -> tuple[SeenWorker, ...]:
        """Return the workers that have not left, dead ones among them."""
        return await self._database.read(workers.workers, urgent=True)

    async def forget(self, dead: SeenWorker) -> None:
        """Remove a dead worker, unless it has beaten since it was seen, or runs have yet to be taken from it."""
        await self._database.write(lambda: workers.forget_worker(dead), urgent=True)

    async def forget_others(self, worker_id: str) -> None:
        """Remove all workers but one, which alone uses the ledger from now on."""
        await self._database.write(lambda: workers.forget_others(worker_id))

    async def ask_to_drain(self, worker_id: str, *, drain: bool) -> None:
        """Ask a worker to drain, or not to any more; it reads that within a second.

        Raises:
            NotFound: There is no such worker.
        """
        await self._database.write(lambda: workers.ask_to_drain(worker_id, drain=drain))

    async def leave(self, worker_id: str) -> None:
        """Remove a worker that stops: what waits for it waits for nobody."""
        await self._database.write(lambda: workers.leave(worker_id))
