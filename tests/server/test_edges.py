"""Requests that are legal and rare."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import NotFoundError

from server_kit import NOWHERE, begun, ended

STEP = {"steps": 1, "delay_s": 0}


async def test_nothing_to_run_fails_the_run_and_says_so(client: LangGraphClient, thread_id: str) -> None:
    for request in ({"input": None}, {"input": None, "checkpoint_id": NOWHERE}):
        answer: Any = await client.runs.wait(thread_id, "steps", raise_error=False, **request)  # type: ignore[arg-type]
        assert answer["__error__"]["error"] == "EmptyInputError"
        assert answer["__error__"]["message"]
    assert (await client.threads.get(thread_id))["status"] == "error"
    values: Any = await client.runs.wait(thread_id, "steps", input=STEP)
    assert values["done"] == [0]
    thread: Any = await client.threads.get(thread_id)
    assert (thread["status"], thread["error"]) == ("idle", None)


@pytest.mark.parametrize(
    "where",
    [
        {"checkpoint_id": NOWHERE},
        {"checkpoint": {"checkpoint_id": NOWHERE}},
        {"config": {"configurable": {"checkpoint_id": NOWHERE}}},
    ],
)
async def test_a_run_from_a_checkpoint_that_is_not_there_fails_and_forgets_nothing(
    client: LangGraphClient, thread_id: str, where: Any
) -> None:
    await client.runs.wait(thread_id, "steps", input=STEP)
    for request in ({"input": STEP}, {"command": {"goto": "step"}}):
        answer: Any = await client.runs.wait(thread_id, "steps", raise_error=False, **request, **where)  # type: ignore[arg-type]
        assert answer["__error__"] == {"error": "NotFound", "message": f"Checkpoint '{NOWHERE}' not found."}
    state: Any = await client.threads.get_state(thread_id)
    assert state["values"]["done"] == [0]
    values: Any = await client.runs.wait(thread_id, "steps", input=STEP)
    assert values["done"] == [0, 1]


async def test_a_state_is_not_updated_on_a_checkpoint_that_is_not_there(
    client: LangGraphClient, thread_id: str
) -> None:
    await client.runs.wait(thread_id, "steps", input=STEP)
    with pytest.raises(NotFoundError, match="Checkpoint"):
        await client.threads.update_state(thread_id, {"done": [7]}, checkpoint_id=NOWHERE)
    state: Any = await client.threads.get_state(thread_id)
    assert state["values"]["done"] == [0]


async def test_the_last_runs_graph_reads_the_thread(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "steps", input=STEP)
    await client.runs.wait(thread_id, "approval", input={"topic": "x"})
    assert (await client.threads.get(thread_id))["metadata"]["graph_id"] == "approval"
    state: Any = await client.threads.get_state(thread_id)
    assert "steps" not in state["values"]
    assert state["values"]["topic"] == "x"


async def test_a_state_update_without_values_answers_for_a_paused_node(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "approval", input={"topic": "x"})
    await client.threads.update_state(thread_id, None, as_node="decide")
    thread = await client.threads.get(thread_id)
    assert (thread["status"], thread["interrupts"]) == ("idle", {})


async def test_a_deleted_assistant_runs_nothing_more_and_takes_nothing_with_it(
    client: LangGraphClient, thread_id: str
) -> None:
    made = await client.assistants.create("steps")
    run = await client.runs.create(thread_id, made["assistant_id"], input=STEP)
    await ended(client, run)
    await client.assistants.delete(made["assistant_id"])
    with pytest.raises(NotFoundError):
        await client.runs.create(thread_id, made["assistant_id"], input=STEP)
    assert (await client.runs.get(thread_id, run["run_id"]))["status"] == "success"
    assert (await client.threads.get_state(thread_id))["values"]["done"] == [0]  # type: ignore[call-overload]


async def test_of_many_that_create_one_thread_one_succeeds(http: httpx.AsyncClient) -> None:
    body = {"thread_id": str(uuid4())}
    answers = await asyncio.gather(*[http.post("/threads", json=body) for _ in range(8)])
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 7]


async def test_of_many_that_reject_one_run_is_admitted(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str
) -> None:
    body = {"assistant_id": "steps", "input": {"steps": 1, "delay_s": 60}, "multitask_strategy": "reject"}
    answers = await asyncio.gather(*[http.post(f"/threads/{thread_id}/runs", json=body) for _ in range(8)])
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 7]
    [run] = await client.runs.list(thread_id)
    await client.runs.cancel(thread_id, run["run_id"], wait=True)


async def test_queued_runs_start_in_the_order_of_their_admission(client: LangGraphClient, thread_id: str) -> None:
    first = await begun(client, thread_id)
    runs = [await client.runs.create(thread_id, "steps", input={"steps": 0, "delay_s": 0}) for _ in range(5)]
    await client.runs.cancel(thread_id, first["run_id"])
    finished: list[Any] = [await ended(client, run) for run in runs]
    assert {run["status"] for run in finished} == {"success"}
    starts = [run["started_at"] for run in finished]
    assert starts == sorted(starts)
    for earlier, later in pairwise(finished):
        assert earlier["ended_at"] <= later["started_at"]


async def test_many_readers_of_one_run_all_see_the_same(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str
) -> None:
    run = await client.runs.create(thread_id, "steps", input={"steps": 20, "delay_s": 0.005})
    path = f"/threads/{thread_id}/runs/{run['run_id']}/stream"
    answers = await asyncio.gather(*[http.get(path, headers={"Last-Event-ID": "-1"}) for _ in range(6)])
    texts = {answer.text.replace(": heartbeat\r\n\r\n", "") for answer in answers}
    assert len(texts) == 1
    assert "event: end" in texts.pop()


async def test_cancels_from_many_sides_are_one_cancel(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str
) -> None:
    run = await begun(client, thread_id)
    path = f"/threads/{thread_id}/runs/{run['run_id']}/cancel"
    answers = await asyncio.gather(*[http.post(f"{path}?wait={index % 2}") for index in range(6)])
    assert {answer.status_code for answer in answers} == {200, 202}
    assert (await client.runs.get(thread_id, run["run_id"]))["status"] == "interrupted"


async def test_metadata_with_any_key_is_found_again(http: httpx.AsyncClient) -> None:
    for key in ('a.b"[0]', "", "'", "$", "a\\", "é", '"', "x" * 1000, "%"):
        made = (await http.post("/threads", json={"metadata": {key: {"deep": [1, None]}}})).json()
        where = {"metadata": {key: {"deep": [1, None]}}, "ids": [made["thread_id"]]}
        assert [one["thread_id"] for one in (await http.post("/threads/search", json=where)).json()] == [
            made["thread_id"]
        ]
