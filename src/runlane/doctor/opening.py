"""A ledger as it is, for the doctor: it is not migrated, and one that a server owns can be read."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from runlane.errors import ConfigurationError, LedgerInUse, StoreUnavailable
from runlane.settings import Settings
from runlane.store.backends import migrate_postgres, notifications_arrive, open_postgres
from runlane.store.drivers.sqlite import (
    BUSY_TIMEOUT_S,
    SqliteDriver,
    configure,
    is_damage,
    log_bytes,
    now_us,
    read_on,
    translate,
)
from runlane.store.migrate import migrate_sqlite
from runlane.store.statements import T, Transaction

SQLITE: Final = "sqlite:///"
MEMORY: Final = "memory://"


class Database(Protocol):
    """A driver, as far as the doctor needs it."""

    async def read(self, transaction: Transaction[T]) -> T: ...

    async def write(self, transaction: Transaction[T]) -> T: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLedger:
    """A ledger to be examined.

    Attributes:
        sqlite: It is an SQLite file.
        exclusive: No other process uses it, so nothing of it executes.
        in_use: Why it cannot be repaired: a server owns the file.
        migrate: Brings the schema up to date; blocks.
        log_bytes: Returns the size of SQLite's write-ahead log.
        notifications_arrive: Finds out whether processes hear of each other at once; ``None`` if one has it alone.
    """

    database: Database
    sqlite: bool
    exclusive: bool
    in_use: LedgerInUse | None
    migrate: Callable[[], bool]
    log_bytes: Callable[[], int]
    notifications_arrive: Callable[[], Awaitable[bool]] | None = None


@asynccontextmanager
async def open_ledger(settings: Settings) -> AsyncIterator[OpenLedger]:
    """Open the database of *settings*: an SQLite file for this process alone, or for reading if a server owns it.

    Raises:
        ConfigurationError: There is no such file, or the database is in memory.
        StoreUnavailable: It cannot be opened.
    """
    if settings.database.startswith(MEMORY):
        raise ConfigurationError("A database in memory is gone with its process, and cannot be checked.")
    if settings.database.startswith(SQLITE):
        ledger = _open_file(settings, Path(settings.database.removeprefix(SQLITE)))
    else:
        ledger = OpenLedger(
            database=await open_postgres(settings.database, schema=settings.database_schema, max_connections=3),
            sqlite=False,
            exclusive=False,
            in_use=None,
            migrate=partial(migrate_postgres, settings.database, settings.database_schema),
            log_bytes=lambda: 0,
            notifications_arrive=partial(notifications_arrive, settings),
        )
    try:
        yield ledger
    finally:
        await ledger.database.aclose()


def _open_file(settings: Settings, path: Path) -> OpenLedger:
    if not path.is_file():
        raise ConfigurationError(f"The database {path} does not exist, so there is nothing to check.")
    database: Database
    in_use = None
    try:
        database = SqliteDriver(path, synchronous="full" if settings.synchronous == "full" else "normal")
    except LedgerInUse as error:
        database, in_use = ReadOnlyFile(path, error), error
    except StoreUnavailable as error:
        if not is_damaged(error):
            raise
        database = DamagedFile(error)
    return OpenLedger(
        database=database,
        sqlite=True,
        exclusive=in_use is None,
        in_use=in_use,
        migrate=partial(migrate_sqlite, path),
        log_bytes=partial(log_bytes, path),
    )


def is_damaged(error: StoreUnavailable) -> bool:
    """Return whether the database cannot be read because its file is damaged."""
    return is_damage(error.__cause__)


class DamagedFile:
    """A file that cannot even be opened; every use says why."""

    def __init__(self, error: StoreUnavailable) -> None:
        self._error = error

    async def read(self, transaction: Transaction[T]) -> T:
        return await self.write(transaction)

    async def write(self, transaction: Transaction[T]) -> T:
        transaction.close()
        raise self._error

    async def aclose(self) -> None:
        """Nothing is open."""


class ReadOnlyFile:
    """A second connection to a file that another process owns; it writes nothing, and blocks while it reads."""

    def __init__(self, path: Path, owned: LedgerInUse) -> None:
        """Raises:
        StoreUnavailable: The file cannot be opened.
        """
        self._owned = owned
        try:
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S
            )
            configure(self._connection)
        except sqlite3.Error as error:
            raise translate(error, path) from error

    async def read(self, transaction: Transaction[T]) -> T:
        return read_on(self._connection, transaction, now_us)

    async def write(self, transaction: Transaction[T]) -> T:
        """Refuse: the file is another process's."""
        transaction.close()
        raise self._owned

    async def aclose(self) -> None:
        self._connection.close()
