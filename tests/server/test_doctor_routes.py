"""The doctor over HTTP: what it found, and its repairs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from runlane.server.auth.keys import new_key
from runlane.store.statements import Transaction, statement
from server_kit import PATIENCE_S, NewDatabase, Server, running_server

SCOPES: dict[str, list[str]] = {"alice": [], "bob": [], "watcher": ["runs:read"], "chief": ["admin"]}
DAMAGE = statement("damage", "UPDATE threads SET status = 'busy' WHERE thread_id = :thread_id")
Clients = dict[str, httpx.Client]


@pytest.fixture
def served(new_database: NewDatabase, tmp_path: Path) -> Iterator[tuple[Server, Clients]]:
    keys = {name: new_key(name, tmp_path / "keys", scopes=scopes) for name, scopes in SCOPES.items()}
    with ExitStack() as stack:
        server = stack.enter_context(running_server(new_database(), api_keys=str(tmp_path / "keys")))
        yield (
            server,
            {
                name: stack.enter_context(
                    httpx.Client(base_url=server.url, headers={"x-api-key": key}, timeout=PATIENCE_S)
                )
                for name, key in keys.items()
            },
        )


def damaged(server: Server, client: httpx.Client) -> str:
    """Return a thread that is busy without a run."""
    thread_id: str = client.post("/threads", json={}).json()["thread_id"]
    run = {"assistant_id": "steps", "input": {"steps": 1}}
    client.post(f"/threads/{thread_id}/runs/wait", json=run).raise_for_status()

    def damage() -> Transaction[None]:
        yield DAMAGE(thread_id=thread_id)

    async def write() -> None:
        await server.app.state.service.store.driver.write(damage())

    server.on_loop(write())
    assert client.get(f"/threads/{thread_id}").json()["status"] == "busy"
    return thread_id


def examined(client: httpx.Client, *, again: httpx.Client | None = None) -> Any:
    """Return the result of an examination that begins now."""
    before = client.get("/operator/doctor").json()["as_of"]
    until = time.monotonic() + PATIENCE_S
    if again is not None:
        while client.get("/operator/doctor").json()["examining"]:
            time.sleep(0.02)
        before = client.get("/operator/doctor").json()["as_of"]
        assert again.post("/operator/doctor").status_code == 202
    while (told := client.get("/operator/doctor").json())["as_of"] == before or told["examining"]:
        assert time.monotonic() < until
        time.sleep(0.02)
    return told


def test_findings_are_shown_and_repaired_one_by_one(served: tuple[Server, Clients]) -> None:
    server, clients = served
    threads = [damaged(server, clients["alice"]) for _ in range(2)]
    told = examined(clients["watcher"])
    assert told["complete"]
    assert told["checked"]["threads"] == 2
    assert {finding["code"] for finding in told["findings"]} == {"thread.status"}
    assert [finding["subject"]["thread"] for finding in told["findings"]] == sorted(threads)
    first, second = (finding["id"] for finding in told["findings"])
    body = {"findings": [first, "0" * 16]}
    [preview, unknown] = clients["watcher"].post("/operator/doctor/repair", json=body).json()
    assert (preview["id"], preview["outcome"], unknown["outcome"]) == (first, "would_repair", "unknown")
    do = {"findings": [first], "preview": False}
    assert clients["watcher"].post("/operator/doctor/repair", json=do).status_code == 403
    [done] = clients["chief"].post("/operator/doctor/repair", json=do).json()
    assert done["outcome"] == "repaired"
    statuses = {one: clients["alice"].get(f"/threads/{one}").json()["status"] for one in threads}
    assert statuses == {done["subject"]["thread"]: "idle", told["findings"][1]["subject"]["thread"]: "busy"}
    assert [finding["id"] for finding in clients["watcher"].get("/operator/doctor").json()["findings"]] == [second]
    [act] = [act for act in clients["chief"].get("/audit").json() if act["action"] == "repair"]
    assert (act["subject"]["findings"], act["status"]) == ([first], 200)
    clients["chief"].post("/operator/doctor/repair", json={"findings": [second], "preview": False})
    assert clients["watcher"].post("/operator/doctor").status_code == 403
    assert examined(clients["watcher"], again=clients["chief"])["findings"] == []


def test_a_page_view_examines_nothing_while_the_last_result_is_young(served: tuple[Server, Clients]) -> None:
    server, clients = served
    first = examined(clients["watcher"])
    damaged(server, clients["alice"])
    for _ in range(3):
        told = clients["watcher"].get("/operator/doctor").json()
        assert (told["as_of"], told["examining"], told["findings"]) == (first["as_of"], False, [])


def test_a_damaged_thread_is_repaired_by_its_owner(served: tuple[Server, Clients]) -> None:
    server, clients = served
    thread_id, other = damaged(server, clients["alice"]), damaged(server, clients["alice"])
    path = f"/threads/{thread_id}/repair"
    assert clients["bob"].post(path, json={}).status_code == 404
    assert clients["watcher"].post(path, json={"preview": False}).status_code == 403
    [preview] = clients["watcher"].post(path, json={}).json()
    assert (preview["code"], preview["outcome"], preview["subject"]["thread"]) == (
        "thread.status",
        "would_repair",
        thread_id,
    )
    assert preview["meaning"] == "It is busy without an active run, so clients wait in vain."
    assert clients["alice"].get(f"/threads/{thread_id}").json()["status"] == "busy"
    [done] = clients["alice"].post(path, json={"preview": False}).json()
    assert done["outcome"] == "repaired"
    assert clients["alice"].get(f"/threads/{thread_id}").json()["status"] == "idle"
    assert clients["alice"].get(f"/threads/{other}").json()["status"] == "busy"
    assert clients["alice"].post(path, json={}).json() == []
    clients["chief"].post(f"/threads/{other}/repair", json={"preview": False})
    assert clients["alice"].get(f"/threads/{other}").json()["status"] == "idle"
