"""What a run and its graph know of the user who started it, and what nobody is shown."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from auth_kit import bearer, guarded_server
from runlane.server.routes.keyed_threads import keyed_thread_id
from server_kit import MODES, NOWHERE, Server

SECRET = "token-7f3a9c"
SPOOFED = {
    "langgraph_auth_user": {"identity": "eve"},
    "langgraph_auth_user_id": "eve",
    "langgraph_auth_permissions": ["all"],
    "langgraph_request_id": "eve",
    "user_id": "eve",
    "__pregel_resuming": True,
    "mood": "calm",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guarded")


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[Server]:
    with guarded_server(folder) as running:
        yield running


@pytest.fixture
def alice(guarded: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.url, headers=bearer("alice"), timeout=15) as made:
        yield made


def run(client: httpx.Client, **body: Any) -> dict[str, Any]:
    """Run the graph that shows its config."""
    answer = client.post("/runs/wait", json={"assistant_id": "configured", "input": {}, **body})
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def test_a_graph_is_given_the_user_who_started_its_run(alice: httpx.Client) -> None:
    shown = run(alice)
    assert shown["user"] == {"identity": "alice", "permissions": ["alice:all"], "secret": True, "name": "Alice"}
    assert (shown["options"]["langgraph_auth_user_id"], shown["options"]["user_id"]) == ("alice", "alice")


def test_reserved_keys_of_a_client_are_removed(alice: httpx.Client) -> None:
    for where in ({"config": {"configurable": SPOOFED}}, {"context": SPOOFED}):
        shown = run(alice, **where)
        assert "eve" not in json.dumps(shown)
        assert (shown["user"]["identity"], shown["mood"]) == ("alice", "calm")


def test_user_objects_are_never_stored_returned_or_streamed(alice: httpx.Client, folder: Path) -> None:
    """Weakness 31 of the reference server."""
    thread_id = alice.post("/threads", json={}).json()["thread_id"]
    body = {"assistant_id": "configured", "input": {}, "stream_mode": MODES}
    streamed = alice.post(f"/threads/{thread_id}/runs/stream", json=body)
    assert "event: checkpoints" in streamed.text
    assert "event: end" in streamed.text
    [made] = alice.get(f"/threads/{thread_id}/runs").json()
    paths = (f"/runs/{made['run_id']}", "/state", "/history", f"/runs/{made['run_id']}/join", "")
    seen = [streamed.text, json.dumps(made), *(alice.get(f"/threads/{thread_id}{path}").text for path in paths)]
    busy = alice.post(f"/threads/{thread_id}/runs", json={"assistant_id": "steps", "input": {"delay_s": 60}})
    refused = alice.post(f"/threads/{thread_id}/state", json={"values": {"done": [1]}})
    assert refused.status_code == 409
    alice.post(f"/threads/{thread_id}/runs/{busy.json()['run_id']}/cancel")
    for text in [*seen, busy.text, refused.text]:
        assert SECRET not in text
        assert "secret_token" not in text
    with sqlite3.connect(folder / "runlane.db") as ledger:
        stored = "\n".join(ledger.iterdump())
    assert made["run_id"] in stored
    assert SECRET not in stored


def test_a_run_that_another_process_continues_has_its_users_identity_and_permissions(tmp_path: Path) -> None:
    with guarded_server(tmp_path) as first, httpx.Client(base_url=first.url, headers=bearer("alice")) as client:
        thread_id = client.post("/threads", json={}).json()["thread_id"]
        body = {"assistant_id": "configured", "input": {}, "after_seconds": 0.5}
        run_id = client.post(f"/threads/{thread_id}/runs", json=body).json()["run_id"]
    with guarded_server(tmp_path) as second, httpx.Client(base_url=second.url, headers=bearer("alice")) as client:
        shown = client.get(f"/threads/{thread_id}/runs/{run_id}/join", timeout=15).json()
    assert shown["user"] == {"identity": "alice", "permissions": ["alice:all"], "secret": False, "name": "alice"}


def test_a_refusal_tells_no_more_than_that_the_thread_is_not_there(alice: httpx.Client) -> None:
    assert alice.get(f"/threads/{NOWHERE}").json()["detail"] == f"Thread '{NOWHERE}' not found."


def test_a_graph_factory_is_given_the_user_of_every_use(alice: httpx.Client) -> None:
    thread_id = alice.post("/threads", json={}).json()["thread_id"]
    ran = alice.post(f"/threads/{thread_id}/runs/wait", json={"assistant_id": "owned", "input": {}})
    assert ran.json()["user"]["identity"] == "alice"
    drawn = alice.get("/assistants/owned/graph").json()
    assert "alice_known" in [node["id"] for node in drawn["nodes"]]
    assert alice.get(f"/threads/{thread_id}/state").json()["metadata"]["step"] == 1
    updated = alice.post(f"/threads/{thread_id}/state", json={"values": {"mood": "calm"}, "as_node": "alice_known"})
    assert updated.status_code == 200


def test_nobody_makes_the_thread_of_another_owners_run_with_a_key(guarded: Server, alice: httpx.Client) -> None:
    keyed = keyed_thread_id("alice", "order-1", None)
    with httpx.Client(base_url=guarded.url, headers=bearer("eve")) as eve:
        made = eve.post("/threads", json={"thread_id": keyed})
        assert (made.status_code, made.json()["code"]) == (422, "invalid_request")
        run = {"assistant_id": "configured", "input": {}, "if_not_exists": "create"}
        assert eve.post(f"/threads/{keyed}/runs", json=run).status_code == 404
        started = {"id": 1, "method": "run.start", "params": {"assistant_id": "configured", "input": {}}}
        assert eve.post(f"/threads/{keyed}/commands", json=started).status_code == 404
    kept = {"assistant_id": "configured", "input": {}, "on_completion": "keep"}
    ran = alice.post("/runs", json=kept, headers={"idempotency-key": "order-1"})
    assert (ran.status_code, ran.json()["thread_id"]) == (200, keyed)
    assert alice.post(f"/threads/{keyed}/runs", json={**kept, "if_not_exists": "create"}).status_code == 200
