"""What the ledger can be asked of the workers that share it; a part of :class:`~runlane.store.ledger.RunStore`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from runlane.records import SeenWorker
from runlane.store import worker_transactions as workers
from runlane.store.statements import Transaction

T = TypeVar("T")


class WorkerLedger:
    """The ledger's table of living workers, which only a ledger that many processes share fills."""

    async def _write(self, make: Callable[[], Transaction[T]]) -> T:
        raise NotImplementedError

    async def _read(self, make: Callable[[], Transaction[T]]) -> T:
        raise NotImplementedError

    async def beat(self, worker_id: str, *, lease_s: float) -> None:
        """Record that the worker lives; :meth:`RunStore.renew` does so too."""
        await self._write(lambda: workers.beat(worker_id, lease_s))

    async def workers(self) -> tuple[SeenWorker, ...]:
        """Return the workers that have not left, dead ones among them."""
        return await self._read(workers.workers)

    async def forget_worker(self, dead: SeenWorker) -> None:
        """Remove a dead worker, unless it has beaten since it was seen."""
        await self._write(lambda: workers.forget_worker(dead))

    async def leave(self, worker_id: str) -> None:
        """Remove a worker that stops: what waits for it waits for nobody."""
        await self._write(lambda: workers.leave(worker_id))

    async def free_run(self, run_id: str, *, home: str) -> None:
        """Let every worker that has its graph execute a pending run of a dead *home*."""
        await self._write(lambda: workers.free_run(run_id, home))
