"""What the ledger can be asked of crons; a part of :class:`~runlane.store.ledger.RunStore`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from runlane.records import Order, Owner, ThreadTtl
from runlane.store import cron_transactions as crons
from runlane.store.cron_transactions import Cron, CronFilter, CronPlan, CronTarget, Fired, Firing
from runlane.store.statements import Transaction

T = TypeVar("T")


class CronLedger:
    """The ledger's table of crons. Who fires and who changes a cron repeats the revision that they saw."""

    _thread_ttl: ThreadTtl | None
    _max_queued_runs: int

    async def _write(self, make: Callable[[], Transaction[T]]) -> T:
        raise NotImplementedError

    async def _read(self, make: Callable[[], Transaction[T]]) -> T:
        raise NotImplementedError

    async def create_cron(self, cron_id: str, target: CronTarget, plan: CronPlan) -> Cron:
        """Create a cron; a repeated creation answers the same."""
        return await self._write(lambda: crons.create_cron(cron_id, target, plan))

    async def get_cron(self, cron_id: str, *, owner: Owner) -> Cron:
        """Return the cron, or raise NotFound."""
        return await self._read(lambda: crons.get_cron(cron_id, owner))

    async def change_cron(self, seen: Cron, plan: CronPlan) -> Cron:
        """Give the cron a new plan; CronChanged if it was changed or fired since it was *seen*."""
        return await self._write(lambda: crons.change_cron(seen, plan))

    async def delete_cron(self, cron_id: str, *, owner: Owner) -> None:
        """Delete a cron; its runs stay."""
        await self._write(lambda: crons.delete_cron(cron_id, owner))

    async def search_crons(
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
        return await self._read(
            lambda: crons.search_crons(owner, where, sort_by=sort_by, order=order, limit=limit, offset=offset)
        )

    async def count_crons(self, *, owner: Owner, where: CronFilter) -> int:
        """Count crons that match *where*."""
        return await self._read(lambda: crons.count_crons(owner, where))

    async def due_crons(self, *, until: datetime, limit: int = 100) -> tuple[Cron, ...]:
        """Return crons of all owners whose next slot is not after *until*, the longest due first."""
        return await self._read(lambda: crons.due_crons(until, limit))

    async def next_cron_at(self) -> datetime | None:
        """Return the earliest next slot of all crons."""
        return await self._read(crons.next_cron_at)

    async def fire_cron(self, seen: Cron, firing: Firing) -> Fired:
        """Move the cron on and admit its slot's run in one transaction; CronChanged if that is not as it was *seen*."""
        return await self._write(lambda: crons.fire_cron(seen, firing, self._thread_ttl, self._max_queued_runs))
