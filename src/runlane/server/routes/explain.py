"""Explanations of runs: what happened to a run and why, and what it waits for."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from runlane.runs.explaining import Explanation, explain
from runlane.server.http.responses import json_response
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import reach_run, service_of
from runlane.settings import Limits


async def explain_run(request: Request) -> Response:
    """Explain what happened to a run, and what it waits for, in sentences and as data."""
    service, (_, run) = service_of(request), await reach_run(request, "read")
    history = await service.store.runs.history(run.run_id, owner=run.owner)
    return json_response(explain(history, Limits.of(service.runtime.settings)))


EXPLAIN = Resource(
    tag="Runs",
    group="runs",
    routes=(
        Route("GET /threads/{thread_id}/runs/{run_id}/explain", explain_run, answer=Explanation, errors=(404,)),
        Route("GET /runs/{run_id}/explain", explain_run, answer=Explanation, errors=(404,)),
    ),
)
