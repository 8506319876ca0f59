"""One server for all tests, the official client of it, and a plain HTTP client for what the SDK cannot say."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from answer_kit import CheckedClient
from server_kit import PATIENCE_S, NewDatabase, Server, running_server, sdk


@pytest.fixture(scope="session", autouse=True)
def _no_certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Spare each client the time to load the authorities of a network that no test uses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SSL_CERT_FILE", raising=False)
        patch.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("certificates")))
        yield


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def new_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewDatabase:
    """Give a maker of empty databases: whoever asks is run once per kind."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path_factory.mktemp('server')}/runlane.db"
    made: NewDatabase = request.getfixturevalue("new_postgres_ledger")
    return made


@pytest.fixture(scope="session")
def server(new_database: NewDatabase) -> Iterator[Server]:
    """Give the server that the tests share; each has its own threads."""
    with running_server(new_database()) as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[LangGraphClient]:
    """Give the official client."""
    async with sdk(server) as made:
        yield made


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client that sends what it is told."""
    async with CheckedClient(base_url=server.url, timeout=PATIENCE_S) as made:
        yield made


@pytest.fixture
async def thread_id(client: LangGraphClient) -> str:
    """Give a fresh thread."""
    return str((await client.threads.create())["thread_id"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a test that hangs fail alone."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj) and "server" in item.path.parts:
            item.obj = _bounded(item.obj)


def _bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def bounded(*args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await test(*args, **kwargs)

    return bounded
