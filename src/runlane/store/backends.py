"""PostgreSQL without its driver at import time: psycopg is an extra, and slow to import for those who use SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runlane.extras import needs_extra
from runlane.store.migrations import DEFAULT_SCHEMA

if TYPE_CHECKING:
    from runlane.store.drivers.postgres import PostgresDriver


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
