"""The records of requests and runs, as the command line writes them."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from io import StringIO
from typing import Any, TypedDict

import httpx
import pytest
from langgraph.graph import END, START, StateGraph
from langgraph_sdk.client import LangGraphClient

from runlane.cli.logs import JsonFormatter, PrintedLines
from runlane.telemetry.context import owner_hash
from server_kit import PATIENCE_S, NewDatabase, Server, ended, running_server, sdk

#: Two runs are in their nodes at the same time.
BOTH = 2
log = logging.getLogger("their.graph")


class State(TypedDict, total=False):
    name: str
    fail: bool


class Meeting:
    """Lets runs take turns."""

    def __init__(self) -> None:
        self.barrier = asyncio.Barrier(BOTH)


def _graph(meeting: Meeting) -> Any:
    async def talk(state: State) -> State:
        name = state["name"]
        print("hello ", end="")  # noqa: T201 - as code of graphs does
        await meeting.barrier.wait()
        print(name)  # noqa: T201 - as code of graphs does
        log.info("logged by %s", name)
        await meeting.barrier.wait()
        return {}

    def say(state: State) -> State:  # on a thread
        print(f"{state['name']} on a thread\nand on", end="")  # noqa: T201 - as code of graphs does
        if state.get("fail"):
            raise ValueError(f"no {state['name']}\nand no more")
        return {}

    graph = StateGraph(State).add_node("talk", talk).add_node("say", say)
    return graph.add_edge(START, "talk").add_edge("talk", "say").add_edge("say", END).compile()


@pytest.fixture
def server(new_database: NewDatabase) -> Iterator[Server]:
    with running_server(new_database(), graphs={"g": _graph(Meeting())}) as running:
        yield running


@pytest.fixture
def written() -> Iterator[StringIO]:
    """Write the log as JSON."""
    stream, root = StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(stream), root.level
    handler.setFormatter(JsonFormatter())
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def _records(stream: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_every_record_of_a_run_says_whose_it_is(
    server: Server, written: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", PrintedLines(sys.stdout))
    async with sdk(server) as client:
        runs = await asyncio.gather(*(_run(client, name, f"request-{name}") for name in ("ann", "bob")))
    records = _records(written)
    for run, name in zip(runs, ("ann", "bob"), strict=True):
        mine = [record for record in records if record.get("run_id") == run["run_id"]]
        said = [record["message"] for record in mine if record["event"] == "run.printed"]
        assert said == [f"hello {name}", f"{name} on a thread", "and on"]
        assert [record["message"] for record in mine if record["logger"] == "their.graph"] == [f"logged by {name}"]
        assert {record["thread_id"] for record in mine} == {run["thread_id"]}
        of_code = [record for record in mine if record["event"] in ("run.printed", "run.started", "run.finished")]
        assert {(each["graph"], each["attempt"], each["request_id"]) for each in of_code} == {
            ("g", 1, f"request-{name}")
        }


async def _run(client: LangGraphClient, name: str, request_id: str) -> Any:
    thread = await client.threads.create()
    given = {"name": name}
    headers = {"x-request-id": request_id}
    run = await client.runs.create(thread["thread_id"], "g", input=given, headers=headers)
    return await ended(client, run)


async def test_a_run_that_failed_is_one_warning_with_its_cause(server: Server, written: StringIO) -> None:
    async with sdk(server) as client:
        runs = [await client.runs.create(None, "g", input={"name": name, "fail": True}) for name in ("ann", "bob")]
        for run in runs:
            await ended(client, run)
    warned = [each for each in _records(written) if each["level"] == "warning" and each.get("run_id")]
    assert [each["event"] for each in warned] == ["run.failed", "run.failed"]
    [mine] = [each for each in warned if each["run_id"] == runs[0]["run_id"]]
    assert mine["error"] == "ValueError"
    assert mine["cause"].startswith("ValueError: no ann\nand no more\nDuring task with name 'say'")
    assert "Traceback" in mine["exception"]
    assert "in say" in mine["exception"]


async def test_requests_have_ids_and_records_with_durations(server: Server, written: StringIO) -> None:
    ids: list[str] = []
    sent = {"mine-1": "mine-1", "no good": None, "x" * 200: None, "": None}
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
        for given, kept in sent.items():
            answer = await http.get("/info?password=sesame", headers={"x-request-id": given})
            assert (answer.headers["x-request-id"] == given) is (kept is not None)
            ids.append(answer.headers["x-request-id"])
        await http.get("/nothing/here%0Ax")
        await http.get("/ok")
        await http.get("/ok")  # the record of a request is written before the next one is read
    asked = [each for each in _records(written) if each["event"] == "http.request"][: len(sent) + 2]
    assert [each["request_id"] for each in asked[: len(sent)]] == ids
    assert [(each["level"], each["path"], each["status"]) for each in asked] == [
        *[("info", "/info", 200)] * len(sent),
        ("info", "/nothing/here%0Ax", 404),
        ("debug", "/ok", 200),
    ]
    assert all(each["duration_s"] >= 0 and each["method"] == "GET" and each["client"] for each in asked)
    assert "sesame" not in written.getvalue()


def test_an_owner_is_a_hash() -> None:
    assert owner_hash("") is None
    assert owner_hash("ann@example.com") == owner_hash("ann@example.com") != owner_hash("bob@example.com")
    assert "ann" not in str(owner_hash("ann@example.com"))
