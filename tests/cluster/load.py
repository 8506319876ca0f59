"""How many threads are worked on at once: as many as the cluster keeps up with, so that no client has to give up."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

#: A run that takes longer, from its admission to its end, is a sign of too much load.
IN_TIME_S = 5.0
#: At the start, and at least.
LEAST = 4
#: What is left of the load after a sign of too much.
BACK_OFF = 0.8
#: After which nothing is taken back for so long: what is on its way was admitted under the old load.
SETTLES_S = 2.0
RECENT = 500


class Load:
    """Slots for conversations: additive increase, multiplicative decrease.

    Args:
        most: More than this are never given.

    Source: V. Jacobson, "Congestion avoidance and control" (1988).
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(min(LEAST, most))
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._settled_at = 0.0
        self.recent_s: deque[float] = deque(maxlen=RECENT)
        self.runs_ended = 0

    @property
    def limit(self) -> int:
        return int(self._limit)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot, in the order of arrival."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._give()
        await turn
        try:
            yield
        finally:
            self._taken -= 1
            self._give()

    def ended(self, took_s: float) -> None:
        """Take note of a run's end, which was *took_s* after it was asked for."""
        self.runs_ended += 1
        self.recent_s.append(took_s)
        now = time.monotonic()
        if took_s <= IN_TIME_S:
            self._limit = min(float(self._most), self._limit + 1 / self._limit)
        elif now >= self._settled_at:
            self._limit = max(float(min(LEAST, self._most)), self._limit * BACK_OFF)
            self._settled_at = now + SETTLES_S
        self._give()

    def _give(self) -> None:
        while self._waiting and self._taken < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)
