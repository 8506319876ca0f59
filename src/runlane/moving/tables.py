"""Tables of a ledger, as a database's catalogue has them, and which of them are copied. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from runlane.errors import ConfigurationError
from runlane.store.migrations import VERSION_TABLE

#: Where the target keeps how far a move has come; it is gone when the move is complete.
STATE_TABLE: Final = "runlane_move"
#: Tables that are not copied, each with the reason. All others are.
NOT_COPIED: Final[Mapping[str, str]] = {
    VERSION_TABLE: "each database has its own",
    STATE_TABLE: "it belongs to the move",
    "thread_terms": "a trigger fills it when threads are written",
    "start_orders": "a counter: a table on SQLite, a sequence on PostgreSQL",
    "store_vectors": "made from store_items.vectors by the next process with an index",
    "commits": "of connections to PostgreSQL, whose answers may be lost",
    "job_migrations": "of Procrastinate's tables, whose jobs are hints",
}
_JOBS: Final = "procrastinate_"
#: Columns that SQLite does not have, where there is one process: heads of lanes, which are computed after the copy, and
#: the builds that runs go on in, which are none after it.
POSTGRES_ONLY: Final[Mapping[str, frozenset[str]]] = {
    "runs": frozenset({"pinned_to"}),
    "threads": frozenset(
        {"head_seq", "head_group", "head_owner", "head_assistant", "head_due", "head_home", "paused_in"}
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table; *key* are columns by which rows can be put in an order, none of a table that is copied at once."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


def is_copied(name: str) -> bool:
    """Return whether the table of this name is copied."""
    return name not in NOT_COPIED and not name.startswith(_JOBS)


def copied(source: Mapping[str, Table], target: Mapping[str, Table]) -> tuple[Table, ...]:
    """Return the source's tables that are copied, each with the columns that are.

    Raises:
        ConfigurationError: A table or a column is in one of the databases only, so that it would be lost or left empty.
    """
    names = {name for name in {*source, *target} if is_copied(name)}
    missing = [name for name in names if name not in source or name not in target]
    for name in names.difference(missing):
        different = {*source[name].columns} ^ {*target[name].columns}
        missing += [f"{name}.{column}" for column in different - POSTGRES_ONLY.get(name, frozenset())]
    if missing:
        raise ConfigurationError(
            f"Only one of the databases has {', '.join(sorted(missing))}. Their schemas are not this version's: repair "
            "them with `runlane doctor --repair`."
        )
    return tuple(
        Table(
            name=name,
            columns=tuple(column for column in source[name].columns if column in target[name].columns),
            key=source[name].key,
        )
        for name in sorted(names)
    )
