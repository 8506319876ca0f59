"""What was found on a cluster, and how much was looked at."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

#: Invariant violations; a report has a row for each, found or not.
LOOKED_FOR = (
    "lost",
    "overlapping in a lane",
    "out of order",
    "checkpointed steps repeated",
    "stale writes",
    "threads left busy",
    "streams with gap or repeat",
    "streams that differ from the log",
    "webhooks missed",
    "webhooks doubled",
    "cron slots missed or doubled",
    "rescued too early after an outage",
    "clients that gave up",
)
#: How many findings of a kind are shown.
SHOWN = 10


@dataclass(slots=True)
class Verdict:
    """What was found, by what it is; and how much was looked at, and how long it took."""

    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    figures: Counter[str] = field(default_factory=Counter)
    times_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, what: str, detail: str) -> None:
        self.found[what].append(detail)

    def __str__(self) -> str:
        kinds = [*LOOKED_FOR, *(what for what in self.found if what not in LOOKED_FOR)]
        rows = [(what, str(count)) for what, count in self.figures.items()]
        rows += [(f"time of {what}", spread(times)) for what, times in self.times_s.items() if times]
        rows += [(f"FOUND {what}", str(len(self.found.get(what, ())))) for what in kinds]
        width = max(len(what) for what, _ in rows)
        shown = [f"  {what}: {detail}" for what, details in self.found.items() for detail in details[:SHOWN]]
        return "\n".join([*(f"{what:{width}}  {value}" for what, value in rows), *shown])


def spread(times_s: Sequence[float]) -> str:
    """Return the median, the 99th percentile and the maximum."""
    ordered = sorted(times_s)
    slow = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"p50 {statistics.median(ordered):.2f} s, p99 {slow:.2f} s, max {ordered[-1]:.2f} s, of {len(ordered)}"
