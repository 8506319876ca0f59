"""From what a client asks for to a run that can be admitted. Every route that starts runs goes through here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal
from uuid import uuid4

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import NotFound, RunlaneError, UnsupportedOption
from runlane.lifecycle import DisconnectMode, MultitaskStrategy
from runlane.records import OF_ONE_RUN, Assistant, Json, NewRun, RunRecord, ThreadTtl
from runlane.requests import NO_ORIGIN, RunOrigin, RunRequest, raw
from runlane.runs.submission import Admitted
from runlane.runtime import new_run_id
from runlane.server.auth.access import Access
from runlane.server.http.requests import BadRequest, RunCreate, checkpoint_address, checkpoint_uuid, clean
from runlane.server.http.responses import json_response, run_wire
from runlane.server.routes.assistants import assistant_to_run, find_assistant
from runlane.server.routes.authorization import authorize, service_of
from runlane.server.routes.keyed_threads import is_keyed, keyed_thread_id
from runlane.server.service import Service
from runlane.settings import Settings
from runlane.telemetry.context import current_request_id

#: Source: W3C Trace Context, level 1: the ids of a trace and of a span, which are not all zero, and flags.
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(?:-|$)")
#: The durability that older clients ask for with ``checkpoint_during``.
_DURING: Final[Mapping[bool | None, Literal["async", "exit"] | None]] = {None: None, True: "async", False: "exit"}


class NotFoundForRun(NotFound):
    """The thread or the assistant of a new run does not exist."""

    def __init__(self) -> None:
        super().__init__("thread or assistant", "")
        self.args = ("Thread or assistant not found.",)


async def prepare_run(
    request: Request, body: RunCreate, thread_id: str | None, *, index: int | None = None, streamed: bool = False
) -> NewRun:
    """Check all that *body* asks for, without admitting anything; ``None`` for *thread_id* means a stateless run.

    Args:
        index: The place of a run that was sent together with others.
        streamed: The request is answered with the run's stream.

    Raises:
        InvalidRequest: It says what is wrong.
        NotFound: There is no such thread, assistant or graph, or the request may not touch it.
    """
    access = await authorize_run(request, body, thread_id)
    try:
        assistant = await assistant_to_run(request, body.assistant_id)
    except NotFound:
        raise NotFoundForRun from None
    key, owner = request.headers.get("idempotency-key"), access.owner
    new = await new_run(
        service_of(request), body, thread_id, user=owner, owner=owner, assistant=assistant, key=key, index=index
    )
    asked = new.request
    if passed := service_of(request).section.configurable_headers.passed(request.headers):
        asked = asked.with_configurable(passed)
    if access.user is not None:
        service_of(request).users.remember(new.run_id, access.user.fields())
    origin = RunOrigin(
        request_id=current_request_id(),
        traceparent=_traceparent(request) if service_of(request).runtime.settings.traces else None,
        permissions=() if access.user is None else access.user.permissions,
        fingerprint=new.origin.fingerprint,
    )
    return msgspec.structs.replace(
        new,
        request=asked,
        origin=origin,
        thread_owner=access.reads,
        thread_where=access.where,
        streamed=streamed,
    )


async def new_run(
    service: Service,
    body: RunCreate,
    thread_id: str | None,
    *,
    user: str,
    owner: str,
    assistant: Assistant | None = None,
    key: str | None = None,
    index: int | None = None,
) -> NewRun:
    """Check what *body* asks for in the name of *user*, whose assistants it may use, and make a run of *owner*'s.

    Args:
        assistant: The one that *body* names, if it was found already.

    Raises:
        InvalidRequest: It says what is wrong.
        NotFound: There is no such assistant or graph.
    """
    _refuse(body)
    if body.webhook is not None:
        if service.section.disable_webhooks:
            raise UnsupportedOption("webhook", "webhooks are disabled on this server; leave it out.")
        service.webhooks.policy.target(body.webhook)
    stateless = thread_id is None
    if stateless and body.command is not None and body.command.resume is not None:
        raise BadRequest("A stateless run has nothing to resume; create a thread.")
    try:
        assistant = assistant or await find_assistant(service, user, body.assistant_id)
    except NotFound:
        raise NotFoundForRun from None
    if assistant.graph_id not in service.registry.graph_ids:
        raise NotFound("graph", assistant.graph_id)
    ids = {"graph_id": assistant.graph_id, "assistant_id": assistant.assistant_id}
    given = {**((body.config.metadata if body.config else None) or {}), **(body.metadata or {})}
    metadata = {name: value for name, value in given.items() if name not in OF_ONE_RUN}
    temporary = stateless and body.on_completion != "keep"
    return NewRun(
        run_id=new_run_id(),
        thread_id=thread_id or (str(uuid4()) if key is None else keyed_thread_id(owner, key, index)),
        owner=owner,
        assistant_id=assistant.assistant_id,
        multitask_strategy=MultitaskStrategy(body.multitask_strategy),
        on_disconnect=DisconnectMode(body.on_disconnect),
        metadata={**metadata, **ids},
        default_metadata=assistant.metadata,
        request=_run_request(body, assistant),
        origin=NO_ORIGIN if key is None else RunOrigin(fingerprint=_fingerprint(body)),
        create_thread=thread_id is None or (body.if_not_exists == "create" and not is_keyed(thread_id)),
        thread_metadata=ids,
        thread_ttl=_temporary_ttl(service.runtime.settings, key) if temporary else None,
        temporary=temporary,
        delay_s=body.after_seconds or 0.0,
        idempotency_key=key,
        webhook=body.webhook,
    )


def _temporary_ttl(settings: Settings, key: str | None) -> ThreadTtl:
    """Return how long a stateless run stays after its end: for readers that were cut, and for its idempotency key."""
    ttl_s = settings.stateless_retention_s
    return ThreadTtl(ttl_s=ttl_s if key is None else max(ttl_s, settings.event_retention_s))


def path_of_run(run: RunRecord, *, stateless: bool = False) -> str:
    return f"/runs/{run.run_id}" if stateless else f"/threads/{run.thread_id}/runs/{run.run_id}"


def started(admitted: Admitted, *, stateless: bool = False) -> Response:
    """Return the answer that shows a run which goes on in the background, and where it is."""
    admitted.watch.close()
    path, stream = path_of_run(admitted.run, stateless=stateless), f"{path_of_run(admitted.run)}/stream"
    return json_response(run_wire(admitted.run), headers={"Content-Location": path, "Location": stream})


async def admit(service: Service, new: NewRun) -> Admitted:
    """Admit *new*.

    Raises:
        NotFound: Its thread does not exist.
        ConflictError: Its thread is busy, and it is not to wait or to supersede.
        KeyReused: Its idempotency key has admitted a run of another request.
    """
    try:
        admitted = await service.runtime.submitter.admit(new)
    except RunlaneError as error:
        service.users.forget(new.run_id)
        if isinstance(error, NotFound):
            raise NotFoundForRun from None
        raise
    if admitted.reused:
        service.users.forget(new.run_id)
    return admitted


def _traceparent(request: Request) -> str | None:
    """Return the header of W3C Trace Context if it can be read; of a later version, what this version knows of it."""
    given = request.headers.get("traceparent", "")
    match = _TRACEPARENT.match(given)
    return None if match is None else f"00-{match[1]}"


def _refuse(body: RunCreate) -> None:
    """Refuse what is documented and not honoured."""
    if body.feedback_keys:
        raise UnsupportedOption("feedback_keys", "there is no feedback service; leave it out.")
    if body.langsmith_tracer is not None:
        raise UnsupportedOption("langsmith_tracer", "runs are not traced to LangSmith by the server; leave it out.")


async def authorize_run(request: Request, body: RunCreate, thread_id: str | None) -> Access:
    """Return what may be touched by whoever starts such a run; a handler may change its metadata in *body*."""
    value: dict[str, Any] = {
        "thread_id": thread_id,
        "assistant_id": body.assistant_id,
        "metadata": {**((body.config.metadata if body.config else None) or {}), **(body.metadata or {})},
        "multitask_strategy": body.multitask_strategy,
        "if_not_exists": body.if_not_exists,
        "after_seconds": body.after_seconds,
        "kwargs": {"input": body.input, "command": body.command, "config": body.config, "context": body.context},
    }
    access = await authorize(request, "threads", "create_run", value)
    body.metadata = value["metadata"] or None
    return access


def _run_request(body: RunCreate, assistant: Assistant) -> RunRequest:
    """Return what *body* asks a run of *assistant* to do."""
    config = _config(body, assistant)
    return RunRequest(
        graph_id=assistant.graph_id,
        input=raw(body.input),
        command=None if body.command is None else clean(body.command),
        config=config,
        context=_context(body, config, assistant),
        stream_mode=_modes(body.stream_mode or "values"),
        stream_subgraphs=body.stream_subgraphs,
        interrupt_before=_nodes(body.interrupt_before),
        interrupt_after=_nodes(body.interrupt_after),
        durability=body.durability or _DURING[body.checkpoint_during],
        checkpoint=checkpoint_address(body.checkpoint),
        checkpoint_id=None if body.checkpoint_id is None else checkpoint_uuid(body.checkpoint_id),
        strict_resume=body.strict_resume,
    )


def _modes(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _nodes(given: str | list[str] | None) -> str | tuple[str, ...] | None:
    return tuple(given) if isinstance(given, list) else given


def _context(body: RunCreate, config: Json, assistant: Assistant) -> dict[str, Any] | None:
    """Return the assistant's context with what the request changes of it: its own context, or its ``configurable``.

    ``None`` leaves it to the graph, which may find its context in ``configurable``.
    """
    if not assistant.context:
        return body.context or None
    changed = {name: value for name, value in config["configurable"].items() if name in assistant.context}
    return {**assistant.context, **changed, **(body.context or {})}


def _config(body: RunCreate, assistant: Assistant) -> dict[str, Any]:
    given = {} if body.config is None else clean(body.config)
    if given.get("configurable") and body.context:
        raise BadRequest("Give config.configurable or context, not both.")
    if (given.get("configurable") or {}).get("checkpoint_id") is not None:
        checkpoint_uuid(given["configurable"]["checkpoint_id"])
    base = dict(assistant.config)
    configurable = {**(base.get("configurable") or {}), **(given.get("configurable") or {}), **(body.context or {})}
    return {**base, **given, "configurable": configurable}


def _fingerprint(body: RunCreate) -> str:
    """Return what tells two requests with one idempotency key apart."""
    return hashlib.sha256(msgspec.json.encode(body, order="deterministic")).hexdigest()
