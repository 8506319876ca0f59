"""How long things took on a cluster, from its history: takeovers, hand-overs, and what they had executed again."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from cluster.history import CRON, Facts, Row
from cluster.nodes import Fault
from cluster.verdict import Verdict

#: Effects that a fault may have cost: those of a process that it hit, or whose database it took away.
NOTICES_S = 6.0


def tell_times(facts: Facts, verdict: Verdict, *, lease_s: float) -> None:
    """Add the times of takeovers and hand-overs, and which faults had steps executed again, to *verdict*."""
    lanes: dict[str, list[Row]] = defaultdict(list)
    for move in facts.moves:
        lanes[move["run_id"]].append(move)
    for fault in facts.faults:
        if fault.what == "kill" and not _others(facts, fault, fault.began + lease_s + 2.0):
            verdict.times_s["takeover after kill -9"] += _moved_on(lanes, fault)
    for moves in lanes.values():
        verdict.times_s["hand-over, from one worker to the next"] += _handed_over(moves, facts)
    repeated = _repeated(facts)
    for what in {"terminate": 0, **repeated}:  # a drain loses no work: said also where it has not
        verdict.figures[f"steps repeated after {what}"] = repeated[what]


def _others(facts: Facts, fault: Fault, until: float) -> bool:
    """Return whether the database was away while the runs of a killed worker waited for another one."""
    return any(each.pid is None and each.began <= until and fault.began <= each.ended for each in facts.faults)


def _moved_on(lanes: dict[str, list[Row]], fault: Fault) -> Iterator[float]:
    """Yield how long each run of a killed worker waited until another one executed it."""
    for moves in lanes.values():
        before = [move for move in moves if move["at_s"] <= fault.began]
        if before and before[-1]["status"] == "running" and _by(before[-1], fault):
            after = [move for move in moves if move["at_s"] > fault.began and move["status"] == "running"]
            if after:
                yield after[0]["at_s"] - fault.began


def _handed_over(moves: list[Row], facts: Facts) -> Iterator[float]:
    """Yield for how long nobody executed a run that a worker has handed back, which had a free worker."""
    for first, second, third in zip(moves, moves[1:], moves[2:], strict=False):
        back = (first["status"], second["status"], third["status"]) == ("running", "pending", "running")
        handed = back and first["rescues"] == second["rescues"]
        if handed and any(each.what == "terminate" and _by(first, each) for each in facts.faults):
            yield third["at_s"] - second["at_s"]


def _by(move: Row, fault: Fault) -> bool:
    return f"-{fault.pid}-" in (move["worker_id"] or "")  # a worker's id has the number of its process


def _repeated(facts: Facts) -> Counter[str]:
    """Count the steps that were executed again, by what had happened to the process that executed them first."""
    counts: Counter[str] = Counter()
    of_step: dict[tuple[str, str], list[list[str]]] = defaultdict(list)
    for effect in (each for each in facts.effects if each[0] != CRON):
        of_step[effect[0], effect[1]].append(effect)
    for effects in of_step.values():
        for _, _, _, pid, at in sorted(effects, key=lambda effect: int(effect[2]))[:-1]:
            hit = [
                fault.what
                for fault in facts.faults
                if fault.pid in (int(pid), None)
                and fault.began - 1.0 <= float(at) + NOTICES_S
                and float(at) <= fault.ended
            ]
            counts[hit[0] if hit else "nothing"] += 1
    return counts
