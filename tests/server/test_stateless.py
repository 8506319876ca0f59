"""Runs without a thread of the client's."""

from __future__ import annotations

from typing import Any

import httpx
from langgraph_sdk.client import LangGraphClient

from server_kit import LONG_S, NOWHERE, gone, read_frames

STEP = {"steps": 2, "delay_s": 0}


async def test_a_stateless_wait_answers_and_leaves_no_thread(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    answer = await http.post("/runs/wait", json={"assistant_id": "steps", "input": STEP})
    assert answer.json() == {**STEP, "done": [0, 1]}
    location = answer.headers["location"]
    assert location.startswith("/threads/")
    assert location.endswith("/join")
    await gone(client, f"/threads/{location.split('/')[2]}")


async def test_a_stateless_stream_is_addressed_so_that_it_can_be_joined(
    client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    body = {"assistant_id": "steps", "input": {"steps": 1, "delay_s": LONG_S}, "stream_mode": ["tasks", "values"]}
    async with http.stream("POST", "/runs/stream", json=body) as answer:
        path, location = answer.headers["content-location"], answer.headers["location"]
        assert location == f"{path}/stream"
        run_id = path.removeprefix("/runs/")
        lines = answer.aiter_lines()
        while await anext(lines) != "event: tasks":
            pass
        async with http.stream("GET", location, headers={"Last-Event-ID": "-1"}) as again:
            replayed = again.aiter_lines()
            while await anext(replayed) != "event: tasks":
                pass
            run = (await http.get(path)).json()
            assert (run["run_id"], run["status"]) == (run_id, "running")
            assert (await http.post(f"{path}/cancel")).status_code == 202
            assert [line async for line in replayed if line.startswith("event: ")][-1] == "event: end"
        assert [line async for line in lines if line.startswith("event: ")][-1] == "event: end"
    await gone(client, f"/threads/{run['thread_id']}")


async def test_a_stateless_run_in_the_background_runs(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    answer = await http.post("/runs", json={"assistant_id": "steps", "input": STEP})
    run = answer.json()
    assert answer.headers["content-location"] == f"/runs/{run['run_id']}"
    assert run["kwargs"]["temporary"] is True
    await gone(client, f"/threads/{run['thread_id']}")


async def test_keep_keeps_the_thread(client: LangGraphClient) -> None:
    run: Any = await client.runs.create(None, "steps", input=STEP, on_completion="keep")
    await client.runs.join(run["thread_id"], run["run_id"])
    assert (await client.threads.get(run["thread_id"]))["values"]["done"] == [0, 1]


async def test_the_sdk_streams_without_a_thread(client: LangGraphClient) -> None:
    parts = [part async for part in client.runs.stream(None, "steps", input=STEP, stream_mode="updates")]
    assert [part.event for part in parts] == ["metadata", "updates", "updates", "end"]


async def test_an_error_of_a_stateless_run_is_told(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    answer: Any = await client.runs.wait(None, "failing", input={}, raise_error=False)
    assert answer == {"__error__": {"error": "ValueError", "message": "boom"}}
    frames = await read_frames(http, "POST", "/runs/stream", json={"assistant_id": "failing", "input": {}})
    assert [frame.name for frame in frames[-2:]] == ["error", "end"]


async def test_an_interrupt_of_a_stateless_run_is_its_result(client: LangGraphClient) -> None:
    answer: Any = await client.runs.wait(None, "approval", input={"topic": "x"})
    assert answer["__interrupt__"][0]["value"]["question"] == "approve?"


async def test_a_missing_assistant_is_404(http: httpx.AsyncClient) -> None:
    for way in ("", "/wait", "/stream"):
        answer = await http.post(f"/runs{way}", json={"assistant_id": NOWHERE})
        assert (answer.status_code, answer.json()["detail"]) == (404, "Thread or assistant not found.")
