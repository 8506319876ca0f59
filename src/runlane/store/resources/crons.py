"""Crons. Whoever fires or changes a cron repeats the revision that they read."""

from __future__ import annotations

from runlane.records import Admission, NewRun, Order, Owner, ThreadTtl
from runlane.store.retrying import RetryingDriver
from runlane.store.transactions import crons
from runlane.store.transactions.crons import Cron, CronFilter, CronPlan, CronTarget, DueCrons, Fired, Firing


class Crons:
    """``store.crons``."""

    def __init__(self, database: RetryingDriver, *, thread_ttl: ThreadTtl | None, max_queued_runs: int) -> None:
        self._database = database
        self._thread_ttl = thread_ttl
        self._max_queued_runs = max_queued_runs

    async def create(self, cron_id: str, target: CronTarget, plan: CronPlan) -> Cron:
        """Create a cron; a repeated creation answers the same."""
        return await self._database.write(lambda: crons.create_cron(cron_id, target, plan))

    async def get(self, cron_id: str, *, owner: Owner) -> Cron:
        """Return the cron, or raise NotFound."""
        return await self._database.read(lambda: crons.get_cron(cron_id, owner))

    async def change(self, seen: Cron, plan: CronPlan) -> Cron:
        """Give the cron a new plan; CronChanged if it was changed or fired since it was *seen*."""
        return await self._database.write(lambda: crons.change_cron(seen, plan))

    async def delete(self, cron_id: str, *, owner: Owner) -> None:
        """Delete a cron; its runs stay."""
        await self._database.write(lambda: crons.delete_cron(cron_id, owner))

    async def search(
        self,
        *,
        owner: Owner,
        where: CronFilter,
        sort_by: str = "created_at",
        order: Order = "desc",
        limit: int = 10,
        offset: int = 0,
    ) -> tuple[Cron, ...]:
        """Return crons that match *where*, sorted by one of ``SORT_KEYS``."""
        return await self._database.read(
            lambda: crons.search_crons(owner, where, sort_by=sort_by, order=order, limit=limit, offset=offset)
        )

    async def count(self, *, owner: Owner, where: CronFilter) -> int:
        """Return how many crons match *where*."""
        return await self._database.read(lambda: crons.count_crons(owner, where))

    async def due(self, *, limit: int = 100) -> DueCrons:
        """Return crons of all owners whose next slot has come, the longest due first."""
        return await self._database.read(lambda: crons.due_crons(limit))

    async def fire(self, seen: Cron, firing: Firing) -> Fired | None:
        """Move the cron on and admit its slot's run in one transaction; CronChanged if it is not as it was *seen*.

        ``None``: another transaction works on the cron or its thread, so try again.
        """
        return await self._database.write(
            lambda: crons.fire_cron(seen, firing, self._thread_ttl, self._max_queued_runs)
        )

    async def start(self, seen: Cron, new: NewRun) -> Admission:
        """Admit a run of the cron beside its slots. Repeating it with the same run id answers the same run.

        Raises:
            NotFound: The cron or its thread is gone.
            CronRunActive: The cron's runs do not overlap, and its last one is active.
            ConflictError: The strategy is ``reject`` and the thread has an active run.
            QueueFull: The strategy is ``enqueue`` and as many runs wait as may.
        """
        split = new.split()
        return await self._database.write(
            lambda: crons.start_cron(seen, split, self._thread_ttl, self._max_queued_runs)
        )
