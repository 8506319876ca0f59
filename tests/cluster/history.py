"""What happened on the cluster, as its database and its graphs' effects tell it, and what must be true of that.

Triggers write down each change of a run's status, and each slot of a cron, in the transaction that makes it: what was
not committed is not there, and what was is there in the order of its locks.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from cluster.clients import Asked, Conversation
from cluster.nodes import Cluster, Fault
from cluster.verdict import Verdict

AUDIT = """
CREATE SCHEMA audit;
CREATE TABLE audit.moves (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    thread_id TEXT, seq BIGINT, run_id TEXT, status TEXT, attempt BIGINT, worker_id TEXT, rescues BIGINT
);
CREATE TABLE audit.slots (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    cron_id TEXT, slot BIGINT
);
CREATE FUNCTION audit.move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO audit.moves (thread_id, seq, run_id, status, attempt)
        VALUES (old.thread_id, old.seq, old.run_id, 'deleted', old.attempt);
    ELSIF TG_OP = 'INSERT' OR (old.status, old.attempt) IS DISTINCT FROM (new.status, new.attempt) THEN
        INSERT INTO audit.moves (thread_id, seq, run_id, status, attempt, worker_id, rescues)
        VALUES (new.thread_id, new.seq, new.run_id, new.status, new.attempt, new.worker_id, new.rescues);
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION audit.slot() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF old.last_slot_at IS DISTINCT FROM new.last_slot_at THEN
        INSERT INTO audit.slots (cron_id, slot) VALUES (new.cron_id, new.last_slot_at);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON runlane.runs FOR EACH ROW EXECUTE FUNCTION audit.move();
CREATE TRIGGER audit AFTER UPDATE ON runlane.crons FOR EACH ROW EXECUTE FUNCTION audit.slot();
"""
#: The name of all runs that crons start, and their schedule.
CRON = "cron"
CRON_EVERY_S = 5.0
ACTIVE = ("pending", "running")
#: For how long an attempt may go on after its process could know that it has lost its run.
NOTICES_S = 3.0
#: A shorter outage may fall between two looks at the other workers.
NOTICED_S = 1.5
#: A slot comes this much late at most, with a processor that is busy.
SLOT_LATE_S = 5.0


def watch(dsn: str) -> None:
    """Begin to write the history down."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(AUDIT)


Row = dict[str, Any]


@dataclass(kw_only=True)
class Facts:
    """What the database, the graphs' traces and the tormentor have written down."""

    runs: list[Row]
    threads: list[Row]
    moves: list[Row]
    slots: list[Row]
    crons: list[Row]
    webhooks: list[Row]
    #: Name of a run, step, attempt, process, time.
    effects: list[list[str]]
    faults: list[Fault]


def look(cluster: Cluster) -> Facts:
    """Read the facts of *cluster*."""
    with psycopg.connect(cluster.dsn, row_factory=dict_row) as connection:

        def rows(query: str) -> list[Row]:
            return connection.execute(query.encode()).fetchall()

        return Facts(
            runs=rows(
                "SELECT seq, run_id, thread_id, status, end_reason, attempt, metadata FROM runlane.runs ORDER BY 1"
            ),
            threads=rows("SELECT thread_id, status FROM runlane.threads"),
            moves=rows("SELECT *, extract(epoch FROM at)::float AS at_s FROM audit.moves ORDER BY id"),
            slots=rows("SELECT * FROM audit.slots ORDER BY id"),
            crons=rows("SELECT cron_id, error FROM runlane.crons"),
            webhooks=rows("SELECT run_id, status, attempts FROM runlane.webhook_deliveries"),
            effects=cluster.effects(),
            faults=cluster.faults,
        )


def webhooks_wait(cluster: Cluster) -> bool:
    """Return whether a webhook is still to be sent."""
    with psycopg.connect(cluster.dsn) as connection:
        waiting = "SELECT 1 FROM runlane.webhook_deliveries WHERE status = 'pending' LIMIT 1"
        return connection.execute(waiting).fetchone() is not None


