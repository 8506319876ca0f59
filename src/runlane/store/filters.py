"""Filters on metadata, with which an application's authorisation says what a user may touch.

A filter is a mapping of keys to what their values must be, all of which must hold: a string, number, boolean or
``None``; ``{"$eq": value}``; ``{"$contains": value}`` or ``{"$contains": [values]}`` for lists; and under ``$or`` and
``$and`` non-empty lists of filters. Nothing is converted: ``1`` is not ``true``, and a list has no value but its own.

Source: filters of ``langgraph_sdk.Auth``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from runlane.errors import ConfigurationError, InvalidRequest

#: The condition on the column ``metadata`` with the parameters of :func:`filter_params`, in SQLite and PostgreSQL.
MATCHES: Final = "(CAST(:where_json AS TEXT) IS NULL OR json_matches(metadata, :where_json))"
MATCHES_PG: Final = (
    "(CAST(:where_path AS TEXT) IS NULL "
    "OR CAST(replace(metadata, '\\u0000', '\\ufffd') AS jsonb) @@ CAST(:where_path AS jsonpath))"
)
#: What JSON documents are stored with.
_LARGEST: Final = 2**63
#: Values of a filter that a client sends, and how deep it may be: every row is compared with it.
MAX_VALUES: Final = 1000
MAX_DEPTH: Final = 16
#: Characters of what is looked for in JSON text before it is parsed.
MAX_NEEDLE: Final = 64
_Term = tuple[str, str, Any]


def matches(where: Mapping[str, Any], document: Any) -> bool:
    """Return whether *document* satisfies *where*, which :func:`filter_params` takes."""
    return all(_holds(term, document) for term in _terms(where))


def contains(document: Any, wanted: Any) -> bool:
    """Return whether *document* contains *wanted* as PostgreSQL's ``jsonb @>`` does."""
    if isinstance(wanted, dict):
        return isinstance(document, dict) and all(k in document and contains(document[k], v) for k, v in wanted.items())
    if isinstance(wanted, list):
        return isinstance(document, list) and all(any(contains(d, w) for d in document) for w in wanted)
    if isinstance(wanted, bool) or isinstance(document, bool):
        return document is wanted
    return bool(document == wanted)


def filter_params(where: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the parameters of the condition ``MATCHES``; no filter matches everything.

    Raises:
        ConfigurationError: *where* is not a filter.
    """
    if not where:
        return {"where_json": None, "where_path": None}
    return {"where_path": f"strict {_path(where)}", "where_json": orjson.dumps(where).decode()}


def wanted_texts(where: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return keys that *where* wants to have one text, with that text; there may be conditions beside them."""
    for operator, key, value in _terms(where):
        if operator == "$eq" and isinstance(value, str):
            yield key, value


def needle_of(text: str) -> str:
    """Return what is part of the JSON text of all that has *text*, and has no more than ``MAX_NEEDLE`` characters.

    A database may compare all of them at each place where it looks for it.
    """
    plain = text.isascii() and text.isprintable() and not {'"', "\\"} & set(text)
    return text[:MAX_NEEDLE] if plain else ""


def check_size(name: str, wanted: Any) -> None:
    """Raise InvalidRequest if *wanted*, with which many rows are to be compared, is too large or too deep for that."""
    left, level = MAX_VALUES, [wanted]
    for _ in range(MAX_DEPTH):
        level = [inner for value in level for inner in _inner(value)]
        left -= len(level)
        if not level:
            return
        if left < 0:
            raise InvalidRequest(f"{name} has more than {MAX_VALUES} values, which is too many to search by.")
    raise InvalidRequest(f"{name} is nested more than {MAX_DEPTH} levels deep, which is too deep to search by.")


def _inner(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _terms(where: Any) -> Iterator[_Term]:
    """Give the conditions of *where*: ``(operator, key, value)``."""
    if not isinstance(where, Mapping):
        raise ConfigurationError(f"An authorisation filter must be a dict, not {type(where).__name__}.")
    for key, wanted in where.items():
        if key in ("$or", "$and"):
            yield key, "", _list(key, wanted)
        elif not isinstance(key, str) or key.startswith("$"):
            raise ConfigurationError(f"An authorisation filter has no operator {key!r}: use $or, $and or a key.")
        elif isinstance(wanted, Mapping):
            yield from _operators(_text(key), wanted)
        else:
            yield "$eq", _text(key), _scalar(key, wanted)


def _operators(key: str, wanted: Mapping[str, Any]) -> Iterator[_Term]:
    if not wanted:
        raise ConfigurationError(f"The authorisation filter of {key!r} is empty: use $eq or $contains.")
    for operator, value in wanted.items():
        if operator == "$eq":
            yield operator, key, _scalar(key, value)
        elif operator == "$contains":
            values = _list(key, value) if isinstance(value, list | tuple) else [value]
            yield operator, key, [_scalar(key, one) for one in values]
        else:
            raise ConfigurationError(f"The authorisation filter of {key!r} uses {operator!r}: use $eq or $contains.")


def _list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise ConfigurationError(f"The authorisation filter of {key!r} needs a list with something in it.")
    return list(value)


def _scalar(key: str, value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool) or (isinstance(value, int | float) and abs(value) < _LARGEST):
        return value
    raise ConfigurationError(
        f"The authorisation filter of {key!r} compares with {value!r:.80}: "
        "use strings, numbers below 2**63, booleans or None."
    )


def _text(value: str) -> str:
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise ConfigurationError("An authorisation filter has a string that no metadata can have (NUL, surrogate).")
    return value


def _holds(term: _Term, document: Any) -> bool:
    operator, key, value = term
    if operator == "$or":
        return any(matches(one, document) for one in value)
    if operator == "$and":
        return all(matches(one, document) for one in value)
    if not isinstance(document, Mapping) or key not in document:
        return False
    if operator == "$eq":
        return _same(document[key], value)
    found = document[key]
    return isinstance(found, list | tuple) and all(any(_same(item, one) for item in found) for one in value)


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    return isinstance(found, str | int | float | None) and bool(found == wanted)


def _path(where: Any) -> str:
    """Return *where* as an SQL/JSON path predicate."""
    return " && ".join([f"({_predicate(term)})" for term in _terms(where)]) or "1 == 1"


def _predicate(term: _Term) -> str:
    operator, key, value = term
    if operator in ("$or", "$and"):
        return (" || " if operator == "$or" else " && ").join([f"({_path(one)})" for one in value])
    member = f"$.{json.dumps(key)}"
    if operator == "$eq":
        return f"{member} == {json.dumps(value)}"
    return " && ".join([f"exists({member}[*] ? (@ == {json.dumps(one)}))" for one in value])
