"""The official client without a URL, in a graph: it reaches the server that runs the graph, in the name of its user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
from langgraph_sdk import get_client

from auth_kit import bearer
from server_kit import PATIENCE_S, PROJECT, NewDatabase, Server, running_server, sdk

CALLING = PROJECT.parent.parent / "calling_project" / "langgraph.json"


def guarded(folder: Path) -> Path:
    graphs = {name: f"{CALLING.parent}/calling.py:{name}" for name in ("calling", "inner")}
    path = folder / "langgraph.json"
    path.write_text(json.dumps({"graphs": graphs, "auth": {"path": f"{PROJECT.parent}/auth.py:plain"}}))
    return path


def login(server: Server, name: str) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers=bearer(name), timeout=PATIENCE_S)


async def test_a_graph_starts_runs_waits_for_them_and_reads_their_streams(new_database: NewDatabase) -> None:
    with running_server(new_database(), CALLING) as server:
        async with sdk(server) as client:
            result: Any = await client.runs.wait(None, "calling", input={})
            assert (result["doubled"], result["seen"]) == (4, 1)
            assert result["told"] == ["metadata", "values", "values", "end"]
            runs = await client.runs.list(result["thread_id"])
            assert [run["status"] for run in runs] == ["success", "success"]


def test_what_a_graph_makes_is_its_users_and_it_sees_what_they_see(tmp_path: Path, new_database: NewDatabase) -> None:
    with (
        running_server(new_database(), guarded(tmp_path)) as server,
        login(server, "ann") as ann,
        login(server, "bob") as bob,
    ):
        mine = ann.post("/runs/wait", json={"assistant_id": "calling", "input": {}}).json()
        theirs = bob.post("/runs/wait", json={"assistant_id": "calling", "input": {}}).json()
        assert (mine["seen"], theirs["seen"]) == (1, 1)
        assert ann.get(f"/threads/{mine['thread_id']}").status_code == 200
        assert bob.get(f"/threads/{mine['thread_id']}").status_code == 404


async def test_outside_of_a_run_a_client_without_a_url_is_authenticated_like_any_other(
    tmp_path: Path, new_database: NewDatabase
) -> None:
    with running_server(new_database(), guarded(tmp_path)):
        unknown, ann = get_client(api_key=None), get_client(api_key=None, headers=bearer("ann"))
        assert (await unknown.http.client.post("/threads", json={})).status_code == 401
        assert (await ann.http.client.post("/threads", json={})).status_code == 200
