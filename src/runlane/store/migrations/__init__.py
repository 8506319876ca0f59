"""The ledger's schema: one script of plain SQL per change and dialect, in ``sql/``, applied in the order of names."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, Literal, cast

Dialect = Literal["sqlite", "postgres"]
#: What a change means for processes of the version before: with ``expand`` they keep working, and later ones need it;
#: with ``contract`` they fail, and later ones work without it too; any other makes them fail, and later ones need it.
Kind = Literal["expand", "contract", "break"]

#: Holds the last revision that was applied; a name of its own, since the database may hold other applications' tables.
VERSION_TABLE = "runlane_version"
#: PostgreSQL's schema of all tables, unless something else is said.
DEFAULT_SCHEMA: Final = "runlane"

_KIND: Final = re.compile(r"-- (expand|contract|break)\n")
_INDEX: Final = re.compile(r"CREATE (UNIQUE )?INDEX (\w+) ON (\w+) \((.+?)\)(?:\s+WHERE ([^;]+))?;")
_NO_INDEX: Final = re.compile(r"DROP INDEX (\w+);")


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index of the schema, and the statement that makes it. ``twice`` yields a row if it cannot be unique."""

    name: str
    table: str
    unique: bool
    sql: str
    twice: str


def revisions() -> tuple[str, ...]:
    """Return the numbers of all changes that this version knows, oldest first."""
    names = (entry.name for entry in files(__name__).joinpath("sql").iterdir())
    return tuple(sorted({name.partition("_")[0] for name in names if name.endswith(".sql")}))


#: The newest change that this version knows.
NEWEST: Final = revisions()[-1]


def script(revision: str, dialect: Dialect) -> str:
    """Return the SQL of the change numbered *revision*."""
    for entry in files(__name__).joinpath("sql").iterdir():
        if entry.name.startswith(f"{revision}_") and entry.name.endswith(f".{dialect}.sql"):
            return entry.read_text(encoding="utf-8")
    raise LookupError(f"no script for revision {revision} on {dialect}")


def kind(revision: str, dialect: Dialect) -> Kind:
    """Return what the change numbered *revision* is, as its script's first line says; ``break`` if it does not."""
    found = _KIND.match(script(revision, dialect))
    return "break" if found is None else cast(Kind, found.group(1))


def min_reader(revision: str, dialect: Dialect) -> str:
    """Return the oldest revision that code must know to use the schema as *revision* leaves it."""
    return max(one for one in revisions() if one <= revision and kind(one, dialect) != "expand")


def index_of(sql: str) -> Index | None:
    """Return the index that a statement makes; ``None`` if it is another statement."""
    found = _INDEX.search(sql)
    if found is None:
        return None
    unique, name, table, columns, only = found.groups()
    where = f"WHERE {only}" if only else ""
    twice = f"SELECT 1 FROM {table} {where} GROUP BY {columns} HAVING COUNT(*) > 1 LIMIT 1"
    return Index(name=name, table=table, unique=bool(unique), sql=found.group(), twice=twice)


def statements(sql: str) -> Iterator[str]:
    """Return the statements of a script; a statement ends with the last semicolon of its line."""
    pending = ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending.strip()
            pending = ""
    if pending.strip():
        raise ValueError(f"the script ends within a statement: {pending.strip()[:80]!r}")


def indexes(dialect: Dialect, *, upto: str = NEWEST) -> tuple[Index, ...]:
    """Return the named indexes of the schema as the revision *upto* leaves it."""
    found: dict[str, Index] = {}
    for revision in revisions():
        if revision <= upto:
            for sql in statements(script(revision, dialect)):
                if (gone := _NO_INDEX.search(sql)) is not None:
                    found.pop(gone.group(1), None)
                if (index := index_of(sql)) is not None:
                    found[index.name] = index
    return tuple(found.values())
