"""What a run is asked for: repeated requests, what it inherits, and why it waits."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from server_kit import HEARTBEAT_S, LONG_S, NewDatabase, Server, begun, ended, parse_frames, running_server, sdk

STEP = {"assistant_id": "steps", "input": {"steps": 1}}
SLOW = {"assistant_id": "steps", "input": {"steps": 2, "delay_s": LONG_S}}
KINDS = ["", "/wait", "/stream"]


def key() -> dict[str, str]:
    return {"Idempotency-Key": uuid4().hex}


def run_of(answer: httpx.Response) -> str:
    return answer.headers["content-location"].rpartition("/")[2]


# Repeated requests


@pytest.mark.parametrize("stateless", [False, True], ids=["stateful", "stateless"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_repeated_request_with_a_key_is_answered_with_the_first_ones_run(
    http: httpx.AsyncClient, thread_id: str, kind: str, stateless: bool
) -> None:
    path, once = f"/runs{kind}" if stateless else f"/threads/{thread_id}/runs{kind}", key()
    answers = [await http.post(path, json=STEP, headers=once) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert len({run_of(answer) for answer in answers}) == 1
    if kind == "/wait":
        assert [answer.json()["done"] for answer in answers] == [[0]] * 3, "the run's result, not a second run's"
    if kind == "/stream":
        assert len({answer.text.replace(": heartbeat\r\n\r\n", "") for answer in answers}) == 1
        assert parse_frames(answers[2].text)[-1].name == "end"


@pytest.mark.parametrize("stateless", [False, True], ids=["stateful", "stateless"])
async def test_of_many_requests_at_once_with_a_key_one_runs(
    http: httpx.AsyncClient, thread_id: str, stateless: bool
) -> None:
    path, once = "/runs" if stateless else f"/threads/{thread_id}/runs", key()
    answers = await asyncio.gather(*(http.post(path, json=SLOW, headers=once) for _ in range(10)))
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert (await http.post(f"/runs/{answers[0].json()['run_id']}/cancel", params={"wait": "1"})).status_code == 200


@pytest.mark.parametrize("stateless", [False, True], ids=["stateful", "stateless"])
async def test_a_key_that_comes_with_another_request_is_refused(
    http: httpx.AsyncClient, thread_id: str, stateless: bool
) -> None:
    path, once = "/runs" if stateless else f"/threads/{thread_id}/runs", key()
    first = (await http.post(path, json=STEP, headers=once)).json()
    refused = await http.post(path, json={**STEP, "input": {"steps": 2}}, headers=once)
    assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_key_reused")
    assert first["run_id"] in refused.json()["detail"]
    assert len((await http.get(f"/threads/{first['thread_id']}/runs")).json()) == 1


async def test_a_key_belongs_to_its_thread(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    once = key()
    threads = [(await client.threads.create())["thread_id"] for _ in range(2)]
    answers = [await http.post(f"/threads/{thread_id}/runs", json=STEP, headers=once) for thread_id in threads]
    answers.append(await http.post("/runs", json=STEP, headers=once))
    assert len({answer.json()["run_id"] for answer in answers}) == 3


async def test_the_thread_of_a_stateless_run_with_a_key_expires_later(server: Server, http: httpx.AsyncClient) -> None:
    once = key()
    assert (await http.post("/runs/wait", json=STEP, headers=once)).status_code == 200
    run = (await http.post("/runs", json=STEP, headers=once)).json()
    store, settings = server.app.state.service.store, server.app.state.settings
    ttl = server.on_loop(store.threads.get(run["thread_id"], owner="")).ttl
    assert (ttl.ttl_s, ttl.strategy) == (settings.event_retention_s, "delete")


@pytest.mark.parametrize("text", ["", "x" * 256])
async def test_a_key_has_some_length(http: httpx.AsyncClient, thread_id: str, text: str) -> None:
    answer = await http.post(f"/threads/{thread_id}/runs", json=STEP, headers={"Idempotency-Key": text})
    assert (answer.status_code, "1 to 255" in answer.text) == (422, True)


# What a run inherits


async def test_metadata_comes_from_assistant_thread_config_and_body_in_this_order(client: LangGraphClient) -> None:
    who = {"a": "assistant", "t": "assistant", "c": "assistant", "b": "assistant"}
    made = await client.assistants.create("settings", metadata=who)
    thread = await client.threads.create(metadata={"t": "thread", "c": "thread", "b": "thread", "run_id": "x"})
    config: Any = {"metadata": {"c": "config", "b": "config"}}
    run = await client.runs.create(
        thread["thread_id"], made["assistant_id"], input={}, config=config, metadata={"b": "body", "graph_id": "no"}
    )
    given = {"a": "assistant", "t": "thread", "c": "config", "b": "body"}
    ids = {"assistant_id": made["assistant_id"], "graph_id": "settings"}
    assert run["metadata"] == {**given, **ids}
    seen: Any = await client.runs.join(thread["thread_id"], run["run_id"])
    assert given.items() <= seen["metadata"].items()
    assert seen["metadata"]["run_id"] == run["run_id"]


async def test_a_recursion_limit_is_that_of_langgraph_unless_one_that_makes_sense_is_given(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    values: Any = await client.runs.wait(thread_id, "steps", input={"steps": 24})
    assert len(values["done"]) == 24
    for limit in (0, -1, 1.5, "many", 10**9):
        body = {**STEP, "config": {"recursion_limit": limit}}
        answer = await http.post(f"/threads/{thread_id}/runs", json=body)
        assert (answer.status_code, "recursion_limit" in answer.text) == (422, True), limit


# Why a run waits


async def test_a_pending_run_says_what_it_waits_for(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    running = await begun(client, thread_id)
    queued = [await client.runs.create(thread_id, "steps", input={"steps": 1, "delay_s": 0}) for _ in range(2)]
    delayed = await client.runs.create(thread_id, "steps", input={"steps": 1}, after_seconds=LONG_S)
    listed = (await http.get(f"/threads/{thread_id}/runs")).json()
    waiting = {run["run_id"]: run["waiting_on"] for run in listed}
    until = waiting[delayed["run_id"]].pop("until")
    assert waiting == {
        running["run_id"]: None,
        queued[0]["run_id"]: {"reason": "run", "run_id": running["run_id"]},
        queued[1]["run_id"]: {"reason": "run", "run_id": queued[0]["run_id"]},
        delayed["run_id"]: {"reason": "delay"},
    }
    left = datetime.fromisoformat(until) - datetime.now(UTC)
    assert timedelta(0) < left <= timedelta(seconds=LONG_S)
    assert (await http.get(f"/runs/{queued[1]['run_id']}")).json()["waiting_on"] == waiting[queued[1]["run_id"]]
    chosen = await http.get(f"/threads/{thread_id}/runs", params={"select": ["waiting_on"], "status": "running"})
    assert chosen.json() == [{"waiting_on": None}]
    await client.runs.cancel(thread_id, running["run_id"])
    assert (await ended(client, queued[1]))["waiting_on"] is None
    await client.runs.cancel(thread_id, delayed["run_id"])


async def test_a_run_that_could_start_waits_for_a_slot(new_database: NewDatabase) -> None:
    with running_server(new_database(), max_concurrent_runs=1) as full:
        async with sdk(full) as client:
            threads = [(await client.threads.create())["thread_id"] for _ in range(2)]
            running = await begun(client, threads[0])
            waiting = await client.runs.create(threads[1], "steps", input={"steps": 1})
            found: Any = await client.runs.get(threads[1], waiting["run_id"])
            assert (found["status"], found["waiting_on"]) == ("pending", {"reason": "slots"})
            await client.runs.cancel(threads[0], running["run_id"])
            assert (await ended(client, waiting))["status"] == "success"


async def test_a_run_carries_the_receipt_of_its_cancel(client: LangGraphClient, thread_id: str) -> None:
    run = await begun(client, thread_id)
    await client.runs.cancel(thread_id, run["run_id"], wait=True)
    found: Any = await client.runs.get(thread_id, run["run_id"])
    receipt = found["cancel"]
    assert (found["end_reason"], receipt["action"], receipt["reason"]) == ("user_cancel", "interrupt", "user_cancel")
    assert receipt["requested_at"] <= receipt["observed_at"] <= receipt["stopped_at"]


# Joining with several modes


@pytest.mark.parametrize(
    "query",
    [
        {"stream_mode": ["values", "custom"]},
        {"stream_modes": ["values", "custom"]},
        {"stream_mode": "values,custom"},
        {"stream_mode": '["values","custom"]'},
        {"stream_mode": "values", "stream_modes": "custom"},
    ],
    ids=["repeated", "plural", "commas", "json", "both"],
)
async def test_a_joiner_is_sent_every_mode_that_it_names_in_any_spelling(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str, query: Any
) -> None:
    modes: Any = ["values", "updates", "custom", "debug"]
    run = await client.runs.create(thread_id, "writer", input={"kind": "x"}, stream_mode=modes)
    await ended(client, run)
    path = f"/threads/{thread_id}/runs/{run['run_id']}/stream"
    answer = await http.get(path, params=query, headers={"Last-Event-ID": "-1"})
    assert {frame.name for frame in parse_frames(answer.text)} - {":"} == {"values", "custom", "end"}


async def test_messages_are_replayed_as_they_were_streamed_and_no_id_repeats(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    body = {"assistant_id": "chat", "stream_mode": ["messages"]}
    body["input"] = {"messages": [{"role": "user", "content": " ".join(map(str, range(300)))}]}
    live = await http.post(f"/threads/{thread_id}/runs/stream", json=body)
    replay = await http.get(live.headers["location"], headers={"Last-Event-ID": "-1"})
    first, again = ([frame for frame in parse_frames(text) if frame.name != ":"] for text in (live.text, replay.text))
    assert again == first
    assert len({frame.id for frame in first}) == len(first) > 300
    assert {frame.name for frame in first} == {"metadata", "messages/metadata", "messages/partial", "end"}


async def test_heartbeats_go_on_while_a_run_is_busy_with_what_the_joiner_did_not_ask_for(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    pause_s = HEARTBEAT_S / 3  # no silence is long enough for a heartbeat
    run = await client.runs.create(thread_id, "steps", input={"steps": 20, "delay_s": pause_s}, stream_mode="updates")
    answer = await http.get(f"/threads/{thread_id}/runs/{run['run_id']}/stream", params={"stream_mode": "custom"})
    names = [frame.name for frame in parse_frames(answer.text)]
    assert (set(names), names[-1]) == ({":", "end"}, "end")
    assert names.count(":") >= 3
