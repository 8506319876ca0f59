"""Filters in SQL mean on every database what they mean in Python, and what is filtered is not counted."""

from __future__ import annotations

from typing import Any

import pytest

from ledger_kit import admit
from runlane.lifecycle import RunStatus
from runlane.records import ANY_OWNER, NO_OWNER
from runlane.store.filters import matches
from runlane.store.ledger import RunStore
from runlane.store.transactions.assistants import AssistantFilter, NewAssistant
from runlane.store.transactions.thread_search import ThreadFilter

DOCUMENTS: list[dict[str, Any]] = [
    {},
    {"k": "ann"},
    {"k": "bob"},
    {"k": ["ann"]},
    {"k": ["ann", "bob", 1, None]},
    {"k": {"k": "ann"}},
    {"k": 1},
    {"k": 1.5},
    {"k": True},
    {"k": None},
    {"k": [["ann"], {"k": "ann"}]},
    {"k": 'a "quoted" \\ text\n'},
    {"k": "é😀"},
    {"k": "x\ufffdy"},
    {'odd "key".$[*]': "ann", "a.b": 1},
    {"k": "ann", "other": ["red"]},
    {"": "ann"},
    {"k": 9007199254740993},
]
FILTERS: list[dict[str, Any]] = [
    {"k": "ann"},
    {"k": {"$eq": "bob"}},
    {"k": {"$contains": "ann"}},
    {"k": {"$contains": ["ann", 1]}},
    {"k": {"$contains": [None]}},
    {"k": 1},
    {"k": 1.0},
    {"k": 1.5},
    {"k": True},
    {"k": None},
    {"k": 'a "quoted" \\ text\n'},
    {"k": "é😀"},
    {"k": "x\ufffdy"},
    {'odd "key".$[*]': "ann"},
    {"a.b": 1},
    {"": "ann"},
    {"k": 9007199254740993},
    {"k": "ann", "other": {"$contains": "red"}},
    {"$or": [{"missing": 1}, {"k": "ann"}]},
    {"$or": [{"k": "ann"}, {"k": {"$contains": "bob"}}, {"$and": [{"a.b": 1}]}]},
    {"$and": [{"k": "ann"}, {"$or": [{"other": {"$contains": "blue"}}, {"other": {"$contains": "red"}}]}]},
    {"$or": [{}]},
    {"missing": {"$contains": "x"}},
]


@pytest.fixture
async def filled(store: RunStore) -> RunStore:
    for number, document in enumerate(DOCUMENTS):
        await store.threads.create(f"t{number:02}", owner=f"owner-{number % 2}", metadata=document)
    return store


async def test_a_filter_in_sql_finds_what_it_matches_in_python(filled: RunStore) -> None:
    for where in FILTERS:
        wanted = ThreadFilter(where=where)
        found = await filled.threads.search(owner=ANY_OWNER, where=wanted, sort_by="thread_id", order="asc", limit=100)
        stored = {thread.thread_id: thread.metadata for thread in await _all(filled)}
        expected = [thread_id for thread_id in sorted(stored) if matches(where, stored[thread_id])]
        assert [thread.thread_id for thread in found] == expected, where
        assert await filled.threads.count(owner=ANY_OWNER, where=wanted) == len(expected), where


async def _all(store: RunStore) -> Any:
    return await store.threads.search(owner=ANY_OWNER, where=ThreadFilter(), limit=100)


async def test_a_page_is_cut_after_the_filter(filled: RunStore) -> None:
    wanted = ThreadFilter(where={"k": "ann"})
    page = await filled.threads.search(
        owner=ANY_OWNER, where=wanted, sort_by="thread_id", order="asc", limit=1, offset=1
    )
    assert [thread.thread_id for thread in page] == ["t15"]


async def test_a_filter_narrows_an_owners_things_and_never_widens_them(filled: RunStore) -> None:
    found = await filled.threads.search(owner="owner-0", where=ThreadFilter(where={"k": "ann"}), limit=100)
    assert found == ()


async def test_assistants_are_filtered_in_the_same_way(store: RunStore) -> None:
    for name, team in (("a", "red"), ("b", "blue")):
        new = NewAssistant(
            assistant_id=name, owner="ann", graph_id="g", config={}, context={}, metadata={"teams": [team]}
        )
        await store.assistants.create(new)
    where = AssistantFilter(where={"teams": {"$contains": "blue"}})
    assert [one.assistant_id for one in await store.assistants.search(owner=ANY_OWNER, where=where)] == ["b"]
    assert await store.assistants.count(owner=ANY_OWNER, where=where) == 1


async def test_active_runs_are_filtered_by_what_their_thread_says(store: RunStore) -> None:
    runs = {}
    for name in ("red", "blue"):
        await store.threads.create(name, owner=NO_OWNER, metadata={"team": name})
        runs[name] = await admit(store, name, metadata={"team": "red"})
    found = await store.runs.active(owner=ANY_OWNER, where={"team": "blue"}, status=RunStatus.PENDING)
    assert [run.run_id for run in found] == [runs["blue"]]
