"""P5 for one stream of many runs, on a cluster: its server is killed, and another one goes on with its cursor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import httpx

from acceptance.kit import RUN_LIMIT_S, Server, create_run, events_of, servers_and_workers
from server_kit import NewDatabase

RUNS, STEPS = 12, 8


class Watcher:
    """A page that follows runs over as many streams as it takes."""

    def __init__(self, run_ids: list[str]) -> None:
        self.runs = [{"run_id": run_id, "after": "-"} for run_id in run_ids]
        self.items: list[dict[str, Any]] = []
        self.cursor = ""

    async def frames(self, http: httpx.AsyncClient, server: Server) -> AsyncIterator[None]:
        """Read on to the end of the stream, frame by frame."""
        body = {"runs": self.runs, **({"cursor": self.cursor} if self.cursor else {})}
        async with asyncio.timeout(RUN_LIMIT_S), http.stream("POST", f"{server.url}/watch", json=body) as response:
            assert response.status_code == 200, await response.aread()
            async for frame in events_of(response):
                self.items += frame.data
                self.cursor = frame.id
                yield

    def of(self, run_id: str) -> list[tuple[str, str]]:
        return [(item["id"], item["event"]) for item in self.items if item["run_id"] == run_id]


async def test_whoever_watches_runs_gets_each_item_once_also_if_the_server_is_killed(
    http: httpx.AsyncClient, tmp_path: Path, new_postgres_ledger: NewDatabase
) -> None:
    async with servers_and_workers(tmp_path, new_postgres_ledger()) as ((first, second), _):
        threads = [(await http.post(f"{first.url}/threads", json={})).json()["thread_id"] for _ in range(RUNS)]
        modes = ("custom", "values")
        runs = [
            await create_run(http, first, thread_id, "steps", steps=STEPS, seconds=0.2, stream_mode=modes)
            for thread_id in threads
        ]
        watcher, changes = Watcher(runs), asyncio.create_task(_ended(http, second, set(runs)))
        with suppress(httpx.TransportError):
            async for _ in watcher.frames(http, first):
                if len(watcher.items) >= 3 * RUNS and first.up.is_set():
                    await first.kill()
        assert sum(item["event"] == "end" for item in watcher.items) < RUNS, "it was killed in the middle"
        async with aclosing(watcher.frames(http, second)) as frames:
            for _ in range(3):
                await anext(frames)  # and leaves in the middle
        _ = [None async for _ in watcher.frames(http, second)]
        for run_id in runs:
            stream = f"{second.url}/runs/{run_id}/stream"
            async with http.stream("GET", stream, headers={"last-event-id": "-1"}) as response:
                assert watcher.of(run_id) == [(event.id, event.name) async for event in events_of(response)]
        assert await changes == set(runs)


async def _ended(http: httpx.AsyncClient, server: Server, runs: set[str]) -> set[str]:
    """Return the runs that *server* tells have succeeded, all of which others execute, once it has told of *runs*."""
    ended: set[str] = set()
    body = {"changes": True}
    async with asyncio.timeout(RUN_LIMIT_S), http.stream("POST", f"{server.url}/watch", json=body) as response:
        async for frame in events_of(response):
            ended |= {item["run_id"] for item in frame.data if item["data"]["status"] == "success"}
            if ended >= runs:
                break
    return ended
