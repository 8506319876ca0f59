"""Bringing a database's schema up to date, in one transaction: a script that fails leaves it as it was.

Alembic and SQLAlchemy are slow to import, so they are, only once there is something to apply.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Protocol

from runlane.errors import ConfigurationError, StoreUnavailable
from runlane.store import migrations
from runlane.store.backends import load
from runlane.store.migrations import DEFAULT_SCHEMA, VERSION_TABLE, Dialect, revisions, script
from runlane.store.sqlite import translate

#: Names the advisory lock that serialises migrations of one PostgreSQL database; any fixed number would do.
MIGRATION_LOCK: Final = 0x52554E4C414E45
BUSY_TIMEOUT_S: Final = 5.0
CONNECT_TIMEOUT_S: Final = 5

_APPLIED: Final = f"SELECT version_num FROM {VERSION_TABLE}"


class TakesScripts(Protocol):
    """A driver that runs a script at once."""

    def execute_script(self, sql: str) -> None: ...


def schema_scripts(dialect: Dialect) -> tuple[str, ...]:
    """Return every script of *dialect*, oldest first."""
    return tuple(script(revision, dialect) for revision in revisions())


def apply_scripts(driver: TakesScripts) -> None:
    """Make the whole schema in an empty database that nobody will upgrade: the one of a ``MemoryDriver``."""
    for sql in schema_scripts("sqlite"):
        driver.execute_script(sql)


def is_current(applied: Iterable[str]) -> bool:
    """Return whether *applied*, what the version table holds, is this version's schema.

    Raises:
        ConfigurationError: The schema is a newer version's.
    """
    known = revisions()
    found = set(applied)
    unknown = found - set(known)
    if unknown:
        raise ConfigurationError(
            f"The database has schema {max(unknown)}, made by a newer Runlane; this one knows up to {known[-1]}."
            " Use that version, or another database."
        )
    return known[-1] in found


def migrate_sqlite(path: str | Path) -> bool:
    """Upgrade the file at *path* if it is behind, and return whether it was. Blocks.

    Call it while a ``SqliteDriver`` owns the file, before its first transaction: the driver's lock keeps others out.

    Raises:
        ConfigurationError: The schema is a newer version's, or another application's tables are in the way.
        StoreUnavailable: The file cannot be read or written; the schema is as it was.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_S)) as connection:
            if is_current(_applied_in_sqlite(connection)):
                return False
            _upgrade("sqlite://", connection, "BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        translated = translate(error)
        if translated is not error:
            raise translated from error
        raise ConfigurationError(f"{path} cannot hold Runlane's tables, SQLite says: {error}") from error
    return True


def _applied_in_sqlite(connection: sqlite3.Connection) -> list[str]:
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (VERSION_TABLE,)).fetchone() is None:
        return []
    return [row[0] for row in connection.execute(_APPLIED)]


def migrate_postgres(url: str, schema: str = DEFAULT_SCHEMA) -> bool:
    """Upgrade the ledger in *schema* of the database at *url* if it is behind, and return whether it was. Blocks.

    Processes that start together take turns, and the later ones find nothing to do.

    Raises:
        ConfigurationError: The schema is a newer version's, it cannot be made, another application's tables are in it,
            or the extra ``postgres`` is not installed.
        StoreUnavailable: The database cannot be reached; the schema is as it was.
    """
    psycopg = load("psycopg")
    try:
        with closing(_connect(psycopg, url)) as connection:
            connection.execute("SELECT set_config('search_path', quote_ident(%s), false)", (schema,))
            if is_current(_applied_in_postgres(connection)):
                return False
            connection.autocommit = False
            begin = f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
            # Who may not make schemas may use one that is there.
            if connection.execute("SELECT to_regnamespace(%s)", (schema,)).fetchone()[0] is None:
                begin += f'; CREATE SCHEMA IF NOT EXISTS "{schema}"'
            connection.rollback()
            _upgrade("postgresql+psycopg://", connection, begin)
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"PostgreSQL says: {str(error).strip()}") from error
    except psycopg.Error as error:
        why = str(error).strip().splitlines()[0]
        raise ConfigurationError(
            f"Schema {schema!r} of the database cannot hold Runlane's tables, PostgreSQL says: {why}"
        ) from error
    return True


def _connect(psycopg: Any, url: str) -> Any:
    try:
        return psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True)
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"The database's address cannot be used: {str(error).strip()}") from error


def _applied_in_postgres(connection: Any) -> list[str]:
    if connection.execute("SELECT to_regclass(%s)", (VERSION_TABLE,)).fetchone()[0] is None:
        return []
    return [row[0] for row in connection.execute(_APPLIED)]


def _upgrade(url: str, connection: Any, begin: str) -> None:
    """Apply what is missing, in one transaction on *connection* whose first statement is *begin*."""
    sqlalchemy, command, config = load("sqlalchemy"), load("alembic.command"), load("alembic.config").Config()
    config.set_main_option("script_location", str(files(migrations)).replace("%", "%%"))
    engine = sqlalchemy.create_engine(url, creator=lambda: connection, poolclass=sqlalchemy.StaticPool)
    try:
        with engine.begin() as bound:
            bound.exec_driver_sql(begin)
            config.attributes["connection"] = bound
            command.upgrade(config, "head")
    except sqlalchemy.exc.DBAPIError as error:
        raise error.orig from error
