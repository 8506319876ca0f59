"""Search by similarity in the long-term store: LangGraph's in-memory store is the model of every driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.embeddings import Embeddings
from langgraph.store.base import GetOp, PutOp, SearchItem
from langgraph.store.memory import InMemoryStore

from ledger_kit import empty_ledger, ledger_connection
from postgres_cluster import PostgresCluster, bundled_binaries
from runlane.checkpoints.embeddings import SemanticIndex
from runlane.checkpoints.store import SCANNED, LedgerLongTermStore
from runlane.doctor import examine, open_ledger, repair
from runlane.errors import ConfigurationError, EmbeddingFailed, InvalidRequest
from runlane.maintenance.retention import item_sweep
from runlane.settings import Settings
from runlane.store.backends import migrate_postgres
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.drivers.postgres import open_postgres
from runlane.store.drivers.sqlite import SqliteDriver
from runlane.store.migrate import apply_scripts
from runlane.store.statements import Driver

WORDS = ("red", "green", "blue")
FOR_EVER_S = 3600.0


def embed(texts: list[str]) -> list[list[float]]:
    """Count colours; a text without one has no direction."""
    return [[float(text.count(word)) for word in WORDS] for text in texts]


async def embed_later(texts: list[str]) -> list[list[float]]:
    await asyncio.sleep(0)
    return embed(texts)


class Model(Embeddings):
    """Embeds queries in another way than documents, as some models do: it reads them in French."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return embed(texts)

    def embed_query(self, text: str) -> list[float]:
        return embed([text.replace("rouge", "red").replace("bleu", "blue")])[0]


@pytest.fixture(scope="module")
def pgvector_url() -> Iterator[str]:
    """Give the address of a ledger in a PostgreSQL that has pgvector: the one among the development dependencies."""
    binaries = bundled_binaries()
    if not binaries:
        pytest.skip("no PostgreSQL with pgvector is installed")
    with PostgresCluster(binaries=binaries[-1]) as cluster:
        with psycopg.connect(cluster.dsn, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        migrate_postgres(cluster.dsn)
        yield cluster.dsn


@pytest.fixture(params=["memory", "sqlite", "postgres", "pgvector"])
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Driver]:
    """Give an open driver on an empty ledger, once per database and way to compare vectors."""
    made: Driver
    if request.param == "memory":
        made = MemoryDriver()
        apply_scripts(made)
    elif request.param == "sqlite":
        made = SqliteDriver(tmp_path / "ledger.db", synchronous="normal")
        apply_scripts(made)
    else:
        made = await emptied(request.getfixturevalue(f"{request.param}_url"))
    yield made
    await made.aclose()


@pytest.fixture
def postgres_url(postgres_ledger: str) -> str:
    return postgres_ledger


@pytest.fixture
async def pgvector(pgvector_url: str) -> AsyncIterator[Driver]:
    """Give an open driver on an empty ledger whose database compares vectors."""
    made = await emptied(pgvector_url)
    yield made
    await made.aclose()


async def emptied(url: str) -> Driver:
    with ledger_connection(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS store_vectors")
    empty_ledger(url)
    return await open_postgres(url)


async def indexed(driver: Driver, function: Any = embed, **config: Any) -> LedgerLongTermStore:
    store = LedgerLongTermStore(driver, index=SemanticIndex(**{"dims": 3, "embed": function, **config}))
    await store.prepare()
    return store


TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
ITEMS = st.dictionaries(
    st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["", "k", "l", "m"])),
    st.lists(TEXTS, min_size=1, max_size=3, unique=True),
)


GIVEN = given(held=ITEMS, query=TEXTS, limit=st.integers(1, 5), offset=st.integers(0, 2))


async def compare_with_model(
    driver: Driver, held: dict[tuple[str, str], list[str]], query: str, limit: int, offset: int
) -> None:
    model = InMemoryStore(index={"dims": 3, "embed": embed, "fields": ["texts[*]"]})
    store = await indexed(driver, fields=["texts[*]"])
    for (label, key), texts in held.items():
        for one in (store, model):
            await one.aput(("n", label), key, {"texts": texts})
    mine = await store.asearch(("n",), query=query, limit=limit, offset=offset)
    theirs = await model.asearch(("n",), query=query, limit=limit, offset=offset)
    every = {(item.namespace, item.key): item.score for item in await model.asearch(("n",), query=query, limit=99)}
    # Which of several that are equally alike comes first is not the model's to say.
    assert [item.score for item in mine] == pytest.approx([item.score for item in theirs], abs=1e-6)
    assert all(item.score == pytest.approx(every[item.namespace, item.key], abs=1e-6) for item in mine)
    assert len({(item.namespace, item.key) for item in mine}) == len(mine)
    await driver.aclose()


@settings(max_examples=40, deadline=None)
@GIVEN
def test_a_search_ranks_and_scores_as_langgraphs_own_store_does(**history: Any) -> None:
    async def compare() -> None:
        driver = MemoryDriver()
        apply_scripts(driver)
        await compare_with_model(driver, **history)

    asyncio.run(compare())