class History:
    """Checks the facts of a cluster that has come to rest."""

    def __init__(self, facts: Facts, verdict: Verdict) -> None:
        self._facts, self._verdict = facts, verdict
        self._by_id = {run["run_id"]: run for run in facts.runs}
        self._effects: dict[str, list[list[str]]] = defaultdict(list)
        for effect in facts.effects:
            self._effects[effect[0]].append(effect)

    def check_lanes(self) -> None:
        """Each run of a thread starts after all before it have ended, once per attempt, and ends once."""
        self._verdict.figures["moves of runs"] = len(self._facts.moves)
        lanes: dict[str, list[Row]] = defaultdict(list)
        for move in self._facts.moves:
            lanes[move["thread_id"]].append(move)
        for moves in lanes.values():
            self._check_lane(moves)
        for run in self._facts.runs:
            if run["status"] in ACTIVE:
                self._verdict.add("left active", str(run))
            if run["end_reason"] == "rolled_back":
                self._verdict.add("rolled back and still there", str(run))
        for thread in self._facts.threads:
            if thread["status"] == "busy":
                self._verdict.add("threads left busy", str(thread))

    def _check_lane(self, moves: Iterable[Row]) -> None:
        lane: dict[int, Row] = {}
        for move in moves:
            seq, status, before = move["seq"], move["status"], lane.get(move["seq"])
            if before is not None and before["status"] not in ACTIVE and status != "deleted":
                self._verdict.add("moved after the end", f"{before} -> {move}")
            if before is not None and move["attempt"] < before["attempt"]:
                self._verdict.add("attempts that go back", f"{before} -> {move}")
            if status == "running":
                others = [run for number, run in lane.items() if number != seq]
                if any(run["status"] == "running" for run in others):
                    self._verdict.add("overlapping in a lane", str(move))
                if any(run["status"] in ACTIVE and run["seq"] < seq for run in others):
                    self._verdict.add("out of order", str(move))
            lane[seq] = move

    def check_rescues(self, lease_s: float) -> None:
        """Nobody takes a run from another before the database has answered for a lease since its last outage."""
        back = [fault.back for fault in self._facts.faults if fault.pid is None and fault.away_s >= NOTICED_S]
        rescues: Counter[str] = Counter()
        for move in self._facts.moves:
            if move["status"] == "deleted" or not move["rescues"] or move["rescues"] == rescues[move["run_id"]]:
                continue
            rescues[move["run_id"]] = move["rescues"]
            for at in back:
                if at <= move["at_s"] < at + lease_s:
                    self._verdict.add("rescued too early after an outage", f"{move['at_s'] - at:.1f} s: {move}")

    def check_runs(self, conversations: Sequence[Conversation]) -> None:
        """Each run that was admitted is there, and ended as it may."""
        for conversation in conversations:
            for one in conversation.admitted:
                self._verdict.figures["runs"] += 1
                run = self._by_id.get(one.run_id)
                status = "gone" if run is None else run["status"]
                self._verdict.figures[f"ended {status}"] += 1
                self._verdict.figures["rescues"] += 0 if run is None else max(0, run["attempt"] - 1)
                if status not in one.endings:
                    self._verdict.add("lost" if status == "gone" else "ended otherwise", f"{one} {run}")
            known = [one.run_id for one in conversation.admitted if one.run_id in self._by_id]
            there = [run["run_id"] for run in self._facts.runs if run["thread_id"] == conversation.thread_id]
            if known != there:
                self._verdict.add("another order or other runs than asked for", f"{known} {there}")

    def check_state(self, conversation: Conversation, log: Sequence[Row]) -> None:
        """The thread's state has each step of each run once, in order, and nothing of what was taken back."""
        entries: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for entry in log:
            entries[entry["run"]].append((entry["step"], entry["attempt"]))
        turns = [name for name, _ in itertools.groupby(entry["run"] for entry in log)]
        names = [one.name for one in conversation.admitted if one.run_id in self._by_id]
        if turns != [name for name in names if name in entries]:
            self._verdict.add("states out of order", f"{conversation.thread_id}: {turns} of {names}")
        for one in conversation.admitted:
            run, steps = self._by_id.get(one.run_id), [step for step, _ in entries[one.name]]
            whole = list(range(1, one.steps + 1))
            if (run and run["status"] == "success" and steps != whole) or steps != whole[: len(steps)]:
                self._verdict.add("steps lost or twice in a state", f"{one} {run} {entries[one.name]}")
            if run is None and steps:
                self._verdict.add("not taken back", f"{one} {entries[one.name]}")
            attempts = [attempt for _, attempt in entries[one.name]]
            if attempts != sorted(attempts):
                self._verdict.add("stale writes", f"{one} {entries[one.name]}")
            self._check_effects(one, dict(entries[one.name]))

    def _check_effects(self, one: Asked, kept: dict[int, int]) -> None:
        effects = self._effects[one.name]
        for _, step, attempt, *_ in effects:
            if int(attempt) > kept.get(int(step), int(attempt)):
                self._verdict.add("checkpointed steps repeated", f"{one} step {step} attempt {attempt}: {kept}")
        self._verdict.figures["steps"] += len(effects)
        self._verdict.figures["steps repeated"] += len(effects) - len({effect[1] for effect in effects})

    def check_processes(self, conversations: Sequence[Conversation]) -> None:
        """No process works on a run that another has taken over, but for the moment in which it learns of it."""
        for conversation in conversations:
            effects = [effect for one in conversation.admitted for effect in self._effects[one.name]]
            order = {one.name: number for number, one in enumerate(conversation.admitted)}
            newest = (-1, 0)
            for name, step, attempt, pid, at in sorted(effects, key=lambda effect: float(effect[4])):
                turn = (order[name], int(attempt))
                if turn < newest and not self._excused(int(pid), float(at)):
                    self._verdict.add(
                        "worked on after a takeover", f"{name} step {step} attempt {attempt} of {pid} at {at}"
                    )
                newest = max(newest, turn)

    def _excused(self, pid: int, at: float) -> bool:
        return any(
            fault.pid in (pid, None) and fault.began <= at <= fault.ended + NOTICES_S for fault in self._facts.faults
        )

    def check_stream(self, one: Asked, replayed: Sequence[Any] | None) -> None:
        """The reader saw each event once, in order, and nothing of an attempt after the next one's start."""
        watched = one.watched or []
        self._verdict.figures["events watched"] += len(watched)
        numbers = [int(event.id.rpartition("-")[2]) if event.id else event.name for event in watched]
        if numbers != list(range(1, len(numbers) + 1)):
            self._verdict.add("streams with gap or repeat", f"{one.name}, {one.status}: {numbers}")
        self._verdict.figures["events lost"] += max(0, len(replayed or ()) - len(watched))
        if replayed is not None and replayed != watched:
            self._verdict.add("streams that differ from the log", f"{one.name}: {len(watched)} of {len(replayed)}")
        attempts = [
            event.data["attempt"]
            for event in watched
            if event.name in ("metadata", "custom") and isinstance(event.data, dict) and "attempt" in event.data
        ]
        if attempts != sorted(attempts):
            self._verdict.add("stale writes", f"{one.name}: {attempts}")

    def check_crons(self) -> None:
        """Each slot of a cron had one run, and none was left out while somebody could fire it."""
        for cron in self._facts.crons:
            slots = [slot for slot in self._facts.slots if slot["cron_id"] == cron["cron_id"]]
            self._verdict.figures["slots"] += len(slots)
            made = [run["run_id"] for run in self._facts.runs if cron["cron_id"] in run["metadata"]]
            if len(made) != len(slots):
                self._verdict.add("cron slots missed or doubled", f"{cron}: {len(made)} runs, {len(slots)} slots")
            for before, after in itertools.pairwise(slots):
                step = (after["slot"] - before["slot"]) / 1e6
                if step <= 0:
                    self._verdict.add("cron slots missed or doubled", f"{before} {after}")
                if step > CRON_EVERY_S and not self._out(before["slot"] / 1e6, after["slot"] / 1e6):
                    self._verdict.add("cron slots missed or doubled", f"{step} s between {before} and {after}")

    def _out(self, began: float, ended: float) -> bool:
        return any(
            fault.pid is None and fault.began - 1 <= ended and began <= fault.ended + SLOT_LATE_S
            for fault in self._facts.faults
        )

    def check_webhooks(self, conversations: Sequence[Conversation], received: Sequence[tuple[str, float]]) -> None:
        """Each run that asked for one had one webhook; another only where a fault may have hidden the first."""
        came: dict[str, list[float]] = defaultdict(list)
        for run_id, at in received:
            came[run_id].append(at)
        self._verdict.figures["webhooks"] = len(came)
        states = {row["run_id"]: row for row in self._facts.webhooks}
        for one in (one for conversation in conversations for one in conversation.admitted if one.webhook):
            if one.run_id not in came and one.run_id in self._by_id and not self._is_due(states.get(one.run_id)):
                self._verdict.add("webhooks missed", f"{one} {states.get(one.run_id)}")
        for run_id, times in came.items():
            self._verdict.figures["webhooks again"] += len(times) - 1
            if len(times) > 1 and not self._hidden(times[0] - 1.0, times[-1] + 1.0):
                self._verdict.add("webhooks doubled", f"{run_id} {times}")

    def _hidden(self, began: float, ended: float) -> bool:
        return any(fault.began <= ended and began <= fault.ended for fault in self._facts.faults)

    def _is_due(self, delivery: Row | None) -> bool:
        return delivery is not None and delivery["status"] == "pending"
