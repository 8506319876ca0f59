"""Retrying runs that have ended: a new run on the same thread is asked to do what the first one did not finish."""

from __future__ import annotations

import hashlib
from typing import Any

from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import NotRetryable, OwnerUnknown, UnsupportedOption
from runlane.lifecycle import MultitaskStrategy
from runlane.records import OF_ONE_RUN, NewRun, RunRecord
from runlane.redaction import without_redacted
from runlane.requests import NULL, RunOrigin, RunRequest
from runlane.runs.bulk import Refusal, why_refused
from runlane.runtime import new_run_id
from runlane.server.auth.access import Access
from runlane.server.http import answers
from runlane.server.http.requests import Body
from runlane.server.http.responses import json_response, run_wire
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import authorize, reach_run, service_of
from runlane.server.routes.new_runs import admit
from runlane.server.service import Service
from runlane.telemetry.context import current_request_id


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
    admitted = await admit(service_of(request), new)
    admitted.watch.close()
    path = f"/threads/{run.thread_id}/runs/{admitted.run.run_id}"
    headers = {"Content-Location": path, "Location": f"{path}/stream"}
    return json_response(run_wire(admitted.run), headers=headers)


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
    asked = await _request(service, run, from_start=from_start)
    kept = {name: value for name, value in run.metadata.items() if name not in OF_ONE_RUN}
    metadata = {**kept, "retry_of": run.run_id}
    access = await _authorize(request, run, asked, metadata, multitask_strategy)
    _check_webhook(service, run.webhook)
    new = NewRun(
        run_id=new_run_id(),
        thread_id=run.thread_id,
        owner=run.owner if access.operates else access.owner,
        assistant_id=run.assistant_id,
        multitask_strategy=multitask_strategy,
        on_disconnect=run.on_disconnect,
        metadata=metadata,
        request=asked,
        origin=RunOrigin(
            request_id=current_request_id(),
            permissions=_permissions(access, run),
            fingerprint=None if key is None else _fingerprint(run, from_start=from_start),
        ),
        create_thread=False,
        thread_metadata={"graph_id": run.graph_id, "assistant_id": run.assistant_id},
        thread_owner=access.reads,
        thread_where=access.where,
        webhook=run.webhook,
        idempotency_key=key,
    )
    if access.operates and service.authority is not None and not await service.authority.knows(new.owner):
        raise OwnerUnknown(new.owner)
    if access.user is not None and not access.operates:
        service.users.remember(new.run_id, access.user.fields())
    return new


async def _request(service: Service, run: RunRecord, *, from_start: bool | None) -> RunRequest:
    asked = run.stored.shown
    asked = structs.replace(
        asked, answers=(), config=without_redacted(asked.config), context=without_redacted(asked.context)
    )
    goes_on = not from_start
    if from_start is None:
        goes_on = await service.store.runs.wrote_newest_checkpoint(run.run_id, run.thread_id)
    if not goes_on:
        return asked
    return structs.replace(asked, input=NULL, command=None, checkpoint=None, checkpoint_id=None)


async def _authorize(
    request: Request, run: RunRecord, asked: RunRequest, metadata: dict[str, Any], strategy: MultitaskStrategy
) -> Access:
    """Return what may be touched by whoever starts such a run; a handler may change *metadata*."""
    value: dict[str, Any] = {
        "retry_of": run.run_id,
        "thread_id": run.thread_id,
        "assistant_id": run.assistant_id,
        "metadata": metadata,
        "multitask_strategy": strategy.value,
        "if_not_exists": "reject",
        "after_seconds": None,
        "kwargs": {"input": None, "command": asked.command, "config": asked.config, "context": asked.context},
    }
    return await authorize(request, "threads", "create_run", value)


def _permissions(access: Access, run: RunRecord) -> tuple[str, ...]:
    """Return those that the run's code finds: an operator lends it none of theirs."""
    if access.operates or access.user is None:
        return run.stored.origin.permissions
    return tuple(access.user.permissions)


def _check_webhook(service: Service, webhook: str | None) -> None:
    if webhook is None:
        return
    if service.section.disable_webhooks:
        raise UnsupportedOption("webhook", "webhooks are disabled on this server, so that its run is not retried.")
    service.webhooks.policy.target(webhook)


def _fingerprint(run: RunRecord, *, from_start: bool | None) -> str:
    return hashlib.sha256(f"retry {run.run_id} {from_start}".encode()).hexdigest()


RETRIES = Resource(
    tag="Runs",
    group="runs",
    routes=tuple(
        Route(name, retry_run, answer=answers.Run, errors=(404, 409, 429), example={"from_start": True})
        for name in ("POST /threads/{thread_id}/runs/{run_id}/retry", "POST /runs/{run_id}/retry")
    ),
)
