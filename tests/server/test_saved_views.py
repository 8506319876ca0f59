"""Saved views over HTTP: of owners, of operators, and with a project's own authentication."""

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

QUERY = {"query": "status=error&since=1d"}


@pytest.fixture(scope="module")
def clients(new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, httpx.Client]]:
    """Give clients of one server: of owners, and of operators."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    keys = {name: new_key(name, file) for name in ("alice", "bob")}
    keys |= {name: new_key(name, file, scopes=["runs:read"]) for name in ("ann", "ben")}
    keys["chief"] = new_key("chief", file, scopes=["admin", "payload:read"])
    with ExitStack() as stack:
        server = stack.enter_context(running_server(new_database(), api_keys=str(file)))
        yield {
            name: stack.enter_context(httpx.Client(base_url=server.url, headers={"x-api-key": key}, timeout=PATIENCE_S))
            for name, key in keys.items()
        }


def seen(client: httpx.Client) -> list[tuple[str, str, bool]]:
    answer = client.get("/views")
    assert answer.status_code == 200, answer.text
    return [(view["owner"], view["name"], view["shared"]) for view in answer.json()]


def test_views_are_ones_own_and_shared_among_operators(clients: dict[str, httpx.Client]) -> None:
    for name in ("alice", "ann"):
        assert clients[name].put("/views/runs/mine", json=QUERY).status_code == 200
    made = clients["ann"].put("/views/runs/Failed%20today", json={**QUERY, "shared": True})
    assert (made.status_code, made.json()["query"], made.json()["revision"]) == (200, QUERY["query"], 1)
    assert seen(clients["ann"]) == [("ann", "Failed today", True), ("ann", "mine", False)]
    assert seen(clients["ben"]) == [("ann", "Failed today", True)]
    assert seen(clients["alice"]) == [("alice", "mine", False)]
    assert seen(clients["bob"]) == []
    assert clients["bob"].delete("/views/runs/mine").status_code == 404
    assert clients["ben"].delete("/views/runs/Failed%20today").status_code == 404
    assert clients["alice"].put("/views/runs/ours", json={**QUERY, "shared": True}).status_code == 422
    acts = clients["chief"].get("/audit", params={"actor": "ann"}).json()
    assert [(act["action"], act["subject"]) for act in acts] == [
        ("view.save", {"page": "runs", "name": "Failed today"}),
        ("view.save", {"page": "runs", "name": "mine"}),
    ]
    assert clients["ann"].delete("/views/runs/Failed%20today").status_code == 204
    assert seen(clients["ben"]) == []
    clients["chief"].get("/views")
    assert clients["chief"].get("/audit", params={"actor": "chief"}).json() == [], "looking at views is not recorded"


@pytest.mark.parametrize("address", ["errors%2F24h", "errors/24h"])
def test_a_name_may_have_slashes_inside(clients: dict[str, httpx.Client], address: str) -> None:
    saved = clients["bob"].put(f"/views/runs/{address}", json=QUERY)
    assert (saved.status_code, saved.json()["name"]) == (200, "errors/24h")
    assert seen(clients["bob"]) == [("bob", "errors/24h", False)]
    assert clients["bob"].delete(f"/views/runs/{address}").status_code == 204
    assert seen(clients["bob"]) == []


def test_a_view_that_was_changed_meanwhile_is_told(clients: dict[str, httpx.Client]) -> None:
    path = "/views/threads/busy"
    assert clients["ben"].put(path, json=QUERY).json()["revision"] == 1
    assert clients["ben"].put(path, json={"query": "status=busy", "revision": 1}).json()["revision"] == 2
    told = clients["ben"].put(path, json={"query": "status=idle", "revision": 1})
    assert (told.status_code, told.json()["code"], "revision 2" in told.json()["detail"]) == (409, "view_changed", True)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/views/Runs/x", QUERY),
        ("/views/runs/%20", QUERY),
        ("/views/runs/" + "x" * 129, QUERY),
        ("/views/runs/a%0Ab", QUERY),
        ("/views/runs/a%2F", QUERY),
        ("/views/runs/x", {"query": "x" * 4097}),
        ("/views/runs/x", {}),
    ],
)
def test_what_is_no_view_is_refused(clients: dict[str, httpx.Client], path: str, body: Any) -> None:
    assert clients["bob"].put(path, json=body).status_code == 422


def test_a_projects_handlers_are_not_asked_about_views(tmp_path: Path) -> None:
    with guarded_server(tmp_path, "stamping") as server, ExitStack() as stack:
        ann, eve = (
            stack.enter_context(httpx.Client(base_url=server.url, headers=bearer(name), timeout=PATIENCE_S))
            for name in ("ann", "eve")
        )
        assert ann.put("/views/runs/mine", json=QUERY).status_code == 200
        assert seen(ann) == [("ann", "mine", False)]
        assert seen(eve) == []
