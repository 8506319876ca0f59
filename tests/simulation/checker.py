"""What a history must never show: the promises P1 to P5 as predicates over notes and the final ledger."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise

import msgspec

from simulation.agents import DEAF
from simulation.history import Note
from simulation.ledger import EPOCH_US
from simulation.world import Simulated

TERMINAL = ("success", "error", "timeout", "interrupted")


def violations(simulated: Simulated) -> list[str]:
    """Return every broken promise, by name; an empty list is a good world."""
    return [f"{check.__name__}: {broken}" for check in CHECKS for broken in check(simulated)]


def one_ending(simulated: Simulated) -> Iterator[str]:
    """P2: every admitted run reaches one terminal status, once, and nothing moves it afterwards."""
    ended: dict[str, str] = {}
    for note in simulated.history.of("move"):
        if note.run in ended:
            yield f"{note.run} moved from {note.old} to {note.new} after it had ended"
        if note.new in TERMINAL:
            ended[note.run] = note.new
    for note in simulated.history.of("readers_hang", "processes_hang", "livelock"):
        yield f"{note.kind} {note.facts}"


def rest(simulated: Simulated) -> Iterator[str]:
    """P2: at rest everything has ended, and as callers were told."""
    statuses = {run["run_id"]: run["status"] for run in simulated.runs}
    for run_id, status in statuses.items():
        if status not in TERMINAL:
            yield f"{run_id} is {status} at rest"
    for note in simulated.history.of("told_admitted"):
        if note.run not in statuses:
            yield f"{note.run} was admitted to a client and is not in the ledger"
    for thread in simulated.threads:
        if thread["status"] == "busy":
            yield f"thread {thread['thread_id']} is busy at rest"
    for note in simulated.history.of("told_ending"):
        if statuses.get(note.run) != note.status:
            yield f"a client was told that {note.run} is {note.status}; it is {statuses.get(note.run)}"


def one_lane(simulated: Simulated) -> Iterator[str]:
    """P1: one attempt of a thread executes at a time, and runs start in the order of their admission.

    Code that ignores a cancel, or its process's death, may still turn; its thread may go on once its lease is over.
    """
    thread_of: dict[str, str] = {}
    executing: dict[str, dict[tuple[str, int], Note]] = defaultdict(dict)
    for note in simulated.history.notes:
        if note.kind == "begin":
            others = executing[note.thread]
            thread_of[note.run] = note.thread
            for other in others.values():
                if other.behaviour not in DEAF:
                    yield f"{note.run} attempt {note.attempt} began while {other.run} attempt {other.attempt} executed"
            others[note.run, note.attempt] = note
        elif note.kind == "stop":
            executing[thread_of[note.run]].pop((note.run, note.attempt), None)
        elif note.kind in ("killed", "down"):
            for others in executing.values():
                for key in [key for key, other in others.items() if other.process == note.process]:
                    del others[key]
    yield from _order_of_starts(simulated)


def _order_of_starts(simulated: Simulated) -> Iterator[str]:
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
    """P3: what an attempt wrote landed while it owned its run; nobody was robbed while its lease ran."""
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
    for note in simulated.history.of("move"):
        if note.rescues > note.old_rescues and note.lease_until > EPOCH_US + note.at_s * 1_000_000:
            yield f"{note.run} attempt {note.attempt} was taken from a worker whose lease ran"


def progress(simulated: Simulated) -> Iterator[str]:
    """P6, P7: an attempt goes on after the last step that was checkpointed."""
    saved: dict[str, int] = defaultdict(int)
    begun: dict[tuple[str, int], int] = {}
    behaviour: dict[str, str] = {}
    for note in simulated.history.of("save", "begin", "step"):
        if note.kind == "save":
            saved[note.run] = int(note.checkpoint.rpartition("-")[2])
        elif note.kind == "begin":
            behaviour[note.run] = note.behaviour
            begun[note.run, note.attempt] = saved[note.run]
        elif behaviour[note.run] in ("steps", "leaving", "dawdling"):
            expected = begun[note.run, note.attempt] + 1
            begun[note.run, note.attempt] = expected
            if note.step != expected:
                yield f"{note.run} attempt {note.attempt} did step {note.step}, not {expected}"


def honest_cancel(simulated: Simulated) -> Iterator[str]:
    """P4: a recorded cancel is never followed by another ending than the stop, and receipts say what happened."""
    asked: dict[str, Note] = {}
    for note in simulated.history.of("move"):
        if note.action is not None:
            asked.setdefault(note.run, note)
    rows = {run["run_id"]: run for run in simulated.runs}
    for run_id in asked:
        row = rows[run_id]
        if row["status"] != "interrupted":
            yield f"{run_id} was cancelled and then ended as {row['status']} ({row['end_reason']})"
    for note in simulated.history.of("told_cancel"):
        row = rows.get(note.run)
        if row is None:
            yield f"a client has a receipt of {note.run}, which does not exist"
        elif note.action != row["cancel_action"]:
            yield f"a client was told that {note.run} is cancelled by {note.action}; it is {row['cancel_action']}"
    kept = {row["run_id"] for row in simulated.checkpoints}
    for run_id, row in rows.items():
        if row["end_reason"] == "rolled_back" and run_id in kept:
            yield f"{run_id} was rolled back and has checkpoints"
    yield from _stopped_means_stopped(simulated)


def _stopped_means_stopped(simulated: Simulated) -> Iterator[str]:
    executing: dict[tuple[str, int], Note] = {}
    for note in simulated.history.notes:
        if note.kind == "begin":
            executing[note.run, note.attempt] = note
        elif note.kind == "stop":
            executing.pop((note.run, note.attempt), None)
        elif note.kind in ("killed", "down"):
            executing = {key: begun for key, begun in executing.items() if begun.process != note.process}
        elif note.kind == "move" and note.new == "interrupted" and note.stopped:
            for _ in {(note.run, note.attempt)} & executing.keys():
                yield f"the receipt of {note.run} says stopped while attempt {note.attempt} executes"


def whole_streams(simulated: Simulated) -> Iterator[str]:
    """P5: every reader sees every event of the log once, in order, over all its connections, and one end."""
    seen: dict[tuple[str, str], list[Note]] = defaultdict(list)
    ends: dict[tuple[str, str], list[Note]] = defaultdict(list)
    for note in simulated.history.of("read", "end", "gap"):
        key = (note.reader, note.run)
        if note.kind == "gap":
            yield f"{note.reader} of {note.run} was told of a gap before {note.resumes_at}"
        elif note.kind == "end":
            ends[key].append(note)
        elif key in ends:
            yield f"{note.reader} of {note.run} saw event {note.seq} after the end"
        else:
            seen[key].append(note)
    logs, rows = _logs(simulated), {run["run_id"]: run for run in simulated.runs}
    for (reader, run_id), items in ends.items():
        row = rows[run_id]
        yield from _as_the_log(f"{reader} of {run_id}", seen[reader, run_id], items, logs[row["seq"]], row["status"])


def _as_the_log(
    who: str, seen: list[Note], ends: list[Note], log: dict[int, tuple[str, bytes]], status: str
) -> Iterator[str]:
    if [note.seq for note in seen] != sorted(log):
        yield f"{who} saw {[note.seq for note in seen]}; the log has {sorted(log)}"
    for note in seen:
        if log.get(note.seq) != (note.name, note.data):
            yield f"{who} saw another event {note.seq} than the log has"
    if len(ends) != 1:
        yield f"{who} saw {len(ends)} ends"
    if ends[0].status != status:
        yield f"{who} was told {ends[0].status}; it is {status}"
    if log and ends[0].seq <= max(log):
        yield f"{who} got the end as number {ends[0].seq}; the log goes to {max(log)}"


def _logs(simulated: Simulated) -> dict[int, dict[int, tuple[str, bytes]]]:
    decode = msgspec.msgpack.Decoder(list[tuple[str, bytes]]).decode
    logs: dict[int, dict[int, tuple[str, bytes]]] = defaultdict(dict)
    for note in simulated.history.of("log"):
        for offset, (name, data) in enumerate(decode(note.frames)):
            logs[note.seq][note.first + offset] = (name, data)
    return logs


def log_numbers(simulated: Simulated) -> Iterator[str]:
    """P5: a run's log is numbered from 1 without holes or repeats."""
    batches: dict[int, list[Note]] = defaultdict(list)
    for note in simulated.history.of("log"):
        batches[note.seq].append(note)
    for seq, notes in batches.items():
        if notes[0].first != 1 or any(later.first != earlier.last + 1 for earlier, later in pairwise(notes)):
            yield f"the log of run seq {seq} is {[(note.first, note.last) for note in notes]}"


