"""Migrations of a ledger in PostgreSQL."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Final

import psycopg
from psycopg import Connection, sql

from runlane.errors import ConfigurationError, StoreUnavailable
from runlane.store import migrate_jobs
from runlane.store.migrate import APPLIED, pending, upgrade
from runlane.store.migrations import VERSION_TABLE

#: Names the advisory lock that serialises migrations of one database; any fixed number would do.
MIGRATION_LOCK: Final = 0x52554E4C414E45
CONNECT_TIMEOUT_S: Final = 5
# Queries of the catalogue, and not to_regclass(): that looks into a cache of this session, which does not learn of what
# another one made while this one waited for the advisory lock.
_HAS_SCHEMA: Final = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s"
_HAS_TABLE: Final = "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = %s AND tablename = %s"


def migrate(url: str, schema: str) -> bool:
    """Upgrade the ledger in *schema* of the database at *url* if it is behind, and return whether it was. Blocks.

    Processes that start together take turns, and the later ones find nothing to do.

    Raises:
        ConfigurationError: The schema is a newer version's, it cannot be made, or another application's tables are in
            it.
        StoreUnavailable: The database cannot be reached; the schema is as it was.
    """
    try:
        with closing(_connect(url)) as connection:
            connection.execute("SELECT set_config('search_path', quote_ident(%s), false)", (schema,))
            if not pending(_applied(connection, schema)) and not migrate_jobs.is_behind(connection):
                return False
            with connection.transaction():
                return _upgrade(connection, schema)
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"PostgreSQL says: {str(error).strip()}") from error
    except psycopg.Error as error:
        why = str(error).strip().splitlines()[0]
        raise ConfigurationError(
            f"Schema {schema!r} of the database cannot hold Runlane's tables, PostgreSQL says: {why}"
        ) from error


def _connect(url: str) -> Connection[Any]:
    try:
        return psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True)
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"The database's address cannot be used: {str(error).strip()}") from error


def _upgrade(connection: Connection[Any], schema: str) -> bool:
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
    # Read again, since another process may have upgraded it while this one waited for the lock.
    missing = pending(_applied(connection, schema))
    # A role without the right to make schemas may use one that exists.
    if connection.execute(_HAS_SCHEMA, (schema,)).fetchone() is None:
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    if missing:
        for statement in upgrade("postgres", missing):
            connection.execute(statement.encode())
    behind = migrate_jobs.is_behind(connection)
    if behind:
        migrate_jobs.upgrade(connection)
    return bool(missing) or behind


def _applied(connection: Connection[Any], schema: str) -> list[str]:
    if connection.execute(_HAS_TABLE, (schema, VERSION_TABLE)).fetchone() is None:
        return []
    return [row[0] for row in connection.execute(APPLIED)]
