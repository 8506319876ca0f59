"""From figures to a verdict: medians over the rounds, ratios against bare LangGraph, and the targets."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from client import Figures

BARE, RUNLANE, DEV = "bare", "runlane", "langgraph-dev"
#: Of these the worst round counts: one run that failed is not made good by another round.
WORST = ("failed", "unfinished")


@dataclass(frozen=True, slots=True)
class Target:
    """The most, or the least, that a figure of Runlane may be.

    Attributes:
        times: Of the figure of this side.
        above: More than the figure of this side.
    """

    bound: float
    at_least: bool = False
    times: str = ""
    above: str = ""

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        if self.above:
            return f"{sign} {self.above} + {self.bound:g}"
        return f"{sign} {self.bound:g}{f'x {self.times}' if self.times else ''}"

    def met(self, sides: Mapping[str, float]) -> bool | None:
        """Return whether Runlane meets it; None without the figures to tell."""
        value, other = sides.get(RUNLANE), sides.get(self.times or self.above)
        if value is None or ((self.times or self.above) and not other):
            return None
        limit = self.bound * (other or 0) if self.times else self.bound + (other or 0 if self.above else 0)
        return value >= limit if self.at_least else value <= limit


TARGETS = {
    ("wait", "cpu_ms_per_run"): Target(1.4, times=BARE),
    ("create", "finished_per_s"): Target(6, at_least=True, times=DEV),
    ("ttfe", "p50_ms"): Target(1.5, above=BARE),
    ("stream", "events_per_s"): Target(1.3, at_least=True, times=BARE),
    ("idle", "failed"): Target(0),
    ("idle", "wall_of_ideal"): Target(1.2),
    ("idle", "kib_per_run"): Target(40),
    ("cancel", "p50_ms"): Target(3),
    ("cancel", "p99_ms"): Target(8),
    ("steps", "cpu_ms_per_step"): Target(1.2, times=BARE),
    ("history", "list_ms"): Target(8),
    ("control", "ok_p99_ms"): Target(100),
    ("control", "list_p99_ms"): Target(100),
    ("control", "cancel_p99_ms"): Target(100),
    ("long_chat", "disk_mb"): Target(8),
    ("long_chat", "past_retention_mb"): Target(4),
    ("long_chat", "ms_400_of_5"): Target(1.3),
    ("long_chat", "written_400_of_50"): Target(1.5),
    ("long_chat_stream", "disk_mb"): Target(8),
    ("long_chat_stream", "past_retention_mb"): Target(4),
    ("long_chat_stream", "written_400_of_50"): Target(1.5),
    ("image", "disk_mb"): Target(6),
    ("big_state", "disk_mb"): Target(60),
    ("stalled", "memory_mb"): Target(200),
    ("search", "worst_ms"): Target(20),
    ("start", "s"): Target(0.9),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of one case, over all rounds, by side."""

    case: str
    figure: str
    sides: Mapping[str, float]

    @property
    def ratio(self) -> float | None:
        """Runlane's figure over that of bare LangGraph; None if either is missing or nothing."""
        bare, runlane = self.sides.get(BARE), self.sides.get(RUNLANE)
        return runlane / bare if runlane is not None and bare else None

    @property
    def target(self) -> Target | None:
        return TARGETS.get((self.case, self.figure))

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target, or without the figures to tell."""
        return None if self.target is None else self.target.met(self.sides)

    def cells(self, sides: Sequence[str]) -> list[str]:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}x"
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        values = [_number(self.sides.get(side)) for side in sides]
        return [f"`{self.case}`", self.figure, *values, ratio, str(self.target or ""), verdict]


def summarize(rounds: Mapping[str, Mapping[str, Sequence[Figures]]]) -> Iterator[Row]:
    """Give a row per figure, from the rounds' figures by case and side."""
    for case, by_side in rounds.items():
        names = {name: None for results in by_side.values() for figures in results for name in figures}
        for name in names:
            pick = max if name in WORST else statistics.median
            values = {side: [f[name] for f in results if name in f] for side, results in by_side.items()}
            yield Row(case=case, figure=name, sides={side: float(pick(v)) for side, v in values.items() if v})


def table(rows: Sequence[Row], sides: Sequence[str]) -> str:
    """Lay the rows out as a table that is also Markdown."""
    head = ["case", "figure", *sides, f"{RUNLANE}/{BARE}", "target", ""]
    cells = [head, *(row.cells(sides) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    return "\n".join(_line(line, widths) for line in [head, rule, *cells[1:]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    words = (
        cell.ljust(width) if column < 2 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join(words)} |"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
