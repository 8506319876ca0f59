"""New runs on the thread of an earlier one, which ask for what was stored of it, changed, and are for its owner."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from msgspec import structs
from starlette.requests import Request

from runlane.errors import OwnerUnknown, UnsupportedOption
from runlane.lifecycle import MultitaskStrategy
from runlane.records import OF_ONE_RUN, NewRun, RunRecord
from runlane.redaction import without_redacted
from runlane.requests import NULL, RunOrigin, RunRequest
from runlane.runtime import new_run_id
from runlane.server.auth.access import Access
from runlane.server.routes.authorization import authorize, service_of
from runlane.server.service import Service
from runlane.telemetry.context import current_request_id


def asked_of(run: RunRecord) -> RunRequest:
    """Return what *run* was asked, without the secrets of its configuration, which are not kept."""
    asked = run.stored.shown
    return structs.replace(
        asked, answers=(), config=without_redacted(asked.config), context=without_redacted(asked.context)
    )


def going_on(asked: RunRequest) -> RunRequest:
    """Return the same from the thread's newest checkpoint on, without an input."""
    return structs.replace(asked, input=NULL, command=None, checkpoint=None, checkpoint_id=None)


async def later_run(
    request: Request,
    run: RunRecord,
    asked: RunRequest,
    *,
    why: Mapping[str, Any],
    metadata: Mapping[str, Any],
    key: str | None,
    sent: str,
    multitask_strategy: MultitaskStrategy = MultitaskStrategy.ENQUEUE,
) -> NewRun:
    """Return a run that is *asked* on the thread of *run*; the request may act on that one.

    It is of whoever sends the request, or, if an operator does, of the owner of *run*, with the owner's permissions.

    Args:
        why: What the application's handlers are told of it.
        metadata: What its metadata has beside that of *run*.
        sent: What was sent, which tells two requests with one idempotency *key* apart.

    Raises:
        OwnerUnknown: The owner could not start it themselves any more.
        HTTPException: The request may not start it (403).
    """
    service = service_of(request)
    kept = {name: value for name, value in run.metadata.items() if name not in OF_ONE_RUN}
    metadata = {**kept, **metadata}
    access = await _authorize(request, run, asked, {**why, "metadata": metadata}, multitask_strategy)
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
            fingerprint=None if key is None else hashlib.sha256(sent.encode()).hexdigest(),
            operator=access.owner if access.operates else None,
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


async def _authorize(
    request: Request, run: RunRecord, asked: RunRequest, value: dict[str, Any], strategy: MultitaskStrategy
) -> Access:
    """Return what may be touched by whoever starts such a run; a handler may change its metadata in *value*."""
    value |= {
        "thread_id": run.thread_id,
        "assistant_id": run.assistant_id,
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
        raise UnsupportedOption("webhook", "webhooks are disabled on this server, and the run before has one.")
    service.webhooks.policy.target(webhook)
