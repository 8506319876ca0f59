"""Parts of large values: removing those that nothing refers to."""

from __future__ import annotations

from runlane.store.retrying import RetryingDriver
from runlane.store.transactions import parts


class Parts:
    """``store.parts``."""

    def __init__(self, database: RetryingDriver) -> None:
        self._database = database

    async def due(self, *, after: str = "", limit: int) -> list[str]:
        """Return threads of which documents were removed and nothing executes, with ids above *after*."""
        return await self._database.read(lambda: parts.due_threads(after, limit))

    async def sweep(self, thread_id: str) -> int:
        """Remove parts of a thread that nothing refers to, at most ``SWEEP_LIMIT``, and return how many."""
        return await self._database.write(lambda: parts.sweep(thread_id))
