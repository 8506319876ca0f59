"""How much of the limits on runs is used, by the owners, assistants, graphs and threads with the most.

Only active runs are read, so that it costs the same beside any number of ended ones; of a very long queue a part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from runlane.store.conditions import IS_ACTIVE, IS_PENDING, RUNNING
from runlane.store.statements import Statement, Transaction, statement

#: Users of a limit that are named.
MOST: Final = 10
#: Active runs of which the lanes are counted; in a longer queue not every lane is seen.
MAX_COUNTED: Final = 10_000
Kind = Literal["owner", "assistant", "graph", "thread"]

_RUNNING: Final = f"""SELECT {{column}} AS name, COUNT(*) AS n FROM runs
    WHERE status = {RUNNING} AND {{column}} IS NOT NULL GROUP BY {{group}}
    ORDER BY n DESC, name LIMIT {MOST}"""


def _running_by(kind: str, column: str) -> Statement:
    """Return the statement that counts running runs by *column*; `+` keeps SQLite on the index of running runs."""
    lite, postgres = (_RUNNING.format(column=column, group=group) for group in (f"+{column}", column))
    return statement(f"running_by_{kind}", lite, postgres=postgres)


RUNNING_BY: Final[dict[Kind, Statement]] = {
    "owner": _running_by("owner", "owner"),
    "assistant": _running_by("assistant", "assistant_id"),
    "graph": _running_by("graph", "graph_id"),
}
LONGEST_LANES: Final = statement(
    "longest_lanes",
    f"""SELECT thread_id AS name, COUNT(*) AS n FROM (
          SELECT thread_id FROM runs WHERE {IS_PENDING} ORDER BY thread_id, seq LIMIT {MAX_COUNTED}) AS waiting
        GROUP BY thread_id ORDER BY n DESC, name LIMIT {MOST}""",
)
COUNTED: Final = statement(
    "counted_active", f"SELECT COUNT(*) AS n FROM (SELECT 1 FROM runs WHERE {IS_ACTIVE} LIMIT {MAX_COUNTED}) AS active"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """How many runs of one owner, assistant or graph execute, or wait on one thread."""

    name: str
    use: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitUse:
    """Those with the most, by what a limit is about; ``complete`` is false if a part of the lanes was counted only."""

    most: dict[Kind, tuple[Used, ...]]
    complete: bool


def limit_use() -> Transaction[LimitUse]:
    """Return who uses most of each limit now."""
    most: dict[Kind, tuple[Used, ...]] = {}
    counts: dict[Kind, Statement] = {**RUNNING_BY, "thread": LONGEST_LANES}
    for kind, count in counts.items():
        rows = yield count()
        most[kind] = tuple(Used(name=row["name"], use=row["n"]) for row in rows)
    [counted] = yield COUNTED()
    return LimitUse(most=most, complete=counted["n"] < MAX_COUNTED)
