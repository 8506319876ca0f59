"""Find and count threads.

A search reads the narrowest of the indexes that can answer it: the owner's threads, those that are busy, interrupted or
have failed, or those that have a wanted text in their metadata (``thread_terms``), in the order of their last change
until the page is full. Rows are compared with the whole filter in any case, so that an index may name too many threads,
but never too few. Only then are the threads of the page read, with their values if they are wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any, Final

from runlane.lifecycle import ThreadStatus
from runlane.records import NO_OWNER, AnyOwner, Json, Order, Owner, Thread
from runlane.store.conditions import IS_ACTIVE, IS_MINE, IS_MINE_TOO
from runlane.store.filters import MATCHES, MATCHES_PG, check_size, contains, filter_params, needle_of, wanted_texts
from runlane.store.rows import dumps, loads, microseconds, owner_params, thread_record
from runlane.store.statements import Row, Rows, Statement, Transaction, contains_in_postgres, listed, statement
from runlane.store.transactions.values import thread_of, value_of

#: What is read of a thread whose values are not wanted.
BARE_COLUMNS: Final = (
    "thread_id",
    "owner",
    "status",
    "metadata",
    "config",
    "interrupts",
    "error",
    "created_at",
    "updated_at",
    "state_updated_at",
    "state_order",
    "ttl_us",
    "ttl_strategy",
)
SORT_KEYS: Final = ("thread_id", "status", "created_at", "updated_at", "state_updated_at")

#: Index entries read at once.
PAGE = 500
#: Index entries counted at most when indexes are compared: an index with more is not narrow.
NARROW = 2_000
#: The same, where all indexes have as many: an owner with very many threads may have none of what a few thousand have.
WIDE = 5_000
#: Terms of one filter that are compared; more would cost more than they could save.
MAX_TERMS = 8
MINUTE_US = 60_000_000
#: What ``thread_terms`` holds: longer keys and texts are not in it, nor those that JSON text escapes.
MAX_KEY = 64
MAX_TEXT = 256
#: JSON text has smaller whole numbers as their digits, also those that were given with a fraction of zero.
MAX_DIGITS_VALUE = 10**15

_STATUS = "(CAST(:status AS TEXT) IS NULL OR status = :status)"
# Metadata is compared as JSON where it has the needle, which the database looks for without parsing anything.
_WANTED = (
    f"""{_STATUS} AND (CAST(:metadata AS TEXT) IS NULL
          OR CASE WHEN instr(metadata, :needle) THEN json_contains(metadata, :metadata) ELSE 0 END) AND {MATCHES}""",
    f"""{_STATUS} AND (CAST(:metadata AS TEXT) IS NULL
          OR CASE WHEN strpos(metadata, :needle) > 0 THEN {contains_in_postgres("metadata")} ELSE FALSE END)
        AND {MATCHES_PG}""",
)
#: Only in searches by values, so that no other reads the column.
#: Whether those that are a document match is decided once they are read.
_VALUES = (
    "(state_refs IS NOT NULL OR json_contains(state_values, :state_values))",
    f"(state_refs IS NOT NULL OR {contains_in_postgres('state_values')})",
)
#: Threads of stateless runs are not listed.
_LISTED = "temporary = 0"
_IN = "thread_id IN (SELECT value FROM json_each(:ids))"
_IN_PG = "thread_id IN (SELECT jsonb_array_elements_text(CAST(:ids AS jsonb)))"
#: Statuses of an index of their own, which has this condition.
UNSETTLED: Final = frozenset({ThreadStatus.ERROR, ThreadStatus.INTERRUPTED})
_UNSETTLED = f"status IN {listed(UNSETTLED)} AND status = :status AND {_LISTED}"
_UNSETTLED_OF_OWNER = f"owner = :owner AND {_UNSETTLED}"
#: A thread is busy while it has an active run. PostgreSQL, which expects few threads that are, would read all of them.
_BUSY = f"status = :status AND {IS_MINE_TOO} AND {_LISTED}"
_ACTIVE = f"SELECT thread_id FROM runs WHERE {IS_ACTIVE}"
#: Which threads are looked at, by the name of the index that is read.
_SCOPES: Final[Mapping[str, tuple[str, str]]] = {
    "all": (_LISTED, _LISTED),
    "owner": (f"owner = :owner AND {_LISTED}", f"owner = :owner AND {_LISTED}"),
    "unsettled": (_UNSETTLED, _UNSETTLED),
    "unsettled_of_owner": (_UNSETTLED_OF_OWNER, _UNSETTLED_OF_OWNER),
    "busy": (f"thread_id IN ({_ACTIVE}) AND {_BUSY}", f"thread_id = ANY (ARRAY({_ACTIVE})) AND {_BUSY}"),
    "ids": (f"{_IN} AND {IS_MINE_TOO} AND {_LISTED}", f"{_IN_PG} AND {IS_MINE_TOO} AND {_LISTED}"),
}


def _conditions(scope: str, *, values: bool) -> tuple[str, str]:
    """Return which threads are wanted, in SQLite and PostgreSQL; *values*: the filter has some."""
    conditions = [_SCOPES[scope], _WANTED, *([_VALUES] if values else [])]
    lite, postgres = (" AND ".join(one) for one in zip(*conditions, strict=True))
    return lite, postgres


@cache
def _search(scope: str, sort_by: str, order: Order, *, values: bool, after: bool) -> Statement:
    """Return the statement that finds the ids of a page; *after*: of one that follows a place."""
    lite, postgres = _conditions(scope, values=values)
    select = "SELECT thread_id FROM threads WHERE"
    tail = f"ORDER BY {sort_by} {order}, thread_id {order} LIMIT :limit OFFSET :offset"
    name = f"search_threads_{scope}_{sort_by}_{order}"
    if after:
        tail = f"AND ({sort_by}, thread_id) {'<' if order == 'desc' else '>'} (:after_key, :after_id) {tail}"
        name = f"{name}_after"
    return statement(name, f"{select} {lite} {tail}", postgres=f"{select} {postgres} {tail}")


@cache
def _count(scope: str, *, values: bool) -> Statement:
    lite, postgres = _conditions(scope, values=values)
    sql = "SELECT COUNT(*) AS n FROM (SELECT 1 FROM threads WHERE {} LIMIT :limit) AS found"
    return statement(f"count_threads_{scope}", sql.format(lite), postgres=sql.format(postgres))


@cache
def _sorted_keys(sort_by: str, *, values: bool) -> Statement:
    """Return the statement that reads what threads with an id in ``:ids`` are sorted by."""
    lite, postgres = _conditions("ids", values=values)
    select = f"SELECT thread_id, {sort_by} FROM threads WHERE"
    return statement(f"sorted_keys_{sort_by}", f"{select} {lite}", postgres=f"{select} {postgres}")


@cache
def _all(*, values: bool) -> Statement:
    """Return the statement that reads threads in the order of their ids, those of stateless runs too."""
    lite, postgres = (f"{_WANTED[n]}{f' AND {_VALUES[n]}' if values else ''}" for n in (0, 1))
    sql = f"""SELECT {{{{thread}}}} FROM threads WHERE {IS_MINE} AND thread_id > :after AND {{}}
        ORDER BY thread_id LIMIT :limit"""
    return statement("all_threads", sql.format(lite), postgres=sql.format(postgres))


GET_THREADS: Final = statement(
    "get_threads",
    f"SELECT {{thread}} FROM threads WHERE {_IN}",
    postgres=f"SELECT {{thread}} FROM threads WHERE {_IN_PG}",
)
# The same rows without what can be large: a column that is not asked for is not read.
_BARE = f"""SELECT {", ".join(BARE_COLUMNS)}, NULL AS state_values, NULL AS first_values FROM threads WHERE """
GET_BARE_THREADS: Final = statement("get_bare_threads", _BARE + _IN, postgres=_BARE + _IN_PG)
# How many threads there are about in a scope.
_COUNT = "SELECT COUNT(*) AS n FROM (SELECT 1 FROM {rows} LIMIT :limit) AS found"
_COUNT_SCOPE: Final = {
    "owner": statement("count_owned", _COUNT.format(rows="threads WHERE owner = :owner")),
    "unsettled": statement("count_unsettled", _COUNT.format(rows=f"threads WHERE {_UNSETTLED}")),
    "unsettled_of_owner": statement(
        "count_unsettled_of_owner", _COUNT.format(rows=f"threads WHERE {_UNSETTLED_OF_OWNER}")
    ),
    "busy": statement("count_active", _COUNT.format(rows=f"runs WHERE {IS_ACTIVE}")),
}
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
            "needle": needle(self.metadata or {}),
            "state_values": dumps(self.values) if self.values else None,
            **filter_params(self.where),
        }

    def terms(self) -> list[str]:
        """Return terms that every thread has that matches."""
        texts = [(key, text) for key, text in (self.metadata or {}).items() if isinstance(text, str)]
        texts.extend(wanted_texts(self.where or {}))
        return [f"{key}={text}" for key, text in texts if _in_index(key, text)][:MAX_TERMS]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadPlace:
    """A place among sorted threads: right behind one that had this id and was sorted by this *key*."""

    key: str | int
    thread_id: str

    def precedes(self, key: str | int, thread_id: str, order: Order) -> bool:
        """Return whether a thread with this key and id comes after it."""
        here, there = (self.key, self.thread_id), (key, thread_id)
        return here > there if order == "desc" else here < there


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadPage:
    """A page of a search, and how many threads match in all, counted as far as was asked."""

    threads: tuple[Thread, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Which of the threads that match are wanted: *limit* from *offset* on, and how many are counted.

    Args:
        after: Only threads behind this place, and counted too; a page costs no more however deep that is.
    """

    sort_by: str
    order: Order
    limit: int
    offset: int
    count_at_most: int = 0
    after: ThreadPlace | None = None


