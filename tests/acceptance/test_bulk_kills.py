"""An action on many runs whose server is killed in the middle: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from acceptance.kit import Server, get, new_thread

RUNS, PAGE = 24, 8


async def act(http: httpx.AsyncClient, server: Server, body: dict[str, Any]) -> dict[str, Any]:
    response = await http.post(f"{server.url}/runs/bulk", json=body)
    page: dict[str, Any] = response.raise_for_status().json()
    return page


async def killed_in_the_middle(http: httpx.AsyncClient, server: Server, body: dict[str, Any], path: str) -> list[Any]:
    """Act page by page, kill the server once something of the first page is done, and go on; return the results."""
    acting = asyncio.create_task(act(http, server, body))
    before = await get(http, server.url + path)
    while not acting.done() and await get(http, server.url + path) == before:
        pass
    await server.kill()
    await asyncio.gather(acting, return_exceptions=True)
    await server.start()
    results, after = [], None
    while True:
        page = await act(http, server, {**body, **({} if after is None else {"after": after})})
        results += page["results"]
        after = page["next"]
        if after is None:
            return results


async def test_a_server_that_is_killed_in_the_middle_does_each_thing_once(
    tmp_path: Path, http: httpx.AsyncClient
) -> None:
    async with Server(tmp_path) as server:
        await server.start()
        threads = {}
        for _ in range(RUNS):
            thread_id = await new_thread(http, server.url)
            body = {"assistant_id": "steps", "after_seconds": 86_400, "input": {"name": thread_id, "steps": 1}}
            run = await http.post(f"{server.url}/threads/{thread_id}/runs", json=body)
            threads[run.raise_for_status().json()["run_id"]] = thread_id
        asked: dict[str, Any] = {"action": "cancel", "filter": {"run_ids": list(threads)}}
        preview = (await http.post(f"{server.url}/runs/bulk/preview", json=asked)).raise_for_status().json()
        assert preview["acted"] == RUNS
        asked |= {"bound": preview["bound"], "limit": PAGE}
        newest, path = list(threads)[-1], f"/threads/{list(threads.values())[-1]}/runs"

        results = await killed_in_the_middle(http, server, asked, f"/runs/{newest}")
        assert [one["run_id"] for one in results] == list(threads)[::-1]
        assert {one["outcome"] if one["outcome"] == "done" else one["reason"] for one in results} <= {"done", "ended"}
        for run_id in threads:
            assert (await get(http, f"{server.url}/runs/{run_id}"))["status"] == "interrupted"

        results = await killed_in_the_middle(http, server, {**asked, "action": "retry"}, path)
        assert {one["outcome"] if one["outcome"] == "done" else one["reason"] for one in results} <= {"done", "retried"}
        retries = {one["run_id"]: one["retry_run_id"] for one in results}
        for run_id, thread_id in threads.items():
            found = await get(http, f"{server.url}/threads/{thread_id}/runs")
            assert [run["run_id"] for run in found] == [retries[run_id], run_id]
