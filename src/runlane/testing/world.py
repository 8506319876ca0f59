"""A world in which an agent of an application is simulated, as its author sees it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from runlane.records import Json, RunRecord
from runlane.testing.history import History, Note


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One request of a client: an ``input``, or a ``command`` (``{"resume", "update", "goto"}``), and more.

    ``options`` are the other fields of a run's request: ``config``, ``context``, ``durability``, ``interrupt_before``.
    """

    input: Any = None
    command: Mapping[str, Any] | None = None
    options: Json = field(default_factory=dict)


class World:
    """One simulated life of a thread. Everything in it is drawn from ``seed``, and time is virtual.

    An agent notes here what it does to the world outside: crashes and rollbacks do not take notes back. Randomness of
    the agent's own comes from ``random``, so that a seed shows the same again. What came of the thread is there for
    the ``check`` alone: ``runs`` in the order of their admission; ``values``, the thread's state as JSON values, as
    ``GET /threads/{thread_id}/state`` has it; and ``events``, for each run's id what its stream showed.
    """

    def __init__(self, seed: int, history: History) -> None:
        self.seed = seed
        self.random = random.Random(f"agent {seed}")
        self.runs: tuple[RunRecord, ...] = ()
        self.values: Any = None
        self.events: dict[str, list[tuple[str, Any]]] = {}
        self._history = history
        self._noted: list[Note] = []
        self._over = False

    @property
    def now_s(self) -> float:
        """Virtual seconds since the beginning."""
        return self._history.clock()

    def note(self, kind: str, /, **facts: Any) -> None:
        """Note that something of *kind* happened; *facts* are anything with a short text."""
        if not self._over:
            self._noted.append(self._history.note(kind, **facts))

    def notes(self, *kinds: str) -> Iterator[Note]:
        """Yield what was noted, of these *kinds* or of all, in order; facts are attributes of a note."""
        return (note for note in self._noted if not kinds or note.kind in kinds)

    def end(self) -> None:
        """From now on nothing is noted: code of processes that died is only cleaning up."""
        self._over = True


@dataclass(frozen=True, slots=True)
class Failure:
    """A seed in which a promise was broken: what, and everything that happened."""

    seed: int
    broken: tuple[str, ...]
    history: str = field(repr=False)


@dataclass
class Report:
    """The result of all seeds. Its text explains it; ``assert not report.failures, report`` is a test."""

    seeds: int = 0
    runs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def __str__(self) -> str:
        faults = ", ".join(f"{kind} {number}" for kind, number in self.faults.most_common())
        endings = ", ".join(f"{status} {number}" for status, number in self.endings.most_common())
        lines = [
            f"{len(self.failures)} of {self.seeds} seeds broke a promise.",
            *(f"seed {failure.seed}: {'; '.join(failure.broken)}" for failure in self.failures[:10]),
            f"{self.runs} runs ended: {endings}.",
            f"{self.faults.total()} faults: {faults}.",
        ]
        if self.failures:
            seed = self.failures[0].seed
            lines.append(f"See what happened: print(simulate(..., seeds=[{seed}]).failures[0].history)")
        return "\n".join(lines)
