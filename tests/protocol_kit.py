"""What tests of the streaming protocol say often: commands and events as they are on the wire."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx

from server_kit import PATIENCE_S, Server

EVERY_CHANNEL = ["values", "updates", "messages", "tools", "lifecycle", "input", "checkpoints", "tasks", "custom"]
ENDINGS = ("completed", "failed", "interrupted")
Event = dict[str, Any]


def human(text: str) -> dict[str, Any]:
    return {"messages": [{"type": "human", "content": text}]}


class Wire:
    """A client of one thread that sends commands and reads events, and hides nothing."""

    def __init__(self, http: httpx.AsyncClient, thread_id: str | None = None) -> None:
        self.http, self.thread_id = http, thread_id or str(uuid4())
        self._commands = 0

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the answer to a command, whatever it is."""
        self._commands += 1
        command = {"id": self._commands, "method": method, "params": params}
        response = await self.http.post(f"/threads/{self.thread_id}/commands", json=command)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        assert answer["id"] == self._commands
        return answer

    async def start(self, assistant_id: str, **params: Any) -> str:
        """Start a run and return its id."""
        answer = await self.command("run.start", assistant_id=assistant_id, **params)
        assert answer["type"] == "success", answer
        return str(answer["result"]["run_id"])

    async def refused(self, method: str, **params: Any) -> tuple[str, str]:
        """Return the code and the text of a command that is refused."""
        answer = await self.command(method, **params)
        assert answer["type"] == "error", answer
        return answer["error"], answer["message"]

    @asynccontextmanager
    async def events(self, *channels: str, **wanted: Any) -> AsyncIterator[AsyncIterator[Event]]:
        """Open a stream of events, which has begun when the block does."""
        body = {"channels": list(channels) or EVERY_CHANNEL, **wanted}
        async with self.http.stream("POST", f"/threads/{self.thread_id}/stream/events", json=body) as response:
            assert response.status_code == 200, await response.aread()
            yield parsed(response.aiter_lines())

    async def until(self, run_id: str, *channels: str, **wanted: Any) -> list[Event]:
        """Return all events up to the end of a run, that of the root graph."""
        async with self.events(*channels, **wanted) as events:
            return await up_to_end(events, run_id)


async def parsed(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    """Yield the events of a stream, whose ``id`` and ``event`` have to be those of the data."""
    frame: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(":")
            frame[name] = value.strip()
            continue
        if "data" in frame:
            event = json.loads(frame["data"])
            assert (frame["event"], frame["id"]) == (event["method"], str(event["seq"]))
            yield event
        frame = {}


async def up_to_end(events: AsyncIterator[Event], run_id: str) -> list[Event]:
    """Return *events* up to the end of a run."""
    found: list[Event] = []
    async for event in events:
        found.append(event)
        if is_end(event, run_id):
            return found
    raise AssertionError(f"the stream ended before run {run_id} did: {found}")


def is_end(event: Event, run_id: str) -> bool:
    return str(event["event_id"]).startswith(f"synth:{run_id}:lc||") and event["params"]["data"]["event"] in ENDINGS


def of(events: list[Event], channel: str) -> list[Any]:
    """Return the data of the root graph's events of one method."""
    return [
        event["params"]["data"] for event in events if event["method"] == channel and not event["params"]["namespace"]
    ]


@asynccontextmanager
async def wire(server: Server, thread_id: str | None = None) -> AsyncIterator[Wire]:
    """Give a client of a thread that may not exist yet."""
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
        yield Wire(http, thread_id)


def numbers(events: list[Event]) -> Iterator[int]:
    return (event["seq"] for event in events)
