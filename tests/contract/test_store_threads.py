"""Threads: their status, what a run leaves on them, and finding them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ledger_kit import admit, cancel, claim, ended, finish, running
from runlane.errors import AlreadyExists, ConflictError, InvalidRequest, NotFound
from runlane.lifecycle import CancelAction, EndReason, RunEvent, ThreadStatus
from runlane.outcomes import Snapshot
from runlane.records import ANY_OWNER, NO_OWNER, RunError, Thread
from runlane.store.ledger import RunStore
from runlane.store.transactions.thread_search import SORT_KEYS, ThreadFilter

IDLE, BUSY, INTERRUPTED, ERROR = ThreadStatus.IDLE, ThreadStatus.BUSY, ThreadStatus.INTERRUPTED, ThreadStatus.ERROR
ASKED = Snapshot(values=b'{"n":1}', interrupts={"task": [{"value": "ok?"}]}, unfinished=True)
DONE = Snapshot(values=b'{"n":2}')
FAILED = RunError(error="ValueError", message="no")


async def make(store: RunStore, thread_id: str, owner: str = NO_OWNER, **metadata: Any) -> Thread:
    return await store.threads.create(thread_id, owner=owner, metadata=metadata)


async def get(store: RunStore, thread_id: str = "t") -> Thread:
    return await store.threads.get(thread_id, owner=ANY_OWNER)


async def search(store: RunStore, **where: Any) -> list[str]:
    page = {name: where.pop(name) for name in ("sort_by", "order", "limit", "offset") if name in where}
    found = await store.threads.search(owner=ANY_OWNER, where=ThreadFilter(**where), **{"limit": 100, **page})
    if not {"limit", "offset"} & set(page):
        assert await store.threads.count(owner=ANY_OWNER, where=ThreadFilter(**where)) == len(found)
    return [thread.thread_id for thread in found]


async def test_a_new_thread_is_idle_and_empty(store: RunStore) -> None:
    thread = await make(store, "t", a=1)
    assert (thread.status, thread.metadata, thread.config, thread.values) == (IDLE, {"a": 1}, {}, None)
    assert (thread.interrupts, thread.error) == ({}, None)
    assert await get(store) == thread


async def test_a_taken_thread_id_is_refused_or_answers_the_same_owners_thread(store: RunStore) -> None:
    thread = await make(store, "t", owner="ann", a=1)
    with pytest.raises(AlreadyExists):
        await make(store, "t", owner="ann")
    assert await store.threads.create("t", owner="ann", metadata={}, if_exists_return=True) == thread
    with pytest.raises(AlreadyExists):
        await store.threads.create("t", owner="eve", metadata={}, if_exists_return=True)


@pytest.mark.parametrize(
    ("event", "state", "status"),
    [
        (RunEvent.SUCCEED, DONE, IDLE),
        (RunEvent.SUCCEED, None, IDLE),
        (RunEvent.PAUSE, ASKED, INTERRUPTED),
        (RunEvent.STOP, Snapshot(unfinished=True), INTERRUPTED),
        (RunEvent.STOP, DONE, IDLE),
        (RunEvent.FAIL, DONE, ERROR),
        (RunEvent.EXPIRE, None, ERROR),
    ],
)
async def test_a_thread_shows_how_its_last_run_ended(
    store: RunStore, event: RunEvent, state: Snapshot | None, status: ThreadStatus
) -> None:
    lease = await running(store)
    assert (await get(store)).status is BUSY
    await finish(store, lease, event, state=state)
    assert (await get(store)).status is status
    following = await running(store)
    assert (await get(store)).status is BUSY
    await finish(store, following, state=DONE)
    assert (await get(store)).status is IDLE


async def test_a_thread_is_busy_until_the_last_run_of_its_lane_has_ended(store: RunStore) -> None:
    first, second = await running(store), await admit(store)
    await finish(store, first, RunEvent.FAIL)
    assert (await get(store)).status is BUSY
    await cancel(store, second)
    assert (await get(store)).status is ERROR


async def test_a_run_leaves_its_values_interrupts_and_error_on_the_thread(store: RunStore) -> None:
    await finish(store, await running(store), RunEvent.PAUSE, state=ASKED)
    paused = await get(store)
    assert (paused.values, paused.interrupts, paused.error) == ({"n": 1}, {"task": [{"value": "ok?"}]}, None)
    await finish(store, await running(store), RunEvent.FAIL, error=FAILED)
    failed = await get(store)
    assert (failed.values, failed.interrupts, failed.error) == (paused.values, paused.interrupts, FAILED)
    assert failed.state_updated_at == paused.state_updated_at
    await finish(store, await running(store), state=Snapshot())
    idle = await get(store)
    assert (idle.values, idle.interrupts, idle.error) == ({"n": 1}, {}, None)
    assert idle.state_updated_at > paused.state_updated_at


@pytest.mark.parametrize("executed", [True, False])
@pytest.mark.parametrize("event", [RunEvent.PAUSE, RunEvent.FAIL, RunEvent.SUCCEED])
async def test_rollback_leaves_the_thread_as_it_was(store: RunStore, event: RunEvent, executed: bool) -> None:
    await finish(store, await running(store), event, state=ASKED if event is RunEvent.PAUSE else DONE)
    before = await get(store)
    run_id = await admit(store)
    lease = (await claim(store, run_id)).lease if executed else None
    await cancel(store, run_id, CancelAction.ROLLBACK)
    if lease is not None:
        await finish(store, lease, RunEvent.STOP, end_reason=EndReason.ROLLED_BACK, state=Snapshot(values=b"{}"))
    after = await get(store)
    for name in ("status", "values", "interrupts", "error", "metadata", "state_updated_at"):
        assert getattr(after, name) == getattr(before, name), name


async def test_giving_a_run_up_shows_on_the_thread(store: RunStore) -> None:
    run_id = await admit(store)
    await store.queue.give_up(run_id, EndReason.NEVER_STARTED, FAILED)
    thread = await get(store)
    assert (thread.status, thread.error) == (ERROR, FAILED)


async def test_deleting_the_last_active_runs_neighbour_keeps_the_thread_busy(store: RunStore) -> None:
    old = await ended(store)
    await running(store)
    await store.runs.delete(old, owner=ANY_OWNER)
    assert (await get(store)).status is BUSY


async def test_patches_merge_metadata_also_when_they_come_at_once(store: RunStore) -> None:
    await make(store, "t", a=1, b={"x": 1})
    await asyncio.gather(
        *(store.threads.patch("t", owner=ANY_OWNER, metadata={f"k{n}": n}) for n in range(20)),
        *(store.threads.set_state("t", owner=ANY_OWNER, state=DONE, metadata={f"s{n}": n}) for n in range(20)),
        store.threads.patch("t", owner=ANY_OWNER, metadata={"b": {"y": 2}}),
    )
    numbered = {f"{letter}{n}": n for letter in "ks" for n in range(20)}
    assert (await get(store)).metadata == {"a": 1, "b": {"y": 2}, **numbered}


async def test_a_state_written_outside_of_a_run_settles_the_thread(store: RunStore) -> None:
    await make(store, "t", a=1)
    asked = await store.threads.set_state("t", owner=ANY_OWNER, state=ASKED, metadata={"b": 2})
    assert (asked.status, asked.values, asked.metadata) == (INTERRUPTED, {"n": 1}, {"a": 1, "b": 2})
    assert asked.interrupts == {"task": [{"value": "ok?"}]}
    kept = await store.threads.set_state("t", owner=ANY_OWNER, state=Snapshot(), metadata={})
    assert (kept.status, kept.values, kept.interrupts) == (IDLE, {"n": 1}, {})
    assert await get(store) == kept


@pytest.mark.parametrize("executes", [True, False])
async def test_an_active_run_protects_its_thread(store: RunStore, executes: bool) -> None:
    run_id = await admit(store)
    if executes:
        await claim(store, run_id)
    before = await get(store)
    for refused in (
        store.threads.get_idle("t", owner=ANY_OWNER),
        store.threads.set_state("t", owner=ANY_OWNER, state=DONE, metadata={"a": 1}),
        store.threads.delete("t", owner=ANY_OWNER),
    ):
        with pytest.raises(ConflictError) as conflict:
            await refused
        assert conflict.value.active_run_id == run_id
    assert await get(store) == before


async def test_deleting_a_thread_takes_its_runs_and_no_others(store: RunStore) -> None:
    gone, kept = await ended(store, "t"), await ended(store, "u")
    assert (await store.threads.get_idle("t", owner=ANY_OWNER)).thread_id == "t"
    await store.threads.delete("t", owner=ANY_OWNER)
    for missing in (store.threads.get("t", owner=ANY_OWNER), store.runs.get(gone, owner=ANY_OWNER)):
        with pytest.raises(NotFound):
            await missing
    assert (await store.runs.get(kept, owner=ANY_OWNER)).run_id == kept


async def test_what_does_not_exist_is_not_found(store: RunStore) -> None:
    for absent in (
        store.threads.get("no", owner=ANY_OWNER),
        store.threads.patch("no", owner=ANY_OWNER, metadata={}),
        store.threads.get_idle("no", owner=ANY_OWNER),
        store.threads.set_state("no", owner=ANY_OWNER, state=DONE, metadata={}),
        store.threads.delete("no", owner=ANY_OWNER),
    ):
        with pytest.raises(NotFound):
            await absent


async def test_records_are_copies(store: RunStore) -> None:
    metadata: dict[str, Any] = {"a": {"b": [1]}}
    created = await store.threads.create("t", owner=NO_OWNER, metadata=metadata)
    metadata["a"]["b"].append(2)
    (await get(store)).metadata["a"]["b"].append(3)
    created.metadata["a"]["b"].append(4)
    assert (await get(store)).metadata == {"a": {"b": [1]}}
    run_id = await admit(store, "u", metadata=metadata, kwargs=metadata)
    metadata.clear()
    run = await store.runs.get(run_id, owner=ANY_OWNER)
    run.kwargs["a"].clear()
    again = await store.runs.get(run_id, owner=ANY_OWNER)
    assert again.kwargs == again.metadata == {"a": {"b": [1, 2]}}


# Containment is PostgreSQL's `@>`, on every database.
DOCUMENTS: dict[str, Any] = {
    "flat": {"a": 1, "b": "x"},
    "float": {"a": 1.0},
    "true": {"a": True},
    "null": {"a": None},
    "text": {"a": "1"},
    "list": {"a": [1, 2, [3]], "c": [{"k": 1, "l": 2}]},
    "deep": {"a": {"b": {"c": 1, "d": 2}}},
    "empty": {},
}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"a": 1}, {"flat", "float"}),
        ({"a": 1.0}, {"flat", "float"}),
        ({"a": 1, "b": "x"}, {"flat"}),
        ({"a": True}, {"true"}),
        ({"a": None}, {"null"}),
        ({"a": "1"}, {"text"}),
        ({"a": []}, {"list"}),
        ({"a": [2, 1]}, {"list"}),
        ({"a": [1, 1]}, {"list"}),
        ({"a": [3]}, set()),
        ({"a": [[3]]}, {"list"}),
        ({"a": 2}, set()),
        ({"c": [{"k": 1}]}, {"list"}),
        ({"c": [{}]}, {"list"}),
        ({"c": {}}, set()),
        ({"a": {}}, {"deep"}),
        ({"a": {"b": {"d": 2}}}, {"deep"}),
        ({"a": {"b": {"d": 3}}}, set()),
        ({"z": None}, set()),
        ({}, set(DOCUMENTS)),
        (None, set(DOCUMENTS)),
    ],
)
async def test_search_finds_documents_that_contain_what_is_wanted(
    store: RunStore, wanted: dict[str, Any] | None, found: set[str]
) -> None:
    for name, document in DOCUMENTS.items():
        await make(store, name, **document)
    assert set(await search(store, metadata=wanted)) == found


async def test_search_by_values_status_and_ids(store: RunStore) -> None:
    await make(store, "a")
    await finish(store, await running(store, "b"), state=DONE)
    await finish(store, await running(store, "c"), RunEvent.PAUSE, state=ASKED)
    await running(store, "d")
    assert await search(store, values={"n": 1}) == ["c"]
    assert await search(store, status=BUSY) == ["d"]
    assert await search(store, status=INTERRUPTED) == ["c"]
    assert set(await search(store, ids=("a", "d", "nobody"))) == {"a", "d"}
    assert await search(store, ids=()) == []
    assert await search(store, ids=("a", "c"), status=IDLE) == ["a"]


async def test_values_that_are_no_object_are_stored_and_match_nothing(store: RunStore) -> None:
    await finish(store, await running(store), state=Snapshot(values=b"[1, 2]"))
    assert (await get(store)).values == [1, 2]
    assert await search(store, values={"n": 1}) == []


async def test_a_nul_in_a_document_is_kept_and_spoils_no_search(store: RunStore) -> None:
    await make(store, "nul", a="x\0y", b="\\u0000", c=1)
    await make(store, "plain", c=1)
    assert (await get(store, "nul")).metadata == {"a": "x\0y", "b": "\\u0000", "c": 1}
    assert set(await search(store, metadata={"c": 1})) == {"nul", "plain"}
    assert await search(store, metadata={"a": "x\0y"}) == ["nul"]
    assert await search(store, metadata={"b": "\\u0000"}) == ["nul"]


@pytest.mark.parametrize("key", SORT_KEYS)
async def test_search_sorts_and_pages_without_gap_or_repeat(store: RunStore, key: str) -> None:
    for name in ("b", "a", "D", "c", "E"):
        await make(store, name)
    ascending = await search(store, sort_by=key, order="asc")
    assert await search(store, sort_by=key, order="desc") == ascending[::-1]
    pages = [await search(store, sort_by=key, order="asc", limit=2, offset=offset) for offset in (0, 2, 4, 6)]
    assert [one for page in pages for one in page] == ascending
    assert [len(page) for page in pages] == [2, 2, 1, 0]
    if key in ("thread_id", "status"):
        assert ascending == ["D", "E", "a", "b", "c"]
    else:
        assert ascending == ["b", "a", "D", "c", "E"]


@pytest.mark.parametrize("unfit", [{"a": 2**70}, {"a": "\ud800"}, {"a": object()}], ids=["number", "surrogate", "type"])
async def test_what_is_not_json_is_refused_and_changes_nothing(store: RunStore, unfit: dict[str, Any]) -> None:
    await make(store, "t")
    before = await get(store)
    for refused in (
        store.threads.patch("t", owner=ANY_OWNER, metadata=unfit),
        store.threads.create("u", owner=NO_OWNER, metadata=unfit),
    ):
        with pytest.raises(InvalidRequest):
            await refused
    with pytest.raises(InvalidRequest):
        await admit(store, "t", kwargs=unfit)
    assert await search(store) == ["t"]
    assert await get(store) == before


async def test_an_id_that_is_not_text_is_refused(store: RunStore) -> None:
    with pytest.raises(InvalidRequest):
        await make(store, "\ud800")
    with pytest.raises(InvalidRequest):
        await store.threads.get("\udfff", owner=ANY_OWNER)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (RunEvent.SUCCEED, EndReason.COMPLETED),
        (RunEvent.FAIL, EndReason.FAILED),
        (RunEvent.STOP, EndReason.USER_CANCEL),
        (RunEvent.STOP, EndReason.ROLLED_BACK),
    ],
)
async def test_first_values_are_shown_until_the_run_ends_and_by_its_attempt_alone(
    store: RunStore, event: RunEvent, reason: EndReason
) -> None:
    first = await claim(store, await admit(store))
    assert first.bare
    assert await store.threads.show_first_values(first.lease, b'{"title":"new"}') is True
    shown = await store.threads.get("t", owner=ANY_OWNER)
    assert (shown.values, shown.status) == ({"title": "new"}, ThreadStatus.BUSY)
    await cancel(store, await admit(store))  # one that waits
    assert (await store.threads.get("t", owner=ANY_OWNER)).values == {"title": "new"}
    await finish(store, first.lease, event, end_reason=reason)
    assert (await store.threads.get("t", owner=ANY_OWNER)).values is None
    assert await store.threads.show_first_values(first.lease, b'{"title":"late"}') is False
    assert (await store.threads.get("t", owner=ANY_OWNER)).values is None


async def test_first_values_are_for_threads_that_are_listed_and_have_none(store: RunStore) -> None:
    first = await claim(store, await admit(store))
    await finish(store, first.lease, state=Snapshot(values=b'{"n":1}', interrupts={}, unfinished=False))
    second = await claim(store, await admit(store))
    assert not second.bare
    assert await store.threads.show_first_values(second.lease, b'{"n":2}') is False
    assert (await store.threads.get("t", owner=ANY_OWNER)).values == {"n": 1}
    assert not (await claim(store, await admit(store, "own", temporary=True))).bare
