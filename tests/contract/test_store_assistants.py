"""Assistants and their versions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runlane.errors import AlreadyExists, NotFound
from runlane.records import ANY_OWNER, NO_OWNER, Assistant
from runlane.store.ledger import RunStore
from runlane.store.transactions.assistants import SHARED_OWNER, SORT_KEYS, AssistantFilter, NewAssistant


def an_assistant(assistant_id: str = "a", **changes: Any) -> NewAssistant:
    values = {"owner": NO_OWNER, "graph_id": "chat", "config": {}, "context": {}, "metadata": {}, **changes}
    return NewAssistant(assistant_id=assistant_id, **values)


async def make(store: RunStore, assistant_id: str = "a", **changes: Any) -> Assistant:
    return await store.assistants.create(an_assistant(assistant_id, **changes))


async def update(store: RunStore, **changes: Any) -> Assistant:
    return await store.assistants.update("a", owner=ANY_OWNER, changes=changes)


async def versions(store: RunStore, **options: Any) -> list[int]:
    return [one.version for one in await store.assistants.versions("a", owner=ANY_OWNER, **options)]


async def search(store: RunStore, **where: Any) -> list[str]:
    page = {name: where.pop(name) for name in ("sort_by", "order", "limit", "offset") if name in where}
    found = await store.assistants.search(owner=ANY_OWNER, where=AssistantFilter(**where), **{"limit": 100, **page})
    if not {"limit", "offset"} & set(page):
        assert await store.assistants.count(owner=ANY_OWNER, where=AssistantFilter(**where)) == len(found)
    return [one.assistant_id for one in found]


async def test_a_new_assistant_is_version_one_and_reads_back(store: RunStore) -> None:
    made = await make(store, name="N", description="D", config={"c": 1}, context={"x": 2}, metadata={"m": 3})
    assert (made.version, made.name, made.description, made.graph_id) == (1, "N", "D", "chat")
    assert (made.config, made.context, made.metadata) == ({"c": 1}, {"x": 2}, {"m": 3})
    assert await store.assistants.get("a", owner=ANY_OWNER) == made
    assert await versions(store) == [1]


async def test_a_taken_assistant_id_is_refused_or_answers_the_same_owners_assistant(store: RunStore) -> None:
    made = await make(store, owner="ann")
    with pytest.raises(AlreadyExists):
        await make(store, owner="ann", name="other")
    assert await store.assistants.create(an_assistant(owner="ann", name="other"), if_exists_return=True) == made
    with pytest.raises(AlreadyExists):
        await store.assistants.create(an_assistant(owner="eve"), if_exists_return=True)


async def test_every_update_makes_a_version_and_merges_metadata_only(store: RunStore) -> None:
    await make(store, config={"c": 1}, metadata={"m": 1, "n": 1})
    updated = await update(store, config={"d": 2}, metadata={"n": 2})
    assert (updated.version, updated.config, updated.metadata) == (2, {"d": 2}, {"m": 1, "n": 2})
    assert (await update(store, name="new")).version == 3
    assert await versions(store) == [3, 2, 1]
    assert await versions(store, limit=1, offset=1) == [2]
    assert await versions(store, metadata={"n": 2}) == [3, 2]
    first = (await store.assistants.versions("a", owner=ANY_OWNER))[-1]
    assert (first.config, first.metadata, first.name, first.owner) == ({"c": 1}, {"m": 1, "n": 1}, "Untitled", NO_OWNER)


async def test_setting_the_latest_version_restores_all_that_it_had(store: RunStore) -> None:
    made = await make(store, config={"c": 1}, context={"x": 1}, metadata={"m": 1}, name="one", description="first")
    await update(store, config={"c": 2}, context={"x": 2}, metadata={"m": 2}, name="two", graph_id="other")
    restored = await store.assistants.set_latest("a", owner=ANY_OWNER, version=1)
    for name in ("version", "graph_id", "name", "description", "config", "context", "metadata"):
        assert getattr(restored, name) == getattr(made, name), name
    assert await store.assistants.get("a", owner=ANY_OWNER) == restored
    assert (await update(store, name="three")).version == 3
    assert await versions(store) == [3, 2, 1]


async def test_a_version_that_does_not_exist_is_not_found_and_changes_nothing(store: RunStore) -> None:
    made = await make(store)
    with pytest.raises(NotFound):
        await store.assistants.set_latest("a", owner=ANY_OWNER, version=2)
    assert await store.assistants.get("a", owner=ANY_OWNER) == made


async def test_concurrent_updates_each_make_their_own_version(store: RunStore) -> None:
    await make(store)
    await asyncio.gather(*(update(store, metadata={f"k{n}": n}) for n in range(20)))
    assert await versions(store, limit=100) == list(range(21, 0, -1))
    assert (await store.assistants.get("a", owner=ANY_OWNER)).metadata == {f"k{n}": n for n in range(20)}


async def test_deleting_an_assistant_takes_its_versions(store: RunStore) -> None:
    await make(store)
    await update(store, name="two")
    await store.assistants.delete("a", owner=ANY_OWNER)
    assert (await make(store)).version == 1
    assert await versions(store) == [1]


async def test_what_does_not_exist_is_not_found(store: RunStore) -> None:
    for absent in (
        store.assistants.get("no", owner=ANY_OWNER),
        store.assistants.update("no", owner=ANY_OWNER, changes={"name": "x"}),
        store.assistants.set_latest("no", owner=ANY_OWNER, version=1),
        store.assistants.versions("no", owner=ANY_OWNER),
        store.assistants.delete("no", owner=ANY_OWNER),
    ):
        with pytest.raises(NotFound):
            await absent


async def test_search_by_graph_part_of_the_name_and_metadata(store: RunStore) -> None:
    await make(store, "a", name="Sales 100%", metadata={"team": "x", "tags": ["p", "q"]})
    await make(store, "b", name="sales_bot", graph_id="other", metadata={"team": "y"})
    await make(store, "c", name="Support\\Desk")
    assert set(await search(store)) == {"a", "b", "c"}
    assert await search(store, graph_id="other") == ["b"]
    assert set(await search(store, name="SALES")) == {"a", "b"}
    assert await search(store, name="%") == ["a"]
    assert await search(store, name="_") == ["b"]
    assert await search(store, name="t\\d") == ["c"]
    assert await search(store, metadata={"tags": ["q"]}) == ["a"]
    assert await search(store, name="sales", metadata={"team": "y"}) == ["b"]


@pytest.mark.parametrize("key", SORT_KEYS)
async def test_search_sorts_and_pages_without_gap_or_repeat(store: RunStore, key: str) -> None:
    for name in ("b", "a", "D", "c", "E"):
        await make(store, name, name=name.swapcase(), graph_id="g")
    ascending = await search(store, sort_by=key, order="asc")
    assert await search(store, sort_by=key, order="desc") == ascending[::-1]
    pages = [await search(store, sort_by=key, order="asc", limit=2, offset=offset) for offset in (0, 2, 4)]
    assert [one for page in pages for one in page] == ascending
    expected = {"name": ["a", "b", "c", "D", "E"], "assistant_id": ["D", "E", "a", "b", "c"]}
    by_id = expected["assistant_id"]
    assert ascending == {**expected, "graph_id": by_id}.get(key, ["b", "a", "D", "c", "E"])


async def test_everybody_sees_a_shared_assistant(store: RunStore) -> None:
    await make(store, "shared", owner=SHARED_OWNER)
    await make(store, "hers", owner="ann")
    assert (await store.assistants.get("shared", owner="eve")).owner == SHARED_OWNER
    found = await store.assistants.search(owner="eve", where=AssistantFilter())
    assert [one.assistant_id for one in found] == ["shared"]


@pytest.mark.parametrize("act", ["update", "set_latest", "delete"])
async def test_a_tenant_may_not_change_a_shared_assistant(store: RunStore, act: str) -> None:
    made = await make(store, "a", owner=SHARED_OWNER)
    acts = {
        "update": lambda: store.assistants.update("a", owner="eve", changes={"name": "mine"}),
        "set_latest": lambda: store.assistants.set_latest("a", owner="eve", version=1),
        "delete": lambda: store.assistants.delete("a", owner="eve"),
    }
    with pytest.raises(NotFound):
        await acts[act]()
    assert await store.assistants.get("a", owner=ANY_OWNER) == made


async def test_where_there_are_no_tenants_a_shared_assistant_can_be_changed(store: RunStore) -> None:
    await make(store, "a", owner=SHARED_OWNER)
    changed = await store.assistants.update("a", owner=NO_OWNER, changes={"name": "ours"})
    assert (changed.name, changed.owner) == ("ours", SHARED_OWNER)
