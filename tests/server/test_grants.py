"""Streams and sockets of a user end when the user is not known any more; so do the runs of their crons."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk import get_client
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from auth_kit import bearer, guarded_server, keyed_server, project, revoke
from runlane.records import ANY_OWNER
from runlane.server.auth.keys import new_key
from runlane.store.transactions.crons import Cron, CronFilter
from server_kit import LONG_S, PATIENCE_S, PROJECT, NewDatabase, Server, begun, running_server

#: Longer than a test: only a change or a command makes a server ask again.
NEVER_S = 3600.0
APP = """
import asyncio
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute

async def words():
    yield "begun\\n"
    await asyncio.Event().wait()

async def stream(request):
    return StreamingResponse(words())

async def echo(socket):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)

app = Starlette(routes=[Route("/stream", stream), WebSocketRoute("/echo", echo)])
"""


def socket_of(server: Server, path: str, headers: dict[str, str]) -> Any:
    return connect(f"ws{server.url.removeprefix('http')}{path}", additional_headers=headers)


async def is_cut(lines: AsyncIterator[str]) -> None:
    """Read a stream, which has to end in the middle: that makes its client ask again, and be refused."""
    with pytest.raises(httpx.RemoteProtocolError):
        _ = [line async for line in lines]


async def closed_with(socket: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        _ = [message async for message in socket]
    return socket.close_code


async def test_a_revoked_key_ends_the_streams_and_sockets_of_its_owner_only(tmp_path: Path) -> None:
    with keyed_server(tmp_path, "ann", "bob", reauthenticate_s=NEVER_S) as (server, keys):
        ann, bob = ({"x-api-key": keys[name]} for name in ("ann", "bob"))
        client = get_client(url=server.url, api_key=keys["ann"])
        thread_id = (await client.threads.create())["thread_id"]
        run = await begun(client, thread_id)
        path = f"/threads/{thread_id}/stream/events"
        async with (
            httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http,
            http.stream("GET", f"/threads/{thread_id}/runs/{run['run_id']}/stream", headers=ann) as stream,
            http.stream("GET", f"/threads/{thread_id}/stream", headers=ann) as of_thread,
            socket_of(server, path, ann) as socket,
            socket_of(server, f"/threads/{uuid4()}/stream/events", bob) as other,
        ):
            streams = [stream.aiter_lines(), of_thread.aiter_lines()]
            for lines in streams:
                await anext(lines)
            revoke(tmp_path, "ann")
            for lines in streams:
                await is_cut(lines)
            assert await closed_with(socket) == 4401
            await other.send(json.dumps({"id": 1, "method": "nothing"}))
            assert json.loads(await other.recv())["error"] == "unknown_command"
            refused = await http.get(f"/threads/{thread_id}", headers=ann)
            assert refused.status_code == 401
        stored = server.on_loop(server.app.state.service.store.runs.get(run["run_id"], owner="ann"))
        assert stored.status == "running"  # its work goes on
        server.on_loop(server.app.state.service.runs.cancel(run["run_id"], wait=True, owner="ann"))
        await client.aclose()


class Token:
    """A token of ann's for the authentication ``expiring``."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.headers = bearer(str(file))
        self.renew()

    def renew(self) -> None:
        self._file.write_text("ann")

    def expire(self) -> None:
        self._file.unlink()


@pytest.fixture
def token(tmp_path: Path) -> Token:
    return Token(tmp_path / "token")


async def test_an_expired_token_ends_a_stream_within_the_period(tmp_path: Path, token: Token) -> None:
    with guarded_server(tmp_path, "expiring", reauthenticate_s=0.05) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S, headers=token.headers) as http:
            thread_id = (await http.post("/threads", json={})).json()["thread_id"]
            run = {"assistant_id": "steps", "input": {"steps": 1, "delay_s": LONG_S}, "on_disconnect": "continue"}
            async with http.stream("POST", f"/threads/{thread_id}/runs/stream", json=run) as stream:
                lines = stream.aiter_lines()
                await anext(lines)
                token.expire()
                await is_cut(lines)
            token.renew()
            [left] = (await http.get(f"/threads/{thread_id}/runs")).json()
            await http.delete(f"/threads/{thread_id}/runs/{left['run_id']}")


