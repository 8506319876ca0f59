"""What operators see of the workers that share a ledger, and of runs that none of them can execute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from runlane.store.conditions import ASKS, PENDING, RUNNING
from runlane.store.rows import instant, loads, maybe_instant
from runlane.store.statements import Row, Rows, Transaction, statement
from runlane.store.transactions.heads import GROUPS, OF_BUILD

#: Heads of a group are counted up to here.
MOST_HEADS: Final = 10_000
#: Running runs that are named.
MOST_RUNS: Final = 1_000
FLEET = statement(
    "fleet",
    f"""SELECT worker_id, build, capacity, draining, started_at, groups, revision, expires_at - {{now}} AS left_us,
          expires_at - lease_us AS renewed_at, {{now}} - (expires_at - lease_us) AS age_us, host, pid, version, lag_us,
          draining_at, drain_asked_at,
          (SELECT COUNT(*) FROM runs WHERE runs.status = {RUNNING} AND runs.worker_id = workers.worker_id) AS running
        FROM workers ORDER BY started_at, worker_id""",
)
COUNT_HEADS = statement(
    "count_heads",
    "",
    postgres="""SELECT COUNT(seq) AS heads, (SELECT created_at FROM runs WHERE runs.seq = MIN(found.seq)) AS oldest_at
        FROM (SELECT head_seq AS seq FROM threads
          WHERE head_group = :group AND head_seq IS NOT NULL AND head_home IS NULL LIMIT :most) AS found""",
)
# Those that were admitted first.
RUNNING_RUNS = statement(
    "running_runs",
    f"SELECT run_id, worker_id FROM runs WHERE status = {RUNNING} ORDER BY worker_id, seq LIMIT :most",
)
# Paused threads whose runs go on in one build only, among those that have asked the longest.
PARKED = statement(
    "parked",
    "",
    postgres=f"""SELECT paused_in, COUNT(*) AS threads FROM (
          SELECT paused_in FROM threads WHERE {ASKS} ORDER BY state_updated_at, thread_id LIMIT :most) AS asking
        WHERE paused_in IS NOT NULL GROUP BY paused_in ORDER BY paused_in""",
)
# One process has an SQLite file, and executes what is in it.
NEEDS_OF_RUN = statement(
    "needs_of_run",
    "",
    postgres=f"SELECT graph_id, pinned_to, home FROM runs WHERE run_id = :run_id AND status = {PENDING}",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownWorker:
    """A worker: ``silent`` has not renewed its lease, by the database's clock. ``graphs`` is ``None`` for all.

    What versions before did not say is ``None``.

    Attributes:
        revision: The newest schema that its code knows.
        runs: Ids of runs that it executes, those admitted first; of all workers 1,000 are named.
        renewed_at: When it renewed its lease last, which is *renewed_s* ago, both by the database's clock.
        lag_s: For how long the loop of its agents had kept a call waiting then.
        draining_since: Since when it starts no runs, as far as it has said so.
        drain_asked_at: When an operator asked it to drain; ``None`` if none does.
    """

    worker_id: str
    build: str
    running: int
    capacity: int
    state: Literal["ready", "draining", "silent"]
    started_at: datetime
    graphs: tuple[str, ...] | None
    revision: str | None
    runs: tuple[str, ...] = ()
    host: str | None = None
    pid: int | None = None
    version: str | None = None
    renewed_at: datetime
    renewed_s: float
    lag_s: float | None = None
    draining_since: datetime | None = None
    drain_asked_at: datetime | None = None

    @property
    def executes(self) -> bool:
        """Whether it starts runs."""
        return self.state == "ready" and self.capacity > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranded:
    """Threads whose next run waits for a graph, or a build of it, that no worker has; up to 10,000 are counted."""

    graph_id: str
    build: str | None
    threads: int
    oldest_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A build of the graphs: what executes it now, and what goes on in it alone.

    Attributes:
        running: Runs that execute in it.
        parked_threads: Threads that wait for an answer, and go on in it alone; among the 10,000 that have asked the
            longest.
    """

    build: str
    workers: int
    running: int
    parked_threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All workers, the longest running first; the builds that they have or threads wait for; and what none executes."""

    workers: tuple[ShownWorker, ...]
    builds: tuple[Build, ...]
    stranded: tuple[Stranded, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Executors:
    """What a pending run needs of a worker, and which workers have it.

    Attributes:
        graph_id: The graph that it names.
        build: The only build in which it goes on; ``None`` if any will do.
        home: The only worker that has its code; ``None`` if a graph is its code.
        able: Workers that can execute it, also if they have no free slot.
        others: All other workers: without its code, draining, silent, or such as execute nothing.
    """

    graph_id: str | None
    build: str | None
    home: str | None
    able: tuple[ShownWorker, ...]
    others: tuple[ShownWorker, ...]


#: A worker, and the groups of runs that it claims: ``None`` for all that no build is named of.
_Claimer = tuple[ShownWorker, tuple[str, ...] | None]


def fleet() -> Transaction[Fleet]:
    """Return the workers that have not left, and what waits for one that there is not."""
    claimers = yield from _claimers()
    runs: dict[str, list[str]] = {}
    for row in (yield RUNNING_RUNS(most=MOST_RUNS)):
        runs.setdefault(row["worker_id"], []).append(row["run_id"])
    workers = tuple(replace(worker, runs=tuple(runs.get(worker.worker_id, ()))) for worker, _ in claimers)
    builds = _builds(workers, (yield PARKED(most=MOST_HEADS)))
    stranded = []
    for row in (yield GROUPS()):
        group = row["head_group"]
        if any(_can_execute(group, claimer) for claimer in claimers):
            continue
        graph_id, _, build = group.partition(OF_BUILD)
        [counted] = yield COUNT_HEADS(group=group, most=MOST_HEADS)
        if counted["oldest_at"] is not None:  # else heads have gone meanwhile, or the doctor finds them wrong
            stranded.append(
                Stranded(
                    graph_id=graph_id,
                    build=build or None,
                    threads=counted["heads"],
                    oldest_at=instant(counted["oldest_at"]),
                )
            )
    return Fleet(workers=workers, builds=builds, stranded=tuple(stranded))


def _builds(workers: Sequence[ShownWorker], parked: Rows) -> tuple[Build, ...]:
    waiting: Counter[str] = Counter()
    for row in parked:
        waiting[row["paused_in"].partition(OF_BUILD)[2]] += row["threads"]
    return tuple(
        Build(
            build=build,
            workers=sum(worker.build == build for worker in workers),
            running=sum(worker.running for worker in workers if worker.build == build),
            parked_threads=waiting[build],
        )
        for build in sorted({worker.build for worker in workers} | waiting.keys())
    )


def executors(run_id: str) -> Transaction[Executors | None]:
    """Return who can execute a run; ``None`` if it is not pending, or if one process has the ledger."""
    rows = yield NEEDS_OF_RUN(run_id=run_id)
    if not rows:
        return None
    graph_id, build, home = rows[0]["graph_id"], rows[0]["pinned_to"], rows[0]["home"]
    group = f"{graph_id or ''}{'' if build is None else OF_BUILD + build}"
    able: list[ShownWorker] = []
    others: list[ShownWorker] = []
    for claimer in (yield from _claimers()):
        worker, _ = claimer
        has_code = worker.worker_id == home and worker.state == "ready" if home else _can_execute(group, claimer)
        (able if has_code else others).append(worker)
    return Executors(graph_id=graph_id, build=build, home=home, able=tuple(able), others=tuple(others))


def _can_execute(group: str, claimer: _Claimer) -> bool:
    worker, groups = claimer
    return worker.executes and (OF_BUILD not in group if groups is None else group in groups)


def _claimers() -> Transaction[list[_Claimer]]:
    rows = yield FLEET()
    return [_claimer(row) for row in rows]


def _claimer(row: Row) -> _Claimer:
    groups = None if row["groups"] is None else tuple(loads(row["groups"]))
    worker = ShownWorker(
        worker_id=row["worker_id"],
        build=row["build"],
        running=row["running"],
        capacity=row["capacity"],
        state="silent" if row["left_us"] < 0 else "draining" if row["draining"] else "ready",
        started_at=instant(row["started_at"]),
        graphs=None if groups is None else tuple(group for group in groups if OF_BUILD not in group),
        revision=row["revision"],
        host=row["host"],
        pid=row["pid"],
        version=row["version"],
        renewed_at=instant(row["renewed_at"]),
        renewed_s=row["age_us"] / 1_000_000,
        lag_s=None if row["lag_us"] is None else row["lag_us"] / 1_000_000,
        draining_since=maybe_instant(row["draining_at"]),
        drain_asked_at=maybe_instant(row["drain_asked_at"]),
    )
    return worker, groups
