"""A rule in SQL is written once, and its lists of statuses come from the state table."""

from __future__ import annotations

from pathlib import Path

import pytest

import runlane
from runlane.lifecycle import ACTIVE, TERMINAL, RunStatus
from runlane.store import conditions

SOURCES = [
    *Path(runlane.__file__).parent.glob("store/**/*.py"),
    *Path(runlane.__file__).parent.glob("checkpoints/*.py"),
]


@pytest.mark.parametrize(
    "text",
    [
        ":any_owner = 1",
        "attempt = :attempt AND status",
        "other.seq < runs.seq",
        "not_before <= {",
        "status IN {listed(ACTIVE)}",
        "status IN {listed(TERMINAL)}",
        "THEN {BUSY} ELSE",
    ],
)
def test_a_rule_is_written_once(text: str) -> None:
    assert [path.name for path in SOURCES for _ in range(path.read_text().count(text))] == ["conditions.py"]


@pytest.mark.parametrize("status", RunStatus)
def test_no_statement_spells_a_status(status: RunStatus) -> None:
    spelt = f"'{status.value}'"
    spelling = [path.name for path in SOURCES if f"status = {spelt}" in path.read_text()]
    assert spelling == []


def test_the_lists_are_those_of_the_state_table() -> None:
    for condition, statuses in ((conditions.IS_ACTIVE, ACTIVE), (conditions.IS_TERMINAL, TERMINAL)):
        assert {status for status in RunStatus if f"'{status.value}'" in condition} == statuses
