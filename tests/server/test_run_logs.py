"""The log of a run over HTTP and on the command line."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result
from langgraph_sdk.client import LangGraphClient

from auth_kit import keyed_server, operated_server
from runlane.cli.main import app
from runlane.telemetry.log_handler import RunLogHandler
from server_kit import NewDatabase, Server, begun

FAILS = {"assistant_id": "failing", "input": {}}


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    added = RunLogHandler()
    logging.getLogger().addHandler(added)
    yield
    logging.getLogger().removeHandler(added)


async def failed(http: httpx.AsyncClient, thread_id: str) -> str:
    await http.post(f"/threads/{thread_id}/runs/wait", json=FAILS)
    run_id: str = (await http.get(f"/threads/{thread_id}/runs")).json()[0]["run_id"]
    return run_id


async def test_a_run_that_failed_shows_the_traceback_by_its_id_and_on_its_thread(
    http: httpx.AsyncClient, thread_id: str
) -> None:
    run_id = await failed(http, thread_id)
    answer = await http.get(f"/runs/{run_id}/logs")
    [record] = answer.json()
    assert (record["id"], record["level"], record["logger"]) == ("1.1", "warning", "runlane.execution")
    assert record["text"].startswith("run.failed ")
    assert "graphs.py" in record["exception"]
    assert record["exception"].splitlines()[-1].startswith("During task with name")
    assert (await http.get(f"/threads/{thread_id}/runs/{run_id}/logs")).json() == [record]
    assert (await http.get(f"/runs/{run_id}/logs", params={"after": "1.1"})).json() == []
    assert "x-pagination-next" not in answer.headers


async def test_an_id_that_is_none_is_refused(http: httpx.AsyncClient, thread_id: str) -> None:
    run_id = await failed(http, thread_id)
    answer = await http.get(f"/runs/{run_id}/logs", params={"after": "x"})
    assert answer.status_code == 422
    assert "the id of a log record" in answer.json()["detail"]


def test_operators_see_texts_with_the_scope_for_payload_only(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> None:
    operators = {"watcher": ["runs:read"], "reader": ["runs:read", "payload:read"], "chief": ["admin"]}
    with operated_server(new_database(), tmp_path_factory.mktemp("keys"), operators) as clients:
        thread_id = clients["alice"].post("/threads", json={}).json()["thread_id"]
        clients["alice"].post(f"/threads/{thread_id}/runs/wait", json=FAILS)
        run_id = clients["alice"].get(f"/threads/{thread_id}/runs").json()[0]["run_id"]
        asked = {name: clients[name].get(f"/runs/{run_id}/logs") for name in clients}
        recorded = clients["chief"].get("/audit").json()
    assert asked["alice"].status_code == 403, "the texts of exceptions are masked for owners"
    [shown], [hidden] = asked["reader"].json(), asked["watcher"].json()
    assert shown["exception"].splitlines()[-2] == "ValueError: boom"
    assert hidden == {**shown, "text": None, "exception": None}
    assert [act["actor"] for act in recorded if act["subject"] == {"run_id": run_id}] == ["reader"]


def test_owners_see_the_logs_of_their_own_runs_where_errors_are_not_masked(tmp_path: Path) -> None:
    with keyed_server(tmp_path, "alice", "bob", mask_errors=False) as (server, keys), ExitStack() as stack:
        alice, bob = (
            stack.enter_context(httpx.Client(base_url=server.url, headers={"x-api-key": keys[name]}))
            for name in ("alice", "bob")
        )
        thread_id = alice.post("/threads", json={}).json()["thread_id"]
        alice.post(f"/threads/{thread_id}/runs/wait", json=FAILS)
        path = f"/runs/{alice.get(f'/threads/{thread_id}/runs').json()[0]['run_id']}/logs"
        assert [record["level"] for record in alice.get(path).json()] == ["warning"]
        assert bob.get(path).status_code == 404


async def test_the_command_prints_records_with_tracebacks(
    server: Server, http: httpx.AsyncClient, thread_id: str
) -> None:
    run_id = await failed(http, thread_id)
    told = await logs(server, run_id)
    assert told.exit_code == 0, told.output
    first, *traceback = told.stdout.splitlines()
    assert " WARNING  runlane.execution  run.failed " in first
    assert traceback[0] == "Traceback (most recent call last):"


async def test_the_command_follows_a_run_to_its_end(server: Server, client: LangGraphClient, thread_id: str) -> None:
    run = await begun(client, thread_id)
    following = asyncio.create_task(logs(server, run["run_id"], "--follow"))
    await client.runs.cancel(thread_id, run["run_id"], wait=True)
    assert (await following).exit_code == 0


async def logs(server: Server, *arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["runs", "logs", *arguments, "--url", server.url])
