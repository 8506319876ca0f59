"""Routes of crons: runs that start by the clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import CronChanged, InvalidRequest, NotFound, UnsupportedOption
from runlane.lifecycle import StrategyName
from runlane.records import ANY_OWNER
from runlane.runtime import new_run_id, utc_now
from runlane.server.auth.access import Access
from runlane.server.http import answers
from runlane.server.http.requests import (
    RUN_EXAMPLE,
    BadRequest,
    Body,
    Limit,
    Nodes,
    Object,
    Offset,
    RunConfig,
    SortOrder,
    StreamMode,
    path_uuid,
)
from runlane.server.http.responses import error_wire, json_response, selected
from runlane.server.http.route import Resource, Route
from runlane.server.routes.assistants import pagination
from runlane.server.routes.authorization import authorize, service_of
from runlane.server.routes.cron_runs import (
    RUN_FIELDS,
    changed_plan,
    cron_run,
    cron_target,
    due_run,
    late_s,
    new_plan,
    next_slots,
    run_request,
)
from runlane.server.routes.new_runs import authorize_run, prepare_run, started
from runlane.store.transactions.crons import Cron, CronFilter, Missed, Overlap

#: Slots of a cron that are shown.
NEXT_SLOTS: Final = 5
#: A change is made again if a firing came before it.
CHANGE_TRIES: Final = 10
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Durability = Literal["sync", "async", "exit"]


class CronPatch(Body):
    """A change of a cron; ``end_time: null`` removes the end."""

    nullable: ClassVar[frozenset[str]] = frozenset({"end_time"})

    schedule: Text | UnsetType = UNSET
    timezone: Text | UnsetType = UNSET
    end_time: datetime | UnsetType | None = UNSET
    input: Any = UNSET
    metadata: Object | UnsetType = UNSET
    config: RunConfig | UnsetType = UNSET
    context: Object | UnsetType = UNSET
    webhook: str | UnsetType = UNSET
    interrupt_before: Nodes | UnsetType = UNSET
    interrupt_after: Nodes | UnsetType = UNSET
    on_run_completed: Literal["delete", "keep"] | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    stream_mode: StreamMode | list[StreamMode] | UnsetType = UNSET
    stream_subgraphs: bool | UnsetType = UNSET
    stream_resumable: bool | UnsetType = UNSET
    durability: Durability | UnsetType = UNSET
    checkpoint_during: bool | UnsetType = UNSET
    multitask_strategy: StrategyName | UnsetType = UNSET
    missed: Missed | UnsetType = UNSET
    overlap: Overlap | UnsetType = UNSET


class CronCreate(CronPatch, kw_only=True):
    """A cron, and what its runs are asked for."""

    schedule: Text
    assistant_id: Text


class CronCount(Body):
    """A filter on crons; ``assistant_id`` may be a graph's name."""

    assistant_id: Text | None = None
    thread_id: Text | None = None
    enabled: bool | None = None
    metadata: Object | None = None


class CronSearch(CronCount):
    """A filter on crons, and a page."""

    limit: Limit = 10
    offset: Offset = 0
    sort_by: (
        Literal["cron_id", "assistant_id", "thread_id", "created_at", "updated_at", "next_run_date", "end_time"] | None
    ) = None
    sort_order: SortOrder | None = None
    select: list[str] | None = None


def cron_wire(cron: Cron) -> dict[str, Any]:
    target, plan = cron.target, cron.plan
    return {
        "cron_id": cron.cron_id,
        "assistant_id": target.assistant_id,
        "thread_id": target.thread_id,
        "user_id": target.owner,
        "schedule": plan.schedule,
        "timezone": plan.timezone,
        "end_time": plan.end_at,
        "payload": {
            "assistant_id": target.assistant_id,
            "schedule": plan.schedule,
            "metadata": plan.metadata,
            **plan.payload,
            "config": _config_of_runs(cron),
        },
        "metadata": plan.metadata,
        "on_run_completed": plan.on_run_completed,
        "missed": plan.missed,
        "overlap": plan.overlap,
        "enabled": plan.enabled,
        "next_run_date": plan.next_run_at,
        "next_slots": next_slots(plan, NEXT_SLOTS),
        "late_s": late_s(plan.next_run_at),
        "last_run_date": cron.last_slot_at,
        "last_run_id": cron.last_run_id,
        "recent_run_ids": cron.recent_run_ids,
        "error": error_wire(cron.error),
        "created_at": cron.created_at,
        "updated_at": cron.updated_at,
    }


