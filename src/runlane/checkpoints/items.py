"""The items of the long-term store: their SQL, and which of them a search or a listing means."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from langgraph.store.base import MatchCondition

from runlane.errors import ConfigurationError, InvalidRequest
from runlane.store.filters import check_size, needle_of
from runlane.store.statements import Statement, Transaction, statement

#: Namespaces are stored as their labels, each followed by this; no label may contain it.
SEPARATOR: Final = "."
_AFTER_SEPARATOR: Final = chr(ord(SEPARATOR) + 1)
#: Comes after every namespace that does not begin with as many of the last code point, which stands for no character.
_LAST: Final = "\U0010ffff" * 16

#: Items that one transaction deletes, so that writers in between do not wait long.
SWEPT: Final = 1000
#: What a filter may ask for beside equality.
OPERATORS: Final = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte")

IS_LIVE: Final = "(:expired_too OR expires_at IS NULL OR expires_at > {now})"
COLUMNS: Final = "namespace, key, value, created_at, updated_at, ttl_us"

GET: Final = statement(
    "store_items.get",
    f"SELECT {COLUMNS} FROM store_items WHERE owner = :owner AND namespace = :namespace AND key = :key AND {IS_LIVE}",
)
SEARCH: Final = statement(
    "store_items.search",  # most recent first
    f"""
    SELECT {COLUMNS} FROM store_items
    WHERE owner = :owner AND namespace >= :low AND namespace < :high AND {IS_LIVE}
    ORDER BY updated_at DESC, namespace, key LIMIT :limit OFFSET :offset
    """,
)
#: The value may match: it has one of two texts, of which all that match have one.
_MAY_MATCH: Final = "(instr(value, :text) > 0 OR instr(value, :other) > 0)"
_MAY_MATCH_PG: Final = "(position(:text IN value) > 0 OR position(:other IN value) > 0)"


def _filtered(name: str, sql: str) -> Statement:
    """Return the statement whose ``{may_match}`` is that the value may match a filter."""
    return statement(name, sql.replace("{may_match}", _MAY_MATCH), postgres=sql.replace("{may_match}", _MAY_MATCH_PG))


NEWEST: Final = _filtered(
    "store_items.newest",  # all items of an owner, the most recently changed first, behind a place
    f"""
    SELECT {COLUMNS} FROM store_items
    WHERE owner = :owner AND (updated_at, namespace, key) < (:changed_at, :namespace, :key)
        AND {IS_LIVE} AND {{may_match}}
    ORDER BY updated_at DESC, namespace DESC, key DESC LIMIT :limit OFFSET :offset
    """,
)
SCAN: Final = _filtered(
    "store_items.scan",  # a part of what a search may mean, in the order of the primary key
    f"""
    SELECT {COLUMNS}, vectors FROM store_items
    WHERE owner = :owner AND (namespace, key) >= (:namespace, :key) AND namespace < :high AND {IS_LIVE}
        AND (:inclusive OR namespace <> :namespace OR key <> :key)
        AND (vectors IS NOT NULL OR NOT :embedded) AND {{may_match}}
    ORDER BY namespace, key LIMIT :limit
    """,
)
NAMESPACES: Final = statement(
    "store_items.namespaces",  # one step in the index for each
    f"""
    WITH RECURSIVE found (namespace) AS (
        SELECT min(namespace) FROM store_items WHERE owner = :owner AND namespace >= :low AND namespace < :high
        UNION ALL
        SELECT (
            SELECT min(namespace) FROM store_items
            WHERE owner = :owner AND namespace > found.namespace AND namespace < :high)
        FROM found WHERE found.namespace IS NOT NULL
    )
    SELECT namespace FROM found WHERE EXISTS (
        SELECT 1 FROM store_items WHERE owner = :owner AND namespace = found.namespace AND {IS_LIVE})
    """,
)
PUT: Final = statement(
    "store_items.put",  # an expired item is created again
    """
    INSERT INTO store_items (owner, namespace, key, value, created_at, updated_at, ttl_us, expires_at, vectors)
    VALUES (:owner, :namespace, :key, :value, {now}, {now}, :ttl_us, {now} + CAST(:ttl_us AS BIGINT), :vectors)
    ON CONFLICT (owner, namespace, key) DO UPDATE SET
        value = excluded.value, updated_at = excluded.updated_at, ttl_us = excluded.ttl_us,
        expires_at = excluded.expires_at, vectors = excluded.vectors,
        created_at = CASE WHEN store_items.expires_at <= {now} THEN excluded.created_at
                     ELSE store_items.created_at END
    """,
)
DELETE: Final = statement(
    "store_items.delete", "DELETE FROM store_items WHERE owner = :owner AND namespace = :namespace AND key = :key"
)
TOUCH: Final = statement(
    "store_items.touch",  # guard: the item has not expired meanwhile
    """
    UPDATE store_items SET expires_at = {now} + ttl_us
    WHERE owner = :owner AND namespace = :namespace AND key = :key AND expires_at > {now}
    """,
)
SWEEP: Final = statement(
    "store_items.sweep",  # every owner's, a part at a time
    """
    DELETE FROM store_items WHERE (owner, namespace, key) IN (
        SELECT owner, namespace, key FROM store_items WHERE expires_at <= {now} LIMIT :limit {skip_locked})
    RETURNING 1 AS swept
    """,
)
DIMS: Final = statement("store_index.dims", "SELECT dims FROM store_index")
HAS_VECTORS: Final = statement(
    "store_items.has_vectors", "SELECT 1 AS found FROM store_items WHERE vectors IS NOT NULL LIMIT 1"
)
# Two processes may start at once.
LOCK_DIMS: Final = statement("store_index.lock", "", postgres="LOCK TABLE store_index IN SHARE ROW EXCLUSIVE MODE")
FORGET_DIMS: Final = statement("store_index.forget", "DELETE FROM store_index")
SET_DIMS: Final = statement("store_index.set", "INSERT INTO store_index (dims) VALUES (:dims)")


def sweep_some() -> Transaction[int]:
    """Delete expired items, not too many at once, and return how many."""
    return len((yield SWEEP(limit=SWEPT)))


def use_dims(dims: int) -> Transaction[None]:
    """Remember that vectors have *dims* numbers.

    Raises:
        ConfigurationError: There are vectors of another length.
    """
    yield LOCK_DIMS()
    known = yield DIMS()
    if known and known[0]["dims"] == dims:
        return
    if known and (yield HAS_VECTORS()):
        raise ConfigurationError(
            f"The long-term store has vectors of {known[0]['dims']} numbers, and 'store.index.dims' is {dims}: they "
            "cannot be compared. Set it back, or delete the items that were embedded, or use another database."
        )
    yield FORGET_DIMS()
    yield SET_DIMS(dims=dims)


def encode_namespace(namespace: Sequence[str]) -> str:
    """Return *namespace* as it is stored."""
    return "".join(label + SEPARATOR for label in namespace)


def decode_namespace(stored: str) -> tuple[str, ...]:
    """Return the labels of a stored namespace."""
    return tuple(stored.split(SEPARATOR)[:-1])


def namespace_range(prefix: Sequence[str]) -> tuple[str, str]:
    """Return from where (inclusive) to where (exclusive) the namespaces lie that begin with *prefix*."""
    low = encode_namespace(prefix)
    return low, low[:-1] + _AFTER_SEPARATOR if low else _LAST


def encode_value(value: Mapping[str, Any]) -> bytes:
    """Return *value* as JSON.

    Raises:
        InvalidRequest: It is not JSON.
    """
    try:
        return orjson.dumps(dict(value))
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"A value of the store must be a JSON object: {error}") from error


def listed_range(conditions: Sequence[MatchCondition]) -> tuple[str, str]:
    """Return where the namespaces lie that can match all *conditions*."""
    paths = [condition.path for condition in conditions if condition.match_type == "prefix"]
    known = [tuple(itertools.takewhile(lambda label: label != "*", path)) for path in paths]
    return namespace_range(max(known, key=len, default=()))


def namespace_matches(namespace: tuple[str, ...], condition: MatchCondition) -> bool:
    """Return whether *namespace* begins (or ends) with the path; ``*`` stands for any one label."""
    path = tuple(condition.path)
    if len(namespace) < len(path):
        return False
    if condition.match_type == "prefix":
        part = namespace[: len(path)]
    elif condition.match_type == "suffix":
        part = namespace[len(namespace) - len(path) :]
    else:
        raise InvalidRequest(f"A namespace is matched by 'prefix' or 'suffix', not {condition.match_type!r}.")
    return all(wanted in ("*", label) for label, wanted in zip(part, path, strict=True))


def check_filter(wanted: Any) -> None:
    """Raise InvalidRequest if a filter uses an operator that does not exist, or costs too much to compare with."""
    check_size("filter", wanted)
    _check_operators(wanted)


def _check_operators(wanted: Any) -> None:
    if not isinstance(wanted, dict):
        return
    operators = any(key.startswith("$") for key in wanted)
    for key, inner in wanted.items():
        if operators and key not in OPERATORS:
            raise InvalidRequest(f"Filter operator {key!r} does not exist; use {', '.join(OPERATORS)}.")
        if not operators:
            _check_operators(inner)


def texts_of(wanted: Any) -> dict[str, bytes]:
    """Return two texts of which each value has one, as JSON, that is what a checked filter asks for.

    The database looks for them in a tenth of the time that it takes to compare a value here.
    """
    found = [(b"", b"")]
    if isinstance(wanted, dict) and not any(key.startswith("$") for key in wanted):
        found += [(inner["text"], inner["other"]) for inner in map(texts_of, wanted.values())]
    elif isinstance(wanted, bool):  # which is equal to the number
        found.append((b"true", b"1") if wanted else (b"false", b"0"))
    elif isinstance(wanted, str):
        found.append((needle_of(wanted).encode(),) * 2)
    text, other = max(found, key=lambda texts: len(min(texts, key=len)))
    return {"text": text, "other": other}


def value_matches(value: Any, wanted: Any) -> bool:
    """Return whether *value* is what a checked filter asks for: equal, or what the operators say, at any depth."""
    if isinstance(wanted, dict):
        if any(key.startswith("$") for key in wanted):
            return all(_compare(value, operator, operand) for operator, operand in wanted.items())
        return isinstance(value, dict) and all(value_matches(value.get(key), inner) for key, inner in wanted.items())
    if isinstance(wanted, list | tuple):
        return (
            isinstance(value, list)
            and len(value) == len(wanted)
            and all(value_matches(mine, inner) for mine, inner in zip(value, wanted, strict=True))
        )
    return bool(value == wanted)


def _compare(value: Any, operator: str, operand: Any) -> bool:
    if operator == "$eq":
        return bool(value == operand)
    if operator == "$ne":
        return bool(value != operand)
    pair = _comparable(value, operand)
    if pair is None:
        return False
    mine, other = pair
    if mine == other:
        return operator in ("$gte", "$lte")
    return bool((mine > other) == operator.startswith("$gt"))


def _comparable(value: Any, operand: Any) -> tuple[Any, Any] | None:
    """Return both as numbers if they can be read so, as texts if they are, else nothing: then no order holds."""
    try:
        return float(value), float(operand)
    except (TypeError, ValueError):
        return (value, operand) if isinstance(value, str) and isinstance(operand, str) else None
