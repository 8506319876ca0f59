"""What the process counts, as Prometheus and as JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from math import isnan
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph_sdk.client import LangGraphClient
from prometheus_client.parser import text_string_to_metric_families
from psycopg.conninfo import conninfo_to_dict

from runlane.store.drivers.sqlite import SqliteDriver
from server_kit import LONG_S, NOWHERE, PATIENCE_S, NewDatabase, Server, begun, running_server, sdk

Samples = dict[str, float]


@pytest.fixture(scope="module")
def counted(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server of these tests alone."""
    with running_server(new_database(), max_concurrent_runs=3) as running:
        yield running


@pytest.fixture
async def http(counted: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=counted.url, timeout=PATIENCE_S) as made:
        yield made


@pytest.fixture
async def client(counted: Server) -> AsyncIterator[LangGraphClient]:
    async with sdk(counted) as made:
        yield made


async def scrape(http: httpx.AsyncClient) -> Samples:
    """Return every sample by its name and the values of its labels."""
    response = await http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        " ".join([sample.name, *(sample.labels[name] for name in sorted(sample.labels))]): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_requests_are_counted_by_method_route_and_status(http: httpx.AsyncClient) -> None:
    before = await scrape(http)
    for _ in range(3):
        await http.get(f"/threads/{NOWHERE}")
    await http.get("/threads/not-a-uuid")
    await http.post("/threads", json={})
    await http.request("PURGE", "/threads")
    for path in ("/nothing", "/nothing/else", "/threads/a/b/c/d"):
        await http.request("PURGE", path)
    after = await scrape(http)

    def more(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    assert more("runlane_http_requests_total GET /threads/{thread_id} 404") == 3
    assert more("runlane_http_requests_total GET /threads/{thread_id} 422") == 1
    assert more("runlane_http_requests_total POST /threads 200") == 1
    assert more("runlane_http_requests_total other other 404") == 3
    assert more("runlane_http_requests_total other /threads 405") == 1
    assert more("runlane_http_requests_latency_seconds_count GET /threads/{thread_id}") == 4
    assert more("runlane_http_requests_latency_seconds_bucket 10.0 GET /threads/{thread_id}") == 4
    assert not [name for name in after if "nothing" in name or NOWHERE in name or "PURGE" in name]


async def test_a_stream_is_counted_when_its_answer_begins(http: httpx.AsyncClient, client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    run = await begun(client, thread_id)
    name = "runlane_http_requests_total GET /threads/{thread_id}/runs/{run_id}/stream 200"
    before = await scrape(http)
    async with http.stream("GET", f"/threads/{thread_id}/runs/{run['run_id']}/stream") as response:
        assert response.status_code == 200
        samples = await scrape(http)
        assert samples[name] == before.get(name, 0) + 1
        assert samples["runlane_streams_open"] == 1
    await client.runs.cancel(thread_id, run["run_id"], wait=True)


async def test_the_queue_and_the_slots_are_what_they_are(http: httpx.AsyncClient, client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    run = await begun(client, thread_id)
    waiting = await client.runs.create(thread_id, "steps", input={"steps": 1, "delay_s": 0})
    samples = await scrape(http)
    assert (samples["runlane_ledger_up"], samples["runlane_runs running"], samples["runlane_runs pending"]) == (1, 1, 1)
    assert (samples["runlane_worker_slots"], samples["runlane_worker_slots_active"]) == (3, 1)
    assert samples["runlane_queue_wait_max_seconds"] > 0
    assert samples["runlane_queue_wait_unblocked_max_seconds"] == 0
    assert (samples["runlane_owner_pending_runs "], samples["runlane_owner_pending_runs other"]) == (1, 0)
    assert (samples["runlane_crons_late_seconds"], samples["runlane_webhooks_late_seconds"]) == (0, 0)
    assert samples["process_resident_memory_bytes"] > 1_000_000
    shown = (await http.get("/metrics", params={"format": "json"})).json()
    assert shown["workers"] == {"max": 3, "active": 1, "available": 2}
    assert (shown["queue"]["n_pending"], shown["queue"]["n_running"]) == (1, 1)
    assert shown["queue"]["pending_runs_wait_time_max_secs"] >= shown["queue"]["pending_runs_wait_time_med_secs"] > 0
    assert shown["queue"]["pending_unblocked_runs_wait_time_max_secs"] == 0
    assert shown["api"]["requests"]["200"] > 0
    await client.runs.cancel(thread_id, run["run_id"], wait=True)
    await client.runs.join(thread_id, waiting["run_id"])
    assert (await http.get("/metrics?format=json")).json()["queue"]["n_pending"] == 0


async def test_a_process_that_executes_no_runs_has_no_slots(postgres_url: str) -> None:
    with running_server(postgres_url, graphs={}, execute_runs=False) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=LONG_S) as http:
            samples = await scrape(http)
            assert (samples["runlane_worker_slots"], samples["runlane_worker_slots_active"]) == (0, 0)
            shown = (await http.get("/metrics", params={"format": "json"})).json()
            assert shown["workers"] == {"max": 0, "active": 0, "available": 0}


async def test_runs_are_counted_by_graph_and_status(http: httpx.AsyncClient, client: LangGraphClient) -> None:
    before = await scrape(http)
    thread_id = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread_id, "steps", input={"steps": 1, "delay_s": 0})
    run = await begun(client, thread_id)
    await client.runs.cancel(thread_id, run["run_id"], wait=True)
    after = await scrape(http)

    def more(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert more("runlane_runs_admitted_total steps") == 2
    assert more("runlane_runs_finished_total steps completed success") == 1
    assert more("runlane_runs_finished_total steps user_cancel interrupted") == 1
    assert more("runlane_run_queued_seconds_count steps") == 2
    assert more("runlane_run_first_event_seconds_count steps") == 2
    assert more("runlane_run_executing_seconds_count steps") == 2
    assert more("runlane_run_cancel_seconds_count") == 1
    assert more("runlane_flush_seconds_count") > 0
    assert after["runlane_loop_turn_seconds_count purge"] > 0


async def test_another_format_is_refused(http: httpx.AsyncClient) -> None:
    assert (await http.get("/metrics?format=xml")).status_code == 422


async def test_without_its_ledger_the_process_still_says_how_it_is(postgres_dsn: str, postgres_url: str) -> None:
    database = conninfo_to_dict(postgres_url)["dbname"]
    with running_server(postgres_url, graphs={}) as server, psycopg.connect(postgres_dsn, autocommit=True) as admin:
        async with httpx.AsyncClient(base_url=server.url, timeout=LONG_S) as http:
            assert (await scrape(http))["runlane_ledger_up"] == 1
            admin.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false'.encode())
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])
            samples = await scrape(http)
            assert samples["runlane_ledger_up"] == 0
            assert isnan(samples["runlane_runs pending"])
            assert samples["process_resident_memory_bytes"] > 0
            assert (await http.get("/metrics?format=json")).status_code == 503
            admin.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true'.encode())


