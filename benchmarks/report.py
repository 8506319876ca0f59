"""From figures to a verdict: medians over the rounds, ratios against bare LangGraph, and the targets."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from load import Figures

BARE, RUNLANE = "bare", "runlane"
#: Of these the worst round counts: one run that failed is not made good by another round.
WORST = ("failed", "unfinished")


@dataclass(frozen=True, slots=True)
class Target:
    """The most that a figure of Runlane may be; of bare LangGraph's figure if ``times_bare``."""

    most: float
    times_bare: bool = False

    def __str__(self) -> str:
        return f"<= {self.most:g}{'x' if self.times_bare else ''}"


TARGETS = {
    ("wait", "cpu_ms_per_run"): Target(2.2, times_bare=True),
    ("ttfe", "p50_ms"): Target(10),
    ("stream", "cpu_us_per_event"): Target(2.7, times_bare=True),
    ("idle", "failed"): Target(0),
    ("idle", "wall_of_ideal"): Target(1.2),
    ("idle", "kib_per_run"): Target(100),
    ("cancel", "p50_ms"): Target(8),
    ("steps", "cpu_ms_per_step"): Target(2.5, times_bare=True),
    ("history", "list_ms"): Target(8),
    ("control", "ok_p99_ms"): Target(100),
    ("control", "list_p99_ms"): Target(100),
    ("control", "cancel_p99_ms"): Target(100),
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
        if self.target is None:
            return None
        value = self.ratio if self.target.times_bare else self.sides.get(RUNLANE)
        return None if value is None else value <= self.target.most

    def cells(self, sides: Sequence[str]) -> list[str]:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}x"
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        values = [_number(self.sides.get(side)) for side in sides]
        return [self.case, self.figure, *values, ratio, str(self.target or ""), verdict]


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
