"""The scheduler of crons: waits until a slot is due, and fires it once, whoever else watches the same ledger."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from runlane.admission import check_new
from runlane.errors import CronChanged, InvalidRequest, NotFound, RunlaneError, StoreUnavailable
from runlane.records import Admission, NewRun, RunError
from runlane.schedules import Schedule
from runlane.store.ledger import RunStore
from runlane.store.transactions.crons import Cron, DueCrons, Firing, Missed
from runlane.supervised_loop import SupervisedLoop
from runlane.telemetry.emitter import SILENT, Telemetry

log = logging.getLogger("runlane.crons")

#: A slot that is this late was missed: no scheduler was there, or the ledger was unavailable.
MISSED_AFTER: Final = timedelta(seconds=60)
#: Crons that are fired at once; a commit of the ledger is shared among them.
FIRED_AT_ONCE: Final = 100
#: How long to leave the ledger alone after it could not be written.
RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The slot that stands for all that are due, whether it gets a run, and the slot after it."""

    slot: datetime
    fire: bool
    next_run_at: datetime | None


def next_slot(schedule: Schedule, after: datetime, end_at: datetime | None) -> datetime | None:
    """Return the first slot after *after* that is not after *end_at*."""
    slot = schedule.after(after)
    return None if slot is None or (end_at is not None and slot > end_at) else slot


def due(schedule: Schedule, first: datetime, *, end_at: datetime | None, missed: Missed, now: datetime) -> Due:
    """Decide what becomes of the slots from *first* to *now*: the newest is fired, unless it was missed for good.

    A missed slot is not made up for if the cron says so, or has ended since.
    """
    slot = schedule.newest(first, now if end_at is None else min(now, end_at))
    in_time = now - slot <= MISSED_AFTER
    made_up_for = missed == "once" and (end_at is None or now <= end_at)
    return Due(slot=slot, fire=in_time or made_up_for, next_run_at=next_slot(schedule, slot, end_at))


class CronScheduler:
    """Fires what is due. Processes that share a ledger may each have one: a slot is fired by one of them."""

    def __init__(
        self,
        *,
        store: RunStore,
        make_run: Callable[[Cron, datetime], Awaitable[NewRun]],
        admitted: Callable[[NewRun, Admission], None],
        closed: Callable[[], bool],
        poll_s: float,
        telemetry: Telemetry = SILENT,
    ) -> None:
        """Args:
        make_run: Checks what a cron asks for, and makes the run of a slot.
        admitted: Told of a run that was admitted.
        closed: Whether this process admits no more runs.
        poll_s: How often the ledger is asked for crons of other processes.
        """
        self._store = store
        self._make_run = make_run
        self._admitted = admitted
        self._closed = closed
        self._poll_s = poll_s
        self._idle_s = poll_s
        self._loop = SupervisedLoop(
            "crons",
            self._turn,
            every_s=lambda: self._idle_s,
            retry_s=RETRY_S,
            longest_retry_s=RETRY_S,
            telemetry=telemetry,
        )

    async def __aenter__(self) -> CronScheduler:
        self._loop.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._loop.stop()

    def wake(self) -> None:
        """Wake the scheduler: a cron was created or changed, and its slot may come first."""
        self._loop.soon()

    async def fire_due(self) -> float:
        """Fire all that is due; return for how many seconds there is nothing to do.

        Raises:
            StoreUnavailable: The ledger cannot be read.
        """
        while not self._closed():
            found = await self._store.crons.due(limit=FIRED_AT_ONCE)
            if not found.crons:
                return self._until(found)
            written = await asyncio.gather(*(self._fire(cron, found.now) for cron in found.crons))
            if not any(written) or (len(found.crons) < FIRED_AT_ONCE and not all(written)):
                return RETRY_S
        return self._poll_s

    def _until(self, found: DueCrons) -> float:
        if found.next_run_at is None:
            return self._poll_s
        return min(self._poll_s, max(0.0, (found.next_run_at - found.now).total_seconds()))

    async def _turn(self) -> None:
        self._idle_s = await self.fire_due()

    async def _fire(self, cron: Cron, now: datetime) -> bool:
        """Fire what is due of *cron* at *now*; ``False``: that has to be tried again."""
        try:
            firing = await self._firing(cron, now)
            fired = await self._store.crons.fire(cron, firing)
        except CronChanged:
            return True  # somebody else fired or changed it
        except StoreUnavailable as error:
            log.warning("cron.waiting cron_id=%s why=%s", cron.cron_id, error)
            return False
        except Exception:  # supervisor: a defect that one cron shows must not end the firing of others
            log.exception("cron.failed cron_id=%s", cron.cron_id)
            return False
        if fired is None:
            return False
        if fired.cron.error is not None:
            log.warning("cron.refused cron_id=%s error=%s", cron.cron_id, fired.cron.error.error)
        run_id = None if fired.admission is None else fired.admission.run.run_id
        log.info("cron.fired cron_id=%s slot=%s run_id=%s", cron.cron_id, firing.slot.isoformat(), run_id)
        if firing.new is not None and fired.admission is not None:
            self._admitted(firing.new, fired.admission)
        return True

    async def _firing(self, cron: Cron, now: datetime) -> Firing:
        """Return what is to become of what is due of *cron* at *now*."""
        plan = cron.plan
        assert plan.next_run_at is not None
        try:
            schedule = Schedule(plan.schedule, plan.timezone)
        except InvalidRequest as error:  # a time zone that this machine does not have
            return Firing(slot=plan.next_run_at, next_run_at=None, error=_error(error), disable=True)
        found = due(schedule, plan.next_run_at, end_at=plan.end_at, missed=plan.missed, now=now)
        firing = Firing(slot=found.slot, next_run_at=found.next_run_at)
        if not found.fire:
            return firing
        try:
            new = await self._make_run(cron, found.slot)
            check_new(new)
            return replace(firing, new=new.split())
        except StoreUnavailable:
            raise
        except RunlaneError as error:
            # A graph may come back with the next deployment; an assistant that was deleted does not.
            gone = isinstance(error, NotFound) and error.kind != "graph"
            return replace(firing, error=_error(error), disable=gone)
        except Exception:  # supervisor: a defect costs the slot, and the cron says so
            log.exception("cron.failed cron_id=%s", cron.cron_id)
            return replace(firing, error=RunError(error="InternalError", message="The server's log has the cause."))


def _error(error: RunlaneError) -> RunError:
    return RunError(error=type(error).__name__, message=str(error))
