"""From what agents produce to JSON text, once per event.

Wire shapes are those of the LangGraph Server API: a message is its fields, an exception its ``repr``, bytes are base64,
NaN and infinity are ``null``, NUL is U+FFFD. LangChain and LangGraph objects are known by their shape, so that nothing
of theirs is imported here.
"""

from __future__ import annotations

import base64
import re
from collections import deque
from collections.abc import Callable, Mapping, Set
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

import orjson

from runlane.redaction import redact_text
from runlane.storable import storable

#: orjson's own limit of nesting; the slow path keeps it, so that a document never depends on which path made it.
MAX_DEPTH: Final = 254

_NUL: Final = b"\\u0000"
#: What is shown as its text; interfaces are addresses, and a ``ZoneInfo`` is a ``tzinfo``.
_TEXT_TYPES: Final = (
    Decimal,
    PurePath,
    complex,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    tzinfo,
)
_NATIVE_TYPES: Final = frozenset({type(None), bool, float, datetime, date, time, UUID})
_MAX_INT: Final = 2**64 - 1
_MIN_INT: Final = -(2**63)


class Unserialisable(TypeError):
    """A value has no JSON form; the message names its type."""


#: Returns the next simpler form of a value that JSON does not have.
Shape = Callable[[Any], Any]


def encode(value: Any, shape: Shape | None = None) -> bytes:
    """Return *value* as compact JSON text without NUL.

    Args:
        shape: In place of :func:`shape_of`.

    Raises:
        Unserialisable: It holds an object without a JSON form, or refers to itself, or nests too deeply.
    """
    shape = shape or shape_of
    try:
        data = orjson.dumps(value, default=shape)
        is_plain = _NUL not in data
    except TypeError:
        is_plain = False
    if not is_plain:
        # Rare values (keys that are not text, huge integers, lone surrogates, NUL) and those that have no form at all.
        data = orjson.dumps(_plain(value, (), shape))
    # What orjson returns keeps the buffer of 4 KiB or more that it was written into, for as long as the event is kept.
    return bytes(memoryview(data))


def encode_lenient(value: Any) -> bytes:
    """Return *value* as JSON text with the ``repr`` of what has no JSON form, for traces that must not fail a run."""
    try:
        return encode(value)
    except Unserialisable:
        return bytes(memoryview(orjson.dumps(_plain(value, (), shape_of, repr))))


def shape_of(value: Any) -> Any:
    """Return the next simpler form of a value that JSON does not have."""
    cls = type(value)
    if cls.__module__.startswith("langchain_core.messages."):
        # What `model_dump` gives, without its copy: streaming does this once per token.
        extra = value.__pydantic_extra__
        return {**value.__dict__, **extra} if extra else value.__dict__
    if isinstance(value, BaseException):
        return redact_text(repr(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, type):
        raise Unserialisable(f"Class {value.__qualname__} has no JSON form.")
    for attribute, convert in _METHODS:
        if callable(getattr(value, attribute, None)):
            return convert(value)
    return _shape_of_builtin(value)


def _shape_of_builtin(value: Any) -> Any:
    if isinstance(value, (Set, deque, list, tuple)):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (timedelta, float)):
        return value.total_seconds() if isinstance(value, timedelta) else float(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, _TEXT_TYPES) or type(value).__module__.startswith("pydantic"):
        return str(value)
    if isinstance(value, re.Pattern):
        return value.pattern
    if type(value).__module__ == "langgraph.types" and type(value).__name__ == "Send":
        return {"node": value.node, "arg": value.arg}
    cls = type(value)
    raise Unserialisable(f"An object of type {cls.__module__}.{cls.__qualname__} has no JSON form.")


#: Methods by which an object gives its simpler form: pydantic, named tuples, arrays, and what LangGraph's serialiser
#: takes too: models of pydantic 1 and items of its stores.
_METHODS: Final[tuple[tuple[str, Callable[[Any], Any]], ...]] = (
    ("model_dump", lambda value: value.model_dump()),
    ("_asdict", lambda value: value._asdict()),
    ("tolist", lambda value: value.tolist()),
    ("dict", lambda value: value.dict()),
)


def _plain(value: Any, path: tuple[int, ...], shape: Shape, otherwise: Shape | None = None) -> Any:
    """Return *value* in terms that orjson takes as they are; *path* has the ids of the containers around it."""
    if isinstance(value, Enum):
        value = value.value
    if type(value) in _NATIVE_TYPES:
        return value
    if isinstance(value, (str, int)):
        return storable(value) if isinstance(value, str) else _integer(value)
    if id(value) in path:
        return _without_form(value, "A value refers to itself and has no JSON form.", otherwise)
    if len(path) >= MAX_DEPTH:
        return _without_form(value, f"A value nests deeper than {MAX_DEPTH} levels.", otherwise)
    path = (*path, id(value))
    if isinstance(value, dict):
        return {_key(key): _plain(item, path, shape, otherwise) for key, item in value.items()}
    if type(value) in (list, tuple):
        return [_plain(item, path, shape, otherwise) for item in value]
    try:
        simpler = _fields(value) if is_dataclass(value) and not isinstance(value, type) else shape(value)
    except Unserialisable as exc:
        return _without_form(value, str(exc), otherwise)
    return _plain(simpler, path, shape, otherwise)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value) if not field.name.startswith("_")}


def _integer(value: int) -> Any:
    return int(value) if _MIN_INT <= value <= _MAX_INT else orjson.Fragment(str(int(value)).encode())


def _without_form(value: Any, why: str, otherwise: Shape | None) -> Any:
    if otherwise is None:
        raise Unserialisable(why)
    return storable(otherwise(value))


def _key(key: Any) -> str:
    """Return *key* as the text that JSON needs of it."""
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str):
        return storable(key)
    if key is None or isinstance(key, bool):
        return "null" if key is None else str(key).lower()
    return key.isoformat() if isinstance(key, (date, time)) else str(key)
