"""A rule in SQL is written once, and its lists of statuses come from the state table."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import runlane
from runlane.lifecycle import ACTIVE, TERMINAL, RunStatus
from runlane.store import conditions
from runlane.store.drivers.sqlite import CACHED_STATEMENTS

PACKAGE = Path(runlane.__file__).parent
SOURCES = [path for folder in ("store", "checkpoints", "journal") for path in (PACKAGE / folder).glob("**/*.py")]
#: All columns of a row, as in ``SELECT *`` and ``RETURNING runs.*``; not a product, nor a count.
STAR = re.compile(r"\b(?:SELECT|RETURNING)\s+(?:DISTINCT\s+)?(?:\w+\.)?\*|,\s*\w+\.\*")
WRITES = re.compile(r"\b(?:INSERT INTO|UPDATE \w|DELETE FROM)")
#: How a comment begins that is about the statements that follow, too.
SHARED = ("# Both ", "# These ")


def silent_writes(path: Path) -> Iterator[str]:
    """Return the statements that write without a line above them about their guard."""
    text = path.read_text()
    lines = text.splitlines()
    shared_until = 0
    for node in ast.parse(text).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Call):
            continue
        above = lines[node.lineno - 2]
        said = above.startswith("#") or node.lineno == shared_until + 1
        if (above.startswith(SHARED) or node.lineno == shared_until + 1) and node.end_lineno is not None:
            shared_until = node.end_lineno
        source = ast.get_source_segment(text, node) or ""
        if "= statement(" in source and WRITES.search(source) and not said:
            yield f"{path.name}:{node.lineno}"


@pytest.mark.parametrize(
    "text",
    [
        ":any_owner = 1",
        "attempt = :attempt AND {EXECUTES}",
        "status || '' =",
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


def test_every_statement_that_writes_says_its_guard() -> None:
    assert [found for path in PACKAGE.glob("store/**/*.py") for found in silent_writes(path)] == []


def test_every_statement_names_its_columns() -> None:
    """A prepared ``SELECT *`` fails once on each connection of PostgreSQL when a newer version has added a column."""
    stars = [path.name for path in PACKAGE.glob("**/*.py") for _ in STAR.findall(path.read_text())]
    assert stars == []


def test_a_connection_keeps_every_statement_prepared() -> None:
    """One that is prepared anew costs as much as what it does; ``BEGIN`` and its like are statements too."""
    statements = sum(len(re.findall(r"\bstatement\(", path.read_text())) for path in PACKAGE.glob("**/*.py"))
    assert 200 < statements < CACHED_STATEMENTS / 2
