"""A thread in a ledger, processes that come and go, and the hand that cuts their run."""

from __future__ import annotations

import asyncio
import functools
import json
from collections import Counter
from collections.abc import Coroutine, Iterable
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AnyMessage, ToolMessage

from cutting.agent import LOSSES, PATIENCE_S, STOPS, THREAD, TICK_S, Agent, Turn
from cutting.helpers import Shape
from runlane.agents.graph import GraphAgent
from runlane.agents.registry import Registry
from runlane.checkpoints.saver import LedgerSaver
from runlane.lifecycle import CancelAction, EndReason
from runlane.records import ANY_OWNER, RunRecord, StreamEvent
from runlane.runtime import Runtime, open_runtime
from runlane.settings import Settings
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.ledger import RunStore
from runlane.store.migrate import apply_scripts
from runlane.testing.virtual_loop import LIFE, Life


@dataclass(kw_only=True)
class Seen:
    """What is known of a thread at one moment."""

    messages: list[AnyMessage]
    remembered: dict[str, list[AnyMessage]]  # by namespace, of subgraphs with a memory of their own
    checkpoints: list[str]
    values: Any

    def at(self, namespace: str) -> list[AnyMessage]:
        return self.remembered.get(namespace, []) if namespace else self.messages


class Thread:
    """A thread in a ledger that outlives its processes."""

    def __init__(self, agent: Agent, shape: Shape) -> None:
        loop = asyncio.get_running_loop()
        self.agent, self.shape = agent, shape
        self.driver = MemoryDriver(clock=lambda: 1_767_225_600_000_000 + int(loop.time() * 1_000_000))
        apply_scripts(self.driver)
        self.store = RunStore(self.driver)
        self.saver = LedgerSaver(self.driver)
        self._processes = 0

    async def seen(self) -> Seen:
        every = [one async for one in self.saver.alist({"configurable": {"thread_id": THREAD}})]
        remembered: dict[str, list[AnyMessage]] = {}
        for one in every:  # newest first
            namespace = one.config["configurable"]["checkpoint_ns"]
            if ":" not in namespace:
                remembered.setdefault(namespace, list(one.checkpoint["channel_values"].get("messages", ())))
        threads = await self.store.runs.list(THREAD, owner=ANY_OWNER, limit=1)
        thread = await self.store.threads.get(THREAD, owner=ANY_OWNER) if threads else None
        return Seen(
            messages=remembered.pop("", []),
            remembered=remembered,
            checkpoints=[f"{one.config['configurable']} {one.pending_writes}" for one in every],
            values=None if thread is None else thread.values,
        )

    async def durable_results(self, homes: Iterable[str] = ("",)) -> dict[str, Any]:
        """Return the tool results that a crash at this moment cannot take away."""
        results: dict[str, Any] = {}
        for namespace in homes:
            saved = await self.saver.aget_tuple({"configurable": {"thread_id": THREAD, "checkpoint_ns": namespace}})
            if saved is None:
                continue
            written = [value for _, channel, value in saved.pending_writes or () if channel == "messages"]
            found = [saved.checkpoint["channel_values"].get("messages", []), *written]
            flat = [message for item in found for message in (item if isinstance(item, list) else [item])]
            results |= {m.tool_call_id: m.content for m in flat if isinstance(m, ToolMessage)}
        return results

    def process(self, **changes: Any) -> Any:
        """Return a process on the ledger, to be entered."""
        self._processes += 1
        options: dict[str, Any] = {
            "database": "memory://",
            "poll_s": 600.0,
            "cancel_grace_s": 30.0,
            "abandon_after_s": 30.0,
            "drain_grace_s": 0.0,
            "lease_s": 3000.0,
            **changes,
        }
        registry = Registry.from_graphs({"g": self.shape.build(self.agent)})
        return open_runtime(
            settings=Settings(**options),
            driver=self.driver,
            graph_agent=functools.partial(GraphAgent, registry),
            worker_id=f"p{self._processes}",
        )

    @staticmethod
    async def admit(runtime: Runtime, text: str | None, turn: Turn | None = None, **options: Any) -> RunRecord:
        value = None if text is None else {"messages": [("user", text)]}
        request: dict[str, Any] = {"graph_id": "g", "input": value}
        if turn is not None:
            shown = {"protocol": "v2"} if turn.modes == ("protocol",) else {"stream_mode": list(turn.modes)}
            request |= {"durability": turn.durability, "stream_subgraphs": turn.subgraphs, **shown}
        return await runtime.runs.create(THREAD, kwargs=request, on_disconnect="continue", **options)


