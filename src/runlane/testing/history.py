"""The history of a simulation, in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

#: Characters of a fact that are shown.
LONGEST_FACT: Final = 200


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that happened at *at_s* of virtual time; what kinds there are says whoever writes them."""

    index: int
    at_s: float
    kind: str
    facts: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.facts[name]
        except KeyError:
            raise AttributeError(name) from None

    def __str__(self) -> str:
        facts = " ".join(f"{name}={str(value)[:LONGEST_FACT]}" for name, value in self.facts.items())
        return f"{self.index:5} {self.at_s:9.4f} {self.kind:12} {facts}"


@dataclass
class History:
    """Notes of agents, clients, processes and the ledger, in one order; and how often the world did what to them."""

    clock: Callable[[], float]
    notes: list[Note] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def note(self, kind: str, /, **facts: Any) -> Note:
        note = Note(len(self.notes), self.clock(), kind, facts)
        self.notes.append(note)
        return note

    def fault(self, kind: str) -> None:
        """Count a fault of *kind*, one of :data:`runlane.testing.faults.KINDS`."""
        self.faults[kind] += 1

    def of(self, *kinds: str) -> Iterator[Note]:
        return (note for note in self.notes if note.kind in kinds)

    def text(self) -> str:
        return "\n".join(str(note) for note in self.notes)
