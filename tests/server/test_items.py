"""The long-term store over HTTP: the official SDK, search by similarity, expiry, and what is refused."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from runlane.errors import ConfigurationError
from runlane.server.app import create_app
from runlane.settings import Settings
from runlane.store.statements import Transaction, statement
from server_kit import PATIENCE_S, NewDatabase, Server, running_server, sdk

PROJECT = Path(__file__).parent / "store_project" / "langgraph.json"
# Instants are moved in the rows instead of waiting for them to come.
LATER = statement("later", "UPDATE store_items SET expires_at = expires_at - :us WHERE expires_at IS NOT NULL")
ROWS = statement("rows", "SELECT key, ttl_us, vectors FROM store_items WHERE namespace LIKE :under || '%' ORDER BY key")
MINUTE_US = 60_000_000


@pytest.fixture(scope="module")
def store_server(new_database: NewDatabase) -> Iterator[Server]:
    """Serve a project whose store has an index and expiry."""
    with running_server(new_database(), PROJECT) as running:
        yield running


@pytest.fixture
async def remote(store_server: Server) -> AsyncIterator[LangGraphClient]:
    async with sdk(store_server) as made:
        yield made


@pytest.fixture
async def raw(store_server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=store_server.url, timeout=PATIENCE_S) as made:
        yield made


@pytest.fixture
def root() -> str:
    """Give a label under which nobody else has items."""
    return uuid4().hex


async def found(client: LangGraphClient, root: str, **search: Any) -> list[str]:
    return [item["key"] for item in (await client.store.search_items([root], **search))["items"]]


def rows(server: Server, root: str) -> list[dict[str, Any]]:
    """Return what the ledger has under *root*."""

    def look() -> Transaction[list[dict[str, Any]]]:
        return [dict(row) for row in (yield ROWS(under=root))]

    return list(server.on_loop(server.app.state.service.store.driver.read(look())))


def pass_minutes(server: Server, minutes: float) -> None:
    """Let every item be so much nearer to its end."""

    def move() -> Transaction[None]:
        yield LATER(us=round(minutes * MINUTE_US))

    server.on_loop(server.app.state.service.store.driver.write(move()))


async def test_an_item_is_written_read_changed_and_deleted(remote: LangGraphClient, root: str) -> None:
    namespace = [root, "users"]
    await remote.store.put_item(namespace, key="ada", value={"text": "red", "n": [1, {"a": None}]})
    first = await remote.store.get_item(namespace, key="ada")
    await remote.store.put_item(namespace, key="ada", value={"text": "blue"})
    second = await remote.store.get_item(namespace, key="ada")
    await remote.store.delete_item(namespace, key="ada")
    await remote.store.delete_item(namespace, key="ada")

    assert {**first, "created_at": "", "updated_at": ""} == {
        "namespace": namespace,
        "key": "ada",
        "value": {"text": "red", "n": [1, {"a": None}]},
        "created_at": "",
        "updated_at": "",
    }
    assert second["value"] == {"text": "blue"}
    assert second["created_at"] == first["created_at"] < second["updated_at"]
    assert await remote.store.get_item(namespace, key="ada") is None


async def test_reading_what_is_not_there_creates_nothing(remote: LangGraphClient, root: str) -> None:
    assert await remote.store.get_item([root], key="k") is None
    assert (await remote.store.search_items([root]))["items"] == []
    await remote.store.delete_item([root], key="k")

    assert (await remote.store.list_namespaces(prefix=[root]))["namespaces"] == []


async def test_a_search_without_conditions_finds_everything_and_nulls_are_no_conditions(
    remote: LangGraphClient, raw: httpx.AsyncClient, root: str
) -> None:
    await remote.store.put_item([root], key="k", value={"v": None})
    everything = await raw.post("/store/items/search", json={})
    nulls = {"namespace_prefix": [root], "filter": None, "query": None, "refresh_ttl": None}
    under = await raw.post("/store/items/search", json=nulls)
    listed = await raw.post("/store/namespaces", json={"prefix": None, "suffix": [root], "max_depth": None})

    assert everything.json()["items"][0]["key"] == "k"
    assert [item["value"] for item in under.json()["items"]] == [{"v": None}]
    assert listed.json() == {"namespaces": [[root]]}


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        ({"kind": "a"}, ["3", "1"]),
        ({"n": {"$gte": 2}}, ["3", "2"]),
        ({"n": {"$gt": 1, "$lt": 3}}, ["2"]),
        ({"n": {"$lte": 1}}, ["1"]),
        ({"kind": {"$ne": "a"}, "n": {"$eq": 2}}, ["2"]),
        ({"kind": {"$eq": "c"}}, []),
    ],
)
async def test_a_search_filters_by_the_fields_of_values(
    remote: LangGraphClient, root: str, wanted: dict[str, Any], keys: list[str]
) -> None:
    for n, kind in ((1, "a"), (2, "b"), (3, "a")):
        await remote.store.put_item([root], key=str(n), value={"n": n, "kind": kind})

    assert await found(remote, root, filter=wanted) == keys


async def test_pages_of_a_filtered_search_hold_each_match_once(remote: LangGraphClient, root: str) -> None:
    for n in range(7):
        await remote.store.put_item([root, str(n % 2)], key=str(n), value={"even": n % 2 == 0})

    pages = [await found(remote, root, filter={"even": True}, limit=2, offset=offset) for offset in (0, 2, 4)]

    assert pages == [["6", "4"], ["2", "0"], []]


async def test_namespaces_are_listed_by_prefix_suffix_and_depth(remote: LangGraphClient, root: str) -> None:
    for labels in (["a", "x"], ["a", "y"], ["b", "x"], ["b", "x", "deep"]):
        await remote.store.put_item([root, *labels], key="k", value={})

    async def listed(**how: Any) -> list[list[str]]:
        answer = await remote.store.list_namespaces(**{"prefix": [root], **how})
        return [namespace[1:] for namespace in answer["namespaces"]]

    assert await listed() == [["a", "x"], ["a", "y"], ["b", "x"], ["b", "x", "deep"]]
    assert await listed(prefix=[root, "*", "x"]) == [["a", "x"], ["b", "x"], ["b", "x", "deep"]]
    assert await listed(suffix=["*", "x"]) == [["a", "x"], ["b", "x"]]
    assert await listed(max_depth=2) == [["a"], ["b"]]
    assert await listed(limit=2, offset=1) == [["a", "y"], ["b", "x"]]


async def test_the_most_alike_items_come_first_with_their_scores(remote: LangGraphClient, root: str) -> None:
    for text in ("red", "red green", "green", "blue"):
        await remote.store.put_item([root], key=text, value={"text": text, "other": "red"})

    items = (await remote.store.search_items([root], query="red"))["items"]
    page = await found(remote, root, query="red", limit=1, offset=1)
    filtered = await found(remote, root, query="red", filter={"text": {"$ne": "red"}}, limit=1)
    plain = (await remote.store.search_items([root], limit=1))["items"]

    assert [(item["key"], round(item["score"], 3)) for item in items] == [
        ("red", 1.0),
        ("red green", 0.707),
        ("blue", 0.0),
        ("green", 0.0),
    ]
    assert page == filtered == ["red green"]
    assert [(item["key"], item["score"]) for item in plain] == [("blue", None)]


async def test_an_item_says_what_of_it_is_embedded(remote: LangGraphClient, root: str) -> None:
    value = {"text": "green", "parts": [{"t": "blue"}, {"t": "red red red blue"}], "note": "red"}
    await remote.store.put_item([root], key="default", value=value)
    await remote.store.put_item([root], key="parts", value=value, index=["parts[*].t"])
    await remote.store.put_item([root], key="note", value=value, index=["$.note"])
    await remote.store.put_item([root], key="never", value=value, index=False)
    await remote.store.put_item([root], key="nothing", value={"text": None})

    items = (await remote.store.search_items([root], query="red"))["items"]

    assert [(item["key"], round(item["score"], 2)) for item in items] == [("note", 1), ("parts", 0.95), ("default", 0)]


async def test_a_change_replaces_the_vectors_and_a_deletion_removes_them(
    store_server: Server, remote: LangGraphClient, root: str
) -> None:
    await remote.store.put_item([root], key="k", value={"text": "red"})
    await remote.store.put_item([root], key="k", value={"text": "blue"})
    blue = (await remote.store.search_items([root], query="blue"))["items"]
    await remote.store.put_item([root], key="k", value={"text": "blue"}, index=False)
    unindexed = rows(store_server, root)
    await remote.store.put_item([root], key="k", value={"text": "blue"})
    await remote.store.delete_item([root], key="k")

    assert [item["score"] for item in blue] == [1.0]
    assert [row["vectors"] for row in unindexed] == [None]
    assert await found(remote, root, query="blue") == []
    assert rows(store_server, root) == []


async def test_nodes_and_clients_use_the_same_items(remote: LangGraphClient) -> None:
    await remote.store.put_item(["facts"], key="by the client", value={"text": "red red blue"})
    thread = await remote.threads.create()
    learnt = await remote.runs.wait(thread["thread_id"], "memory", input={"learn": "red green", "ask": "blue"})
    item = await remote.store.get_item(["facts"], key="red green")
    asked = await remote.runs.wait(thread["thread_id"], "memory", input={"ask": "green"})

    assert learnt["found"] == ["by the client", "red green"]
    assert item["value"] == {"text": "red green"}
    assert asked["found"][0] == "red green"


async def test_an_embedding_that_fails_writes_nothing_and_keeps_the_providers_text_to_the_log(
    remote: LangGraphClient, raw: httpx.AsyncClient, root: str
) -> None:
    put = await raw.put("/store/items", json={"namespace": [root], "key": "k", "value": {"text": "fail"}})
    search = await raw.post("/store/items/search", json={"query": "fail"})
    thread = await remote.threads.create()
    run = await remote.runs.wait(thread["thread_id"], "memory", input={"ask": "fail"}, raise_error=False)

    assert put.status_code == search.status_code == 502
    assert put.json()["code"] == search.json()["code"] == "embedding_failed"
    assert "NoAnswer" in put.json()["detail"]
    assert run["__error__"]["error"] == "EmbeddingFailed"
    assert "sk-secret" not in put.text + search.text + json.dumps(run)
    assert await remote.store.get_item([root], key="k") is None


async def test_an_item_lives_for_its_own_time_or_the_configured_one(
    store_server: Server, remote: LangGraphClient, raw: httpx.AsyncClient, root: str
) -> None:
    await remote.store.put_item([root], key="default", value={})
    await remote.store.put_item([root], key="for ever", value={}, ttl=None)
    await remote.store.put_item([root], key="short", value={}, ttl=1)
    response = await raw.put("/store/items", json={"namespace": [root], "key": "null", "value": {}, "ttl": None})

    assert response.status_code == 204
    assert {row["key"]: row["ttl_us"] for row in rows(store_server, root)} == {
        "default": 60 * MINUTE_US,
        "for ever": 60 * MINUTE_US,  # the SDK sends no null
        "null": None,
        "short": MINUTE_US,
    }


async def test_reading_an_item_begins_its_time_anew_unless_it_is_only_looked_at(
    store_server: Server, remote: LangGraphClient, root: str
) -> None:
    for key in ("read", "looked at", "found", "left"):
        await remote.store.put_item([root, key], key=key, value={}, ttl=10)
    pass_minutes(store_server, 6)
    await remote.store.get_item([root, "read"], key="read")
    await remote.store.get_item([root, "looked at"], key="looked at", refresh_ttl=False)
    await remote.store.search_items([root, "found"])
    await remote.store.search_items([root, "left"], refresh_ttl=False)
    pass_minutes(store_server, 6)

    assert sorted(await found(remote, root, refresh_ttl=False)) == ["found", "read"]
    assert await remote.store.get_item([root, "left"], key="left") is None
    assert len((await remote.store.list_namespaces(prefix=[root]))["namespaces"]) == 2
    assert [row["key"] for row in rows(store_server, root)] == ["found", "left", "looked at", "read"]
    assert store_server.on_loop(store_server.app.state.service.runtime.long_term_store.sweep()) >= 2
    assert [row["key"] for row in rows(store_server, root)] == ["found", "read"]


def put(**fields: Any) -> dict[str, Any]:
    return {"namespace": ["n"], "key": "k", "value": {}, **fields}


@pytest.mark.parametrize(
    ("method", "path", "body", "says"),
    [
        ("PUT", "/store/items", put(namespace=[]), "empty"),
        ("PUT", "/store/items", put(namespace=["a.b"]), "period"),
        ("PUT", "/store/items", put(namespace=["a", ""]), "empty"),
        ("PUT", "/store/items", put(namespace=["langgraph"]), "langgraph"),
        ("PUT", "/store/items", put(namespace=[1]), "namespace"),
        ("PUT", "/store/items", put(value=None), "value"),
        ("PUT", "/store/items", put(value=[1]), "value"),
        ("PUT", "/store/items", put(index=True), "index"),
        ("PUT", "/store/items", put(ttl=0), "time to live"),
        ("PUT", "/store/items", put(ttl=1e18), "time to live"),
        ("PUT", "/store/items", {"namespace": ["n"], "value": {}}, "key"),
        ("DELETE", "/store/items", {"namespace": ["a.b"], "key": "k"}, "period"),
        ("DELETE", "/store/items", {"namespace": ["a"]}, "key"),
        ("POST", "/store/items/search", {"namespace_prefix": [""]}, "empty"),
        ("POST", "/store/items/search", {"filter": {"a": {"$near": 1}}}, "$near"),
        ("POST", "/store/items/search", {"limit": 0}, "limit"),
        ("POST", "/store/items/search", {"offset": -1}, "offset"),
        ("POST", "/store/namespaces", {"prefix": ["a.b"]}, "period"),
        ("POST", "/store/namespaces", {"max_depth": 0}, "max_depth"),
        ("GET", "/store/items?namespace=a", None, "key"),
        ("GET", "/store/items?namespace=a..b&key=k", None, "empty"),
        ("GET", "/store/items?namespace=a&key=k&refresh_ttl=maybe", None, "refresh_ttl"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_the_answer_says_what(
    raw: httpx.AsyncClient, method: str, path: str, body: Any, says: str
) -> None:
    response = await raw.request(method, path, json=body)

    assert response.status_code == 422, response.text
    assert response.json()["code"] == "invalid_request"
    assert says in response.json()["detail"]


async def test_without_an_index_queries_and_fields_to_embed_are_ignored_and_named(
    client: LangGraphClient, http: httpx.AsyncClient, root: str
) -> None:
    indexed = await http.put("/store/items", json=put(namespace=[root], key="old", index=["text"]))
    await client.store.put_item([root], key="new", value={"text": "blue"}, index=False)
    query = await http.post("/store/items/search", json={"namespace_prefix": [root], "query": "red"})

    assert (indexed.status_code, indexed.headers["runlane-ignored"]) == (204, "index")
    assert (query.status_code, query.headers["runlane-ignored"]) == (200, "query")
    assert [item["key"] for item in query.json()["items"]] == ["new", "old"]
    assert "runlane-ignored" not in (await http.put("/store/items", json=put(namespace=[root]))).headers


def written(folder: Path, store: Any, **keys: Any) -> Path:
    """Write a project with the graph of the tests' and *store*."""
    path = folder / "langgraph.json"
    path.write_text(
        json.dumps({"graphs": {"memory": f"{PROJECT.parent}/memory.py:memory"}, "store": store, **keys}),
    )
    return path


