"""Threads whose time is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from runlane.errors import StoreUnavailable, ThreadChanged
from runlane.records import PruneStrategy
from runlane.store.ledger import RunStore
from runlane.store.thread_transactions import Part

log = logging.getLogger("runlane.retention")

SWEEP_EVERY_S: Final = 300.0
SWEEP_LIMIT: Final = 1000
#: Threads of stateless runs come and go by the hundred: they are looked for more often, and deleted so many at a time,
#: which share their commits.
TEMPORARY_EVERY_S: Final = 10.0
TEMPORARY_BATCH: Final = 50


class Sweeper:
    """Deletes or prunes expired threads, at start and then every *every_s*. A busy thread stays until it is idle.

    Those of stateless runs are deleted on their own, all that have expired, and do not count for the limit.
    """

    def __init__(
        self, *, store: RunStore, saver: Any, every_s: float = SWEEP_EVERY_S, limit: int = SWEEP_LIMIT
    ) -> None:
        """Args:
        saver: The ledger's checkpointer; ``None`` if there are no checkpoints.
        limit: Threads in one sweep; those that expired first come first.
        """
        self._store, self._saver, self._every_s, self._limit = store, saver, every_s, limit
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    async def __aenter__(self) -> Sweeper:
        loop = asyncio.get_running_loop()
        self._tasks = (
            loop.create_task(self._poll(self.sweep, self._every_s)),
            loop.create_task(self._poll(self.sweep_temporary, min(self._every_s, TEMPORARY_EVERY_S))),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def sweep(self) -> int:
        """Treat the threads that have expired, and return how many there were."""
        expired = await self._store.expired_threads(limit=self._limit)
        done = 0
        for thread_id, strategy in expired:
            done += await self._try_to_expire(thread_id, strategy)
        if done:
            log.info("retention.swept threads=%d", done)
        return done

    async def sweep_temporary(self) -> int:
        """Delete the threads of stateless runs that have expired, and return how many there were."""
        done = 0
        while expired := await self._store.expired_threads(limit=TEMPORARY_BATCH, temporary=True):
            expiring = (self._try_to_expire(*thread) for thread in expired)
            outcomes = await asyncio.gather(*expiring, return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
            done += outcomes.count(True)
            if True not in outcomes:  # they are in use again, or cannot be deleted
                break
        return done

    async def _try_to_expire(self, thread_id: str, strategy: PruneStrategy) -> bool:
        try:
            return await self._expire(thread_id, strategy)
        except StoreUnavailable:
            raise
        except Exception:  # supervisor: one thread that cannot be read must not keep the others
            log.exception("retention.thread_failed thread_id=%s strategy=%s", thread_id, strategy)
            return False

    async def _expire(self, thread_id: str, strategy: PruneStrategy) -> bool:
        while True:
            try:
                first = await self._part(thread_id, strategy)
                return await self._store.expire_thread(thread_id, strategy, first=first) is not None
            except ThreadChanged:  # a checkpoint came between looking and deleting: look again
                continue

    async def _part(self, thread_id: str, strategy: PruneStrategy) -> Part | None:
        if self._saver is None:
            return None
        if strategy == "delete":
            return partial(self._saver.removing, thread_id)
        prune: Part = await self._saver.pruning(thread_id)
        return prune

    async def _poll(self, sweep: Callable[[], Awaitable[int]], every_s: float) -> None:
        while True:
            try:
                await sweep()
            except StoreUnavailable as error:
                log.warning("retention.waiting why=%s", error)
            except Exception:  # supervisor: a defect here must not end sweeping
                log.exception("retention.failed")
            await asyncio.sleep(every_s)
