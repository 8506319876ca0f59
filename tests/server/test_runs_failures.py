"""What a client is told when the server or its database fails: never that something is absent, or that all is well."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.routing import Route

from server_kit import PATIENCE_S, Server, running_server


@pytest.fixture
def fragile(tmp_path: Any) -> Iterator[Server]:
    """Give a server that a test may break."""
    with running_server(f"sqlite:///{tmp_path}/runlane.db") as running:
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


async def test_a_strict_server_refuses_query_parameters_that_no_version_has(tmp_path: Any) -> None:
    with running_server("memory://", strict=True) as strict:
        async with httpx.AsyncClient(base_url=strict.url, timeout=PATIENCE_S) as http:
            answer = await http.get("/info", params={"verbose": "1"})
            assert answer.status_code == 422
            assert "verbose" in answer.json()["detail"]
            assert (await http.get("/info")).status_code == 200
