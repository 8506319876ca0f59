"""The workers that share the ledger; only a database that many processes use has any."""

from __future__ import annotations

from runlane.records import SeenWorker
from runlane.store.retrying import RetryingDriver
from runlane.store.transactions import workers


class Workers:
    """``store.workers``."""

    def __init__(self, database: RetryingDriver) -> None:
        self._database = database

    async def beat(self, worker_id: str, *, lease_s: float) -> None:
        """Record that the worker lives; :meth:`Attempts.renew` can do so too."""
        await self._database.write(lambda: workers.beat(worker_id, lease_s))

    async def list(self) -> tuple[SeenWorker, ...]:
        """Return the workers that have not left, dead ones among them."""
        return await self._database.read(workers.workers)

    async def forget(self, dead: SeenWorker) -> None:
        """Remove a dead worker, unless it has beaten since it was seen."""
        await self._database.write(lambda: workers.forget_worker(dead))

    async def leave(self, worker_id: str) -> None:
        """Remove a worker that stops: what waits for it waits for nobody."""
        await self._database.write(lambda: workers.leave(worker_id))
