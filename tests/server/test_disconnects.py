"""Clients that leave: the run goes on or is cancelled, as they asked."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from server_kit import LONG_S, begun, ended

SLOW = {"steps": 1, "delay_s": LONG_S}
TASKS = ["tasks"]


async def _leave(http: httpx.AsyncClient, method: str, path: str, **request: Any) -> str:
    """Open a stream, read its first bytes, go away, and return the run's address."""
    async with http.stream(method, path, **request) as answer:
        assert answer.status_code == 200
        await anext(answer.aiter_bytes())
        return str(answer.headers["content-location"])


async def _run(client: LangGraphClient, path: str) -> Any:
    _, _, thread_id, _, run_id = path.split("/")
    return await client.runs.get(thread_id, run_id)


@pytest.mark.parametrize("way", ["stream", "wait"])
async def test_a_run_is_cancelled_when_its_creator_leaves_if_asked(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str, way: str
) -> None:
    body = {"assistant_id": "steps", "input": SLOW, "on_disconnect": "cancel"}
    path = await _leave(http, "POST", f"/threads/{thread_id}/runs/{way}", json=body)
    run = await ended(client, await _run(client, path))
    assert (run["status"], run["end_reason"]) == ("interrupted", "disconnect")


@pytest.mark.parametrize("way", ["stream", "wait"])
@pytest.mark.parametrize("asked", [{}, {"on_disconnect": "continue"}])
async def test_a_run_goes_on_without_its_creator_otherwise(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str, way: str, asked: dict[str, str]
) -> None:
    await begun(client, thread_id)
    body = {"assistant_id": "steps", "input": {"steps": 1, "delay_s": 0}, **asked}
    path = await _leave(http, "POST", f"/threads/{thread_id}/runs/{way}", json=body)
    first = (await client.runs.list(thread_id))[-1]
    await client.runs.cancel(thread_id, first["run_id"])
    assert (await ended(client, await _run(client, path)))["status"] == "success"


@pytest.mark.parametrize("way", ["stream", "join"])
@pytest.mark.parametrize("flag", ["1", "true", "True"])
async def test_a_joiner_that_asked_for_it_takes_the_run_with_it(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str, way: str, flag: str
) -> None:
    run = await begun(client, thread_id)
    await _leave(http, "GET", f"/threads/{thread_id}/runs/{run['run_id']}/{way}?cancel_on_disconnect={flag}")
    run = await ended(client, run)
    assert (run["status"], run["end_reason"]) == ("interrupted", "disconnect")


@pytest.mark.parametrize("way", ["stream", "join"])
async def test_any_other_joiner_leaves_no_trace(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str, way: str
) -> None:
    run = await begun(client, thread_id)
    await _leave(http, "GET", f"/threads/{thread_id}/runs/{run['run_id']}/{way}?cancel_on_disconnect=0")
    assert (await client.runs.get(thread_id, run["run_id"]))["status"] == "running"
    await client.runs.cancel(thread_id, run["run_id"], wait=True)
    assert (await client.runs.get(thread_id, run["run_id"]))["end_reason"] == "user_cancel"  # type: ignore[typeddict-item]


async def test_a_stateless_run_is_cancelled_with_its_client(http: httpx.AsyncClient) -> None:
    body = {"assistant_id": "steps", "input": SLOW, "on_disconnect": "cancel"}
    path = await _leave(http, "POST", "/runs/stream", json=body)
    async with asyncio.timeout(LONG_S):
        while (run := (await http.get(path)).json())["status"] in ("pending", "running"):
            pass
    assert (run["status"], run["end_reason"]) == ("interrupted", "disconnect")
