"""Random histories of threads, beside a plain model: the same graph on LangGraph's saver in memory."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Final, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, RemoveMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

from run_kit import FaultyDriver, FaultyLedger
from runlane.agents.graph import GraphAgent
from runlane.agents.registry import Registry
from runlane.checkpoints.saver import LedgerSaver
from runlane.checkpoints.serializer import LedgerSerializer
from runlane.documents.parts import children, is_node, split_refs
from runlane.lifecycle import RunStatus
from runlane.maintenance.part_sweeps import PartSweeper
from runlane.maintenance.retention import ThreadSweeper
from runlane.records import ANY_OWNER, ThreadTtl
from runlane.runtime import Runtime, open_runtime
from runlane.settings import Settings
from runlane.store.statements import Row, Rows, Transaction, statement

_SERDE: Final = LedgerSerializer()
_ANSWER, _PAUSE = "__resume__", "__interrupt__"
_PARTS: Final = statement("test.parts", "SELECT thread_id, ref, data FROM parts")
_SWEEPS: Final = statement("test.sweeps", "SELECT thread_id FROM part_sweeps")
_ROOTS: Final = statement(
    "test.roots",
    """SELECT thread_id, refs FROM checkpoint_blobs UNION ALL SELECT thread_id, refs FROM checkpoint_writes
       UNION ALL SELECT thread_id, result_refs FROM runs
       UNION ALL SELECT thread_id, input_refs FROM runs UNION ALL SELECT thread_id, state_refs FROM threads
       UNION ALL SELECT r.thread_id, e.refs FROM events AS e JOIN runs AS r ON r.seq = e.run_seq""",
)


def added(old: dict[str, Any] | None, new: dict[str, Any] | None) -> dict[str, Any]:
    return {**(old or {}), **(new or {})}


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    facts: Annotated[dict[str, Any], added]
    nested: Any
    log: Annotated[list[str], DeltaChannel(lambda state, writes: [*state, *writes], list, snapshot_frequency=3)]
    op: dict[str, Any]


class Inner(TypedDict, total=False):
    nested: Any
    op: dict[str, Any]


@dataclass
class Gate:
    """Where runs wait that are to be taken back, or while something happens to their thread."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def passed(self) -> None:
        self.reached.set()
        await self.go.wait()


def graph(gate: Callable[[], Gate]) -> Any:
    """Return a graph that does what its input says, with a subgraph that may ask."""

    async def work(state: State) -> Any:
        op = state["op"]
        if op.get("hold") == "first":
            await gate().passed()
        messages = state.get("messages", [])
        if op.get("edit") and messages:
            messages[op["edit"] % len(messages)].content = f"edited {op['id']} " + "e" * 700
        found: dict[str, Any] = {"log": f"{op['id']} " + "l" * op["size"]}
        if op.get("remove") and messages:
            found["messages"] = [RemoveMessage(id=messages[op["remove"] % len(messages)].id)]
        elif op.get("reply"):
            found["messages"] = [AIMessage(f"{op['id']} " + "r" * op["size"], id=f"reply {op['id']}")]
        if op.get("facts"):
            found["facts"] = {f"{op['id']} {at}": "f" * op["size"] for at in range(op["facts"])}
        return found

    async def inner(state: Inner) -> Any:
        op = state["op"]
        answer = interrupt({"ask": op["id"], "text": "q" * op["size"]}) if op.get("ask") else None
        return {"nested": {"answer": answer, "list": [{"id": op["id"], "text": "n" * op["size"]}] * 20}}

    async def hold(state: State) -> Any:
        if state["op"].get("hold") == "last":
            await gate().passed()
        return {}

    sub = StateGraph(Inner).add_node("inner", inner).add_edge(START, "inner").compile()
    built = StateGraph(State).add_node("work", work).add_node("sub", sub).add_node("hold", hold)
    return built.add_edge(START, "work").add_edge("work", "sub").add_edge("sub", "hold")


@dataclass
class Thread:
    """What the model has of a thread; ``ids`` are the checkpoints that the ledger has, with the model's ids of them."""

    thread_id: str
    model: InMemorySaver = field(default_factory=InMemorySaver)
    ids: dict[str, str] = field(default_factory=dict)
    paused: bool = False
    runs: list[str] = field(default_factory=list)


