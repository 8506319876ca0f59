"""The ledger's schema: one script of plain SQL per change and dialect, in ``sql/``, applied in the order of names."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from typing import Literal

Dialect = Literal["sqlite", "postgres"]

#: Alembic's table of the applied revision; a name of its own, since the database may hold other applications' tables.
VERSION_TABLE = "runlane_version"


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
