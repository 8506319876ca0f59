"""Secrets are planted wherever a client or an operator may have one; after every kind of ending none is found again."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from acceptance.kit import Server
from runlane.documents.compression import unpacked
from webhook_kit import Receiver, answers, receiver

PROJECT = Path(__file__).parent / "canary_project"
#: What all of them begin with, and nothing else has.
CANARY = "canary-5b1f9d0e-"
MODES = ["values", "updates", "messages-tuple", "events", "debug", "tasks", "checkpoints", "custom"]
SECRETS = {"api_key": f"{CANARY}config", "providers": [{"name": "a", "accessToken": f"{CANARY}nested"}]}
#: What a browser, a proxy and an SDK put their secrets into; the last is passed to the graph, as the project asks.
HEADERS = {
    "authorization": f"Bearer {CANARY}authorization",
    "cookie": f"session={CANARY}cookie",
    "x-api-key": f"{CANARY}x-api-key",
    "proxy-authorization": f"Basic {CANARY}proxy",
    "x-auth-token": f"{CANARY}passed",
}
WHSEC = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


def _clean(text: str, where: str) -> None:
    at = text.find(CANARY)
    assert at < 0, f"{where}: …{text[max(0, at - 200) : at + 60]}…"
    assert WHSEC.removeprefix("whsec_") not in text, where


class Client:
    """Asks one server, and looks for canaries in all that it answers."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def ask(self, method: str, path: str, body: Any = None, *, shown: bool = False, **given: Any) -> Any:
        """Return the answer; *shown* if it may show what is configured, as assistants and crons do."""
        answer = await self._http.request(method, path, json=body, **given)
        if not shown:
            _clean(f"{answer.status_code} {answer.headers} {answer.text}", f"the answer to {method} {path}")
        assert answer.status_code < 500 or "authorization" in given.get("headers", {}), answer.text
        return answer

    async def got(self, method: str, path: str, body: Any = None, **given: Any) -> Any:
        return (await self.ask(method, path, body, **given)).json()

    async def run(self, end: str, thread_id: str, **given: Any) -> str:
        """Stream a run that is to end so, and return its id once it has."""
        path = f"/threads/{thread_id}/runs"
        body = {"assistant_id": "g", "input": {"end": end}, "stream_mode": MODES, "stream_resumable": True, **given}
        streamed = await self.ask("POST", f"{path}/stream", body)
        assert "event: end" in streamed.text, streamed.text
        return str(streamed.headers["content-location"].rpartition("/")[2])


