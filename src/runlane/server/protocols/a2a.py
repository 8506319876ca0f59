"""The Agent2Agent protocol: every assistant that takes messages is an agent that others can call.

A context is a thread, a task is a run: ``contextId`` is the thread's id, a task's id ``<thread>:<run>``. A message that
answers a task which waits for input resumes its thread, in a new run and so a new task of the same context.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import InvalidRequest, NoSuchInterrupt, NotFound
from runlane.lifecycle import RunStatus
from runlane.records import ANY_OWNER, Assistant, RunRecord, StreamEnd, StreamEvent
from runlane.runtime import utc_now
from runlane.server.http import answers
from runlane.server.http.json_bodies import PayloadTooLarge, read_json
from runlane.server.http.queries import QueryModel
from runlane.server.http.requests import BadRequest, Body, Command, Object, RunCreate
from runlane.server.http.responses import SSE_HEADERS, BrokenOff, Last, StreamingBody, json_response
from runlane.server.http.route import Resource, Route
from runlane.server.protocols.a2a_tasks import brief, find_task, list_tasks, now_of, since
from runlane.server.protocols.a2a_wire import (
    INVALID_PARAMS,
    METHODS,
    NO_EXTENDED_CARD,
    NO_PUSH,
    NO_TASK,
    NOT_CANCELABLE,
    UNSUPPORTED,
    Asking,
    Listing,
    Now,
    Refused,
    Sending,
    Words,
    content_of,
    questions_of,
    text_of,
    version_of,
)
from runlane.server.protocols.a2a_wire import Version as A2aVersion
from runlane.server.routes.assistants import assistant_to_run
from runlane.server.routes.new_runs import admit, prepare_run
from runlane.server.routes.routing import service_of
from runlane.server.service import Service, graph_config
from runlane.streams.bridge import Ending, Watch

T = TypeVar("T")
PARSE_ERROR, INVALID_MESSAGE, NO_METHOD = -32700, -32600, -32601
TEXT: Final = ("text/plain", "application/json")
HEARTBEAT: Final = b": heartbeat\r\n\r\n"


_EXAMPLE: Final[Object] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "message/send",
    "params": {
        "message": {"role": "user", "messageId": "1", "parts": [{"kind": "text", "text": "Where is my order?"}]}
    },
}


class A2aRequest(Body):
    """A request of JSON-RPC 2.0."""

    jsonrpc: str
    method: str
    id: int | str | None = None
    params: dict[str, Any] | None = None


class CardQuery(QueryModel):
    assistant_id: str | None = None


async def any_card(request: Request, query: CardQuery) -> Response:
    """Describe the agent that the query names."""
    if query.assistant_id is None:
        raise BadRequest("Name the agent: ?assistant_id=...")
    return json_response(await _card(request, query.assistant_id))


async def card(request: Request) -> Response:
    """Describe an agent, in both versions of the protocol at once."""
    return json_response(await _card(request, request.path_params["assistant_id"]))


async def _card(request: Request, named: str) -> dict[str, Any]:
    assistant = await _agent(request, named)
    url = f"{str(request.base_url).rstrip('/')}/a2a/{assistant.assistant_id}"
    description = assistant.description or f"The agent {assistant.name}."
    skill = {"id": assistant.graph_id, "name": assistant.name, "description": description, "tags": ["agent"]}
    return {
        "name": assistant.name,
        "description": description,
        "version": str(assistant.version),
        "url": url,
        "preferredTransport": "JSONRPC",
        "protocolVersion": "0.3.0",
        "supportedInterfaces": [
            {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": spoken} for spoken in ("1.0", "0.3")
        ],
        "provider": {"organization": "Runlane", "url": str(request.base_url)},
        "capabilities": {"streaming": True, "pushNotifications": False, "extendedAgentCard": False},
        "defaultInputModes": list(TEXT),
        "defaultOutputModes": list(TEXT),
        "skills": [skill],
    }


async def _agent(request: Request, named: str) -> Assistant:
    """Return the assistant *named*.

    Raises:
        NotFound: There is none that the request may read, or its graph takes no messages.
    """
    service, assistant = service_of(request), await assistant_to_run(request, named)
    if assistant.graph_id not in service.registry.graph_ids:
        raise NotFound("graph", assistant.graph_id)
    states = service.states(assistant.owner, graph_config(assistant))
    schemas = orjson.loads(await service.on_agents(lambda: states.schemas(assistant.graph_id)))
    if "messages" not in ((schemas["input_schema"] or {}).get("properties") or {}):
        raise NotFound("agent that takes messages", named)
    return assistant


async def call(request: Request) -> Any:
    """Answer one request of the Agent2Agent protocol; ``A2A-Version: 1.0`` chooses its newer words."""
    asked: int | str | None = None
    try:
        asked, method, params = await _read(request)
        assistant = await _called(request, request.path_params["assistant_id"])
        spoken = version_of(request.headers.get("a2a-version"))
        operation = METHODS[spoken].get(method)
        if operation is None:
            raise Refused(NO_METHOD, f"There is no method {method!r} in version {spoken} of the protocol.")
        return await _answer(request, _Call(asked, spoken, operation, assistant), params)
    except Refused as refused:
        return json_response(
            {"jsonrpc": "2.0", "id": asked, "error": {"code": refused.code, "message": refused.message}}
        )


async def _called(request: Request, named: str) -> Assistant:
    """Return the agent *named*.

    Raises:
        Refused: There is none that the request may read.
    """
    try:
        return await _agent(request, named)
    except (InvalidRequest, NotFound) as error:
        raise Refused(INVALID_PARAMS, str(error)) from None


async def _read(request: Request) -> tuple[int | str, str, Mapping[str, Any]]:
    try:
        value = await read_json(request, request.app.state.settings.max_body_bytes)
    except PayloadTooLarge:
        raise
    except InvalidRequest as error:
        raise Refused(PARSE_ERROR, str(error)) from None
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0" or not isinstance(value.get("method"), str):
        raise Refused(INVALID_MESSAGE, "Send one JSON-RPC 2.0 request.")
    asked, params = value.get("id"), value.get("params", {})
    if not isinstance(asked, int | str) or isinstance(asked, bool):
        raise Refused(INVALID_MESSAGE, "A request has an id, a number or a text.")
    if not isinstance(params, dict):
        raise Refused(INVALID_PARAMS, "'params' must be an object.")
    return asked, value["method"], params


class _Call:
    """One request: its id, its version, what it asks, and of whom."""

    def __init__(self, asked: int | str, spoken: A2aVersion, operation: str, assistant: Assistant) -> None:
        self.asked = asked
        self.spoken = spoken
        self.operation = operation
        self.assistant = assistant

    def words(self, run: RunRecord) -> Words:
        return Words(self.spoken, run)

    def result(self, value: Any) -> bytes:
        return orjson.dumps({"jsonrpc": "2.0", "id": self.asked, "result": value})


async def _answer(request: Request, asked: _Call, params: Mapping[str, Any]) -> Any:
    if asked.operation in ("send", "stream"):
        return await _send(request, asked, _params(params, Sending))
    if asked.operation == "get":
        asking = _params(params, Asking)
        run = await find_task(request, asking.id, "read", asked.assistant)
        now = await _now(service_of(request), run)
        return _plain(asked.result(asked.words(run).task(now, asking.history_length)))
    if asked.operation == "cancel":
        return await _cancel(request, asked, _params(params, Asking).id)
    if asked.operation == "subscribe":
        run = await find_task(request, _params(params, Asking).id, "read", asked.assistant)
        if run.status.terminal:
            raise Refused(UNSUPPORTED, "The task has ended; get it instead.")
        return _streamed(service_of(request), asked, service_of(request).streams.watch(run))
    if asked.operation == "push":
        raise Refused(NO_PUSH, "Push notifications are not sent; use a run's webhook.")
    if asked.operation == "card":
        raise Refused(NO_EXTENDED_CARD, "There is no card beside the public one.")
    return _plain(asked.result(await list_tasks(request, _params(params, Listing), asked.assistant)))


def _params(params: Mapping[str, Any], model: type[T]) -> T:
    try:
        return msgspec.convert(params, model)
    except msgspec.ValidationError as error:
        raise Refused(INVALID_PARAMS, f"Invalid params: {error}.") from None


async def _send(request: Request, asked: _Call, sending: Sending) -> StreamingBody | Response:
    configuration = sending.configuration
    if configuration.push_notification_config or configuration.task_push_notification_config:
        raise Refused(NO_PUSH, "Push notifications are not sent; use a run's webhook.")
    thread_id, body, answers = await _wanted(request, asked, sending)
    try:
        new = await prepare_run(request, body, thread_id)
        if answers:
            new = replace(new, request=new.request.with_answers(answers))
        watch = (await admit(service_of(request), new)).watch
    except NoSuchInterrupt:
        raise Refused(UNSUPPORTED, "The task has been answered already.") from None
    except (InvalidRequest, NotFound) as error:
        raise Refused(INVALID_PARAMS, str(error)) from None
    if asked.operation == "stream":
        return _streamed(service_of(request), asked, watch)
    words = asked.words(watch.run)
    if not configuration.waits:
        watch.close()
        return _plain(asked.result(words.event("task", words.task(brief(watch.run)))))

    async def pieces() -> AsyncIterator[bytes]:
        async for ending in watch.ending():
            if ending is None:
                yield b"\n"
            else:
                now = await _ended(service_of(request), watch.run, ending)
                task = words.task(now, configuration.history_length)
                yield Last(asked.result(words.event("task", task)))
        raise BrokenOff  # the process closes before the run has ended

    return StreamingBody(pieces(), media_type="application/json", headers={}, on_close=watch.close)


async def _wanted(request: Request, asked: _Call, sending: Sending) -> tuple[str, RunCreate, tuple[str, ...]]:
    """Return the thread and the run that a message asks for, and the interrupts that it answers."""
    message = sending.message
    content, context_id = content_of(message), message.context_id
    body = RunCreate(
        assistant_id=asked.assistant.assistant_id,
        metadata=sending.metadata,
        stream_mode=["values", "messages-tuple"],
        if_not_exists="create",
    )
    if message.task_id is None:
        said = {"role": "user", "content": content, "id": message.message_id}
        body.input = {"messages": [said]}
        return str(uuid4()) if context_id is None else _uuid(context_id, "contextId"), body, ()
    run = await find_task(request, message.task_id, "read", asked.assistant)
    if context_id is not None and context_id != run.thread_id:
        raise Refused(INVALID_PARAMS, "The task belongs to another context.")
    now = await _now(service_of(request), run)
    answers = questions_of(now.values) if now.asks else []
    if not answers:
        raise Refused(UNSUPPORTED, "The task does not wait for input; send the message to its context.")
    body.command = Command(resume=dict.fromkeys(answers, text_of({"content": content})))
    return run.thread_id, body, tuple(answers)


def _uuid(text: str, name: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise Refused(INVALID_PARAMS, f"{name} {text!r} is not a UUID.") from None


async def _now(service: Service, run: RunRecord) -> Now:
    try:
        return await now_of(service, run)
    except NotFound:
        raise Refused(NO_TASK, "The task has been deleted.") from None


async def _ended(service: Service, run: RunRecord, ending: Ending) -> Now:
    """Return the run after its end; it may be gone already."""
    try:
        at = since(await service.store.runs.get(run.run_id, owner=ANY_OWNER))
    except NotFound:
        at = utc_now()
    return Now(
        status=ending.status,
        end_reason=ending.end_reason,
        values=None if ending.result is None else orjson.loads(ending.result),
        error=ending.error,
        at=at,
    )


async def _cancel(request: Request, asked: _Call, named: str) -> Response:
    service, run = service_of(request), await find_task(request, named, "update", asked.assistant)
    if run.status.terminal:
        raise Refused(NOT_CANCELABLE, "The task has ended.")
    await service.runs.cancel(run.run_id, wait=True, owner=run.owner)
    run = await service.store.runs.get(run.run_id, owner=ANY_OWNER)
    if run.status is not RunStatus.INTERRUPTED:
        raise Refused(NOT_CANCELABLE, "The task ended before it could be cancelled.")
    return _plain(asked.result(asked.words(run).task(await _now(service, run))))


def _plain(data: bytes) -> Response:
    return Response(data, media_type="application/json")


def _streamed(service: Service, asked: _Call, watch: Watch) -> StreamingBody:
    """Send the task, what its agent says as it says it, and how it ended."""

    def frame(named: str, value: dict[str, Any]) -> bytes:
        return b"event: message\r\ndata: %s\r\n\r\n" % asked.result(words.event(named, value))

    words, run = asked.words(watch.run), watch.run

    async def pieces() -> AsyncIterator[bytes]:
        yield frame("task", words.task(brief(run)))
        told: dict[str, None] = {}
        async for batch in watch.batches(after=0):
            found = []
            for item in batch:
                if isinstance(item, StreamEvent) and item.name == "metadata":
                    began = words.status_update(await _began(service, run), final=False)
                    found.append(frame("statusUpdate", began))
                elif (update := _text(item, words, told)) is not None:
                    found.append(frame("artifactUpdate", update))
            if batch and isinstance(batch[-1], StreamEnd):
                now = await _ended(service, run, await service.streams.ended(run))
                answer = words.answer_update(now, list(told))
                rest = [frame("artifactUpdate", answer)] if answer is not None else []
                last = frame("statusUpdate", words.status_update(now, final=True))
                yield Last(b"".join([*found, *rest, last]))
            elif found or not batch:
                yield b"".join(found) or HEARTBEAT
        raise BrokenOff  # the process closes before the run has ended

    return StreamingBody(pieces(), media_type="text/event-stream", headers=SSE_HEADERS, on_close=watch.close)


async def _began(service: Service, run: RunRecord) -> Now:
    """Return the run as it was when it began to work."""
    try:
        at = (await service.store.runs.get(run.run_id, owner=ANY_OWNER)).started_at
    except NotFound:
        at = None
    return Now(status=RunStatus.RUNNING, end_reason=None, values=None, error=None, at=at or utc_now())


def _text(item: Any, words: Words, told: dict[str, None]) -> dict[str, Any] | None:
    """Return what an event of the run says to another agent; *told* has the messages that were begun."""
    if not isinstance(item, StreamEvent) or item.name != "messages":
        return None
    message = orjson.loads(item.data)[0]
    text = text_of(message)
    if message.get("type") not in ("ai", "AIMessageChunk") or not text:
        return None
    message_id = str(message.get("id"))
    update = words.text_update(message_id, text, append=message_id in told)
    told[message_id] = None
    return update


A2A = Resource(
    tag="A2A",
    group="a2a",
    routes=(
        Route("GET /.well-known/agent-card.json", any_card, answer=answers.AgentCard, errors=(400, 404)),
        Route("GET /a2a/{assistant_id}/.well-known/agent-card.json", card, answer=answers.AgentCard, errors=(404,)),
        Route("GET /a2a/{assistant_id}/.well-known/agent.json", card, answer=answers.AgentCard, errors=(404,)),
        Route("GET /a2a/{assistant_id}", card, answer=answers.AgentCard, errors=(404,)),
        Route(
            "POST /a2a/{assistant_id}",
            call,
            answer=answers.RpcAnswer,
            errors=(409, 429),
            reads=A2aRequest,
            example=_EXAMPLE,
        ),
    ),
)
