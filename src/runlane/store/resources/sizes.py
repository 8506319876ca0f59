"""How much space the ledger takes."""

from __future__ import annotations

from runlane.store.drivers.sqlite import SqliteDriver, log_bytes
from runlane.store.retrying import RetryingDriver
from runlane.store.transactions import sizes
from runlane.store.transactions.sizes import LedgerSize
from runlane.store.transactions.space import FileSpace, file_space


class Sizes:
    """``store.sizes``."""

    def __init__(self, database: RetryingDriver) -> None:
        self._database = database

    async def database(self) -> FileSpace:
        """Return the size of the database; this costs next to nothing."""
        return await self._database.read(file_space)

    def log_bytes(self) -> int:
        """Return the size of SQLite's write-ahead log; 0 elsewhere."""
        driver = self._database.driver
        return log_bytes(driver.path) if isinstance(driver, SqliteDriver) else 0

    async def table_names(self) -> tuple[str, ...]:
        """Return the tables that can be measured: none if SQLite was built without ``dbstat``."""
        return await self._database.read(sizes.table_names)

    async def table(self, name: str) -> int:
        """Return the bytes of a table and its indexes. In SQLite this looks at each of their pages."""
        return await self._database.read(lambda: sizes.table_bytes(name))

    async def thread(self, thread_id: str) -> LedgerSize:
        """Return what a thread takes beside its checkpoints."""
        return await self._database.read(lambda: sizes.thread_size(thread_id))