def _config_of_runs(cron: Cron) -> dict[str, Any]:
    """Return the configuration of the cron's runs, which tells their graph what started them."""
    given = cron.plan.payload.get("config") or {}
    return {**given, "configurable": {**(given.get("configurable") or {}), "cron_id": cron.cron_id}}


def _given(body: Body) -> dict[str, Any]:
    """Return what a client gave, as JSON values, but for instants."""
    given = {name: getattr(body, name) for name in body.__struct_fields__}
    found = {name: value for name, value in given.items() if value is not UNSET}
    if isinstance(config := found.get("config"), RunConfig):
        plain = msgspec.to_builtins(config)
        found["config"] = {name: value for name, value in plain.items() if value is not None}
    if isinstance(end_time := found.get("end_time"), datetime):
        found["end_time"] = _in_utc(end_time)
    return found


def _in_utc(end_time: datetime) -> datetime:
    try:
        return end_time.replace(tzinfo=end_time.tzinfo or UTC).astimezone(UTC)
    except OverflowError:
        raise InvalidRequest(f"end_time {end_time.isoformat()} is no date in UTC.") from None


def _refuse(given: dict[str, Any], *, on_thread: bool) -> None:
    if on_thread and "on_run_completed" in given:
        raise UnsupportedOption("on_run_completed", "a cron on a thread keeps the thread; leave it out.")


async def _create(request: Request, body: CronCreate, thread_id: str | None) -> Response:
    """Check the cron and the run that it would start now: none is made whose run would be refused."""
    service, given = service_of(request), _given(body)
    _refuse(given, on_thread=thread_id is not None)
    cron_id, metadata = new_run_id(), given.get("metadata", {})
    value = {
        "cron_id": cron_id,
        "thread_id": thread_id,
        "assistant_id": given["assistant_id"],
        "schedule": given["schedule"],
        "timezone": given.get("timezone"),
        "end_time": given.get("end_time"),
        "payload": {name: given[name] for name in RUN_FIELDS if name in given},
        "metadata": metadata,
    }
    access = await authorize(request, "crons", "create", value)
    plan = new_plan({**given, "metadata": value["metadata"]}, on_thread=thread_id is not None)
    asked = run_request(given["assistant_id"], plan.payload, plan.metadata, plan.on_run_completed)
    target = await cron_target(service, await prepare_run(request, asked, thread_id), access.owner, thread_id)
    cron = await service.store.crons.create(cron_id, target, replace(plan, metadata=asked.metadata or {}))
    request.app.state.crons.wake()
    return json_response(cron_wire(cron))


async def create_cron(request: Request, body: CronCreate) -> Response:
    """Create a cron whose runs each get a thread of their own."""
    return await _create(request, body, None)


async def create_thread_cron(request: Request, body: CronCreate) -> Response:
    """Create a cron whose runs are all on one thread."""
    return await _create(request, body, path_uuid(request, "thread"))


async def _reach(request: Request, action: str, value: dict[str, Any] | None = None) -> tuple[Access, Cron]:
    """Return the cron that the path names, if *action* on it is allowed; a handler may change *value* in place."""
    cron_id = path_uuid(request, "cron")
    given: dict[str, Any] = {} if value is None else value
    given["cron_id"] = cron_id
    access = await authorize(request, "crons", action, given)
    cron = await service_of(request).store.crons.get(cron_id, owner=access.reads)
    if not access.permits(cron.plan.metadata):
        raise NotFound("cron", cron_id)
    return access, cron


async def get_cron(request: Request) -> Response:
    """Return a cron."""
    _, cron = await _reach(request, "read")
    return json_response(cron_wire(cron))


async def patch_cron(request: Request, body: CronPatch) -> Response:
    """Change a cron; metadata is merged, the rest replaced."""
    service, given = service_of(request), _given(body)
    if not given:
        raise BadRequest("There is nothing to change; give at least one field.")
    value = {"payload": {name: given[name] for name in RUN_FIELDS if name in given}, **given}
    value.setdefault("metadata", {})
    if given.keys() == {"enabled"}:  # operators may do that
        value["action"] = "resume" if given["enabled"] else "pause"
    access, cron = await _reach(request, "update", value)
    _refuse(given, on_thread=cron.target.thread_id is not None)
    given["metadata"] = value["metadata"]
    for tries_left in reversed(range(CHANGE_TRIES)):
        plan = changed_plan(given, cron.plan, cron.last_slot_at)
        if value.get("action") != "pause":  # what cannot run any more can be paused
            await cron_run(service, replace(cron, plan=plan), utc_now())
        try:
            changed = await service.store.crons.change(cron, plan)
        except CronChanged:
            if not tries_left:
                raise
            cron = await service.store.crons.get(cron.cron_id, owner=access.reads)
            continue
        break
    request.app.state.crons.wake()
    return json_response(cron_wire(changed))


