"""Routes that start or stop several runs at once."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import InvalidRequest, NotFound
from runlane.lifecycle import CancelAction, RunStatus
from runlane.records import NewRun, RunRecord
from runlane.server.auth.access import Access, Canceller
from runlane.server.http import answers
from runlane.server.http.queries import QueryModel
from runlane.server.http.requests import Body, RunCreate, canonical_uuid, in_entry
from runlane.server.http.responses import json_response, run_wire
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import authorize, canceller_of, service_of
from runlane.server.routes.new_runs import prepare_run
from runlane.server.service import Service
from runlane.store.transactions.run_search import NEWEST

#: One transaction admits them all, and nothing else is written meanwhile.
MAX_BATCH: Final = 1000
#: Runs that are cancelled together, so that as many cancels share a commit.
_PAGE: Final = 200
_STATUSES: Final = {
    "pending": RunStatus.PENDING,
    "running": RunStatus.RUNNING,
    "all": None,  # both at once: between two lists a run may go from one to the other
}


Runs = Annotated[list[RunCreate], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


class CancelRunsQuery(QueryModel):
    action: CancelAction = CancelAction.INTERRUPT


class RunsCancel(Body):
    """The runs to cancel: those with a status, or those named of one thread."""

    status: Literal["pending", "running", "all"] | None = None
    thread_id: str | None = None
    run_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_BATCH)] | None = None


async def create_batch(request: Request, body: Runs) -> Response:
    """Create stateless runs, in the background: all of them, or none.

    An error names the entry that it is about. An ``Idempotency-Key`` covers the whole array.
    """
    news = [await _entry(request, index, one) for index, one in enumerate(body)]
    admitted = await service_of(request).runtime.submitter.admit_all(news)
    for one in admitted:
        one.watch.close()
    return json_response([run_wire(one.run) for one in admitted])


async def _entry(request: Request, index: int, body: RunCreate) -> NewRun:
    with in_entry(index):
        return await prepare_run(request, body, None, index=index)


async def cancel_runs(request: Request, query: CancelRunsQuery, body: RunsCancel) -> Response:
    """Cancel runs by their status or by their ids; the cancels are recorded when this answers.

    A thread's next run starts only once the code of the cancelled one has stopped.
    """
    service = service_of(request)
    named = body.thread_id is not None and body.run_ids is not None
    if (body.status is None) != named or (not named and (body.thread_id is not None or body.run_ids is not None)):
        raise InvalidRequest("Give either status, or thread_id together with run_ids.")
    action = query.action
    value = {"thread_id": body.thread_id, "run_ids": body.run_ids, "status": body.status, "action": action}
    access, by = await authorize(request, "threads", "update", value), canceller_of(request)
    if body.status is not None:
        cancelled = await _cancel_by_status(service, access, body.status, action, by)
    else:
        cancelled = await _cancel_named(service, access, body, action, by)
    if not cancelled:
        raise NotFound("active run", body.status or ", ".join(body.run_ids or ()))
    return Response(status_code=204)


async def _cancel_named(service: Service, access: Access, body: RunsCancel, action: CancelAction, by: Canceller) -> int:
    thread_id = canonical_uuid("thread", body.thread_id or "")
    run_ids = [canonical_uuid("run", run_id) for run_id in body.run_ids or ()]
    thread = await service.store.threads.get(thread_id, owner=access.reads, with_values=False)
    if not access.permits(thread.metadata):
        raise NotFound("thread", thread_id)
    wanted = []
    for run_id in dict.fromkeys(run_ids):
        try:
            run = await service.store.runs.get(run_id, owner=access.reads)
        except NotFound:
            continue
        if run.thread_id == thread_id:
            wanted.append(run)
    # The last admitted first, so that none of them starts in between.
    return await _cancel(service, sorted(wanted, key=lambda run: run.seq, reverse=True), action, by)


async def _cancel_by_status(service: Service, access: Access, status: str, action: CancelAction, by: Canceller) -> int:
    """Cancel every run that has the status now, the last admitted first, page by page."""
    cancelled, before_seq = 0, NEWEST
    while page := await service.store.runs.active(
        owner=access.reads, where=access.where, status=_STATUSES[status], before_seq=before_seq, limit=_PAGE
    ):
        before_seq = page[-1].seq
        cancelled += await _cancel(service, list(page), action, by)
    return cancelled


async def _cancel(service: Service, runs: list[RunRecord], action: CancelAction, by: Canceller) -> int:
    """Cancel *runs* and return how many were active, or had been cancelled before."""
    asked = (service.runs.cancel(run.run_id, action=action, owner=run.owner, **by) for run in runs)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, NotFound):
            raise answer
    return sum(1 for answer in answers if answer is not None and not isinstance(answer, BaseException))


BATCH = Resource(
    tag="Runs",
    group="runs",
    routes=(
        Route("POST /runs/batch", create_batch, answer=list[answers.Run], errors=(400, 404, 409)),
        Route("POST /runs/cancel", cancel_runs, success=(204,), errors=(404,)),
    ),
)
