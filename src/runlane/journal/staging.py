"""Checkpoints kept aside that read as if they were stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from runlane.journal.rows import CheckpointRows, put
from runlane.store.small_reads import read_small
from runlane.store.statements import Driver, Transaction

T = TypeVar("T")


class Stage:
    """Rows that nothing stores but :meth:`transaction`, for one state update or one repair.

    Each read costs as much as writing all of them: it writes them, reads, and undoes that.
    """

    __slots__ = ("_before", "_driver", "rows")

    def __init__(self, driver: Driver, before: Sequence[CheckpointRows] = ()) -> None:
        """Stage on top of *before*, which is about to be written."""
        self._driver = driver
        self._before = tuple(rows for rows in before if rows)
        self.rows = CheckpointRows()

    async def read(self, reading: Callable[[], Transaction[T]], *, is_small: bool = False) -> T:
        """Return what *reading* finds once everything is written.

        Args:
            is_small: It takes less than handing it over to another thread.

        Raises:
            StoreUnavailable: The database cannot be read now.
        """
        if not self.rows and not self._before:
            if is_small:
                return await read_small(self._driver, reading, lambda: self._driver.read(reading()))
            return await self._driver.read(reading())
        try:
            await self._driver.write(self._as_if(reading()))
        except _AsIfWritten as answer:
            return cast(T, answer.found)
        raise AssertionError("_as_if() always raises")

    def transaction(self) -> Transaction[None]:
        """Return the transaction that writes the staged rows."""
        yield from put(self.rows)

    def _as_if(self, reading: Transaction[Any]) -> Transaction[None]:
        for rows in (*self._before, self.rows):
            yield from put(rows)
        raise _AsIfWritten((yield from reading))


class _AsIfWritten(Exception):  # an answer, not an error: it undoes the transaction that it leaves
    def __init__(self, found: Any) -> None:
        self.found = found
        super().__init__()