async def run_cron(request: Request) -> Response:
    """Start the run that a slot of the cron would start, now; its slots stay as they are, also if it is disabled.

    It is the owner's, whoever asks for it. With an ``Idempotency-Key``, a repeated request answers the same run.
    """
    service = service_of(request)
    access, cron = await _reach(request, "update", {"action": "run"})
    if not access.operates:
        cron = await _authorized_run(request, cron)
    new = await due_run(service, cron, utc_now(), key=request.headers.get("idempotency-key"))
    admitted = await service.runtime.submitter.admit_by(new, partial(service.store.crons.start, cron))
    return started(admitted)


async def _authorized_run(request: Request, cron: Cron) -> Cron:
    """Return the cron with the metadata that a handler gives its run.

    Raises:
        NotFound: The request may not touch the cron's thread.
        HTTPException: It may not start such a run.
    """
    target, plan = cron.target, cron.plan
    asked = run_request(target.assistant_id, plan.payload, plan.metadata, plan.on_run_completed)
    access = await authorize_run(request, asked, target.thread_id)
    if target.thread_id is not None:
        thread = await service_of(request).store.threads.get(target.thread_id, owner=ANY_OWNER, with_values=False)
        if not access.sees(thread):
            raise NotFound("thread", target.thread_id)
    return replace(cron, plan=replace(plan, metadata=asked.metadata or {}))


async def delete_cron(request: Request) -> Response:
    """Delete a cron; its runs stay."""
    access, cron = await _reach(request, "delete")
    await service_of(request).store.crons.delete(cron.cron_id, owner=access.reads)
    return Response(status_code=204)


def _filter(request: Request, access: Access, body: CronCount) -> CronFilter:
    assistant_id = body.assistant_id
    if assistant_id is not None:
        system = service_of(request).system_assistants.get(assistant_id)
        assistant_id = assistant_id if system is None else system.assistant_id
    return CronFilter(
        assistant_id=assistant_id,
        thread_id=body.thread_id,
        enabled=body.enabled,
        metadata=body.metadata,
        where=access.where,
    )


def _search_value(body: CronCount) -> dict[str, Any]:
    return {"assistant_id": body.assistant_id, "thread_id": body.thread_id, "metadata": body.metadata or {}}


async def search_crons(request: Request, body: CronSearch) -> Response:
    """Find crons; the total is in X-Pagination-Total."""
    service = service_of(request)
    value = {**_search_value(body), "limit": body.limit, "offset": body.offset}
    access = await authorize(request, "crons", "search", value)
    where = replace(_filter(request, access, body), metadata=value["metadata"])
    found = await service.store.crons.search(
        owner=access.reads,
        where=where,
        sort_by=body.sort_by or "created_at",
        order=body.sort_order or "desc",
        limit=body.limit,
        offset=body.offset,
    )
    total = await service.store.crons.count(owner=access.reads, where=where)
    rows = [selected(cron_wire(one), body.select, legacy={"now": utc_now()}) for one in found]
    return json_response(rows, headers=pagination(total, body.offset, len(found)))


async def count_crons(request: Request, body: CronCount) -> Response:
    """Count crons."""
    value = _search_value(body)
    access = await authorize(request, "crons", "search", value)
    where = replace(_filter(request, access, body), metadata=value["metadata"])
    return json_response(await service_of(request).store.crons.count(owner=access.reads, where=where))


CRONS = Resource(
    tag="Crons",
    group="runs",
    routes=(
        Route("POST /runs/crons", create_cron, answer=answers.WireCron, errors=(400, 404)),
        Route(
            "POST /threads/{thread_id}/runs/crons",
            create_thread_cron,
            answer=answers.WireCron,
            errors=(400, 404),
            example={"schedule": "0 9 * * 1-5", **RUN_EXAMPLE},
        ),
        Route("GET /runs/crons/{cron_id}", get_cron, answer=answers.WireCron, errors=(404,)),
        Route(
            "PATCH /runs/crons/{cron_id}",
            patch_cron,
            answer=answers.WireCron,
            errors=(400, 404, 409),
            example={"metadata": {"team": "billing"}},
        ),
        Route("POST /runs/crons/{cron_id}/run", run_cron, answer=answers.Run, errors=(404, 409, 429)),
        Route("DELETE /runs/crons/{cron_id}", delete_cron, success=(204,), errors=(404,)),
        Route("POST /runs/crons/search", search_crons, answer=list[answers.WireCron]),
        Route("POST /runs/crons/count", count_crons, answer=int),
    ),
)
