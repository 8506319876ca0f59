"""Several runs started or stopped by one request: all of them or none, and what is stopped has stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from server_kit import LONG_S, NOWHERE, NewDatabase, Server, begun, ended, running_server, sdk

GOOD = {"assistant_id": "steps", "input": {"steps": 1}}


@pytest.fixture
def alone(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server that no other test uses, since what is cancelled by its status is everybody's."""
    with running_server(new_database()) as running:
        yield running


async def test_a_batch_is_admitted_in_its_order_and_runs(client: LangGraphClient) -> None:
    payloads = [{**GOOD, "input": {"steps": steps}, "on_completion": "keep"} for steps in (1, 2, 3)]
    runs = await client.runs.create_batch(payloads)  # type: ignore[arg-type]  # the SDK's own type has no on_completion
    assert [run["kwargs"]["input"]["steps"] for run in runs] == [1, 2, 3]
    assert len({run["thread_id"] for run in runs}) == 3
    for run, steps in zip(runs, (1, 2, 3), strict=True):
        values: Any = await client.runs.join(run["thread_id"], run["run_id"])
        assert values["done"] == list(range(steps))


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        ({"assistant_id": NOWHERE}, 404),
        ({"assistant_id": "no graph"}, 422),
        ({**GOOD, "multitask_strategy": "wait"}, 422),
        ({**GOOD, "feedback_keys": ["score"]}, 422),
        ({**GOOD, "command": {"resume": 1}}, 400),
        ("steps", 422),
        ({**GOOD, "input": {"steps": 1}, "metadata": None}, 422),
    ],
    ids=["assistant", "graph", "strategy", "option", "resume", "type", "null"],
)
async def test_one_bad_entry_is_named_and_nothing_is_admitted(
    server: Server, http: httpx.AsyncClient, bad: Any, status: int
) -> None:
    store = server.app.state.service.store
    before = server.on_loop(store.runs.list(None, owner="", limit=1))
    answer = await http.post("/runs/batch", json=[GOOD, GOOD, bad, GOOD])
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"].startswith("Entry 2 of the batch: ")
    assert server.on_loop(store.runs.list(None, owner="", limit=1)) == before


@pytest.mark.parametrize("body", [[], {}, {"assistant_id": "steps"}, [GOOD] * 1001], ids=["empty", "{}", "one", "many"])
async def test_a_batch_is_an_array_of_some_size(http: httpx.AsyncClient, body: Any) -> None:
    answer = await http.post("/runs/batch", json=body)
    assert answer.status_code == 422
    assert "1 to 1000" in answer.json()["detail"]


async def test_fields_that_are_ignored_are_named_once(http: httpx.AsyncClient) -> None:
    odd = {**GOOD, "thread_id": NOWHERE, "colour": "red"}
    answer = await http.post("/runs/batch?shape=round", json=[odd, GOOD, odd])
    assert (answer.status_code, answer.headers["runlane-ignored"]) == (200, "shape, colour, thread_id")


async def test_a_repeated_batch_with_a_key_answers_the_first_ones_runs(http: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "batch-1"}
    first = (await http.post("/runs/batch", json=[GOOD, GOOD], headers=key)).json()
    again = (await http.post("/runs/batch", json=[GOOD, GOOD], headers=key)).json()
    assert [run["run_id"] for run in again] == [run["run_id"] for run in first]
    assert len({run["run_id"] for run in first}) == 2
    changed = await http.post("/runs/batch", json=[GOOD, {**GOOD, "input": {"steps": 2}}, GOOD], headers=key)
    assert (changed.status_code, changed.json()["code"]) == (409, "idempotency_key_reused")
    grown = await http.post("/runs/batch", json=[GOOD, GOOD, GOOD], headers=key)
    assert [run["run_id"] for run in grown.json()][:2] == [run["run_id"] for run in first]


async def test_cancelled_runs_have_stopped_before_their_thread_goes_on(
    client: LangGraphClient, thread_id: str, server: Server
) -> None:
    running = await begun(client, thread_id)
    queued = await client.runs.create(thread_id, "steps", input={"steps": 1})
    following = await client.runs.create(thread_id, "steps", input={"steps": 1, "delay_s": 0})
    await client.runs.cancel_many(thread_id=thread_id, run_ids=[running["run_id"], queued["run_id"]])
    assert (await ended(client, following))["status"] == "success"
    first, second, third = [
        server.on_loop(server.app.state.service.store.runs.get(run["run_id"], owner=""))
        for run in (running, queued, following)
    ]
    assert (first.status, second.status) == ("interrupted", "interrupted")
    assert first.cancel.stopped_at <= third.started_at
    assert second.started_at is None


