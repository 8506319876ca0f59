"""Copying, pruning and measuring threads, and what a search extracts from them."""

from __future__ import annotations

import secrets
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError

from server_kit import NOWHERE, Server, begun


def human(text: str) -> dict[str, Any]:
    return {"messages": [{"type": "human", "content": text}]}


async def copied(client: LangGraphClient, thread_id: str) -> Any:
    """Return the copy of a thread; the client's type hints say that there is no answer."""
    return await client.http.post(f"/threads/{thread_id}/copy", json=None)


def without_ids(states: list[Any]) -> list[Any]:
    return [(state["values"], state["next"], [task["interrupts"] for task in state["tasks"]]) for state in states]


async def test_a_copy_of_an_interrupted_thread_is_interrupted_and_goes_its_own_way(
    client: LangGraphClient, thread_id: str
) -> None:
    await client.runs.wait(thread_id, "approval", input={"topic": "x"})
    await client.threads.copy(thread_id)
    copy = await copied(client, thread_id)
    source = await client.threads.get(thread_id)
    assert copy["thread_id"] != thread_id
    for key in ("status", "values", "interrupts", "metadata", "config"):
        assert copy[key] == source[key], key
    assert (copy["status"], len(copy["interrupts"])) == ("interrupted", 1)
    histories = [await client.threads.get_history(one, limit=10) for one in (thread_id, copy["thread_id"])]
    assert without_ids(histories[0]) == without_ids(histories[1])
    assert {state["checkpoint"]["thread_id"] for state in histories[1]} == {copy["thread_id"]}
    assert await client.runs.list(copy["thread_id"]) == []

    done = await client.runs.wait(copy["thread_id"], "approval", command={"resume": "yes"})
    assert done == {"topic": "x", "answers": ["yes"], "decided": "decided on 1"}
    assert (await client.threads.get(copy["thread_id"]))["status"] == "idle"
    assert await client.threads.get(thread_id) == source
    assert await client.threads.get_history(thread_id, limit=10) == histories[0]

    await client.threads.delete(thread_id)
    assert len(await client.threads.get_history(copy["thread_id"], limit=10)) == len(histories[1]) + 2


async def test_an_empty_thread_is_copied_too(client: LangGraphClient) -> None:
    made = await client.threads.create(metadata={"a": 1})
    copy = await copied(client, made["thread_id"])
    assert (copy["metadata"], copy["status"], copy["values"]) == ({"a": 1}, "idle", None)
    assert await client.threads.get_history(copy["thread_id"]) == []


async def test_a_missing_thread_is_not_copied_and_a_running_one_neither(
    client: LangGraphClient, thread_id: str
) -> None:
    with pytest.raises(NotFoundError):
        await client.threads.copy(NOWHERE)
    run = await begun(client, thread_id)
    with pytest.raises(ConflictError):
        await client.threads.copy(thread_id)
    await client.runs.cancel(thread_id, run["run_id"], wait=True)
    await client.threads.copy(thread_id)


async def test_pruning_deletes_idle_threads_and_names_busy_ones(client: LangGraphClient) -> None:
    idle = [(await client.threads.create())["thread_id"] for _ in range(2)]
    await client.runs.wait(idle[0], "steps", input={"steps": 1})
    busy = (await client.threads.create())["thread_id"]
    run = await begun(client, busy)
    pruned: Any = await client.threads.prune([*idle, idle[0], busy, NOWHERE])
    assert pruned == {"pruned_count": 2, "busy": [busy]}
    for thread_id in idle:
        with pytest.raises(NotFoundError):
            await client.threads.get(thread_id)
    assert (await client.runs.get(busy, run["run_id"]))["status"] == "running"
    await client.runs.cancel(busy, run["run_id"], wait=True)


async def test_pruning_to_the_latest_keeps_the_thread_its_state_and_its_runs(
    client: LangGraphClient, thread_id: str
) -> None:
    run = await client.runs.create(thread_id, "approval", input={"topic": "x"})
    await client.runs.join(thread_id, run["run_id"])
    await client.threads.update_state(thread_id, {"topic": "y"})
    before, thread = await client.threads.get_state(thread_id), await client.threads.get(thread_id)
    assert len(await client.threads.get_history(thread_id, limit=10)) == 3
    pruned = await client.threads.prune([thread_id, NOWHERE], strategy="keep_latest")
    assert pruned["pruned_count"] == 1
    [left] = await client.threads.get_history(thread_id, limit=10)
    assert (left["values"], left["checkpoint"]) == (before["values"], before["checkpoint"])
    assert await client.threads.get(thread_id) == thread
    assert [one["run_id"] for one in await client.runs.list(thread_id)] == [run["run_id"]]
    assert (await client.runs.wait(thread_id, "approval", command={"resume": "yes"}))["answers"] == ["yes"]


