"""The outbox of webhooks, which the ends of runs fill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runlane.records import Owner
from runlane.store.retrying import RetryingDriver
from runlane.store.transactions import webhooks
from runlane.store.transactions.webhooks import (
    NEWEST_DELIVERY,
    Attempted,
    ClaimedDelivery,
    Delivery,
    DeliveryStatus,
    Lane,
)


class Webhooks:
    """``store.webhooks``: a run has at most one delivery, which may take several attempts."""

    def __init__(self, database: RetryingDriver) -> None:
        self._database = database

    async def claim(
        self, *, capacity: int, per_host: int, busy: Mapping[Lane, int], lease_s: float
    ) -> tuple[ClaimedDelivery, ...]:
        """Claim due deliveries for a process that sends *capacity* at once, *per_host* to one host, *busy* already."""
        return await self._database.write(lambda: webhooks.claim_deliveries(capacity, per_host, busy, lease_s))

    async def settle(
        self, run_id: str, attempted: Attempted, *, status: DeliveryStatus, delay_s: float = 0.0, counts: bool = True
    ) -> bool:
        """Record an attempt and what follows; ``False``: a later attempt, or who settled it before, decides."""
        return await self._database.write(
            lambda: webhooks.settle_delivery(run_id, attempted, status, delay_s, counts=counts)
        )

    async def send_again(self, run_id: str) -> Delivery:
        """Make a run's delivery due now, whatever became of it; NotFound if it has none."""
        return await self._database.write(lambda: webhooks.send_again(run_id))

    async def get(self, run_id: str, *, owner: Owner) -> tuple[Delivery, tuple[Attempted, ...]]:
        """Return a run's delivery and its attempts, oldest first; NotFound if it has none."""
        return await self._database.read(lambda: webhooks.get_delivery(run_id, owner))

    async def list(
        self,
        *,
        owner: Owner,
        where: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        status: DeliveryStatus | None = None,
        limit: int = 10,
        offset: int = 0,
        after: tuple[int, str] = NEWEST_DELIVERY,
    ) -> tuple[Delivery, ...]:
        """Return deliveries, newest first, of threads whose metadata matched *where*, behind one of this age and run.

        Its age is the microsecond in which it was made.
        """
        return await self._database.read(
            lambda: webhooks.list_deliveries(
                owner, where=where, run_id=run_id, status=status, limit=limit, offset=offset, after=after
            )
        )

    async def purge(self, *, older_than_s: float, limit: int = 100) -> int:
        """Remove up to *limit* deliveries that ended long enough ago; return how many."""
        return await self._database.write(lambda: webhooks.purge_deliveries(older_than_s, limit))
