"""Request bodies: models, and strict reading. The wire's spellings live here."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar, get_args
from uuid import UUID

import msgspec
from starlette.requests import Request

from runlane.errors import InvalidRequest, RunlaneError
from runlane.lifecycle import StrategyName
from runlane.server.http.json_bodies import read_json

Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
SortOrder = Literal["asc", "desc"]
StreamMode = Literal[
    "values", "messages", "messages-tuple", "updates", "events", "debug", "tasks", "checkpoints", "custom"
]
Nodes = Literal["*"] | list[str]
Object = dict[str, Any]


class Body(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A JSON object; fields that no version of the API defines are ignored, and named to the client."""

    #: Fields that may be null on the wire, where it means what leaving them out means.
    nullable: ClassVar[frozenset[str]] = frozenset()


class Send(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A node to go to, with an input of its own."""

    node: str
    input: Any = None


Goto = str | Send | list[str | Send]
Update = dict[str, Any] | list[tuple[str, Any]]


class Command(Body):
    resume: Any = None
    update: Update | None = None
    goto: Goto | None = None


class CheckpointConfig(Body):
    thread_id: str | None = None
    checkpoint_id: str | None = None
    checkpoint_ns: str | None = ""
    checkpoint_map: Object | None = None


class RunConfig(Body):
    tags: list[str] | None = None
    recursion_limit: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None
    max_concurrency: Annotated[int, msgspec.Meta(ge=1)] | None = None
    run_name: str | None = None
    configurable: Object | None = None
    metadata: Object | None = None


class RunCreate(Body):
    """A run on a thread, or a stateless one."""

    nullable: ClassVar[frozenset[str]] = frozenset({"checkpoint_id", "langsmith_tracer", "on_completion"})

    assistant_id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    input: Any = None
    command: Command | None = None
    config: RunConfig | None = None
    context: Object | None = None
    metadata: Object | None = None
    webhook: str | None = None
    interrupt_before: Nodes | None = None
    interrupt_after: Nodes | None = None
    stream_mode: StreamMode | list[StreamMode] | None = None
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    feedback_keys: list[str] | None = None
    multitask_strategy: StrategyName = "enqueue"
    if_not_exists: Literal["create", "reject"] = "reject"
    after_seconds: Annotated[float, msgspec.Meta(ge=0, le=315_360_000)] | None = None
    checkpoint: CheckpointConfig | None = None
    checkpoint_id: str | None = None
    checkpoint_during: bool | None = None
    durability: Literal["sync", "async", "exit"] | None = None
    on_disconnect: Literal["continue", "cancel"] = "continue"
    on_completion: Literal["delete", "keep"] | None = None
    strict_resume: bool = False
    langsmith_tracer: Object | None = None


#: A run for the document's examples; the tenancy test replaces ids and names of assistants.
RUN_EXAMPLE: Final[Object] = {
    "assistant_id": "agent",
    "input": {"messages": [{"role": "user", "content": "Where is my order?"}]},
}


B = TypeVar("B", bound=Body)
#: Fields that may be null on the wire.
_NULLABLE = frozenset({"input", "command", "values", "before", "checkpoint", "checkpoint_map"})


def check_begin(after: str | None, offset: int) -> None:
    """Raises:
    InvalidRequest: A page is to begin at two places.
    """
    if after is not None and offset:
        raise InvalidRequest("A page begins at 'offset' or comes 'after' a place: leave one of them out.")


class BadRequest(InvalidRequest):
    """The request is well formed and makes no sense where it was sent."""

    code = "bad_request"


async def read_body(request: Request, model: type[B]) -> B:
    """Return the body as *model*; unknown fields are remembered in ``request.state.ignored``.

    Raises:
        InvalidRequest: The body does not fit; the text names the field.
    """
    return convert_body(request, await read_json(request, request.app.state.settings.max_body_bytes), model)


async def read_bodies(request: Request, model: type[B], bounds: msgspec.Meta) -> list[B]:
    """Return the body, an array, as a list of *model*; see :func:`read_body`.

    Raises:
        InvalidRequest: The body does not fit; the text names the entry and the field.
    """
    values = await read_json(request, request.app.state.settings.max_body_bytes)
    low, high = bounds.min_length or 0, bounds.max_length
    if not isinstance(values, list) or len(values) < low or (high is not None and len(values) > high):
        raise InvalidRequest(f"The body must be a JSON array of {low} to {high} objects.")
    found = []
    for index, value in enumerate(values):
        with in_entry(index):
            found.append(convert_body(request, value, model))
    return found


@contextmanager
def in_entry(index: int) -> Iterator[None]:
    """Name the entry of an array in an error about it."""
    try:
        yield
    except RunlaneError as error:
        error.args = (f"Entry {index} of the batch: {error}",)
        raise


def convert_body(request: Request, value: Any, model: type[B]) -> B:
    """Return *value*, which a client sent, as *model*; see :func:`read_body`."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"The body must be a JSON object, not {type(value).__name__}.")
    unknown = value.keys() - _fields(model).keys()
    ignore(request, unknown.union(_unknown_below(value, model)), "fields")
    accepted = _NULLABLE | model.nullable | unknown
    nulls = [name for name, item in value.items() if item is None and name not in accepted]
    if nulls:
        raise InvalidRequest(f"Field {nulls[0]!r} is null; leave it out instead.")
    try:
        return msgspec.convert(value, model)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidRequest(f"Invalid request body: {error}.") from None


@functools.cache
def _fields(model: type[msgspec.Struct]) -> Mapping[str, type[msgspec.Struct] | None]:
    """Return the fields of *model*, each with the model of the objects in it."""
    return {field.encode_name: _model_in(field.type) for field in msgspec.structs.fields(model)}


def _model_in(kind: Any) -> type[msgspec.Struct] | None:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next((found for part in get_args(kind) if (found := _model_in(part)) is not None), None)


def _unknown_below(value: Mapping[str, Any], model: type[msgspec.Struct]) -> Iterator[str]:
    """Give the names in the objects within *value* that their models do not have, with the path; nulls say nothing."""
    for name, found in value.items():
        inner = _fields(model).get(name)
        if inner is None:
            continue
        for one in found if isinstance(found, list) else (found,):
            if isinstance(one, dict):
                known = _fields(inner)
                yield from (f"{name}.{field}" for field, item in one.items() if field not in known and item is not None)
                yield from (f"{name}.{field}" for field in _unknown_below(one, inner))


def ignore(request: Request, names: Set[str], kind: str) -> None:
    """Remember *names*, which no version of the API defines, for the header ``Runlane-Ignored``.

    Raises:
        InvalidRequest: There are some, and the server is strict.
    """
    if not names:
        return
    if request.app.state.settings.strict:
        raise InvalidRequest(f"Unknown {kind}: {', '.join(sorted(names))}.")
    state = request.scope["state"]
    state["ignored"] = list(dict.fromkeys([*state.get("ignored", ()), *sorted(names)]))


def path_uuid(request: Request, kind: str) -> str:
    """Return the path's ``{kind}_id`` in canonical form.

    Raises:
        InvalidRequest: It is not a UUID.
    """
    return canonical_uuid(kind, request.path_params[f"{kind}_id"])


def canonical_uuid(kind: str, text: str) -> str:
    """Return the id *text* of a *kind* in canonical form.

    Raises:
        InvalidRequest: It is not a UUID.
    """
    try:
        return str(UUID(text))
    except ValueError:
        raise InvalidRequest(f"Invalid {kind} ID: must be a UUID") from None


def checkpoint_uuid(text: Any) -> str:
    """Return a checkpoint's id.

    Raises:
        InvalidRequest: It is not a UUID.
    """
    try:
        return str(UUID(text))
    except (ValueError, TypeError, AttributeError):
        raise InvalidRequest(f"Invalid checkpoint ID {text!r}: must be a UUID") from None


def checkpoint_address(checkpoint: CheckpointConfig | None) -> dict[str, Any] | None:
    """Return where *checkpoint* is, without what was not given.

    Raises:
        InvalidRequest: Its id is not a UUID.
    """
    if checkpoint is None:
        return None
    if checkpoint.checkpoint_id is not None:
        checkpoint_uuid(checkpoint.checkpoint_id)
    return {name: value for name, value in msgspec.structs.asdict(checkpoint).items() if value is not None}


def cursor_address(before: str | Object | None) -> str | dict[str, Any] | None:
    """Return the checkpoint that a page of history ends before: an id, an address, or a config that holds one.

    Raises:
        InvalidRequest: It is none of these.
    """
    if before is None or isinstance(before, str):
        return None if before is None else checkpoint_uuid(before)
    try:
        return checkpoint_address(msgspec.convert(before.get("configurable", before), CheckpointConfig))
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"Invalid request body: before: {error}.") from None


def clean(body: Any) -> dict[str, Any]:
    """Return *body* as a dict without what was not given."""
    built: dict[str, Any] = msgspec.to_builtins(body)
    return {name: value for name, value in built.items() if value is not None}
