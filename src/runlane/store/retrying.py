"""A driver with the retry policy: what every part of the store runs its transactions with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from runlane.errors import RowsLocked, StoreUnavailable
from runlane.store.retry import PersistenceRetryPolicy, passes
from runlane.store.small_reads import read_small
from runlane.store.statements import Driver, Transaction
from runlane.telemetry.emitter import SILENT, Telemetry

T = TypeVar("T")


class RetryingDriver:
    """Run transactions on *driver*, retrying them while the database is unavailable for a passing reason.

    Every method takes a function that makes the transaction, because a generator can be run only once.

    Raises:
        StoreUnavailable: The policy's retries are used up; nothing was written.
    """

    def __init__(
        self, driver: Driver, retry: PersistenceRetryPolicy | None = None, telemetry: Telemetry = SILENT
    ) -> None:
        self.driver = driver
        self._urgent: Driver = getattr(driver, "urgent", driver)
        self._telemetry = telemetry
        self._unavailable_since: float | None = None
        self._retry = retry or PersistenceRetryPolicy()

    async def write(self, make: Callable[[], Transaction[T]], *, urgent: bool = False) -> T:
        """Commit the transaction and return its result; one that is *urgent* waits for no other kind."""
        driver = self._urgent if urgent else self.driver
        return await self._call(lambda: driver.write(make()))

    async def read(self, make: Callable[[], Transaction[T]], *, urgent: bool = False) -> T:
        """Run the transaction on one consistent snapshot; one that is *urgent* waits for no other kind."""
        driver = self._urgent if urgent else self.driver
        return await self._call(lambda: driver.read(make()))

    async def fast_read(self, make: Callable[[], Transaction[T]]) -> T:
        """Read one small row on the calling thread if the driver can, else as :meth:`read` does."""
        return await read_small(self.driver, make, lambda: self.read(make), snapshot=False)

    async def _call(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Return what *operation* returns, and tell when an outage begins and ends."""
        try:
            found = await self._retry.call(operation)
        except StoreUnavailable as error:
            if self._unavailable_since is None and passes(error) and not isinstance(error, RowsLocked):
                self._unavailable_since = asyncio.get_running_loop().time()
                self._telemetry.store_outage_began(error)
            raise
        if self._unavailable_since is not None:
            self._telemetry.store_outage_ended(duration_s=asyncio.get_running_loop().time() - self._unavailable_since)
            self._unavailable_since = None
        return found
