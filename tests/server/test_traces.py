"""The context of a trace that a client sends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langgraph.graph import END, START, StateGraph

from runlane.records import ANY_OWNER
from server_kit import PATIENCE_S, NewDatabase, Server, running_server
from trace_kit import Collector, attributes, collecting

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def _graph() -> Any:
    async def node(state: dict[str, Any]) -> dict[str, Any]:
        return state

    return StateGraph(dict).add_node("node", node).add_edge(START, "node").add_edge("node", END).compile()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{running.url}/api/public/otel")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic cHVibGljOnNlY3JldA==")
        yield running


def _run(server: Server, **headers: str) -> str:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as http:
        answer = http.post("/runs/wait", json={"assistant_id": "g", "input": {}}, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.headers["content-location"].rpartition("/")[2]


def test_a_run_is_part_of_the_trace_that_its_request_names(new_database: NewDatabase, collector: Collector) -> None:
    with running_server(new_database(), graphs={"g": _graph()}, traces=True) as server:
        ids = [
            _run(server, traceparent=f"00-{TRACE}-{SPAN}-01"),
            _run(server, traceparent=f"01-{TRACE}-{SPAN}-01-later"),
            *(_run(server, traceparent=bad) for bad in (f"00-{'0' * 32}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01", "x", "")),
        ]
    found = {attributes(span)["runlane.run.id"]: span for span in collector.named("run g")}
    within = [found[run_id].trace_id.hex() == TRACE for run_id in ids]
    assert within == [True, True, False, False, False, False]
    assert {found[run_id].parent_span_id.hex() for run_id in ids} == {SPAN, ""}


def test_langfuse_is_an_endpoint_of_otlp_with_a_header(new_database: NewDatabase, collector: Collector) -> None:
    with running_server(new_database(), graphs={"g": _graph()}, traces=True) as server:
        _run(server)
    assert {path for path, _ in collector.requests} == {"/api/public/otel/v1/traces"}
    assert {headers["authorization"] for _, headers in collector.requests} == {"Basic cHVibGljOnNlY3JldA=="}


def test_without_traces_nothing_is_kept_of_it(new_database: NewDatabase, collector: Collector) -> None:
    with running_server(new_database(), graphs={"g": _graph()}) as server:
        run_id = _run(server, traceparent=f"00-{TRACE}-{SPAN}-01")
        run = server.on_loop(server.app.state.service.store.runs.get(run_id, owner=ANY_OWNER))
    assert run.stored.origin.traceparent is None
    assert collector.requests == []
