"""Commands to a thread: what each does, and the shape of its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Final, cast

import msgspec
from msgspec import structs
from starlette.requests import HTTPConnection, Request

from runlane.errors import AdmissionClosed, NotFound, RunlaneError, StoreUnavailable
from runlane.lifecycle import EndReason, StrategyName, ThreadStatus
from runlane.records import NewRun, Thread
from runlane.requests import NULL, RunRequest
from runlane.server.http.requests import Body, Command, Goto, RunConfig, RunCreate, Update, checkpoint_uuid
from runlane.server.protocols.v2.inspection import get_state, get_tree, list_checkpoints
from runlane.server.protocols.v2.refusals import CommandRefused, converted, refusal
from runlane.server.routes.authorization import reach_thread, service_of
from runlane.server.routes.later_runs import asked_of
from runlane.server.routes.new_runs import admit, prepare_run

#: In a config, where a run starts that is not to go on from the thread's newest checkpoint.
_CHECKPOINT: Final = ("checkpoint_id", "checkpoint_ns", "checkpoint_map")


class RunStart(Body):
    """Parameters of ``run.start``."""

    nullable: ClassVar[frozenset[str]] = frozenset({"config", "metadata", "multitaskStrategy", "multitask_strategy"})

    assistant_id: str
    input: Any = None
    config: RunConfig | None = None
    context: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    multitask_strategy: StrategyName | None = None
    camel_case_strategy: StrategyName | None = msgspec.field(default=None, name="multitaskStrategy")
    langsmith_tracer: dict[str, Any] | None = None


class InterruptResponse(msgspec.Struct, kw_only=True):
    """One interrupt's answer."""

    interrupt_id: str
    response: Any = None
    namespace: list[str] | None = None


class InputRespond(Body):
    """Parameters of ``input.respond``: one answer, or several in ``responses``."""

    nullable: ClassVar[frozenset[str]] = frozenset({"response", "update", "goto", "config", "metadata"})

    interrupt_id: str | None = None
    response: Any = None
    namespace: list[str] | None = None
    responses: list[InterruptResponse] | None = None
    update: Update | None = None
    goto: Goto | None = None
    config: RunConfig | None = None
    metadata: dict[str, Any] | None = None
    strict_resume: bool = False  # an answer to what is not open is always refused


class StateFork(Body):
    """Parameters of ``state.fork``."""

    nullable: ClassVar[frozenset[str]] = frozenset({"config"})

    checkpoint_id: str
    input: Any = None
    config: RunConfig | None = None


