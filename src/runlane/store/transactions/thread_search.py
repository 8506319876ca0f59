"""Find and count threads.

A search reads the narrowest of the indexes that can answer it: the owner's threads, or those that have a wanted
text in their metadata (``thread_terms``), in the order of their last change until the page is full. Rows are compared
with the whole filter in any case, so that an index may name too many threads, but never too few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from runlane.lifecycle import ThreadStatus
from runlane.records import NO_OWNER, AnyOwner, Json, Order, Owner, Thread
from runlane.store.conditions import IS_MINE
from runlane.store.filters import MATCHES, MATCHES_PG, check_size, filter_params, wanted_texts
from runlane.store.rows import dumps, owner_params, thread_record
from runlane.store.statements import Rows, Statement, Transaction, contains_in_postgres, statement

SORT_KEYS: Final = ("thread_id", "status", "created_at", "updated_at", "state_updated_at")

#: Index entries read at once.
PAGE = 500
#: Index entries counted at most when indexes are compared: an index with more is not narrow.
NARROW = 2_000
#: Terms of one filter that are compared; more would cost more than they could save.
MAX_TERMS = 8
MINUTE_US = 60_000_000
#: What ``thread_terms`` holds: longer keys and texts are not in it, nor those that JSON text escapes.
MAX_KEY = 64
MAX_TEXT = 256

_WANTED = f"""(CAST(:status AS TEXT) IS NULL OR status = :status)
  AND (CAST(:metadata AS TEXT) IS NULL OR json_contains(metadata, :metadata))
  AND (CAST(:state_values AS TEXT) IS NULL OR json_contains(state_values, :state_values))
  AND {MATCHES}"""
_WANTED_PG = f"""(CAST(:status AS TEXT) IS NULL OR status = :status)
  AND (CAST(:metadata AS TEXT) IS NULL OR {contains_in_postgres("metadata")})
  AND (CAST(:state_values AS TEXT) IS NULL OR {contains_in_postgres("state_values")})
  AND {MATCHES_PG}"""
#: Threads of stateless runs are not listed.
_LISTED = "temporary = 0"
_IN = "thread_id IN (SELECT value FROM json_each(:ids))"
_IN_PG = "thread_id IN (SELECT jsonb_array_elements_text(CAST(:ids AS jsonb)))"
#: Which threads are looked at, by the name of the index that is read.
_SCOPES: Final[Mapping[str, tuple[str, str]]] = {
    "all": (_LISTED, _LISTED),
    "owner": (f"owner = :owner AND {_LISTED}", f"owner = :owner AND {_LISTED}"),
    "ids": (f"{_IN} AND {IS_MINE} AND {_LISTED}", f"{_IN_PG} AND {IS_MINE} AND {_LISTED}"),
}


def _filtered(name: str, select: str, scope: str, tail: str = "") -> Statement:
    lite, postgres = _SCOPES[scope]
    return statement(
        name,
        f"SELECT {select} FROM threads WHERE {lite} AND {_WANTED} {tail}",
        postgres=f"SELECT {select} FROM threads WHERE {postgres} AND {_WANTED_PG} {tail}",
    )


SEARCH_THREADS: Final = {
    (scope, key, order): _filtered(
        f"search_threads_{scope}_{key}_{order}",
        "*",
        scope,
        f"ORDER BY {key} {order}, thread_id {order} LIMIT :limit OFFSET :offset",
    )
    for scope in _SCOPES
    for key in SORT_KEYS
    for order in ("asc", "desc")
}
COUNT_THREADS: Final = {
    scope: statement(
        f"count_threads_{scope}",
        f"SELECT COUNT(*) AS n FROM ({_filtered('', '1', scope, 'LIMIT :limit').sqlite}) AS found",
        postgres=f"SELECT COUNT(*) AS n FROM (SELECT 1 FROM threads WHERE {_SCOPES[scope][1]} AND {_WANTED_PG}"
        " LIMIT :limit) AS found",
    )
    for scope in _SCOPES
}
# In the order of their ids, those of stateless runs too.
_TAIL = "ORDER BY thread_id LIMIT :limit"
ALL_THREADS: Final = statement(
    "all_threads",
    f"SELECT * FROM threads WHERE {IS_MINE} AND thread_id > :after AND {_WANTED} {_TAIL}",
    postgres=f"SELECT * FROM threads WHERE {IS_MINE} AND thread_id > :after AND {_WANTED_PG} {_TAIL}",
)
SORTED_KEYS: Final = {key: _filtered(f"sorted_keys_{key}", f"thread_id, {key}", "ids") for key in SORT_KEYS}
GET_THREADS: Final = statement(
    "get_threads", f"SELECT * FROM threads WHERE {_IN}", postgres=f"SELECT * FROM threads WHERE {_IN_PG}"
)
COUNT_OWNED: Final = statement(
    "count_owned", "SELECT COUNT(*) AS n FROM (SELECT 1 FROM threads WHERE owner = :owner LIMIT :limit) AS found"
)
COUNT_TERM: Final = statement(
    "count_term", "SELECT COUNT(*) AS n FROM (SELECT 1 FROM thread_terms WHERE term = :term LIMIT :limit) AS found"
)
# Threads with a term, in the order of the minute of their last change, from a cursor on.
READ_TERM: Final = {
    order: statement(
        f"read_term_{order}",
        f"""SELECT minute, thread_id FROM thread_terms
            WHERE term = :term AND (minute, thread_id) {after} (:minute, :thread_id)
            ORDER BY minute {order}, thread_id {order} LIMIT :limit""",
    )
    for order, after in (("asc", ">"), ("desc", "<"))
}

_TERMS = """SELECT key || '=' || value AS term FROM json_each(threads.metadata)
            WHERE type = 'text' AND length(key) <= 64 AND length(value) <= 256"""
_TERMS_PG = "SELECT thread_terms_of(threads.metadata) AS term"
_NOT_IN_INDEX = f"""EXISTS (SELECT 1 FROM ({{terms}}) AS wanted WHERE NOT EXISTS (
  SELECT 1 FROM thread_terms AS t WHERE t.term = wanted.term AND t.minute = threads.updated_at / {MINUTE_US}
    AND t.thread_id = threads.thread_id))"""
FIND_NOT_IN_INDEX: Final = statement(
    "doctor.find_not_in_index",
    f"""SELECT thread_id FROM threads WHERE thread_id > :after AND thread_id <= :upto
        AND temporary = 0 AND {_NOT_IN_INDEX.format(terms=_TERMS)} ORDER BY thread_id""",
    postgres=f"""SELECT thread_id FROM threads WHERE thread_id > :after AND thread_id <= :upto
        AND temporary = 0 AND {_NOT_IN_INDEX.format(terms=_TERMS_PG)} ORDER BY thread_id""",
)
# Guard: the index does not have the term.
ADD_TO_INDEX: Final = statement(
    "doctor.add_to_index",
    f"""INSERT INTO thread_terms (term, minute, thread_id)
        SELECT wanted.term, threads.updated_at / {MINUTE_US}, threads.thread_id FROM threads, (
          SELECT key || '=' || value AS term FROM threads AS one, json_each(one.metadata)
          WHERE one.thread_id = :thread_id AND type = 'text' AND length(key) <= 64 AND length(value) <= 256) AS wanted
        WHERE threads.thread_id = :thread_id ON CONFLICT DO NOTHING RETURNING thread_id""",
    postgres=f"""INSERT INTO thread_terms (term, minute, thread_id)
        SELECT thread_terms_of(metadata), updated_at / {MINUTE_US}, thread_id FROM threads
        WHERE thread_id = :thread_id ON CONFLICT DO NOTHING RETURNING thread_id""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadFilter:
    """A filter on threads: each given condition must hold; mappings match as PostgreSQL's ``@>``, *where* is a filter.

    Raises:
        InvalidRequest: A mapping is too large or too deep to compare every thread with.
    """

    ids: tuple[str, ...] | None = None
    status: ThreadStatus | None = None
    metadata: Json | None = None
    values: Json | None = None
    where: Json | None = None

    def __post_init__(self) -> None:
        check_size("metadata", self.metadata)
        check_size("values", self.values)

    def params(self) -> dict[str, Any]:
        return {
            "status": None if self.status is None else self.status.value,
            "metadata": dumps(self.metadata) if self.metadata else None,
            "state_values": dumps(self.values) if self.values else None,
            **filter_params(self.where),
        }

    def terms(self) -> list[str]:
        """Return terms that every thread has that matches."""
        texts = [(key, text) for key, text in (self.metadata or {}).items() if isinstance(text, str)]
        texts.extend(wanted_texts(self.where or {}))
        return [f"{key}={text}" for key, text in texts if _in_index(key, text)][:MAX_TERMS]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadPage:
    """A page of a search, and how many threads match in all, counted as far as was asked."""

    threads: tuple[Thread, ...]
    total: int


