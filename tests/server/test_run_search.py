"""Searching runs of all threads over HTTP."""

from __future__ import annotations

from datetime import datetime, timedelta

import httpx
from langgraph_sdk.client import LangGraphClient

from server_kit import NOWHERE, ended


async def search(http: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await http.post("/runs/search", json=body)


async def ids(http: httpx.AsyncClient, **body: object) -> list[str]:
    answer = await search(http, **body)
    assert answer.status_code == 200, answer.text
    return [run["run_id"] for run in answer.json()]


async def test_runs_are_found_though_most_threads_have_none(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    thread = await client.threads.create()
    run = await ended(client, await client.runs.create(thread["thread_id"], "steps", input={"steps": 1}))
    for _ in range(3):
        await client.threads.create()
    [found] = (await search(http, thread_id=thread["thread_id"])).json()
    assert found["run_id"] == (await ids(http, limit=1))[0] == run["run_id"]
    assert (found["graph_id"], found["status"], found["owner"]) == ("steps", "success", "")
    assert found["error"] is found["cancel"] is found["waiting_on"] is None
    assert "kwargs" not in found, "what a run was asked is not for everybody who may list runs"


async def test_pages_follow_each_other(client: LangGraphClient, http: httpx.AsyncClient, thread_id: str) -> None:
    made = [(await client.runs.create(thread_id, "steps", input={"steps": 1}))["run_id"] for _ in range(5)][::-1]
    found, after = [], None
    while True:
        body = {"thread_id": thread_id, "limit": 2, **({} if after is None else {"after": after})}
        page = await search(http, **body)
        found += [run["run_id"] for run in page.json()]
        after = page.headers.get("X-Pagination-Next")
        if after is None:
            break
    assert found == made


async def test_filters_are_honoured(client: LangGraphClient, http: httpx.AsyncClient, thread_id: str) -> None:
    run = await ended(client, await client.runs.create(thread_id, "steps", input={"steps": 1}))
    here = {"thread_id": thread_id}
    [found] = (await search(http, **here)).json()
    worker, build = found["worker_id"], found["build"]
    at = datetime.fromisoformat(str(run["created_at"]))
    for given in (
        {"status": "success"},
        {"status": ["error", "success"]},
        {"graph_id": "steps"},
        {"assistant_id": run["assistant_id"]},
        {"since": at.isoformat()},
        {"until": (at + timedelta(hours=1)).isoformat()},
        {"text": run["run_id"][:20].upper()},
        {"owner": ""},
        {"run_ids": [run["run_id"], NOWHERE]},
        {"end_reason": "completed"},
        {"end_reason": ["failed", "completed"]},
        {"worker_id": worker},
        {"build": build},
        {"min_tokens": 0},
    ):
        assert await ids(http, **here, **given) == [run["run_id"]], given
    for given in (
        {"status": "error"},
        {"status": ["pending", "running"]},
        {"graph_id": "other"},
        {"assistant_id": NOWHERE},
        {"since": (at + timedelta(hours=1)).isoformat()},
        {"until": at.isoformat()},
        {"text": "no such text"},
        {"owner": "somebody"},
        {"metadata": {"team": "x"}},
        {"run_ids": [NOWHERE]},
        {"end_reason": "failed"},
        {"worker_id": "another"},
        {"build": "another"},
        {"min_tokens": 1},
        {"waits_for": "run"},
    ):
        assert await ids(http, **here, **given) == [], given


async def test_what_is_no_filter_is_refused(http: httpx.AsyncClient) -> None:
    for given in (
        {"status": "happy"},
        {"status": []},
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"text": ""},
        {"limit": 0},
        {"after": "-1"},
        {"thread_id": "x"},
        {"run_ids": []},
        {"end_reason": "bad luck"},
        {"waits_for": "godot"},
        {"min_cost": -1},
    ):
        assert (await search(http, **given)).status_code == 422, given


async def test_runs_cannot_be_found_by_their_cost_without_prices(http: httpx.AsyncClient) -> None:
    answer = await search(http, min_cost=0.5)
    assert answer.status_code == 422
    assert "prices" in answer.text
