"""The benchmarks run, at sizes that measure nothing, so that they are there when somebody needs a figure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CASES = ("wait", "create", "ttfe", "stream", "fanout", "idle", "cancel", "steps", "history", "control")
ONLY_MANAGED = ("create", "cancel", "history", "control")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "run.py"), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Give a finished process that ran every case once on each side, and the file that it wrote."""
    file = tmp_path_factory.mktemp("bench") / "figures.json"
    process = bench("--tiny", "--rounds", "1", "--json", str(file))
    assert process.returncode == 0, process.stderr
    return process, json.loads(file.read_text())


@pytest.mark.parametrize("case", CASES)
def test_a_case_gives_figures_of_each_side_that_can_do_it(
    case: str, finished: tuple[subprocess.CompletedProcess[str], dict[str, Any]]
) -> None:
    sides = finished[1]["rounds"][case]
    assert set(sides) == ({"runlane"} if case in ONLY_MANAGED else {"bare", "runlane"})
    for figures in sides.values():
        assert len(figures) == 1
        assert figures[0].get("failed", 0) == figures[0].get("unfinished", 0) == 0
        assert all(value >= 0 for value in figures[0].values())


def test_the_table_shows_every_target_and_judges_it(
    finished: tuple[subprocess.CompletedProcess[str], dict[str, Any]],
) -> None:
    rows = [line for line in finished[0].stdout.splitlines() if "<=" in line]
    assert len(rows) == 12
    # So little work can take no measurable processor time on the bare side, and nothing is a multiple of that.
    absolute = [row for row in rows if "cpu_" not in row]
    assert len(absolute) == 9
    assert all(row.endswith(("met |", "MISSED |")) for row in absolute)


def test_an_unknown_case_is_refused_with_the_names_of_those_there_are() -> None:
    process = bench("--only", "wait,nonsense")
    assert process.returncode == 2
    assert "no case nonsense" in process.stderr
    assert "history" in process.stderr