def _in_index(key: str, text: str) -> bool:
    # Both databases keep these as they are; PostgreSQL changes an escaped NUL, and SQLite leaves escapes in keys.
    plain = key.isprintable() and not {'"', "\\"} & set(key) and not {"\0", "\\"} & set(text)
    return plain and len(key) <= MAX_KEY and len(text) <= MAX_TEXT


def search_threads(
    owner: Owner, where: ThreadFilter, *, sort_by: str, order: Order, limit: int, offset: int
) -> Transaction[tuple[Thread, ...]]:
    """Return threads that match *where*, sorted, ties by id."""
    page = yield from page_threads(
        owner, where, sort_by=sort_by, order=order, limit=limit, offset=offset, count_at_most=0
    )
    return page.threads


def page_threads(
    owner: Owner, where: ThreadFilter, *, sort_by: str, order: Order, limit: int, offset: int, count_at_most: int
) -> Transaction[ThreadPage]:
    """Return a page of the threads that match *where*, sorted, ties by id, and count all that do."""
    params = {**where.params(), **owner_params(owner), "ids": dumps(where.ids or ())}
    scope, term = yield from _narrowest(owner, where, in_order=sort_by == "updated_at")
    if term is not None:
        enough = max(offset + limit, count_at_most)
        found = yield from _read_term(term, params, sort_by=sort_by, order=order, enough=enough)
        chosen = [thread_id for _, thread_id in found[offset : offset + limit]]
        rows = yield GET_THREADS(ids=dumps(chosen))
        by_id = {row["thread_id"]: row for row in rows}
        threads = tuple(thread_record(by_id[thread_id]) for thread_id in chosen if thread_id in by_id)
        return ThreadPage(threads=threads, total=min(count_at_most, len(found)))
    rows = yield SEARCH_THREADS[scope, sort_by, order](limit=limit, offset=offset, **params)
    total = offset + len(rows)
    is_last_page = len(rows) < limit and (rows or not offset)
    if count_at_most and not is_last_page:
        total = (yield COUNT_THREADS[scope](limit=count_at_most, **params))[0]["n"]
    return ThreadPage(threads=tuple(thread_record(row) for row in rows), total=min(count_at_most, total))


