"""Answers without payload, for operators who may not see it: derived from the types that routes declare.

Payload is what users and graphs wrote: whatever a type calls ``Any`` (inputs, results, state, events, values of
metadata, configuration, context), and the texts of ``_TEXTS``. The rest is shown: ids, statuses, times, numbers, names.
What a type does not name is left out, so that a new field shows nothing until its type says what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import orjson
from msgspec import inspect
from starlette.exceptions import HTTPException
from starlette.responses import Response

#: Key in the scope of a request whose sender may not see payload.
HIDES_PAYLOAD: Final = "runlane.hides_payload"
#: Texts that are payload, by type and field.
_TEXTS: Final = frozenset(
    {
        ("RunError", "message"),
        ("ThreadTask", "error"),
        ("Usage", "first_human_message"),
        ("Usage", "last_ai_message"),
        ("RunKwargs", "webhook"),
        ("FailureGroup", "message"),
        ("LogRecord", "text"),
        ("LogRecord", "exception"),
        ("WireDelivery", "url"),
        ("WireAssistant", "description"),
    }
)
#: Metadata that is no payload: ids that the server writes.
SHOWN_METADATA: Final = frozenset({"assistant_id", "cron_id", "graph_id", "run_id"})
Hide = Callable[[Any], Any]


def can_be_hidden(answer: Any) -> bool:
    """Return whether an answer of this type has anything beside payload."""
    return answer is not Any and getattr(answer, "__name__", "") != "Event"


def hidden(response: Response, answer: Any) -> Response:
    """Return *response*, whose body is of the type *answer*, without payload.

    Raises:
        HTTPException: It is not JSON, so that nothing of it can be told apart (403).
    """
    body = getattr(response, "body", None)
    if body == b"":
        return response
    if body is None or response.media_type != "application/json" or answer is None:
        raise HTTPException(403, "Forbidden: this answer is payload, which needs the scope payload:read.")
    shown = orjson.dumps(_hider(answer)(orjson.loads(body)))
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    return Response(shown, response.status_code, {**headers, "Runlane-Hidden": "payload"})


@cache
def _hider(answer: Any) -> Hide:
    return _of(inspect.type_info(answer), {})


def _of(kind: inspect.Type, made: dict[type, Hide]) -> Hide:
    """Return what takes payload from values of *kind*; *made* are those of types that contain themselves."""
    if isinstance(kind, inspect.Metadata):
        return _of(kind.type, made)
    if isinstance(kind, inspect.ListType | inspect.VarTupleType):
        item = _of(kind.item_type, made)
        if item is _nothing:
            return _nothing
        return lambda value: [item(one) for one in value] if isinstance(value, list) else _nothing(value)
    if isinstance(kind, inspect.DictType):
        entry = _of(kind.value_type, made)
        if entry is _nothing:
            return _nothing
        return lambda value: {key: entry(one) for key, one in value.items()} if isinstance(value, dict) else None
    if isinstance(kind, inspect.StructType | inspect.DataclassType):
        return _of_fields(kind, made)
    if isinstance(kind, inspect.UnionType):
        return _of_union([_of(one, made) for one in kind.types if not isinstance(one, inspect.NoneType)])
    return _nothing if isinstance(kind, inspect.AnyType | inspect.RawType | inspect.CustomType) else _itself


def _of_fields(kind: inspect.StructType | inspect.DataclassType, made: dict[type, Hide]) -> Hide:
    if kind.cls in made:
        return made[kind.cls]
    fields: dict[str, Hide] = {}

    def hide(value: Any) -> Any:
        if not isinstance(value, dict):
            return _nothing(value)
        return {name: fields[name](one) for name, one in value.items() if name in fields}

    made[kind.cls] = hide
    names = [base.__name__ for base in kind.cls.__mro__]
    for field in kind.fields:
        if any((name, field.name) in _TEXTS for name in names):
            fields[field.encode_name] = _nothing
        elif field.name == "metadata":
            fields[field.encode_name] = _ids
        else:
            fields[field.encode_name] = _of(field.type, made)
    return hide


def _of_union(members: list[Hide]) -> Hide:
    """Return what takes payload from a value of one of several types: of two that differ, what either leaves out."""
    others = [member for member in members if member is not _itself]
    if not others:
        return _itself
    if any(member is _nothing for member in others):
        return _nothing
    structure = others[0]
    return lambda value: structure(value) if isinstance(value, dict | list) else value


def _nothing(value: Any) -> Any:
    """Return the empty value of the same kind."""
    return {} if isinstance(value, dict) else [] if isinstance(value, list) else None


def _itself(value: Any) -> Any:
    return value if not isinstance(value, dict | list) else _nothing(value)


def _ids(metadata: Any) -> Any:
    if not isinstance(metadata, dict):
        return _nothing(metadata)
    return {name: value for name, value in metadata.items() if name in SHOWN_METADATA and isinstance(value, str)}
