"""Retrying runs that have ended: a new run on the same thread is asked to do what the first one did not finish."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import NotRetryable
from runlane.lifecycle import MultitaskStrategy
from runlane.records import NewRun, RunRecord
from runlane.runs.bulk import Refusal, why_refused
from runlane.server.http import answers
from runlane.server.http.requests import Body
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import reach_run, service_of
from runlane.server.routes.later_runs import asked_of, going_on, later_run
from runlane.server.routes.new_runs import admit, started


class RunRetry(Body):
    """What a retry asks for: the whole request again, or to go on from the newest checkpoint.

    Without ``from_start`` it goes on if the thread's newest checkpoint is of the run, else it asks again.
    """

    from_start: bool | None = None


async def retry_run(request: Request, body: RunRetry) -> Response:
    """Start a new run in place of one that has ended. Secrets of its configuration are not kept, and not sent again.

    With an ``Idempotency-Key``, a repeated request answers the same new run.
    """
    _, run = await reach_run(request, "update", {"action": "retry"})
    key = request.headers.get("idempotency-key")
    new = await new_retry(
        request, run, from_start=body.from_start, key=key, multitask_strategy=MultitaskStrategy.ENQUEUE
    )
    return started(await admit(service_of(request), new))


async def new_retry(
    request: Request,
    run: RunRecord,
    *,
    from_start: bool | None,
    key: str | None,
    multitask_strategy: MultitaskStrategy,
) -> NewRun:
    """Return a run that does again what *run* was asked, whose owner it has; the request may act on *run*.

    It is asked for as it was stored: what has changed in its assistant since changes nothing.

    Raises:
        NotRetryable: The run has not ended, or this server does not have its graph.
        OwnerUnknown: Its owner could not start it themselves any more.
        HTTPException: The request may not start it (403).
    """
    service = service_of(request)
    if not run.status.terminal:
        raise NotRetryable(run.run_id, why_refused(Refusal.ACTIVE))
    if run.graph_id is None or run.graph_id not in service.registry.graph_ids:
        raise NotRetryable(run.run_id, why_refused(Refusal.NO_GRAPH))
    goes_on = not from_start
    if from_start is None:
        goes_on = await service.store.runs.wrote_newest_checkpoint(run.run_id, run.thread_id)
    return await later_run(
        request,
        run,
        going_on(asked_of(run)) if goes_on else asked_of(run),
        why={"retry_of": run.run_id},
        metadata={"retry_of": run.run_id},
        key=key,
        sent=f"retry {run.run_id} {from_start}",
        multitask_strategy=multitask_strategy,
    )


RETRIES = Resource(
    tag="Runs",
    group="runs",
    routes=tuple(
        Route(name, retry_run, answer=answers.Run, errors=(404, 409, 429), example={"from_start": True})
        for name in ("POST /threads/{thread_id}/runs/{run_id}/retry", "POST /runs/{run_id}/retry")
    ),
)
