"""What tests of runs share: scripted agents, graphs, a ledger that fails when told to, and a clock that jumps."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from ledger_kit import turn
from runlane.agents.coroutine import RunContext
from runlane.agents.graph import GraphAgent
from runlane.agents.registry import Registry
from runlane.dispatch.local import LocalDispatch
from runlane.errors import StoreUnavailable
from runlane.lifecycle import RunStatus
from runlane.records import Head, RunRecord, StreamItem
from runlane.runtime import Runtime, open_runtime
from runlane.settings import Settings
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.drivers.sqlite import Clock, now_us
from runlane.store.migrate import apply_scripts
from runlane.store.retry import PersistenceRetryPolicy
from runlane.store.statements import Driver, Transaction, statement
from runlane.testing.virtual_loop import run_virtual

#: Far more than any wait here takes; a wait that hangs fails its test.
PATIENCE_S = 20.0
#: Stops that are not waited for by the clock of the wall.
QUICK = {"cancel_grace_s": 0.02, "abandon_after_s": 0.02, "drain_grace_s": 0.0}
ONCE = PersistenceRetryPolicy(max_attempts=1)

ENDED_LONG_AGO = statement("ended_long_ago", "UPDATE runs SET ended_at = 0 WHERE run_id = :run_id")
VANISH = statement("vanish", "DELETE FROM runs WHERE run_id = :run_id")
__all__ = ["ENDED_LONG_AGO", "VANISH", "turn"]


def settings(**changes: Any) -> Settings:
    return Settings(**{"database": "memory://", "synchronous": "normal", **QUICK, **changes})


async def soon(awaitable: Awaitable[Any]) -> Any:
    """Return what *awaitable* does, which must not take long."""
    async with asyncio.timeout(PATIENCE_S):
        return await awaitable


async def until(condition: Callable[[], Any]) -> None:
    """Let everything else go on until *condition* holds, which must not take long."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no signal for tests
            await asyncio.sleep(0)


class Scripted:
    """An agent that says that it started, waits to be let go, and says how it was stopped.

    ``cleaned`` is awaited after a cancel, before the agent ends.
    """

    def __init__(self, *, result: Any = "done", events: Iterable[tuple[str, Any]] = (), clean: bool = True) -> None:
        self.started, self.go, self.stopping, self.cleaned = (asyncio.Event() for _ in range(4))
        if clean:
            self.cleaned.set()
        self.calls = self.running = self.most = 0
        self.result, self.events = result, tuple(events)

    async def __call__(self, context: RunContext) -> Any:
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for name, payload in self.events:
                context.emit(name, payload)
            self.started.set()
            await self.go.wait()
            return self.result
        except asyncio.CancelledError:
            self.stopping.set()
            await self.cleaned.wait()
            raise
        finally:
            self.running -= 1


async def at_once(context: RunContext) -> str:
    """Do nothing, and be done."""
    return "done"


class Faults:
    """What goes wrong with statements, by their names, and how often each was executed."""

    def __init__(self) -> None:
        self.faults: dict[str, BaseException] = {}
        self.counts: dict[str, int] = {}

    def watched(self, transaction: Transaction[Any]) -> Transaction[Any]:
        """Return *transaction* with what goes wrong."""
        try:
            query = next(transaction)
            while True:
                name = query.statement.name
                self.counts[name] = self.counts.get(name, 0) + 1
                if name in self.faults:
                    query = transaction.throw(self.faults[name])
                    continue
                rows = yield query
                query = transaction.send(rows)
        except StopIteration as stop:
            return stop.value


