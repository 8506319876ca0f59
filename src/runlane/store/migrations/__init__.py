"""The ledger's schema: one script of plain SQL per change and dialect, in ``sql/``, applied in the order of names."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, Literal

Dialect = Literal["sqlite", "postgres"]

#: Holds the last revision that was applied; a name of its own, since the database may hold other applications' tables.
VERSION_TABLE = "runlane_version"
#: PostgreSQL's schema of all tables, unless something else is said.
DEFAULT_SCHEMA: Final = "runlane"

_INDEX: Final = re.compile(r"CREATE (UNIQUE )?INDEX (\w+) ON (\w+) \((.+?)\)(?:\s+WHERE ([^;]+))?;")


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index of the schema, and the statement that makes it. ``twice`` yields a row if it cannot be unique."""

    name: str
    unique: bool
    sql: str
    twice: str


def revisions() -> tuple[str, ...]:
    """Return the numbers of all changes that this version knows, oldest first."""
    names = (entry.name for entry in files(__name__).joinpath("sql").iterdir())
    return tuple(sorted({name.partition("_")[0] for name in names if name.endswith(".sql")}))


def script(revision: str, dialect: Dialect) -> str:
    """Return the SQL of the change numbered *revision*."""
    for entry in files(__name__).joinpath("sql").iterdir():
        if entry.name.startswith(f"{revision}_") and entry.name.endswith(f".{dialect}.sql"):
            return entry.read_text(encoding="utf-8")
    raise LookupError(f"no script for revision {revision} on {dialect}")


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


def indexes(dialect: Dialect) -> Iterator[Index]:
    """Return the named indexes of the newest schema."""
    for revision in revisions():
        for sql in statements(script(revision, dialect)):
            found = _INDEX.search(sql)
            if found is not None:
                unique, name, table, columns, only = found.groups()
                where = f"WHERE {only}" if only else ""
                twice = f"SELECT 1 FROM {table} {where} GROUP BY {columns} HAVING COUNT(*) > 1 LIMIT 1"
                yield Index(name=name, unique=bool(unique), sql=found.group(), twice=twice)