def outage_is_not_absence(simulated: Simulated) -> Iterator[str]:
    """P11: a run that exists is never reported as absent."""
    admitted_at = {note.run: note.index for note in simulated.history.of("admit")}
    for note in simulated.history.of("told_absent"):
        if admitted_at.get(note.run, note.index) < note.asked_at:
            yield f"a client was told that {note.run} does not exist"


def quiet_after_shutdown(simulated: Simulated) -> Iterator[str]:
    """P6: a process that has shut down has stopped its agents, except those that ignore it."""
    executing: dict[tuple[str, int], Note] = {}
    for note in simulated.history.of("begin", "stop", "killed", "down"):
        if note.kind == "begin":
            executing[note.run, note.attempt] = note
        elif note.kind == "stop":
            executing.pop((note.run, note.attempt), None)
        else:
            mine = [begun for begun in executing.values() if begun.process == note.process]
            for begun in mine:
                del executing[begun.run, begun.attempt]
                if note.kind == "down" and begun.behaviour not in DEAF:
                    yield f"{note.process} went down while {begun.run} attempt {begun.attempt} executed"


CHECKS: tuple[Callable[[Simulated], Iterator[str]], ...] = (
    one_ending,
    rest,
    one_lane,
    fencing,
    progress,
    honest_cancel,
    whole_streams,
    log_numbers,
    outage_is_not_absence,
    quiet_after_shutdown,
)
