"""Calls of an agent: messages sent, tasks read, cancelled and listed.

A context is a thread, a task is a run: ``contextId`` is the thread's id, a task's id ``<thread>:<run>``. A message that
answers a task which waits for input resumes its thread, in a new run and so a new task of the same context.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import InvalidRequest, NoSuchInterrupt, NotFound
from runlane.lifecycle import RunStatus
from runlane.records import ANY_OWNER, Assistant, RunRecord
from runlane.server.http.requests import Command, RunCreate
from runlane.server.http.responses import Last, StreamingBody
from runlane.server.protocols.a2a.card import find_agent
from runlane.server.protocols.a2a.stream import A2aCall, ended_now, streamed
from runlane.server.protocols.a2a.tasks import brief, find_task, list_tasks, now_of
from runlane.server.protocols.a2a.wire import (
    METHODS,
    NO_EXTENDED_CARD,
    NO_PUSH,
    NO_TASK,
    NOT_CANCELABLE,
    UNSUPPORTED,
    Asking,
    Listing,
    Now,
    Sending,
    content_of,
    questions_of,
    text_of,
    version_of,
)
from runlane.server.protocols.json_rpc import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    RpcError,
    RpcRequest,
    json_bytes,
    serve,
)
from runlane.server.routes.authorization import canceller_of, service_of
from runlane.server.routes.new_runs import admit, prepare_run
from runlane.server.service import Service


async def call(request: Request) -> Response:
    """Answer one request of the Agent2Agent protocol; ``A2A-Version: 1.0`` chooses its newer words."""
    return await serve(request, lambda rpc: _answer(request, rpc), malformed_status=200, notifications=False)


async def _answer(request: Request, rpc: RpcRequest) -> Response:
    assistant = await _called(request, request.path_params["assistant_id"])
    version = version_of(request.headers.get("a2a-version"))
    operation = METHODS[version].get(rpc.method)
    if operation is None:
        raise RpcError(METHOD_NOT_FOUND, f"There is no method {rpc.method!r} in version {version} of the protocol.")
    return await _done(request, A2aCall(rpc=rpc, version=version, operation=operation, assistant=assistant))


async def _called(request: Request, named: str) -> Assistant:
    """Return the agent *named*.

    Raises:
        RpcError: There is none that the request may read.
    """
    try:
        return await find_agent(request, named)
    except (InvalidRequest, NotFound) as error:
        raise RpcError(INVALID_PARAMS, str(error)) from None


async def _done(request: Request, call: A2aCall) -> Response:
    if call.operation in ("send", "stream"):
        return await _send(request, call, call.rpc.params_as(Sending))
    if call.operation == "get":
        asking = call.rpc.params_as(Asking)
        run = await find_task(request, asking.id, "read", call.assistant)
        now = await _now(service_of(request), run)
        return json_bytes(call.rpc.result(call.words(run).task(now, asking.history_length)))
    if call.operation == "cancel":
        return await _cancel(request, call, call.rpc.params_as(Asking).id)
    if call.operation == "subscribe":
        run = await find_task(request, call.rpc.params_as(Asking).id, "read", call.assistant)
        if run.status.terminal:
            raise RpcError(UNSUPPORTED, "The task has ended; get it instead.")
        return streamed(service_of(request), call, service_of(request).streams.watch(run))
    if call.operation == "push":
        raise RpcError(NO_PUSH, "Push notifications are not sent; use a run's webhook.")
    if call.operation == "card":
        raise RpcError(NO_EXTENDED_CARD, "There is no card beside the public one.")
    return json_bytes(call.rpc.result(await list_tasks(request, call.rpc.params_as(Listing), call.assistant)))


async def _send(request: Request, call: A2aCall, sending: Sending) -> Response:
    configuration = sending.configuration
    if configuration.push_notification_config or configuration.task_push_notification_config:
        raise RpcError(NO_PUSH, "Push notifications are not sent; use a run's webhook.")
    thread_id, body, answers = await _wanted(request, call, sending)
    try:
        new = await prepare_run(request, body, thread_id, streamed=call.operation == "stream")
        if answers:
            new = msgspec.structs.replace(new, request=new.request.with_answers(answers))
        watch = (await admit(service_of(request), new)).watch
    except NoSuchInterrupt:
        raise RpcError(UNSUPPORTED, "The task has been answered already.") from None
    except (InvalidRequest, NotFound) as error:
        raise RpcError(INVALID_PARAMS, str(error)) from None
    if call.operation == "stream":
        return streamed(service_of(request), call, watch)
    words = call.words(watch.run)
    if not configuration.waits:
        watch.close()
        return json_bytes(call.rpc.result(words.event("task", words.task(brief(watch.run)))))

    async def pieces() -> AsyncIterator[bytes]:
        async for ending in watch.ending():
            if ending is None:
                yield b"\n"
            else:
                now = await ended_now(service_of(request), watch.run, ending)
                task = words.task(now, configuration.history_length)
                yield Last(call.rpc.result(words.event("task", task)))

    return StreamingBody(pieces(), media_type="application/json", headers={}, on_close=watch.close)


async def _wanted(request: Request, call: A2aCall, sending: Sending) -> tuple[str, RunCreate, tuple[str, ...]]:
    """Return the thread and the run that a message asks for, and the interrupts that it answers."""
    message = sending.message
    content, context_id = content_of(message), message.context_id
    body = RunCreate(
        assistant_id=call.assistant.assistant_id,
        metadata=sending.metadata,
        stream_mode=["values", "messages-tuple"],
        if_not_exists="create",
    )
    if message.task_id is None:
        said = {"role": "user", "content": content, "id": message.message_id}
        body.input = {"messages": [said]}
        return str(uuid4()) if context_id is None else _uuid(context_id, "contextId"), body, ()
    run = await find_task(request, message.task_id, "read", call.assistant)
    if context_id is not None and context_id != run.thread_id:
        raise RpcError(INVALID_PARAMS, "The task belongs to another context.")
    now = await _now(service_of(request), run)
    answers = questions_of(now.values) if now.asks else []
    if not answers:
        raise RpcError(UNSUPPORTED, "The task does not wait for input; send the message to its context.")
    body.command = Command(resume=dict.fromkeys(answers, text_of({"content": content})))
    return run.thread_id, body, tuple(answers)


def _uuid(text: str, name: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise RpcError(INVALID_PARAMS, f"{name} {text!r} is not a UUID.") from None


async def _now(service: Service, run: RunRecord) -> Now:
    try:
        return await now_of(service, run)
    except NotFound:
        raise RpcError(NO_TASK, "The task has been deleted.") from None


async def _cancel(request: Request, call: A2aCall, named: str) -> Response:
    service, run = service_of(request), await find_task(request, named, "update", call.assistant)
    if run.status.terminal:
        raise RpcError(NOT_CANCELABLE, "The task has ended.")
    await service.runs.cancel(run.run_id, wait=True, owner=run.owner, **canceller_of(request))
    run = await service.store.runs.get(run.run_id, owner=ANY_OWNER)
    if run.status is not RunStatus.INTERRUPTED:
        raise RpcError(NOT_CANCELABLE, "The task ended before it could be cancelled.")
    return json_bytes(call.rpc.result(call.words(run).task(await _now(service, run))))