class World:
    """A runtime on one database, the model of its threads, and what happens to both."""

    def __init__(self, driver: FaultyDriver | FaultyLedger, seed: int, *, database: str = "memory://") -> None:
        self.driver = driver
        self.database = database
        self.rng = random.Random(seed)
        self.threads: dict[str, Thread] = {}
        self.gate = Gate()
        self.graph = graph(lambda: self.gate)
        self.registry = Registry.from_graphs({"g": self.graph})
        self.steps = 0
        self.history: list[str] = []
        self.runtime: Runtime
        self._context: Any = None

    async def open(self) -> None:
        """Begin, or begin again: what the process had in memory is gone."""
        if self._context is not None:
            await self._context.__aexit__(None, None, None)
        settings = Settings(database=self.database, cancel_grace_s=0.02, abandon_after_s=0.02, drain_grace_s=0.0)
        agent = partial(GraphAgent, self.registry)
        self._context = open_runtime(driver=self.driver, settings=settings, graph_agent=agent)
        self.runtime = await self._context.__aenter__()

    async def aclose(self) -> None:
        await self._context.__aexit__(None, None, None)

    @property
    def saver(self) -> LedgerSaver:
        assert self.runtime.saver is not None
        return self.runtime.saver

    # What happens

    async def step(self) -> None:
        """Let something happen to a thread, and check that thread."""
        self.steps += 1
        names = ["turn"] * 8 + ["rollback", "refuse", "prune_meanwhile", "forget", "sweep"] * 2
        name = self.rng.choice([*names, "fork", "update", "prune", "copy", "delete", "expire", "restart"])
        thread = self.threads.get(f"t{self.rng.randrange(3)}")
        if thread is None or not thread.ids:
            name, thread = "turn", thread or Thread(f"t{self.rng.randrange(3)}")
            self.threads.setdefault(thread.thread_id, thread)
            thread = self.threads[thread.thread_id]
        self.history.append(f"{name} {thread.thread_id}")
        await getattr(self, f"_{name}")(thread)
        await self.check(thread.thread_id)

    def _input(self, **more: Any) -> dict[str, Any]:
        rng, number = self.rng, self.rng.randrange(3)  # so that what was removed comes again
        size = rng.choice([10, 300, 600, 5000])
        op: dict[str, Any] = {"id": number, "size": size, **more}
        for name in ("edit", "remove", "reply", "facts"):
            if rng.random() < 0.4:
                op[name] = rng.randrange(1, 30)
        op["ask"] = rng.random() < 0.2 and not more
        file = base64.b64encode(random.Random(rng.randrange(2)).randbytes(20_000)).decode()
        contents: list[Any] = [
            "u" * size,
            [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{file}"}}],
        ]
        content = contents[rng.random() < 0.2]
        messages = [
            {"role": "user", "content": content, "id": f"user {number} {at}"} for at in range(rng.choice([1, 8]))
        ]
        return {"messages": messages, "op": op}

    async def _turn(self, thread: Thread, checkpoint_id: str | None = None, given: Any = None) -> None:
        durability = self.rng.choice(["sync", "async", "exit"])
        resumed = thread.paused and checkpoint_id is None and given is None and self.rng.random() < 0.7
        value = {"command": {"resume": "a" * 500}} if resumed else {"input": given or self._input()}
        request = {"graph_id": "g", "durability": durability, "stream_mode": ("values",), **value}
        at: dict[str, Any] = {"thread_id": thread.thread_id}
        if checkpoint_id is not None:
            request["checkpoint_id"] = checkpoint_id
            at.update(checkpoint_id=thread.ids[checkpoint_id], checkpoint_ns="")
        run = await self.runtime.runs.create_or_reject(thread.thread_id, kwargs=request)
        await self._ended(thread, run.run_id)
        await self._modelled(thread, Command(resume="a" * 500) if resumed else value["input"], durability, **at)

    async def _ended(self, thread: Thread, run_id: str) -> None:
        ending = await self.runtime.runs.join(run_id)
        assert ending.status in (RunStatus.SUCCESS, RunStatus.INTERRUPTED), ending.error
        thread.runs.append(run_id)

    async def _modelled(self, thread: Thread, given: Any, durability: Any, **at: str) -> None:
        compiled = self.graph.compile(checkpointer=thread.model)
        await compiled.ainvoke(deepcopy(given), {"configurable": at}, durability=durability)
        thread.paused = bool((await compiled.aget_state(_model_config(thread))).interrupts)

    async def _fork(self, thread: Thread) -> None:
        found = [each async for each in self.saver.alist(_config(thread, checkpoint_ns=""))]
        await self._turn(thread, self.rng.choice(found).config["configurable"]["checkpoint_id"])

    async def _update(self, thread: Thread) -> None:
        values = {"facts": {f"update {self.steps}": "g" * 3000}, "nested": ["u" * 900] * 20}
        for saver in (self.saver, thread.model):
            await self.graph.compile(checkpointer=saver).aupdate_state(_config(thread), values, as_node="hold")
        thread.paused = False

    async def _held(self, thread: Thread, value: Any, durability: str) -> str:
        """Have a run wait at the gate, and return its id."""
        self.gate = Gate()
        request = {"graph_id": "g", "input": value, "durability": durability}
        run = await self.runtime.runs.create_or_reject(thread.thread_id, kwargs=request)
        joined = asyncio.ensure_future(self.runtime.runs.join(run.run_id))
        reached = asyncio.ensure_future(self.gate.reached.wait())
        await asyncio.wait((joined, reached), return_when=asyncio.FIRST_COMPLETED)
        assert not joined.done(), joined.result()
        joined.cancel()
        return run.run_id

    async def _rollback(self, thread: Thread) -> None:
        held = await self._held(thread, self._input(hold="last"), self.rng.choice(["sync", "async"]))
        await self.runtime.runs.cancel(held, action="rollback", wait=True)

    async def _refuse(self, thread: Thread) -> None:
        """Have the database refuse all that a run checkpoints: it fails, and leaves nothing."""
        self.driver.faults["checkpoints.put"] = ValueError("refused")
        request = {"graph_id": "g", "input": self._input(), "durability": self.rng.choice(["sync", "async"])}
        run = await self.runtime.runs.create_or_reject(thread.thread_id, kwargs=request)
        assert (await self.runtime.runs.join(run.run_id)).status is RunStatus.ERROR
        self.driver.faults.clear()
        thread.runs.append(run.run_id)

    async def _prune(self, thread: Thread) -> None:
        latest = await self._latest(thread)
        await self.runtime.store.threads.change_idle(
            thread.thread_id, owner=ANY_OWNER, extra_writes=await self.saver.threads.pruning(thread.thread_id)
        )
        await self._pruned(thread, latest)

    async def _prune_meanwhile(self, thread: Thread) -> None:
        """Prune a thread and try to sweep it while a run relies on what was there when it began."""
        value = self._input(hold="first")
        await self._turn(thread, given={**value, "op": {**value["op"], "hold": None}})
        await self._turn(thread, given=self._input(other=True))
        await self.check(thread.thread_id)
        latest = await self._latest(thread)
        held = await self._held(thread, value, "exit")
        await self.saver.aprune([thread.thread_id])
        await PartSweeper(self.runtime.store).sweep()
        await self._pruned(thread, latest)
        self.gate.go.set()
        await self._ended(thread, held)
        await self._modelled(thread, value, "exit", thread_id=thread.thread_id)

    async def _latest(self, thread: Thread) -> set[str]:
        latest: dict[str, str] = {}
        async for each in self.saver.alist(_config(thread)):
            namespace = each.config["configurable"]["checkpoint_ns"]
            latest[namespace] = max(latest.get(namespace, ""), _id(each))
        return set(latest.values())

    async def _pruned(self, thread: Thread, latest: set[str]) -> None:
        left = {_id(each) async for each in self.saver.alist(_config(thread))}
        assert latest <= left <= thread.ids.keys()
        thread.ids = {key: value for key, value in thread.ids.items() if key in left}

    async def _copy(self, thread: Thread) -> None:
        target = f"copy {self.steps}"
        copying = partial(self.saver.threads.copying, thread.thread_id, target)
        await self.runtime.store.threads.copy(
            thread.thread_id, target, reads=ANY_OWNER, owner="", metadata={}, extra_writes=copying
        )
        copied = deepcopy(thread)
        copied.thread_id, copied.runs = target, []
        self.threads[target] = copied

    async def _delete(self, thread: Thread) -> None:
        removing = partial(self.saver.threads.removing, thread.thread_id)
        await self.runtime.store.threads.delete(thread.thread_id, owner=ANY_OWNER, extra_writes=removing)
        del self.threads[thread.thread_id]

    async def _expire(self, thread: Thread) -> None:
        ttl = ThreadTtl(ttl_s=0, strategy="delete")
        await self.runtime.store.threads.patch(thread.thread_id, owner=ANY_OWNER, metadata={}, ttl=ttl)
        await ThreadSweeper(store=self.runtime.store, saver=self.saver).sweep()
        del self.threads[thread.thread_id]

    async def _forget(self, thread: Thread) -> None:
        await self.runtime.store.events.purge(older_than_s=0)
        if thread.runs:
            await self.runtime.runs.delete(thread.runs.pop(0))

    async def _restart(self, thread: Thread) -> None:
        await self.open()

    async def _sweep(self, thread: Thread) -> None:
        await PartSweeper(self.runtime.store).sweep()
        stored, live = await self.stored_and_live()
        assert stored.keys() == live, "parts were left behind"

    # What must hold

    async def check(self, thread_id: str | None = None) -> None:
        """Compare every checkpoint, or those of one thread, with the model's, and the parts with the references."""
        for thread in list(self.threads.values()):
            if thread_id in (None, thread.thread_id):
                await self._check_thread(thread)
        stored, live = await self.stored_and_live()
        assert live <= stored.keys(), "something is referred to that is not there"

    async def _check_thread(self, thread: Thread) -> None:
        fresh = LedgerSaver(self.driver)
        found = [each async for each in fresh.alist(_config(thread))]
        wanted = {_id(each): each async for each in thread.model.alist(_model_config(thread))}
        new = sorted((each for each in found if _id(each) not in thread.ids), key=_id)
        seen = set(thread.ids.values())
        modelled = sorted((each for key, each in wanted.items() if key > max(seen, default="")), key=_id)
        assert [_namespace(each) for each in new] == [_namespace(each) for each in modelled]
        thread.ids.update((_id(one), _id(other)) for one, other in zip(new, modelled, strict=True))
        assert {_id(each) for each in found} == thread.ids.keys()
        for each in found:
            assert _shape(each, thread.ids) == _shape(wanted[thread.ids[_id(each)]], None), _id(each)

    async def stored_and_live(self) -> tuple[dict[tuple[str, str], bytes], set[tuple[str, str]]]:
        """Return all parts, and what of them is referred to."""
        rows = await self.driver.read(_all(_PARTS))
        stored = {(row["thread_id"], row["ref"]): row["data"] for row in rows}
        roots = [row for row in await self.driver.read(_all(_ROOTS)) if row["refs"] is not None]
        unseen = [(row["thread_id"], ref) for row in roots for ref in split_refs(row["refs"])]
        live: set[tuple[str, str]] = set()
        while unseen:
            key = unseen.pop()
            if key not in live:
                live.add(key)
                if is_node(key[1]) and key in stored:
                    unseen += [(key[0], child) for child in children(stored[key])]
        return stored, live

    async def end(self) -> None:
        """Delete everything; nothing is left."""
        await self.check()
        await PartSweeper(self.runtime.store).sweep()
        stored, live = await self.stored_and_live()
        assert stored.keys() == live, "parts were left behind"
        for thread in list(self.threads.values()):
            if thread.ids:
                await self._delete(thread)
        assert await self.driver.read(_all(_PARTS)) == []
        assert await self.driver.read(_all(_SWEEPS)) == []


def _all(wanted: Any) -> Transaction[Rows]:
    rows: Rows = yield wanted()
    return list[Row](rows)


def _config(thread: Thread, **more: str) -> Any:
    return {"configurable": {"thread_id": thread.thread_id, **more}}


def _model_config(thread: Thread) -> Any:
    return {"configurable": {"thread_id": next(iter(thread.model.storage), thread.thread_id)}}


def _id(saved: CheckpointTuple) -> str:
    found: str = saved.config["configurable"]["checkpoint_id"]
    return found


def _namespace(saved: CheckpointTuple) -> str:
    found: str = saved.config["configurable"]["checkpoint_ns"]
    return found.partition(":")[0]


def _shape(saved: CheckpointTuple, ids: dict[str, str] | None) -> Any:
    """Return what a checkpoint says, without what differs from one execution to another."""
    values = {name: _SERDE.dumps_typed(value) for name, value in saved.checkpoint["channel_values"].items()}
    writes = [
        (channel, _SERDE.dumps_typed([each.value for each in value] if channel == _PAUSE else value))
        for _, channel, value in saved.pending_writes or ()
        if channel != _ANSWER
    ]
    metadata = {name: saved.metadata.get(name) for name in ("source", "step")}
    return _namespace(saved), values, sorted(writes), metadata
