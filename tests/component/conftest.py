"""A running process, on each ledger of the embedded mode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from run_kit import opened
from runlane.runtime import Runtime


@pytest.fixture(params=["memory", "sqlite"])
async def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Runtime]:
    """Give a runtime whose agents are coroutines, once per ledger; stops take no time."""
    database = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'runs.db'}"
    async with opened(database=database) as opened_runtime:
        yield opened_runtime
