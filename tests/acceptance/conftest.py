"""Fixtures of the acceptance tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """Give a client that goes to the server directly, whatever proxy the machine has."""
    async with httpx.AsyncClient(timeout=30.0, trust_env=False) as client:
        yield client
