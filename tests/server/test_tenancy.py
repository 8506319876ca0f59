"""Promise 10: another tenant's id is not found on any route, in any way to authenticate.

The routes and the bodies of those whose path has an id are the server's own declarations. One without an id fails here
until ``foreign`` says what another tenant may ask of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from auth_kit import bearer, guarded_server, keyed_server
from runlane.server.api import PUBLIC
from server_kit import PATIENCE_S, Server
from tenancy_kit import RUN, Belongings, addressed, ask, belongings, body_of, foreign, path_of, routes

USERS = ("alice", "bob", "carol", "mallory")
Login = Callable[[str], httpx.Client]


@pytest.fixture(scope="module", params=["keys", "plain", "stamping"])
def tenants(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Login]]:
    """Give a server with each way to authenticate, and clients of its users."""
    folder = tmp_path_factory.mktemp(request.param)
    # Otherwise owners may not read what their runs logged.
    with ExitStack() as stack:
        if request.param == "keys":
            server, keys = stack.enter_context(keyed_server(folder, *USERS, mask_errors=False))
            headers = {name: {"x-api-key": keys[name]} for name in USERS}
        else:
            server = stack.enter_context(guarded_server(folder, request.param, mask_errors=False))
            headers = {name: bearer(name) for name in USERS}
        clients = {name: httpx.Client(base_url=server.url, headers=headers[name], timeout=PATIENCE_S) for name in USERS}
        for client in clients.values():
            stack.enter_context(client)
        yield server, clients.__getitem__


@pytest.fixture(scope="module")
def alice(tenants: tuple[Server, Login]) -> Belongings:
    return belongings(tenants[1]("alice"), "alice")


def test_every_route_is_asked() -> None:
    nobody = Belongings(**dict.fromkeys(Belongings.__dataclass_fields__, ""))
    assert routes().keys() == addressed().keys() | foreign(nobody).keys()


def test_every_route_whose_path_has_an_id_and_that_takes_a_body_declares_an_example() -> None:
    reads = {name for name, route in addressed().items() if route.arguments.body or route.reads}
    assert {name for name in reads if addressed()[name].example is None} == set()


def test_only_these_routes_need_no_authentication() -> None:
    asked_by_all = {"/", "/ok", "/info", "/metrics", "/docs", "/openapi.json"}
    assert asked_by_all == {path for path in PUBLIC if not path.startswith("/console")}, (
        "the console's files are public"
    )


def test_no_route_answers_without_authentication(tenants: tuple[Server, Login], alice: Belongings) -> None:
    server, _ = tenants
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as nobody:
        answered = {name: _status(server, nobody, name, alice) for name in routes()}
    assert {name: status for name, status in answered.items() if status != 401} == {}


def test_the_owner_is_answered_on_every_route(tenants: tuple[Server, Login]) -> None:
    """Otherwise what follows proves nothing."""
    server, login = tenants
    carol = login("carol")
    has = belongings(carol, "carol")
    names = sorted(addressed(), key=lambda name: (name.startswith("DELETE"), -len(name)))  # what is inside goes first
    answered = {name: _status(server, carol, name, has) for name in names}
    found = {*range(200, 300), 409}  # its thread may be busy by then
    assert {name: status for name, status in answered.items() if status not in found} == {}


def test_another_tenants_ids_are_not_found_and_nothing_of_theirs_changes(
    tenants: tuple[Server, Login], alice: Belongings
) -> None:
    server, login = tenants
    before = _seen(login("alice"), alice)
    assert alice.run_id in str(before)
    mallory = login("mallory")
    answered = {name: _status(server, mallory, name, alice) for name in addressed()}
    assert {name: status for name, status in answered.items() if status != 404} == {}
    for name, requests in foreign(alice).items():
        method, _, path = name.partition(" ")
        for body, fits in requests:
            answer = ask(mallory, method, path, body)
            assert fits(answer), (name, body, answer.status_code, answer.text)
    assert _seen(login("alice"), alice) == before


def test_an_id_of_ones_own_does_not_open_another_tenants(tenants: tuple[Server, Login], alice: Belongings) -> None:
    server, login = tenants
    bob = login("bob")
    own = belongings(bob, "bob")
    before = _seen(login("alice"), alice)
    mixed = [replace(own, run_id=alice.run_id, waiting_run_id=alice.waiting_run_id)]
    mixed += [replace(own, thread_id=alice.thread_id, waiting_thread_id=alice.waiting_thread_id)]
    for has in mixed:
        both = [name for name in addressed() if "{thread_id}" in name and "{run_id}" in name]
        answered = {name: _status(server, bob, name, has) for name in both}
        assert {name: status for name, status in answered.items() if status != 404} == {}
    elsewhere = {"checkpoint": {"thread_id": alice.thread_id, "checkpoint_id": alice.checkpoint_id}}
    for path in ("state/checkpoint", "history", "state", "runs/wait"):
        answer = bob.post(f"/threads/{own.thread_id}/{path}", json={**elsewhere, "values": None} | _run_of(path))
        assert "alice" not in answer.text
        assert answer.status_code != 500
    assert bob.post(f"/threads/{own.thread_id}/runs", json={"assistant_id": alice.assistant_id}).status_code == 404
    assert _seen(login("alice"), alice) == before


def _run_of(path: str) -> dict[str, Any]:
    return {"assistant_id": "steps", "input": None} if path.startswith("runs") else {}


def _status(server: Server, client: httpx.Client, name: str, has: Belongings) -> int:
    """Return the status with which a route answers when it is asked for what *has* names."""
    if name not in addressed():
        method, _, path = name.partition(" ")
        return ask(client, method, path, foreign(has)[name][0][0]).status_code
    method, path = path_of(name, has)
    if method == "WS":
        return _subscribed(server, client, path)
    answer = ask(client, method, path, body_of(addressed()[name], has))
    if name == "POST /a2a/{assistant_id}":  # errors of JSON-RPC are in the answer, whose status is 200
        error = answer.json().get("error", {}) if answer.status_code == 200 else {}
        return 404 if error.get("code") == -32602 and "not found" in error["message"] else answer.status_code
    return answer.status_code


def _subscribed(server: Server, client: httpx.Client, path: str) -> int:
    headers = {name: value for name, value in client.headers.items() if name in ("authorization", "x-api-key")}
    subscribe = {"id": 1, "method": "subscription.subscribe", "params": {"channels": ["values"]}}
    try:
        with connect(server.url.replace("http", "ws") + path, additional_headers=headers) as socket:
            socket.send(json.dumps(subscribe))
            if json.loads(socket.recv(PATIENCE_S))["type"] == "success":
                return 200
            socket.recv(PATIENCE_S)
    except InvalidStatus as refused:
        return refused.response.status_code
    except ConnectionClosed as closed:
        return 0 if closed.rcvd is None else closed.rcvd.code - 4000
    return 0


def _seen(client: httpx.Client, has: Belongings) -> dict[str, Any]:
    """Return all that a tenant can read of what they have."""
    paths = [
        path_of(name, has) for name in addressed() if name.startswith("GET") and "/webhooks" not in name
    ]  # tried again
    seen = {
        path: re.sub(r',"as_of":"[^"]+"', "", ask(client, "GET", path).text)
        for _, path in paths
        if not path.endswith("/stream")
    }
    for path, body in (
        ("/threads/search", {"limit": 100}),
        ("/assistants/search", {"limit": 100}),
        ("/runs/crons/search", {}),
        ("/store/items/search", {"namespace_prefix": []}),
        (f"/threads/{has.thread_id}/history", {"limit": 100}),
        (f"/assistants/{has.assistant_id}/versions", {}),
    ):
        seen[path] = re.sub(r',"now":"[^"]+"', "", ask(client, "POST", path, body).text)
    for path in (f"/threads/{has.waiting_thread_id}", f"/threads/{has.waiting_thread_id}/runs"):
        seen[path] = ask(client, "GET", path).text
    return seen


def test_who_waits_for_a_thread_that_another_tenant_creates_sees_nothing_of_it(tenants: tuple[Server, Login]) -> None:
    alice, mallory = tenants[1]("alice"), tenants[1]("mallory")
    path = f"/threads/{uuid4()}"
    with mallory.stream("POST", f"{path}/stream/events", json={"channels": ["values", "lifecycle"]}) as waiting:
        assert waiting.status_code == 200
        assert alice.post(f"{path}/runs/wait", json={**RUN, "if_not_exists": "create"}).status_code == 200
        told = [line for line in waiting.iter_lines() if line[:1] not in ("", ":")]
    assert told[0] == "event: error"
    assert "no_such_thread" in told[1]
    assert len(told) == 2


def test_a_reader_sees_nothing_of_a_thread_that_another_tenant_created_in_place_of_theirs(
    tenants: tuple[Server, Login],
) -> None:
    alice, mallory = tenants[1]("alice"), tenants[1]("mallory")
    made = {"thread_id": str(uuid4())}
    path = f"/threads/{made['thread_id']}"
    for method, route, body in (
        ("POST", f"{path}/stream/events", {"channels": ["values", "lifecycle"]}),
        ("GET", f"{path}/stream", None),
    ):
        mallory.post("/threads", json=made).raise_for_status()
        with mallory.stream(method, route, json=body) as reading:
            assert mallory.delete(path).status_code == 204
            run = {**RUN, "if_not_exists": "create"}
            assert alice.post(f"{path}/runs/wait", json=run).status_code == 200
            told = [line for line in reading.iter_lines() if line.startswith("event:")]
        assert set(told) <= {"event: error"}
        assert alice.delete(path).status_code == 204
