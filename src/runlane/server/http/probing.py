"""Health of the database: one test write for all concurrent callers."""

from __future__ import annotations

import asyncio

from runlane.store.ledger import RunStore


class DatabaseProbe:
    """A health check that anybody may ask for, so that many askers cost one write at a time."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._writing: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Write to the database, or wait for the write that is on its way.

        Raises:
            StoreUnavailable: It cannot be reached, or not be written.
        """
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._store.probe())
            self._writing.add_done_callback(_heard)
        await asyncio.shield(self._writing)


def _heard(written: asyncio.Task[None]) -> None:
    """Take the error, so that one whose askers have all left is not reported as lost."""
    if not written.cancelled():
        written.exception()
