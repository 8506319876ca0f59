"""A trial: a cluster, its clients, its tormentor, and the verdict."""

from __future__ import annotations

import asyncio
import math
import random
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from cluster.clients import PATIENCE_S, Client, Conversation, Web
from cluster.faults import Tormentor
from cluster.history import CRON, History, look, watch, webhooks_wait
from cluster.load import Load
from cluster.nodes import Cluster, running_cluster
from cluster.times import tell_times
from cluster.verdict import Verdict
from postgres_cluster import PostgresCluster
from webhook_kit import Receiver, receiver

#: A lease that many a fault outlasts.
LEASE_S = 3.0
SETTINGS: dict[str, Any] = {
    "lease_s": LEASE_S,
    "poll_s": 0.5,
    "heartbeat_s": 2.0,  # each reader at another node asks the ledger as often
    "drain_grace_s": 0.3,
    "cancel_grace_s": 0.5,
    "max_rescues": 1000,  # no run is to be given up because its node is lost again and again
    "mask_errors": "false",
}
EVERY_FIVE_SECONDS = "* * * * * */5"
#: How often a trial says how far it is.
TELLS_S = 10.0
#: Threads whose states and streams are read at the same time at the end.
READ_AT_ONCE = 16


def _used_s() -> tuple[float, float]:
    """Return the processor time of this process, and of those that it has started and that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time(), ended.ru_utime + ended.ru_stime


@dataclass(kw_only=True)
class Trial:
    """How much is asked of the cluster, and what is done to it.

    Args:
        steps: A run has at most so many.
        pause_s: Between two faults, from the end of one to the beginning of the next.
        at_once: Faults that may go on at the same time.
        clients: At most so many threads are worked on at the same time.
        longest_s: After so long there are no new runs, however few there were.
        outages_s: How long PostgreSQL may be away; some are not noticed, and some outlast each lease.
        script: Faults to do once each, while there are runs; random ones by default.
        tells: Write a line every ten seconds.
    """

    runs: int
    threads: int
    roles: tuple[str, ...] = ("api", "api", "worker", "worker", "worker")
    seed: int = 1
    pause_s: tuple[float, float] = (0.2, 2.0)
    at_once: int = 1
    steps: int = 5
    step_s: tuple[float, float] = (0.0, 0.3)
    clients: int = 64
    webhooks_s: float = 10.0
    longest_s: float = math.inf
    outages_s: Sequence[float] = (1.0, 3.0, 7.5)
    script: Sequence[str] | None = None
    tells: bool = False
    verdict: Verdict = field(default_factory=Verdict)

    async def run(self, folder: Path, postgres: PostgresCluster, database: str) -> Verdict:
        """Have the runs, and return what was found."""
        (folder / "effects").write_text("")  # a folder that is kept may have those of another trial
        begun_s = _used_s()
        async with (
            running_cluster(folder, postgres, database, roles=self.roles, **SETTINGS) as cluster,
            receiver() as hook,
            self._http() as http,
        ):
            await asyncio.to_thread(watch, cluster.dsn)
            web = Web(cluster, http, random.Random(self.seed))
            try:
                await self._on(cluster, web, hook)
            finally:
                self._keep_logs(cluster, folder)
        runs = max(1, self.verdict.figures["runs"])
        for whose, used_s, before_s in zip(("clients", "nodes and their starts"), _used_s(), begun_s, strict=True):
            self.verdict.figures[f"milliseconds of processor per run, {whose}"] = round(
                (used_s - before_s) / runs * 1000
            )
        return self.verdict

    def _keep_logs(self, cluster: Cluster, folder: Path) -> None:
        for node in cluster.nodes:
            (folder / f"{node.name}.log").write_text("\n".join([*node.history, *node.lines]))
        (folder / "faults").write_text("\n".join(map(str, cluster.faults)))

    @asynccontextmanager
    async def _http(self) -> AsyncIterator[httpx.AsyncClient]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        async with httpx.AsyncClient(trust_env=False, limits=limits) as http:
            yield http

    async def _on(self, cluster: Cluster, web: Web, hook: Receiver) -> None:
        crons = [await self._new_cron(web) for _ in range(2)]
        began, load = time.monotonic(), Load(self.clients)
        clients = [
            Client(
                web,
                load,
                number,
                random.Random(f"{self.seed}-{number}"),
                webhook=hook.url(),
                steps=self.steps,
                step_s=self.step_s,
            )
            for number in range(self.threads)
        ]
        async with self._tormented(cluster) as torments, self._told(cluster, load):

            def goes_on(runs: int) -> bool:
                if time.monotonic() - began > self.longest_s:
                    return False
                is_tormented = self.script is not None and not all(torment.done() for torment in torments)
                return runs < self.runs // self.threads or is_tormented

            conversing = (client.converse(goes_on) for client in clients)
            outcomes = await asyncio.gather(*conversing, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                self.verdict.add("clients that gave up", repr(outcome))
        self.verdict.figures["seconds"] = round(time.monotonic() - began)
        for cron in crons:
            await web.ask("PATCH", f"/runs/crons/{cron}", json={"enabled": False})
        await self._rest(web)
        await self._judge(cluster, web, [client.conversation for client in clients], hook)

    @asynccontextmanager
    async def _tormented(self, cluster: Cluster) -> AsyncIterator[list[asyncio.Future[None]]]:
        """Do things to the cluster until the script is over or the block ends."""
        torments = [asyncio.ensure_future(self._torment(cluster, number)) for number in range(self.at_once)]
        try:
            yield torments
        finally:
            for torment in torments:
                torment.cancel()
            outcomes = await asyncio.gather(*torments, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                self.verdict.add("nodes that did not come back", repr(outcome))

    async def _torment(self, cluster: Cluster, number: int) -> None:
        script = None if self.script is None else self.script[number :: self.at_once]
        rng = random.Random(f"{self.seed}-{number}")
        tormentor = Tormentor(cluster, rng, lease_s=LEASE_S, outages_s=self.outages_s, script=script)
        await tormentor.torment(self.pause_s)

    @asynccontextmanager
    async def _told(self, cluster: Cluster, load: Load) -> AsyncIterator[None]:
        """Say how far the load is, until the block ends."""
        telling = asyncio.ensure_future(self._tell(cluster, load)) if self.tells else None
        try:
            yield
        finally:
            if telling is not None:
                telling.cancel()
                await asyncio.gather(telling, return_exceptions=True)

    async def _tell(self, cluster: Cluster, load: Load) -> None:
        began, before = time.monotonic(), 0
        while True:
            await asyncio.sleep(TELLS_S)
            runs = load.runs_ended
            middle = statistics.median(load.recent_s) if load.recent_s else 0.0
            kinds = Counter(fault.what for fault in cluster.faults)
            sys.stdout.write(
                f"{time.monotonic() - began:.0f} s: {runs} of about {self.runs} runs, "
                f"{(runs - before) / TELLS_S:.0f} per s, p50 {middle:.1f} s, {load.limit} threads at once; "
                f"{len(cluster.faults)} faults: {', '.join(f'{count} {what}' for what, count in kinds.items())}\n"
            )
            sys.stdout.flush()
            before = runs

    async def _new_cron(self, web: Web) -> str:
        state = {"run": CRON, "kind": "steps", "steps": 1, "seconds": 0.01, "done": 0}
        body = {"assistant_id": "work", "schedule": EVERY_FIVE_SECONDS, "input": state, "on_run_completed": "keep"}
        return str((await web.ask("POST", "/runs/crons", json=body)).json()["cron_id"])

    async def _rest(self, web: Web) -> None:
        """Wait until nothing is active any more."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while await self._active(web):  # noqa: ASYNC110 - another process has no signal for tests
                    await asyncio.sleep(0.2)

    async def _active(self, web: Web) -> bool:
        answer = await web.ask("POST", "/threads/search", json={"status": "busy", "limit": 1})
        return bool(answer.json())

    async def _judge(self, cluster: Cluster, web: Web, conversations: Sequence[Conversation], hook: Receiver) -> None:
        until = time.monotonic() + self.webhooks_s
        while time.monotonic() < until and await asyncio.to_thread(webhooks_wait, cluster):  # noqa: ASYNC110 - as above
            await asyncio.sleep(1.0)
        facts = await asyncio.to_thread(look, cluster)
        self.verdict.figures.update({f"asked: {what}": count for what, count in sorted(web.asked.items())})
        self.verdict.figures["faults"] = len(facts.faults)
        self.verdict.figures.update({f"fault {what}": n for what, n in Counter(f.what for f in facts.faults).items()})
        history = History(facts, self.verdict)
        history.check_lanes()
        history.check_rescues(LEASE_S)
        history.check_runs(conversations)
        history.check_processes(conversations)
        history.check_crons()
        history.check_webhooks(conversations, [(one.headers["webhook-id"], one.at) for one in hook.requests])
        slots = asyncio.Semaphore(READ_AT_ONCE)
        await asyncio.gather(*(self._read(web, history, each, slots) for each in conversations))
        for oddity in web.oddities:
            self.verdict.add("answers that nobody should get", oddity)
        self.verdict.times_s["cancel until the code has stopped"] += web.cancels_s
        tell_times(facts, self.verdict, lease_s=LEASE_S)

    async def _read(self, web: Web, history: History, conversation: Conversation, slots: asyncio.Semaphore) -> None:
        """Compare the state of a thread and the streams of its runs with what clients know of them."""
        path = f"/threads/{conversation.thread_id}"
        async with slots:
            answer = await web.ask("GET", f"{path}/state", fine=(404,))
            values = answer.json().get("values") or {}
            history.check_state(conversation, values.get("log", []))
            for one in conversation.admitted:
                if one.watched is not None:
                    replayed: list[Any] | None = []
                    await web.watch(f"{path}/runs/{one.run_id}", replayed)
                    history.check_stream(one, replayed or None)
