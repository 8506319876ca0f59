"""The route that finds runs of all threads."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from runlane.lifecycle import RunStatus
from runlane.records import ANY_OWNER, Owner
from runlane.server.auth.access import Access
from runlane.server.http import answers
from runlane.server.http.requests import Body, Limit, Object, canonical_uuid
from runlane.server.http.responses import error_wire, json_response, receipt_wire, waiting_wire
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import authorize, service_of
from runlane.store.transactions.run_search import NEWEST, RunFilter, RunSummary

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
#: Where the next page begins, as ``X-Pagination-Next`` says.
Cursor = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,18}$")]


class RunSearch(Body):
    status: RunStatus | Annotated[list[RunStatus], msgspec.Meta(min_length=1)] | None = None
    thread_id: str | None = None
    graph_id: Text | None = None
    assistant_id: Text | None = None
    owner: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    metadata: Object | None = None
    since: Moment | None = None
    until: Moment | None = None
    text: Text | None = None
    limit: Limit = 10
    after: Cursor | None = None


async def search_runs(request: Request, body: RunSearch) -> Response:
    """Find runs of all threads, newest first. While there may be more, X-Pagination-Next is the next page's ``after``.

    A page that compares very many runs ends early, also with none.
    """
    value: dict[str, Any] = {
        "metadata": body.metadata or {},
        "status": body.status,
        "thread_id": body.thread_id,
        "text": body.text,
        "limit": body.limit,
    }
    access = await authorize(request, "threads", "search", value)
    owner = _seen(access, body.owner)
    if owner is None:
        return json_response([])
    statuses = [body.status] if isinstance(body.status, RunStatus) else body.status or ()
    where = RunFilter(
        statuses=frozenset(statuses),
        thread_id=None if body.thread_id is None else canonical_uuid("thread", body.thread_id),
        graph_id=body.graph_id,
        assistant_id=body.assistant_id,
        since=body.since,
        until=body.until,
        text=body.text,
        metadata=value["metadata"],
        where=access.where,
    )
    before = NEWEST if body.after is None else int(body.after)
    page = await service_of(request).store.runs.search(owner=owner, where=where, before_seq=before, limit=body.limit)
    headers = {} if page.next_before is None else {"X-Pagination-Next": str(page.next_before)}
    return json_response([summary_wire(run) for run in page.runs], headers=headers)


def _seen(access: Access, wanted: str | None) -> Owner | None:
    """Return whose runs are searched; ``None`` if those of *wanted* may not be seen."""
    if wanted is None or access.reads == wanted:
        return access.reads
    return wanted if access.reads is ANY_OWNER else None


def summary_wire(run: RunSummary) -> dict[str, Any]:
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
        "metadata": run.metadata,
        "model_name": run.model_name,
        "usage": run.usage,
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