def _in_index(key: str, text: str) -> bool:
    # Both databases keep these as they are; PostgreSQL changes an escaped NUL, and SQLite leaves escapes in keys.
    plain = key.isprintable() and not {'"', "\\"} & set(key) and not {"\0", "\\"} & set(text)
    return plain and len(key) <= MAX_KEY and len(text) <= MAX_TEXT


def needle(metadata: Json) -> str:
    """Return a text that is part of the JSON text of all that contains *metadata*; the longest that is known."""
    texts = [""]
    for value in metadata.values():
        if isinstance(value, str):
            texts.append(needle_of(value))
        elif type(value) is int and 0 < abs(value) < MAX_DIGITS_VALUE:
            texts.append(str(abs(value)))
    return max(texts, key=len)


def place_of(thread: Thread, sort_by: str) -> ThreadPlace:
    """Return the place right behind *thread* among threads that are sorted by *sort_by*."""
    key = getattr(thread, sort_by)
    return ThreadPlace(key=microseconds(key) if isinstance(key, datetime) else str(key), thread_id=thread.thread_id)


def page_threads(owner: Owner, where: ThreadFilter, page: PageRequest, *, with_values: bool) -> Transaction[ThreadPage]:
    """Return a page of the threads that match *where*, sorted, ties by id, and count all that do.

    Args:
        with_values: Whether the threads have their values, which can be large.
    """
    thread_ids, total = yield from (_page_by_values if where.values else _page)(owner, where, page)
    threads = []
    for row in (yield from _rows(thread_ids, GET_THREADS if with_values else GET_BARE_THREADS)):
        thread = (yield from thread_of(row)) if with_values else thread_record(row)
        threads.append(thread)
    return ThreadPage(threads=tuple(threads), total=total)


