"""What a history must never show: the promises as predicates over notes and the final ledger.

Each check is named after what it looks at and says which promise it is of. P9, P10, P12 and P13 are about the server
and about real time; they are proved elsewhere.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Final

from runlane.maintenance.rescue import REPAIRS
from runlane.store.transactions.totals import DAY_US, Grain
from runlane.testing.history import Note
from simulation.agents import CONTINUED
from simulation.lanes import fencing, one_lane, order_of_starts, patient_rescues, slots
from simulation.shutdowns import quiet_after_shutdown
from simulation.streams import log_numbers, whole_streams
from simulation.world import Simulated

TERMINAL = ("success", "error", "timeout", "interrupted")
#: What the totals of each grain tell apart.
GRAINS: Final = {
    Grain.ALL: ("graph_id", "build", "status", "end_reason"),
    Grain.OWNER: ("owner", "status"),
    Grain.FULL: ("owner", "graph_id", "build", "status", "end_reason"),
}


def violations(simulated: Simulated) -> list[str]:
    """Return every broken promise, by name; an empty list is a good world."""
    return [f"{check.__name__}: {broken}" for check in CHECKS for broken in check(simulated)]


def one_admission(simulated: Simulated) -> Iterator[str]:
    """P2: what the ledger holds was asked for, once; and what was asked for with a key is one run."""
    asked = {note.run: note for note in simulated.history.of("ask")}
    keys: dict[tuple[str, str], str] = {}
    for run in simulated.runs:
        if run["run_id"] not in asked:
            yield f"{run['run_id']} was admitted and never asked for"
        if run["idempotency_key"] is not None:
            key = (run["thread_id"], run["idempotency_key"])
            if key in keys:
                yield f"{keys[key]} and {run['run_id']} have one idempotency key"
            keys[key] = run["run_id"]
    ids = {run["run_id"] for run in simulated.runs}
    for note in simulated.history.of("told_admitted"):
        if note.run not in ids:
            yield f"{note.run} was admitted to a client and is not in the ledger"
        if not note.reused and note.run != note.asked:
            yield f"who asked for {note.asked} was told of {note.run}"
        if note.reused and note.run != note.asked and note.asked in ids:
            yield f"who asked for {note.asked} was told of {note.run}, and has both"


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
    """P2: at rest everything has ended, no thread is busy, and all is as callers were told."""
    statuses = {run["run_id"]: run["status"] for run in simulated.runs}
    for run_id, status in statuses.items():
        if status not in TERMINAL:
            yield f"{run_id} is {status} at rest"
    for thread in simulated.threads:
        if thread["status"] == "busy":
            yield f"thread {thread['thread_id']} is busy at rest"
    for note in simulated.history.of("told_ending"):
        if statuses.get(note.run) != note.status:
            yield f"a client was told that {note.run} is {note.status}; it is {statuses.get(note.run)}"


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
    for run_id, row in rows.items():
        if row["end_reason"] == "disconnect" and row["on_disconnect"] == "continue":
            yield f"{run_id} was to continue without its client, and was stopped"


def stopped_means_stopped(simulated: Simulated) -> Iterator[str]:
    """P4: who is told "stopped" may rely on it: the attempt that was stopped executes no more.

    Code of a process that stands still, or is cut off for good, is beyond anybody's knowledge.
    """
    executing: dict[tuple[str, int], Note] = {}
    frozen: set[str] = set()
    for note in simulated.history.notes:
        if note.kind == "begin":
            executing[note.run, note.attempt] = note
        elif note.kind == "stop":
            executing.pop((note.run, note.attempt), None)
        elif note.kind in ("killed", "down"):
            executing = {key: begun for key, begun in executing.items() if begun.process != note.process}
        elif note.kind in ("frozen", "thawed"):
            (frozen.add if note.kind == "frozen" else frozen.discard)(note.process)
        elif note.kind == "move" and note.new == "interrupted" and note.stopped:
            begun = executing.get((note.run, note.attempt))
            if begun is not None and begun.process not in frozen:
                yield f"the receipt of {note.run} says stopped while attempt {note.attempt} executes"


def handed_back(simulated: Simulated) -> Iterator[str]:
    """P6: a run that is handed back is charged nothing and keeps every step whose end its agent had saved."""
    saved: dict[str, int] = defaultdict(int)
    told: dict[tuple[str, int], int] = defaultdict(int)
    for note in simulated.history.of("save", "told_saved", "move"):
        if note.kind == "save":
            saved[note.run] = number_of(note) // 2
        elif note.kind == "told_saved":
            told[note.run, note.attempt] = note.step
        elif (note.old, note.new) == ("running", "pending") and note.rescues == note.old_rescues:
            wanted = told[note.run, note.attempt]
            yield from (f"{note.run} was handed back without its step {wanted}" for _ in range(saved[note.run], wanted))


def progress(simulated: Simulated) -> Iterator[str]:
    """P6, P7: an attempt goes on after the last step that was checkpointed."""
    saved: dict[str, int] = defaultdict(int)
    begun: dict[tuple[str, int], int] = {}
    behaviour: dict[str, str] = {}
    for note in simulated.history.of("save", "begin", "step"):
        if note.kind == "save":
            saved[note.run] = number_of(note) // 2
        elif note.kind == "begin":
            behaviour[note.run] = note.behaviour
            begun[note.run, note.attempt] = saved[note.run]
        elif behaviour[note.run] in CONTINUED:
            expected = begun[note.run, note.attempt] + 1
            begun[note.run, note.attempt] = expected
            if note.step != expected:
                yield f"{note.run} attempt {note.attempt} did step {note.step}, not {expected}"


def no_crash_loop(simulated: Simulated) -> Iterator[str]:
    """P7: the code of a run that lost its worker too often is not executed again; the run ends as an error."""
    rescues: dict[tuple[str, int], int] = {}
    limit = simulated.settings.max_rescues
    for note in simulated.history.of("move", "begin"):
        key = (note.run, note.attempt)
        if note.kind == "move":
            rescues.setdefault(key, note.rescues)
        elif rescues.get(key, 0) > limit:
            yield f"{note.run} began again after {rescues[key]} rescues; {limit} are allowed"
    for run in simulated.runs:
        if run["rescues"] > limit and run["status"] not in ("error", "interrupted"):
            yield f"{run['run_id']} ended as {run['status']} after {run['rescues']} rescues; {limit} are allowed"


def valid_threads(simulated: Simulated) -> Iterator[str]:
    """P8: no step of an ended run stands open; of a rolled back run nothing is left; states are of runs that ended."""
    last: dict[str, Note] = {}
    ended: Note | None = None
    for note in simulated.history.of("save", "move", "state"):
        if note.kind == "save":
            last[note.run] = note
        elif note.kind == "move":
            ended = note if note.new in TERMINAL else None
        else:
            values = json.loads(note.values)
            if ended is None or (values["run"], values["attempt"]) != (ended.run, ended.attempt):
                yield f"the state of {note.thread} was written by {values}, which did not end then"
            elif ended.reason == "rolled_back":
                yield f"the state of {note.thread} was written by {ended.run}, which was rolled back"
    rolled_back = {run["run_id"] for run in simulated.runs if run["end_reason"] == "rolled_back"}
    for run_id in sorted(rolled_back & {row["run_id"] for row in simulated.checkpoints}):
        yield f"{run_id} was rolled back and has checkpoints"
    given_up = simulated.settings.max_rescues + REPAIRS
    beyond_repair = {run["run_id"] for run in simulated.runs if run["rescues"] >= given_up}
    for run_id, note in last.items():
        if run_id not in rolled_back | beyond_repair and number_of(note) % 2:
            yield f"{run_id} ended with its checkpoint {note.checkpoint} open"


def at_most_once(simulated: Simulated) -> Iterator[str]:
    """P7: an agent that cannot go on from where it was is not begun twice for one run."""
    begun: set[str] = set()
    for note in simulated.history.of("begin"):
        if note.behaviour not in CONTINUED and note.run in begun:
            yield f"{note.run} ({note.behaviour}) began again in attempt {note.attempt}"
        begun.add(note.run)


def outage_is_not_absence(simulated: Simulated) -> Iterator[str]:
    """P11: a run that exists is never reported as absent."""
    admitted_at = {note.run: note.index for note in simulated.history.of("admit")}
    for note in simulated.history.of("told_absent"):
        if admitted_at.get(note.run, note.index) < note.asked_at:
            yield f"a client was told that {note.run} does not exist"


def outage_ends_no_run(simulated: Simulated) -> Iterator[str]:
    """P7: a run waits for the ledger, for as long as it is out, and does not fail for it."""
    for run in simulated.runs:
        if run["error"] is not None and json.loads(run["error"])["error"] == "StoreUnavailable":
            yield f"{run['run_id']} ended as {run['status']} because the ledger was out"


def heads(simulated: Simulated) -> Iterator[str]:
    """P1: after each commit, the head that is kept of a lane is the run that may start next."""
    for note in simulated.history.of("wrong_head"):
        yield f"in {note.thread}, after a commit of {note.by}, {note.why}"


def totals(simulated: Simulated) -> Iterator[str]:
    """The totals have each run that ended once, in each grain, with how long it executed."""
    for grain, names in GRAINS.items():
        told: Counter[tuple[Any, ...]] = Counter()
        counted: Counter[tuple[Any, ...]] = Counter()
        for run in simulated.runs:
            if run["ended_at"] is not None:
                key = (run["ended_at"] // DAY_US, *(run[name] or "" for name in names))
                executed_us = max(0, run["ended_at"] - (run["started_at"] or run["ended_at"]))
                told.update({("runs", *key): 1, ("executing_us", *key): executed_us})
        for row in simulated.totals:
            if row["grain"] == grain:
                key = (row["day"], *(row[name] for name in names))
                counted.update({(name, *key): row[name] for name in ("runs", "executing_us")})
        for key in told | counted:
            if told[key] != counted[key]:
                yield f"of {key} {counted[key]} are counted, and there are {told[key]}"


def number_of(saved: Note) -> int:
    """Return the number of the checkpoint that was saved; see :class:`simulation.agents.StepAgent`."""
    return int(saved.checkpoint.rpartition("-")[2])


CHECKS: tuple[Callable[[Simulated], Iterator[str]], ...] = (
    one_lane,
    slots,
    order_of_starts,
    one_admission,
    one_ending,
    rest,
    fencing,
    patient_rescues,
    honest_cancel,
    stopped_means_stopped,
    whole_streams,
    log_numbers,
    handed_back,
    quiet_after_shutdown,
    progress,
    no_crash_loop,
    at_most_once,
    valid_threads,
    outage_is_not_absence,
    outage_ends_no_run,
    heads,
    totals,
)
