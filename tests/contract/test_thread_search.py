"""Searches of threads: what they find, whichever index they read, and what a search may cost."""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from ledger_kit import admit
from runlane.errors import InvalidRequest
from runlane.lifecycle import ThreadStatus
from runlane.records import ANY_OWNER, NO_OWNER, Owner, Thread
from runlane.store.drivers.sqlite import configure, execute
from runlane.store.filters import MAX_DEPTH, MAX_NEEDLE, MAX_VALUES, contains
from runlane.store.ledger import RunStore
from runlane.store.rows import dumps
from runlane.store.statements import Driver, Query, Rows, Transaction, run, statement
from runlane.store.transactions.thread_search import (
    NARROW,
    PAGE,
    SORT_KEYS,
    WIDE,
    PageRequest,
    ThreadFilter,
    ThreadPlace,
    needle,
    page_threads,
    place_of,
)

INSERT = statement(
    "insert_thread",
    """INSERT INTO threads (thread_id, owner, status, settled, metadata, config, interrupts,
                            created_at, updated_at, state_updated_at)
       VALUES (:thread_id, :owner, 'idle', 'idle', :metadata, '{}', '{}', :at, :at, :at)""",
)
GRAPH = '{{"graph_id": "{}"}}'
STOP = statement("stop", "UPDATE threads SET status = :status WHERE thread_id = :thread_id")
A_RUN = statement(
    "a_run",
    """INSERT INTO runs (run_id, thread_id, owner, status, multitask_strategy, on_disconnect, metadata, kwargs,
                         not_before, created_at, updated_at)
       VALUES (:thread_id, :thread_id, '', 'pending', 'enqueue', 'cancel', '{}', '{}', 1, 1, 1)""",
)
TERMS = statement("terms", "SELECT term, minute, thread_id FROM thread_terms ORDER BY term, minute, thread_id")
MINUTE_US = 60_000_000
NEWEST = PageRequest(sort_by="updated_at", order="desc", limit=10, offset=0)
WANTED: tuple[dict[str, Any], ...] = (
    {"graph_id": "agent"},
    {"graph_id": "rare"},
    {"graph_id": "agent", "n": 1},
    {"n": 2},
    {"graph_id": 5},
)


async def fill(driver: Driver, rows: list[dict[str, Any]]) -> None:
    await driver.write(_insert(rows))


def row(number: int, metadata: str, *, owner: str = "", at: int = 0) -> dict[str, Any]:
    return {"thread_id": f"t{number:06}", "owner": owner, "metadata": metadata, "at": at}


async def terms(driver: Driver) -> set[tuple[str, str]]:
    def read() -> Transaction[set[tuple[str, str]]]:
        rows = yield TERMS()
        return {(found["term"], found["thread_id"]) for found in rows}

    return await driver.read(read())


async def test_every_page_is_that_of_the_whole_sorted_result(driver: Driver, store: RunStore) -> None:
    dice = random.Random(7)
    graphs = ["agent"] * 30 + ["rare"]
    documents = {f"t{number:06}": {"graph_id": dice.choice(graphs), "n": number % 3} for number in range(3 * PAGE)}
    changed = {thread_id: dice.randrange(40 * MINUTE_US) for thread_id in documents}
    owners = {thread_id: dice.choice(["ann", "bob", "bob"]) for thread_id in documents}
    rows = [
        row(int(thread_id[1:]), f'{{"graph_id": "{it["graph_id"]}", "n": {it["n"]}}}', at=changed[thread_id])
        | {"owner": owners[thread_id]}
        for thread_id, it in documents.items()
    ]
    await fill(driver, rows)
    asked: list[tuple[Owner, dict[str, Any]]] = [
        (owner, metadata) for owner in ("ann", "bob", "eve", ANY_OWNER) for metadata in WANTED
    ]
    for owner, metadata in asked:
        expected = [
            thread_id
            for thread_id, document in documents.items()
            if contains(document, metadata) and owner in (ANY_OWNER, owners[thread_id])
        ]
        where = ThreadFilter(metadata=metadata)
        assert await store.threads.count(owner=owner, where=where) == len(expected)
        assert await store.threads.count(owner=owner, where=where, at_most=7) == min(7, len(expected))
        for sort_by in ("updated_at", "thread_id"):
            for order in ("asc", "desc"):
                key = changed.__getitem__ if sort_by == "updated_at" else lambda _: 0
                expected.sort(key=lambda one: (key(one), one), reverse=order == "desc")
                for offset, limit in ((0, 10), (PAGE - 5, 20), (len(expected) - 3, 10)):
                    asked_for = {"owner": owner, "where": where, "sort_by": sort_by, "order": order, "limit": limit}
                    found = await store.threads.search(**asked_for, offset=max(0, offset))
                    wanted = expected[max(0, offset) : max(0, offset) + limit]
                    assert [one.thread_id for one in found] == wanted, (owner, metadata, sort_by, order, offset)
                    if offset == 0:
                        page = await store.threads.page(**asked_for, count_at_most=40)
                        assert (page.threads, page.total) == (found, min(40, len(expected)))


