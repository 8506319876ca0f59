"""Checks of streams (P5): every reader sees the log, once, in order, over all its connections, and one end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec

from runlane.testing.history import Note
from simulation.world import Simulated

Log = dict[int, tuple[str, bytes]]


@dataclass
class _Reading:
    """What one reader of one run was shown."""

    seen: list[Note] = field(default_factory=list)
    gaps: list[Note] = field(default_factory=list)
    ends: list[Note] = field(default_factory=list)


def whole_streams(simulated: Simulated) -> Iterator[str]:
    """P5: every reader sees every event of the log once and in order, but for what it was told is gone; and one end."""
    readings: dict[tuple[str, str], _Reading] = defaultdict(_Reading)
    for note in simulated.history.of("read", "end", "gap"):
        reading = readings[note.reader, note.run]
        if reading.ends and note.kind != "end":
            yield f"{note.reader} of {note.run} saw a {note.kind} after the end"
        {"read": reading.seen, "end": reading.ends, "gap": reading.gaps}[note.kind].append(note)
    logs, rows = _logs(simulated), {run["run_id"]: run for run in simulated.runs}
    purged_at = {note.seq: note.index for note in reversed(list(simulated.history.of("purge")))}
    for (reader, run_id), reading in readings.items():
        row = rows[run_id]
        who = f"{reader} of {run_id}"
        for gap in reading.gaps:
            if purged_at.get(row["seq"], gap.index) >= gap.index:
                yield f"{who} was told of a gap before {gap.resumes_at}, and nothing was removed"
        if reading.ends:
            yield from _as_the_log(who, reading, logs[row["seq"]])
            yield from _one_end(who, reading.ends, logs[row["seq"]], row["status"])


def _as_the_log(who: str, reading: _Reading, log: Log) -> Iterator[str]:
    gone = {seq for gap in reading.gaps for seq in range(gap.after + 1, gap.resumes_at)}
    seen = [note.seq for note in reading.seen]
    if seen != [seq for seq in sorted(log) if seq not in gone] or gone & set(seen):
        yield f"{who} saw {seen}; the log has {sorted(log)}, of which it was told that {sorted(gone)} are gone"
    for note in reading.seen:
        if log.get(note.seq) != (note.name, note.data):
            yield f"{who} saw another event {note.seq} than the log has"


def _one_end(who: str, ends: list[Note], log: Log, status: str) -> Iterator[str]:
    if len(ends) != 1:
        yield f"{who} saw {len(ends)} ends"
    if ends[0].status != status:
        yield f"{who} was told {ends[0].status}; it is {status}"
    if log and ends[0].seq <= max(log):
        yield f"{who} got the end as number {ends[0].seq}; the log goes to {max(log)}"


def _logs(simulated: Simulated) -> dict[int, Log]:
    decode = msgspec.msgpack.Decoder(list[tuple[str, bytes]]).decode
    logs: dict[int, Log] = defaultdict(dict)
    for note in simulated.history.of("log"):
        for offset, (name, data) in enumerate(decode(note.frames)):
            logs[note.seq][note.first + offset] = (name, data)
    return logs


def log_numbers(simulated: Simulated) -> Iterator[str]:
    """P5: a run's log is numbered from 1 without holes or repeats, and removed only after its run has ended."""
    batches: dict[int, list[Note]] = defaultdict(list)
    for note in simulated.history.of("log"):
        batches[note.seq].append(note)
    for seq, notes in batches.items():
        if notes[0].first != 1 or any(later.first != earlier.last + 1 for earlier, later in pairwise(notes)):
            yield f"the log of run seq {seq} is {[(note.first, note.last) for note in notes]}"
    for note in simulated.history.of("purge"):
        if note.status in ("pending", "running"):
            yield f"events of run seq {note.seq} were removed while it was {note.status}"
