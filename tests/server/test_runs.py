"""Runs on threads: created, read, joined, cancelled, deleted, and what two of them do to each other."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError, UnprocessableEntityError

from server_kit import LONG_S, NOWHERE, begun, ended, gone, system_id

RUN_KEYS = {
    "run_id",
    "thread_id",
    "assistant_id",
    "metadata",
    "status",
    "kwargs",
    "multitask_strategy",
    "created_at",
    "updated_at",
}
KWARGS_KEYS = {
    "input",
    "command",
    "config",
    "context",
    "stream_mode",
    "interrupt_before",
    "interrupt_after",
    "webhook",
    "feedback_keys",
    "temporary",
    "subgraphs",
    "resumable",
    "checkpoint_during",
    "durability",
}
STEP = {"steps": 1, "delay_s": 0}


async def test_a_created_run_is_described_and_addressed(http: httpx.AsyncClient, thread_id: str) -> None:
    answer = await http.post(
        f"/threads/{thread_id}/runs", json={"assistant_id": "steps", "input": STEP, "metadata": {"mine": 1}}
    )
    run = answer.json()
    assert (answer.status_code, answer.headers["content-location"]) == (
        200,
        f"/threads/{thread_id}/runs/{run['run_id']}",
    )
    assert set(run) >= RUN_KEYS
    assert set(run["kwargs"]) == KWARGS_KEYS
    assert (run["thread_id"], run["assistant_id"], run["status"]) == (thread_id, system_id("steps"), "pending")
    assert run["metadata"]["mine"] == 1
    assert run["multitask_strategy"] == "enqueue"
    assert run["kwargs"]["input"] == STEP


async def test_a_run_is_read_to_its_end_by_either_name_of_its_assistant(
    client: LangGraphClient, thread_id: str
) -> None:
    for assistant in ("steps", system_id("steps")):
        run = await client.runs.create(thread_id, assistant, input=STEP)
        values: Any = await client.runs.join(thread_id, run["run_id"])
        assert values["steps"] == 1
        assert (await client.runs.get(thread_id, run["run_id"]))["status"] == "success"


async def test_runs_are_listed_newest_first_by_status_and_page(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    good = [await client.runs.create(thread_id, "steps", input=STEP) for _ in range(2)]
    bad = await client.runs.create(thread_id, "failing", input={})
    await ended(client, bad)
    ids = [bad["run_id"], good[1]["run_id"], good[0]["run_id"]]
    assert [run["run_id"] for run in await client.runs.list(thread_id)] == ids
    assert [run["run_id"] for run in await client.runs.list(thread_id, limit=1, offset=1)] == ids[1:2]
    assert [run["run_id"] for run in await client.runs.list(thread_id, status="error")] == ids[:1]
    some = await client.runs.list(thread_id, select=["run_id", "status"])
    assert set(some[0]) == {"run_id", "status"}
    with pytest.raises(NotFoundError):
        await client.runs.list(NOWHERE)
    assert (await http.get(f"/threads/{thread_id}/runs?status=sleeping")).status_code == 422


async def test_a_run_is_found_on_its_own_thread_only(client: LangGraphClient, thread_id: str) -> None:
    run = await client.runs.create(thread_id, "steps", input=STEP)
    other = (await client.threads.create())["thread_id"]
    calls = (client.runs.get, client.runs.join, client.runs.cancel, client.runs.delete)
    for call in calls:
        for thread, run_id in ((other, run["run_id"]), (thread_id, NOWHERE)):
            with pytest.raises((NotFoundError, httpx.HTTPStatusError), match=r"not found|404"):
                await call(thread, run_id)
    assert (await ended(client, run))["status"] == "success"


@pytest.mark.parametrize("way", ["", "/wait", "/stream"])
async def test_a_missing_thread_or_assistant_is_404_with_the_text_that_clients_know(
    http: httpx.AsyncClient, thread_id: str, way: str
) -> None:
    for path, assistant in ((NOWHERE, "steps"), (thread_id, NOWHERE)):
        answer = await http.post(f"/threads/{path}/runs{way}", json={"assistant_id": assistant, "input": {}})
        assert (answer.status_code, answer.json()["detail"]) == (404, "Thread or assistant not found.")
    unknown = await http.post(f"/threads/{thread_id}/runs{way}", json={"assistant_id": "nothing", "input": {}})
    assert unknown.status_code == 422
    assert (await http.get(f"/threads/{thread_id}/runs")).json() == []


async def test_if_not_exists_creates_the_thread(client: LangGraphClient) -> None:
    thread_id = str(uuid4())
    await client.runs.wait(thread_id, "steps", input=STEP, if_not_exists="create", metadata={"mine": 1})
    thread = await client.threads.get(thread_id)
    assert thread["metadata"]["graph_id"] == "steps"
    assert thread["metadata"]["mine"] == 1  # a run's own metadata goes to the thread that it creates, and to no other
    assert thread["metadata"]["assistant_id"] == system_id("steps")


async def test_an_idempotency_key_admits_once(client: LangGraphClient, thread_id: str) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    runs = [await client.runs.create(thread_id, "steps", input=STEP, headers=key) for _ in range(2)]
    assert runs[0]["run_id"] == runs[1]["run_id"]
    assert len(await client.runs.list(thread_id)) == 1


async def test_wait_answers_the_final_values_and_where_to_join(http: httpx.AsyncClient, thread_id: str) -> None:
    answer = await http.post(f"/threads/{thread_id}/runs/wait", json={"assistant_id": "steps", "input": {"steps": 2}})
    assert answer.json() == {"steps": 2, "done": [0, 1]}
    [run] = (await http.get(f"/threads/{thread_id}/runs")).json()
    path = f"/threads/{thread_id}/runs/{run['run_id']}"
    assert (answer.headers["content-location"], answer.headers["location"]) == (path, f"{path}/join")
    assert (await http.get(f"{path}/join")).json() == {"steps": 2, "done": [0, 1]}


async def test_join_answers_its_own_runs_result_not_the_threads(client: LangGraphClient, thread_id: str) -> None:
    first = await client.runs.create(thread_id, "steps", input={"steps": 1})
    await client.runs.wait(thread_id, "steps", input={"steps": 3})
    values: Any = await client.runs.join(thread_id, first["run_id"])
    assert values["done"] == [0]


async def test_an_error_is_told_and_raised(client: LangGraphClient, thread_id: str) -> None:
    answer: Any = await client.runs.wait(thread_id, "failing", input={}, raise_error=False)
    assert answer == {"__error__": {"error": "ValueError", "message": "boom"}}
    with pytest.raises(Exception, match="ValueError: boom"):
        await client.runs.wait(thread_id, "failing", input={})
    [run, _] = await client.runs.list(thread_id)
    assert run["status"] == "error"


async def test_the_text_of_an_unknown_exception_stays_in_the_log(client: LangGraphClient, thread_id: str) -> None:
    answer: Any = await client.runs.wait(thread_id, "failing", input={"kind": "custom"}, raise_error=False)
    assert answer == {"__error__": {"error": "ProviderError", "message": "An internal error occurred"}}


async def test_wait_and_join_send_heartbeats_until_the_end(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str
) -> None:
    run = await begun(client, thread_id)
    path = f"/threads/{thread_id}/runs/{run['run_id']}"
    async with http.stream("GET", f"{path}/join") as joining:
        pieces = joining.aiter_bytes()
        assert await anext(pieces) == b"\n"
        queued = {"assistant_id": "steps", "input": STEP}
        async with http.stream("POST", f"/threads/{thread_id}/runs/wait", json=queued) as waiting:
            answers = waiting.aiter_bytes()
            assert await anext(answers) == b"\n"  # while its run is still pending
            await client.runs.cancel(thread_id, run["run_id"])
            assert b"".join([piece async for piece in answers]).strip().startswith(b"{")
        assert b"".join([piece async for piece in pieces]).strip().startswith(b"{")


async def test_cancel_answers_at_once_and_the_thread_goes_on(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str
) -> None:
    run = await begun(client, thread_id)
    path = f"/threads/{thread_id}/runs/{run['run_id']}"
    answer = await http.post(f"{path}/cancel?wait=0&action=interrupt")
    assert (answer.status_code, answer.content) == (202, b"")
    again = await http.post(f"{path}/cancel?wait=1")
    assert (again.status_code, again.json()) == (200, {})
    assert (await http.post(f"{path}/cancel")).status_code == 202
    assert (await client.runs.get(thread_id, run["run_id"]))["status"] == "interrupted"
    assert (await client.threads.get(thread_id))["status"] == "interrupted"
    values: Any = await client.runs.wait(thread_id, "steps", input=STEP)
    assert values["done"] == [0]


async def test_a_run_that_ended_by_itself_has_nothing_to_cancel(client: LangGraphClient, thread_id: str) -> None:
    run = await client.runs.create(thread_id, "steps", input=STEP)
    await client.runs.join(thread_id, run["run_id"])
    with pytest.raises(NotFoundError):
        await client.runs.cancel(thread_id, run["run_id"])
    assert (await client.runs.get(thread_id, run["run_id"]))["status"] == "success"


async def test_a_rolled_back_run_of_another_graph_leaves_the_thread_as_it_was(
    client: LangGraphClient, thread_id: str
) -> None:
    await client.runs.wait(thread_id, "chat", input={"messages": "hi"})
    thread, state = await client.threads.get(thread_id), await client.threads.get_state(thread_id)
    run = await begun(client, thread_id)
    await client.runs.cancel(thread_id, run["run_id"], wait=True, action="rollback")
    assert await client.threads.get_state(thread_id) == state
    after = await client.threads.get(thread_id)
    assert {**after, "updated_at": None} == {**thread, "updated_at": None}


async def test_cancel_with_rollback_leaves_no_trace_of_the_run(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "steps", input=STEP)
    before = await client.threads.get_history(thread_id, limit=100)
    run = await begun(client, thread_id)
    await client.runs.cancel(thread_id, run["run_id"], wait=True, action="rollback")
    with pytest.raises(NotFoundError):
        await client.runs.get(thread_id, run["run_id"])
    assert await client.threads.get_history(thread_id, limit=100) == before
    assert (await client.threads.get(thread_id))["status"] == "idle"


async def test_a_pending_run_is_cancelled_without_ever_starting(client: LangGraphClient, thread_id: str) -> None:
    first = await begun(client, thread_id)
    queued = await client.runs.create(thread_id, "steps", input=STEP)
    await client.runs.cancel(thread_id, queued["run_id"], wait=True)
    assert (await client.runs.get(thread_id, queued["run_id"]))["status"] == "interrupted"
    assert (await client.threads.get(thread_id))["status"] == "busy"
    await client.runs.cancel(thread_id, first["run_id"], wait=True)
    assert (await client.threads.get_state(thread_id))["values"]["steps"] == 2


async def test_an_unknown_cancel_action_is_422(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str
) -> None:
    run = await begun(client, thread_id)
    path = f"/threads/{thread_id}/runs/{run['run_id']}/cancel"
    assert (await http.post(f"{path}?action=explode")).status_code == 422
    assert (await http.post(f"{path}?wait=perhaps")).status_code == 422
    assert (await client.runs.get(thread_id, run["run_id"]))["status"] == "running"
    await client.runs.cancel(thread_id, run["run_id"], wait=True)


async def test_deleting_a_running_run_stops_it_first(client: LangGraphClient, thread_id: str) -> None:
    run = await begun(client, thread_id)
    await client.runs.delete(thread_id, run["run_id"])
    with pytest.raises(NotFoundError):
        await client.runs.get(thread_id, run["run_id"])
    assert (await client.threads.get(thread_id))["status"] != "busy"
    values: Any = await client.runs.wait(thread_id, "steps", input=STEP)
    assert values["done"] == [0]


async def test_reject_refuses_a_second_run_and_admits_nothing(client: LangGraphClient, thread_id: str) -> None:
    first = await begun(client, thread_id)
    with pytest.raises(ConflictError, match=r"busy"):
        await client.runs.create(thread_id, "steps", input=STEP, multitask_strategy="reject")
    assert [run["run_id"] for run in await client.runs.list(thread_id)] == [first["run_id"]]
    await client.runs.cancel(thread_id, first["run_id"], wait=True)


async def test_enqueue_runs_one_after_the_other(client: LangGraphClient, thread_id: str) -> None:
    first = await begun(client, thread_id)
    second = await client.runs.create(thread_id, "steps", input=STEP)
    assert second["status"] == "pending"
    assert (await client.threads.get(thread_id))["status"] == "busy"
    await client.runs.cancel(thread_id, first["run_id"])
    assert (await ended(client, second))["status"] == "success"


async def test_interrupt_supersedes_the_first_and_keeps_its_checkpoints(
    client: LangGraphClient, thread_id: str
) -> None:
    first = await begun(client, thread_id)
    await client.runs.wait(thread_id, "steps", input=STEP, multitask_strategy="interrupt")
    old: Any = await client.runs.get(thread_id, first["run_id"])
    assert (old["status"], old["end_reason"]) == ("interrupted", "superseded")
    runs = {state["metadata"].get("run_id") for state in await client.threads.get_history(thread_id, limit=100)}
    assert first["run_id"] in runs


async def test_rollback_removes_the_first_and_starts_from_before_it(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "steps", input=STEP)
    first = await begun(client, thread_id)
    second = await client.runs.create(thread_id, "steps", input=STEP, multitask_strategy="rollback")
    assert (await ended(client, second))["status"] == "success"
    await gone(client, f"/threads/{thread_id}/runs/{first['run_id']}")
    runs = {state["metadata"].get("run_id") for state in await client.threads.get_history(thread_id, limit=100)}
    assert first["run_id"] not in runs


async def test_a_delayed_run_lies_in_the_future_and_holds_the_thread(client: LangGraphClient, thread_id: str) -> None:
    run = await client.runs.create(thread_id, "steps", input=STEP, after_seconds=int(LONG_S))
    created, updated = (datetime.fromisoformat(str(run[name])) for name in ("created_at", "updated_at"))  # type: ignore[literal-required]
    assert (created - updated).total_seconds() > LONG_S / 2
    assert (await client.threads.get(thread_id))["status"] == "busy"
    await client.runs.cancel(thread_id, run["run_id"], wait=True)
    assert (await client.threads.get(thread_id))["status"] == "idle"


@pytest.mark.parametrize(("durability", "checkpoints"), [("sync", 5), ("async", 5), ("exit", 1)])
async def test_durability_decides_how_many_checkpoints_are_kept(
    client: LangGraphClient, thread_id: str, durability: Any, checkpoints: int
) -> None:
    await client.runs.wait(thread_id, "steps", input={"steps": 3}, durability=durability)
    assert len(await client.threads.get_history(thread_id, limit=100)) == checkpoints


async def test_config_context_and_metadata_reach_the_graph(client: LangGraphClient, thread_id: str) -> None:
    made = await client.assistants.create("settings", context={"mood": "calm"}, metadata={"team": "a"})
    seen: Any = await client.runs.wait(thread_id, made["assistant_id"], input={}, metadata={"m": 1, "run_id": "x"})
    assert seen["mood"] == "calm"
    assert (seen["options"]["thread_id"], seen["options"]["graph_id"]) == (thread_id, "settings")
    assert seen["options"]["assistant_id"] == made["assistant_id"]
    assert (seen["metadata"]["m"], seen["metadata"]["team"]) == (1, "a")
    assert seen["metadata"]["run_id"] == seen["options"]["run_id"] != "x"
    seen = await client.runs.wait(thread_id, made["assistant_id"], input={}, context={"mood": "wild", "more": 1})
    assert seen["mood"] == "wild"
    seen = await client.runs.wait(thread_id, "settings", input={}, config={"configurable": {"mood": "old"}})
    assert (seen["mood"], seen["options"]["mood"]) == ("old", "old")


async def test_a_recursion_limit_ends_the_run_with_its_error(client: LangGraphClient, thread_id: str) -> None:
    answer: Any = await client.runs.wait(
        thread_id, "steps", input={"steps": 50}, config={"recursion_limit": 3}, raise_error=False
    )
    assert answer["__error__"]["error"] == "GraphRecursionError"


async def test_a_human_message_keeps_the_id_that_the_client_gave_it(client: LangGraphClient, thread_id: str) -> None:
    message = {"id": "mine-1", "type": "human", "content": [{"type": "text", "text": "hi"}]}
    values: Any = await client.runs.wait(thread_id, "chat", input={"messages": [message]})
    assert values["messages"][0]["id"] == "mine-1"
    assert values["messages"][1]["content"] == "echo: hi"


async def test_a_run_forks_from_a_checkpoint_and_replays_without_an_input(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    def human(text: str) -> dict[str, Any]:
        return {"messages": [{"type": "human", "content": text}]}

    async def texts() -> list[str]:
        state: Any = await client.threads.get_state(thread_id)
        return [message["content"] for message in state["values"]["messages"]]

    await client.runs.wait(thread_id, "chat", input=human("first"))
    history = await client.threads.get_history(thread_id, limit=10)
    before_input = history[-1]["checkpoint"]
    edited = {"checkpoint_id": before_input["checkpoint_id"], "checkpoint_ns": ""}
    await client.runs.wait(thread_id, "chat", input=human("edited"), checkpoint=edited)
    assert await texts() == ["edited", "echo: edited"]
    history = await client.threads.get_history(thread_id, limit=100)
    head_of_input = next(one["checkpoint"] for one in history if one["next"] == ["answer"])
    body = {"assistant_id": "chat", "checkpoint": {"checkpoint_id": head_of_input["checkpoint_id"]}}
    await http.post(f"/threads/{thread_id}/runs/wait", json=body)  # no input key: regenerate
    assert await texts() == ["edited", "echo: edited"]
    children = [one for one in await client.threads.get_history(thread_id, limit=100) if one["parent_checkpoint"]]
    parents = [one["parent_checkpoint"]["checkpoint_id"] for one in children]
    assert len(parents) > len(set(parents)), "the history shows no branch"
    with pytest.raises(UnprocessableEntityError):
        await client.runs.create(thread_id, "chat", checkpoint_id="nonsense")


async def test_bodies_are_json_whatever_their_content_type_says(http: httpx.AsyncClient, thread_id: str) -> None:
    for kind in ("text/plain;charset=UTF-8", "application/octet-stream", ""):
        answer = await http.post(
            f"/threads/{thread_id}/runs/wait",
            content=b'{"assistant_id": "steps", "input": {"steps": 1}}',
            headers={"Content-Type": kind},
        )
        assert answer.json()["steps"] == 1


async def test_what_the_sdk_sends_by_default_is_taken(http: httpx.AsyncClient, thread_id: str) -> None:
    body = {"assistant_id": "steps", "input": None, "command": None, "checkpoint": None, "if_not_exists": "reject"}
    answer = await http.post(f"/threads/{thread_id}/runs", json={**body, "stream_mode": [], "input": {"steps": 1}})
    assert answer.status_code == 200, answer.text
    assert "runlane-ignored" not in answer.headers
