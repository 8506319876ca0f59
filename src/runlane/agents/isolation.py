"""A loop thread for each graph, so that a node that blocks delays runs of its own graph only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from runlane.agents.host import AgentHost, Handle, ThreadHost
from runlane.agents.watchdog import WatchedLease

T = TypeVar("T")


class GraphHosts:
    """A :class:`ThreadHost` for each graph whose runs execute, and one for everything else."""

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop) -> None:
        self._new_loop = new_loop
        self._common = ThreadHost(new_loop)
        self._of_graphs: dict[str, ThreadHost] = {}
        self._lease: WatchedLease | None = None
        self.control = self._common.control
        self.clock = self._common.clock

    @property
    def abandoned(self) -> set[Handle[Any]]:
        """Code that nobody waits for any more and that has not ended."""
        return set().union(*(host.abandoned for host in self._all()))

    @property
    def blocked_s(self) -> float:
        """For how long code has blocked loops in all, in seconds."""
        return sum(host.blocked_s for host in self._all())

    @property
    def lag_s(self) -> float:
        """For how long the slowest loop has kept the last call waiting, in seconds."""
        return max(host.lag_s for host in self._all())

    def at(self, graph_id: str | None) -> AgentHost:
        if graph_id is None:
            return self._common
        found = self._of_graphs.get(graph_id)
        if found is None:
            found = self._of_graphs[graph_id] = ThreadHost(self._new_loop)
            if self._lease is not None:
                found.watch(self._lease)
        return found

    def watch(self, lease: WatchedLease) -> None:
        """Have each loop stop what is leased by itself, as :meth:`ThreadHost.watch` does."""
        self._lease = lease
        for host in self._all():
            host.watch(lease)

    def start(self, make: Callable[[], Coroutine[Any, Any, T]], *, name: str, leased: bool = False) -> Handle[T]:
        return self._common.start(make, name=name, leased=leased)

    async def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return await self._common.run(make)

    def call(self, function: Callable[[], None]) -> None:
        self._common.call(function)

    def blocked_thread(self) -> int | None:
        return self._common.blocked_thread()

    async def aclose(self) -> None:
        await asyncio.gather(*(host.aclose() for host in self._all()))

    def _all(self) -> list[ThreadHost]:
        return [self._common, *self._of_graphs.values()]
