"""The check of what a process leaves behind when it shuts down (P6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from runlane.testing.history import Note
from simulation.agents import DEAF
from simulation.world import Simulated


def quiet_after_shutdown(simulated: Simulated) -> Iterator[str]:
    """P6: a process that has shut down has stopped its agents, except those that ignore it, and left no lease behind.

    What it executed when it was told to stop, or since, it ends or hands back, if the ledger answered and it did not
    stand still meanwhile, nor within a lease's time before.
    """
    view = _Shutdowns(simulated.settings.lease_s)
    for note in simulated.history.notes:
        if note.kind in ("killed", "down"):
            yield from view.end(note)
        else:
            view.see(note)


@dataclass
class _Shutdowns:
    """What processes execute and hold, as far as the notes have been read."""

    lease_s: float
    executing: dict[tuple[str, int], Note] = field(default_factory=dict)
    held_by: dict[str, str] = field(default_factory=dict)
    thawed_at: dict[str, float] = field(default_factory=dict)
    stopping: dict[str, tuple[float, set[str]]] = field(default_factory=dict)

    def see(self, note: Note) -> None:
        if note.kind == "begin":
            self.executing[note.run, note.attempt] = note
            if note.process in self.stopping:
                self.stopping[note.process][1].add(note.run)
        elif note.kind == "stop":
            self.executing.pop((note.run, note.attempt), None)
        elif note.kind == "move":
            self.held_by[note.run] = note.worker if note.new == "running" else ""
        elif note.kind == "thawed":
            self.thawed_at[note.process] = note.at_s
        elif note.kind == "stopping" and note.process not in self.stopping:
            self.stopping[note.process] = (note.at_s, {begun.run for begun in self._of(note.process)})

    def end(self, note: Note) -> Iterator[str]:
        for begun in self._of(note.process):
            del self.executing[begun.run, begun.attempt]
            if note.kind == "down" and begun.behaviour not in DEAF:
                yield f"{note.process} went down while {begun.run} attempt {begun.attempt} executed"
        if note.kind == "down":
            yield from self._left(note)

    def _of(self, process: str) -> list[Note]:
        return [begun for begun in self.executing.values() if begun.process == process]

    def _left(self, note: Note) -> Iterator[str]:
        stopping_at, runs = self.stopping.get(note.process, (0.0, set()))
        troubled_until = max(note.troubled_until, self.thawed_at.get(note.process, 0.0))
        if troubled_until and troubled_until + self.lease_s >= stopping_at:
            return
        for run in sorted(runs):
            if self.held_by[run] == note.process:
                yield f"{note.process} went down and left {run} with its lease"
