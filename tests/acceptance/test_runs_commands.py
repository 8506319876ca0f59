"""``runlane runs`` against a real server."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import httpx

from acceptance.kit import Reader, Server, get, new_thread


async def runlane(*arguments: str) -> tuple[int | None, str]:
    """Run a command and return its exit code and all its output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "runlane.cli.main", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_runs_are_listed_shown_followed_and_cancelled(tmp_path: Path, http: httpx.AsyncClient) -> None:
    async with Server(tmp_path) as server:
        await server.start()
        where = ("--url", server.url)
        reader = Reader(server, http, await new_thread(http, server.url), "run")
        state = {"name": "run", "steps": 1000, "seconds": 0.1, "done": 0, "log": []}
        following = asyncio.create_task(reader.follow({"input": state}))
        await reader.reaches(1)

        code, listed = await runlane("runs", "ls", *where)
        assert code == 0, listed
        assert [word in listed for word in (reader.run_id, "running", "steps", reader.thread_id)] == [True] * 4
        _, of_thread = await runlane("runs", "ls", "--json", "--thread", reader.thread_id, *where)
        assert [run["run_id"] for run in json.loads(of_thread)] == [reader.run_id]
        _, shown = await runlane("runs", "show", "--json", reader.run_id, *where)
        assert json.loads(shown)["thread_id"] == reader.thread_id

        tailing = asyncio.create_task(runlane("runs", "tail", reader.run_id, *where))
        code, cancelled = await runlane("runs", "cancel", reader.run_id, *where)
        assert (code, cancelled) == (0, f"{reader.run_id} interrupted\n")
        await following
        code, tail = await tailing
        assert code == 0, tail
        assert [line.split()[0] for line in tail.splitlines()] == [event.id for event in reader.events]
        assert (await get(http, f"{server.url}/threads/{reader.thread_id}"))["status"] in ("idle", "interrupted")

        code, told = await runlane("runs", "show", "00000000-0000-0000-0000-000000000000", *where)
        assert (code, told.splitlines()) == (3, ["error: Run '00000000-0000-0000-0000-000000000000' not found."])
