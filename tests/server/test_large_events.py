"""Events that are larger than what a reader may hold are sent part by part, and come whole on every kind of stream."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from protocol_kit import Wire, human, of
from runlane.streams.budget import MAX_PART_BYTES
from server.test_protocol_socket import Socket, address
from server.test_thread_stream import reading
from server_kit import NewDatabase, Server, read_frames, running_server

PROJECT = Path(__file__).parent / "protocol_project" / "langgraph.json"
LARGE = MAX_PART_BYTES * 5 // 4


@pytest.fixture(scope="module")
def server(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server of the protocol's graphs."""
    with running_server(new_database(), PROJECT) as running:
        yield running


async def test_a_large_event_comes_whole_on_every_stream(server: Server, http: httpx.AsyncClient) -> None:
    thread = Wire(http)
    text = "".join(f"{number:09d}é" for number in range(LARGE // 10))
    run_id = await thread.start("chat", input=human(text))
    events = await thread.until(run_id)
    values = of(events, "values")
    assert values[-1]["messages"][0]["content"] == text
    async with connect(address(server, thread.thread_id), max_size=None) as connection:
        client = Socket(connection)
        await client.subscribe()
        assert await client.until(run_id) == events
    path = f"/threads/{thread.thread_id}/runs/{run_id}/stream"
    frames = await read_frames(http, "GET", path, headers={"Last-Event-ID": "-1"})
    assert [frame.data for frame in frames if frame.name == "values"] == values
    async with reading(http, thread.thread_id, "-") as reader:
        told = await reader.until_done({"run_id": run_id})
    assert [frame.data for frame in told if frame.name == "values"] == values


async def test_a_subscription_is_dropped_between_messages_however_large_they_are(
    server: Server, http: httpx.AsyncClient
) -> None:
    thread = Wire(http)
    run_id = await thread.start("chat", input=human("x" * 2 * LARGE))
    await thread.until(run_id)
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
    small.setblocking(False)
    async with connect(address(server, thread.thread_id), sock=small, max_size=None, max_queue=1) as connection:
        client = Socket(connection)
        dropped = await client.subscribe("values")
        while not client.events:  # the next message is on its way then, and has to wait for its reader
            client.events.append(json.loads(await connection.recv()))
        assert (await client.command("subscription.unsubscribe", subscription_id=dropped))["type"] == "success"
        await client.subscribe("lifecycle")
        await asyncio.wait_for(client.until(run_id), 10)