@dataclass(kw_only=True)
class Cut:
    """What became of a run that was cut."""

    shape: Shape
    turn: Turn
    before: Seen
    after: Seen
    after_zombie: Seen  # once a process that was taken for dead has gone on
    run: RunRecord
    events: list[tuple[str, Any]]
    again: list[str]  # calls that were made once more, although a crash could not take their result
    reported: dict[str, str]
    durable: dict[str, Any]


class Process:
    """A process of the thread's ledger with one run in it, which may die."""

    def __init__(self, thread: Thread, turn: Turn | None = None, **changes: Any) -> None:
        self._life, self._stop = Life(), asyncio.Event()
        self._context = copy_context()
        self._context.run(LIFE.set, self._life)
        self.up: asyncio.Future[tuple[Runtime, RunRecord | None]] = asyncio.get_running_loop().create_future()
        self._main = self.spawn(self._run(thread, turn, changes))

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(coroutine, context=self._context.copy())

    async def _run(self, thread: Thread, turn: Turn | None, changes: dict[str, Any]) -> None:
        async with thread.process(**changes) as runtime:
            self.up.set_result((runtime, turn and await thread.admit(runtime, "go", turn)))
            await self._stop.wait()

    async def down(self) -> None:
        self._stop.set()
        await self._main

    def kill(self) -> None:
        self._life.frozen = True

    async def go_on(self) -> None:
        """Continue the process that was taken for dead, and wait until it has seen that it lost its run."""
        self._life.thaw()
        await self.down()


async def cut(thread: Thread, turn: Turn) -> Cut:
    """Begin a run on the thread, cut it as *turn* says, and return what is left once it has ended."""
    agent, store = thread.agent, thread.store
    before, agent.results = await thread.seen(), {}
    changes: dict[str, Any] = {"cancel_grace_s": turn.grace_turns * TICK_S}
    if turn.ending == "deadline":
        changes["run_timeout_s"] = max(10, turn.at) * TICK_S
    process = Process(thread, turn, **changes)
    runtime, run = await process.up
    assert run is not None
    for _ in range(turn.at):
        await asyncio.sleep(0)
    began, durable, stopped = Counter(agent.began), {}, None
    if turn.ending in STOPS:
        await _stop(process, runtime, run, turn.ending, agent)
        await ended(store, run)
    elif turn.ending == "drain":
        await process.down()
        began, durable = Counter(agent.began), await thread.durable_results(thread.shape.homes.values())
    else:
        process.kill()
        stopped = process
        began, durable = Counter(agent.began), await thread.durable_results(thread.shape.homes.values())
        if turn.ending == "crash_then_cancel":
            await store.runs.request_cancel(
                run.run_id, owner=ANY_OWNER, action=CancelAction.INTERRUPT, reason=EndReason.USER_CANCEL, by=None
            )
    if turn.ending in LOSSES:
        process = Process(thread, max_rescues=0 if turn.ending == "crash_for_good" else 3)
        await process.up
        await ended(store, run)
    for other in await store.runs.list(THREAD, owner=ANY_OWNER, limit=100):
        await ended(store, other)
    agent.fails, agent.answers = None, False
    await process.down()
    after, reported = await thread.seen(), dict(agent.results)
    again = [call_id for call_id in durable if agent.began[call_id] > began[call_id]]
    if stopped is not None:
        await stopped.go_on()
        agent.results = reported
    return Cut(
        shape=thread.shape,
        turn=turn,
        before=before,
        after=after,
        after_zombie=await thread.seen(),
        run=await store.runs.get(run.run_id, owner=ANY_OWNER),
        events=await _events(store, run),
        again=again,
        reported=dict(reported),
        durable=durable,
    )


async def _stop(process: Process, runtime: Runtime, run: RunRecord, ending: str, agent: Agent) -> None:
    """Stop a run whose process lives on."""
    if ending in ("cancel", "rollback"):
        action = "interrupt" if ending == "cancel" else ending
        await process.spawn(runtime.runs.cancel(run.run_id, action=action))
    elif ending.startswith("supersede"):
        agent.answers = True
        strategy = "rollback" if ending == "supersede_rollback" else "interrupt"
        request = {"graph_id": "g", "input": {"messages": [("user", "something else")]}}
        await process.spawn(runtime.runs.create_or_reject(THREAD, kwargs=request, multitask_strategy=strategy))
    elif ending != "deadline":
        agent.fails = ending.partition("_")[0]


async def ended(store: RunStore, run: RunRecord) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not (await store.runs.get(run.run_id, owner=ANY_OWNER)).status.terminal:  # noqa: ASYNC110 - it may be another process that ends it
            await asyncio.sleep(0)


async def _events(store: RunStore, run: RunRecord) -> list[tuple[str, Any]]:
    found: list[StreamEvent] = []
    while page := await store.events.read(run.seq, after=found[-1].seq if found else 0):
        found.extend(page)
    return [(event.name, json.loads(event.data)) for event in found]
