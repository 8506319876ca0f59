"""Heads of lanes: which run of a thread may start next, kept in the thread's row, and who may start it.

On PostgreSQL a thread's row has its lane's head, so that a claim reads what may start and nothing of what waits behind
it. Whatever moves a lane calls :func:`move_head` at its end, under the thread's lock. On SQLite, where one process has
the heads in memory, nothing is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from runlane.settings import Limits
from runlane.store.conditions import HEAD_OF_LANE, IS_DUE, IS_PENDING, RUNNING
from runlane.store.rows import dumps
from runlane.store.statements import Query, Rows, Transaction, statement

#: Between the graph and the build of a group of runs that go on in that build only.
OF_BUILD: Final = "\x1f"
_HEAD: Final = f"""seq, owner, assistant_id, home,
            COALESCE(graph_id, '') || COALESCE('{OF_BUILD}' || pinned_to, '') AS graph"""


def first_of_lane(thread_id: str) -> str:
    """Return the join of the head that the lane of the thread *thread_id*, an expression, is to have: as ``head``."""
    of_lane = f"FROM runs WHERE thread_id = {thread_id} AND {IS_PENDING}"
    return f"""LEFT JOIN LATERAL (
          (SELECT {_HEAD}, 0 AS due {of_lane} AND {IS_DUE} ORDER BY seq LIMIT 1)
          UNION ALL
          (SELECT {_HEAD}, not_before AS due {of_lane} AND NOT {IS_DUE} ORDER BY not_before, seq LIMIT 1)
          LIMIT 1) AS head
          ON NOT EXISTS (SELECT 1 FROM runs WHERE thread_id = {thread_id} AND status = {RUNNING})"""


# Called under the thread's lock. The head is the first run that is due, or else the one that is due first. Nothing is
# written if it is the head already, as when a run is queued behind another.
MOVE_HEAD = statement(
    "move_head",
    "",
    postgres=f"""UPDATE threads SET head_seq = head.seq, head_owner = head.owner,
          head_assistant = COALESCE(head.assistant_id, ''), head_group = head.graph,
          head_due = head.due, head_home = head.home
        FROM (VALUES (1)) AS one {first_of_lane(":thread_id")}
        WHERE thread_id = :thread_id
          AND (head_seq, head_due, head_home) IS DISTINCT FROM (head.seq, head.due, head.home)""",
)
# A share is the heads of one graph, owner and assistant: what holds for one of them holds for all. Shares are found by
# skipping from one to the next in the index of heads, so that a share of 10,000 heads is read as fast as one of one.
# Source: PostgreSQL wiki, "Loose indexscan".
_FREE: Final = "head_seq IS NOT NULL AND head_home IS NULL"
_SHARE: Final = f"SELECT head_owner, head_assistant FROM threads WHERE {_FREE} AND head_group"
_FIRST: Final = "ORDER BY head_owner, head_assistant LIMIT 1"
_HEADS: Final = f"""SELECT thread_id, head_seq, head_owner FROM threads
  WHERE head_group = shares.head_group AND head_owner = shares.head_owner AND head_assistant = shares.head_assistant
    AND {_FREE} AND head_seq NOT IN (SELECT seq FROM busy)"""
# Guard: it is still the thread's head once the row is locked. It locks the threads whose heads it takes, and waits for
# none.
# Threads are looked up and locked one by one, until there are enough: a join could read them all, and lock more.
# The first is of the owner with the fewest running runs, counting those taken before it, and is the oldest of them.
TAKE_HEADS = statement(
    "take_heads",
    f"""WITH found AS (SELECT thread_id, seq, owner FROM runs WHERE {HEAD_OF_LANE}
            AND seq NOT IN (SELECT value FROM json_each(:busy))
            AND (run_id IN (SELECT value FROM json_each(:attached))
              OR (home IS NULL AND (:any_group = 1 OR COALESCE(graph_id, '') IN (SELECT key FROM json_each(:groups)))))
            AND owner NOT IN (SELECT value FROM json_each(:full_owners))
            AND COALESCE(assistant_id, '') NOT IN (SELECT value FROM json_each(:full_assistants))
            AND COALESCE(graph_id, '') NOT IN (SELECT value FROM json_each(:full_graphs)))
        SELECT thread_id, seq, ROW_NUMBER() OVER (PARTITION BY owner ORDER BY seq)
          + (SELECT COUNT(*) FROM runs WHERE runs.owner = found.owner AND status = {RUNNING}) AS turn
        FROM found ORDER BY turn, seq LIMIT :slots""",
    postgres=f"""WITH RECURSIVE
        busy AS (SELECT CAST(jsonb_array_elements_text(CAST(:busy AS jsonb)) AS BIGINT) AS seq),
        full_owners AS (SELECT jsonb_array_elements_text(CAST(:full_owners AS jsonb)) AS value),
        full_assistants AS (SELECT jsonb_array_elements_text(CAST(:full_assistants AS jsonb)) AS value),
        full_graphs AS (SELECT jsonb_array_elements_text(CAST(:full_graphs AS jsonb)) AS value),
        groups AS (SELECT key AS head_group FROM jsonb_each_text(CAST(:groups AS jsonb))
          WHERE value NOT IN (SELECT value FROM full_graphs)),
        shares AS (
          (SELECT head_group, head_owner, head_assistant
             FROM groups, LATERAL ({_SHARE} = groups.head_group {_FIRST}) AS first)
          UNION ALL
          (SELECT shares.head_group, later.head_owner, later.head_assistant
             FROM shares, LATERAL ({_SHARE} = shares.head_group AND (head_owner, head_assistant)
               > (shares.head_owner, shares.head_assistant) {_FIRST}) AS later)),
        found AS (
          SELECT thread_id, head_seq, heads.head_owner FROM shares, LATERAL (
            ({_HEADS} AND head_due = 0 ORDER BY head_seq LIMIT :candidates)
            UNION ALL ({_HEADS} AND head_due > 0 AND head_due <= {{now}} ORDER BY head_due LIMIT :candidates)) AS heads
          WHERE shares.head_owner NOT IN (SELECT value FROM full_owners)
            AND shares.head_assistant NOT IN (SELECT value FROM full_assistants)
          UNION
          SELECT threads.thread_id, head_seq, head_owner FROM runs JOIN threads ON head_seq = seq
            AND threads.thread_id = runs.thread_id AND head_due <= {{now}}
          WHERE run_id IN (SELECT jsonb_array_elements_text(CAST(:attached AS jsonb)))
            AND head_seq NOT IN (SELECT seq FROM busy)
            AND head_owner NOT IN (SELECT value FROM full_owners)
            AND head_assistant NOT IN (SELECT value FROM full_assistants)
            AND COALESCE(graph_id, '') NOT IN (SELECT value FROM full_graphs)),
        loads AS MATERIALIZED (SELECT owners.head_owner, (SELECT COUNT(*) FROM runs WHERE owner = owners.head_owner
            AND status = {RUNNING}) AS running FROM (SELECT DISTINCT head_owner FROM found) AS owners),
        turns AS (SELECT thread_id, head_seq,
            running + ROW_NUMBER() OVER (PARTITION BY head_owner ORDER BY head_seq) AS turn
          FROM found JOIN loads USING (head_owner)),
        first AS (SELECT thread_id, head_seq, turn FROM turns ORDER BY turn, head_seq LIMIT :candidates),
        chosen AS (SELECT locked.thread_id, first.head_seq AS seq, turn FROM first, LATERAL (
            SELECT thread_id FROM threads WHERE thread_id = first.thread_id AND head_seq = first.head_seq
            FOR UPDATE SKIP LOCKED) AS locked LIMIT :slots)
        UPDATE threads SET head_seq = NULL, head_owner = NULL, head_assistant = NULL, head_group = NULL,
          head_due = NULL, head_home = NULL
        FROM chosen WHERE threads.thread_id = chosen.thread_id
        RETURNING chosen.thread_id, chosen.seq, chosen.turn""",
)
# The groups that have a head, for a worker that takes any.
GROUPS = statement(
    "groups_with_heads",
    "",
    postgres=f"""WITH RECURSIVE found AS (
          (SELECT head_group FROM threads WHERE {_FREE} ORDER BY head_group LIMIT 1)
          UNION ALL
          (SELECT following.head_group FROM found, LATERAL (SELECT head_group FROM threads
             WHERE head_group > found.head_group AND {_FREE} ORDER BY head_group LIMIT 1) AS following))
        SELECT head_group FROM found""",
)
ANY_HEAD = statement(
    "any_head",
    f"""SELECT 1 AS found WHERE EXISTS (SELECT 1 FROM runs WHERE {HEAD_OF_LANE} AND home IS NULL
          AND (:any_group = 1 OR COALESCE(graph_id, '') IN {{listed :groups}}))""",
    postgres=f"""SELECT 1 AS found FROM json_array_elements_text(CAST(:groups AS json)) AS wanted
        WHERE EXISTS (SELECT 1 FROM threads WHERE head_group = wanted AND {_FREE}) LIMIT 1""",
)
COUNT_RUNNING = statement(
    "count_running",
    f"""SELECT owner, assistant_id, graph_id, COUNT(*) AS running FROM runs WHERE status = {RUNNING}
        GROUP BY owner, assistant_id, graph_id""",
)
LIMITED_BY = statement(
    "limited_by",
    "SELECT thread_id, seq, owner, assistant_id, graph_id FROM runs WHERE seq IN (SELECT value FROM json_each(:seqs))",
    postgres="""SELECT thread_id, seq, owner, assistant_id, graph_id FROM runs
        WHERE seq IN (SELECT CAST(jsonb_array_elements_text(CAST(:seqs AS jsonb)) AS BIGINT))""",
)
# Claims under one limit take turns, since each has to count what the others claimed. Held until the commit.
LOCK_LIMIT = statement(
    "lock_limit", "", postgres="SELECT 1 AS locked FROM pg_advisory_xact_lock(hashtextextended(:key, 0))"
)
NO_LIMITS: Final = Limits()
#: Heads of a share that are looked at, beyond those that are wanted: others may be about to take some.
SPARE_HEADS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadsWanted:
    """What a worker can start now.

    Attributes:
        slots: How many runs, at most.
        groups: The graph of each group of runs that it can execute; ``None``: all of them.
        attached: Runs whose own code it has.
        busy: The ``seq`` of runs of which it has an attempt, which may have lost its lease.
        limits: Limits that hold for all workers of the ledger together.
    """

    slots: int
    groups: Mapping[str, str] | None = None
    attached: tuple[str, ...] = ()
    busy: tuple[int, ...] = ()
    limits: Limits = NO_LIMITS


class Running:
    """How many runs execute, by what limits count by."""

    def __init__(self, limits: Limits, rows: Rows) -> None:
        self._limits = {"owner": limits.per_owner, "assistant_id": limits.per_assistant, "graph_id": limits.per_graph}
        self._counts: dict[tuple[str, str], int] = {}
        for row in rows:
            self.add(row, row["running"])

    def keys(self, row: Mapping[str, str | None]) -> list[tuple[str, str]]:
        """Return what the limits count the run of *row* by."""
        return [(kind, row[kind] or "") for kind, limit in self._limits.items() if limit and row[kind] is not None]

    def add(self, row: Mapping[str, str | None], number: int = 1) -> None:
        """Count *number* more runs like that of *row*."""
        for key in self.keys(row):
            self._counts[key] = self._counts.get(key, 0) + number

    def admits(self, row: Mapping[str, str | None]) -> bool:
        """Return whether one more run like that of *row* may start."""
        return all(self._counts.get(key, 0) < self._limits[key[0]] for key in self.keys(row))

    def full(self, kind: str) -> str:
        """Return the values of *kind* whose limit is reached, as JSON text."""
        limit = self._limits[kind]
        return dumps([key[1] for key, count in self._counts.items() if key[0] == kind and count >= limit])


def move_head(thread_id: str) -> Transaction[None]:
    """Keep the thread's head right after its lane has moved; call it under the thread's lock."""
    yield MOVE_HEAD(thread_id=thread_id)


def take_heads(wanted: HeadsWanted) -> Transaction[tuple[Rows, Rows]]:
    """Take heads from their threads, which are locked by that, in the order in which they are to start.

    Returns:
        Heads to be claimed, in the order of their turns, and those that a limit holds back after all, as ``thread_id``
        and ``seq``.
    """
    groups = wanted.groups
    if groups is None:
        with_heads = yield from _groups_of_any_build()
        groups = {graph_id: graph_id for graph_id in with_heads}
    limits, running = wanted.limits, Running(wanted.limits, ())
    if limits.shared:
        running = Running(limits, (yield COUNT_RUNNING()))
    found = yield _take(wanted, groups, running)
    taken = sorted(found, key=lambda head: (head["turn"], head["seq"]))
    if not taken or not limits.shared:
        return taken, ()
    rows = yield LIMITED_BY(seqs=dumps([row["seq"] for row in taken]))
    for kind, value in sorted({key for row in rows for key in running.keys(row)}):
        yield LOCK_LIMIT(key=f"runlane {kind} {value}")
    running = Running(limits, (yield COUNT_RUNNING()))
    allowed, held_back = [], []
    by_seq = {row["seq"]: row for row in rows}
    for head in taken:
        row = by_seq[head["seq"]]
        if running.admits(row):
            running.add(row)
            allowed.append(head)
        else:
            held_back.append(head)
    return allowed, held_back


def any_head(groups: Collection[str] | None) -> Transaction[bool]:
    """Return whether a lane has a head of *groups*; ``None``: of any."""
    of_any = groups is None
    if groups is None:
        groups = yield from _groups_of_any_build()
    found = yield ANY_HEAD(groups=dumps(sorted(groups)), any_group=int(of_any))
    return bool(found)


def _groups_of_any_build() -> Transaction[list[str]]:
    rows = yield GROUPS()
    return [row["head_group"] for row in rows if OF_BUILD not in row["head_group"]]


def _take(wanted: HeadsWanted, groups: Mapping[str, str], running: Running) -> Query:
    return TAKE_HEADS(
        any_group=int(wanted.groups is None),
        groups=dumps(groups),
        attached=dumps(wanted.attached),
        busy=dumps(wanted.busy),
        full_owners=running.full("owner"),
        full_assistants=running.full("assistant_id"),
        full_graphs=running.full("graph_id"),
        candidates=wanted.slots + SPARE_HEADS,
        slots=wanted.slots,
    )
