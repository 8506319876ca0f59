"""Logs, metrics and traces of server processes whose runs are cancelled, resumed, handed over, killed and rescued."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from acceptance.kit import RUN_LIMIT_S, Server, new_thread
from trace_kit import ERROR, UNSET, attributes, collecting

OBSERVED = Path(__file__).parent / "observed_project"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def _started(http: httpx.AsyncClient, server: Server, thread_id: str, graph: str, **body: Any) -> str:
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "x-request-id": f"request-of-{graph}"}
    url = f"{server.url}/threads/{thread_id}/runs"
    answer = await http.post(url, json={"assistant_id": graph, **body}, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["run_id"])


async def _join(http: httpx.AsyncClient, server: Server, thread_id: str, run_id: str) -> None:
    assert (await http.get(f"{server.url}/threads/{thread_id}/runs/{run_id}/join")).status_code == 200


async def _scraped(http: httpx.AsyncClient, server: Server) -> dict[str, float]:
    """Return the samples of runs by name and labels."""
    text = (await http.get(f"{server.url}/metrics")).text
    return {
        " ".join([sample.name, *(sample.labels[name] for name in sorted(sample.labels))]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("runlane_run")
    }


def _records(server: Server, run_id: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in server.lines]
    return [record for record in records if record.get("run_id") == run_id]


async def test_a_run_can_be_followed_through_processes_that_stop_and_die(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {"drain_grace_s": 0, "cancel_grace_s": 0.1, "abandon_after_s": 1}
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        server = Server(tmp_path, project=OBSERVED, traces=True, log_format="json", **quick)
        async with server, httpx.AsyncClient(timeout=RUN_LIMIT_S) as http:
            await server.start()
            asked_on, waits_on, cancelled_on = [await new_thread(http, server.url) for _ in range(3)]

            asks = await _started(http, server, asked_on, "asker", input={})
            await _join(http, server, asked_on, asks)
            answers = await _started(http, server, asked_on, "asker", command={"resume": "yes"})
            await _join(http, server, asked_on, answers)
            cancelled = await _started(http, server, cancelled_on, "waiter", input={})
            assert await server.said("they wait")
            await http.post(f"{server.url}/threads/{cancelled_on}/runs/{cancelled}/cancel?wait=true")
            waits = await _started(http, server, waits_on, "waiter", input={})
            assert await server.said("they wait", times=2)
            first = await _scraped(http, server)
            of_asks = _records(server, asks)
            server.send(signal.SIGTERM)
            assert await server.ended() == 0
            assert [each["event"] for each in _records(server, waits)][-1] == "run.released"

            await server.start()
            assert await server.said("they wait")
            await server.kill()
            await server.start()
            assert await server.said("they wait")
            server.effects.write_text("go on")
            await _join(http, server, waits_on, waits)
            last = await _scraped(http, server)
            of_waits = _records(server, waits)
            server.send(signal.SIGTERM)
            await server.ended()

    said = next(each for each in of_asks if each["logger"] == "observed")
    assert (said["message"], said["request_id"], said["graph"]) == ("they ask", "request-of-asker", "asker")
    printed = next(each for each in of_waits if each["event"] == "run.printed")
    assert (printed["message"], printed["attempt"], printed["request_id"]) == ("they wait", 3, "request-of-waiter")

    assert first["runlane_runs_finished_total asker paused success"] == 1
    assert first["runlane_runs_finished_total asker completed success"] == 1
    assert first["runlane_runs_finished_total waiter user_cancel interrupted"] == 1
    assert last["runlane_runs_rescued_total waiter"] == 1
    assert last["runlane_runs_finished_total waiter completed success"] == 1

    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    runs = {attributes(each)["runlane.run.id"]: each for each in collector.spans if each.name.startswith("run ")}
    assert runs.keys() == {asks, answers, cancelled, waits}
    assert {(run.parent_span_id.hex(), run.status.code) for run in runs.values()} == {(SPAN, UNSET)}
    attempts = sorted(
        (each for each in collector.named("invoke_agent waiter") if attributes(each)["runlane.run.id"] == waits),
        key=lambda span: attributes(span)["runlane.attempt"],
    )
    ends = [(attributes(each)["runlane.attempt.end"], each.status.code) for each in attempts]
    assert ends == [("released", UNSET), ("worker_lost", ERROR), ("success", UNSET)]
    assert [[link.span_id for link in each.links] for each in attempts[1:]] == [
        [attempts[0].span_id],
        [attempts[1].span_id],
    ]
    assert {each.parent_span_id for each in attempts} == {runs[waits].span_id}
    resumed = next(
        each for each in collector.named("invoke_agent asker") if attributes(each)["runlane.run.id"] == answers
    )
    assert [link.span_id for link in resumed.links] == [runs[asks].span_id]
    own = collector.named("their own span")
    assert {each.parent_span_id for each in own} <= {each.span_id for each in collector.named("invoke_agent asker")}
    assert len(own) == 2
