"""Runs without a thread of the client's."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from runlane.maintenance.retention import ThreadSweeper
from runlane.store.statements import Transaction, statement
from server_kit import LONG_S, NOWHERE, NewDatabase, Server, parse_frames, read_frames, running_server

STEP = {"steps": 2, "delay_s": 0}
#: What a run leaves behind.
TABLES = {"threads": "thread_id", "runs": "run_id", "events": "run_seq", "checkpoints": "thread_id"}
COUNTS = {
    table: statement("count", f"SELECT COUNT(DISTINCT {column}) AS n FROM {table}") for table, column in TABLES.items()
}


async def unlisted(client: LangGraphClient, thread_id: str) -> None:
    """Check that the thread of a stateless run is nobody's thread to find, though its run can be read."""
    assert await client.threads.search(ids=[thread_id]) == []


async def test_a_stateless_wait_answers_and_lists_no_thread(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    answer = await http.post("/runs/wait", json={"assistant_id": "steps", "input": STEP})
    assert answer.json() == {**STEP, "done": [0, 1]}
    location = answer.headers["location"]
    assert location.startswith("/threads/")
    assert location.endswith("/join")
    await unlisted(client, location.split("/")[2])


async def test_a_stateless_stream_is_addressed_so_that_it_can_be_joined(
    client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    body = {"assistant_id": "steps", "input": {"steps": 1, "delay_s": LONG_S}, "stream_mode": ["tasks", "values"]}
    async with http.stream("POST", "/runs/stream", json=body) as answer:
        path, location = answer.headers["content-location"], answer.headers["location"]
        run_id = path.removeprefix("/runs/")
        thread_id = (await http.get(path)).json()["thread_id"]
        assert location == f"/threads/{thread_id}{path}/stream"  # clients ask after no other form
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
    await unlisted(client, thread_id)


async def test_a_stateless_run_in_the_background_runs(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    answer = await http.post("/runs", json={"assistant_id": "steps", "input": STEP})
    run = answer.json()
    assert answer.headers["content-location"] == f"/runs/{run['run_id']}"
    assert answer.headers["location"] == f"/threads/{run['thread_id']}/runs/{run['run_id']}/stream"
    assert run["kwargs"]["temporary"] is True
    await unlisted(client, run["thread_id"])


@pytest.mark.parametrize("cut_after", [0, 1, 3])
async def test_a_reader_that_was_cut_and_comes_back_after_the_end_gets_the_rest(
    client: LangGraphClient, http: httpx.AsyncClient, cut_after: int
) -> None:
    body = {"assistant_id": "steps", "input": STEP, "stream_mode": "updates"}
    async with http.stream("POST", "/runs/stream", json=body) as answer:
        path, location = answer.headers["content-location"], answer.headers["location"]
        frames = parse_frames((await answer.aread()).decode())
    frames = [frame for frame in frames if frame.name != ":"]
    assert (await http.get(path)).json()["status"] == "success"
    seen = {"Last-Event-ID": frames[cut_after - 1].id or ""} if cut_after else {"Last-Event-ID": "-1"}
    assert await read_frames(http, "GET", location, headers=seen) == frames[cut_after:]
    assert await read_frames(http, "GET", f"{path}/stream", headers=seen) == frames[cut_after:]
    assert (await http.get(f"{path}/join")).json() == {**STEP, "done": [0, 1]}


async def test_a_stateless_run_is_deleted_with_everything_after_a_retention_of_its_own(
    new_database: NewDatabase,
) -> None:
    with running_server(new_database(), stateless_retention_s=0) as server, ExitStack() as stack:
        service = server.app.state.service
        http = stack.enter_context(httpx.Client(base_url=server.url))
        keyed = http.post("/runs/wait", json={"assistant_id": "steps", "input": STEP}, headers={"Idempotency-Key": "k"})
        plain = http.post("/runs/wait", json={"assistant_id": "steps", "input": STEP})
        sweeper = ThreadSweeper(store=service.store, saver=service.runtime.saver)
        server.on_loop(sweeper.sweep_temporary())
        assert http.get(plain.headers["content-location"]).status_code == 404
        assert http.get(f"/threads/{plain.headers['location'].split('/')[2]}").status_code == 404
        assert http.get(keyed.headers["content-location"]).status_code == 200
        assert {table: left(server, table) for table in ("threads", "runs", "events")} == {
            "threads": 1,
            "runs": 1,
            "events": 1,
        }
        assert http.delete(f"/threads/{keyed.headers['location'].split('/')[2]}").status_code == 204
        assert {table: left(server, table) for table in TABLES} == dict.fromkeys(TABLES, 0)


def left(server: Server, table: str) -> int:
    """Return how many runs, or threads, have rows in *table*."""

    def look() -> Transaction[int]:
        (row,) = yield COUNTS[table]()
        return int(row["n"])

    return int(server.on_loop(server.app.state.service.store.driver.read(look())))


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