@pytest.mark.parametrize("key", SORT_KEYS)
async def test_pages_that_follow_places_are_those_of_the_whole_result(
    driver: Driver, store: RunStore, key: str
) -> None:
    """Of all owners and of one, by status, by a text that few threads have and by one that many have."""
    graphs = [GRAPH.format("rare" if n % 40 == 0 else "agent") for n in range(PAGE + 100)]
    at = [(n * 7) % 11 * (MINUTE_US // 3) for n in range(PAGE + 100)]
    rows = [row(n, graphs[n], owner="ann" if n % 3 else "bob", at=at[n]) for n in range(PAGE + 100)]
    await fill(driver, rows)
    await driver.write(stop({one["thread_id"] for one in rows[::25]}, "interrupted"))
    wanted = (
        ThreadFilter(),
        ThreadFilter(metadata={"graph_id": "rare"}),
        ThreadFilter(metadata={"graph_id": "agent"}),
        ThreadFilter(status=ThreadStatus.INTERRUPTED),
    )
    for owner, where, order in itertools.product(("ann", "bob", ANY_OWNER), wanted, ("asc", "desc")):
        sorted_by = {"owner": owner, "where": where, "sort_by": key, "order": order, "with_values": False}
        whole = await store.threads.search(**sorted_by, limit=2 * PAGE)
        found, after = list[Thread](), None
        while after is None or len(found) < len(whole):
            page = await store.threads.page(**sorted_by, limit=150, count_at_most=1, after=after)
            assert page.total == (after is None)
            found += page.threads
            after = place_of(page.threads[-1], key)
        assert tuple(found) == whole
        assert (await store.threads.page(**sorted_by, limit=1, count_at_most=0, after=after)).threads == ()


@pytest.mark.parametrize("key", SORT_KEYS)
async def test_threads_with_one_text_are_sorted_by_every_key(driver: Driver, store: RunStore, key: str) -> None:
    await fill(driver, [row(number, '{"k": "v"}', at=(number * 7) % 11 * MINUTE_US) for number in range(PAGE + 20)])
    whole = await store.threads.search(owner=ANY_OWNER, where=ThreadFilter(), sort_by=key, order="asc", limit=2 * PAGE)
    found = await store.threads.search(
        owner=ANY_OWNER, where=ThreadFilter(metadata={"k": "v"}), sort_by=key, order="asc", limit=2 * PAGE
    )
    assert found == whole


async def test_terms_follow_the_threads(driver: Driver, store: RunStore) -> None:
    await store.threads.create("made", owner="ann", metadata={"user": "ann", "n": 1, "deep": {"a": "b"}})
    assert await terms(driver) == {("user=ann", "made")}
    await store.threads.patch("made", owner="ann", metadata={"user": "bob", "team": "red"})
    assert await terms(driver) == {("user=bob", "made"), ("team=red", "made")}
    await admit(store, "run", thread_metadata={"graph_id": "agent"})
    assert ("graph_id=agent", "run") in await terms(driver)
    await admit(store, "stateless", temporary=True, thread_metadata={"graph_id": "agent"})
    await store.threads.copy("made", "copy", reads=ANY_OWNER, owner="eve", metadata={"user": "bob"})
    assert ("user=bob", "copy") in await terms(driver)
    await store.threads.delete("made", owner="ann")
    assert await terms(driver) == {("graph_id=agent", "run"), ("user=bob", "copy")}


@pytest.mark.parametrize(
    "metadata",
    [
        {"a=b": "c"},
        {"a": "b=c"},
        {'q"': "x"},
        {"back\\slash": "x"},
        {"k": "\\u0000"},
        {"k": "a\0b"},
        {"k" * 65: "long key"},
        {"k": "v" * 257},
        {"k": "ü€𝄞" * 80},
        {"": ""},
    ],
    ids=repr,
)
async def test_a_text_is_found_whether_or_not_the_index_can_have_it(store: RunStore, metadata: dict[str, Any]) -> None:
    await store.threads.create("t", owner=NO_OWNER, metadata=metadata)
    for owner in (ANY_OWNER, NO_OWNER):
        for where in (ThreadFilter(metadata=metadata), ThreadFilter(metadata=metadata, ids=("t", "other"))):
            assert [one.thread_id for one in await store.threads.search(owner=owner, where=where)] == ["t"]


@pytest.mark.parametrize(
    "wanted",
    [
        {str(number): number for number in range(MAX_VALUES + 1)},
        {"list": list(range(MAX_VALUES))},
        {"deep": eval("[" * MAX_DEPTH + "]" * MAX_DEPTH)},
    ],
    ids=["wide", "long", "deep"],
)
def test_a_filter_that_costs_too_much_to_compare_is_refused(wanted: dict[str, Any]) -> None:
    for name in ("metadata", "values"):
        with pytest.raises(InvalidRequest, match=name):
            ThreadFilter(**{name: wanted})


@pytest.mark.parametrize("owner", [NO_OWNER, ANY_OWNER], ids=["one owner", "all owners"])
@pytest.mark.parametrize("wanted", ["agent", "rare", "nobody"])
def test_a_search_by_text_costs_the_same_among_many_threads(sqlite_ledger: Path, wanted: str, owner: Owner) -> None:
    with filled_in_memory(sqlite_ledger) as connection:
        costs = []
        for begin in (0, NARROW):
            threads = range(begin, begin + 2 * NARROW if begin else NARROW)
            connection.executemany(INSERT.sqlite, [row(n, GRAPH.format(_graph(n)), at=n * 10**6) for n in threads])
            costs.append(_steps(connection, owner, ThreadFilter(metadata={"graph_id": wanted})))
    assert costs[1] < costs[0] * 1.5 + 100


def test_a_search_by_text_costs_an_owner_of_many_threads_no_more_than_others_have_of_it(sqlite_ledger: Path) -> None:
    with filled_in_memory(sqlite_ledger) as connection:
        theirs = [row(n, GRAPH.format("theirs"), owner="bob", at=n * 10**6) for n in range(NARROW)]
        connection.executemany(INSERT.sqlite, theirs)
        costs = []
        for threads in (range(NARROW, NARROW + WIDE), range(NARROW + WIDE, NARROW + 3 * WIDE)):
            mine = [row(n, GRAPH.format("mine"), owner="ann", at=n * 10**6) for n in threads]
            connection.executemany(INSERT.sqlite, mine)
            costs.append(_steps(connection, "ann", ThreadFilter(metadata={"graph_id": "theirs"})))
    assert costs[1] < costs[0] * 1.1 + 100


def test_what_a_search_looks_for_in_metadata_is_part_of_all_that_matches() -> None:
    values = [
        17,
        17.0,
        -17,
        0,
        -0.0,
        1,
        True,
        None,
        10**15,
        1e15,
        1e18,
        10**18,
        1.5,
        "17",
        "é",
        'a"b',
        "a\\b",
        "a\n",
        "/",
        "x" * 1000,
    ]
    documents = [{"n": value, "m": other} for value in values for other in values]
    found = 0
    for wanted in [{"n": value} for value in values] + documents:
        for document in documents:
            if contains(document, wanted):
                found += 1
                assert needle(wanted) in dumps(document)
                assert len(needle(wanted)) <= MAX_NEEDLE
    assert found > 800
    assert needle({"n": 17, "user": "u-1234"}) == "u-1234"


def test_a_search_by_a_number_parses_the_metadata_only_where_the_number_is(sqlite_ledger: Path) -> None:
    with filled_in_memory(sqlite_ledger) as connection:
        parsed = 0

        def compare(document: str, wanted: str) -> bool:
            nonlocal parsed
            parsed += 1
            return contains(orjson.loads(document), orjson.loads(wanted))

        connection.create_function("json_contains", 2, compare)
        rows = [row(number, dumps({"n": 1000 + number})) for number in range(500)]
        execute(connection, _insert(rows), 0)
        page = execute(
            connection, page_threads(NO_OWNER, ThreadFilter(metadata={"n": 1017}), NEWEST, with_values=False), 0
        )
        assert [thread.metadata for thread in page.threads] == [{"n": 1017}]
        assert parsed == 1


@pytest.mark.parametrize("owner", [NO_OWNER, ANY_OWNER, "ann"], ids=["one owner", "all owners", "one of many"])
@pytest.mark.parametrize("status", ["interrupted", "error", "busy"])
async def test_threads_of_a_status_are_found_whoever_has_how_many(
    driver: Driver, store: RunStore, status: str, owner: Owner
) -> None:
    """The owner's threads and those of the status may be few or many."""
    for of_owner, of_others in ((PAGE, 20), (NARROW + 10, NARROW + 10)):
        rows = [row(n, GRAPH.format("agent"), owner="ann" if n % 2 else "", at=n) for n in range(2 * of_owner)]
        rows += [row(n, GRAPH.format("agent"), owner="bob", at=n) for n in range(10**5, 10**5 + of_others)]
        await fill(driver, rows)
        stopped = {rows[n]["thread_id"] for n in (3, 4, 2 * PAGE - 1, 2 * PAGE - 2)}
        stopped |= {one["thread_id"] for one in rows if one["owner"] == "bob"}
        await driver.write(stop(stopped, status))
        for wanted in ({}, {"graph_id": "agent"}, {"graph_id": "none"}):
            where = ThreadFilter(status=ThreadStatus(status), metadata=wanted)
            page = await store.threads.page(owner=owner, where=where, limit=10, count_at_most=5000)
            mine = [one for one in rows if owner in (ANY_OWNER, one["owner"]) and one["thread_id"] in stopped]
            expected = [] if "none" in wanted.values() else sorted((one["at"], one["thread_id"]) for one in mine)[::-1]
            assert [one.thread_id for one in page.threads] == [thread_id for _, thread_id in expected[:10]]
            assert page.total == len(expected)
            assert await store.threads.count(owner=owner, where=where) == len(expected)
        await driver.write(emptied())


def stop(thread_ids: set[str], status: str) -> Transaction[None]:
    """Give threads a status; a busy one gets a run."""
    if status == "busy":
        yield A_RUN.many([{"thread_id": thread_id} for thread_id in thread_ids])
    yield STOP.many([{"thread_id": thread_id, "status": status} for thread_id in thread_ids])


def emptied() -> Transaction[None]:
    for table in ("threads", "runs"):
        yield statement("empty", f"DELETE FROM {table}")()


@pytest.mark.parametrize("owner", [NO_OWNER, ANY_OWNER], ids=["one owner", "all owners"])
@pytest.mark.parametrize("status", [ThreadStatus.INTERRUPTED, ThreadStatus.BUSY])
def test_a_search_by_status_costs_the_same_among_many_threads(
    sqlite_ledger: Path, status: ThreadStatus, owner: Owner
) -> None:
    with filled_in_memory(sqlite_ledger) as connection:
        costs = []
        for begin in (0, NARROW):
            threads = range(begin, 3 * NARROW if begin else NARROW)
            connection.executemany(INSERT.sqlite, [row(n, GRAPH.format("agent"), at=n * 10**6) for n in threads])
            if not begin:
                stopped = [{"thread_id": f"t{n:06}", "status": status.value} for n in range(0, NARROW, 100)]
                connection.executemany(STOP.sqlite, stopped)
                connection.executemany(A_RUN.sqlite, stopped if status is ThreadStatus.BUSY else [])
            costs.append(_steps(connection, owner, ThreadFilter(status=status)))
    assert costs[1] < costs[0] * 1.5 + 100


@pytest.mark.parametrize("owner", ["ann", ANY_OWNER], ids=["one owner", "all owners"])
@pytest.mark.parametrize(
    "page",
    [NEWEST, replace(NEWEST, sort_by="created_at"), replace(NEWEST, after=ThreadPlace(key=NARROW // 2, thread_id=""))],
    ids=["last changed", "last made", "deep"],
)
def test_a_page_of_all_threads_costs_the_same_among_many(sqlite_ledger: Path, owner: Owner, page: PageRequest) -> None:
    with filled_in_memory(sqlite_ledger) as connection:
        costs = []
        for begin in (0, NARROW):
            threads = range(begin, 3 * NARROW if begin else NARROW)
            connection.executemany(
                INSERT.sqlite, [row(n, "{}", owner="ann" if n % 5 else "bob", at=n) for n in threads]
            )
            costs.append(_steps(connection, owner, ThreadFilter(), page))
    assert costs[1] < costs[0] * 1.5 + 100


@pytest.mark.parametrize("where", [{}, {"metadata": {"graph_id": "agent"}}, {"status": ThreadStatus.INTERRUPTED}])
@pytest.mark.parametrize("values", [True, False])
def test_values_are_read_if_they_are_wanted_and_of_the_page_only(
    sqlite_ledger: Path, where: dict[str, Any], values: bool
) -> None:
    with filled_in_memory(sqlite_ledger) as connection:
        rows = [row(n, GRAPH.format("agent"), at=n) for n in range(NARROW + PAGE)]
        connection.executemany(INSERT.sqlite, rows)
        connection.execute("UPDATE threads SET state_values = '[1]', status = 'interrupted'")
        read: dict[str, set[str]] = {}

        def note(action: int, table: str | None, column: str | None, *_: object) -> int:
            if action == sqlite3.SQLITE_READ and table == "threads":
                read.setdefault(sql, set()).add(str(column))
            return sqlite3.SQLITE_OK

        connection.set_authorizer(note)
        wanted = PageRequest(sort_by="updated_at", order="desc", limit=3, offset=0, count_at_most=9)
        transaction = page_threads(NO_OWNER, ThreadFilter(**where), wanted, with_values=values)

        def one(query: Query) -> Rows:
            nonlocal sql
            sql = query.statement.name
            return execute(connection, _only(query), 0)

        sql = ""
        page = run(transaction, one)
    assert [thread.values for thread in page.threads] == [[1] if values else None] * 3
    large = {name for name, columns in read.items() if columns & {"state_values", "first_values"}}
    assert large == ({"get_threads"} if values else set())


def _only(query: Query) -> Transaction[Rows]:
    return (yield query)


@contextmanager
def filled_in_memory(sqlite_ledger: Path) -> Iterator[sqlite3.Connection]:
    """Give a connection to an empty ledger in memory."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        with closing(sqlite3.connect(sqlite_ledger)) as empty:
            empty.backup(connection)
        configure(connection)
        yield connection


def _insert(rows: list[dict[str, Any]]) -> Transaction[None]:
    yield INSERT.many(rows)


def _graph(number: int) -> str:
    return "rare" if number % 1000 == 1 and number < NARROW else "agent"


def _steps(connection: sqlite3.Connection, owner: Owner, where: ThreadFilter, page: PageRequest = NEWEST) -> int:
    """Return how much of SQLite's virtual machine a search took, in hundreds of steps."""
    ticks = 0

    def tick() -> int:
        nonlocal ticks
        ticks += 1
        return 0

    connection.set_progress_handler(tick, 100)
    execute(connection, page_threads(owner, where, page, with_values=True), 0)
    connection.set_progress_handler(None, 100)
    return ticks
