"""What operators see and steer of the server itself: workers, limits, settings, the doctor."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from auth_kit import Clients, operated_server
from server_kit import LONG_S, PATIENCE_S, NewDatabase

SLOW = {"assistant_id": "steps", "input": {"steps": 2, "delay_s": LONG_S}}
OPERATORS = {"watcher": ["runs:read"], "chief": ["admin"]}


@pytest.fixture(scope="module")
def clients(new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """Give clients of one server: of an owner, and of operators with their scopes."""
    with operated_server(new_database(), tmp_path_factory.mktemp("keys"), OPERATORS) as served:
        yield served


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_workers_are_shown_with_what_they_execute(clients: Clients) -> None:
    assert clients["alice"].get("/operator/workers").status_code == 403
    thread_id = clients["alice"].post("/threads", json={}).json()["thread_id"]
    path = f"/threads/{thread_id}/runs"
    with clients["alice"].stream("POST", f"{path}/stream", json=SLOW) as stream:
        next(stream.iter_lines())
        run_id = stream.headers["content-location"].rpartition("/")[2]
        shown = clients["watcher"].get("/operator/workers").json()
    [worker] = shown["workers"]
    assert worker["worker_id"] == shown["here"]
    assert worker["runs"] == [run_id]
    assert (worker["running"], worker["state"], worker["pid"]) == (1, "ready", os.getpid())
    assert 0 <= worker["renewed_s"] < PATIENCE_S
    assert abs((datetime.fromisoformat(worker["renewed_at"]) - datetime.now(UTC)).total_seconds()) < PATIENCE_S
    assert worker["version"] == clients["alice"].get("/info").json()["version"]
    assert [(one["workers"], one["running"], one["parked_threads"]) for one in shown["builds"]] == [(1, 1, 0)]
    assert shown["stranded"] == []
    clients["alice"].post(f"{path}/{run_id}/cancel", params={"wait": "true"})
    assert clients["watcher"].get("/operator/workers").json()["workers"][0]["runs"] == []


def test_limits_are_shown_with_their_use(clients: Clients) -> None:
    assert clients["alice"].get("/operator/limits").status_code == 403
    thread_id = clients["alice"].post("/threads", json={}).json()["thread_id"]
    path = f"/threads/{thread_id}/runs"
    with clients["alice"].stream("POST", f"{path}/stream", json=SLOW) as stream:
        next(stream.iter_lines())
        clients["alice"].post(path, json={**SLOW, "multitask_strategy": "enqueue"}).raise_for_status()
        limits = {one["setting"]: one for one in clients["watcher"].get("/operator/limits").json()["limits"]}
    assert (limits["max_concurrent_runs"]["use"], limits["max_concurrent_runs"]["limit"]) == (1, 1000)
    owners = limits["max_runs_per_owner"]
    assert (owners["limit"], owners["most"]) == (None, [{"name": "alice", "use": 1}])
    assert limits["max_runs_per_graph"]["most"] == [{"name": "steps", "use": 1}]
    assert limits["max_queued_runs"]["most"] == [{"name": thread_id, "use": 1}]
    assert (limits["max_body_bytes"]["unit"], limits["max_body_bytes"]["use"]) == ("bytes", None)
    clients["alice"].post("/runs/cancel", json={"thread_id": thread_id, "status": "all"})


def test_settings_are_shown_without_secrets(clients: Clients) -> None:
    assert clients["watcher"].get("/operator/settings").status_code == 403
    answer = clients["chief"].get("/operator/settings")
    shown = {one["name"]: one for one in answer.json()["settings"]}
    assert shown["webhook_secret"]["value"] is None
    assert (shown["heartbeat_s"]["source"], shown["max_rescues"]["source"]) == ("given", "default")
    assert shown["max_rescues"] == {
        "name": "max_rescues",
        "value": 3,
        "default": 3,
        "secret": False,
        "source": "default",
        "variable": "RUNLANE_MAX_RESCUES",
    }


def test_a_worker_drains_and_starts_runs_again(clients: Clients) -> None:
    [worker] = clients["watcher"].get("/operator/workers").json()["workers"]
    path = f"/operator/workers/{worker['worker_id']}/drain"
    assert [clients[name].post(path).status_code for name in ("alice", "watcher")] == [403, 403]
    assert clients["chief"].post("/operator/workers/nobody/drain").status_code == 404
    asked = clients["chief"].post(path)
    assert (asked.status_code, asked.json()["worker_id"]) == (202, worker["worker_id"])
    assert asked.json()["drain_asked_at"] is not None
    eventually(lambda: clients["watcher"].get("/operator/workers").json()["workers"][0]["state"] == "draining")
    thread_id = clients["alice"].post("/threads", json={}).json()["thread_id"]
    run = {"assistant_id": "steps", "input": {"steps": 1}}
    admitted = clients["alice"].post(f"/threads/{thread_id}/runs", json=run).json()
    assert admitted["status"] == "pending"
    assert clients["chief"].delete(path).json()["drain_asked_at"] is None
    assert clients["alice"].get(f"/threads/{thread_id}/runs/{admitted['run_id']}/join").status_code == 200
    acts = [act for act in clients["chief"].get("/audit").json() if act["action"] == "drain"]
    assert [(act["route"].split()[0], act["status"]) for act in acts] == [("DELETE", 202), ("POST", 202), ("POST", 404)]
    assert acts[0]["subject"] == {"worker_id": worker["worker_id"]}
