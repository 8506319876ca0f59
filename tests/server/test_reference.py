"""The same requests as to the reference server are answered alike, but for the differences that are listed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from differential import Answers, Difference, Listed, ask, differences, listed
from server.exchanges import SCENARIOS
from server_kit import PATIENCE_S, NewDatabase, running_server

HERE = Path(__file__).parent
RECORDED: Answers = json.loads((HERE / "reference_answers.json").read_text())


@pytest.fixture(scope="module")
def found(new_database: NewDatabase) -> Iterator[list[Difference]]:
    """Give the differences of all answers."""
    project = HERE / "reference_project" / "langgraph.json"
    database = new_database()
    with (
        running_server(database, project) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client,
    ):
        yield differences(RECORDED, ask(client, SCENARIOS))


def test_every_request_was_recorded() -> None:
    assert RECORDED.keys() == {f"{name}/{step.name}" for name, steps in SCENARIOS.items() for step in steps}


def test_every_difference_is_listed(found: list[Difference]) -> None:
    places = [(row, pattern) for row in listed() for pattern in row.where]
    assert [one for one in found if not any(row.shows(pattern, one) for row, pattern in places)] == []


@pytest.mark.parametrize("row", listed(), ids=lambda row: row.what)
def test_what_is_listed_is_a_difference(row: Listed, found: list[Difference]) -> None:
    assert [pattern for pattern in row.where if not any(row.shows(pattern, one) for one in found)] == []
