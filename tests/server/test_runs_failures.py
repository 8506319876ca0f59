"""What a client is told when the server or its database fails: never that something is absent, or that all is well."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from starlette.requests import Request
from starlette.routing import Route

from server_kit import LONG_S, NOWHERE, PATIENCE_S, NewDatabase, Server, ended, running_server, sdk


@pytest.fixture
def fragile(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server that a test may break."""
    with running_server(new_database()) as running:
        yield running


@pytest.fixture
async def visitor(fragile: Server) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of it, as a page of another origin has one."""
    headers = {"origin": "https://app.example"}
    async with httpx.AsyncClient(base_url=fragile.url, timeout=PATIENCE_S, headers=headers) as made:
        yield made


async def _defect(_: Request) -> Any:
    raise ZeroDivisionError("a secret of the server")


async def test_a_defect_is_told_to_every_origin_without_its_text_and_logged_once(
    fragile: Server, visitor: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    fragile.app.router.routes.insert(0, Route("/defect", _defect))
    with caplog.at_level(logging.ERROR):
        answer = await visitor.get("/defect")
    assert answer.status_code == 500
    assert answer.json() == {"detail": "Internal server error; the server's log has the cause.", "code": "internal"}
    assert answer.headers["access-control-allow-origin"] == "*"
    assert [record.name for record in caplog.records] == ["runlane.server"]
    assert caplog.records[0].exc_info is not None
    assert (await visitor.get("/ok")).status_code == 200, "the connection and the server live on"


async def test_a_query_parameter_that_no_version_has_is_ignored_and_named(
    http: httpx.AsyncClient, thread_id: str
) -> None:
    answer = await http.get(f"/threads/{thread_id}/runs", params={"limit": "3", "sort": "up", "é": ""})
    assert answer.status_code == 200
    assert answer.headers["runlane-ignored"] == "sort, \\xe9"
    plain = await http.get(f"/threads/{thread_id}/runs", params={"limit": "3"})
    assert "runlane-ignored" not in plain.headers


async def test_a_strict_server_refuses_query_parameters_that_no_version_has(tmp_path: Path) -> None:
    with running_server("memory://", strict=True) as strict:
        async with httpx.AsyncClient(base_url=strict.url, timeout=PATIENCE_S) as http:
            answer = await http.get("/info", params={"verbose": "1"})
            assert answer.status_code == 422
            assert "verbose" in answer.json()["detail"]
            assert (await http.get("/info")).status_code == 200


READS = [
    "/threads/{thread_id}",
    "/threads/{thread_id}/runs",
    "/threads/{thread_id}/runs/{run_id}",
    "/threads/{thread_id}/runs/{run_id}/join",
    "/threads/{thread_id}/runs/{run_id}/stream",
    "/threads/{thread_id}/state",
    "/threads/{thread_id}/stream",
    "/ok?check_db=1",
]
WRITES = [
    ("/threads", {}),
    ("/threads/search", {}),
    ("/threads/count", {}),
    ("/runs/cancel", {"status": "all"}),
    ("/threads/{thread_id}/runs/{run_id}/cancel", {}),
    ("/assistants/search", {}),
]


ONE_RUN = {"assistant_id": "steps", "input": {"steps": 1}}
STARTS: list[tuple[str, Any]] = [
    ("/threads/{thread_id}/runs", ONE_RUN),
    ("/threads/{thread_id}/runs/wait", ONE_RUN),
    ("/threads/{thread_id}/runs/stream", ONE_RUN),
    ("/runs/wait", ONE_RUN),
    ("/runs/batch", [ONE_RUN]),
    ("/threads/{thread_id}/commands", {"id": 1, "method": "run.start", "params": ONE_RUN}),
]


async def test_while_its_file_is_away_the_server_admits_no_run(tmp_path: Path) -> None:
    file, away = tmp_path / "runlane.db", tmp_path / "away.db"
    with running_server(f"sqlite:///{file}") as server:
        patient = httpx.AsyncClient(base_url=server.url, timeout=LONG_S)
        async with sdk(server) as client, patient as http:
            thread_id = (await client.threads.create())["thread_id"]
            file.rename(away)
            for path, body in STARTS:
                answer = await http.post(path.format(thread_id=thread_id), json=body)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), path
                assert str(tmp_path) not in answer.text
            away.rename(file)
            assert await client.runs.list(thread_id) == []


def test_while_its_database_is_out_the_server_says_so_on_every_route(postgres_dsn: str, postgres_url: str) -> None:
    database = conninfo_to_dict(postgres_url)["dbname"]
    with running_server(postgres_url, graphs={}) as server, psycopg.connect(postgres_dsn, autocommit=True) as admin:
        asyncio.run(_outage(server, admin, str(database)))


async def _outage(server: Server, admin: psycopg.Connection, database: str) -> None:
    patient = httpx.AsyncClient(base_url=server.url, timeout=LONG_S)  # connections that do not come are waited for
    async with sdk(server) as client, patient as http:
        thread_id = (await client.threads.create())["thread_id"]
        opened = asyncio.Event()
        watching = asyncio.create_task(_watch(http, thread_id, opened))
        await opened.wait()
        admin.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false'.encode())
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])

        async def ask(method: str, path: str, body: Any = None) -> tuple[str, int, str | None, Any]:
            url = path.format(thread_id=thread_id, run_id=NOWHERE)
            answer = await http.request(method, url, json=body)
            assert database not in answer.text, "it is for the log"
            return path, answer.status_code, answer.headers.get("retry-after"), answer.json().get("code")

        asked = [ask("GET", path) for path in READS] + [ask("POST", path, body) for path, body in WRITES]
        expected = [(path, 503, "1", "store_unavailable") for path in [*READS, *(path for path, _ in WRITES)]]
        assert await asyncio.gather(*asked) == expected
        assert (await http.get("/ok")).status_code == 200, "the server itself is well"
        with pytest.raises(httpx.RemoteProtocolError):
            await watching

        admin.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true'.encode())
        assert (await http.get(f"/threads/{thread_id}/runs/{NOWHERE}")).status_code == 404
        assert (await client.threads.get(thread_id))["thread_id"] == thread_id
        assert await client.runs.list(thread_id) == [], "nothing was admitted that was not answered"


async def _watch(http: httpx.AsyncClient, thread_id: str, opened: asyncio.Event) -> None:
    """Read a thread's stream to its end, which would say that the thread is gone."""
    async with http.stream("GET", f"/threads/{thread_id}/stream") as response:
        async for _ in response.aiter_lines():
            opened.set()


