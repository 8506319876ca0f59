"""Trying again what failed for a passing reason."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from runlane.errors import LedgerInUse, StoreUnavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistenceRetryPolicy:
    """Bounded, jittered retries of a store operation.

    Only :class:`StoreUnavailable` is retried, which drivers raise for contention and lost connections and never for a
    permanent error. The delay before try *n* is drawn from ``[d / 2, d]`` with
    ``d = min(max_delay_s, initial_delay_s * factor ** (n - 1))``; no try starts later than ``deadline_s`` after the
    first. ``random`` is injectable, for tests.
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
            except LedgerInUse:
                raise
            except StoreUnavailable:
                failures += 1
                delay = self.delay_s(failures)
                if failures >= self.max_attempts or clock() + delay > deadline:
                    raise
                await asyncio.sleep(delay)
