"""Schema migrations: plain SQL scripts, applied in order, in one transaction.

A table in the database names the last script that was applied, and the oldest that code must know to use the schema. It
is the one that Alembic kept for earlier versions of Runlane, so their databases are upgraded like any other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from runlane.errors import ConfigurationError
from runlane.store.drivers.sqlite import make_shrinkable, translate
from runlane.store.migrations import NEWEST, VERSION_TABLE, Dialect, min_reader, revisions, script, statements

BUSY_TIMEOUT_S: Final = 5.0

#: Begins the version of a database into which a ledger is moved, until all of it is there.
MOVING: Final = "moving "
APPLIED: Final = f"SELECT version_num FROM {VERSION_TABLE}"
#: What a :class:`Version` is made of, where the column is there: see ``HAS_MIN_READER``.
READABLE_BY: Final = f"SELECT version_num, min_reader FROM {VERSION_TABLE}"
#: The same on PostgreSQL, also where it is not: a row's JSON has what its table has.
READABLE_BY_IN_POSTGRES: Final = (
    f"SELECT version_num, to_jsonb(v) ->> 'min_reader' AS min_reader FROM {VERSION_TABLE} AS v"
)
COUNT_MIN_READER: Final = f"SELECT COUNT(*) AS n FROM pragma_table_info('{VERSION_TABLE}') WHERE name = 'min_reader'"
#: The revision that made the column.
HAS_MIN_READER: Final = "0029"
_MAKE_VERSION_TABLE: Final = (
    f"CREATE TABLE IF NOT EXISTS {VERSION_TABLE} "
    f"(version_num VARCHAR(32) NOT NULL, CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
)


class TakesScripts(Protocol):
    """A driver that runs a script at once."""

    def execute_script(self, sql: str) -> None: ...


def apply_scripts(driver: TakesScripts) -> None:
    """Make the whole schema in an empty database that nobody will upgrade: the one of a ``MemoryDriver``."""
    driver.execute_script(_MAKE_VERSION_TABLE)
    for revision in revisions():
        driver.execute_script(script(revision, "sqlite"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What a database says of its schema: the last revision that was applied, and the oldest that code must know."""

    revision: str = ""
    min_reader: str | None = None

    @classmethod
    def of(cls, rows: Sequence[Sequence[str | None]]) -> Version:
        """Return what the rows of the version table say, of which there is one, or none in an empty database."""
        if not rows:
            return cls()
        revision, *rest = rows[0]
        return cls(revision=revision or "", min_reader=rest[0] if rest else None)


def pending(version: Version) -> tuple[str, ...]:
    """Return the revisions that are missing in a database of *version*, oldest first; none in a newer one's.

    Raises:
        ConfigurationError: This code is too old for the schema, or a ledger is moved into the database.
    """
    known = revisions()
    if version.revision.startswith(MOVING):
        raise ConfigurationError(
            "The database is the target of a move that is not complete. Repeat `runlane migrate --from ... --to ...`"
            " with both addresses, or use another database."
        )
    oldest = version.min_reader or version.revision
    if version.revision > NEWEST and oldest > NEWEST:
        raise ConfigurationError(
            f"The database has schema {version.revision}, made by a newer Runlane, which only versions that know schema"
            f" {oldest} can use; this one knows up to {NEWEST}. Use the newer version, or another database."
        )
    return tuple(revision for revision in known if revision > version.revision)


def upgrade(dialect: Dialect, missing: tuple[str, ...]) -> Iterator[str]:
    """Return the statements that apply *missing* and record the last of them, for one transaction."""
    yield _MAKE_VERSION_TABLE
    for revision in missing:
        yield from statements(script(revision, dialect))
    yield from record(missing[-1], dialect)


def record(revision: str, dialect: Dialect) -> Iterator[str]:
    """Return the statements that record *revision* as the last one that was applied."""
    yield f"DELETE FROM {VERSION_TABLE}"
    columns, values = "version_num", f"'{revision}'"
    if revision >= HAS_MIN_READER:
        columns, values = f"{columns}, min_reader", f"{values}, '{min_reader(revision, dialect)}'"
    yield f"INSERT INTO {VERSION_TABLE} ({columns}) VALUES ({values})"


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
            if not pending(_version(connection)):
                return False
            return _in_transaction(connection, _upgrade)
    except sqlite3.Error as error:
        translated = translate(error, path)
        if translated is not error:
            raise translated from error
        raise ConfigurationError(f"{path} cannot hold Runlane's tables, SQLite says: {error}") from error


def has_newer_schema(path: str | Path) -> bool:
    """Return whether a newer version, which this one can work beside, has made the schema of the file at *path*.

    Call it as :func:`migrate_sqlite`, and after it.
    """
    with closing(sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_S)) as connection:
        return _version(connection).revision > NEWEST


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
    missing = pending(_version(connection))
    if missing:
        for sql in upgrade("sqlite", missing):
            connection.execute(sql)
    return bool(missing)


def _version(connection: sqlite3.Connection) -> Version:
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (VERSION_TABLE,)).fetchone() is None:
        return Version()
    [(has_min_reader,)] = connection.execute(COUNT_MIN_READER)
    return Version.of(connection.execute(READABLE_BY if has_min_reader else APPLIED).fetchall())
