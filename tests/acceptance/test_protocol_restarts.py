"""The streaming protocol on real processes: its numbers outlive a killed one, and readers miss and repeat nothing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from acceptance.kit import RUN_LIMIT_S, Server
from protocol_kit import Event, Wire, is_end

STEPS = 12
SOME = 4


async def kill(server: Server) -> None:
    await server.kill()


async def terminate(server: Server) -> None:
    server.send(signal.SIGTERM)
    assert await server.ended() == 0, server.log


async def read(
    thread: Wire, run_id: str, found: list[Event], under_way: asyncio.Event | None = None, **wanted: Any
) -> None:
    """Read into *found* until the run has ended or the server is gone; say when some steps were taken."""
    try:
        async with thread.events(**wanted) as events:
            async for event in events:
                found.append(event)
                if under_way is not None and sum(one["method"] == "custom" for one in found) == SOME:
                    under_way.set()
                if is_end(event, run_id):
                    return
    except httpx.HTTPError:
        return


@pytest.mark.parametrize("stop", [pytest.param(kill, id="SIGKILL"), pytest.param(terminate, id="SIGTERM")])
async def test_numbers_outlive_the_process(tmp_path: Path, stop: Callable[[Server], Awaitable[None]]) -> None:
    async with Server(tmp_path, drain_grace_s=0.1) as server:
        await server.start()
        async with httpx.AsyncClient(base_url=server.url, timeout=RUN_LIMIT_S) as http:
            thread = Wire(http, str(uuid4()))
            state = {"name": "run", "steps": STEPS, "seconds": 0.05, "done": 0, "log": []}
            run_id = await thread.start("steps", input=state)
            before: list[Event] = []
            under_way = asyncio.Event()
            reading = asyncio.ensure_future(read(thread, run_id, before, under_way))
            await under_way.wait()
            await stop(server)
            await reading
            assert not any(is_end(event, run_id) for event in before)
            await server.start()
            after: list[Event] = []
            await read(thread, run_id, after, since=before[-1]["seq"])
            again: list[Event] = []
            await read(thread, run_id, again)
    assert before + after == again
    assert [event["seq"] for event in again] == sorted({event["seq"] for event in again})
    assert len({event["event_id"] for event in again}) == len(again)
    assert again[-1]["params"]["data"]["event"] == "completed"
    values = [event["params"]["data"] for event in again if event["method"] == "values"]
    assert [entry["step"] for entry in values[-1]["log"]] == list(range(1, STEPS + 1))