def all_threads(owner: Owner, where: ThreadFilter, after: str, limit: int) -> Transaction[tuple[Thread, ...]]:
    """Return threads that match *where*, those of stateless runs too, with ids above *after*, in their order."""
    rows = yield ALL_THREADS(after=after, limit=limit, **where.params(), **owner_params(owner))
    return tuple(thread_record(row) for row in rows)


def count_threads(owner: Owner, where: ThreadFilter, *, at_most: int | None = None) -> Transaction[int]:
    """Count threads that match *where*, or as many as *at_most*."""
    limit = 2**62 if at_most is None else at_most
    params = {**where.params(), **owner_params(owner), "ids": dumps(where.ids or ())}
    scope, term = yield from _narrowest(owner, where, in_order=limit <= NARROW)
    if term is None:
        rows = yield COUNT_THREADS[scope](limit=limit, **params)
        count: int = rows[0]["n"]
        return count
    found = yield from _read_term(term, params, sort_by="updated_at", order="desc", enough=limit)
    return min(limit, len(found))


def _narrowest(owner: Owner, where: ThreadFilter, *, in_order: bool) -> Transaction[tuple[str, str | None]]:
    """Return the scope to search, and the term to read instead if that names fewer threads.

    Args:
        in_order: Only the first threads of a term are wanted, in the order of the index, so that it may name many.
    """
    if where.ids is not None:
        return "ids", None
    scope, fewest = "all", NARROW + 1
    if not isinstance(owner, AnyOwner):
        scope = "owner"
        # The single tenant of an application without tenants has all threads; then a term is never the wider index.
        fewest = (yield COUNT_OWNED(owner=owner, limit=NARROW))[0]["n"] + (owner == NO_OWNER)
    chosen: str | None = None
    for term in where.terms():
        if fewest < PAGE:
            break
        number = (yield COUNT_TERM(term=term, limit=NARROW))[0]["n"]
        if number < fewest and (number < NARROW or in_order):
            chosen, fewest = term, number
    return scope, chosen


def _read_term(
    term: str, params: Mapping[str, Any], *, sort_by: str, order: Order, enough: int
) -> Transaction[list[tuple[Any, str]]]:
    """Return at least the first *enough* sort keys and ids of matching threads with *term*, sorted.

    In the order of their last change, which the index has to the minute, no more than needed are read.
    """
    descending = order == "desc"
    found: list[tuple[Any, str]] = []
    minute, thread_id = (2**62, "") if descending else (-1, "")
    while True:
        page: Rows = yield READ_TERM[order](term=term, minute=minute, thread_id=thread_id, limit=PAGE)
        if page:
            ids = dumps([row["thread_id"] for row in page])
            rows = yield SORTED_KEYS[sort_by](**{**params, "ids": ids})
            found.extend((row[sort_by], row["thread_id"]) for row in rows)
            minute, thread_id = page[-1]["minute"], page[-1]["thread_id"]
        full = sort_by == "updated_at" and len(found) >= enough > 0
        if full or len(page) < PAGE:
            found.sort(reverse=descending)
        if len(page) < PAGE or (full and found[enough - 1][0] // MINUTE_US != minute):
            return found


def add_to_index(found: Mapping[str, Any]) -> Transaction[bool]:
    """Add the terms that a thread has and the index does not; ``False`` if there are none."""
    return bool((yield ADD_TO_INDEX(thread_id=found["thread_id"])))
