"""Assistants and their versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runlane.errors import AlreadyExists, NotFound
from runlane.records import Assistant, Json, Order, Owner
from runlane.store.conditions import IS_MINE
from runlane.store.filters import MATCHES, MATCHES_PG, check_size, filter_params
from runlane.store.rows import assistant_record, dumps, loads, owner_params
from runlane.store.statements import Row, Statement, Transaction, contains_in_postgres, statement

# System assistants belong to nobody in particular: everybody sees them, and a tenant does not change them.
_MINE = f"({IS_MINE} OR owner = '*')"
_MINE_TO_CHANGE = f"({IS_MINE} OR (:owner = '' AND owner = '*'))"
SHARED_OWNER = "*"
SORT_KEYS = ("assistant_id", "created_at", "updated_at", "name", "graph_id")
_COLUMNS = "assistant_id, version, graph_id, name, description, config, context, metadata, created_at"

GET_ASSISTANT = statement(
    "get_assistant", f"SELECT {{assistant}} FROM assistants WHERE assistant_id = :assistant_id AND {_MINE}"
)
LOCK_ASSISTANT = statement(
    "lock_assistant",
    f"SELECT {{assistant}} FROM assistants WHERE assistant_id = :assistant_id AND {_MINE_TO_CHANGE} {{for_update}}",
)
# Guard: the id is free.
INSERT_ASSISTANT = statement(
    "insert_assistant",
    """INSERT INTO assistants (assistant_id, owner, version, graph_id, name, description, config, context, metadata,
                               created_at, updated_at)
       VALUES (:assistant_id, :owner, 1, :graph_id, :name, :description, :config, :context, :metadata, {now}, {now})
       ON CONFLICT (assistant_id) DO NOTHING RETURNING {assistant}""",
)
# Called under the lock of the assistant, which has just been made or changed.
KEEP_VERSION = statement(
    "keep_version",
    f"""INSERT INTO assistant_versions ({_COLUMNS})
        SELECT assistant_id, version, graph_id, name, description, config, context, metadata, updated_at
        FROM assistants WHERE assistant_id = :assistant_id""",
)
NEXT_VERSION = statement(
    "next_version", "SELECT MAX(version) + 1 AS version FROM assistant_versions WHERE assistant_id = :assistant_id"
)
# Called under the assistant's lock.
CHANGE_ASSISTANT = statement(
    "change_assistant",
    """UPDATE assistants SET version = :version, graph_id = :graph_id, name = :name, description = :description,
         config = :config, context = :context, metadata = :metadata, updated_at = {now}
       WHERE assistant_id = :assistant_id RETURNING {assistant}""",
)
GET_VERSION = statement(
    "get_version",
    f"SELECT {_COLUMNS} FROM assistant_versions WHERE assistant_id = :assistant_id AND version = :version",
)
_VERSION_TAIL = "ORDER BY version DESC LIMIT :limit OFFSET :offset"
LIST_VERSIONS = statement(
    "list_versions",
    f"""SELECT {_COLUMNS}, created_at AS updated_at, :for_owner AS owner FROM assistant_versions
        WHERE assistant_id = :assistant_id
          AND (CAST(:metadata AS TEXT) IS NULL OR json_contains(metadata, :metadata)) {_VERSION_TAIL}""",
    postgres=f"""SELECT {_COLUMNS}, created_at AS updated_at, CAST(:for_owner AS TEXT) AS owner FROM assistant_versions
        WHERE assistant_id = :assistant_id
          AND (CAST(:metadata AS TEXT) IS NULL OR {contains_in_postgres("metadata")}) {_VERSION_TAIL}""",
)
# Both are called under the assistant's lock.
DELETE_ASSISTANT = statement("delete_assistant", "DELETE FROM assistants WHERE assistant_id = :assistant_id")
DELETE_VERSIONS = statement("delete_versions", "DELETE FROM assistant_versions WHERE assistant_id = :assistant_id")

_FILTER = f"""FROM assistants WHERE {_MINE}
  AND (CAST(:graph_id AS TEXT) IS NULL OR graph_id = :graph_id)
  AND (CAST(:name AS TEXT) IS NULL OR lower(name) LIKE :name ESCAPE '\\')
  AND (CAST(:metadata AS TEXT) IS NULL OR json_contains(metadata, :metadata))
  AND {MATCHES}"""
_FILTER_PG = _FILTER.replace("json_contains(metadata, :metadata)", contains_in_postgres("metadata")).replace(
    MATCHES, MATCHES_PG
)
COUNT_ASSISTANTS = statement(
    "count_assistants", f"SELECT COUNT(*) AS n {_FILTER}", postgres=f"SELECT COUNT(*) AS n {_FILTER_PG}"
)


def _search(key: str, order: str) -> Statement:
    tail = f"ORDER BY {key} {order}, assistant_id {order} LIMIT :limit OFFSET :offset"
    return statement(
        f"search_assistants_{key}_{order}",
        f"SELECT {{assistant}} {_FILTER} {tail}",
        postgres=f"SELECT {{assistant}} {_FILTER_PG} {tail}",
    )


SEARCH_ASSISTANTS = {(key, order): _search(key, order) for key in SORT_KEYS for order in ("asc", "desc")}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAssistant:
    """An assistant to be made. ``SHARED_OWNER`` makes one that every owner sees."""

    assistant_id: str
    owner: str
    graph_id: str
    name: str = "Untitled"
    description: str | None = None
    config: Json
    context: Json
    metadata: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantFilter:
    """A filter on assistants; ``name`` is part of the name, whatever its case, *where* a filter on metadata."""

    graph_id: str | None = None
    name: str | None = None
    metadata: Json | None = None
    where: Json | None = None

    def __post_init__(self) -> None:
        check_size("metadata", self.metadata)

    def params(self) -> dict[str, Any]:
        name = self.name
        if name is not None:
            for special in ("\\", "%", "_"):
                name = name.replace(special, f"\\{special}")
            name = f"%{name.lower()}%"
        return {
            "graph_id": self.graph_id,
            "name": name,
            "metadata": dumps(self.metadata) if self.metadata else None,
            **filter_params(self.where),
        }


def create_assistant(new: NewAssistant, *, if_exists_return: bool) -> Transaction[Assistant]:
    """Create version 1 of an assistant; an existing one is returned with *if_exists_return*.

    Raises:
        AlreadyExists: The id is taken.
    """
    insert = INSERT_ASSISTANT(
        assistant_id=new.assistant_id,
        owner=new.owner,
        graph_id=new.graph_id,
        name=new.name,
        description=new.description,
        config=dumps(new.config),
        context=dumps(new.context),
        metadata=dumps(new.metadata),
    )
    made = yield insert
    if not made and if_exists_return:
        found = yield GET_ASSISTANT(assistant_id=new.assistant_id, **owner_params(new.owner))
        if found:
            return assistant_record(found[0])
        made = yield insert  # it is another owner's, or was deleted in between
    if not made:
        raise AlreadyExists("assistant", new.assistant_id)
    yield KEEP_VERSION(assistant_id=new.assistant_id)
    return assistant_record(made[0])


def get_assistant(assistant_id: str, owner: Owner) -> Transaction[Assistant]:
    """Return the assistant, or raise NotFound."""
    row = yield from _mine(assistant_id, owner)
    return assistant_record(row)


def _mine(assistant_id: str, owner: Owner, read: Statement = GET_ASSISTANT) -> Transaction[Row]:
    rows = yield read(assistant_id=assistant_id, **owner_params(owner))
    if not rows:
        raise NotFound("assistant", assistant_id)
    return rows[0]


def update_assistant(assistant_id: str, owner: Owner, changes: Mapping[str, Any]) -> Transaction[Assistant]:
    """Make a new version with *changes* (any of the columns); metadata is merged shallowly."""
    row = yield from _mine(assistant_id, owner, LOCK_ASSISTANT)
    following = yield NEXT_VERSION(assistant_id=assistant_id)
    columns = {name: row[name] for name in ("graph_id", "name", "description", "config", "context", "metadata")}
    for name, value in changes.items():
        merged = {**loads(row["metadata"]), **value} if name == "metadata" else value
        columns[name] = dumps(merged) if name in ("config", "context", "metadata") else merged
    rows = yield CHANGE_ASSISTANT(assistant_id=assistant_id, version=following[0]["version"], **columns)
    yield KEEP_VERSION(assistant_id=assistant_id)
    return assistant_record(rows[0])


def set_latest(assistant_id: str, owner: Owner, version: int) -> Transaction[Assistant]:
    """Make *version* the current one, with all that it had."""
    yield from _mine(assistant_id, owner, LOCK_ASSISTANT)
    found = yield GET_VERSION(assistant_id=assistant_id, version=version)
    if not found:
        raise NotFound("assistant version", f"{assistant_id} v{version}")
    names = ("version", "graph_id", "name", "description", "config", "context", "metadata")
    rows = yield CHANGE_ASSISTANT(assistant_id=assistant_id, **{name: found[0][name] for name in names})
    return assistant_record(rows[0])


def list_versions(
    assistant_id: str, owner: Owner, metadata: Json | None, limit: int, offset: int
) -> Transaction[tuple[Assistant, ...]]:
    """Return the versions, newest first."""
    row = yield from _mine(assistant_id, owner)
    rows = yield LIST_VERSIONS(
        assistant_id=assistant_id,
        for_owner=row["owner"],
        metadata=dumps(metadata) if metadata else None,
        limit=limit,
        offset=offset,
    )
    return tuple(assistant_record(one) for one in rows)


def search_assistants(
    owner: Owner, where: AssistantFilter, *, sort_by: str, order: Order, limit: int, offset: int
) -> Transaction[tuple[Assistant, ...]]:
    """Return assistants that match *where*, sorted, ties by id."""
    rows = yield SEARCH_ASSISTANTS[sort_by, order](limit=limit, offset=offset, **where.params(), **owner_params(owner))
    return tuple(assistant_record(row) for row in rows)


def count_assistants(owner: Owner, where: AssistantFilter) -> Transaction[int]:
    """Count assistants that match *where*."""
    rows = yield COUNT_ASSISTANTS(**where.params(), **owner_params(owner))
    count: int = rows[0]["n"]
    return count


def delete_assistant(assistant_id: str, owner: Owner) -> Transaction[None]:
    """Delete an assistant with its versions; its runs stay."""
    yield from _mine(assistant_id, owner, LOCK_ASSISTANT)
    yield DELETE_VERSIONS(assistant_id=assistant_id)
    yield DELETE_ASSISTANT(assistant_id=assistant_id)
