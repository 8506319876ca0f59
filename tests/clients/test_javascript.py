"""The official JavaScript client on Node, unchanged: each file of ``node/`` is a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients.conftest import HERE, RunNode

FILES = sorted((HERE / "node").glob("*.test.mjs"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_javascript_client_does_what_its_file_says(file: Path, run_node: RunNode) -> None:
    run_node("--test", "--test-timeout=60000", "--test-reporter=spec", str(file))
