"""Migrations of a ledger in PostgreSQL, which other processes may be using.

A process that starts applies what is missing only while it is alone. ``runlane migrate`` also expands the schema under
processes of earlier versions, and leaves what would stop them for later.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Final

import psycopg
from psycopg import Connection, errors, sql

from runlane.errors import ConfigurationError, StoreUnavailable
from runlane.store import migrate_jobs
from runlane.store.drivers.postgres_address import parts_of
from runlane.store.drivers.postgres_errors import READ_ONLY, connecting, one_line, outage
from runlane.store.migrate import READABLE_BY_IN_POSTGRES, Version, pending, record, upgrade
from runlane.store.migrations import NEWEST, VERSION_TABLE, index_of, indexes, kind, script, statements

#: Names the advisory lock that serialises migrations of one database; any fixed number would do.
MIGRATION_LOCK: Final = 0x52554E4C414E45
#: Names the one of those that make indexes beside other processes.
_INDEX_LOCK: Final = MIGRATION_LOCK + 1
CONNECT_TIMEOUT_S: Final = 5
#: The revision that made the table in which Procrastinate's are recorded.
_HAS_JOBS: Final = "0027"
#: How long a change waits for what uses its tables, during which others wait behind it; and how often it tries.
_LOCK_TIMEOUT: Final = "1s"
_TRIES: Final = 60
_PAUSE_S: Final = 1.0
# Queries of the catalogue, and not to_regclass(): that looks into a cache of this session, which does not learn of what
# another one made while this one waited for the advisory lock.
_HAS_SCHEMA: Final = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s"
_HAS_TABLE: Final = "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = %s AND tablename = %s"
_HAS_COLUMN: Final = """SELECT 1 FROM information_schema.columns
    WHERE table_schema = %s AND table_name = 'workers' AND column_name = %s"""
# A process whose lease has been over for as long again is dead, unless the database was away for so long.
_LIVE: Final = """SELECT worker_id, {revision} FROM workers
    WHERE expires_at + lease_us > (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint ORDER BY worker_id"""
_VALID_INDEXES: Final = """SELECT c.relname, i.indisvalid FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %s"""

log = logging.getLogger("runlane.migrate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """What became of a migration.

    Attributes:
        applied: Revisions that were applied.
        left: Revisions that were not, since they would stop processes of earlier versions.
        needed: Whether the processes of this version need what was left.
        stops: Those processes.
        changed: Whether anything was changed: also tables of Procrastinate, or indexes.
        newer: Whether the schema is a newer version's, which this one can use.
    """

    applied: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    needed: bool = False
    stops: tuple[str, ...] = ()
    changed: bool = False
    newer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    worker_id: str
    revision: str


def migrate(url: str, schema: str) -> bool:
    """Upgrade the ledger in *schema* of the database at *url* if it is behind, and return whether it did. Blocks.

    Processes that start together take turns, and the later ones find nothing to do. While processes are there already,
    nothing is changed.

    Raises:
        ConfigurationError: The schema is behind while processes use it; it is one that this version cannot use; it
            cannot be made; or another application's tables are in it.
        StoreUnavailable: The database cannot be reached, or what changes cannot be locked; the schema is as it was.
    """
    with _opened(url, schema) as connection:
        missing = pending(_version(connection, schema))
        if not missing and not migrate_jobs.is_behind(connection):
            return False
        if missing and all(kind(revision, "postgres") == "contract" for revision in missing):
            log.info("schema.contract_left revisions=%s", ",".join(missing))
            return False
        return _in_turn(connection, schema, None).changed


def migrate_beside(url: str, schema: str, *, gone: Collection[str] = ()) -> Migrated:
    """Upgrade the ledger as far as the processes that use it allow. Blocks.

    Changes that expand the schema are applied under them, with indexes that are made without blocking writers. The
    others are applied once no process lives that does not know them.

    Args:
        gone: Ids of processes that are gone, whatever their leases say.

    Raises:
        ConfigurationError: As :func:`migrate`, except while processes use it; or another one makes indexes now.
        StoreUnavailable: As there.
    """
    with _opened(url, schema) as connection:
        version = _version(connection, schema)
        done = Migrated()
        if pending(version) or migrate_jobs.is_behind(connection):
            done = _in_turn(connection, schema, gone)
        made = _make_indexes(connection, schema)
        return replace(done, changed=done.changed or made, newer=version.revision > NEWEST)


@contextmanager
def _opened(url: str, schema: str) -> Iterator[Connection[Any]]:
    parts_of(url)
    try:
        with connecting():
            connection = psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True)
        with connection:
            connection.execute("SELECT set_config('search_path', quote_ident(%s), false)", (schema,))
            yield connection
    except (psycopg.OperationalError, READ_ONLY) as error:
        raise outage(error) from error
    except psycopg.Error as error:
        raise ConfigurationError(
            f"Schema {schema!r} of the database cannot hold Runlane's tables, PostgreSQL says: {one_line(error)}"
        ) from error


def _in_turn(connection: Connection[Any], schema: str, gone: Collection[str] | None) -> Migrated:
    """Upgrade in one transaction, which is tried again if what uses the tables does not let go of them.

    Args:
        gone: ``None`` if nothing is to be changed beside other processes.
    """
    why = ""
    for _ in range(_TRIES):
        try:
            with connection.transaction():
                return _upgrade(connection, schema, gone)
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            why = one_line(error)
            log.info("schema.busy why=%s", why)
        time.sleep(_PAUSE_S)
    raise StoreUnavailable(
        f"the schema was not changed, since other transactions kept its tables locked in {_TRIES} tries ({why})",
        remedy="Look for long ones in pg_stat_activity, end them, and repeat.",
    )


def _upgrade(connection: Connection[Any], schema: str, gone: Collection[str] | None) -> Migrated:
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
    connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
    # Read again, since another process may have upgraded it while this one waited for the lock.
    version = _version(connection, schema)
    missing = pending(version)
    others = _live(connection, schema, gone or ())
    if gone is None and others and (missing or migrate_jobs.is_behind(connection)):
        users = ", ".join(one.worker_id for one in others)
        raise ConfigurationError(
            f"The database has schema {version.revision}, this version needs a newer one, and it is in use by {users}."
            " Run `runlane migrate` first, which changes the schema beside them as far as they allow, or stop them."
        )
    allowed = tuple(takewhile(lambda revision: _is_allowed(revision, others), missing))
    # A role without the right to make schemas may use one that exists.
    if connection.execute(_HAS_SCHEMA, (schema,)).fetchone() is None:
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    for statement in _statements(allowed, beside=bool(others)):
        connection.execute(statement.encode())
    left = missing[len(allowed) :]
    reached = allowed[-1] if allowed else version.revision
    jobs = reached >= _HAS_JOBS and migrate_jobs.upgrade(connection, expand_only=bool(others))
    return Migrated(
        applied=allowed,
        left=left,
        needed=any(kind(revision, "postgres") != "contract" for revision in left),
        stops=tuple(one.worker_id for one in others if left and one.revision < left[0]),
        changed=bool(allowed or jobs),
    )


def _is_allowed(revision: str, others: list[_Process]) -> bool:
    return kind(revision, "postgres") == "expand" or all(one.revision >= revision for one in others)


def _statements(revisions: tuple[str, ...], *, beside: bool) -> Iterator[str]:
    """Return the statements that apply *revisions*, for one transaction.

    Args:
        beside: Leave out indexes of tables that others write to; :func:`_make_indexes` makes them.
    """
    if not beside:
        yield from upgrade("postgres", revisions) if revisions else ()
        return
    for revision in revisions:
        for statement in statements(script(revision, "postgres")):
            index = index_of(statement)
            if index is None or index.unique:
                yield statement
    if revisions:
        yield from record(revisions[-1], "postgres")


def _make_indexes(connection: Connection[Any], schema: str) -> bool:
    """Make the indexes that are not there, or not complete, without blocking writers; return whether there were any.

    That takes several transactions, so that a process that is killed leaves some out, or one that is not valid.
    """
    upto = _version(connection, schema).revision
    valid: dict[str, bool] = dict(connection.execute(_VALID_INDEXES, (schema,)).fetchall())
    missing = [index for index in indexes("postgres", upto=upto) if not index.unique and not valid.get(index.name)]
    if not missing:
        return False
    if not _scalar(connection, "SELECT pg_try_advisory_lock(%s)", _INDEX_LOCK):
        raise ConfigurationError("Another `runlane migrate` makes indexes of this database. Wait until it has ended.")
    for index in missing:
        if index.name in valid:
            connection.execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(index.name)))
        connection.execute(index.sql.replace("INDEX", "INDEX CONCURRENTLY", 1).encode())
    return True


def _live(connection: Connection[Any], schema: str, gone: Collection[str]) -> list[_Process]:
    """Return the processes that use the ledger; none begins until the transaction ends."""
    if connection.execute(_HAS_COLUMN, (schema, "expires_at")).fetchone() is None:
        return []
    connection.execute("LOCK TABLE workers IN SHARE MODE")
    known = connection.execute(_HAS_COLUMN, (schema, "revision")).fetchone()
    # Before there was the column, nobody could tell.
    found = connection.execute(_LIVE.format(revision="revision" if known else "NULL").encode()).fetchall()
    return [_Process(worker_id=one, revision=revision or "") for one, revision in found if one not in gone]


def _version(connection: Connection[Any], schema: str) -> Version:
    if connection.execute(_HAS_TABLE, (schema, VERSION_TABLE)).fetchone() is None:
        return Version()
    return Version.of(connection.execute(READABLE_BY_IN_POSTGRES.encode()).fetchall())


def _scalar(connection: Connection[Any], query: str, *params: object) -> Any:
    row = connection.execute(query.encode(), params).fetchone()
    return None if row is None else row[0]
