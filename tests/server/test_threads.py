"""Threads and their states, as the official client uses them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import BadRequestError, ConflictError, NotFoundError, UnprocessableEntityError

from server_kit import LONG_S, NOWHERE, Server, begun, system_id

THREAD_KEYS = {"thread_id", "created_at", "updated_at", "state_updated_at", "metadata", "status", "config", "values"}
STATE_KEYS = {
    "values",
    "next",
    "tasks",
    "metadata",
    "created_at",
    "checkpoint",
    "parent_checkpoint",
    "interrupts",
    "checkpoint_id",
    "parent_checkpoint_id",
}


def human(text: str, **extra: Any) -> dict[str, Any]:
    return {"messages": [{"type": "human", "content": text, **extra}]}


async def test_a_new_thread_is_idle_and_without_values(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    answer = await http.post("/threads", json={"metadata": {"a": 1}})
    assert answer.status_code == 200
    made = answer.json()
    assert set(made) >= THREAD_KEYS
    assert (made["status"], made["values"], made["metadata"]) == ("idle", None, {"a": 1})
    assert made["created_at"].endswith("+00:00")
    assert await client.threads.get(made["thread_id"]) == made


async def test_a_taken_thread_id_conflicts_or_is_returned(client: LangGraphClient) -> None:
    thread_id = str(uuid4())
    made = await client.threads.create(thread_id=thread_id, metadata={"a": 1})
    with pytest.raises(ConflictError):
        await client.threads.create(thread_id=thread_id)
    assert await client.threads.create(thread_id=thread_id, if_exists="do_nothing") == made


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
async def test_a_thread_shows_its_first_values_while_its_first_run_still_goes_on(
    client: LangGraphClient, thread_id: str, action: Any
) -> None:
    """A chat front end shows them as the title of a new conversation."""
    given = {"steps": 1, "delay_s": LONG_S}
    run = await client.runs.create(thread_id, "steps", input=given, stream_mode="updates")
    thread: Any = await client.threads.get(thread_id)
    while thread["values"] is None:
        thread = await client.threads.get(thread_id)
    assert (thread["status"], thread["values"]) == ("busy", {**given, "done": []})
    assert (await client.threads.search(ids=[thread_id]))[0]["values"] == thread["values"]
    await client.runs.cancel(thread_id, run["run_id"], action=action, wait=True)
    left = (await client.threads.get(thread_id))["values"]
    assert left == (None if action == "rollback" else (await client.threads.get_state(thread_id))["values"])


async def test_metadata_is_merged(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    made = await client.threads.create(metadata={"a": 1, "deep": {"x": 1}})
    changed = await client.threads.update(made["thread_id"], metadata={"b": 2, "deep": {"y": 2}})
    assert changed["metadata"] == {"a": 1, "b": 2, "deep": {"y": 2}}
    brief = await http.patch(f"/threads/{made['thread_id']}", json={}, headers={"Prefer": "return=minimal"})
    assert (brief.status_code, brief.content) == (204, b"")
    assert (await http.patch(f"/threads/{NOWHERE}", json={"metadata": {}})).status_code == 404


async def test_a_thread_is_deleted_once(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "steps", input={"steps": 1})
    await client.threads.delete(thread_id)
    for call in (client.threads.get, client.threads.delete, client.threads.get_state, client.threads.get_history):
        with pytest.raises(NotFoundError):
            await call(thread_id)
    with pytest.raises(NotFoundError):
        await client.runs.list(thread_id)


async def test_deleting_a_thread_stops_its_runs_first(client: LangGraphClient, thread_id: str) -> None:
    run = await begun(client, thread_id)
    queued = await client.runs.create(thread_id, "steps", input={"steps": 1})
    await client.threads.delete(thread_id)
    for gone in (run, queued):
        with pytest.raises(NotFoundError):
            await client.runs.get(thread_id, gone["run_id"])


async def test_a_missing_or_malformed_thread_is_told_apart(http: httpx.AsyncClient) -> None:
    missing = await http.get(f"/threads/{NOWHERE}")
    assert missing.status_code == 404
    assert NOWHERE in missing.json()["detail"]
    malformed = await http.get("/threads/nonsense")
    assert (malformed.status_code, malformed.json()["detail"]) == (422, "Invalid thread ID: must be a UUID")


async def test_search_filters_sorts_pages_and_counts(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    mark = {"mark": uuid4().hex}
    made = [(await client.threads.create(metadata={**mark, "n": n}))["thread_id"] for n in range(3)]
    await client.runs.wait(made[0], "steps", input={"steps": 2})
    await client.runs.wait(made[1], "approval", input={"topic": "x"})
    await client.runs.wait(made[2], "failing", input={}, raise_error=False)

    async def ids(**where: Any) -> list[str]:
        return [one["thread_id"] for one in await client.threads.search(metadata=mark, **where)]

    assert await ids() == list(reversed(made))  # the last changed first
    assert await ids(status="idle") == [made[0]]
    assert await ids(status="interrupted") == [made[1]]
    assert await ids(status="error") == [made[2]]
    assert await ids(status="busy") == []
    assert await ids(values={"done": [0, 1]}) == [made[0]]
    assert await ids(ids=made[:2], sort_by="created_at", sort_order="asc") == made[:2]
    assert await ids(limit=1, offset=1) == [made[1]]
    assert await client.threads.count(metadata=mark) == 3
    assert await client.threads.count(metadata=mark, status="error") == 1
    assert await client.threads.count(metadata=mark, values={"done": [0, 1]}) == 1
    page = await http.post("/threads/search", json={"metadata": mark, "limit": 2})
    assert (page.headers["x-pagination-total"], page.headers["x-pagination-next"]) == ("3", "2")
    asked, found = {"metadata": mark, "limit": 2, "after": ""}, list[str]()
    for total in ("3", None):
        page = await http.post("/threads/search", json=asked)
        assert page.headers.get("x-pagination-total") == total
        found += [one["thread_id"] for one in page.json()]
        following = page.headers.get("x-pagination-next")
        asked["after"] = following or asked["after"]
    assert (found, following) == (list(reversed(made)), None)
    for refused in ({"after": "x"}, {"after": "x.y"}, {"offset": 1}):
        assert (await http.post("/threads/search", json={**asked, **refused})).status_code == 422
    some = await client.threads.search(metadata=mark, select=["thread_id", "values"], limit=1)
    assert set(some[0]) == {"thread_id", "values"}
    assert (await http.post("/threads/search", json={"status": "sleeping"})).status_code == 422


async def test_the_first_run_writes_its_graph_into_the_threads_metadata(
    client: LangGraphClient, thread_id: str
) -> None:
    await client.runs.wait(thread_id, "chat", input=human("hi"), metadata={"secret": 1})
    thread = await client.threads.get(thread_id)
    assert thread["metadata"] == {"graph_id": "chat", "assistant_id": system_id("chat")}
    found = await client.threads.search(metadata={"graph_id": "chat"}, ids=[thread_id])
    assert found[0]["values"]["messages"][0]["content"] == "hi"


async def test_values_and_interrupts_are_on_the_threads_row(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "approval", input={"topic": "x"})
    thread = await client.threads.get(thread_id)
    assert (thread["status"], thread["values"]["topic"]) == ("interrupted", "x")
    [(task_id, [pending])] = thread["interrupts"].items()
    state = await client.threads.get_state(thread_id)
    assert state["tasks"][0]["id"] == task_id
    assert pending["id"] == state["interrupts"][0]["id"]
    assert pending["value"] == {"question": "approve?", "topic": "x"}


async def test_a_failed_runs_error_is_on_the_threads_row(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "failing", input={}, raise_error=False)
    thread: Any = await client.threads.get(thread_id)
    assert (thread["status"], thread["error"]) == ("error", {"error": "ValueError", "message": "boom"})
    state = await client.threads.get_state(thread_id)
    assert state["tasks"][0]["error"] == "ValueError('boom')"


async def test_the_state_of_an_empty_thread_is_empty(client: LangGraphClient, thread_id: str) -> None:
    state = await client.threads.get_state(thread_id)
    assert set(state) == STATE_KEYS
    assert (state["values"], state["next"], state["checkpoint"]) == ({}, [], None)
    assert await client.threads.get_history(thread_id) == []


async def test_a_state_has_every_field_that_branching_needs(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "steps", input={"steps": 1})
    state = await client.threads.get_state(thread_id)
    assert set(state) == STATE_KEYS
    assert set(state["checkpoint"]) >= {"thread_id", "checkpoint_ns", "checkpoint_id"}
    assert state["checkpoint"]["thread_id"] == thread_id
    assert state["checkpoint"]["checkpoint_ns"] == ""
    history = await client.threads.get_history(thread_id, limit=10)
    assert history[0]["checkpoint"] == state["checkpoint"]
    for newer, older in pairwise(history):
        assert newer["parent_checkpoint"] == older["checkpoint"]
    assert history[-1]["parent_checkpoint"] is None
    task = history[1]["tasks"][0]
    assert set(task) >= {"id", "name", "path", "error", "interrupts", "checkpoint", "state", "result"}
    assert (task["name"], task["result"]) == ("step", {"done": [0]})


async def test_history_pages_by_every_form_of_a_cursor(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "steps", input={"steps": 4})
    everything = await client.threads.get_history(thread_id, limit=100)
    assert len(everything) == 6
    second: Any = everything[1]["checkpoint"]
    for cursor in (second["checkpoint_id"], second, {"configurable": second}):
        page = await client.threads.get_history(thread_id, limit=2, before=cursor)
        assert page == everything[2:4]
    loops = await client.threads.get_history(thread_id, limit=100, metadata={"source": "loop"})
    assert len(loops) == 5
    one = await client.threads.get_history(thread_id, limit=10, checkpoint=second)
    assert one[0] == everything[1]


async def test_history_by_get_takes_limit_and_before(http: httpx.AsyncClient, client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread_id, "steps", input={"steps": 2})
    everything = (await http.get(f"/threads/{thread_id}/history?limit=100")).json()
    before = everything[1]["checkpoint_id"]
    assert (await http.get(f"/threads/{thread_id}/history?limit=1&before={before}")).json() == everything[2:3]


async def test_a_state_is_read_at_a_checkpoint(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "steps", input={"steps": 3})
    older = (await client.threads.get_history(thread_id, limit=10))[2]
    assert (await client.threads.get_state(thread_id, checkpoint=older["checkpoint"])) == older
    assert (await client.threads.get_state(thread_id, checkpoint_id=older["checkpoint"]["checkpoint_id"])) == older


async def test_an_unknown_checkpoint_is_empty_and_named(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "steps", input={"steps": 1})
    state = await client.threads.get_state(thread_id, checkpoint_id=NOWHERE)
    assert (state["values"], state["checkpoint"]["checkpoint_id"]) == ({}, NOWHERE)


async def test_a_subgraphs_state_comes_with_its_task(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "nested_approval", input={"topic": "x"})
    flat = await client.threads.get_state(thread_id)
    assert flat["next"] == ["child"]
    assert flat["tasks"][0]["state"] is None
    deep = await client.threads.get_state(thread_id, subgraphs=True)
    inner: Any = deep["tasks"][0]["state"]
    assert inner["next"] == ["ask"]
    assert inner["checkpoint"]["checkpoint_ns"].startswith("child:")


async def test_a_state_is_written_as_a_node(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "chat", input=human("hi"))
    answer: Any = await client.threads.update_state(thread_id, human("more"), as_node="__start__")
    assert set(answer) == {"checkpoint", "configurable", "checkpoint_id"}
    assert set(answer["checkpoint"]) == {"thread_id", "checkpoint_ns", "checkpoint_id"}
    state = await client.threads.get_state(thread_id)
    assert [message["content"] for message in state["values"]["messages"]] == ["hi", "echo: hi", "more"]
    assert (state["next"], state["checkpoint"]) == (["answer"], answer["checkpoint"])
    thread = await client.threads.get(thread_id)
    assert (thread["status"], len(thread["values"]["messages"])) == ("interrupted", 3)


async def test_a_fork_by_update_is_the_threads_newest_state(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "steps", input={"steps": 2})
    root = (await client.threads.get_history(thread_id, limit=10))[2]
    await client.threads.update_state(thread_id, {"done": [7]}, as_node="step", checkpoint=root["checkpoint"])
    assert (await client.threads.get_state(thread_id))["values"]["done"] == [7]
    assert (await client.threads.get(thread_id))["values"]["done"] == [7]


async def test_a_state_update_that_makes_no_sense_changes_nothing(client: LangGraphClient, thread_id: str) -> None:
    with pytest.raises(BadRequestError, match="no assigned graph"):
        await client.threads.update_state(thread_id, {"done": [1]})
    await client.runs.wait(thread_id, "steps", input={"steps": 1})
    before = await client.threads.get_state(thread_id)
    with pytest.raises(BadRequestError):
        await client.threads.update_state(thread_id, {"done": [1]}, as_node="nowhere")
    with pytest.raises(NotFoundError):
        await client.threads.update_state(NOWHERE, {"done": [1]})
    assert await client.threads.get_state(thread_id) == before


async def test_a_state_is_not_written_under_a_running_run(client: LangGraphClient, thread_id: str) -> None:
    run = await begun(client, thread_id)
    with pytest.raises(ConflictError):
        await client.threads.update_state(thread_id, {"done": [1]})
    await client.runs.cancel(thread_id, run["run_id"], wait=True)


async def test_a_thread_is_created_with_a_history(client: LangGraphClient) -> None:
    supersteps = [
        {"updates": [{"values": {"steps": 9}, "as_node": "__input__"}]},
        {"updates": [{"values": {"steps": 9}, "as_node": "__start__"}]},
        {"updates": [{"values": {"done": [5]}, "as_node": "step"}]},
    ]
    made = await client.threads.create(graph_id="steps", supersteps=supersteps)
    assert (await client.threads.get_state(made["thread_id"]))["values"] == {"steps": 9, "done": [5]}
    assert len(await client.threads.get_history(made["thread_id"], limit=10)) == 3


async def test_a_history_may_have_commands_and_several_updates_in_a_step(client: LangGraphClient) -> None:
    supersteps: Any = [
        {"updates": [{"values": {"topic": "x"}, "as_node": "__input__"}]},
        {"updates": [{"values": {"topic": "x"}, "as_node": "__start__"}]},
        {"updates": [{"values": None, "command": {"update": {"answers": ["a"]}, "goto": "decide"}, "as_node": "ask"}]},
    ]
    made: Any = await client.threads.create(graph_id="approval", supersteps=supersteps)
    assert (made["values"], made["status"]) == ({"topic": "x", "answers": ["a"]}, "interrupted")
    assert made["metadata"] == {"graph_id": "approval", "assistant_id": system_id("approval")}
    state = await client.threads.get_state(made["thread_id"])
    assert (state["next"], state["values"]) == (["decide"], made["values"])
    assert await client.threads.get(made["thread_id"]) == made
    done: Any = await client.runs.wait(made["thread_id"], "approval", input=None)
    assert done["decided"] == "decided on 1"
    two: Any = [{"updates": [{"values": {"done": [n]}, "as_node": "step"} for n in (1, 2)]}]
    both = await client.threads.create(graph_id="steps", supersteps=two)
    assert both["values"] == {"done": [1, 2]}


GOOD: Any = {"updates": [{"values": {"done": [5]}, "as_node": "step"}]}


@pytest.mark.parametrize(
    "supersteps",
    [
        [{"updates": [{"values": {"done": [5]}, "as_node": "nowhere"}]}],
        [GOOD, {"updates": [{"values": {"done": [5]}, "as_node": "nowhere"}]}],
        [GOOD, {"updates": [{"values": {"done": 5}, "as_node": "step"}]}],
        [GOOD, {"updates": [{"values": "text", "as_node": "step"}]}],
        [GOOD, {"updates": []}],
        [GOOD, {}],
    ],
)
async def test_a_history_of_which_a_part_cannot_be_written_leaves_no_thread(
    server: Server, client: LangGraphClient, supersteps: Any
) -> None:
    thread_id = str(uuid4())
    with pytest.raises(UnprocessableEntityError):
        await client.http.post(
            "/threads", json={"thread_id": thread_id, "metadata": {"graph_id": "steps"}, "supersteps": supersteps}
        )
    with pytest.raises(NotFoundError):
        await client.threads.get(thread_id)
    saver = server.app.state.service.runtime.saver
    assert server.on_loop(saver.threads.storage(thread_id)).checkpoints.count == 0
    made = await client.threads.create(thread_id=thread_id, graph_id="steps", supersteps=[GOOD])
    assert made["values"] == {"done": [5]}


async def test_a_history_is_not_written_to_a_thread_that_exists(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "steps", input={"steps": 1})
    thread, state = await client.threads.get(thread_id), await client.threads.get_state(thread_id)
    given: Any = {"thread_id": thread_id, "graph_id": "steps", "supersteps": [GOOD]}
    with pytest.raises(ConflictError):
        await client.threads.create(**given)
    assert await client.threads.create(**given, if_exists="do_nothing") == thread
    broken: Any = {**given, "supersteps": [{"updates": [{"values": 1, "as_node": "nowhere"}]}]}
    with pytest.raises(UnprocessableEntityError):
        await client.threads.create(**broken, if_exists="do_nothing")
    assert (await client.threads.get(thread_id), await client.threads.get_state(thread_id)) == (thread, state)


async def test_a_long_history_is_written_whole(client: LangGraphClient) -> None:
    supersteps: Any = [{"updates": [{"values": {"done": [n]}, "as_node": "step"}]} for n in range(200)]
    made: Any = await client.threads.create(graph_id="steps", supersteps=supersteps)
    assert made["values"] == {"done": list(range(200))}
    assert len(await client.threads.get_history(made["thread_id"], limit=300)) == 200


async def test_a_subgraphs_state_is_written_at_its_own_address(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "nested_approval", input={"topic": "x"})
    inner: Any = (await client.threads.get_state(thread_id, subgraphs=True))["tasks"][0]["state"]
    await client.threads.update_state(thread_id, {"topic": "y"}, checkpoint=inner["checkpoint"])
    after: Any = (await client.threads.get_state(thread_id, subgraphs=True))["tasks"][0]["state"]
    assert (after["values"]["topic"], after["next"]) == ("y", ["ask"])
    thread = await client.threads.get(thread_id)
    assert thread["status"] == "interrupted"
