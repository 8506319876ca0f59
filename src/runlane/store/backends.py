"""What is imported only by those who use it: an optional extra, or a package that is slow to import."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from runlane.errors import ConfigurationError
from runlane.store.migrations import DEFAULT_SCHEMA

if TYPE_CHECKING:
    from runlane.store.postgres import PostgresDriver


def load(module: str) -> Any:
    """Import *module*.

    Raises:
        ConfigurationError: It belongs to the extra ``postgres``, which is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("psycopg", "psycopg_pool"):
            raise
        raise ConfigurationError("PostgreSQL needs an extra: pip install 'runlane[postgres]'.") from error


async def open_postgres(url: str, *, schema: str = DEFAULT_SCHEMA, max_connections: int = 10) -> PostgresDriver:
    """Connect to the database at *url* and return the driver of the ledger in *schema*, for the running event loop.

    Raises:
        ConfigurationError: The extra ``postgres`` is not installed.
        StoreUnavailable: The database cannot be reached.
    """
    postgres = load("runlane.store.postgres")
    driver: PostgresDriver = await postgres.open_postgres(url, schema=schema, max_connections=max_connections)
    return driver