async def test_items_and_vectors_survive_a_restart_with_the_same_dims_and_no_other(
    tmp_path: Path, new_database: NewDatabase
) -> None:
    database = new_database()
    with running_server(database, PROJECT) as server:
        async with sdk(server) as client:
            await client.store.put_item(["n"], key="k", value={"text": "red"})
    with running_server(database, PROJECT) as server:
        async with sdk(server) as client:
            items = (await client.store.search_items(["n"], query="red"))["items"]

    assert [item["score"] for item in items] == [1.0]
    config = written(tmp_path, {"index": {"dims": 4, "embed": f"{PROJECT.parent}/embeddings.py:embed"}})
    with pytest.raises(ConfigurationError, match=r"vectors of 3 numbers, and 'store.index.dims' is 4"):
        await opened(config, database)


async def opened(config: Path, database: str = "memory://") -> None:
    """Start an application and stop it."""
    app = create_app(config, Settings(database=database))
    async with app.router.lifespan_context(app):
        pass


async def test_an_embedding_function_that_blocks_does_not_stop_the_server(tmp_path: Path) -> None:
    config = written(tmp_path, {"index": {"dims": 3, "embed": f"{PROJECT.parent}/embeddings.py:block"}})
    with running_server("memory://", config) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
            writing = asyncio.ensure_future(http.put("/store/items", json=put()))
            reads = [await http.get("/store/items", params={"namespace": "n", "key": "k"}) for _ in range(20)]
            written_early = writing.done()
            imported("embeddings.py").GO_ON.set()
            response = await writing
            item = await http.get("/store/items", params={"namespace": "n", "key": "k"})

    assert [read.json() for read in reads] == [None] * 20
    assert not written_early
    assert response.status_code == 204
    assert item.json()["value"] == {}