async def test_nonsense_prunes_nothing(http: httpx.AsyncClient, thread_id: str) -> None:
    for body in (
        {},
        {"thread_ids": thread_id},
        {"thread_ids": [thread_id, "x"]},
        {"thread_ids": [thread_id], "strategy": "forget"},
        {"thread_ids": [thread_id] * 1001},
    ):
        assert (await http.post("/threads/prune", json=body)).status_code == 422
    assert (await http.get(f"/threads/{thread_id}")).status_code == 200


async def test_storage_says_what_a_thread_takes(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str
) -> None:
    empty = (await http.get(f"/threads/{thread_id}/storage")).json()
    assert (empty["thread_id"], empty["total_bytes"], empty["channel_values"]["by_channel"]) == (thread_id, 0, {})
    await client.runs.wait(thread_id, "chat", input=human(secrets.token_urlsafe(6000)))  # it cannot be compressed
    found = (await http.get(f"/threads/{thread_id}/storage")).json()
    parts = [
        found[name]["bytes"] for name in ("checkpoints", "channel_values", "pending_writes", "runs", "events", "parts")
    ]
    assert (found["total_bytes"], min(parts) > 0) == (sum(parts), True)
    assert found["checkpoints"]["count"] == 3
    by_channel = found["channel_values"]["by_channel"]
    assert by_channel["messages"]["count"] == 2
    assert found["parts"]["bytes"] > 5000  # once, and not in each version of the messages
    assert by_channel["messages"]["bytes"] < 5000
    assert sum(size["bytes"] for size in by_channel.values()) == found["channel_values"]["bytes"]
    assert (await http.get(f"/threads/{NOWHERE}/storage")).status_code == 404


async def test_a_search_extracts_values_by_their_paths(client: LangGraphClient) -> None:
    mark = {"mark": uuid4().hex}
    empty = (await client.threads.create(metadata=mark))["thread_id"]
    full = (await client.threads.create(metadata={**mark, "a.b": 1}))["thread_id"]
    await client.runs.wait(full, "chat", input=human("hi"))
    paths = {
        "last": "values.messages[-1].content",
        "first": "values.messages[0].content",
        "none": "values.messages[7].content",
        "graph": "metadata.graph_id",
        "status": "status",
        "wrong": "values.messages.content",
        "text": "values.messages[0].content[0]",
    }
    found = await client.threads.search(metadata=mark, extract=paths, select=["thread_id"], sort_by="created_at")
    by_id = {one["thread_id"]: one for one in found}
    assert by_id[full] == {
        "thread_id": full,
        "extracted": {
            "last": "echo: hi",
            "first": "hi",
            "none": None,
            "graph": "chat",
            "status": "idle",
            "wrong": None,
            "text": None,
        },
    }
    assert by_id[empty]["extracted"] == {**dict.fromkeys(paths), "status": "idle"}
    assert "extracted" not in (await client.threads.search(metadata=mark))[0]


async def test_a_search_by_values_passes_over_threads_without_any(client: LangGraphClient) -> None:
    mark = {"mark": uuid4().hex}
    made = [(await client.threads.create(metadata=mark))["thread_id"] for _ in range(3)]
    await client.runs.wait(made[1], "steps", input={"steps": 1})
    found = await client.threads.search(metadata=mark, values={"done": [0]})
    assert [one["thread_id"] for one in found] == [made[1]]
    assert await client.threads.search(metadata=mark, values={"done": {"0": None}}) == []


async def test_the_total_of_a_search_is_the_total(http: httpx.AsyncClient, client: LangGraphClient) -> None:
    mark = {"mark": uuid4().hex}
    for _ in range(7):
        await client.threads.create(metadata=mark)
    headers = []
    for offset in (0, 2, 6, 8):
        page = await http.post("/threads/search", json={"metadata": mark, "limit": 2, "offset": offset})
        headers.append((page.headers["x-pagination-total"], page.headers.get("x-pagination-next")))
    assert headers == [("7", "2"), ("7", "4"), ("7", None), ("7", None)]


async def test_a_filter_that_costs_too_much_is_422_and_says_what_is_too_large(http: httpx.AsyncClient) -> None:
    wide = {str(number): number for number in range(1001)}
    for path, body in (
        ("/threads/search", {"metadata": wide}),
        ("/threads/search", {"values": wide}),
        ("/threads/count", {"metadata": wide}),
        ("/assistants/search", {"metadata": wide}),
        ("/runs/crons/search", {"metadata": wide}),
        ("/store/items/search", {"namespace_prefix": ["a"], "filter": wide}),
    ):
        answer = await http.post(path, json=body)
        assert answer.status_code == 422, path
        assert f"{[*body][-1]} has more than 1000 values" in answer.json()["detail"]


async def test_a_deleted_thread_leaves_no_checkpoint(server: Server, client: LangGraphClient, thread_id: str) -> None:
    saver = server.app.state.service.runtime.saver
    await client.runs.wait(thread_id, "steps", input={"steps": 2})
    assert server.on_loop(saver.threads.storage(thread_id)).checkpoints.count == 4
    await client.threads.delete(thread_id)
    left = server.on_loop(saver.threads.storage(thread_id))
    assert (left.checkpoints.count, left.channels, left.writes.count) == (0, {}, 0)
