"""The route that finds runs of all threads."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import InvalidRequest
from runlane.lifecycle import EndReason, RunStatus
from runlane.server.auth.access import Access
from runlane.server.http import answers
from runlane.server.http.requests import Body, Limit, Moment, Object, canonical_uuid
from runlane.server.http.responses import error_wire, json_response, receipt_wire, waiting_wire
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import authorize, seen_owner, service_of
from runlane.store.transactions.costs import MAX_COST
from runlane.store.transactions.run_search import MAX_IDS, NEWEST, RunFilter, RunSummary, WaitReason
from runlane.telemetry.prices import Prices, cost_of

E = TypeVar("E", bound=StrEnum)
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
#: Where the next page begins, as ``X-Pagination-Next`` says.
Cursor = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,18}$")]


class RunWhere(Body):
    """Which runs: each given condition must hold. ``build`` and ``worker_id`` are those of the last attempt."""

    run_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_IDS)] | None = None
    status: RunStatus | Annotated[list[RunStatus], msgspec.Meta(min_length=1)] | None = None
    end_reason: EndReason | Annotated[list[EndReason], msgspec.Meta(min_length=1)] | None = None
    thread_id: str | None = None
    graph_id: Text | None = None
    assistant_id: Text | None = None
    owner: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    build: Text | None = None
    worker_id: Text | None = None
    min_tokens: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    min_cost: Annotated[float, msgspec.Meta(ge=0, le=MAX_COST)] = 0
    waits_for: WaitReason | None = None
    metadata: Object | None = None
    since: Moment | None = None
    until: Moment | None = None
    text: Text | None = None


class RunSearch(RunWhere):
    limit: Limit = 10
    after: Cursor | None = None


async def search_runs(request: Request, body: RunSearch) -> Response:
    """Find runs of all threads, newest first. While there may be more, X-Pagination-Next is the next page's ``after``.

    A page that compares very many runs ends early, also with none.
    """
    value = {**conditions(body), "limit": body.limit}
    access = await authorize(request, "threads", "search", value)
    owner = seen_owner(access, body.owner)
    if owner is None:
        return json_response([])
    service = service_of(request)
    where = run_filter(access, body, value["metadata"], service.prices)
    before = NEWEST if body.after is None else int(body.after)
    page = await service.store.runs.search(owner=owner, where=where, before_seq=before, limit=body.limit)
    headers = {} if page.next_before is None else {"X-Pagination-Next": str(page.next_before)}
    return json_response([summary_wire(run, service.prices) for run in page.runs], headers=headers)


def conditions(body: RunWhere) -> dict[str, Any]:
    """Return what authorisation is told of a filter; a handler may change its ``metadata``."""
    return {
        "metadata": body.metadata or {},
        "status": body.status,
        "thread_id": body.thread_id,
        "run_ids": body.run_ids,
        "text": body.text,
    }


def run_filter(access: Access, body: RunWhere, metadata: Object, prices: Prices) -> RunFilter:
    """Return *body* as the ledger takes it, for those runs that *access* may touch.

    Raises:
        InvalidRequest: An id is not a UUID, or runs are wanted by their cost and there are no prices.
    """
    if body.min_cost and not prices:
        raise InvalidRequest(
            "min_cost needs prices, and this server has none: set prices to a file of them, or leave min_cost out."
        )
    run_ids = None if body.run_ids is None else frozenset(canonical_uuid("run", one) for one in body.run_ids)
    return RunFilter(
        run_ids=run_ids,
        statuses=_set_of(body.status),
        end_reasons=_set_of(body.end_reason),
        thread_id=None if body.thread_id is None else canonical_uuid("thread", body.thread_id),
        graph_id=body.graph_id,
        assistant_id=body.assistant_id,
        since=body.since,
        until=body.until,
        build=body.build,
        worker_id=body.worker_id,
        min_tokens=body.min_tokens,
        min_cost=body.min_cost,
        prices=prices,
        waits_for=body.waits_for,
        text=body.text,
        metadata=metadata,
        where=access.where,
    )


def _set_of(given: E | list[E] | None) -> frozenset[E]:
    if given is None:
        return frozenset()
    return frozenset(given if isinstance(given, list) else [given])


def summary_wire(run: RunSummary, prices: Prices) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "owner": run.owner,
        "assistant_id": run.assistant_id,
        "graph_id": run.graph_id,
        "status": run.status,
        "end_reason": run.end_reason,
        "error": error_wire(run.error),
        "attempt": run.attempt,
        "rescues": run.rescues,
        "worker_id": run.worker_id,
        "build": run.build,
        "metadata": run.metadata,
        "model_name": run.model_name,
        "usage": run.usage,
        "cost": cost_of(prices.costs(run.usage.by_model)),
        "cancel": None if run.cancel is None else receipt_wire(run.cancel),
        "waiting_on": waiting_wire(run.waiting_on),
        "created_at": max(run.created_at, run.not_before),
        "updated_at": run.updated_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
    }


RUN_SEARCH = Resource(
    tag="Runs",
    group="runs",
    routes=(Route("POST /runs/search", search_runs, answer=list[answers.WireRunSummary]),),
)