class FaultyLedger(Faults):
    """Any ledger that fails and counts by the name of a statement."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self._driver = driver

    async def write(self, transaction: Transaction[Any]) -> Any:
        return await self._driver.write(self.watched(transaction))

    async def read(self, transaction: Transaction[Any]) -> Any:
        return await self._driver.read(self.watched(transaction))

    def submit(
        self, make: Callable[[], Transaction[Any]], loop: Any, callback: Callable[..., None], *, size: int = 0
    ) -> None:
        self._driver.submit(lambda: self.watched(make()), loop, callback, size=size)

    async def aclose(self) -> None:
        await self._driver.aclose()


class FaultyDriver(MemoryDriver, Faults):
    """A ledger in memory that fails, counts, and makes callers wait, by the name of a statement; or is ``out``."""

    def __init__(self, *, clock: Clock = now_us) -> None:
        Faults.__init__(self)
        MemoryDriver.__init__(self, clock=clock)
        self.gates: dict[str, asyncio.Event] = {}
        self.held = asyncio.Event()
        self.out = False
        apply_scripts(self)

    async def write(self, transaction: Transaction[Any]) -> Any:
        """Hold the write back while there is a gate of its transaction's name."""
        gate = self.gates.get(transaction.__name__)
        if gate is not None:
            self.held.set()
            await gate.wait()
        return await super().write(transaction)

    def apply(self, transaction: Transaction[Any]) -> Any:
        if self.out:
            raise StoreUnavailable("unplugged")
        return super().apply(self.watched(transaction))


class Queueing(LocalDispatch):
    """A dispatch in which every run waits for its turn, so that none is claimed with its admission."""

    def take(self, head: Head) -> bool:
        return False


#: The two transactions that claim a run, by name, with a dispatch that has them used.
CLAIMS = (("admit", LocalDispatch), ("claim", Queueing))


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop on which time jumps to the next timer when nothing is ready; for tests without threads and sockets."""

    def __init__(self) -> None:
        super().__init__(_JumpingSelector(self))
        self.jumped_s = 0.0

    def time(self) -> float:
        return super().time() + self.jumped_s


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            self._loop.jumped_s += timeout
        return ready


def on_jumping_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make *test* run on a loop whose waits take no time."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def on_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make *test* run on a loop whose waits take no time, and whose time does not pass while others work either.

    For tests of graphs: what LangGraph gives to threads is executed at once.
    """

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtual(functools.partial(test, *args, **kwargs))

    return run


@asynccontextmanager
async def opened(driver: Any = None, *, graphs: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Runtime]:
    """Open a runtime on *driver* (by default a fresh ledger in memory); the rest are settings or its own options."""
    changes = {name: options.pop(name) for name in tuple(options) if name in Settings.__dataclass_fields__}
    if graphs is not None:
        registry = Registry.from_graphs(graphs)
        options["graph_agent"] = functools.partial(GraphAgent, registry)
    options.setdefault("settings", settings(**changes))
    async with open_runtime(driver=driver, **options) as runtime:
        yield runtime


async def ended(runtime: Runtime, run: RunRecord) -> RunRecord:
    """Wait until *run* has ended, and return it."""
    await soon(runtime.runs.join(run.run_id, owner=run.owner))
    return await runtime.runs.get(run.run_id, owner=run.owner)


async def items(runtime: Runtime, run_id: str, **options: Any) -> list[StreamItem]:
    """Read a stream to its end."""

    async def read() -> list[StreamItem]:
        return [item async for item in runtime.streams.subscribe(run_id, **options)]

    found: list[StreamItem] = await soon(read())
    return found


async def status(runtime: Runtime, run: RunRecord) -> RunStatus:
    return (await runtime.runs.get(run.run_id, owner=run.owner)).status


class Steps(TypedDict, total=False):
    log: list[str]


@dataclass
class Stepper:
    """A graph of three nodes; the second says that it started and waits to be let go."""

    started: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[str] = field(default_factory=list)

    def graph(self) -> StateGraph[Any]:
        async def first(state: Steps) -> Steps:
            self.calls.append("first")
            return {"log": [*state.get("log", []), "first"]}

        async def second(state: Steps) -> Steps:
            self.calls.append("second")
            self.started.set()
            await self.go.wait()
            return {"log": [*state.get("log", []), "second"]}

        async def third(state: Steps) -> Steps:
            self.calls.append("third")
            return {"log": [*state.get("log", []), "third"]}

        graph = StateGraph(Steps)
        graph.add_node("first", first).add_node("second", second).add_node("third", third)
        graph.add_edge(START, "first").add_edge("first", "second").add_edge("second", "third").add_edge("third", END)
        return graph


def graph_run(**request: Any) -> dict[str, Any]:
    """Return the kwargs of a run of the graph named ``g``."""
    return {"graph_id": "g", "input": {"log": []}, **request}
