"""Operators over HTTP: what they see, what they may do, and that it is recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from auth_kit import Clients, guarded_server, operated_server
from server_kit import LONG_S, PATIENCE_S, NewDatabase, Server
from tenancy_kit import Belongings, ask, belongings, body_of, foreign, path_of, routes

CANARY = "canary-5f0c9d1e"
STEP = {"assistant_id": "steps", "input": {"steps": 1}}
SLOW = {"assistant_id": "steps", "input": {"steps": 2, "delay_s": LONG_S}}
#: Scopes of the tests' operators, by their names.
OPERATORS = {
    "watcher": ["runs:read"],
    "stopper": ["runs:read", "runs:cancel"],
    "reader": ["runs:read", "payload:read"],
    "chief": ["admin"],
}


@pytest.fixture(scope="module")
def clients(new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """Give clients of one server: of an owner, and of operators with their scopes."""
    with operated_server(new_database(), tmp_path_factory.mktemp("keys"), OPERATORS) as served:
        yield served


@pytest.fixture(scope="module")
def alice(clients: Clients) -> Belongings:
    """Give what an owner has, with a canary in whatever is payload."""
    has = belongings(clients["alice"], "nothing")
    note = {"note": CANARY}
    asked = {**STEP, "input": {"steps": 1, **note}, "metadata": note, "webhook": f"https://hooks.invalid/{CANARY}"}
    for path, body in (
        (f"/threads/{has.thread_id}", {"metadata": note}),
        (f"/assistants/{has.assistant_id}", {"metadata": note, "context": note, "description": CANARY}),
    ):
        assert clients["alice"].patch(path, json=body).status_code == 200
    for path, body in (
        (f"/threads/{has.thread_id}/runs/wait", {**asked, "config": {"tags": [CANARY]}, "context": note}),
        (f"/threads/{has.waiting_thread_id}/runs", asked),
        (f"/threads/{has.thread_id}/runs/crons", {**asked, "schedule": "0 0 1 1 *"}),
        (f"/threads/{has.thread_id}/state", {"values": {"done": [CANARY]}, "as_node": "step"}),
    ):
        answer = clients["alice"].post(path, json=body)
        assert answer.status_code == 200, (path, answer.text)
    item = {"namespace": ["notes"], "key": "canary", "value": note}
    assert clients["alice"].put("/store/items", json=item).status_code == 204
    run = clients["alice"].get(f"/threads/{has.thread_id}/runs").json()[0]
    return replace(has, run_id=run["run_id"])


def asked(client: httpx.Client, name: str, has: Belongings) -> httpx.Response:
    route = routes()[name]
    if not route.parameters:
        method, _, path = name.partition(" ")
        return ask(client, method, path, foreign(has).get(name, [({}, None)])[0][0])
    method, path = path_of(name, has)
    return ask(client, method, path, body_of(route, has))


def _text(answer: httpx.Response) -> str:
    """Return the body; that of a stream is not read, as it may not end."""
    return "" if "event-stream" in answer.headers.get("content-type", "") else answer.text


def names() -> list[str]:
    """Return the routes, those that delete last."""
    found = [name for name in routes() if not name.startswith("WS ")]
    return sorted(found, key=lambda name: name.startswith("DELETE") or "prune" in name)


def test_an_operator_who_may_not_see_payload_is_sent_none_of_it(clients: Clients, alice: Belongings) -> None:
    shown = [
        name for name in names() if name.startswith("GET") and CANARY in _text(asked(clients["reader"], name, alice))
    ]
    assert len(shown) >= 8, f"the canary is in payload: {shown}"
    for name in names():
        if routes()[name].hides_payload:  # by itself: test_watch
            continue
        answer = asked(clients["chief"], name, alice)
        assert CANARY not in _text(answer) + str(answer.headers), name
        assert "event-stream" not in answer.headers.get("content-type", ""), name
        assert answer.status_code < 500, (name, answer.text)


def test_a_socket_is_for_operators_who_may_see_payload(clients: Clients, alice: Belongings) -> None:
    _, path = path_of("WS /threads/{thread_id}/stream/events", alice)
    subscribe = json.dumps({"id": 1, "method": "subscription.subscribe", "params": {"channels": ["values"]}})

    def open_as(name: str) -> ClientConnection:
        url = str(clients[name].base_url).rstrip("/").replace("http", "ws") + path
        return connect(url, additional_headers={"x-api-key": clients[name].headers["x-api-key"]})

    with open_as("reader") as socket:
        socket.send(subscribe)
        assert json.loads(socket.recv(PATIENCE_S))["type"] == "success"
    with open_as("watcher") as socket, pytest.raises(ConnectionClosed) as closed:
        socket.recv(PATIENCE_S)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4403


def test_each_act_needs_its_scope(clients: Clients) -> None:
    thread_id = clients["alice"].post("/threads", json={}).json()["thread_id"]
    run_id = clients["alice"].post(f"/threads/{thread_id}/runs", json=SLOW).json()["run_id"]
    path = f"/threads/{thread_id}/runs/{run_id}"
    assert clients["watcher"].get(path).json()["run_id"] == run_id
    for name in ("watcher", "reader"):
        refused = clients[name].post(f"{path}/cancel")
        assert (refused.status_code, "runs:cancel" in refused.text) == (403, True)
        joined = clients[name].get(f"{path}/join", params={"cancel_on_disconnect": "true"})
        assert joined.status_code == 403
    for name in OPERATORS:
        assert clients[name].post(f"/threads/{thread_id}/runs", json=STEP).status_code == 403
        assert clients[name].post(f"/threads/{thread_id}/state", json={"values": {}}).status_code == 403
    assert clients["stopper"].delete(f"/threads/{thread_id}").status_code == 403
    assert clients["stopper"].post(f"{path}/cancel", params={"wait": "true"}).status_code == 200
    told = clients["alice"].get(f"{path}/explain").json()
    assert told["sentence"].startswith("Operator 'stopper' cancelled it.")
    assert clients["chief"].delete(f"/threads/{thread_id}").status_code == 204
    assert clients["alice"].get(f"/threads/{thread_id}").status_code == 404


def test_acts_of_operators_are_recorded_with_their_result(clients: Clients) -> None:
    thread_id = clients["alice"].post("/threads", json={}).json()["thread_id"]
    run_id = clients["alice"].post(f"/threads/{thread_id}/runs", json=SLOW).json()["run_id"]
    path = f"/threads/{thread_id}/runs/{run_id}"
    clients["stopper"].post(
        f"{path}/cancel", params={"wait": "true", "action": "rollback"}, headers={"x-request-id": "night-1"}
    )
    clients["reader"].get(f"/threads/{thread_id}")
    clients["reader"].get(f"/threads/{thread_id}/state", headers={"Runlane-Payload": "omit"})
    clients["watcher"].get(f"/threads/{thread_id}")
    clients["chief"].delete(f"/threads/{thread_id}")
    acts = clients["chief"].get("/audit").json()
    mine = [act for act in acts if act["subject"].get("thread_id") == thread_id]
    told = [(act["actor"], act["action"], act["status"]) for act in mine]
    assert told == [("chief", "delete", 204), ("reader", "payload.read", 200), ("stopper", "rollback", 200)]
    assert mine[2]["subject"]["run_id"] == run_id
    assert mine[2]["request_id"] == "night-1"
    assert mine[2]["route"] == "POST /threads/{thread_id}/runs/{run_id}/cancel"
    assert mine[2]["address"]
    page = clients["chief"].get("/audit", params={"limit": 1})
    following = clients["chief"].get("/audit", params={"limit": 1, "before": page.headers["x-pagination-next"]})
    assert [*page.json(), *following.json()] == acts[:2]
    assert {act["actor"] for act in clients["chief"].get("/audit", params={"actor": "reader"}).json()} == {"reader"}


def test_an_operator_runs_a_cron_for_its_owner(clients: Clients) -> None:
    made = clients["alice"].post("/runs/crons", json={**STEP, "schedule": "0 0 1 1 *", "on_run_completed": "keep"})
    path = f"/runs/crons/{made.json()['cron_id']}/run"
    for name in ("watcher", "stopper", "reader"):
        refused = clients[name].post(path)
        assert (refused.status_code, "runs:retry" in refused.text) == (403, True)
    run = clients["chief"].post(path).json()
    assert run["kwargs"]["input"] == {}
    theirs = clients["alice"].get(f"/threads/{run['thread_id']}/runs/{run['run_id']}").json()
    assert theirs["kwargs"]["input"] == {"steps": 1}
    act = clients["chief"].get("/audit", params={"action": "run"}).json()[0]
    assert (act["actor"], act["status"], act["subject"]) == ("chief", 200, {"cron_id": made.json()["cron_id"]})


def test_an_operator_pauses_and_resumes_a_cron_and_changes_nothing_else(clients: Clients) -> None:
    made = clients["alice"].post("/runs/crons", json={**STEP, "schedule": "0 0 1 1 *"})
    path = f"/runs/crons/{made.json()['cron_id']}"
    for name in ("watcher", "stopper", "reader"):
        refused = clients[name].patch(path, json={"enabled": False})
        assert (refused.status_code, "runs:retry" in refused.text) == (403, True)
    assert clients["chief"].patch(path, json={"enabled": False, "input": {}}).status_code == 403
    for enabled in (False, True):
        assert clients["chief"].patch(path, json={"enabled": enabled}).json()["enabled"] is enabled
        assert clients["alice"].get(path).json()["enabled"] is enabled
    acts = [
        act for act in clients["chief"].get("/audit").json() if act["subject"].get("cron_id") == made.json()["cron_id"]
    ]
    assert [(act["actor"], act["action"]) for act in acts[:2]] == [("chief", "resume"), ("chief", "pause")]
    assert clients["alice"].get(path).json()["user_id"] == "alice"


def test_everyone_is_told_who_they_are_and_what_they_may_do(clients: Clients, server: Server) -> None:
    told = {name: client.get("/me").json() for name, client in clients.items()}
    assert {name: (one["identity"], one["owner"], one["operator"]) for name, one in told.items()} == {
        name: (name, "alice", False) if name == "alice" else (name, None, True) for name in told
    }
    assert {name for name, one in told.items() if one["sees_payload"]} == {"alice", "reader"}
    assert {name for name, one in told.items() if not one["sees_logs"]} == {"alice"}, "errors are masked"
    assert {name for name, one in told.items() if "threads.cancel" in one["may"]} == {"alice", "stopper", "chief"}
    assert {name for name, one in told.items() if "crons.run" in one["may"]} == {"alice", "chief"}
    assert {name for name, one in told.items() if "crons.pause" in one["may"]} == {"alice", "chief"}
    assert {name for name, one in told.items() if "threads.answer" in one["may"]} == {"alice"}
    assert {name for name, one in told.items() if "audit.read" in one["may"]} == {"chief"}
    assert {name for name, one in told.items() if "threads.create_run" in one["may"]} == {"alice"}
    assert told["chief"]["scopes"] == ["admin", "runs:answer", "runs:cancel", "runs:read", "runs:retry"]
    everyone = httpx.get(f"{server.url}/me").json()
    assert (everyone["authentication"], everyone["identity"], everyone["sees_payload"]) == ("none", None, True)
    assert set(everyone["may"]) >= {action for one in told.values() for action in one["may"]}


def test_refusals_are_recorded_and_one_that_is_repeated_is_counted(clients: Clients) -> None:
    thread_id = clients["alice"].post("/threads", json={}).json()["thread_id"]
    for _ in range(5):
        assert clients["reader"].delete(f"/threads/{thread_id}").status_code == 403
    assert clients["alice"].get("/keys").status_code == 403
    refused = clients["chief"].get("/audit", params={"action": "refused"}).json()
    mine = [act for act in refused if act["route"] == "DELETE /threads/{thread_id}" and act["actor"] == "reader"]
    assert [(act["status"], act["subject"]["count"]) for act in mine] == [(403, "1")]
    assert mine[0]["subject"]["thread_id"] == thread_id
    assert not [act for act in refused if act["actor"] == "alice"], "owners are refused what is not theirs"


def test_only_an_administrator_reads_the_audit_and_the_keys(clients: Clients) -> None:
    for path in ("/audit", "/keys"):
        answered = {name: client.get(path).status_code for name, client in clients.items()}
        assert answered == {"alice": 403, "watcher": 403, "stopper": 403, "reader": 403, "chief": 200}
    keys = {key["identity"]: key for key in clients["chief"].get("/keys").json()}
    assert keys["stopper"]["scopes"] == ["runs:cancel", "runs:read"]
    assert all(key["last_used_at"] and key["created_at"] for key in keys.values())
    assert "hash" not in str(keys)


def test_operators_are_told_what_runs_took_and_how_they_failed(clients: Clients) -> None:
    thread_id = clients["alice"].post("/threads", json={}).json()["thread_id"]
    for fails in (1, 2):
        run = (
            clients["alice"]
            .post(f"/threads/{thread_id}/runs", json={"assistant_id": "failing", "input": {"n": fails}})
            .json()
        )
        clients["alice"].get(f"/threads/{thread_id}/runs/{run['run_id']}/join")
    operators = {"watcher": 200, "stopper": 200, "reader": 200, "chief": 200}
    for path, of_owner in (("/operator/overview", 403), ("/operator/failures", 403), ("/operator/totals", 200)):
        answered = {name: client.get(path).status_code for name, client in clients.items()}
        assert answered == {"alice": of_owner, **operators}
    [total] = clients["watcher"].get("/operator/totals", params={"owner": "alice", "daily": "true"}).json()
    assert total["runs"] >= total["failed"] >= 2
    assert total["cost"] is None
    assert sum(day["runs"] for day in total["days"].values()) == total["runs"]
    for params in ({"since": "2100-01-01T00:00:00Z"}, {"until": "2020-01-01T00:00:00+01:00"}, {"owner": "nobody"}):
        assert clients["watcher"].get("/operator/totals", params=params).json() == []
    groups = clients["reader"].get("/operator/failures", params={"graph": "failing"}).json()
    [group] = [group for group in groups if group["run_id"] == run["run_id"]]
    assert (group["runs"], group["thread_id"]) == (2, thread_id)
    assert group["message"]
    read = clients["chief"].get("/audit", params={"action": "payload.read"}).json()
    assert {act["actor"] for act in read if act["route"] == "GET /operator/failures"} == {"reader"}
    hidden = clients["watcher"].get("/operator/failures").json()
    assert {one["message"] for one in hidden} == {None}
    assert group["group_id"] in [one["group_id"] for one in hidden]
    overview = clients["watcher"].get("/operator/overview").json()
    assert ["error", "failed"] in [[one["status"], one["end_reason"]] for one in overview["endings"]]
    assert overview["attention"]["failed_threads"] >= 1
    for path, params, status in (
        ("failures", {"new_since_build": "no such"}, 404),
        ("failures", {"since": "yesterday"}, 422),
        ("totals", {"by": "status", "model": "m"}, 422),
    ):
        assert clients["watcher"].get(f"/operator/{path}", params=params).status_code == status


def test_an_owner_is_told_of_their_own_totals_only(clients: Clients) -> None:
    thread_id = clients["alice"].post("/threads", json={}).json()["thread_id"]
    clients["alice"].post(f"/threads/{thread_id}/runs/wait", json=STEP)
    [mine] = clients["alice"].get("/operator/totals").json()
    assert (mine["name"], mine["runs"] >= 1) == ("alice", True)
    assert clients["alice"].get("/operator/totals", params={"owner": "alice"}).json() == [mine]
    refused = clients["alice"].get("/operator/totals", params={"owner": "bob"})
    assert (refused.status_code, "runs:read" in refused.text) == (403, True)


def test_threads_of_one_owner_are_found_by_those_who_may_see_them(clients: Clients) -> None:
    thread_id = clients["alice"].post("/threads", json={}).json()["thread_id"]
    wanted = {"owner": "alice", "select": ["thread_id", "owner"], "limit": 1000}
    found = clients["watcher"].post("/threads/search", json=wanted).json()
    assert thread_id in {one["thread_id"] for one in found}
    assert {one["owner"] for one in found} == {"alice"}
    assert clients["watcher"].post("/threads/count", json={"owner": "alice"}).json() == len(found)
    assert clients["watcher"].post("/threads/search", json={"owner": "nobody"}).json() == []
    assert clients["alice"].post("/threads/search", json=wanted).json() == found


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/threads/search", {"values": {"done": [0]}}),
        ("/threads/search", {"metadata": {"note": CANARY}}),
        ("/threads/count", {"metadata": {"note": CANARY}}),
        ("/runs/search", {"text": CANARY}),
        ("/runs/search", {"metadata": {"note": CANARY}}),
    ],
)
def test_who_may_not_see_payload_cannot_search_by_it(clients: Clients, path: str, body: dict[str, Any]) -> None:
    assert clients["watcher"].post(path, json=body).status_code == 403
    assert clients["reader"].post(path, json=body).status_code == 200


def test_a_projects_own_authentication_makes_operators(tmp_path: Path) -> None:
    with guarded_server(tmp_path, "with_operators") as server:
        names = {name: {"Authorization": f"Bearer {name}"} for name in ("alice", "operator:runs:read", "runs:read")}
        with ExitStack() as stack:
            made = {
                name: stack.enter_context(httpx.Client(base_url=server.url, headers=headers, timeout=PATIENCE_S))
                for name, headers in names.items()
            }
            thread_id = made["alice"].post("/threads", json={}).json()["thread_id"]
            answered = {name: client.get(f"/threads/{thread_id}").status_code for name, client in made.items()}
            assert answered == {"alice": 200, "operator:runs:read": 200, "runs:read": 404}
