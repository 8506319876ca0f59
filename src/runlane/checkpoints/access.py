"""Access of a saver to the ledger: at once, through an attempt's journal, or on a stage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from runlane.errors import LeaseLost
from runlane.journal.journal import AttemptJournal
from runlane.journal.rows import CheckpointRows, put
from runlane.journal.staging import Stage
from runlane.store.retry import patiently
from runlane.store.small_reads import read_small
from runlane.store.statements import Driver, Transaction
from runlane.store.transactions.fence import fenced
from runlane.store.transactions.parts import SHARE_PARTS

T = TypeVar("T")
#: A thread and a namespace of it.
Place = tuple[str, str]
Reading = Callable[[], Transaction[T]]
Change = Callable[[], Transaction[None]]


class CheckpointAccess(Protocol):
    """Reads, rows and changes of one saver; a read sees all that the saver wrote before."""

    async def read(self, reading: Reading[T], *, of: Place | None = None, is_small: bool = False) -> T:
        """Return what *reading*, of one place or of anywhere, finds."""
        ...

    async def write(self, rows: CheckpointRows) -> None:
        """Store *rows*."""
        ...

    async def change(self, change: Change) -> None:
        """Change what is stored, after everything that was written before."""
        ...


class Direct:
    """Each write is awaited, and no lease is asked for: for the application's own updates."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def read(self, reading: Reading[T], *, of: Place | None = None, is_small: bool = False) -> T:
        if is_small:
            return await read_small(self._driver, reading, lambda: self._driver.read(reading()))
        return await self._driver.read(reading())

    async def write(self, rows: CheckpointRows) -> None:
        await self._driver.write(_put_shared(rows))

    async def change(self, change: Change) -> None:
        await self._driver.write(change())


def _put_shared(rows: CheckpointRows) -> Transaction[None]:
    for thread_id in sorted(rows.parts):
        yield SHARE_PARTS(thread_id=thread_id)
    yield from put(rows)


class Journaled:
    """Writes through an attempt's journal; waits for as long as the ledger is unavailable."""

    def __init__(self, driver: Driver, journal: AttemptJournal, *, write_behind: bool) -> None:
        """Args:
        write_behind: Return from writes before they are committed; a failure is raised by a later write.
        """
        self._driver = driver
        self.journal = journal
        self._write_behind = write_behind
        self._reads = 0
        self._ended = False

    @property
    def waiting(self) -> bool:
        """Return whether a read or a write is in flight."""
        return self._reads > 0 or self.journal.waiting

    async def read(self, reading: Reading[T], *, of: Place | None = None, is_small: bool = False) -> T:
        if of is None or self.journal.touches(*of):
            await self.journal.flush()
        if is_small:
            return await read_small(self._driver, reading, lambda: self._outlast(reading))
        return await self._outlast(reading)

    async def _outlast(self, reading: Reading[T]) -> T:
        return await self.outlasting(lambda: self._driver.read(reading()))

    async def outlasting(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Return what *operation* returns, as part of what the attempt waits for."""
        self._reads += 1
        try:
            return await patiently(operation)
        finally:
            self._reads -= 1

    async def write(self, rows: CheckpointRows) -> None:
        if self._ended:
            raise LeaseLost(self.journal.lease.run_id, self.journal.lease.attempt)
        self.journal.append_checkpoint(rows)
        if not self._write_behind:
            await self.journal.flush()
        elif self.journal.congested:
            await self.journal.room()

    async def change(self, change: Change) -> None:
        await self.journal.flush()
        await self._driver.write(fenced(self.journal.lease, change()))

    def end(self) -> None:
        """Refuse what is written from now on."""
        self._ended = True


class Staged:
    """Stages writes, and reads them as if they were stored."""

    def __init__(self, stage: Stage, attempt: Journaled | None = None) -> None:
        """Stage for the application, or for *attempt*."""
        self._stage = stage
        self._attempt = attempt

    async def read(self, reading: Reading[T], *, of: Place | None = None, is_small: bool = False) -> T:
        if self._attempt is None:
            return await self._stage.read(reading, is_small=is_small)
        return await self._attempt.outlasting(lambda: self._stage.read(reading, is_small=is_small))

    async def write(self, rows: CheckpointRows) -> None:
        self._stage.rows.extend(rows)

    async def change(self, change: Change) -> None:
        self._stage.rows.changes.append(change)
