"""A driver with the retry policy: what every part of the store runs its transactions with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from runlane.errors import StoreUnavailable
from runlane.store.retry import PersistenceRetryPolicy
from runlane.store.statements import Driver, Transaction

T = TypeVar("T")


class RetryingDriver:
    """Run transactions on *driver*, retrying them while the database is unavailable for a passing reason.

    Every method takes a function that makes the transaction, because a generator can be run only once.

    Raises:
        StoreUnavailable: The policy's retries are used up; nothing was written.
    """

    def __init__(self, driver: Driver, retry: PersistenceRetryPolicy | None = None) -> None:
        self.driver = driver
        self._retry = retry or PersistenceRetryPolicy()
        self._read_now: Callable[..., Any] | None = getattr(driver, "read_now", None)

    async def write(self, make: Callable[[], Transaction[T]]) -> T:
        """Commit the transaction and return its result."""
        return await self._retry.call(lambda: self.driver.write(make()))

    async def read(self, make: Callable[[], Transaction[T]]) -> T:
        """Run the transaction on one consistent snapshot."""
        return await self._retry.call(lambda: self.driver.read(make()))

    async def fast_read(self, make: Callable[[], Transaction[T]]) -> T:
        """Read one small row on the calling thread if the driver can, else as :meth:`read` does."""
        if self._read_now is None:
            return await self.read(make)
        try:
            found: T = self._read_now(make(), snapshot=False)
        except StoreUnavailable:
            return await self.read(make)
        return found
