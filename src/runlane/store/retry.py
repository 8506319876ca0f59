"""Trying again what failed for a passing reason."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from runlane.errors import ConnectionCut, LedgerClosed, LedgerInUse, StoreUnavailable

T = TypeVar("T")

#: The first pause of work that waits out an outage, and the longest, so that it goes on soon after the end of it.
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistenceRetryPolicy:
    """Bounded, jittered retries of a store operation.

    Only :class:`StoreUnavailable` is retried, which drivers raise for contention and lost connections and never for a
    permanent error. The delay before try *n* is drawn from ``[d / 2, d]`` with
    ``d = min(max_delay_s, initial_delay_s * factor ** (n - 1))``; no try starts later than ``deadline_s`` after the
    first, or after the first has failed if its connection was cut: a process that stood still finds it so, however
    long that was. ``random`` is injectable, for tests.
    """

    max_attempts: int = 5
    initial_delay_s: float = 0.05
    factor: float = 2.0
    max_delay_s: float = 1.0
    deadline_s: float = 5.0
    random: Callable[[], float] = field(default=random.random, compare=False)

    def delay_s(self, failures: int) -> float:
        """Return the delay after *failures* failures in a row (from 1)."""
        longest = min(self.max_delay_s, self.initial_delay_s * self.factor ** (failures - 1))
        return longest * (0.5 + 0.5 * self.random())

    async def call(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Return what *operation* returns, trying again as configured; its last error is raised."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.deadline_s
        failures = 0
        while True:
            try:
                return await operation()
            except StoreUnavailable as error:
                if not passes(error):
                    raise
                failures += 1
                if failures == 1 and isinstance(error, ConnectionCut):
                    deadline = clock() + self.deadline_s
                delay = self.delay_s(failures)
                if failures >= self.max_attempts or clock() + delay > deadline:
                    raise
                await asyncio.sleep(delay)


def passes(error: BaseException) -> bool:
    """Return whether *error* is an outage, which ends by itself or once an operator has mended what is wrong."""
    return isinstance(error, StoreUnavailable) and not isinstance(error, LedgerInUse | LedgerClosed)


def pause_s(failures: int) -> float:
    """Return how long work that waits out an outage pauses after *failures* failures in a row (from 1)."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10))


async def patiently(operation: Callable[[], Awaitable[T]]) -> T:
    """Return what *operation* returns, trying again for as long as an outage lasts.

    For the work of attempts, which end by other means: they are stopped, or their process closes the ledger.
    """
    failures = 0
    while True:
        try:
            return await operation()
        except StoreUnavailable as error:
            if not passes(error):
                raise
        failures += 1
        await asyncio.sleep(pause_s(failures))