@settings(max_examples=8, deadline=None)
@GIVEN
def test_a_search_in_the_database_does_so_too(pgvector_url: str, **history: Any) -> None:
    async def compare() -> None:
        await compare_with_model(await emptied(pgvector_url), **history)

    asyncio.run(compare())


async def test_a_search_finds_the_best_of_more_items_than_it_holds_at_a_time(driver: Driver) -> None:
    store = await indexed(driver)
    await store.abatch([PutOp(("n", str(n % 7)), str(n), {"n": n, "text": "red"}) for n in range(3 * SCANNED)])
    await store.abatch([PutOp(("n",), "", {"n": -1, "text": "blue"}), PutOp(("n-",), "other", {"text": "blue"})])

    best = await store.asearch(("n",), query="blue", limit=1)
    pages = [await store.asearch(("n",), filter={"n": {"$lt": 400}}, limit=300, offset=at) for at in (0, 300)]

    assert [(item.key, round(item.score or 0, 3)) for item in best] == [("", 1.0)]
    assert {item.value["n"] for page in pages for item in page} == set(range(-1, 400))
    assert [len(page) for page in pages] == [300, 101]


@pytest.mark.parametrize("function", [embed, embed_later, Model()])
async def test_any_kind_of_embedding_serves_the_asynchronous_methods_and_threads(driver: Driver, function: Any) -> None:
    store = await indexed(driver, function, fields=["text"])

    def use() -> list[SearchItem]:
        store.put(("n",), "in a thread", {"text": "red"})
        return store.search(("n",), query="red")

    await store.aput(("n",), "in the loop", {"text": "blue"})
    threaded = await asyncio.to_thread(use)
    french = await store.asearch(("n",), query="bleu")

    assert [item.key for item in threaded] == ["in a thread", "in the loop"]
    assert french[0].score == (1.0 if isinstance(function, Model) else 0.0)


async def test_an_async_embedding_is_refused_where_waiting_for_it_would_block_a_loop(driver: Driver) -> None:
    store = await indexed(driver, embed_later)

    async def elsewhere() -> None:
        store.put(("n",), "k", {"text": "red"})

    with pytest.raises(asyncio.InvalidStateError, match="aput"):
        await asyncio.to_thread(asyncio.run, elsewhere())
    assert await store.asearch(()) == []


@pytest.mark.parametrize(
    "returned",
    [[[1.0, 2.0]], [[1.0] * 4], [], [[1.0, 2.0, 3.0]] * 2, [["a", "b", "c"]], None, [[float("nan")] * 3]],
)
async def test_what_is_no_vector_for_each_text_is_refused_and_nothing_written(driver: Driver, returned: Any) -> None:
    store = await indexed(driver, lambda texts: returned)

    with pytest.raises(EmbeddingFailed, match="something else"):
        await store.abatch([PutOp(("n",), "k", {"text": "red"}), PutOp(("n",), "l", {"v": 1}, index=False)])
    with pytest.raises(EmbeddingFailed):
        await asyncio.to_thread(store.put, ("n",), "k", {"text": "red"})
    assert await store.asearch(()) == []


async def test_a_text_without_direction_is_like_nothing(driver: Driver) -> None:
    store = await indexed(driver)
    await store.aput(("n",), "k", {"text": "grey"})

    assert [item.score for item in await store.asearch(("n",), query="red")] == [0.0]
    assert [item.score for item in await store.asearch(("n",), query="grey")] == [0.0]


async def test_what_others_own_and_what_has_expired_is_not_found(driver: Driver) -> None:
    store = await indexed(driver)
    await store.for_owner("me").aput(("n",), "mine", {"text": "red"})
    await store.for_owner("you").aput(("n",), "yours", {"text": "red"})
    await store.for_owner("me").aput(("n",), "gone", {"text": "red"}, ttl=1e-9)

    assert [item.key for item in await store.for_owner("me").asearch((), query="red")] == ["mine"]
    assert await store.asearch((), query="red") == []


async def test_each_text_of_a_batch_is_embedded_once_and_reads_embed_nothing(driver: Driver) -> None:
    calls: list[list[str]] = []

    def counted(texts: list[str]) -> list[list[float]]:
        calls.append(texts)
        return embed(texts)

    store = await indexed(driver, counted, fields=["text", "again", "empty", "missing"])
    await store.abatch([PutOp(("n",), str(n), {"text": "red", "again": "red", "empty": ""}) for n in range(3)])
    await store.abatch([GetOp(("n",), "0"), PutOp(("n",), "1", None)])
    await store.asearch(("n",))

    assert calls == [["red"]]


async def test_other_dims_are_taken_only_once_there_are_no_vectors(driver: Driver) -> None:
    store = await indexed(driver)
    await store.aput(("n",), "k", {"text": "red"})
    with pytest.raises(ConfigurationError, match="vectors of 3 numbers"):
        await indexed(driver, lambda texts: [[1.0] * 4 for _ in texts], dims=4)
    await store.adelete(("n",), "k")
    other = await indexed(driver, lambda texts: [[1.0] * 4 for _ in texts], dims=4)
    await other.aput(("n",), "k", {"text": "red"})
    assert len(await other.asearch(("n",), query="red")) == 1


