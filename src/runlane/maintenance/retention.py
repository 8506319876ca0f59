"""Threads and items of the long-term store whose time is over."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from runlane.errors import StoreUnavailable, ThreadChanged
from runlane.records import PruneStrategy
from runlane.store.ledger import RunStore
from runlane.store.statements import ExtraWrites
from runlane.supervised_loop import SupervisedLoop
from runlane.telemetry.emitter import SILENT, Telemetry

log = logging.getLogger("runlane.retention")

SWEEP_EVERY_S: Final = 300.0
SWEEP_LIMIT: Final = 1000
#: Of a pause, so that processes that share a ledger do not sweep at the same moment.
JITTER: Final = 0.1
#: Threads of stateless runs come and go by the hundred: they are looked for more often, and deleted so many at a time,
#: which share their commits.
TEMPORARY_EVERY_S: Final = 10.0
TEMPORARY_BATCH: Final = 50


class ExpiringItems(Protocol):
    """A long-term store whose items expire."""

    sweep_every_s: float

    async def sweep(self) -> int:
        """Delete what has expired, and return how many items that were."""
        ...


def item_sweep(store: ExpiringItems, telemetry: Telemetry = SILENT) -> SupervisedLoop:
    """Return the loop that deletes expired items of *store*, at start and then in the store's own period."""
    return SupervisedLoop("item sweep", store.sweep, every_s=store.sweep_every_s, telemetry=telemetry)


class ThreadSweeper:
    """Deletes or prunes expired threads, at start and then every *every_s*. A busy thread stays until it is idle.

    Those of stateless runs are deleted on their own, all that have expired, and do not count for the limit.
    """

    def __init__(
        self,
        *,
        store: RunStore,
        saver: Any,
        every_s: float = SWEEP_EVERY_S,
        limit: int = SWEEP_LIMIT,
        telemetry: Telemetry = SILENT,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Args:
        saver: The ledger's checkpointer; ``None`` if there are no checkpoints.
        limit: Threads in one sweep; those that expired first come first.
        chance: From 0 to 1, for the jitter of the pauses.
        """
        self._store = store
        self._saver = saver
        self._limit = limit
        loop = partial(SupervisedLoop, telemetry=telemetry, jitter=JITTER, chance=chance)
        self._loops = (
            loop("thread sweep", self.sweep, every_s=every_s),
            loop("temporary thread sweep", self.sweep_temporary, every_s=min(every_s, TEMPORARY_EVERY_S)),
        )

    async def __aenter__(self) -> ThreadSweeper:
        for loop in self._loops:
            loop.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(loop.stop() for loop in self._loops))

    async def sweep(self) -> int:
        """Treat the threads that have expired, and return how many there were."""
        expired = await self._store.threads.expired(limit=self._limit)
        done = 0
        for thread_id, strategy in expired:
            done += await self._try_to_expire(thread_id, strategy)
        if done:
            log.info("retention.swept threads=%d", done)
        return done

    async def sweep_temporary(self) -> int:
        """Delete the threads of stateless runs that have expired, and return how many there were."""
        done = 0
        while expired := await self._store.threads.expired(limit=TEMPORARY_BATCH, temporary=True):
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
                extra_writes = await self._part(thread_id, strategy)
                return await self._store.threads.expire(thread_id, strategy, extra_writes=extra_writes) is not None
            except ThreadChanged:  # a checkpoint came between looking and deleting: look again
                continue

    async def _part(self, thread_id: str, strategy: PruneStrategy) -> ExtraWrites | None:
        if self._saver is None:
            return None
        if strategy == "delete":
            return partial(self._saver.threads.removing, thread_id)
        prune: ExtraWrites = await self._saver.threads.pruning(thread_id)
        return prune
