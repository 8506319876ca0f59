"""The long-term store: LangGraph's in-memory store is the model, every driver gives its answers."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

from ledger_kit import empty_ledger
from runlane.checkpoints.store import SCANNED, LedgerLongTermStore
from runlane.errors import InvalidRequest
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.drivers.postgres import open_postgres
from runlane.store.drivers.sqlite import SqliteDriver
from runlane.store.migrate import apply_scripts
from runlane.store.statements import Driver, Transaction, statement

MINUTE_US = 60_000_000


AGED = statement(
    "test.aged",
    """UPDATE store_items SET created_at = created_at - :us, updated_at = updated_at - :us,
         expires_at = expires_at - :us""",
)


@pytest.fixture
async def store(driver: Driver) -> LedgerLongTermStore:
    return LedgerLongTermStore(driver)


async def passes(driver: Driver, us: int) -> None:
    """Have time pass: what is stored becomes older."""

    def age() -> Transaction[None]:
        yield AGED(us=us)

    await driver.write(age())


LABELS = st.sampled_from(["a", "b", "ab", "ü", "*"])
NAMESPACES = st.lists(LABELS, min_size=1, max_size=3).map(tuple)
KEYS = st.sampled_from(["k", "l", "", "x.y", "nul\x00"])
SCALARS = st.one_of(st.integers(-5, 5), st.floats(-2, 2), st.sampled_from(["", "x", "3"]), st.booleans(), st.none())
VALUES = st.dictionaries(
    st.sampled_from(["n", "s", "deep"]),
    st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.sampled_from(["n", "s"]), SCALARS)),
    max_size=3,
)
EQUALITIES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.sampled_from(["n", "s"]), SCALARS))
FILTERS = st.dictionaries(
    st.sampled_from(["n", "s", "deep"]),
    st.one_of(EQUALITIES, st.builds(lambda op, v: {op: v}, st.sampled_from(["$eq", "$ne"]), SCALARS)),
    max_size=2,
)
CONDITIONS = st.builds(MatchCondition, st.sampled_from(["prefix", "suffix"]), st.lists(LABELS, max_size=2).map(tuple))
OPS = st.one_of(
    st.tuples(NAMESPACES, KEYS, st.one_of(VALUES, VALUES, st.none())).map(lambda fields: PutOp(*fields)),
    st.tuples(NAMESPACES, KEYS).map(lambda fields: GetOp(*fields)),
    st.tuples(st.lists(LABELS, max_size=2).map(tuple), st.one_of(st.none(), FILTERS), st.just(1000)).map(
        lambda fields: SearchOp(*fields)
    ),
    st.tuples(
        st.lists(CONDITIONS, max_size=2).map(tuple),
        st.one_of(st.none(), st.integers(1, 3)),
        st.integers(0, 3),
        st.integers(0, 2),
    ).map(lambda fields: ListNamespacesOp(*fields)),
)


def comparable(result: Any) -> Any:
    """Return a result without times; the model promises no order of a search."""
    if isinstance(result, Item):
        return (result.namespace, result.key, result.value)
    if isinstance(result, list) and result and isinstance(result[0], Item):
        return sorted((comparable(item) for item in result), key=repr)
    return result


def forget_emptied_namespaces(model: InMemoryStore) -> None:
    """The model lists namespaces that were only asked for, or whose items are gone."""
    for namespace in [namespace for namespace, held in model._data.items() if not held]:
        del model._data[namespace]


async def compare_with_model(store: LedgerLongTermStore, batches: list[list[Op]]) -> None:
    model = InMemoryStore()
    for batch in batches:
        expected: list[Any] = [None] * len(batch)
        for at, op in enumerate(batch):
            if not isinstance(op, PutOp):
                expected[at] = model.batch([op])[0]
                forget_emptied_namespaces(model)
        model.batch([op for op in batch if isinstance(op, PutOp)])
        forget_emptied_namespaces(model)
        assert [comparable(one) for one in await store.abatch(batch)] == [comparable(one) for one in expected]


async def opened(backend: str, folder: Path, ledger: Callable[[], str]) -> Driver:
    """Open an empty ledger."""
    if backend == "postgres":
        url = ledger()
        empty_ledger(url)
        return await open_postgres(url)
    made = MemoryDriver() if backend == "memory" else SqliteDriver(folder / "l.db", synchronous="normal")
    apply_scripts(made)
    return made


def storable(op: Op) -> Op:
    """Return *op* with a key that PostgreSQL can store."""
    return op._replace(key=op.key.replace("\0", "")) if isinstance(op, PutOp | GetOp) else op


@pytest.mark.parametrize("backend", ["sqlite", "memory", "postgres"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(OPS, min_size=1, max_size=4), min_size=1, max_size=12))
def test_every_batch_is_answered_as_langgraphs_own_store_answers_it(
    backend: str, batches: list[list[Op]], request: pytest.FixtureRequest
) -> None:
    async def compare(folder: str) -> None:
        driver = await opened(backend, Path(folder), lambda: request.getfixturevalue("postgres_ledger"))
        wanted = [[storable(op) for op in batch] for batch in batches] if backend == "postgres" else batches
        try:
            await compare_with_model(LedgerLongTermStore(driver), wanted)
        finally:
            await driver.aclose()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(compare(directory))


async def test_reading_a_missing_key_creates_nothing(store: LedgerLongTermStore) -> None:
    assert await store.aget(("users", "1"), "name") is None
    assert await store.alist_namespaces() == []
    assert await store.asearch(()) == []


@pytest.mark.parametrize("prefix", [("notes",), ()])
async def test_a_search_answers_the_most_recently_changed_first_page_by_page(
    driver: Driver, store: LedgerLongTermStore, prefix: tuple[str, ...]
) -> None:
    for n in range(5):
        await passes(driver, 1)
        await store.aput(("notes",), str(n), {"n": n})
    await passes(driver, 1)
    await store.aput(("notes",), "1", {"n": 10})

    pages = [await store.asearch(prefix, limit=2, offset=offset) for offset in (0, 2, 4)]
    filtered = await store.asearch(prefix, filter={"n": {"$gte": 2}}, limit=2, offset=1)

    assert [[item.key for item in page] for page in pages] == [["1", "4"], ["3", "2"], ["0"]]
    assert [item.key for item in filtered] == ["4", "3"]


@pytest.mark.parametrize("prefix", [("notes",), ()])
async def test_a_long_text_is_compared_to_its_end(store: LedgerLongTermStore, prefix: tuple[str, ...]) -> None:
    await store.aput(("notes",), "k", {"text": "x" * 1000})

    assert await store.asearch(prefix, filter={"text": "x" * 1000})
    assert not await store.asearch(prefix, filter={"text": "x" * 999})


async def test_a_search_of_all_items_finds_each_once_though_they_changed_at_once(store: LedgerLongTermStore) -> None:
    keys = [str(n) for n in range(2 * SCANNED + 1)]
    await store.abatch([PutOp((str(len(key)),), key, {"n": int(key)}) for key in keys])

    pages = [await store.asearch((), filter={"n": {"$gte": 0}}, limit=200, offset=at) for at in range(0, 600, 200)]

    assert sorted(item.key for page in pages for item in page) == sorted(keys)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"$gt": 2}, {"three", "text3"}),
        ({"$gte": 3}, {"three", "text3"}),
        ({"$lt": 3}, {"one"}),
        ({"$lte": 1, "$gt": 0}, {"one"}),
        ({"$gte": "b"}, {"word"}),
        ({"$ne": 1}, {"three", "text3", "word", "none", "list"}),
    ],
)
async def test_an_order_holds_only_between_values_that_have_one(
    store: LedgerLongTermStore, wanted: dict[str, Any], found: set[str]
) -> None:
    for key, value in {"one": 1, "three": 3, "text3": "3", "word": "word", "none": None, "list": [1]}.items():
        await store.aput(("n",), key, {"v": value})

    assert {item.key for item in await store.asearch(("n",), filter={"v": wanted})} == found


async def test_a_prefix_matches_labels_and_not_their_beginnings(store: LedgerLongTermStore) -> None:
    for namespace in (("a",), ("a", "b"), ("ab",), ("a-", "b"), ("a/",)):
        await store.aput(namespace, "k", {})

    assert {item.namespace for item in await store.asearch(("a",))} == {("a",), ("a", "b")}


async def test_a_change_keeps_the_time_of_creation(driver: Driver, store: LedgerLongTermStore) -> None:
    await store.aput(("n",), "k", {"v": 1})
    created = await store.aget(("n",), "k")
    await passes(driver, MINUTE_US)
    await store.aput(("n",), "k", {"v": 2})
    changed = await store.aget(("n",), "k")

    assert created is not None
    assert changed is not None
    assert changed.created_at == created.created_at - timedelta(minutes=1)
    assert changed.updated_at > created.updated_at


async def test_an_item_lives_as_long_as_it_is_read(driver: Driver) -> None:
    store = LedgerLongTermStore(driver, ttl={"default_ttl": 2, "refresh_on_read": True})
    await store.aput(("n",), "read", {})
    await store.aput(("n",), "searched", {})
    await store.aput(("n",), "peeked", {})
    await store.aput(("n",), "left", {})
    await store.aput(("m",), "for ever", {}, ttl=None)
    await passes(driver, MINUTE_US)
    assert await store.aget(("n",), "read") is not None
    assert await store.aget(("n",), "peeked", refresh_ttl=False) is not None
    assert len(await store.asearch(("n",), limit=1)) == 1  # "left", the most recent
    await passes(driver, MINUTE_US)

    assert {item.key for item in await store.asearch((), refresh_ttl=False)} == {"left", "read", "for ever"}
    assert await store.sweep() == 2
    await passes(driver, MINUTE_US)
    assert await store.alist_namespaces() == [("m",)]
    assert await store.sweep() == 2
    assert await store.sweep() == 0


async def test_an_expired_item_is_kept_until_the_sweep_only_if_that_is_asked_for(driver: Driver) -> None:
    strict, lax = LedgerLongTermStore(driver), LedgerLongTermStore(driver, ttl={"omit_expired": False})
    await strict.aput(("n",), "k", {}, ttl=1)
    await passes(driver, MINUTE_US)

    assert await strict.aget(("n",), "k") is None
    assert await lax.aget(("n",), "k") is not None
    assert await strict.sweep() == 1
    assert await lax.aget(("n",), "k") is None


async def test_an_item_put_after_it_expired_begins_anew(driver: Driver, store: LedgerLongTermStore) -> None:
    await store.aput(("n",), "k", {}, ttl=1)
    await passes(driver, 2 * MINUTE_US)
    await store.aput(("n",), "k", {})
    item = await store.aget(("n",), "k")

    assert item is not None
    assert item.created_at == item.updated_at
    assert await store.sweep() == 0


async def test_owners_do_not_see_each_others_items(store: LedgerLongTermStore) -> None:
    mine, yours = store.for_owner("me"), store.for_owner("you")
    await mine.aput(("n",), "k", {"v": "mine"})
    await yours.aput(("n",), "k", {"v": "yours"})
    await yours.aput(("o",), "k", {})
    await mine.adelete(("o",), "k")

    assert [item.value for item in await mine.asearch(())] == [{"v": "mine"}]
    assert await mine.alist_namespaces() == [("n",)]
    assert await yours.alist_namespaces() == [("n",), ("o",)]
    assert await store.asearch(()) == []


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (SearchOp(("n",), filter={"v": {"$near": 1}}), InvalidRequest),
        (SearchOp(("n",), limit=-1), InvalidRequest),
        (PutOp(("n",), "k", {"v": object()}), InvalidRequest),
        (PutOp(("n",), "k", {"v": 2**70}), InvalidRequest),
        (PutOp(("n",), "k", {}, ttl=0), InvalidRequest),
        (PutOp(("n.m",), "k", {}), InvalidNamespaceError),
    ],
)
async def test_what_cannot_be_honoured_is_refused_and_the_whole_batch_with_it(
    store: LedgerLongTermStore, refused: Op, error: type[Exception]
) -> None:
    await store.aput(("n",), "there", {"v": 1})

    with pytest.raises(error):
        await store.abatch([PutOp(("n",), "other", {}), refused])

    assert [item.key for item in await store.asearch(())] == ["there"]


async def test_without_an_index_queries_and_fields_to_embed_have_no_effect_which_is_logged_once(
    store: LedgerLongTermStore, caplog: pytest.LogCaptureFixture
) -> None:
    for owner in ("", "ann"):
        mine = store.for_owner(owner)
        await mine.aput(("n",), "old", {"text": "blue"}, index=["text"])
        await mine.aput(("n",), "new", {"text": "red"})
        found = await mine.asearch(("n",), query="blue", filter={"text": {"$ne": "green"}})
        assert [(item.key, item.score) for item in found] == [("new", None), ("old", None)]
    assert [record.levelname for record in caplog.records if "store.no_index" in record.getMessage()] == ["WARNING"]


async def test_an_index_that_is_declined_is_no_index(store: LedgerLongTermStore) -> None:
    await store.aput(("n",), "k", {"v": 1}, index=False)

    assert await store.aget(("n",), "k") is not None


async def test_synchronous_calls_work_from_another_thread_and_are_refused_on_the_loops_own(
    store: LedgerLongTermStore,
) -> None:
    def use() -> Item | None:
        store.put(("n",), "k", {"v": 1})
        return store.get(("n",), "k")

    item = await asyncio.to_thread(use)

    assert item is not None
    assert item.value == {"v": 1}
    with pytest.raises(asyncio.InvalidStateError, match="await"):
        store.get(("n",), "k")
