"""Clients that want parts of what there is: fields of states, and values by their keys."""

from __future__ import annotations

from typing import Any

import httpx
from langgraph_sdk.client import LangGraphClient

from server_kit import begun


async def test_of_a_state_the_chosen_parts_are_answered_however_it_is_asked_for(
    client: LangGraphClient, thread_id: str
) -> None:
    await client.runs.wait(thread_id, "approval", input={"topic": "x"})
    whole: Any = await client.threads.get_state(thread_id)
    select: Any = ["next", "values.topic", "values.nothing"]
    chosen = {"next": ["ask"], "values": {"topic": "x"}}
    address, threads = whole["checkpoint"], client.threads
    assert await threads.get_state(thread_id, select=select) == chosen
    assert await threads.get_state(thread_id, checkpoint=address, select=select) == chosen
    assert await threads.get_state(thread_id, checkpoint_id=address["checkpoint_id"], select=select) == chosen
    assert (await threads.get_history(thread_id, select=select))[0] == chosen
    assert await threads.get_history(thread_id, limit=1, select=["values", "values.topic"]) == [
        {"values": whole["values"]}
    ]


async def test_of_a_history_by_query_and_of_an_empty_state_the_chosen_parts_are_answered(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    empty = await http.get(f"/threads/{thread_id}/state?select=values.topic,tasks")
    assert empty.json() == {"tasks": [], "values": {}}
    await client.runs.wait(thread_id, "approval", input={"topic": "x"})
    history = await http.get(f'/threads/{thread_id}/history?limit=1&select=["values.topic"]')
    assert history.json() == [{"values": {"topic": "x"}}]


async def test_a_part_that_no_state_has_is_422(http: httpx.AsyncClient, thread_id: str) -> None:
    for answer in (
        await http.get(f"/threads/{thread_id}/state?select=colour"),
        await http.get(f"/threads/{thread_id}/history?select=colour"),
        await http.post(f"/threads/{thread_id}/history", json={"select": ["colour"]}),
        await http.post(f"/threads/{thread_id}/state/checkpoint", json={"checkpoint": {}, "select": ["colour"]}),
    ):
        assert (answer.status_code, "colour" in answer.json()["detail"]) == (422, True)


async def test_every_field_that_the_client_may_select_can_be_selected(client: LangGraphClient, thread_id: str) -> None:
    fields: Any = [
        "thread_id",
        "created_at",
        "updated_at",
        "metadata",
        "config",
        "context",
        "status",
        "values",
        "interrupts",
    ]
    [thread] = await client.threads.search(ids=[thread_id], select=fields)
    assert list(thread) == fields
    assert thread["context"] == {}  # type: ignore[typeddict-item]  # as clients may ask
    run = await begun(client, thread_id)
    await client.runs.cancel(thread_id, run["run_id"])
    [found] = await client.runs.list(thread_id, select=["run_id", "cancel_reason"])
    assert found == {"run_id": run["run_id"], "cancel_reason": "user_cancel"}
