"""Who waits here for news of threads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class ThreadNews:
    """The flags of those who wait, by thread."""

    def __init__(self) -> None:
        self._wakes: dict[str, dict[asyncio.Event, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._wakes.values()))

    @contextmanager
    def awaited(self, thread_id: str) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever there is news of the thread."""
        wake = asyncio.Event()
        wakes = self._wakes.setdefault(thread_id, {})
        wakes[wake] = None
        try:
            yield wake
        finally:
            del wakes[wake]
            if not wakes:
                self._wakes.pop(thread_id, None)

    def tell(self, thread_id: str) -> None:
        """Wake those who wait for news of the thread."""
        for wake in self._wakes.get(thread_id, ()):
            wake.set()

    def tell_all(self) -> None:
        """Wake everybody."""
        for thread_id in self._wakes:
            self.tell(thread_id)
