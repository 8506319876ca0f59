"""Schema migrations: plain SQL scripts, applied in order, in one transaction.

A table in the database names the last script that was applied. It is the one that Alembic kept for earlier versions
of Runlane, so their databases are upgraded like any other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol

from runlane.errors import ConfigurationError
from runlane.store.drivers.sqlite import make_shrinkable, translate
from runlane.store.migrations import VERSION_TABLE, Dialect, revisions, script, statements

BUSY_TIMEOUT_S: Final = 5.0

#: Begins the version of a database into which a ledger is moved, until all of it is there.
MOVING: Final = "moving "
APPLIED: Final = f"SELECT version_num FROM {VERSION_TABLE}"
_MAKE_VERSION_TABLE: Final = (
    f"CREATE TABLE IF NOT EXISTS {VERSION_TABLE} "
    f"(version_num VARCHAR(32) NOT NULL, CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
)


class TakesScripts(Protocol):
    """A driver that runs a script at once."""

    def execute_script(self, sql: str) -> None: ...


def apply_scripts(driver: TakesScripts) -> None:
    """Make the whole schema in an empty database that nobody will upgrade: the one of a ``MemoryDriver``."""
    for revision in revisions():
        driver.execute_script(script(revision, "sqlite"))


def pending(applied: Iterable[str]) -> tuple[str, ...]:
    """Return the revisions that are missing in a database, oldest first.

    Args:
        applied: The rows of its version table: the last revision that was applied, or nothing.

    Raises:
        ConfigurationError: The schema is a newer version's, or a ledger is moved into the database.
    """
    known = revisions()
    found = set(applied)
    unknown = found - set(known)
    if any(revision.startswith(MOVING) for revision in unknown):
        raise ConfigurationError(
            "The database is the target of a move that is not complete. Repeat `runlane migrate --from ... --to ...`"
            " with both addresses, or use another database."
        )
    if unknown:
        raise ConfigurationError(
            f"The database has schema {max(unknown)}, made by a newer Runlane; this one knows up to {known[-1]}."
            " Use that version, or another database."
        )
    newest = max(found, default="")
    return tuple(revision for revision in known if revision > newest)


def upgrade(dialect: Dialect, missing: tuple[str, ...]) -> Iterator[str]:
    """Return the statements that apply *missing* and record the last of them, for one transaction."""
    yield _MAKE_VERSION_TABLE
    for revision in missing:
        yield from statements(script(revision, dialect))
    yield f"DELETE FROM {VERSION_TABLE}"
    yield f"INSERT INTO {VERSION_TABLE} (version_num) VALUES ('{missing[-1]}')"


def migrate_sqlite(path: str | Path) -> bool:
    """Upgrade the file at *path* if it is behind, and return whether it was. Blocks.

    Call it while a ``SqliteDriver`` owns the file, before its first transaction: the driver's lock keeps others out.

    Raises:
        ConfigurationError: The schema is a newer version's, or another application's tables are in the way.
        StoreUnavailable: The file cannot be read or written; the schema is as it was.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_S)) as connection:
            make_shrinkable(connection)
            if not pending(_applied(connection)):
                return False
            return _in_transaction(connection, _upgrade)
    except sqlite3.Error as error:
        translated = translate(error)
        if translated is not error:
            raise translated from error
        raise ConfigurationError(f"{path} cannot hold Runlane's tables, SQLite says: {error}") from error


def _in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], bool]) -> bool:
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = work(connection)
    except BaseException:
        connection.rollback()
        raise
    connection.commit()
    return done


def _upgrade(connection: sqlite3.Connection) -> bool:
    # Read again, since another process may have upgraded it while this one waited for the lock.
    missing = pending(_applied(connection))
    if missing:
        for sql in upgrade("sqlite", missing):
            connection.execute(sql)
    return bool(missing)


def _applied(connection: sqlite3.Connection) -> list[str]:
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (VERSION_TABLE,)).fetchone() is None:
        return []
    return [row[0] for row in connection.execute(APPLIED)]
