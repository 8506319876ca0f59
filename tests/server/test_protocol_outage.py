"""The streaming protocol while its database is out: nobody is told that anything ended."""

from __future__ import annotations

import asyncio
import json

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from protocol_kit import Wire
from server_kit import LONG_S, Server, running_server


def test_streams_are_cut_and_commands_refused_until_it_is_back(postgres_dsn: str, postgres_url: str) -> None:
    database = str(conninfo_to_dict(postgres_url)["dbname"])
    with running_server(postgres_url, graphs={}) as server, psycopg.connect(postgres_dsn, autocommit=True) as admin:
        asyncio.run(_outage(server, admin, database))


async def _outage(server: Server, admin: psycopg.Connection, database: str) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=LONG_S) as http:
        thread = Wire(http, (await http.post("/threads", json={})).json()["thread_id"])
        address = f"ws{server.url.removeprefix('http')}/threads/{thread.thread_id}/stream/events"
        async with thread.events("lifecycle") as events, connect(address) as socket:
            command = {"id": 1, "method": "subscription.subscribe", "params": {"channels": ["lifecycle"]}}
            await socket.send(json.dumps(command))
            await socket.recv()
            admin.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false'.encode())
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])
            command = {"id": 2, "method": "state.get", "params": {}}
            answers = await asyncio.gather(
                http.post(f"/threads/{thread.thread_id}/commands", json=command),
                http.post(f"/threads/{thread.thread_id}/stream/events", json={"channels": ["values"]}),
            )
            assert [(answer.status_code, answer.headers["retry-after"]) for answer in answers] == [(503, "1")] * 2
            with pytest.raises(httpx.RemoteProtocolError):
                _ = [event async for event in events]
            with pytest.raises(ConnectionClosed) as closed:
                _ = [message async for message in socket]
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1013
        admin.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true'.encode())
        async with thread.events("lifecycle"):
            assert (await http.get(f"/threads/{thread.thread_id}")).json()["status"] == "idle"
