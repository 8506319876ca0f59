"""A claimed run while it executes here, and how it is stopped early."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from runlane.agents.base import AgentCall
from runlane.agents.host import Handle
from runlane.errors import RunlaneError
from runlane.execution.decision import OUTRANKING, StopReason
from runlane.outcomes import Abandoned, Snapshot
from runlane.records import CancelReceipt, Claim, RunRecord
from runlane.settings import Settings

log = logging.getLogger("runlane.execution")


class Attempt:
    """A claimed run while it executes here; :meth:`stop` is how anybody ends it early."""

    def __init__(self, claim: Claim, settings: Settings, now: Callable[[], datetime]) -> None:
        self.claim = claim
        self._settings = settings
        self._now = now
        self.reason: StopReason | None = None
        self.cancel = claim.run.cancel
        self.observed_at: datetime | None = None
        self.over: asyncio.Future[RunRecord] = asyncio.get_running_loop().create_future()
        self._failure: RunlaneError | None = None
        self._handle: Handle[Snapshot] | None = None
        self._call: AgentCall | None = None
        self._continuable = False
        self._timers: list[asyncio.TimerHandle] = []
        self._on_lost: Callable[[], None] | None = None
        if self.cancel is not None:
            self.stop(StopReason.CANCEL, self.cancel)

    @property
    def abandoned(self) -> Abandoned | None:
        """Where code of the attempt is that did not stop in time, if there is any."""
        return None if self._handle is None else self._handle.abandoned

    def stop(self, reason: StopReason, cancel: CancelReceipt | None = None) -> None:
        """Stop the attempt for *reason*: cooperatively, then hard, then by abandoning it."""
        ranks = list(StopReason)
        if self.reason is not None and not (reason in OUTRANKING and ranks.index(reason) > ranks.index(self.reason)):
            return
        self.reason = reason
        if cancel is not None:
            self.cancel = cancel
            self.observed_at = self._now()
        if reason is StopReason.LEASE_LOST and self._on_lost is not None:
            self._on_lost()
        self._act()

    def when_lost(self, function: Callable[[], None]) -> None:
        """Call *function* once another attempt may have the run; at once if that is so."""
        self._on_lost = function
        if self.reason is StopReason.LEASE_LOST:
            function()

    def close(self) -> None:
        """Let go of the code and of what it was called with, once the attempt is over.

        They refer to the attempt, and would stay in memory until the next garbage collection.
        """
        self._handle = self._call = self._on_lost = None
        self._timers.clear()

    def fail(self, error: RunlaneError) -> None:
        """Stop the attempt because of *error* of our own; :meth:`run` raises it."""
        self._failure = error
        self._act()

    async def run(self, handle: Handle[Snapshot], call: AgentCall, *, continuable: bool) -> Snapshot:
        """Wait for the agent, within the run's deadline. One that is not *continuable* has no boundary to drain to.

        Raises:
            BaseException: What the agent raised; CancelledError, Drained or Abandoned if it was stopped.
        """
        self._handle, self._call, self._continuable = handle, call, continuable
        self._later(self._settings.run_timeout_s, lambda: self.stop(StopReason.DEADLINE))
        handle.returned.add_done_callback(self._on_returned)
        if self.reason is not None or self._failure is not None:
            self._act()
        try:
            return await handle.done
        except asyncio.CancelledError:
            if self._failure is not None:
                raise self._failure from None
            raise
        finally:
            handle.returned.remove_done_callback(self._on_returned)
            for timer in self._timers:
                timer.cancel()

    def _on_returned(self, _: asyncio.Future[None]) -> None:
        """Give what the agent started, and did not wait for, as long as a cancel gives."""
        handle = self._handle
        if handle is not None and not handle.done.done():
            self._later(self._settings.cancel_grace_s, lambda: self._outlived(handle))
            self._later(self._settings.cancel_grace_s + self._settings.abandon_after_s, handle.abandon)

    def _outlived(self, handle: Handle[Snapshot]) -> None:
        run = self.claim.run
        log.warning("run.tasks_stopped run_id=%s attempt=%d place=%s", run.run_id, run.attempt, handle.place())
        handle.cancel()

    def _act(self) -> None:
        if self._handle is None or self._call is None:
            return
        grace, last = self._settings.cancel_grace_s, self._settings.abandon_after_s
        if self._failure is None and self.reason is StopReason.DRAIN and self._continuable:
            self._call.drain.request()
            self._later(grace, self._handle.cancel)
        else:
            self._handle.cancel()
            self._later(grace, self._handle.cancel)
        self._later(grace + last, self._handle.abandon)

    def _later(self, delay_s: float, function: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(delay_s, function))
