"""Routes of workers: the processes that execute runs, and the builds that they have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import NotFound
from runlane.runtime import Runtime, utc_now
from runlane.server.http.responses import json_response
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import administer, service_of
from runlane.store.transactions.fleet import Build, Fleet, ShownWorker, Stranded


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerList:
    """The workers that share the ledger, the longest running first.

    Attributes:
        here: The worker of the process that answers.
        builds: Builds of the graphs that a worker has, or that paused threads go on in alone.
        stranded: Threads whose next run waits for a graph or a build that no worker has.
    """

    as_of: datetime
    here: str
    workers: tuple[ShownWorker, ...]
    builds: tuple[Build, ...]
    stranded: tuple[Stranded, ...]


async def list_workers(request: Request) -> Response:
    """Return the workers, what each executes, when it renewed its lease last, and what none of them can execute."""
    await administer(request, "workers", "read", {})
    runtime = service_of(request).runtime
    return json_response(_shown(await runtime.store.workers.fleet(), runtime))


def _shown(fleet: Fleet, runtime: Runtime) -> WorkerList:
    now, workers = utc_now(), fleet.workers
    if not runtime.settings.on_postgres:
        workers = tuple(_alone(worker, runtime, now) for worker in workers)
    here = runtime.worker.worker_id
    return WorkerList(as_of=now, here=here, workers=workers, builds=fleet.builds, stranded=fleet.stranded)


def _alone(worker: ShownWorker, runtime: Runtime, now: datetime) -> ShownWorker:
    """Return *worker*, which has its ledger alone, so that it renews its lease there only while it executes."""
    renewed_s = runtime.lease.worker.lease_s - runtime.lease.left_s()
    return replace(
        worker,
        state="draining" if runtime.worker.draining else "ready",
        renewed_at=now - timedelta(seconds=renewed_s),
        renewed_s=renewed_s,
        lag_s=runtime.host.lag_s,
    )


async def drain_worker(request: Request) -> Response:
    """Have a worker start nothing more, let its runs finish for ``drain_grace_s``, then hand the rest back.

    Its process goes on, for requests too. It begins within a second; ``running`` tells how far it is.
    """
    return await _ask(request, drain=True)


async def undo_drain(request: Request) -> Response:
    """Have a worker start runs again that an operator asked to drain."""
    return await _ask(request, drain=False)


async def _ask(request: Request, *, drain: bool) -> Response:
    worker_id, runtime = request.path_params["worker_id"], service_of(request).runtime
    await administer(request, "workers", "drain", {"worker_id": worker_id})
    await runtime.store.workers.ask_to_drain(worker_id, drain=drain)
    if not runtime.settings.on_postgres:  # there is no other; on PostgreSQL each worker looks for itself
        runtime.worker.drains.follow(asked=drain)
    shown = _shown(await runtime.store.workers.fleet(), runtime)
    found = [worker for worker in shown.workers if worker.worker_id == worker_id]
    if not found:
        raise NotFound("worker", worker_id)
    return json_response(found[0], status=202)


WORKERS = Resource(
    tag="Operators",
    group=None,
    routes=(
        Route("GET /operator/workers", list_workers, answer=WorkerList, errors=(403,)),
        Route(
            "POST /operator/workers/{worker_id}/drain",
            drain_worker,
            answer=ShownWorker,
            success=(202,),
            errors=(403, 404),
        ),
        Route(
            "DELETE /operator/workers/{worker_id}/drain",
            undo_drain,
            answer=ShownWorker,
            success=(202,),
            errors=(403, 404),
        ),
    ),
)
