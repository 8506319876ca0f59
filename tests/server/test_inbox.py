"""Open interrupts of all threads, and who has answered them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from auth_kit import bearer, guarded_server
from runlane.server.auth.keys import new_key
from server_kit import PATIENCE_S, NewDatabase, running_server

Clients = dict[str, httpx.Client]
SCOPES: dict[str, list[str]] = {
    "alice": [],
    "bob": [],
    "watcher": ["runs:read"],
    "reader": ["runs:read", "payload:read"],
    "approver": ["runs:answer", "payload:read"],
    "chief": ["admin"],
}


@pytest.fixture
def clients(new_database: NewDatabase, tmp_path: Path) -> Iterator[Clients]:
    """Give clients of one server: of two owners, and of operators who see payload or not."""
    keys = {name: new_key(name, tmp_path / "keys", scopes=scopes) for name, scopes in SCOPES.items()}
    with ExitStack() as stack:
        server = stack.enter_context(running_server(new_database(), api_keys=str(tmp_path / "keys")))
        yield {
            name: stack.enter_context(httpx.Client(base_url=server.url, headers={"x-api-key": key}, timeout=PATIENCE_S))
            for name, key in keys.items()
        }


def ask(client: httpx.Client, topic: str) -> str:
    """Return a thread whose graph asks about *topic*."""
    thread_id: str = client.post("/threads", json={}).json()["thread_id"]
    run = {"assistant_id": "approval", "input": {"topic": topic}}
    client.post(f"/threads/{thread_id}/runs/wait", json=run).raise_for_status()
    return thread_id


def search(client: httpx.Client, **body: Any) -> list[Any]:
    answer = client.post("/interrupts/search", json=body)
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()
    return found


def topics(found: list[Any]) -> list[str]:
    return [interrupt["value"]["topic"] for thread in found for interrupt in thread["interrupts"]]


def test_open_interrupts_are_found_those_that_have_waited_the_longest_first(clients: Clients) -> None:
    asked = [ask(clients[name], topic) for name, topic in (("alice", "a"), ("bob", "b"), ("alice", "c"))]
    clients["alice"].post(f"/threads/{asked[0]}/runs", json={"assistant_id": "approval", "after_seconds": 86_400})
    assert topics(search(clients["alice"])) == ["c"], "of a busy thread nothing can be answered"
    asked.append(ask(clients["alice"], "d"))
    clients["alice"].patch(f"/threads/{asked[2]}", json={"metadata": {"note": "x"}})
    assert topics(search(clients["alice"])) == ["c", "d"], "a change of metadata moves nothing"
    assert topics(search(clients["reader"])) == ["b", "c", "d"]
    assert topics(search(clients["reader"], owner="bob")) == ["b"]
    assert search(clients["alice"], owner="bob") == search(clients["alice"], thread_id=asked[1]) == []
    [found] = search(clients["bob"])
    run_id = clients["bob"].get(f"/threads/{asked[1]}/runs").json()[0]["run_id"]
    assert (found["thread_id"], found["run_id"], found["graph_id"]) == (asked[1], run_id, "approval")
    state = clients["bob"].get(f"/threads/{asked[1]}/state").json()
    [interrupt] = found["interrupts"]
    assert interrupt["task_id"] == state["tasks"][0]["id"]
    assert interrupt["id"] == state["tasks"][0]["interrupts"][0]["id"]


def test_open_interrupts_come_in_pages(clients: Clients) -> None:
    for number in range(5):
        ask(clients["alice"], str(number))
    seen, after = list[str](), {}
    while len(seen) < 10:
        page = clients["alice"].post("/interrupts/search", json={"limit": 2, **after})
        seen += topics(page.json())
        if "x-pagination-next" not in page.headers:
            break
        after = {"after": page.headers["x-pagination-next"]}
    assert seen == ["0", "1", "2", "3", "4"]
    assert clients["alice"].post("/interrupts/search", json={"after": "x"}).status_code == 422


def test_who_has_answered_is_told(clients: Clients) -> None:
    threads = [ask(clients[name], name) for name in ("alice", "bob", "alice")]
    interrupt_id = search(clients["alice"])[0]["interrupts"][0]["id"]
    run = {"assistant_id": "approval", "command": {"resume": {interrupt_id: "yes"}}}
    clients["alice"].post(f"/threads/{threads[0]}/runs/wait", json=run).raise_for_status()
    run = {"assistant_id": "approval", "command": {"resume": "yes"}}
    clients["bob"].post(f"/threads/{threads[1]}/runs/wait", json=run).raise_for_status()
    assert [one["thread_id"] for one in search(clients["reader"])] == [threads[2]]
    told = clients["watcher"].post("/interrupts/answered", json={}).json()
    shown = [(one["thread_id"], one["answered_by"], one["interrupt_ids"], one["status"]) for one in told]
    assert shown == [(threads[1], "bob", [], "success"), (threads[0], "alice", [interrupt_id], "success")]
    [mine] = clients["alice"].post("/interrupts/answered", json={"thread_id": threads[0]}).json()
    assert mine["run_id"] == clients["alice"].get(f"/threads/{threads[0]}/runs").json()[0]["run_id"]
    for body in ({"thread_id": threads[1]}, {"owner": "bob"}):
        assert clients["alice"].post("/interrupts/answered", json=body).json() == []


def test_what_is_asked_is_payload(clients: Clients) -> None:
    ask(clients["alice"], "canary")
    answer = clients["watcher"].post("/interrupts/search", json={})
    assert "canary" not in answer.text
    assert [thread["interrupts"][0]["value"] for thread in answer.json()] == [{}]


def test_the_applications_own_authorisation_says_which_interrupts_are_seen(tmp_path: Path) -> None:
    with guarded_server(tmp_path, "stamping") as server, ExitStack() as stack:
        ann, ben = (
            stack.enter_context(httpx.Client(base_url=server.url, headers=bearer(name), timeout=PATIENCE_S))
            for name in ("ann", "ben")
        )
        thread_id = ask(ann, "of ann")
        ask(ben, "of ben")
        assert topics(search(ann)) == ["of ann"]
        assert topics(search(ben)) == ["of ben"]
        run = {"assistant_id": "approval", "command": {"resume": "yes"}}
        ann.post(f"/threads/{thread_id}/runs/wait", json=run).raise_for_status()
        answered = [client.post("/interrupts/answered", json={}).json() for client in (ann, ben)]
        assert [[one["thread_id"] for one in found] for found in answered] == [[thread_id], []]


def answer(client: httpx.Client, thread_id: str, interrupt_id: str, value: Any, **headers: str) -> httpx.Response:
    body = {"answers": {interrupt_id: value}}
    return client.post(f"/threads/{thread_id}/interrupts/answer", json=body, headers=headers)


def asked_id(client: httpx.Client, thread_id: str) -> str:
    [thread] = search(client, thread_id=thread_id)
    interrupt_id: str = thread["interrupts"][0]["id"]
    return interrupt_id


def test_an_operator_answers_for_the_owner_once_and_the_audit_has_it(clients: Clients) -> None:
    alice, approver = clients["alice"], clients["approver"]
    thread_id: str = alice.post("/threads", json={}).json()["thread_id"]
    run = {
        "assistant_id": "approval",
        "input": {"topic": "x"},
        "metadata": {"order": 7},
        "config": {"recursion_limit": 9},
    }
    alice.post(f"/threads/{thread_id}/runs/wait", json=run).raise_for_status()
    interrupt_id = asked_id(alice, thread_id)
    for name, why in (("watcher", "runs:answer"), ("reader", "runs:answer"), ("chief", "payload:read")):
        refused = answer(clients[name], thread_id, interrupt_id, "yes")
        assert (refused.status_code, why in refused.text) == (403, True), (name, refused.text)
    taken = answer(approver, thread_id, interrupt_id, "yes", **{"idempotency-key": "k"})
    assert taken.status_code == 200, taken.text
    again = answer(approver, thread_id, interrupt_id, "yes", **{"idempotency-key": "k"})
    assert again.json()["run_id"] == taken.json()["run_id"]
    late = answer(clients["alice"], thread_id, interrupt_id, "no")
    assert (late.status_code, late.json()["code"]) == (409, "no_such_interrupt")
    assert taken.json()["run_id"] in late.text
    alice.get(f"/threads/{thread_id}/runs/{taken.json()['run_id']}/join")
    theirs = alice.get(f"/threads/{thread_id}/runs/{taken.json()['run_id']}").json()
    assert (theirs["status"], theirs["metadata"]["order"]) == ("success", 7)
    assert theirs["kwargs"]["config"]["recursion_limit"] == 9
    told = alice.post("/interrupts/answered", json={}).json()
    assert [(one["run_id"], one["answered_by"]) for one in told] == [(theirs["run_id"], "approver")]
    explained = alice.get(f"/runs/{theirs['run_id']}/explain").json()
    assert explained["steps"][0]["sentence"].startswith("Operator 'approver' started it for owner 'alice'")
    acts = clients["chief"].get("/audit", params={"action": "answer"}).json()
    assert {(act["actor"], act["subject"]["interrupt_ids"][0]) for act in acts} == {("approver", interrupt_id)}
    assert {act["subject"]["thread_id"] for act in acts} == {thread_id}


def test_owners_answer_their_own_questions_only(clients: Clients) -> None:
    thread_id = ask(clients["alice"], "a")
    [first] = clients["alice"].get(f"/threads/{thread_id}/runs").json()
    retry = clients["alice"].post(f"/runs/{first['run_id']}/retry", json={"from_start": True}).json()
    clients["alice"].get(f"/threads/{thread_id}/runs/{retry['run_id']}/join")
    interrupt_id = asked_id(clients["alice"], thread_id)
    assert answer(clients["bob"], thread_id, interrupt_id, "yes").status_code == 404
    assert answer(clients["alice"], thread_id, "0" * 32, "yes").status_code == 409
    for answers in ({}, {"0" * 65: "yes"}):
        told = clients["alice"].post(f"/threads/{thread_id}/interrupts/answer", json={"answers": answers})
        assert told.status_code == 422, "ids go to the audit"
    assert topics(search(clients["alice"])) == ["a"], "nothing was answered"
    run = answer(clients["alice"], thread_id, interrupt_id, "yes").json()
    assert ("retry_of" in retry["metadata"], "retry_of" in run["metadata"]) == (True, False)
    assert clients["alice"].get(f"/threads/{thread_id}/runs/{run['run_id']}/join").status_code == 200
    [told] = clients["alice"].post("/interrupts/answered", json={}).json()
    assert told["answered_by"] == "alice"


def test_where_nothing_has_run_nothing_is_answered(clients: Clients) -> None:
    thread_id = clients["alice"].post("/threads", json={}).json()["thread_id"]
    assert answer(clients["alice"], thread_id, "0" * 32, "yes").status_code == 409


@pytest.mark.parametrize("route", ["interrupts/answer", "commands"])
def test_an_answer_sends_no_value_that_stands_for_a_secret(clients: Clients, route: str) -> None:
    alice = clients["alice"]
    thread_id = alice.post("/threads", json={}).json()["thread_id"]
    given = {"configurable": {"api_key": "sk-1", "tone": "warm"}}
    run = {"assistant_id": "approval", "input": {"topic": "x"}, "config": given}
    alice.post(f"/threads/{thread_id}/runs/wait", json=run).raise_for_status()
    interrupt_id = asked_id(alice, thread_id)
    command = {"id": 1, "method": "input.respond", "params": {"interrupt_id": interrupt_id, "response": "yes"}}
    body = {"answers": {interrupt_id: "yes"}} if route == "interrupts/answer" else command
    alice.post(f"/threads/{thread_id}/{route}", json=body).raise_for_status()
    newest = alice.get(f"/threads/{thread_id}/runs").json()[0]
    configurable = newest["kwargs"]["config"]["configurable"]
    assert ("api_key" in configurable, configurable["tone"]) == (False, "warm")
