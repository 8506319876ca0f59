"""Queries as typed structs: a struct's fields are what a route's query may have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from functools import cache
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec
from starlette.requests import Request

from runlane.errors import InvalidRequest
from runlane.server.http.requests import Limit, Moment, Offset, ignore

_INTEGER: Final = re.compile(r"-?[0-9]{1,18}\Z")
_TRUE: Final = frozenset({"true", "1", "yes"})
_FALSE: Final = frozenset({"false", "0", "no", ""})


class QueryModel(msgspec.Struct, kw_only=True):
    """The parameters of a query; other names are ignored, and named to the client."""


class Page(QueryModel):
    limit: Limit = 10
    offset: Offset = 0


Q = TypeVar("Q", bound=QueryModel)
#: Makes the value of a field of all texts that the query has for it. Raises ValueError with what it must be.
Reader = Callable[[list[str]], Any]


def read_query(request: Request, model: type[Q]) -> Q:
    """Return the request's query as *model*; unknown names are remembered for ``Runlane-Ignored``.

    Raises:
        InvalidRequest: A value does not fit, or one that is required is missing.
    """
    given: dict[str, list[str]] = {}
    if text := request.scope["query_string"]:
        for name, value in parse_qsl(text.decode("latin-1"), keep_blank_values=True):
            given.setdefault(name, []).append(value)
    readers = _readers(model)
    ignore(request, given.keys() - readers.keys(), "query parameters")
    values: dict[str, Any] = {}
    for name in readers.keys() & given.keys():
        try:
            values[name] = readers[name](given[name])
        except ValueError as error:
            raise InvalidRequest(f"Query parameter {name!r} is {given[name][-1]!r}; it must be {error}.") from None
    missing = [name for name in model.__struct_fields__ if name not in values and name in _required(model)]
    if missing:
        raise InvalidRequest(f"Query parameter {missing[0]!r} is missing.")
    return model(**values)


@cache
def _readers(model: type[QueryModel]) -> Mapping[str, Reader]:
    return {field.encode_name: _reader(field.type) for field in msgspec.structs.fields(model)}


@cache
def _required(model: type[QueryModel]) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(model) if field.required)


def _reader(kind: Any) -> Reader:
    if get_origin(kind) in (Union, UnionType):
        first, *others = (_reader(one) for one in get_args(kind) if one is not type(None))
        return _number_or(first, others[0]) if others else first
    meta = msgspec.Meta()
    if get_origin(kind) is Annotated:
        kind, meta = get_args(kind)
    if get_origin(kind) is tuple:
        one = _reader(get_args(kind)[0])
        return lambda texts: tuple(one([part]) for text in texts for part in _parts(text))
    if get_origin(kind) is Literal:
        return _choice({str(value): value for value in get_args(kind)})
    if issubclass(kind, StrEnum):
        return _choice({member.value: member for member in kind})
    if kind is int:
        return lambda texts: _integer(texts[-1], meta)
    return {bool: _flag, UUID: _uuid, datetime: _moment, str: lambda texts: texts[-1]}[kind]


def _number_or(number: Reader, other: Reader) -> Reader:
    return lambda texts: (number if _INTEGER.match(texts[-1]) else other)(texts)


def _choice(values: Mapping[str, Any]) -> Reader:
    def read(texts: list[str]) -> Any:
        if texts[-1] not in values:
            raise ValueError(f"one of {', '.join(values)}")
        return values[texts[-1]]

    return read


def _flag(texts: list[str]) -> bool:
    text = texts[-1].lower()
    if text not in _TRUE and text not in _FALSE:
        raise ValueError("true or false")
    return text in _TRUE


def _integer(text: str, meta: msgspec.Meta) -> int:
    if _INTEGER.match(text) is None:
        raise ValueError("an integer")
    value = int(text)
    if (meta.ge is not None and value < meta.ge) or (meta.le is not None and value > meta.le):
        raise ValueError(f"an integer from {meta.ge}" + ("" if meta.le is None else f" to {meta.le}"))
    return value


def _uuid(texts: list[str]) -> UUID:
    try:
        return UUID(texts[-1])
    except ValueError:
        raise ValueError("a UUID") from None


def _moment(texts: list[str]) -> datetime:
    try:
        return msgspec.convert(texts[-1], Moment)
    except msgspec.ValidationError:
        raise ValueError("a time with its offset from UTC (RFC 3339)") from None


def _parts(text: str) -> list[str]:
    """Return the items of a list: one text has several if they are separated by commas, or are a JSON array."""
    if not text.startswith("["):
        return [part for part in text.split(",") if part]
    try:
        return msgspec.json.decode(text, type=list[str])
    except msgspec.DecodeError:
        raise ValueError("a list of strings") from None
