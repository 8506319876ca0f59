"""Saved views: queries of the console's pages, under the names that people gave them.

A view belongs to the owner, or to the operator, who saved it: one of each may have the same name. Operators can share
theirs with all operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from runlane.errors import InvalidRequest, NotFound, ViewChanged
from runlane.store.rows import instant
from runlane.store.statements import Row, Transaction, statement

#: Views of one owner or operator; and how many are read at once, with those that others share.
MAX_VIEWS: Final = 100
_MAX_READ: Final = 1_000

_COLUMNS: Final = "page, name, query, shared, owner, revision, updated_at"
_KEY: Final = "by_operator = :by_operator AND owner = :owner AND page = :page AND name = :name"
_OF_PAGE: Final = "(CAST(:page AS TEXT) IS NULL OR page = :page)"
# Those of others are looked for among operators' only, which are few.
VIEWS = statement(
    "views",
    f"""SELECT {_COLUMNS} FROM saved_views WHERE by_operator = :by_operator AND owner = :owner AND {_OF_PAGE}
        UNION ALL SELECT {_COLUMNS} FROM saved_views
        WHERE by_operator = 1 AND :by_operator = 1 AND shared = 1 AND owner <> :owner AND {_OF_PAGE}
        ORDER BY page, name, owner LIMIT :limit""",
)
VIEW = statement("view", f"SELECT {_COLUMNS} FROM saved_views WHERE {_KEY}")
COUNT_VIEWS = statement(
    "count_views", "SELECT COUNT(*) AS n FROM saved_views WHERE by_operator = :by_operator AND owner = :owner"
)
# Guard: it is as it was seen.
CHANGE_VIEW = statement(
    "change_view",
    f"""UPDATE saved_views SET query = :query, shared = :shared, revision = revision + 1, updated_at = {{now}}
        WHERE {_KEY} AND revision = :revision RETURNING {_COLUMNS}""",
)
# Guard: there is none.
ADD_VIEW = statement(
    "add_view",
    f"""INSERT INTO saved_views (by_operator, owner, page, name, query, shared, revision, updated_at)
        VALUES (:by_operator, :owner, :page, :name, :query, :shared, 1, {{now}})
        ON CONFLICT (by_operator, owner, page, name) DO NOTHING RETURNING {_COLUMNS}""",
)
# Guard: none; it is the owner's view of this name.
DELETE_VIEW = statement("delete_view", f"DELETE FROM saved_views WHERE {_KEY} RETURNING name")


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewOwner:
    """Whose views are meant: an owner's, or an operator's, who sees those that other operators share too."""

    name: str
    operates: bool

    def params(self) -> dict[str, str | int]:
        return {"owner": self.name, "by_operator": int(self.operates)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedView:
    """A view; ``query`` is that of its page's address, ``revision`` counts its changes from 1."""

    page: str
    name: str
    query: str
    shared: bool
    owner: str
    revision: int
    updated_at: datetime


def views(owner: ViewOwner, page: str | None) -> Transaction[tuple[SavedView, ...]]:
    """Return the views of *owner* and those that are shared with them, of one page or of all."""
    rows = yield VIEWS(**owner.params(), page=page, limit=_MAX_READ)
    return tuple(_view(row) for row in rows)


def put_view(owner: ViewOwner, page: str, name: str, query: str, shared: bool, revision: int) -> Transaction[SavedView]:
    """Save a view of which *owner* has seen this *revision*, 0 for a new one; repeating it changes nothing more.

    Raises:
        ViewChanged: It has been changed, or made, meanwhile.
        NotFound: It has been deleted meanwhile.
        InvalidRequest: They have as many as they may.
    """
    key = {**owner.params(), "page": page, "name": name}
    content = {"query": query, "shared": int(shared)}
    changed = yield CHANGE_VIEW(**key, **content, revision=revision)
    if changed:
        return _view(changed[0])
    if not revision and not (yield VIEW(**key)):
        [count] = yield COUNT_VIEWS(**owner.params())
        if count["n"] >= MAX_VIEWS:
            raise InvalidRequest(f"You have {MAX_VIEWS} saved views, as many as you may: delete one first.")
        added = yield ADD_VIEW(**key, **content)
        if added:
            return _view(added[0])
    found = yield VIEW(**key)
    if not found:
        raise NotFound("view", name)
    view = _view(found[0])
    if view.revision != revision + 1 or (view.query, view.shared) != (query, shared):
        raise ViewChanged(name, view.revision)
    return view


def delete_view(owner: ViewOwner, page: str, name: str) -> Transaction[None]:
    """Delete a view of *owner*.

    Raises:
        NotFound: They have none of this name.
    """
    if not (yield DELETE_VIEW(**owner.params(), page=page, name=name)):
        raise NotFound("view", name)


def _view(row: Row) -> SavedView:
    return SavedView(
        page=row["page"],
        name=row["name"],
        query=row["query"],
        shared=bool(row["shared"]),
        owner=row["owner"],
        revision=row["revision"],
        updated_at=instant(row["updated_at"]),
    )
