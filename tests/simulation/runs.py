"""Many seeds on all cores: what they broke, how often what went wrong, and how long that took."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from runlane.testing.faults import KINDS
from runlane.testing.virtual_loop import Livelock
from simulation.checker import violations
from simulation.world import run_world

#: Seeds that once broke a promise, one a line, and what it was.
REGRESSIONS: Final = Path(__file__).with_name("regressions.txt")
#: Seeds that a process of the pool takes at a time.
CHUNK: Final = 8


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one seed."""

    seed: int
    broken: list[str]
    faults: Counter[str]
    runs: int = 0


@dataclass
class Tally:
    """What came of many seeds."""

    seeds: int = 0
    runs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failing: dict[int, list[str]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.runs += result.runs
        self.faults += result.faults
        if result.broken:
            self.failing[result.seed] = result.broken

    def line(self) -> str:
        took_s = time.monotonic() - self.began
        return (
            f"{self.seeds} seeds in {took_s:.0f} s ({self.seeds / max(took_s, 0.001):.1f}/s): {self.runs} runs,"
            f" {self.faults.total()} faults, {len(self.failing)} failing seeds"
        )

    def table(self) -> str:
        """Return the faults by kind, all kinds, the most frequent first."""
        kinds = sorted(KINDS, key=lambda kind: -self.faults[kind])
        return "\n".join(f"{self.faults[kind]:>10}  {kind}: {KINDS[kind]}" for kind in kinds)

    def replays(self) -> str:
        """Say of each failing seed what it broke and how it is seen again."""
        return "\n".join(
            f"seed {seed} (./dev simulate {seed}): " + "; ".join(broken[:3]) + f" ({len(broken)} in all)"
            for seed, broken in sorted(self.failing.items())
        )


def simulate(seed: int) -> Result:
    """Simulate *seed* and return what it broke."""
    try:
        world = run_world(seed)
        return Result(seed, violations(world), world.faults, len(world.runs))
    except (Exception, Livelock) as error:  # noqa: BLE001 - of many seeds one may not end; the others are looked at too
        return Result(seed, [f"{type(error).__name__}: {error}"], Counter())


def workers() -> ProcessPoolExecutor:
    """Return a process for each core."""
    # Fresh interpreters: a fork of this one might inherit the lock of a thread that it does not have.
    return ProcessPoolExecutor(mp_context=get_context("spawn"))


def simulate_all(seeds: Iterable[int], pool: ProcessPoolExecutor) -> Iterator[Result]:
    """Simulate *seeds*, and return what came of them in their order."""
    return pool.map(simulate, seeds, chunksize=CHUNK)


def simulate_for(
    seconds: float, first: int, pool: ProcessPoolExecutor, width: int = CHUNK * 4 * (os.cpu_count() or 1)
) -> Iterator[Result]:
    """Simulate seeds from *first* on, *width* at a time, until the time is over."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield from simulate_all(range(first, first + width), pool)
        first += width


def regressions() -> dict[int, str]:
    """Return the seeds that are run in any case, and why."""
    found = {}
    for line in REGRESSIONS.read_text().splitlines():
        if line and not line.startswith("#"):
            seed, _, why = line.partition(" ")
            found[int(seed)] = why.strip()
    return found


def export(result: Result) -> str:
    """Write a seed to the regressions, and return the line."""
    why = result.broken[0] if result.broken else "it broke nothing when it was written down"
    line = f"{result.seed} {' '.join(why.split())}"
    if result.seed not in regressions():
        with REGRESSIONS.open("a") as file:
            file.write(line + "\n")
    return line
