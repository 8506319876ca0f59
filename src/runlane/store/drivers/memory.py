"""The ledger in memory: the same SQL on a private SQLite database, executed at once on the caller's thread."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

from runlane.errors import LedgerClosed
from runlane.store.drivers.delivery import Callback, on_loop
from runlane.store.drivers.sqlite import CACHED_STATEMENTS, Clock, configure, execute, now_us, translate
from runlane.store.statements import T, Transaction


class MemoryDriver:
    """A :class:`~runlane.store.statements.Driver` whose data ends with the process."""

    def __init__(self, *, clock: Clock = now_us) -> None:
        self._clock = clock
        self._connection = sqlite3.connect(
            ":memory:", isolation_level=None, check_same_thread=False, cached_statements=CACHED_STATEMENTS
        )
        self._lock = threading.Lock()
        self._closed = False
        configure(self._connection)

    async def write(self, transaction: Transaction[T]) -> T:
        return self.apply(transaction)

    async def read(self, transaction: Transaction[T]) -> T:
        return self.apply(transaction)

    def submit(
        self,
        make: Callable[[], Transaction[Any]],
        loop: asyncio.AbstractEventLoop | None,
        callback: Callback,
        *,
        size: int = 0,
    ) -> None:
        """Run a transaction now; *callback* runs on *loop* soon, or without one before this returns."""
        if self._closed:
            raise LedgerClosed
        tell = on_loop(loop, callback)
        try:
            result = self.apply(make())
        except Exception as error:  # noqa: BLE001 - it belongs to the waiter
            tell(None, error)
        else:
            tell(result, None)

    def apply(self, transaction: Transaction[T]) -> T:
        """Run *transaction* atomically on the calling thread."""
        with self._lock:
            if self._closed:
                raise LedgerClosed
            self._connection.execute("BEGIN")
            try:
                result = execute(self._connection, transaction, self._clock())
            except BaseException as error:  # its own effects are undone, and its caller hears it
                self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise translate(error) from error
                raise
            self._connection.execute("COMMIT")
            return result

    def execute_script(self, sql: str) -> None:
        """Run a migration script."""
        self._connection.executescript(sql)

    async def aclose(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._connection.close()