def _page(owner: Owner, where: ThreadFilter, page: PageRequest) -> Transaction[tuple[list[str], int]]:
    """Return the ids of a page, and how many there are in all; values that are documents may not match."""
    sort_by, order, limit, offset = page.sort_by, page.order, page.limit, page.offset
    params = {**where.params(), **owner_params(owner), "ids": dumps(where.ids or ())}
    scope, term = yield from _narrowest(owner, where, in_order=sort_by == "updated_at")
    if term is not None:
        enough = max(offset + limit, page.count_at_most)
        found = yield from _read_term(term, params, sort_by=sort_by, order=order, enough=enough, after=page.after)
        chosen = [thread_id for _, thread_id in found[offset : offset + limit]]
        return chosen, min(page.count_at_most, len(found))
    search = _search(scope, sort_by, order, values=bool(where.values), after=page.after is not None)
    place = {} if page.after is None else {"after_key": page.after.key, "after_id": page.after.thread_id}
    rows = yield search(limit=limit, offset=offset, **params, **place)
    total = offset + len(rows)
    is_last_page = len(rows) < limit and (rows or not offset)
    if page.count_at_most and not is_last_page:
        total = (yield _count(scope, values=bool(where.values))(limit=page.count_at_most, **params))[0]["n"]
    return [row["thread_id"] for row in rows], min(page.count_at_most, total)


def _page_by_values(owner: Owner, where: ThreadFilter, page: PageRequest) -> Transaction[tuple[list[str], int]]:
    """Return what :func:`_page` does of threads whose values match, for which those that are documents are read."""
    enough, found, looked_at, more = max(page.offset + page.limit, page.count_at_most), list[str](), 0, True
    while more and len(found) < enough:
        ids, _ = yield from _page(owner, where, replace(page, limit=PAGE, offset=looked_at, count_at_most=0))
        for row in (yield from _rows(ids, GET_THREADS)):
            if (yield from _has_values(row, where.values)):
                found.append(row["thread_id"])
        looked_at, more = looked_at + len(ids), len(ids) == PAGE
    return found[page.offset : page.offset + page.limit], min(page.count_at_most, len(found))


def _rows(thread_ids: Sequence[str], read: Statement) -> Transaction[Rows]:
    by_id = {row["thread_id"]: row for row in (yield read(ids=dumps(thread_ids)))}
    return [by_id[thread_id] for thread_id in thread_ids if thread_id in by_id]


def _has_values(row: Row, wanted: Json | None) -> Transaction[bool]:
    """Return whether the values of a thread, which the database has compared if they are text, match."""
    if row["state_refs"] is None:
        return True
    if row["state_values"] is None:  # it shows a state of a run that goes on; that is not searched
        return False
    data = yield from value_of(row["thread_id"], row["state_values"], row["state_refs"])
    return data is not None and contains(loads(data.decode()), wanted)