async def test_the_size_of_the_database_and_its_tables_is_shown(counted: Server, http: httpx.AsyncClient) -> None:
    sizes = counted.app.state.service.table_sizes
    measured = counted.on_loop(sizes.measure())
    samples, shown = await scrape(http), (await http.get("/metrics?format=json")).json()["storage"]
    tables = {
        name.removeprefix("runlane_table_bytes "): size for name, size in samples.items() if "table_bytes" in name
    }
    assert tables == shown["tables"] == measured.tables
    assert {"runs", "events", "threads", "checkpoints"} < set(tables)
    # In PostgreSQL a table without an index takes nothing as long as it has no row.
    assert {name for name, size in tables.items() if size == 0} <= {"store_index"}
    assert sum(tables.values()) <= samples["runlane_database_bytes"] == shown["database_bytes"]
    has_log = isinstance(counted.app.state.service.store.driver, SqliteDriver)  # PostgreSQL's belongs to all databases
    assert (samples["runlane_database_log_bytes"] > 0) is has_log
    assert shown["tables_measured_at"] == measured.at.isoformat()


def _speaking() -> Any:
    used = {"input_tokens": 1000, "output_tokens": 10, "total_tokens": 1010, "input_token_details": {"cache_read": 400}}
    answer = AIMessage("hello", usage_metadata=used, response_metadata={"model_name": "fake-2026-01-01"})

    async def speak(state: MessagesState) -> Any:
        return {"messages": [await GenericFakeChatModel(messages=iter([answer])).ainvoke("go")]}

    return StateGraph(MessagesState).add_node("speak", speak).add_edge(START, "speak").compile()


async def test_tokens_and_costs_are_counted_by_model(new_database: NewDatabase, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("[fake]\ninput = 1.0\noutput = 2.0\n[fake-2026]\ninput = 10\ncached_input = 1\noutput = 100\n")
    with running_server(new_database(), graphs={"speaker": _speaking()}, prices=str(prices)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
            answer = await http.post("/runs/wait", json={"assistant_id": "speaker", "input": {"messages": []}})
            assert answer.status_code == 200
            samples = await scrape(http)
            dear, [found] = [
                (await http.post("/runs/search", json={"min_cost": cost})).json() for cost in (0.007401, 0.0074)
            ]
            run = (await http.get(f"/threads/{found['thread_id']}/runs/{found['run_id']}")).json()
            [total] = (await http.get("/operator/totals")).json()
    name = next(name for name in samples if name.startswith("runlane_cost_total")).split()[-1]
    tokens = {
        kind: samples[f"runlane_tokens_total speaker {kind} {name}"] for kind in ("input", "cached_input", "output")
    }
    assert tokens == {"input": 1000, "cached_input": 400, "output": 10}
    assert samples[f"runlane_model_calls_total speaker {name}"] == 1
    assert samples[f"runlane_cost_total speaker {name}"] == pytest.approx((600 * 10 + 400 * 1 + 10 * 100) / 1e6)
    assert found["cost"] == run["cost"] == total["cost"] == pytest.approx(0.0074)
    assert run["cost_by_model"] == {name: found["cost"]}
    assert dear == []