Run = Callable[[HTTPConnection, str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


async def execute(connection: HTTPConnection, thread_id: str, method: str, params: Any) -> Mapping[str, Any]:
    """Do what *method* says to the thread, and return its result.

    Raises:
        CommandRefused: It cannot be done.
        NotFound: There is no such thread or assistant, or the client may not touch it.
        AdmissionClosed, StoreUnavailable: Not now.
        HTTPException: It is not allowed.
    """
    command = _COMMANDS.get(method)
    if command is None:
        raise CommandRefused(
            "unknown_command", f"There is no command {method!r}; there are {', '.join(sorted(_COMMANDS))}."
        )
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise CommandRefused("invalid_argument", "'params' must be an object.")
    try:
        return await command(connection, thread_id, params)
    except (NotFound, AdmissionClosed, StoreUnavailable):
        raise
    except RunlaneError as error:
        raise refusal(error) from error


async def _start(connection: HTTPConnection, thread_id: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Admit a run at once, or refuse it at once; the thread is made if it does not exist."""
    body = converted(connection, params, RunStart)
    create = RunCreate(
        assistant_id=body.assistant_id,
        input=body.input,
        config=body.config,
        context=body.context,
        metadata=body.metadata,
        multitask_strategy=body.multitask_strategy or body.camel_case_strategy or "enqueue",
        if_not_exists="create",
        langsmith_tracer=body.langsmith_tracer,
    )
    fork = ((body.config.configurable if body.config else None) or {}).get("checkpoint_id")
    if fork is not None:
        checkpoint_uuid(str(fork))
    new = await _prepared(connection, create, thread_id)
    if fork is None and body.input is not None:
        new = await _as_answer(connection, new, body.input)
    return await _admitted(connection, new)


async def _as_answer(connection: HTTPConnection, new: NewRun, value: Any) -> NewRun:
    """Return the run that resumes the thread with *value*, if the thread waits for an answer and *value* is one.

    LangGraph's RemoteGraph resumes by starting a run with the answer for its input. What is made of channels of the
    thread's state is an input like any other: the user has gone on without answering.
    """
    store = service_of(connection).store
    try:
        thread = await store.threads.get(new.thread_id, owner=new.owner)
    except NotFound:
        return new
    if thread.status is not ThreadStatus.INTERRUPTED or not thread.interrupts:
        return new
    runs = await store.runs.list(new.thread_id, owner=new.owner, limit=1)
    if not runs or runs[0].end_reason is not EndReason.PAUSED:  # a cancelled run leaves the question it was to answer
        return new
    if isinstance(value, dict) and value and isinstance(thread.values, dict) and value.keys() <= thread.values.keys():
        return new
    interrupt_ids = tuple(_open(thread))
    # by its id, since LangGraph takes an empty answer, or one whose keys look like ids, for a map of answers
    resume = {interrupt_ids[0]: value} if len(interrupt_ids) == 1 else value
    return _with_request(new, input=NULL, command={"resume": resume}, answers=interrupt_ids)


async def _respond(connection: HTTPConnection, thread_id: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Admit the run that resumes the thread with answers, each of which is the first to its interrupt."""
    body = converted(connection, params, InputRespond)
    answers = body.responses
    if answers is None:
        if body.interrupt_id is None:
            raise CommandRefused("invalid_argument", "'interrupt_id' or 'responses' is required.")
        answers = [InterruptResponse(interrupt_id=body.interrupt_id, response=body.response)]
    if not answers or len({answer.interrupt_id for answer in answers}) != len(answers):
        raise CommandRefused("invalid_argument", "'responses' must have one answer per interrupt, and at least one.")
    _, thread = await reach_thread(cast(Request, connection), "read")
    runs = await service_of(connection).store.runs.list(thread.thread_id, owner=thread.owner, limit=1)
    asked = asked_of(runs[0]) if runs else RunRequest()
    create = RunCreate(
        assistant_id=_assistant_of(thread),
        command=Command(
            resume={answer.interrupt_id: answer.response for answer in answers}, update=body.update, goto=body.goto
        ),
        config=_resumed_config(asked, body.config),
        metadata=body.metadata,
    )
    new = await _prepared(connection, create, thread_id)
    if asked.context:
        changed = (body.config.configurable if body.config else None) or {}
        context = {name: changed.get(name, value) for name, value in asked.context.items()}
        new = _with_request(new, context=context)
    await _admitted(connection, _with_request(new, answers=tuple(answer.interrupt_id for answer in answers)))
    return {}


def _resumed_config(asked: RunRequest, given: RunConfig | None) -> RunConfig:
    """Return the config of the run that *asked*, changed by what was *given* with the answer."""
    before = asked.config or {}
    changes = {} if given is None else msgspec.to_builtins(given)
    merged = {**before, **{name: value for name, value in changes.items() if value is not None}}
    configurable = {**asked.configurable, **(changes.get("configurable") or {})}
    merged["configurable"] = {name: value for name, value in configurable.items() if name not in _CHECKPOINT}
    return msgspec.convert(merged, RunConfig)


def _open(thread: Thread) -> list[str]:
    return [item["id"] for items in thread.interrupts.values() for item in items]


def _with_request(new: NewRun, **changes: Any) -> NewRun:
    return structs.replace(new, request=structs.replace(new.request, **changes))


async def _prepared(connection: HTTPConnection, create: RunCreate, thread_id: str) -> NewRun:
    new = await prepare_run(cast(Request, connection), create, thread_id)
    new = _with_request(new, protocol="v2")
    if connection.scope["type"] == "websocket":  # its headers are those of many commands
        return structs.replace(new, idempotency_key=None)
    return new


async def _admitted(connection: HTTPConnection, new: NewRun) -> Mapping[str, Any]:
    admitted = await admit(service_of(connection), new)
    admitted.watch.close()
    return {"run_id": admitted.run.run_id}


async def _fork(connection: HTTPConnection, thread_id: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Admit a run of the thread's last assistant from one of its checkpoints."""
    body: StateFork = converted(connection, params, StateFork)
    _, thread = await reach_thread(cast(Request, connection), "read")
    create = RunCreate(
        assistant_id=_assistant_of(thread),
        input=body.input,
        config=body.config,
        checkpoint_id=checkpoint_uuid(body.checkpoint_id),
    )
    result = await _admitted(connection, await _prepared(connection, create, thread_id))
    return {**result, "thread_id": thread_id}


def _assistant_of(thread: Thread) -> str:
    assistant_id = thread.metadata.get("assistant_id")
    if not isinstance(assistant_id, str):
        raise CommandRefused("no_such_run", "Nothing has run on the thread yet; start a run with run.start.")
    return assistant_id


_COMMANDS: Final[Mapping[str, Run]] = {
    "run.start": _start,
    "input.respond": _respond,
    "agent.getTree": get_tree,
    "state.get": get_state,
    "state.listCheckpoints": list_checkpoints,
    "state.fork": _fork,
}
