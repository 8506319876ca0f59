"""The streaming protocol over a WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from protocol_kit import EVERY_CHANNEL, Wire, human, is_end
from server_kit import LONG_S, NewDatabase, Server, running_server

PROJECT = Path(__file__).parent / "protocol_project" / "langgraph.json"


@pytest.fixture(scope="module")
def server(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server of the protocol's graphs."""
    with running_server(new_database(), PROJECT) as running:
        yield running


class Socket:
    """A client that remembers the events that come between answers."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.events: list[Any] = []
        self._commands = 0

    async def command(self, method: str, **params: Any) -> Any:
        self._commands += 1
        await self.connection.send(json.dumps({"id": self._commands, "method": method, "params": params}))
        while True:
            message = json.loads(await self.connection.recv())
            if message["type"] != "event":
                assert message["id"] == self._commands
                return message
            self.events.append(message)

    async def subscribe(self, *channels: str, **wanted: Any) -> str:
        answer = await self.command("subscription.subscribe", channels=list(channels) or EVERY_CHANNEL, **wanted)
        return str(answer["result"]["subscription_id"])

    async def start(self, assistant_id: str, **params: Any) -> str:
        return str((await self.command("run.start", assistant_id=assistant_id, **params))["result"]["run_id"])

    async def until(self, run_id: str) -> list[Any]:
        """Return what has come up to the end of a run."""
        while not any(is_end(event, run_id) for event in self.events):
            self.events.append(json.loads(await self.connection.recv()))
        return self.events


def address(server: Server, thread_id: str) -> str:
    return f"ws{server.url.removeprefix('http')}/threads/{thread_id}/stream/events"


@pytest.fixture
async def thread(http: httpx.AsyncClient) -> AsyncIterator[Wire]:
    """Give a thread that does not exist yet, and stop what is left of it."""
    made = Wire(http)
    yield made
    await http.delete(f"/threads/{made.thread_id}")


@pytest.fixture
async def socket(server: Server, thread: Wire) -> AsyncIterator[Socket]:
    """Give a socket of the thread."""
    async with connect(address(server, thread.thread_id)) as connection:
        yield Socket(connection)


async def test_a_run_is_started_and_watched_on_one_socket(socket: Socket, thread: Wire) -> None:
    run_id = await socket.start("chat", input=human("hello"))
    await socket.subscribe()
    assert await socket.until(run_id) == await thread.until(run_id)


async def test_a_subscription_goes_on_over_runs_and_after_a_number(socket: Socket, thread: Wire) -> None:
    first = await thread.until(await thread.start("chat", input=human("one")))
    await socket.subscribe("lifecycle", since=first[-1]["seq"])
    second = await socket.start("chat", input=human("two"))
    assert [event["params"]["data"]["event"] for event in await socket.until(second)] == ["running", "completed"]


async def test_an_answer_names_the_last_number_that_was_sent(socket: Socket) -> None:
    run_id = await socket.start("chat", input=human("hello"))
    await socket.subscribe()
    last = (await socket.until(run_id))[-1]["seq"]
    answer = await socket.command("subscription.unsubscribe", subscription_id="other")
    assert (answer["error"], answer["meta"]) == ("no_such_subscription", {"applied_through_seq": last})


async def test_a_dropped_subscription_tells_nothing_more(socket: Socket) -> None:
    first = await socket.start("chat", input=human("one"))
    dropped = await socket.subscribe("values", "lifecycle")
    await socket.until(first)
    assert (await socket.command("subscription.unsubscribe", subscription_id=dropped))["type"] == "success"
    socket.events.clear()
    second = await socket.start("chat", input=human("two"))
    await socket.subscribe("lifecycle")
    assert {event["method"] for event in await socket.until(second)} == {"lifecycle"}


async def test_a_run_after_a_cancelled_one_is_a_new_run(socket: Socket, thread: Wire) -> None:
    first = await socket.start("steps", input={"delay_s": LONG_S, "steps": 1})
    await socket.subscribe("values", "lifecycle", namespaces=[[]])
    while not socket.events:
        socket.events.append(json.loads(await socket.connection.recv()))
    await thread.http.post(f"/threads/{thread.thread_id}/runs/{first}/cancel")
    await socket.until(first)
    second = await socket.start("steps", input={"delay_s": 0, "steps": 2})
    values = [event for event in await socket.until(second) if event["method"] == "values"]
    assert values[-1]["params"]["data"]["done"] == [0, 1]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"id": "1", "method": "x"}', '{"id": 1}', '"\\u0000"', "[" * 300])
async def test_what_is_no_command_is_answered_without_an_id(socket: Socket, text: str) -> None:
    await socket.connection.send(text)
    answer = json.loads(await socket.connection.recv())
    assert (answer["type"], answer["id"], answer["error"]) == ("error", None, "invalid_argument")
    assert (await socket.command("nothing"))["error"] == "unknown_command"


async def test_a_subscription_that_makes_no_sense_is_refused(socket: Socket) -> None:
    await socket.start("chat", input=human("x"))
    for params in ({}, {"channels": ["debug"]}, {"channels": ["values"], "depth": "1"}):
        assert (await socket.command("subscription.subscribe", **params))["error"] == "invalid_argument"
    assert (await socket.command("subscription.reconnect", run_id="x"))["error"] == "not_supported"


async def test_a_subscription_to_a_thread_that_does_not_exist_yet_waits_for_its_first_run(
    socket: Socket, thread: Wire
) -> None:
    await socket.subscribe("values", "lifecycle")
    assert socket.events == []
    run_id = await socket.start("chat", input=human("hello"))
    assert await socket.until(run_id) == await thread.until(run_id, "values", "lifecycle")


async def test_an_assistant_that_there_is_not_leaves_the_socket_open(socket: Socket) -> None:
    assert (await socket.command("run.start", assistant_id=str(uuid4())))["error"] == "unknown_error"
    run_id = await socket.start("chat", input=human("x"))
    await socket.subscribe("lifecycle")
    await socket.until(run_id)


async def test_a_thread_id_that_is_none_closes_the_socket(server: Server) -> None:
    async with connect(address(server, "nonsense")) as connection:
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4422


async def test_a_deleted_thread_closes_the_socket(socket: Socket, thread: Wire) -> None:
    run_id = await socket.start("chat", input=human("x"))
    await socket.subscribe("lifecycle")
    await socket.until(run_id)
    await thread.http.delete(f"/threads/{thread.thread_id}")
    with pytest.raises(ConnectionClosed) as closed:
        _ = [message async for message in socket.connection]
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4404


async def test_a_closing_process_says_so_to_its_sockets(new_database: NewDatabase) -> None:
    with running_server(new_database(), PROJECT, drain_grace_s=0.1) as server:
        async with connect(address(server, str(uuid4()))) as connection:
            socket = Socket(connection)
            run_id = await socket.start("chat", input=human("x"))
            await socket.subscribe("lifecycle")
            await socket.until(run_id)
            await asyncio.get_running_loop().run_in_executor(None, server.on_loop, server.app.state.service.drain())
            with pytest.raises(ConnectionClosed) as closed:
                await connection.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
