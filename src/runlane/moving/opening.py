"""The ends of a move, by the addresses of their databases."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from runlane.errors import ConfigurationError
from runlane.moving.ends import End
from runlane.moving.postgres_end import PostgresEnd
from runlane.moving.sqlite_end import SqliteEnd
from runlane.redaction import redact_text
from runlane.store.backends import SQLITE

_POSTGRES: Final = ("postgres://", "postgresql://")


def open_source(database: str, schema: str) -> End:
    """Return the ledger at the address *database*, which has to be there.

    Raises:
        ConfigurationError: There is none, or it is none that can be moved.
    """
    path = database.removeprefix(SQLITE)
    if database.startswith(SQLITE) and not Path(path).is_file():
        raise ConfigurationError(f"The database {path} does not exist, so there is nothing to move.")
    return open_target(database, schema)


def open_target(database: str, schema: str) -> End:
    """Return the database at the address *database*; *schema* is PostgreSQL's.

    Raises:
        ConfigurationError: It is none that can hold a moved ledger.
    """
    if database.startswith(SQLITE):
        return SqliteEnd(database.removeprefix(SQLITE))
    if database.startswith(_POSTGRES):
        return PostgresEnd(database, schema)
    raise ConfigurationError(
        f"{redact_text(database.rpartition('@')[2])} cannot be moved: databases are sqlite:///PATH and postgresql://HOST/NAME."
    )
