"""Tables of Procrastinate, which carries permits between processes, in the ledger's schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from procrastinate.schema import SchemaManager
from psycopg import Connection

_APPLIED: Final = "SELECT version FROM job_migrations"


def is_behind(connection: Connection[Any]) -> bool:
    """Return whether the tables are of an earlier version of Procrastinate than the one that is installed, or missing.

    Those of a later version are left as they are: Procrastinate keeps working on newer tables.
    """
    return bool(_missing(connection))


def upgrade(connection: Connection[Any]) -> None:
    """Make the tables, or apply what is missing in them; within the caller's transaction."""
    missing = _missing(connection)
    if not missing:
        return
    if _newest(connection) is None:
        connection.execute(SchemaManager.get_schema().encode())
    else:
        for script in missing:
            connection.execute(script.read_bytes())
    connection.execute("DELETE FROM job_migrations")
    connection.execute("INSERT INTO job_migrations (version) VALUES (%s)", (missing[-1].name,))


def _missing(connection: Connection[Any]) -> list[Path]:
    newest = _newest(connection)
    scripts = sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))
    return [script for script in scripts if newest is None or script.name > newest]


def _newest(connection: Connection[Any]) -> str | None:
    row = connection.execute(_APPLIED).fetchone()
    return None if row is None else row[0]
