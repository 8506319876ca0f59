"""What operators see of the workers that share a ledger, and of runs that none of them can execute."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from runlane.store.conditions import RUNNING
from runlane.store.rows import instant, loads
from runlane.store.statements import Transaction, statement
from runlane.store.transactions.heads import GROUPS, OF_BUILD

#: Heads of a group are counted up to here.
MOST_HEADS: Final = 10_000
FLEET = statement(
    "fleet",
    f"""SELECT worker_id, build, capacity, draining, started_at, groups, expires_at - {{now}} AS left_us,
          (SELECT COUNT(*) FROM runs WHERE runs.status = {RUNNING} AND runs.worker_id = workers.worker_id) AS running
        FROM workers ORDER BY started_at, worker_id""",
)
COUNT_HEADS = statement(
    "count_heads",
    "",
    postgres="""SELECT COUNT(seq) AS heads FROM (SELECT head_seq AS seq FROM threads
        WHERE head_group = :group AND head_seq IS NOT NULL AND head_home IS NULL LIMIT :most) AS found""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownWorker:
    """A worker: ``silent`` has not renewed its lease, by the database's clock. ``graphs`` is ``None`` for all."""

    worker_id: str
    build: str
    running: int
    capacity: int
    state: Literal["ready", "draining", "silent"]
    started_at: datetime
    graphs: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranded:
    """Threads whose next run waits for a graph, or a build of it, that no worker has; up to 10,000 are counted."""

    graph_id: str
    build: str | None
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All workers, the longest running first, and what none of them can execute."""

    workers: tuple[ShownWorker, ...]
    stranded: tuple[Stranded, ...]


def fleet() -> Transaction[Fleet]:
    """Return the workers that have not left, and what waits for one that there is not."""
    rows = yield FLEET()
    groups = [None if row["groups"] is None else tuple(loads(row["groups"])) for row in rows]
    shown = [
        ShownWorker(
            worker_id=row["worker_id"],
            build=row["build"],
            running=row["running"],
            capacity=row["capacity"],
            state="silent" if row["left_us"] < 0 else "draining" if row["draining"] else "ready",
            started_at=instant(row["started_at"]),
            graphs=None if of is None else tuple(group for group in of if OF_BUILD not in group),
        )
        for row, of in zip(rows, groups, strict=True)
    ]
    able = [of for worker, of in zip(shown, groups, strict=True) if worker.state == "ready" and worker.capacity]
    stranded = []
    for row in (yield GROUPS()):
        group = row["head_group"]
        graph_id, _, build = group.partition(OF_BUILD)
        if any(group in of if of is not None else not build for of in able):
            continue
        counted = yield COUNT_HEADS(group=group, most=MOST_HEADS)
        stranded.append(Stranded(graph_id=graph_id, build=build or None, threads=counted[0]["heads"]))
    return Fleet(workers=tuple(shown), stranded=tuple(stranded))
