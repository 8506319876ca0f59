"""A secret that a run is configured with reaches its graph, and nothing else that is seen or kept."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypedDict

import httpx
import orjson
import pytest
from click.testing import CliRunner
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from runlane.cli.logs import KeyValueFormatter
from runlane.cli.main import app
from server_kit import MODES, PATIENCE_S, Server, running_server

SECRET = 'planted-0123456789-\u00e9"quoted'
SHORT = "hunter2"
CONFIG = {"configurable": {"api_key": SECRET, "nested": {"password": SHORT}, "model": "m"}, "recursion_limit": 20}


class State(TypedDict, total=False):
    seen: list[str]
    fail: bool


def _graph() -> Any:
    def node(state: State, config: RunnableConfig) -> State:
        given = config["configurable"]
        if state.get("fail"):
            raise ValueError(f"the provider refused the key {given['api_key']}")
        return {"seen": [str(len(given["api_key"])), str(len(given["nested"]["password"]))]}

    return StateGraph(State).add_node("node", node).add_edge(START, "node").add_edge("node", END).compile()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "runlane.db"


@pytest.fixture
def server(database: Path) -> Iterator[Server]:
    with running_server(f"sqlite:///{database}", graphs={"g": _graph()}) as running:
        yield running


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Collect the lines of the log, of all levels, as the command line writes them."""
    with caplog.at_level(logging.DEBUG):
        caplog.handler.setFormatter(KeyValueFormatter())
        yield caplog


def _clean(text: str) -> None:
    assert "planted-0123456789" not in text
    assert SHORT not in text


@pytest.mark.parametrize("place", ["config", "context", "assistant"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_planted_secret_is_nowhere_but_in_the_graph(
    server: Server, database: Path, logged: pytest.LogCaptureFixture, fails: bool, place: str
) -> None:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as http:
        body: dict[str, Any] = {"assistant_id": "g", "input": {"fail": fails}, "stream_mode": MODES}
        body["metadata"] = {"page_token": "abc", "kind": "test"}
        if place == "config":
            body["config"] = CONFIG
        elif place == "context":
            body["context"] = CONFIG["configurable"]
        else:
            made = http.post("/assistants", json={"graph_id": "g", "config": CONFIG}).json()
            body["assistant_id"] = made["assistant_id"]
        thread = http.post("/threads", json={}).json()["thread_id"]
        stream = http.post(f"/threads/{thread}/runs/stream", json={**body, "stream_subgraphs": True})
        assert stream.status_code == 200
        _clean(stream.text)
        delayed = http.post(f"/threads/{thread}/runs", json={**body, "after_seconds": 1000})
        _clean(delayed.text)
        waited = http.post("/runs/wait", json={**body, "on_completion": "keep"})
        _clean(waited.text)
        if not fails:
            assert waited.json()["seen"] == [str(len(SECRET)), str(len(SHORT))], "the graph had them"
        else:
            assert "the provider refused the key ***" in waited.json()["__error__"]["message"]
        runs = http.get(f"/threads/{thread}/runs").json()
        assert {run["kwargs"]["config"]["configurable"]["api_key"] for run in runs} == {"***"}
        assert runs[0]["kwargs"]["config"]["configurable"]["model"] == "m"
        for run in runs:
            _clean(http.get(f"/threads/{thread}/runs/{run['run_id']}").text)
        ended = next(run["run_id"] for run in runs if run["run_id"] != delayed.json()["run_id"])
        again = http.get(f"/threads/{thread}/runs/{ended}/stream", headers={"last-event-id": "-1"})
        assert "event: debug" in again.text
        _clean(again.text)
        for path in ("", "/state", "/history", "/runs"):
            _clean(http.get(f"/threads/{thread}{path}").text)
        _clean(http.post("/threads/search", json={}).text)
        http.post(f"/threads/{thread}/runs/{delayed.json()['run_id']}/cancel?wait=1")
        if place == "assistant":  # it stays configured with its secret, by whoever made it, until it is deleted
            http.delete(f"/assistants/{body['assistant_id']}")
    assert logged.text
    _clean(logged.text)
    _clean(_rows(database))


def _rows(database: Path) -> str:
    """Return all that the tables hold."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = [str(row) for table in tables for row in connection.execute(f"SELECT * FROM {table}")]
    connection.close()
    return "\n".join(found)


def test_a_clients_metadata_stays_as_it_was_sent(server: Server) -> None:
    metadata = {"max_tokens": "4096", "page_token": "abc", "cookie": "theme=dark", "db": "postgres://u:pw@h"}
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as http:
        body = {"assistant_id": "g", "input": {}, "config": CONFIG, "metadata": metadata, "if_not_exists": "create"}
        thread = "6d0c1f5e-4b58-4c1e-9d70-6f6f1f0b2a11"
        http.post(f"/threads/{thread}/runs/wait", json={**body, "metadata": metadata})
        run = http.get(f"/threads/{thread}/runs").json()[0]
        assert run["metadata"].items() >= metadata.items()
        assert http.get(f"/threads/{thread}").json()["metadata"].items() >= metadata.items()
        assert http.get(f"/threads/{thread}/state").json()["metadata"].items() >= metadata.items()
        later = {"assistant_id": "g", "input": {}, "config": {"metadata": metadata}, "after_seconds": 1000}
        made = http.post("/runs", json=later).json()
        assert made["metadata"].items() >= metadata.items()
        assert made["kwargs"]["config"]["metadata"].items() >= metadata.items()


def test_a_run_with_more_secrets_than_can_be_kept_out_of_events_is_refused(server: Server) -> None:
    many = {"configurable": {f"token_{number}": f"value-of-token-{number}" for number in range(20_000)}}
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as http:
        for path in ("/runs", "/runs/wait", "/runs/stream"):
            refused = http.post(path, json={"assistant_id": "g", "input": {}, "config": many})
            assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
            assert "more than 100 secrets" in refused.json()["detail"]
        made = http.post("/assistants", json={"graph_id": "g", "config": many}).json()
        refused = http.post("/runs", json={"assistant_id": made["assistant_id"], "input": {}})
        assert refused.status_code == 422


def test_a_run_that_goes_on_later_still_has_its_secret(server: Server, database: Path) -> None:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as http:
        body = {"assistant_id": "g", "input": {}, "config": CONFIG, "after_seconds": 1000}
        made = http.post("/runs", json=body).json()
        assert made["kwargs"]["config"]["configurable"]["api_key"] == "***"
        assert "planted-0123456789" in _rows(database)
        http.post(f"/threads/{made['thread_id']}/runs/{made['run_id']}/cancel")
    _clean(_rows(database))


def test_a_secret_that_an_ended_run_kept_is_taken_out_by_the_doctor(database: Path) -> None:
    with running_server(f"sqlite:///{database}", graphs={"g": _graph()}) as server:
        body = {"assistant_id": "g", "input": {}, "config": CONFIG, "on_completion": "keep"}
        assert httpx.post(f"{server.url}/runs/wait", json=body, timeout=PATIENCE_S).status_code == 200
    kept = orjson.dumps({"runlane_secrets": True, "graph_id": "g", "config": CONFIG}).decode()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE runs SET kwargs = ?", (kept,))
    assert "planted-0123456789" in _rows(database)
    result = CliRunner().invoke(app, ["doctor", "--database", f"sqlite:///{database}", "--repair", "--yes"])
    assert result.exit_code == 0, result.output
    _clean(_rows(database))
    assert '"model":"m"' in _rows(database)