async def test_a_second_cancel_of_many_is_harmless_and_one_of_none_is_404(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    done = await ended(client, await client.runs.create(thread_id, "steps", input={"steps": 1}))
    body = {"thread_id": thread_id, "run_ids": [done["run_id"]]}
    assert (await http.post("/runs/cancel", json=body)).status_code == 404
    run = await begun(client, thread_id)
    body["run_ids"] = [done["run_id"], run["run_id"], NOWHERE]
    assert (await http.post("/runs/cancel", json=body)).status_code == 204
    assert (await http.post("/runs/cancel", json=body)).status_code == 204
    assert (await ended(client, run))["status"] == "interrupted"
    assert (await client.runs.get(thread_id, done["run_id"]))["status"] == "success"


async def test_many_are_cancelled_with_rollback(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    await client.runs.wait(thread_id, "steps", input={"steps": 1})
    run = await begun(client, thread_id)
    await client.runs.cancel_many(thread_id=thread_id, run_ids=[run["run_id"]], action="rollback")
    while (await http.get(f"/threads/{thread_id}/runs/{run['run_id']}")).status_code != 404:
        pass
    assert (await client.threads.get_state(thread_id))["values"]["done"] == [0]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"status": "done"},
        {"thread_id": NOWHERE},
        {"run_ids": [NOWHERE]},
        {"thread_id": NOWHERE, "run_ids": []},
        {"status": "all", "thread_id": NOWHERE, "run_ids": [NOWHERE]},
        {"status": "all", "run_ids": [NOWHERE]},
        {"thread_id": "x", "run_ids": [NOWHERE]},
        {"thread_id": NOWHERE, "run_ids": ["x"]},
    ],
)
async def test_what_to_cancel_is_said_in_one_way(http: httpx.AsyncClient, body: Any) -> None:
    assert (await http.post("/runs/cancel", json=body)).status_code == 422


async def test_another_threads_runs_are_not_cancelled(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    mine, other = (await client.threads.create())["thread_id"], (await client.threads.create())["thread_id"]
    run = await begun(client, other)
    body = {"thread_id": mine, "run_ids": [run["run_id"]]}
    assert (await http.post("/runs/cancel", json=body)).status_code == 404
    assert (await http.post("/runs/cancel", json={**body, "thread_id": NOWHERE})).status_code == 404
    assert (await client.runs.get(other, run["run_id"]))["status"] == "running"
    await client.runs.cancel(other, run["run_id"])


async def test_runs_are_cancelled_by_their_status(alone: Server) -> None:
    async with sdk(alone) as client:
        threads = [(await client.threads.create())["thread_id"] for _ in range(3)]
        running = [await begun(client, thread_id) for thread_id in threads]
        queued = [
            await client.runs.create(thread_id, "steps", input={"steps": 1})
            for thread_id in threads
            for _ in range(80)  # more than are cancelled together
        ]
        await client.runs.cancel_many(status="pending")
        assert {(await ended(client, run))["status"] for run in queued} == {"interrupted"}
        assert {(await client.runs.get(run["thread_id"], run["run_id"]))["status"] for run in running} == {"running"}
        with pytest.raises(httpx.HTTPStatusError) as refused:
            await client.runs.cancel_many(status="pending")
        assert refused.value.response.status_code == 404
        await client.runs.create(threads[0], "steps", input={"steps": 1})
        await client.runs.cancel_many(status="all")
        assert {(await ended(client, run))["status"] for run in running} == {"interrupted"}
        assert await client.threads.count(status="busy") == 0


async def test_of_a_pair_with_one_key_one_batch_is_admitted(http: httpx.AsyncClient) -> None:
    slow = {"assistant_id": "steps", "input": {"steps": 2, "delay_s": LONG_S}}
    key = {"Idempotency-Key": "batch-pair"}
    answers = await asyncio.gather(*(http.post("/runs/batch", json=[slow] * 3, headers=key) for _ in range(4)))
    found = {tuple(run["run_id"] for run in answer.json()) for answer in answers}
    assert len(found) == 1
    for run in answers[0].json():
        assert (await http.post(f"/runs/{run['run_id']}/cancel", params={"wait": "1"})).status_code == 200
