"""A trial: a cluster, its clients, its tormentor, and the verdict."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from cluster.clients import PATIENCE_S, Client, Web
from cluster.history import History, Verdict, look, watch
from cluster.nodes import Cluster, Tormentor, running_cluster
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


@dataclass(kw_only=True)
class Trial:
    """How much is asked of the cluster, and what is done to it.

    Args:
        pause_s: Between two faults, from the end of one to the beginning of the next.
        at_once: Faults that may go on at the same time.
    """

    runs: int
    threads: int
    roles: tuple[str, ...] = ("api", "api", "worker", "worker", "worker")
    seed: int = 1
    pause_s: tuple[float, float] = (0.2, 2.0)
    at_once: int = 1
    step_s: tuple[float, float] = (0.0, 0.3)
    clients: int = 1000
    webhooks_s: float = 10.0
    verdict: Verdict = field(default_factory=Verdict)

    async def run(self, folder: Path, postgres: PostgresCluster, database: str) -> Verdict:
        """Have the runs, and return what was found."""
        (folder / "effects").touch()
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
        began = time.monotonic()
        clients = [
            Client(web, number, random.Random(f"{self.seed}-{number}"), webhook=hook.url(), step_s=self.step_s)
            for number in range(self.threads)
        ]
        slots = asyncio.Semaphore(self.clients)
        torments = [
            asyncio.ensure_future(
                Tormentor(cluster, random.Random(f"{self.seed}-{number}"), lease_s=LEASE_S).torment(self.pause_s)
            )
            for number in range(self.at_once)
        ]
        outcomes = await self._converse(clients, slots)
        for torment in torments:
            torment.cancel()
        for outcome in await asyncio.gather(*torments, return_exceptions=True):
            if not isinstance(outcome, asyncio.CancelledError):
                self.verdict.add("nodes that did not come back", repr(outcome))
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                self.verdict.add("clients that gave up", repr(outcome))
        self.verdict.figures["seconds"] = round(time.monotonic() - began)
        self.verdict.figures["faults"] = len(cluster.faults)
        for cron in crons:
            await web.ask("PATCH", f"/runs/crons/{cron}", json={"enabled": False})
        await self._rest(web)
        await self._judge(cluster, web, [client.conversation for client in clients], hook)

    async def _converse(self, clients: list[Client], slots: asyncio.Semaphore) -> list[Any]:
        async def converse(client: Client) -> None:
            async with slots:
                await client.converse(self.runs // self.threads)

        return await asyncio.gather(*(converse(client) for client in clients), return_exceptions=True)

    async def _new_cron(self, web: Web) -> str:
        state = {"run": "cron", "kind": "steps", "steps": 1, "seconds": 0.01, "done": 0}
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

    async def _judge(self, cluster: Cluster, web: Web, conversations: list[Any], hook: Receiver) -> None:
        await self._webhooks(cluster)
        history = History(await asyncio.to_thread(look, cluster), self.verdict)
        history.check_lanes()
        history.check_runs(conversations)
        history.check_processes(conversations)
        history.check_crons()
        history.check_webhooks(
            conversations,
            [(one.headers["webhook-id"], float(one.headers["webhook-timestamp"])) for one in hook.requests],
        )
        for conversation in conversations:
            path = f"/threads/{conversation.thread_id}"
            answer = await web.ask("GET", f"{path}/state", fine=(404,))
            values = answer.json().get("values") or {}
            history.check_state(conversation, values.get("log", []))
            for one in conversation.admitted:
                if one.watched is not None:
                    replayed: list[Any] | None = []
                    await web.watch(f"{path}/runs/{one.run_id}", replayed)
                    history.check_stream(one, replayed or None)
        for oddity in web.oddities:
            self.verdict.add("answers that nobody should get", oddity)

    async def _webhooks(self, cluster: Cluster) -> None:
        until = time.monotonic() + self.webhooks_s
        while time.monotonic() < until:
            facts = await asyncio.to_thread(look, cluster)
            if all(row["status"] != "pending" for row in facts.webhooks):
                return
            await asyncio.sleep(1.0)
