"""An application of its own, served by uvicorn, stops when it is told to, whatever responses are open."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx

from acceptance.kit import RUN_LIMIT_S, Program, env_of, free_port
from runlane import ANY_OWNER, EndReason, RunStatus, RunStore, Settings
from runlane.store.backends import open_driver

SETTINGS = {"drain_grace_s": 0.2, "cancel_grace_s": 0.5, "abandon_after_s": 0.5}
#: Grace, stopping, and what uvicorn takes by itself; far less than the readers would stay.
STOPS_WITHIN_S = 10.0


class Embedding(Program):
    """The application of ``embedding_app.py``, in a process of its own."""

    READY = "Uvicorn running"

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        env = env_of({"database": f"sqlite:///{folder / 'runs.db'}", **SETTINGS})
        command = [sys.executable, "-m", "uvicorn", "--app-dir", str(Path(__file__).parent), "embedding_app:app"]
        super().__init__([*command, "--port", str(self.port)], env, effects=folder / "effects", takes_input=False)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=RUN_LIMIT_S) as client:
            yield client


async def next_data(lines: AsyncIterator[str]) -> str:
    """Return the next line of data of a stream, or ``over``."""
    async with asyncio.timeout(RUN_LIMIT_S):
        async for line in lines:
            if line.startswith("data: "):
                return line.removeprefix("data: ")
    return "over"


async def test_an_embedding_application_with_open_readers_stops_on_sigterm(tmp_path: Path) -> None:
    """Its runs end or are handed back, and its readers are let go."""
    async with Embedding(tmp_path) as app, app.client() as client, AsyncExitStack() as stack:
        await app.start()
        once, again = [(await client.post(f"/runs/{agent}/{agent}")).json() for agent in ("once", "again")]
        waiter = asyncio.create_task(client.get(f"/runs/{again}/join"))
        readers = []  # their requests follow that of the waiter, so that the application has it when they are answered
        for method, path in (("GET", f"/runs/{once}/stream"), ("GET", f"/runs/{again}/stream"), ("POST", "/ask/own")):
            readers.append((await stack.enter_async_context(client.stream(method, path))).aiter_lines())
        own = ""
        for lines in readers:
            while (data := await next_data(lines)) != "started":
                own = data if data.startswith('"') else own
        began_at = time.monotonic()
        app.send(signal.SIGTERM)
        assert [await next_data(lines) for lines in readers] == ["end interrupted", "over", "end interrupted"]
        assert (await waiter).status_code == 503
        await app.ended()
        assert time.monotonic() - began_at < STOPS_WITHIN_S
    driver = await open_driver(Settings(database=f"sqlite:///{tmp_path / 'runs.db'}"))
    store = RunStore(driver)
    for run_id in (once, json.loads(own)):
        run = await store.runs.get(run_id, owner=ANY_OWNER)
        assert (run.status, run.end_reason) == (RunStatus.INTERRUPTED, EndReason.DRAINED_OVER)
    handed_back = await store.runs.get(again, owner=ANY_OWNER)
    assert (handed_back.status, handed_back.attempt, handed_back.rescues) == (RunStatus.PENDING, 1, 0)
    await driver.aclose()
