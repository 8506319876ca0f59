"""Deleting expired items of the long-term store, every now and then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from runlane.errors import StoreUnavailable

log = logging.getLogger("runlane.store")


class Sweeper:
    """Calls *sweep* at the start and then every *every_s* seconds, until it is closed."""

    def __init__(self, sweep: Callable[[], Awaitable[int]], *, every_s: float) -> None:
        self._sweep, self._every_s = sweep, every_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._forever())

    async def aclose(self) -> None:
        """Stop; a second call does nothing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _forever(self) -> None:
        while True:
            try:
                swept = await self._sweep()
                if swept:
                    log.info("store.swept items=%d", swept)
            except StoreUnavailable as error:
                log.warning("store.sweep_waiting why=%s", error)
            except Exception:  # supervisor: a defect here must not end sweeping
                log.exception("store.sweep_failed")
            await asyncio.sleep(self._every_s)
