"""Clients of a cluster: each has a thread, asks random nodes for runs, watches some, stops some, and tries again."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx

from acceptance.kit import Event, events_of
from cluster.load import Load
from cluster.nodes import Cluster

#: An answer that takes longer is given up, and asked for at another node.
ANSWER_S = 10.0
#: What is asked for is answered, and a run ends, within this time, whatever happens meanwhile.
PATIENCE_S = 240.0
#: A pause before something is asked for again.
AGAIN_S = 0.1
STRATEGIES = ("enqueue",) * 7 + ("interrupt", "rollback", "reject")
KINDS = ("steps", "steps", "tools", "nested", "approval")
STREAM_MODES = ["custom", "updates"]


@dataclass(slots=True, kw_only=True)
class Asked:
    """A run that a client asked for, and what it knows of it."""

    name: str
    kind: str
    strategy: str
    steps: int
    webhook: bool
    run_id: str = ""
    asked_at: float = field(default_factory=time.monotonic)
    #: Somebody asked for it to be stopped, which may have come too late.
    stopped: bool = False
    #: Its stop was one that takes it back.
    taken_back: bool = False
    status: str = ""
    watched: list[Event] | None = field(default=None, repr=False)

    @property
    def endings(self) -> set[str]:
        """How the run may end; ``gone`` says that it was taken back."""
        return {"success"} | ({"interrupted"} if self.stopped else set()) | ({"gone"} if self.taken_back else set())


@dataclass(slots=True)
class Conversation:
    """A thread, and all that was asked of it, in order."""

    thread_id: str
    asked: list[Asked] = field(default_factory=list)

    @property
    def admitted(self) -> list[Asked]:
        return [one for one in self.asked if one.run_id]


class Refused(Exception):
    """An answer that says no."""


@dataclass(slots=True)
class Web:
    """Requests to whichever node answers."""

    cluster: Cluster
    http: httpx.AsyncClient
    rng: random.Random
    #: What no client should ever see, such as an answer 500.
    oddities: list[str] = field(default_factory=list)
    #: What was asked for, by its kind.
    asked: Counter[str] = field(default_factory=Counter)
    #: How long cancels took that waited for the end of the run's code.
    cancels_s: list[float] = field(default_factory=list)

    async def ask(self, method: str, path: str, *, fine: tuple[int, ...] = (), **request: Any) -> httpx.Response:
        """Return the answer of some node, which is 2xx or one of *fine*; ask again while there is none."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with suppress(httpx.TransportError):
                    url = self.cluster.any_url(self.rng) + path
                    answer = await self.http.request(method, url, timeout=ANSWER_S, **request)
                    if answer.is_success or answer.status_code in fine:
                        return answer
                    if answer.status_code != 503:
                        self.oddities.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
                        if answer.status_code < 500:
                            raise Refused(self.oddities[-1])
                await asyncio.sleep(AGAIN_S)

    async def joined(self, path: str) -> str:
        """Wait until a run has ended, and return its status; ``gone`` if it was taken back."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await self.ask("GET", f"{path}/join", fine=(404, 409, 422, 500))
                answer = await self.ask("GET", path, fine=(404,))
                status = "gone" if answer.status_code == 404 else str(answer.json()["status"])
                if status not in ("pending", "running"):
                    return status
                await asyncio.sleep(AGAIN_S)

    async def watch(self, path: str, events: list[Event]) -> None:
        """Read a run's stream to its end, over as many connections and nodes as that takes."""
        async with asyncio.timeout(PATIENCE_S):
            while not (events and events[-1].name == "end"):
                self.asked["streams that were resumed"] += bool(events)
                after = next((event.id for event in reversed(events) if event.id), "-1")
                url, headers = f"{self.cluster.any_url(self.rng)}{path}/stream", {"last-event-id": after}
                with suppress(httpx.TransportError):
                    async with self.http.stream("GET", url, headers=headers, timeout=ANSWER_S) as answer:
                        if answer.status_code == 404:
                            return
                        if answer.status_code == 200:
                            await self._some(answer, events)
                await asyncio.sleep(AGAIN_S)

    async def _some(self, answer: httpx.Response, events: list[Event]) -> None:
        left = self.rng.randint(1, 30)  # the reader goes away by itself, too
        async for event in events_of(answer):
            events.append(event)
            left -= 1
            if left == 0 and event.name != "end":
                return


