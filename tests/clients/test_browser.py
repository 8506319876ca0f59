"""React pages with the official hooks, in a real Chromium, on another origin than the server's."""

from __future__ import annotations

import pytest

from clients.conftest import HERE, RunNode

FILES = sorted((HERE / "browser").glob("*.test.mjs"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_page_does_what_its_file_says(file: object, run_node: RunNode, browser: str, pages: str) -> None:
    run_node("--test", "--test-timeout=120000", "--test-reporter=spec", str(file), CHROMIUM=browser, PAGES=pages)
