"""Opening a ledger's database, of any kind.

PostgreSQL has no driver at import time: psycopg is an extra, and slow to import for those who use SQLite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runlane.extras import needs_extra
from runlane.settings import Settings
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.drivers.sqlite import SqliteDriver
from runlane.store.migrate import apply_scripts, migrate_sqlite
from runlane.store.migrations import DEFAULT_SCHEMA
from runlane.store.statements import Driver

if TYPE_CHECKING:
    from collections.abc import Collection

    from runlane.store.drivers.postgres import PostgresDriver
    from runlane.store.migrate_postgres import Migrated

SQLITE: Final = "sqlite:///"
MEMORY: Final = "memory://"


async def open_driver(settings: Settings) -> Driver:
    """Open the ledger's database, with its schema up to date.

    Raises:
        LedgerInUse: Another process owns the SQLite file.
        StoreUnavailable: It cannot be opened.
        ConfigurationError: A newer version made it, or an extra is missing.
    """
    if settings.database.startswith(MEMORY):
        memory = MemoryDriver()
        apply_scripts(memory)
        return memory
    if settings.database.startswith(SQLITE):
        path = settings.database.removeprefix(SQLITE)
        driver = SqliteDriver(path, synchronous="full" if settings.synchronous == "full" else "normal")
        try:
            migrate_sqlite(path)
        except BaseException:
            await driver.aclose()
            raise
        return driver
    migrate_postgres(settings.database, settings.database_schema)
    return await open_postgres(
        settings.database, schema=settings.database_schema, max_connections=settings.database_connections
    )


async def open_postgres(url: str, *, schema: str = DEFAULT_SCHEMA, max_connections: int = 10) -> PostgresDriver:
    """Connect to the database at *url* and return the driver of the ledger in *schema*, for the running event loop.

    Raises:
        ConfigurationError: The extra ``postgres`` is not installed.
        StoreUnavailable: The database cannot be reached.
    """
    with needs_extra("postgres", "PostgreSQL"):
        from runlane.store.drivers import postgres  # noqa: PLC0415  # an extra
    return await postgres.open_postgres(url, schema=schema, max_connections=max_connections)


def migrate_postgres(url: str, schema: str = DEFAULT_SCHEMA) -> bool:
    """Upgrade the ledger in *schema* of the database at *url*: see :func:`runlane.store.migrate_postgres.migrate`.

    Raises:
        ConfigurationError: As there, or the extra ``postgres`` is not installed.
        StoreUnavailable: As there.
    """
    with needs_extra("postgres", "PostgreSQL"):
        from runlane.store import migrate_postgres  # noqa: PLC0415  # an extra
    return migrate_postgres.migrate(url, schema)


def migrate_postgres_beside(url: str, schema: str = DEFAULT_SCHEMA, *, gone: Collection[str] = ()) -> Migrated:
    """Upgrade it beside other processes: see :func:`runlane.store.migrate_postgres.migrate_beside`.

    Raises:
        ConfigurationError: As there, or the extra ``postgres`` is not installed.
        StoreUnavailable: As there.
    """
    with needs_extra("postgres", "PostgreSQL"):
        from runlane.store import migrate_postgres  # noqa: PLC0415  # an extra
    return migrate_postgres.migrate_beside(url, schema, gone=gone)


async def notifications_arrive(settings: Settings) -> bool:
    """Return whether processes on PostgreSQL hear of each other at once; otherwise they poll.

    Raises:
        ConfigurationError: The extra ``postgres`` is not installed.
        StoreUnavailable: The database cannot be reached.
    """
    with needs_extra("postgres", "PostgreSQL"):
        from runlane.store.drivers import postgres_notifications  # noqa: PLC0415  # an extra
    listen = settings.database_direct or settings.database
    return await postgres_notifications.notifications_arrive(settings.database, settings.database_schema, url=listen)