async def test_a_command_of_a_sender_who_is_not_known_any_more_is_not_executed(tmp_path: Path, token: Token) -> None:
    with guarded_server(tmp_path, "expiring", reauthenticate_s=NEVER_S) as server:
        thread_id = str(uuid4())
        async with socket_of(server, f"/threads/{thread_id}/stream/events", token.headers) as socket:
            await socket.send(json.dumps({"id": 1, "method": "nothing"}))
            assert json.loads(await socket.recv())["id"] == 1
            token.expire()
            command = {"id": 2, "method": "run.start", "params": {"assistant_id": "chat", "input": {"messages": []}}}
            await socket.send(json.dumps(command))
            assert await closed_with(socket) == 4401
        token.renew()
        async with httpx.AsyncClient(base_url=server.url, headers=token.headers) as http:
            assert (await http.get(f"/threads/{thread_id}")).status_code == 404


async def test_streams_of_an_application_beside_the_api_end_too(tmp_path: Path, token: Token) -> None:
    (tmp_path / "own_app.py").write_text(APP)
    config = project(tmp_path, path=f"{PROJECT.parent}/auth.py:expiring")
    sections = {"http": {"app": "./own_app.py:app", "enable_custom_route_auth": True}}
    config.write_text(json.dumps({**json.loads(config.read_text()), **sections}))
    with running_server("memory://", config, reauthenticate_s=0.05) as server:
        async with (
            httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S, headers=token.headers) as http,
            http.stream("GET", "/stream") as stream,
            socket_of(server, "/echo", token.headers) as socket,
        ):
            lines = stream.aiter_lines()
            assert await anext(lines) == "begun"
            token.expire()
            await is_cut(lines)
            assert await closed_with(socket) == 4401


def once_its_error_is(error: str | None, server: Server) -> Cron:
    """Return the server's only cron once a slot was answered so."""
    search = server.app.state.service.store.crons.search
    everything = {"owner": ANY_OWNER, "where": CronFilter(), "limit": 2, "offset": 0}
    while True:
        found: tuple[Cron, ...] = server.on_loop(search(**everything, sort_by="cron_id", order="asc"))
        [cron] = found
        if cron.last_slot_at is not None and (cron.error and cron.error.error) == error:
            return cron


EVERY_SECOND = {"assistant_id": "chat", "schedule": "* * * * * *", "input": {"messages": []}}


def test_a_cron_of_an_owner_without_a_key_is_suspended_until_they_have_one(tmp_path: Path) -> None:
    with keyed_server(tmp_path, "ann", "bob", poll_s=0.2) as (server, keys):
        made = httpx.post(f"{server.url}/runs/crons", json=EVERY_SECOND, headers={"x-api-key": keys["ann"]})
        assert made.status_code == 200, made.text
        keys["operator"] = new_key("operator", tmp_path / "keys", scopes=["runs:read", "runs:retry"])
        revoke(tmp_path, "ann")
        cron = once_its_error_is("OwnerUnknown", server)
        assert cron.plan.enabled
        assert cron.error is not None
        assert "ann" in cron.error.message
        by_hand = httpx.post(
            f"{server.url}/runs/crons/{cron.cron_id}/run", headers={"x-api-key": keys["operator"]}, timeout=PATIENCE_S
        )
        assert (by_hand.status_code, by_hand.json()["code"]) == (409, "owner_unknown")
        new_key("ann", tmp_path / "keys")
        again = once_its_error_is(None, server)
        assert again.plan.enabled
        assert again.last_run_id not in (None, cron.last_run_id)


def test_a_project_can_say_whose_crons_still_run(tmp_path: Path, new_database: NewDatabase) -> None:
    auth = f"{PROJECT.parent}/auth.py"
    config = project(tmp_path, path=f"{auth}:plain", known_user=f"{auth}:is_known")
    with running_server(new_database(), config, poll_s=0.2) as server:
        made = httpx.post(f"{server.url}/runs/crons", json=EVERY_SECOND, headers=bearer("gone"))
        assert made.status_code == 200, made.text
        assert once_its_error_is("OwnerUnknown", server).last_run_id is None
