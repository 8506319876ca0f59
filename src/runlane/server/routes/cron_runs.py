"""Plans of crons, and the runs that they make."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import structs

from runlane.errors import InvalidRequest, NotFound, OwnerUnknown
from runlane.maintenance.crons import CronScheduler, next_slot
from runlane.records import ANY_OWNER, NewRun
from runlane.requests import RunOrigin
from runlane.runtime import utc_now
from runlane.schedules import Schedule
from runlane.server.http.requests import RunCreate
from runlane.server.routes.new_runs import new_run
from runlane.server.service import Service
from runlane.store.filters import matches
from runlane.store.transactions.crons import Cron, CronPlan, CronTarget

#: What a cron hands on to its runs; their metadata is the cron's.
RUN_FIELDS: Final = (
    "input",
    "config",
    "context",
    "webhook",
    "interrupt_before",
    "interrupt_after",
    "stream_mode",
    "stream_subgraphs",
    "stream_resumable",
    "durability",
    "checkpoint_during",
    "multitask_strategy",
)


def scheduler_of(service: Service, *, poll_s: float) -> CronScheduler:
    """Return what fires the crons of *service*'s ledger while this process admits runs."""
    return CronScheduler(
        store=service.store,
        make_run=lambda cron, slot: due_run(service, cron, slot),
        admitted=lambda new, admission: service.runtime.submitter.admitted(new, admission).watch.close(),
        closed=lambda: service.runs.closed,
        poll_s=poll_s,
        telemetry=service.runtime.telemetry,
    )


async def due_run(service: Service, cron: Cron, slot: datetime, *, key: str | None = None) -> NewRun:
    """Return the run of *cron* for *slot*, with an idempotency *key* if it is started by hand.

    Raises:
        OwnerUnknown: Its owner could not start it themselves any more.
    """
    if service.authority is not None and not await service.authority.knows(cron.target.owner):
        raise OwnerUnknown(cron.target.owner)
    return await cron_run(service, cron, slot, key=key)


async def cron_run(service: Service, cron: Cron, slot: datetime, *, key: str | None = None) -> NewRun:
    """Return the run of *cron* for *slot*, checked as if its request came now."""
    target, plan = cron.target, cron.plan
    asked = run_request(target.assistant_id, plan.payload, plan.metadata, plan.on_run_completed)
    new = await new_run(service, asked, target.thread_id, user=target.assistant_owner, owner=target.owner, key=key)
    fingerprint = None if key is None else hashlib.sha256(f"cron {cron.cron_id}".encode()).hexdigest()
    return structs.replace(
        new,
        metadata={**new.metadata, "cron_id": cron.cron_id, "cron_run_date": slot.isoformat()},
        request=new.request.with_configurable({"cron_id": cron.cron_id}),
        origin=RunOrigin(permissions=target.permissions, fingerprint=fingerprint),
        thread_owner=target.thread_owner,
        thread_where=target.thread_where,
    )


def run_request(assistant_id: str, payload: Any, metadata: Any, on_run_completed: str | None) -> RunCreate:
    """Return what a client would send to start the run that a cron starts."""
    given = {"assistant_id": assistant_id, "metadata": metadata, **payload}
    return msgspec.convert({**given, "on_completion": on_run_completed or "keep"}, RunCreate)


def changed_plan(given: dict[str, Any], old: CronPlan, last_slot_at: datetime | None) -> CronPlan:
    """Return *old* with what was *given*; the next slot comes after now, and after the last one.

    Raises:
        InvalidRequest: The schedule makes no sense, or names no date.
    """
    names = ("schedule", "timezone", "on_run_completed", "missed", "overlap", "enabled")
    changed = replace(
        old,
        **{name: given[name] for name in names if name in given},
        end_at=given.get("end_time", old.end_at),
        payload={**old.payload, **{name: given[name] for name in RUN_FIELDS if name in given}},
        metadata={**old.metadata, **given.get("metadata", {})},
    )
    if _times(changed) == _times(old):
        return changed
    schedule, after = Schedule(changed.schedule, changed.timezone), utc_now()
    if last_slot_at is not None:
        after = max(after, last_slot_at)
    if schedule.after(after) is None:
        raise InvalidRequest(f"schedule {changed.schedule!r} names no date.")
    return replace(changed, next_run_at=next_slot(schedule, after, changed.end_at) if changed.enabled else None)


def _times(plan: CronPlan) -> tuple[Any, ...]:
    return plan.schedule, plan.timezone, plan.end_at, plan.enabled


def new_plan(given: dict[str, Any], *, on_thread: bool) -> CronPlan:
    """Return the plan of a new cron.

    Raises:
        InvalidRequest: The schedule makes no sense, or names no date before the end.
    """
    empty = CronPlan(
        schedule="",
        timezone=None,
        end_at=None,
        payload={},
        metadata={},
        on_run_completed=None if on_thread else "delete",
        missed="once",
        overlap="allow",
        enabled=True,
        next_run_at=None,
    )
    plan = changed_plan(given, empty, None)
    if plan.enabled and plan.next_run_at is None:
        raise InvalidRequest(f"end_time {plan.end_at} comes before the schedule's first date, so it would never run.")
    return plan


def next_slots(plan: CronPlan, count: int) -> tuple[datetime, ...]:
    """Return up to *count* slots from the next one on, in the time zone of the schedule."""
    return _next_slots(plan.schedule, plan.timezone, plan.next_run_at, plan.end_at, count)


@lru_cache(maxsize=4096)  # a slot takes some 50 µs to find, and pages of crons are read again and again
def _next_slots(
    expression: str, timezone: str | None, slot: datetime | None, end_at: datetime | None, count: int
) -> tuple[datetime, ...]:
    try:
        schedule = Schedule(expression, timezone)
    except InvalidRequest:  # a time zone that this machine does not have
        return ()
    found: list[datetime] = []
    while slot is not None and len(found) < count:
        found.append(schedule.local(slot))
        slot = next_slot(schedule, slot, end_at)
    return tuple(found)


def late_s(next_run_at: datetime | None) -> float | None:
    """Return for how many seconds a slot has been due that was not fired yet; ``None`` if none is."""
    if next_run_at is None:
        return None
    waited_s = (utc_now() - next_run_at).total_seconds()
    return waited_s if waited_s > 0 else None


async def cron_target(service: Service, new: NewRun, owner: str, thread_id: str | None) -> CronTarget:
    """Return what *new*, a run that could be admitted now, is a run of.

    Raises:
        NotFound: There is no such thread for it.
    """
    assert new.assistant_id is not None
    assistant = await service.store.assistants.get(new.assistant_id, owner=ANY_OWNER)
    thread_owner = None
    if thread_id is not None:
        thread = await service.store.threads.get(
            thread_id, owner=owner if new.thread_owner is None else new.thread_owner, with_values=False
        )
        if new.thread_where and not matches(new.thread_where, thread.metadata):
            raise NotFound("thread", thread_id)
        thread_owner = thread.owner
    return CronTarget(
        owner=owner,
        permissions=new.origin.permissions,
        assistant_id=assistant.assistant_id,
        assistant_owner=assistant.owner,
        thread_id=thread_id,
        thread_owner=thread_owner,
        thread_where=new.thread_where if thread_id is not None else None,
    )
