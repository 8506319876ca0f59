"""What simulated processes tell each other through their database: notifications, and permits, which are jobs.

Neither reaches a process that is cut off from the database.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Final

from runlane.dispatch.shared import SharedDispatch
from runlane.store.notifications import Changes, Notifications, changes_in
from runlane.testing.faults import Careless

#: How long a notification is on its way.
TRANSIT_S: Final = 0.002
#: How often jobs are looked for at least, as Procrastinate does.
JOBS_POLL_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Listener:
    receive: Callable[[Changes], None]
    reachable: Callable[[], bool]
    context: Context

    def tell(self, payload: bytes) -> None:
        asyncio.get_running_loop().call_later(TRANSIT_S, self._arrive, payload, context=self.context)

    def _arrive(self, payload: bytes) -> None:
        if self.reachable():
            self.receive(changes_in(payload))


class Exchange:
    """The channel of notifications and the queue of jobs in one database."""

    def __init__(self) -> None:
        self._listeners: dict[object, _Listener] = {}
        self._jobs: deque[str] = deque()
        self._waiting: dict[asyncio.Event, None] = {}

    @contextmanager
    def notifying(
        self,
        outgoing: Notifications,
        receive: Callable[[Changes], None],
        carry: Careless,
        *,
        reachable: Callable[[], bool],
    ) -> Iterator[None]:
        """Send what is *outgoing* of the calling process, and have it *receive* what others send."""
        me = object()

        def send() -> None:
            payloads = outgoing.take()
            for other in [listener for key, listener in self._listeners.items() if key is not me and reachable()]:
                for payload in payloads:
                    carry(partial(other.tell, payload))

        self._listeners[me] = _Listener(receive, reachable, copy_context())
        with outgoing.sent_when(send):
            yield
        del self._listeners[me]

    @contextmanager
    def sharing(self, dispatch: SharedDispatch, carry: Careless, *, reachable: Callable[[], bool]) -> Iterator[None]:
        """Queue what *dispatch* offers, and have it take the permits of others."""

        def offer(groups: Collection[str]) -> None:
            for group in sorted(groups):
                if reachable() and group not in self._jobs:  # one job stands for all heads of its group
                    carry(partial(self._defer, group))

        async def take() -> None:
            while True:
                await dispatch.take_permit(await self._job(reachable))

        dispatch.offer = offer
        taking = asyncio.get_running_loop().create_task(take())
        yield
        dispatch.offer = None
        taking.cancel()

    def _defer(self, group: str) -> None:
        self._jobs.append(group)
        for wake in self._waiting:
            wake.set()

    async def _job(self, reachable: Callable[[], bool]) -> str:
        """Wait for a job, which the caller then has alone: if its process dies, so does the permit."""
        wake = asyncio.Event()
        self._waiting[wake] = None
        try:
            while not (self._jobs and reachable()):
                wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(JOBS_POLL_S):
                        await wake.wait()
            return self._jobs.popleft()
        finally:
            del self._waiting[wake]