def all_threads(
    owner: Owner, where: ThreadFilter, after: str, limit: int, *, with_values: bool
) -> Transaction[tuple[Thread, ...]]:
    """Return threads that match *where*, those of stateless runs too, with ids above *after*, in their order."""
    read, found = _all(values=bool(where.values)), list[Thread]()
    while True:
        rows = yield read(after=after, limit=limit, **where.params(), **owner_params(owner))
        for row in rows:
            if where.values and not (yield from _has_values(row, where.values)):
                continue
            thread = (yield from thread_of(row)) if with_values else thread_record(row)
            found.append(thread)
        if len(rows) < limit or len(found) >= limit:
            return tuple(found[:limit])
        after = rows[-1]["thread_id"]


def count_threads(owner: Owner, where: ThreadFilter, *, at_most: int | None = None) -> Transaction[int]:
    """Count threads that match *where*, or as many as *at_most*."""
    limit = 2**62 if at_most is None else at_most
    if where.values:
        page = PageRequest(sort_by="thread_id", order="asc", limit=0, offset=0, count_at_most=limit)
        return (yield from _page_by_values(owner, where, page))[1]
    params = {**where.params(), **owner_params(owner), "ids": dumps(where.ids or ())}
    scope, term = yield from _narrowest(owner, where, in_order=limit <= NARROW)
    if term is None:
        rows = yield _count(scope, values=bool(where.values))(limit=limit, **params)
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
    of_owner = not isinstance(owner, AnyOwner)
    if where.status in UNSETTLED:
        scope = "unsettled_of_owner" if of_owner else "unsettled"
    else:
        scope = "owner" if of_owner else "all"
    for at_most in (NARROW, WIDE) if in_order and where.terms() else (NARROW,):
        chosen, term, fewest = yield from _fewest(owner, where, scope, at_most, in_order=in_order)
        if term is not None or fewest < at_most:
            break
    return chosen, term


def _fewest(
    owner: Owner, where: ThreadFilter, scope: str, at_most: int, *, in_order: bool
) -> Transaction[tuple[str, str | None, int]]:
    """Return the scope and the term that name the fewest threads, and how many, counted up to *at_most*."""
    params = {**owner_params(owner), "status": None if where.status is None else where.status.value, "limit": at_most}
    fewest, chosen = at_most + 1, None
    if scope != "all":
        # The single tenant of an application without tenants has all threads; then a term is never the wider index.
        fewest = (yield _COUNT_SCOPE[scope](**params))[0]["n"] + (scope == "owner" and owner == NO_OWNER)
    if where.status is ThreadStatus.BUSY and fewest >= PAGE:
        number = (yield _COUNT_SCOPE["busy"](**params))[0]["n"]
        if number <= fewest:  # if both are many: what is active now does not grow with history
            scope, fewest = "busy", number
    for term in where.terms():
        if fewest < PAGE:
            break
        number = (yield COUNT_TERM(term=term, limit=at_most))[0]["n"]
        if number < fewest and (number < at_most or in_order):
            chosen, fewest = term, number
    return scope, chosen, fewest


def _read_term(
    term: str, params: Mapping[str, Any], *, sort_by: str, order: Order, enough: int, after: ThreadPlace | None = None
) -> Transaction[list[tuple[Any, str]]]:
    """Return at least the first *enough* sort keys and ids of matching threads with *term*, sorted, behind *after*.

    In the order of their last change, which the index has to the minute, no more than needed are read.
    """
    descending = order == "desc"
    found: list[tuple[Any, str]] = []
    minute, thread_id = (2**62, "") if descending else (-1, "")
    if after is not None and sort_by == "updated_at":
        minute = int(after.key) // MINUTE_US + descending
    while True:
        page: Rows = yield READ_TERM[order](term=term, minute=minute, thread_id=thread_id, limit=PAGE)
        if page:
            ids = dumps([row["thread_id"] for row in page])
            rows = yield _sorted_keys(sort_by, values=params["state_values"] is not None)(**{**params, "ids": ids})
            keys = ((row[sort_by], row["thread_id"]) for row in rows)
            found.extend(key for key in keys if after is None or after.precedes(*key, order))
            minute, thread_id = page[-1]["minute"], page[-1]["thread_id"]
        full = sort_by == "updated_at" and len(found) >= enough > 0
        if full or len(page) < PAGE:
            found.sort(reverse=descending)
        if len(page) < PAGE or (full and found[enough - 1][0] // MINUTE_US != minute):
            return found


def add_to_index(found: Mapping[str, Any]) -> Transaction[bool]:
    """Add the terms that a thread has and the index does not; ``False`` if there are none."""
    return bool((yield ADD_TO_INDEX(thread_id=found["thread_id"])))