async def test_an_item_put_while_there_is_no_index_has_no_vectors_of_its_old_text(driver: Driver) -> None:
    await (await indexed(driver)).aput(("n",), "k", {"text": "red"})
    await LedgerLongTermStore(driver).aput(("n",), "k", {"text": "blue"})

    assert await (await indexed(driver)).asearch(("n",), query="red") == []


async def test_sweeping_deletes_what_has_expired(driver: Driver) -> None:
    store = LedgerLongTermStore(driver, ttl={"omit_expired": False})
    await store.abatch([PutOp(("n",), str(n), {}, ttl=1e-9) for n in range(1500)])

    assert await store.asearch(("n",), limit=1)

    async with asyncio.timeout(20), item_sweep(store):
        while await store.asearch(("n",), limit=1):  # noqa: ASYNC110 - the ledger tells nobody what it deletes
            await asyncio.sleep(0)


async def test_on_postgresql_a_search_that_would_read_too_many_vectors_is_refused(
    postgres_ledger: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runlane.checkpoints.store.MAX_COMPARED", SCANNED)
    driver = await emptied(postgres_ledger)
    store = await indexed(driver)
    await store.abatch([PutOp(("n", str(n % 2)), str(n), {"text": "red"}) for n in range(SCANNED + 1)])

    with pytest.raises(InvalidRequest, match="no more than 256 items without pgvector"):
        await store.for_owner("").asearch(("n",), query="red")
    assert len(await store.asearch(("n", "1"), query="red", limit=200)) == SCANNED // 2
    assert [record.levelname for record in caplog.records if "store.no_pgvector" in record.getMessage()] == ["WARNING"]
    await driver.aclose()


async def test_what_was_embedded_before_the_extension_was_there_is_found(pgvector: Driver) -> None:
    before = LedgerLongTermStore(pgvector, index=SemanticIndex(dims=3, embed=embed))  # knows no table
    await before.abatch([PutOp(("n",), str(n), {"text": "red"}) for n in range(450)])
    store = await indexed(pgvector)
    assert len(await store.asearch((), query="red", limit=1000)) == 450

    await before.aput(("n",), "1", {"text": "blue"})

    assert len(await store.asearch((), query="red", limit=1000)) == 449
    again = await indexed(pgvector)
    assert [item.key for item in await again.asearch((), query="blue", limit=1)] == ["1"]


async def test_an_approximate_index_hides_nothing(pgvector_url: str) -> None:
    await (await emptied(pgvector_url)).aclose()
    driver = await open_postgres(f"{pgvector_url}&options=-c%20enable_sort%3Doff")  # the planner takes the index
    store = await indexed(driver)
    await store.abatch([PutOp(("n",), str(n), {"n": n, "text": "red"}) for n in range(600)])
    await store.for_owner("rare").abatch([PutOp(("n",), str(n), {"text": "green"}) for n in range(60)])
    with ledger_connection(pgvector_url, autocommit=True) as connection:
        connection.execute("CREATE INDEX ON store_vectors USING hnsw (embedding public.vector_ip_ops)")
        connection.execute("ANALYZE store_vectors")

    everything = await store.asearch((), query="red", limit=600)
    filtered = await store.asearch((), query="red", filter={"n": 599}, limit=5)
    rare = await store.for_owner("rare").asearch((), query="red", limit=60)

    assert len({item.key for item in everything}) == 600
    assert [item.key for item in filtered] == ["599"]
    assert len(rare) == 60
    await driver.aclose()


async def test_the_doctor_finds_items_whose_rows_in_the_table_are_wrong(pgvector: Driver, pgvector_url: str) -> None:
    store = await indexed(pgvector)
    for key in ("red", "blue", "green"):
        await store.aput(("n",), key, {"text": key})

    async def found(*, repaired: bool = False) -> dict[str, bool]:
        async with open_ledger(Settings(database=pgvector_url)) as ledger:
            findings = [one for one in (await examine(ledger)).findings if one.code == "item.vector_rows"]
            if repaired:
                assert [await repair(ledger, finding) for finding in findings if finding.fix is not None] == [True]
            return {str(finding.subject.get("key")): finding.fix is not None for finding in findings}

    assert await found() == {}
    with ledger_connection(pgvector_url, autocommit=True) as connection:
        connection.execute("DELETE FROM store_vectors WHERE key = 'red'")
        connection.execute(
            "INSERT INTO store_vectors SELECT owner, namespace, key, 7, embedding FROM store_vectors WHERE key = 'blue'"
        )
        assert await found(repaired=True) == {"red": False, "blue": True}
        assert await found() == {"red": False, "blue": False}
        await indexed(pgvector)
        assert await found() == {}
        connection.execute("UPDATE store_index SET dims = 4")
        assert await found() == {"None": False}
