"""Tables of Procrastinate, which carries permits between processes, in the ledger's schema."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from procrastinate.schema import SchemaManager
from psycopg import Connection

_APPLIED: Final = "SELECT version FROM job_migrations"
#: Marks a script after which earlier versions of Procrastinate do not work.
_CONTRACT: Final = "_post_"


def is_behind(connection: Connection[Any]) -> bool:
    """Return whether the tables are of an earlier version of Procrastinate than the one that is installed, or missing.

    Those of a later version are left as they are: Procrastinate keeps working on newer tables.
    """
    return bool(_missing(connection))


def upgrade(connection: Connection[Any], *, expand_only: bool = False) -> bool:
    """Make the tables, or apply what is missing in them, and return whether it did; within the caller's transaction.

    Args:
        expand_only: Apply nothing that stops processes with an earlier version of Procrastinate.
    """
    missing = _missing(connection)
    new = _newest(connection) is None
    if expand_only and not new:
        missing = list(takewhile(lambda script: _CONTRACT not in script.name, missing))
    if not missing:
        return False
    for sql in (SchemaManager.get_schema().encode(),) if new else (script.read_bytes() for script in missing):
        connection.execute(sql)
    connection.execute("DELETE FROM job_migrations")
    connection.execute("INSERT INTO job_migrations (version) VALUES (%s)", (missing[-1].name,))
    return True


def _missing(connection: Connection[Any]) -> list[Path]:
    newest = _newest(connection)
    scripts = sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))
    return [script for script in scripts if newest is None or script.name > newest]


def _newest(connection: Connection[Any]) -> str | None:
    row = connection.execute(_APPLIED).fetchone()
    return None if row is None else row[0]
