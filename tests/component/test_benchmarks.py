"""The benchmarks run, at sizes that measure nothing, so that they are there when somebody needs a figure."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
#: Cases that are run by one process, which shall not take long on a busy machine either.
GROUPS = (
    ("wait", "create", "ttfe", "stream", "fanout", "idle", "cancel", "steps", "history", "control"),
    ("long_chat", "long_chat_stream"),
    ("image", "big_state"),
    ("start",),
    ("viewers", "stalled", "restart"),
    ("growth", "search"),
)
ONLY_MANAGED = ("create", "cancel", "history", "control", "viewers", "stalled", "restart", "growth", "search")

Rounds = dict[str, dict[str, list[dict[str, float]]]]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "run.py"), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=170)


@dataclass(frozen=True)
class Finished:
    """What a process printed that ran a group of cases once on each side, and the file that it wrote."""

    cases: Sequence[str]
    output: str
    file: Path

    @property
    def rounds(self) -> Rounds:
        rounds: Rounds = json.loads(self.file.read_text())["rounds"]
        return rounds


@pytest.fixture(scope="module", params=GROUPS, ids="-".join)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    file = tmp_path_factory.mktemp("bench") / "figures.json"
    process = bench("--tiny", "--rounds", "1", "--only", ",".join(request.param), "--json", str(file))
    assert process.returncode == 0, process.stderr
    return Finished(request.param, process.stdout, file)


def test_every_case_is_in_a_group() -> None:
    process = bench("--only", "nonsense")
    known = process.stderr.partition("there are ")[2].strip().split(", ")
    assert sorted(known) == sorted(case for group in GROUPS for case in group)


def test_a_case_gives_figures_of_each_side_that_can_do_it(finished: Finished) -> None:
    for case in finished.cases:
        sides = finished.rounds[case]
        assert set(sides) == ({"runlane"} if case in ONLY_MANAGED else {"bare", "runlane"}), case
        for figures in sides.values():
            assert len(figures) == 1
            assert figures[0].get("failed", 0) == figures[0].get("unfinished", 0) == 0
            # Memory may shrink meanwhile.
            assert all(value >= 0 for name, value in figures[0].items() if name not in ("memory_mb", "kib_per_viewer"))
        assert "disk_mb" not in sides.get("bare", [{}])[0]


def test_the_table_judges_every_target_whose_figures_are_there(finished: Finished) -> None:
    rows = [line for line in finished.output.splitlines() if "<=" in line or ">=" in line]
    assert rows
    # So little work can take no measurable processor time on the bare side, and nothing is a multiple of that.
    judged = [row for row in rows if "cpu_" not in row and "langgraph-dev" not in row]
    assert all(row.endswith(("met |", "MISSED |")) for row in judged)


def test_a_sitting_that_is_resumed_measures_only_what_is_missing(tmp_path: Path) -> None:
    known = {"wait": {"bare": [{"runs_per_s": 3.0}], "runlane": [{"runs_per_s": 2.0}]}}
    file = tmp_path / "figures.json"
    file.write_text(json.dumps({"rounds": known}))
    process = bench("--tiny", "--rounds", "1", "--resume", "--only", "wait,cancel", "--json", str(file))
    assert [line for line in process.stderr.splitlines() if line.startswith("round")] == ["round 1/1 cancel runlane"]
    rounds: Rounds = json.loads(file.read_text())["rounds"]
    assert set(rounds.pop("cancel")) == {"runlane"}
    assert rounds == known


def test_an_unknown_case_is_refused_with_the_names_of_those_there_are() -> None:
    process = bench("--only", "wait,nonsense")
    assert process.returncode == 2
    assert "no case nonsense" in process.stderr
    assert "history" in process.stderr


def test_an_unknown_side_is_refused_with_the_names_of_those_there_are() -> None:
    process = bench("--sides", "runlane,nonsense")
    assert process.returncode == 2
    assert "no side nonsense" in process.stderr
    assert "langgraph-dev" in process.stderr


def test_the_charts_of_the_page_are_images_that_a_reader_can_open() -> None:
    charts = sorted((BENCHMARKS.parent / "docs" / "benchmarks").glob("*.svg"))
    assert charts
    page = (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text()
    for chart in charts:
        assert ElementTree.parse(chart).getroot().tag.endswith("svg")
        assert f"(benchmarks/{chart.name})" in page