@asynccontextmanager
async def _client(server: Server) -> AsyncIterator[Client]:
    async with httpx.AsyncClient(base_url=server.url, headers=HEADERS, timeout=30.0, trust_env=False) as http:
        yield Client(http)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Write a project whose environment has secrets of its own."""
    folder = tmp_path / "project"
    folder.mkdir()
    config = {
        "dependencies": [str(PROJECT)],
        "graphs": {"g": f"{PROJECT}/graphs.py:graph"},
        "auth": {"path": f"{PROJECT}/graphs.py:auth"},
        "env": {
            "OPENAI_API_KEY": f"{CANARY}env",
            "CANARY_USER": f"{CANARY}user",
            "LG_WEBHOOK_TOKEN": f"{CANARY}webhook",
            "CRASHED": str(tmp_path / "crashed"),
        },
        "http": {"configurable_headers": {"includes": ["x-*", "x-auth-token"]}},
        "webhooks": {
            "url": {"disable_loopback": False},
            "headers": {"Authorization": "Bearer ${{ env.LG_WEBHOOK_TOKEN }}"},
        },
    }
    (folder / "langgraph.json").write_text(json.dumps(config))
    return folder


async def test_no_planted_secret_is_found_in_what_is_kept_told_or_logged(tmp_path: Path, project: Path) -> None:
    server = Server(tmp_path, project=project, log_level="debug", webhook_secret=WHSEC)
    async with server, receiver(answers(500)) as to, _client(server) as client:
        await server.start()
        threads = await _every_ending(client, to)
        await _other_ways(client, threads["success"])
        crashed = await _crash(server, client, to)
        for thread_id in [*threads.values(), crashed]:
            await _everything_that_is_told(client, thread_id)
        for told in to.requests:
            assert told.headers["authorization"] == f"Bearer {CANARY}webhook", "it is what the receiver knows us by"
            _clean(f"{told.line} { ({**told.headers, 'authorization': ''}) } {told.body.decode()}", "a webhook")
        server.send(signal.SIGTERM)
        assert await server.ended() == 0
    _clean(server.log, "the log")
    _nothing_is_kept(tmp_path)


async def _every_ending(client: Client, to: Receiver) -> dict[str, str]:
    """End runs in every way, each with a webhook, whose first try fails; return their threads."""
    threads = {}
    for place in ("config", "context"):
        for end in ("success", "failure", "strange"):
            thread_id = threads[end] = (await client.got("POST", "/threads", {}))["thread_id"]
            secrets: Any = {"configurable": SECRETS} if place == "config" else SECRETS
            given = {"webhook": to.url(), "metadata": {"kind": "canary"}, place: secrets}
            run_id = await client.run(end, thread_id, **given)
            ended = await client.got("GET", f"/threads/{thread_id}/runs/{run_id}")
            assert ended["status"] == ("success" if end == "success" else "error"), ended
            if end == "success":
                values = (await client.got("GET", f"/threads/{thread_id}/state"))["values"]
                assert values["had"] == ["api_key", "x-auth-token", "env", "user"], "the graph had them"
    threads["cancel"] = await _cancel(client, to)
    return threads


async def _cancel(client: Client, to: Receiver) -> str:
    """Cancel a run that executes, and one that waits; return their thread."""
    thread_id = str((await client.got("POST", "/threads", {}))["thread_id"])
    runs = f"/threads/{thread_id}/runs"
    body = {"assistant_id": "g", "input": {"end": "cancel"}, "config": {"configurable": SECRETS}, "webhook": to.url()}
    run = await client.got("POST", runs, {**body, "stream_mode": MODES})
    later = await client.got("POST", runs, {**body, "after_seconds": 3600})
    await client.ask("POST", f"{runs}/{run['run_id']}/cancel?wait=1")
    await client.ask("POST", f"{runs}/{later['run_id']}/cancel?wait=1")
    return thread_id


async def _other_ways(client: Client, thread_id: str) -> None:
    """Configure an assistant, a cron, and runs over the other protocol; refuse what tells secrets."""
    config, made = {"configurable": SECRETS}, {"shown": True}
    assistant = await client.got("POST", "/assistants", {"graph_id": "g", "config": config}, **made)
    await client.ask("POST", "/runs/wait", {"assistant_id": assistant["assistant_id"], "input": {"end": "success"}})
    await client.ask("PATCH", f"/assistants/{assistant['assistant_id']}", {"context": SECRETS, "config": {}}, **made)
    await client.ask("DELETE", f"/assistants/{assistant['assistant_id']}")
    cron = {"assistant_id": "g", "schedule": "* * * * * *", "input": {"end": "success"}, "config": config}
    cron = await client.got("POST", "/runs/crons", {**cron, "on_run_completed": "keep"}, **made)
    while not (fired := await client.got("GET", f"/runs/crons/{cron['cron_id']}", **made))["last_run_id"]:
        assert fired["error"] is None
    await client.ask("DELETE", f"/runs/crons/{cron['cron_id']}")
    params = {"assistant_id": "g", "input": {"end": "success"}, "config": config}
    await client.ask("POST", f"/threads/{thread_id}/commands", {"id": 1, "method": "run.start", "params": params})
    batch = [{"assistant_id": "g", "input": {"end": "success"}, "config": config}] * 2
    await client.ask("POST", "/runs/batch", batch)
    wrong = {"assistant_id": "g", "config": {"configurable": SECRETS, "recursion_limit": -1}}
    assert (await client.ask("POST", "/runs/wait", wrong)).status_code == 422
    assert (await client.ask("POST", "/runs", {**wrong, "assistant_id": "none"})).status_code == 422
    await client.ask("POST", "/runs", None, content=f'{{"config": "{CANARY}malformed')
    await client.ask("GET", f"/nowhere?token={CANARY}query")
    unknown = {"authorization": f"Bearer {CANARY}authorization-unknown"}
    assert (await client.ask("GET", f"/threads/{thread_id}", headers=unknown)).status_code == 500


async def _crash(server: Server, client: Client, to: Receiver) -> str:
    """Let a run kill its process once, and end in the next one; return its thread."""
    thread_id = str((await client.got("POST", "/threads", {}))["thread_id"])
    body = {"assistant_id": "g", "input": {"end": "crash"}, "config": {"configurable": SECRETS}, "webhook": to.url()}
    run = await client.got("POST", f"/threads/{thread_id}/runs", {**body, "durability": "sync"})
    assert await server.ended() == 7
    assert "event=auth.handler_failed" in server.log
    assert "event=run.failed" in server.log
    _clean(server.log, "the log before the crash")
    await to.got(8)
    await server.start()
    joined = await client.got("GET", f"/threads/{thread_id}/runs/{run['run_id']}/join")
    assert joined["had"] == ["api_key", "x-auth-token", "env"], "what a user has beyond their name is not stored"
    await to.got(9)
    return thread_id


async def _everything_that_is_told(client: Client, thread_id: str) -> None:
    for path in ("", "/state", "/history", "/runs", "/storage"):
        await client.ask("GET", f"/threads/{thread_id}{path}")
    for run in await client.got("GET", f"/threads/{thread_id}/runs"):
        path = f"/threads/{thread_id}/runs/{run['run_id']}"
        await client.ask("GET", path)
        await client.ask("GET", f"{path}/stream", headers={"last-event-id": "-1"})
        await client.ask("GET", f"/webhooks/{run['run_id']}")
    for method, path in (("POST", "/threads/search"), ("POST", "/assistants/search"), ("POST", "/runs/crons/search")):
        await client.ask(method, path, {})
    for path in ("/metrics", "/metrics?format=json", "/info", "/openapi.json", "/webhooks"):
        await client.ask("GET", path)


def _nothing_is_kept(folder: Path) -> None:
    """Look at all rows, decompressed, and at all bytes of the files, where deleted rows would be."""
    with closing(sqlite3.connect(f"file:{folder}/runlane.db?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in connection.execute(f"SELECT * FROM {table}"):
                plain = [unpacked(value) if isinstance(value, bytes) else value for value in row]
                _clean(str(plain), f"a row of {table}")
        assert connection.execute("SELECT COUNT(*) FROM runs").fetchone()[0] >= 10
    for file in folder.glob("runlane.db*"):
        _clean(file.read_bytes().decode("latin-1"), file.name)
