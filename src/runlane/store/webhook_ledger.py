"""What the ledger can be asked of webhooks; a part of :class:`~runlane.store.ledger.RunStore`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from runlane.records import Owner
from runlane.store import webhook_transactions as webhooks
from runlane.store.statements import Transaction
from runlane.store.webhook_transactions import Attempted, ClaimedDelivery, Delivery, DeliveryStatus, Lane

T = TypeVar("T")


class WebhookLedger:
    """The ledger's outbox of webhooks, which the ends of runs fill."""

    async def _write(self, make: Callable[[], Transaction[T]]) -> T:
        raise NotImplementedError

    async def _read(self, make: Callable[[], Transaction[T]]) -> T:
        raise NotImplementedError

    async def claim_deliveries(
        self, *, capacity: int, per_host: int, busy: Mapping[Lane, int], lease_s: float
    ) -> tuple[ClaimedDelivery, ...]:
        """Claim due deliveries for a process that sends *capacity* at once, *per_host* to one host, *busy* already."""
        return await self._write(lambda: webhooks.claim_deliveries(capacity, per_host, busy, lease_s))

    async def settle_delivery(
        self, run_id: str, attempted: Attempted, *, status: DeliveryStatus, delay_s: float = 0.0, counts: bool = True
    ) -> bool:
        """Record an attempt and what follows; ``False``: a later attempt, or who settled it before, decides."""
        return await self._write(lambda: webhooks.settle_delivery(run_id, attempted, status, delay_s, counts=counts))

    async def send_again(self, run_id: str) -> Delivery:
        """Make a run's delivery due now, whatever became of it; NotFound if it has none."""
        return await self._write(lambda: webhooks.send_again(run_id))

    async def get_delivery(self, run_id: str, *, owner: Owner) -> tuple[Delivery, tuple[Attempted, ...]]:
        """Return a run's delivery and its attempts, oldest first; NotFound if it has none."""
        return await self._read(lambda: webhooks.get_delivery(run_id, owner))

    async def list_deliveries(
        self,
        *,
        owner: Owner,
        where: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        status: DeliveryStatus | None = None,
        limit: int = 10,
        offset: int = 0,
    ) -> tuple[Delivery, ...]:
        """Return deliveries, newest first, of threads whose metadata matched *where*."""
        return await self._read(
            lambda: webhooks.list_deliveries(
                owner, where=where, run_id=run_id, status=status, limit=limit, offset=offset
            )
        )

    async def purge_deliveries(self, *, older_than_s: float, limit: int = 100) -> int:
        """Remove up to *limit* deliveries that ended long enough ago; return how many."""
        return await self._write(lambda: webhooks.purge_deliveries(older_than_s, limit))
