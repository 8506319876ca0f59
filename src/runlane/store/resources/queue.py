"""Pending runs: what they wait for, which may start, and those that nobody will start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runlane.lifecycle import EndReason
from runlane.records import Finished, Head, RunError, WaitingOn
from runlane.store.retrying import RetryingDriver
from runlane.store.transactions import leases, queue, rescues, run_queries, usage_of_limits, workers
from runlane.store.transactions.queue import Backlog, QueueStats
from runlane.store.transactions.usage_of_limits import LimitUse


class RunQueue:
    """``store.queue``: the lanes of all threads."""

    def __init__(self, database: RetryingDriver) -> None:
        self._database = database

    async def runnable(self, *, after_seq: int = 0, limit: int = 1000) -> tuple[tuple[Head, int], ...]:
        """Return the next heads of lanes in which nothing executes, and in how many µs each may start."""
        return await self._database.read(lambda: leases.runnable(after_seq, limit))

    async def heads_at_home(self, *, after_seq: int = 0, limit: int = 1000) -> tuple[tuple[Head, int], ...]:
        """Return the next of these heads whose code lives in one process."""
        return await self._database.read(lambda: leases.heads_at_home(after_seq, limit))

    async def waiting_on(self, run_ids: Sequence[str]) -> Mapping[str, WaitingOn]:
        """Return what each of *run_ids* waits for, without those that are not pending."""
        return await self._database.read(lambda: run_queries.waiting_on(run_ids))

    async def stats(self) -> QueueStats:
        """Count active runs of all owners, and measure how long they have waited."""
        return await self._database.read(queue.queue_stats)

    async def backlog(self, *, owners: int) -> Backlog:
        """Measure how late webhooks and crons are, and return the *owners* with the most pending runs."""
        return await self._database.read(lambda: queue.backlog(owners))

    async def limit_use(self) -> LimitUse:
        """Return who uses most of the limits on runs now."""
        return await self._database.read(usage_of_limits.limit_use)

    async def give_up(
        self, run_id: str, reason: EndReason, error: RunError, *, home: str | None = None
    ) -> Finished | None:
        """End a pending run that nobody will start; ``None`` if it is no longer pending, or has not this *home*.

        Also while its rows are locked: look again.
        """
        return await self._database.write(lambda: rescues.give_up(run_id, reason, error, home))

    async def free(self, run_id: str, *, home: str) -> None:
        """Let every worker that has its graph execute a pending run of a dead *home*."""
        await self._database.write(lambda: workers.free_run(run_id, home))
