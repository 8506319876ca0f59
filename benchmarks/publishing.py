"""The page of results: charts and a table, from the figures of a sitting."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import charts
from report import RUNLANE, TARGETS, Row, table
from sides import SIDES

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
PAGE: Final = DOCS / "benchmarks.md"
CHARTS: Final = DOCS / "benchmarks"
_RESULTS: Final = re.compile(r"(?<=<!-- results -->\n).*(?=<!-- end of results -->)", re.DOTALL)
#: File -> title, and for each group of bars its label, case and figure.
BARS: Final = {
    "disk": (
        "On disk, in MB (less is better)",
        (
            ("a chat of 400 turns", "long_chat", "disk_mb"),
            ("the same, streamed", "long_chat_stream", "disk_mb"),
            ("an image of 2 MB and 20 turns", "image", "disk_mb"),
            ("20,000 keys of 1 KB and 50 steps", "big_state", "disk_mb"),
        ),
    ),
    "processor": (
        "Processor time of the server (less is better)",
        (
            ("a run, ms", "wait", "cpu_ms_per_run"),
            ("a step, ms", "steps", "cpu_ms_per_step"),
            ("a streamed token, µs", "stream", "cpu_us_per_event"),
            ("turn 400 of a chat, ms", "long_chat", "cpu_ms_turn_400"),
        ),
    ),
    "speed": (
        "Operations per second (more is better)",
        (
            ("runs that are waited for", "wait", "runs_per_s"),
            ("background runs, until finished", "create", "finished_per_s"),
            ("streamed tokens", "stream", "events_per_s"),
        ),
    ),
    "latency": (
        "Latency (less is better)",
        (
            ("first event of a stream, median ms", "ttfe", "p50_ms"),
            ("cancel, until the run has stopped, median ms", "cancel", "p50_ms"),
            ("start, until the first answer, s", "start", "s"),
        ),
    ),
}
#: File -> title, case and beginning of the figures' names.
LINES: Final = {
    "turns": ("Processor time of a turn of a chat, in ms", "long_chat", "cpu_ms_turn_"),
    "written": ("Written per turn of a chat, in KB", "long_chat", "written_kb_turn_"),
}


def publish(rows: Sequence[Row], sides: Sequence[str], machine: Mapping[str, object]) -> None:
    """Write the charts, and the table into the page."""
    CHARTS.mkdir(exist_ok=True)
    drawn = {**_bars(rows, sides), **_lines(rows, sides)}
    for old in CHARTS.glob("*.svg"):
        old.unlink()
    for name, chart in drawn.items():
        (CHARTS / f"{name}.svg").write_text(chart)
    images = "\n\n".join(f"![{_title(name)}](benchmarks/{name}.svg)" for name in drawn)
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    wanted = {*TARGETS, *((case, figure) for _, groups in BARS.values() for _, case, figure in groups)}
    shown = [row for row in rows if (row.case, row.figure) in wanted]
    found = f"\n{facts}.\n\n{images}\n\n{table(shown, sides)}\n\n"
    PAGE.write_text(_RESULTS.sub(lambda _: found, PAGE.read_text()))


def _title(name: str) -> str:
    return BARS[name][0] if name in BARS else LINES[name][0]


def _label(side: str) -> str:
    return SIDES[side].label if side in SIDES else side


def _bars(rows: Sequence[Row], sides: Sequence[str]) -> dict[str, str]:
    by_name = {(row.case, row.figure): row for row in rows}
    drawn = {}
    for name, (title, wanted) in BARS.items():
        groups = []
        for label, case, figure in wanted:
            row = by_name.get((case, figure))
            if row is not None:
                values = {_label(side): row.sides[side] for side in reversed(sides) if side in row.sides}
                groups.append((label, values))
        if groups:
            drawn[name] = charts.bars(title, groups, _label(RUNLANE))
    return drawn


def _lines(rows: Sequence[Row], sides: Sequence[str]) -> dict[str, str]:
    drawn = {}
    for name, (title, case, prefix) in LINES.items():
        marked = [row for row in rows if row.case == case and row.figure.startswith(prefix)]
        series = {}
        for side in reversed(sides):
            points = [(float(row.figure.removeprefix(prefix)), row.sides[side]) for row in marked if side in row.sides]
            if points:
                series[_label(side)] = points
        if series:
            drawn[name] = charts.lines(title, "turn", series)
    return drawn
