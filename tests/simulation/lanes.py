"""Checks of who executes what: one lane (P1) and fencing (P3)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from runlane.execution.worker import RENEWALS_PER_LEASE
from runlane.maintenance.liveness import GRACE_S, LOOK_EVERY_S
from runlane.testing.history import Note
from simulation.agents import DEAF
from simulation.world import Simulated

Key = tuple[str, int]
TERMINAL = ("success", "error", "timeout", "interrupted")


def one_lane(simulated: Simulated) -> Iterator[str]:
    """P1: one attempt of a thread executes at a time.

    Code that ignores a cancel may still turn; its thread may go on once its lease is over. A process that stood still
    for longer than its leases does not know it at once: when it goes on, it stops its attempts before time passes.
    """
    view = _View()
    for note in simulated.history.notes:
        yield from view.see(note)


@dataclass
class _View:
    """What executes, as far as the notes have been read."""

    thread_of: dict[str, str] = field(default_factory=dict)
    executing: dict[str, dict[Key, Note]] = field(default_factory=lambda: defaultdict(dict))
    frozen: set[str] = field(default_factory=set)
    thawed_at: dict[str, float] = field(default_factory=dict)
    overtaken: set[Key] = field(default_factory=set)

    def see(self, note: Note) -> Iterator[str]:
        if note.kind == "begin":
            yield from self._begin(note)
        elif note.kind == "step":
            yield from self._step(note)
        elif note.kind == "stop":
            self.executing[self.thread_of[note.run]].pop((note.run, note.attempt), None)
        elif note.kind == "frozen":
            self.frozen.add(note.process)
        elif note.kind == "thawed":
            self.frozen.discard(note.process)
            self.thawed_at[note.process] = note.at_s
        elif note.kind in ("killed", "down"):
            for others in self.executing.values():
                for key in [key for key, other in others.items() if other.process == note.process]:
                    del others[key]

    def _begin(self, note: Note) -> Iterator[str]:
        others = self.executing[note.thread]
        self.thread_of[note.run] = note.thread
        for key, other in others.items():
            if other.process in self.frozen or self.thawed_at.get(other.process) == note.at_s:
                self.overtaken.add(key)
            elif self.thawed_at.get(note.process) == note.at_s:  # it stood still after its claim
                self.overtaken.add((note.run, note.attempt))
            elif other.behaviour not in DEAF:
                yield f"{note.run} attempt {note.attempt} began while {other.run} attempt {other.attempt} executed"
        others[note.run, note.attempt] = note

    def _step(self, note: Note) -> Iterator[str]:
        key = (note.run, note.attempt)
        begun = self.executing[self.thread_of[note.run]].get(key)
        lost = key in self.overtaken and begun is not None and begun.behaviour not in DEAF
        if lost and note.at_s > self.thawed_at[begun.process]:
            yield f"{note.run} attempt {note.attempt} went on after its process had stood still and lost it"


def slots(simulated: Simulated) -> Iterator[str]:
    """P1: a process executes no more runs at a time than it has slots; code that ignores a cancel keeps none."""
    executing: dict[str, set[Key]] = defaultdict(set)
    most = simulated.settings.max_concurrent_runs
    for note in simulated.history.of("begin", "stop"):
        if note.kind == "stop":
            for keys in executing.values():
                keys.discard((note.run, note.attempt))
        elif note.behaviour not in DEAF:
            executing[note.process].add((note.run, note.attempt))
            if len(executing[note.process]) > most:
                yield f"{note.process} executed {len(executing[note.process])} runs when {note.run} began"


def order_of_starts(simulated: Simulated) -> Iterator[str]:
    """P1: runs start in the order of their admission; a delayed run joins when it is due."""
    waiting: dict[str, dict[str, int]] = defaultdict(dict)
    thread_of = {note.run: note.thread for note in simulated.history.of("admit")}
    delayed = {run["run_id"] for run in simulated.runs if run["not_before"] > run["created_at"]}
    for note in simulated.history.of("admit", "move"):
        lane = waiting[thread_of[note.run]]
        if note.kind == "admit":
            lane[note.run] = note.seq
        elif note.new in TERMINAL:
            lane.pop(note.run, None)
        elif note.new == "running" and note.old == "pending":
            before = [run for run, seq in lane.items() if seq < lane[note.run] and run not in delayed]
            if before:
                yield f"{note.run} started before {before[0]}, which was admitted earlier"


def fencing(simulated: Simulated) -> Iterator[str]:
    """P3: what an attempt wrote or removed landed while it owned its run; nobody was robbed while its lease ran."""
    yield from _writes(simulated)
    yield from _takings(simulated)


def _writes(simulated: Simulated) -> Iterator[str]:
    decode = msgspec.msgpack.Decoder(list[tuple[str, bytes]]).decode
    for note in simulated.history.of("log"):
        for name, data in decode(note.frames):
            if name in ("step", "metadata") and json.loads(data)["attempt"] != note.attempt:
                yield f"event {note.first} of run seq {note.seq} is of another attempt than {note.attempt}"
        if note.status != "running":
            yield f"event {note.first} of run seq {note.seq} landed while it was {note.status}"
    for note in simulated.history.of("save"):
        if note.status != "running" or not note.checkpoint.startswith(f"{note.attempt:04}-"):
            yield f"checkpoint {note.checkpoint} of {note.run} landed in attempt {note.attempt} ({note.status})"
    for note in simulated.history.of("remove"):
        if note.status != "running" or note.worker != note.by:
            yield f"{note.by} removed {note.checkpoint} of {note.run}, which was {note.status} at {note.worker}"


def _takings(simulated: Simulated) -> Iterator[str]:
    heard_at: dict[str, float] = {}
    claimed_at: dict[str, float] = {}
    for note in simulated.history.of("move", "beat"):
        if note.kind == "beat":
            heard_at[note.worker] = note.at_s
            continue
        if note.old == "pending":
            claimed_at[note.run] = note.at_s
        if note.old != "running" or note.new == "running":
            continue
        who, charged = f"{note.run} attempt {note.attempt}", note.rescues > note.old_rescues
        if note.by == note.held_by and not charged:
            continue  # it was the owner who ended it, or handed it back
        if not charged and note.reason != "worker_lost":
            yield f"{who} was moved to {note.new} by {note.by}, while {note.held_by} had it"
            continue
        # What a process has forgotten it takes from itself, while it lives.
        since = claimed_at[note.run] if note.by == note.held_by else heard_at[note.held_by]
        if note.at_s - since < simulated.settings.lease_s:
            yield f"{who} was taken {note.at_s - since:.2f} s after its worker was heard of"


def patient_rescues(simulated: Simulated) -> Iterator[str]:
    """P3: who was without the ledger, or stood still, takes nothing before a lease of contact.

    What is shorter may hide behind two slow answers and the pause between them.
    """
    lease_s = simulated.settings.lease_s
    hidden_s = 3 * max(lease_s / RENEWALS_PER_LEASE, GRACE_S) + LOOK_EVERY_S
    away = _away(simulated)
    for note in simulated.history.of("rescuing"):
        for began, ended in (*away[""], *away[note.process]):
            until = min(ended, note.at_s)
            if until - began > hidden_s and note.at_s - until < lease_s:
                yield f"{note.process} asked for a rescue {note.at_s - until:.2f} s after {until - began:.2f} s away"


def _away(simulated: Simulated) -> dict[str, list[tuple[float, float]]]:
    """Return from when until when each process was cut off or stood still; with an empty name, all were cut off."""
    away: dict[str, list[tuple[float, float]]] = defaultdict(list)
    cut_off: dict[str, tuple[float, float]] = {}
    frozen_at: dict[str, float] = {}
    for note in simulated.history.of("out", "cut_off", "frozen", "thawed", "calm"):
        if note.kind in ("out", "cut_off"):
            who = note.facts.get("process", "")
            began, ended = cut_off.get(who, (0.0, 0.0))
            if ended > note.at_s:  # it ends when the newer one says
                away[who].remove((began, ended))
            cut_off[who] = began if ended > note.at_s else note.at_s, note.at_s + note.seconds
            away[who].append(cut_off[who])
        elif note.kind == "frozen":
            frozen_at[note.process] = note.at_s
        elif note.kind == "thawed":
            away[note.process].append((frozen_at[note.process], note.at_s))
        else:
            for who, found in away.items():
                away[who] = [(began, min(ended, note.at_s)) for began, ended in found]
    return away