async def test_a_database_that_another_writes_for_long_is_out_for_writers_only(tmp_path: Path) -> None:
    with running_server(f"sqlite:///{tmp_path}/runlane.db") as server:
        async with sdk(server) as client, httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
            thread_id = (await client.threads.create())["thread_id"]
            other = sqlite3.connect(tmp_path / "runlane.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            refused = await http.post(f"/threads/{thread_id}/runs", json={"assistant_id": "steps", "input": {}})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert await client.runs.list(thread_id) == []
            other.execute("ROLLBACK")
            other.close()
            run = await client.runs.create(thread_id, "steps", input={"steps": 1})
            assert (await ended(client, run))["status"] == "success"


async def test_a_run_that_finds_its_threads_queue_full_is_429_and_the_thread_goes_on(new_database: NewDatabase) -> None:
    with running_server(new_database(), max_queued_runs=1, drain_grace_s=0, cancel_grace_s=0) as running:
        async with httpx.AsyncClient(base_url=running.url, timeout=PATIENCE_S) as http, sdk(running) as client:
            thread_id = (await client.threads.create())["thread_id"]
            steps = {"assistant_id": "steps", "input": {"steps": 1, "delay_s": LONG_S}, "multitask_strategy": "enqueue"}
            admitted = [(await http.post(f"/threads/{thread_id}/runs", json=steps)).json() for _ in range(2)]
            for way in ("", "/stream", "/wait"):
                refused = await http.post(f"/threads/{thread_id}/runs{way}", json=steps)
                assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
                assert int(refused.headers["retry-after"]) > 0
                assert "max_queued_runs" in refused.json()["detail"]
            assert len(await client.runs.list(thread_id)) == 2
            await client.runs.cancel(thread_id, admitted[1]["run_id"])
            assert (await http.post(f"/threads/{thread_id}/runs", json=steps)).status_code == 200