def imported(name: str) -> Any:
    """Return the module that the server has made of a file of the project."""
    file = str(PROJECT.parent / name)
    return next(module for module in [*sys.modules.values()] if getattr(module, "__file__", None) == file)


@pytest.mark.parametrize(
    ("store", "says"),
    [
        ({"path": "./store.py:store"}, "store.path"),
        ({"cache": 1}, "cache"),
        ({"ttl": {"default_ttl": 0}}, "default_ttl"),
        ({"ttl": {"default_ttl": "soon"}}, "default_ttl"),
        ({"index": {"dims": 0, "embed": "a:b"}}, "dims"),
        ({"index": {"dims": 3}}, "embed"),
        ({"index": {"dims": 3, "embed": "nothing"}}, "provider:model"),
        ({"index": {"dims": 3, "embed": "./nowhere.py:embed"}}, "nowhere.py"),
        ({"index": {"dims": 3, "embed": f"{PROJECT.parent}/embeddings.py:COLOURS"}}, "not a function"),
        ({"index": {"dims": 3, "embed": f"{PROJECT.parent}/embeddings.py:NoAnswer"}}, "not a function"),
        ({"index": {"dims": 3, "embed": "openai:text-embedding-3-small"}}, "langchain"),
    ],
)
async def test_a_store_that_cannot_be_had_is_an_error_at_the_start(tmp_path: Path, store: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        await opened(written(tmp_path, store))


async def test_a_handler_of_the_application_decides_where_a_request_goes(tmp_path: Path) -> None:
    config = written(tmp_path, {}, auth={"path": f"{PROJECT.parent}/auth.py:auth"})
    with running_server("memory://", config) as server:
        ada, bob = (
            get_client(url=server.url, headers={"authorization": f"Bearer {name}"}, api_key=None)
            for name in ("ada", "bob")
        )
        await ada.store.put_item(["n"], key="k", value={"v": "ada's"})
        item = await ada.store.get_item(["n"], key="k")
        listed = await ada.store.list_namespaces()
        searched = await ada.store.search_items(["n"])
        with pytest.raises(httpx.HTTPStatusError, match="not allowed"):
            await ada.store.delete_item(["n"], key="k")
        others = [await bob.store.get_item(["n"], key="k"), (await bob.store.search_items([]))["items"]]
        await ada.aclose()
        await bob.aclose()

    assert item["namespace"] == ["monday", "n"]
    assert listed["namespaces"] == [["monday", "n"]]
    assert [found["value"] for found in searched["items"]] == [{"v": "ada's"}]
    assert others == [None, []]
