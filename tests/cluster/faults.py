"""What machines, operators and networks do to a cluster."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import psycopg

from cluster.nodes import Cluster, Fault, Node
from cluster.standby import PostgresPair

#: For how long the database was not there, and since when it may have been there again.
Away = tuple[float, float]


class Tormentor:
    """Does one thing after the other to a cluster, by a seed or by a script.

    Args:
        lease_s: What the nodes have; a node stands still for longer than that.
        outages_s: How long PostgreSQL may be away.
        script: Names of faults, done once each and in this order, but for those that this machine cannot do; random
            ones for ever by default.
    """

    def __init__(
        self,
        cluster: Cluster,
        rng: random.Random,
        *,
        lease_s: float,
        outages_s: Sequence[float],
        script: Sequence[str] | None = None,
    ) -> None:
        self._cluster, self._rng, self._lease_s, self._outages_s = cluster, rng, lease_s, outages_s
        of_nodes = [self.kill, self.terminate, self.freeze, self.hold, self.cut, self.swallow]
        of_all = [self.crash, self.outage, self.slots]
        if cluster.nodes[0].has_clock:
            of_nodes.append(self.clock)
        if isinstance(cluster.postgres, PostgresPair):
            of_all += [self.failover, *([self.disk] if cluster.postgres.has_disk else [])]
        self._of_nodes: dict[str, Callable[[Node], Awaitable[None]]] = {each.__name__: each for each in of_nodes}
        self._of_all: dict[str, Callable[[], Awaitable[Away]]] = {each.__name__: each for each in of_all}
        possible = {*self._of_nodes, *self._of_all}
        self._next: Iterator[str] = self._random() if script is None else (what for what in script if what in possible)

    def _random(self) -> Iterator[str]:
        often = ["kill", "freeze"]  # what happens most
        return (self._rng.choice([*often, *self._of_nodes, *self._of_all]) for _ in itertools.count())

    async def torment(self, pause_s: tuple[float, float]) -> None:
        """Go on until the script is over or this is cancelled; what is going on then is undone first."""
        for what in self._next:
            await asyncio.sleep(self._rng.uniform(*pause_s))
            await finished(self.once(what))

    async def once(self, what: str) -> None:
        """Do one thing to a node to which nothing is being done, or to the database."""
        if what in self._of_all:
            async with self._cluster.lock:
                began = time.time()
                away_s, back = await self._of_all[what]()
                self._cluster.faults.append(Fault(what, "postgres", None, began, time.time(), away_s, back))
            return
        node = self._rng.choice([node for node in self._cluster.nodes if not node.lock.locked()])
        async with node.lock:
            pid, began = node.pid, time.time()
            await self._of_nodes[what](node)
        self._cluster.faults.append(Fault(what, node.name, pid, began, time.time()))

    # To a node

    async def kill(self, node: Node) -> None:
        await node.kill()
        await asyncio.sleep(self._rng.uniform(0.0, 1.0))
        await node.come_back()

    async def terminate(self, node: Node) -> None:
        node.send(signal.SIGTERM)
        code = await node.ended()
        assert code == 0, f"exit code {code} after SIGTERM\n{node.log}"
        await node.come_back()

    async def freeze(self, node: Node) -> None:
        node.up.clear()
        async with node.frozen():
            await asyncio.sleep(self._lease_s * self._rng.uniform(1.2, 2.5))
        node.up.set()

    async def hold(self, node: Node) -> None:
        """Freeze the node while it has a transaction that wrote and is not committed."""
        await node.proxy.at_commit(lambda: self.freeze(node), within_s=self._lease_s)

    async def cut(self, node: Node) -> None:
        node.proxy.cut()
        await asyncio.sleep(self._rng.uniform(0.1, 2.0 * self._lease_s))
        node.proxy.heal()

    async def swallow(self, node: Node) -> None:
        node.proxy.swallow()
        await asyncio.sleep(self._rng.uniform(0.1, 2.5 * self._lease_s))
        node.proxy.heal(late=self._rng.random() < 0.5)

    async def clock(self, node: Node) -> None:
        """Set the wall clock of the node an hour forward or back, and later right again."""
        node.clock.write_text(self._rng.choice(("3600", "-3600")))
        await asyncio.sleep(self._lease_s * self._rng.uniform(0.5, 1.5))
        node.clock.write_text("0")

    # To the database

    async def crash(self) -> Away:
        await asyncio.to_thread(self._cluster.postgres.restart)
        return 0.0, 0.0

    async def outage(self) -> Away:
        began = time.time()
        await asyncio.to_thread(self._cluster.postgres.stop)
        await asyncio.sleep(self._rng.choice(self._outages_s))
        back = time.time()
        await asyncio.to_thread(self._cluster.postgres.start)
        return back - began, back

    async def failover(self) -> Away:
        """Have the standby take the server's place; for one node, the old address leads to what follows it then."""
        pair = self._cluster.postgres
        assert isinstance(pair, PostgresPair)
        began = time.time()
        await asyncio.to_thread(pair.fail_over)
        back = time.time()
        late = self._rng.choice(self._cluster.nodes)
        for node in self._cluster.nodes:
            if node is not late:
                node.proxy.socket = pair.socket
        await asyncio.to_thread(pair.follow)
        await asyncio.sleep(self._lease_s * self._rng.uniform(0.3, 1.5))
        late.proxy.socket = pair.socket
        return back - began, began

    async def disk(self) -> Away:
        pair = self._cluster.postgres
        assert isinstance(pair, PostgresPair)
        await asyncio.to_thread(pair.fill_disk)
        await asyncio.sleep(self._lease_s * self._rng.uniform(0.5, 1.5))
        await asyncio.to_thread(pair.free_disk)
        return 0.0, 0.0

    async def slots(self) -> Away:
        """Have other programs take all connections, also those that the nodes had."""
        taken: list[psycopg.Connection[Any]] = []
        try:
            for node in self._cluster.nodes:
                node.proxy.cut()
                await asyncio.to_thread(_take, self._cluster.postgres.dsn, taken)
                node.proxy.heal()
            await asyncio.sleep(self._lease_s * self._rng.uniform(0.3, 1.5))
        finally:
            for connection in taken:
                connection.close()
        return 0.0, 0.0


def _take(dsn: str, taken: list[psycopg.Connection[Any]]) -> None:
    while True:
        try:
            taken.append(psycopg.connect(dsn))
        except psycopg.OperationalError:
            return


async def finished(work: Any) -> None:
    """Do *work* to its end, also if the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