class Client:
    """Asks for runs on a thread of its own, and sees each of them to its end."""

    def __init__(
        self,
        web: Web,
        load: Load,
        number: int,
        rng: random.Random,
        *,
        webhook: str,
        steps: int,
        step_s: tuple[float, float],
    ) -> None:
        self.web, self.load, self.name, self.rng = web, load, f"c{number}", rng
        self.conversation = Conversation(str(UUID(int=rng.getrandbits(128), version=4)))
        self._webhook, self._steps, self._step_s = webhook, steps, step_s
        self._watching: list[asyncio.Task[None]] = []

    @property
    def _path(self) -> str:
        return f"/threads/{self.conversation.thread_id}"

    async def converse(self, goes_on: Callable[[int], bool]) -> None:
        """Have runs while *goes_on* after so many; a few at a time, each few as soon as the load allows."""
        async with self.load.slot():
            thread = {"thread_id": self.conversation.thread_id, "if_exists": "do_nothing"}
            await self.web.ask("POST", "/threads", json=thread)
        while goes_on(len(self.conversation.asked)):
            async with self.load.slot():
                if goes_on(len(self.conversation.asked)):  # it may have waited for long
                    await self._burst()

    async def _burst(self) -> None:
        burst = [await self._new_run() for _ in range(self.rng.choice((1, 1, 2, 3)))]
        admitted = [one for one in burst if one.run_id]
        if admitted and self.rng.random() < 0.15:
            await self._cancel(self.rng.choice(admitted))
        for one in admitted:
            await self._see_end(one)
        if burst[-1].kind == "approval" and burst[-1].status == "success":
            await self._see_end(await self._new_run(kind="answer", strategy="enqueue"))
        await asyncio.gather(*self._watching)
        self._watching.clear()

    async def _see_end(self, one: Asked) -> None:
        one.status = await self.web.joined(f"{self._path}/runs/{one.run_id}")
        self.load.ended(time.monotonic() - one.asked_at)

    async def _new_run(self, *, kind: str | None = None, strategy: str | None = None) -> Asked:
        one = Asked(
            name=f"{self.name}-{len(self.conversation.asked)}",
            kind=kind or self.rng.choice(KINDS),
            strategy=strategy or self.rng.choice(STRATEGIES),
            steps=self.rng.randint(1, self._steps),
            webhook=self.rng.random() < 0.2,
        )
        if one.kind in ("approval", "answer"):
            one.steps = 1
        answer = await self.web.ask(
            "POST",
            f"{self._path}/runs",
            fine=(409,) if one.strategy == "reject" else (),
            json=self._body(one),
            headers={"Idempotency-Key": one.name},
        )
        self.web.asked[f"kind {one.kind}"] += 1
        self.web.asked[f"strategy {one.strategy}"] += 1
        if answer.status_code == 409:
            self.web.asked["refused as the thread was busy"] += 1
        else:
            one.run_id = answer.json()["run_id"]
            self._stop_earlier(one.strategy)
            if self.rng.random() < 0.3:
                one.watched = []
                watching = self.web.watch(f"{self._path}/runs/{one.run_id}", one.watched)
                self._watching.append(asyncio.ensure_future(watching))
        self.conversation.asked.append(one)
        return one

    def _body(self, one: Asked) -> Mapping[str, Any]:
        state = {"run": one.name, "kind": one.kind, "steps": one.steps, "seconds": self.rng.uniform(*self._step_s)}
        more: dict[str, Any] = {"input": {**state, "done": 0, "inner": [], "messages": [["human", one.name]]}}
        if one.kind == "answer":
            more = {"command": {"resume": one.name}}
        if one.webhook:
            more["webhook"] = self._webhook
        strategy = {"multitask_strategy": one.strategy}
        return {"assistant_id": "work", "stream_mode": STREAM_MODES, "stream_resumable": True, **strategy, **more}

    def _stop_earlier(self, strategy: str) -> None:
        for one in self.conversation.admitted:
            if strategy in ("interrupt", "rollback") and not one.status:
                one.stopped = True
                one.taken_back |= strategy == "rollback"

    async def _cancel(self, one: Asked) -> None:
        await asyncio.sleep(self.rng.uniform(0.0, 0.3))
        action, wait = self.rng.choice(("interrupt", "interrupt", "rollback")), self.rng.random() < 0.5
        one.stopped = True
        one.taken_back |= action == "rollback"
        query = f"action={action}&wait={str(wait).lower()}"
        began = time.monotonic()
        answer = await self.web.ask("POST", f"{self._path}/runs/{one.run_id}/cancel?{query}", fine=(404, 409))
        self.web.asked[f"cancel {action}"] += answer.is_success
        if wait and answer.is_success:
            self.web.cancels_s.append(time.monotonic() - began)
