"""Fetching: what the dispatch has for free slots is claimed and executed in them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from runlane.dispatch.base import Dispatch, FreeSlots
from runlane.execution.attempt import Attempt
from runlane.execution.claiming import Claims
from runlane.execution.node_lease import NodeLease
from runlane.execution.ports import AgentSource
from runlane.records import Claim, Head


class Fetcher:
    """Claims runs for free slots: the one of a hint, or those that the ledger chooses."""

    def __init__(
        self,
        *,
        dispatch: Dispatch,
        source: AgentSource,
        claims: Claims,
        lease: NodeLease,
        attempts: Mapping[tuple[str, int], Attempt],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        occupy: Callable[[Head, Coroutine[Any, Any, None]], None],
        execute: Callable[[Claim, float], Coroutine[Any, Any, None]],
    ) -> None:
        """Args:
        attempts: Those that are here, also the ones that lost their leases and have not stopped yet.
        spawn: Starts a task that a drain waits for.
        occupy: Executes in the slot in which a head is counted.
        execute: Holds a claim, which was asked for at that time of the lease's clock, and executes it.
        """
        self._dispatch = dispatch
        self._source = source
        self._claims = claims
        self._lease = lease
        self._attempts = attempts
        self._spawn = spawn
        self._occupy = occupy
        self._execute = execute

    async def fetch(self) -> None:
        """Wait for a free slot, something to claim and this process's lease, and claim it."""
        work = await self._dispatch.next_work()
        await self._lease.lasting()
        if isinstance(work, FreeSlots):
            # A drain that ends this turn waits for the claims, which may be committed already.
            await asyncio.shield(self._spawn(self._fill(work)))
        elif self._source.can_execute(work.run_id, work.home):
            self._occupy(work, self._claim_and_execute(work.run_id))
        else:
            self._dispatch.done(work)

    async def _claim_and_execute(self, run_id: str) -> None:
        if run_id in self._claims or any(run_id == one for one, _ in self._attempts):
            return  # an attempt that lost its lease has not stopped yet; the ledger offers the run again
        sent_at = self._lease.now()
        claim = await self._claims.claim(run_id)
        if claim is not None:
            await self._execute(claim, sent_at)

    async def _fill(self, free: FreeSlots) -> None:
        sent_at = self._lease.now()
        claimed: tuple[Claim, ...] = ()
        more = False
        # An attempt may have lost its lease and not have stopped, or not even know it.
        here = tuple(attempt.claim.run.seq for attempt in self._attempts.values())
        try:
            claimed, more = await self._claims.claim_heads(free, here)
        finally:
            self._dispatch.filled(free, [Head.of(claim.run) for claim in claimed], more=more)
        for claim in claimed:
            self._occupy(Head.of(claim.run), self._execute(claim, sent_at))
        self._claims.heads_arrived()
