"""What one operation costs, in work and not in time: commits, SQL statements, bytes of SQL, and calls of functions.

``./dev costs`` compares each hot path with what ``tests/costs.toml`` says; ``./dev costs --update`` writes the file.
The server's application runs in this process on an SQLite file, behind a client without HTTP. Its loops have a slow
clock: what gathers for milliseconds gathers as much on a slow machine as on a fast one, so that the counts repeat.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import logging
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Annotated, Any, Final, TypedDict

import uvloop
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from runlane.agents.registry import Registry
from runlane.server.app import create_app
from runlane.settings import Settings

FILE: Final = Path(__file__).with_name("costs.toml")
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
#: How much more a cost may be than the file says. Calls depend a little on what waits at the same moment.
TOLERANCE: Final = {"commits": 0.0, "statements": 0.0, "sql_bytes": 0.05, "calls": 0.05}
#: Where more varies: how a turn's messages are divided into parts depends on their ids, which are random; how many
#: tokens pass from thread to thread at once, on which of the two is ahead.
VARYING: Final[Mapping[str, Mapping[str, float]]] = {
    "turn_at_100_messages": {"statements": 0.1, "sql_bytes": 0.25},
    "tokens_500": {"calls": 0.15},
}
#: Operations before the count begins, and those that are counted.
WARM, COUNTED = 5, 11
#: The loops' clocks are so much slower than the machine's: 5 ms of gathering take ten seconds.
SLOWNESS: Final = 2000.0
#: Their calls are as many as the threads' chances to meet.
NOT_COUNTED: Final = (
    "/asyncio/",
    "/threading.py",
    "/selectors.py",
    "/concurrent/futures/",
    "/queue.py",
    "tests/costs.py",
)
MESSAGE: Final = "What was stored once in a thread is not stored again. " * 10
HELP: Final = (
    "A hot path does more work than it did. Find the cause, or run `./dev costs --update` and give the reason in the "
    "commit."
)

Costs = Mapping[str, float]


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    count: int
    steps: int
    tokens: int


async def _step(state: State) -> State:
    return {"count": state.get("count", 0) + 1}


async def _reply(state: State) -> State:
    return {"messages": [AIMessage(content=MESSAGE)]}


async def _say(state: State) -> State:
    words = AIMessage(content=" ".join("word" for _ in range(state["tokens"] // 2 + 1)))  # a space is a token too
    return {"messages": [await GenericFakeChatModel(messages=iter([words])).ainvoke("go")]}


async def _sleep(state: State) -> State:
    SLEEPING.release()
    await asyncio.Event().wait()
    return {}


def _graph(node: Callable[[State], Awaitable[State]]) -> Any:
    def following(state: State) -> str:
        return "node" if state.get("count", 0) < state.get("steps", 0) else END

    graph = StateGraph(State).add_node("node", node).add_edge(START, "node")  # type: ignore[call-overload]
    return graph.add_conditional_edges("node", following, ["node", END]).compile()


#: Released by each run that sleeps.
SLEEPING: Final = threading.Semaphore(0)
GRAPHS: Final = {"step": _step, "reply": _reply, "say": _say, "sleep": _sleep}


class SlowLoop(asyncio.SelectorEventLoop):
    """A loop whose clock is slow until ``hurries`` is set, which makes all timers due."""

    hurries = False

    def time(self) -> float:
        return time.monotonic() / (1.0 if SlowLoop.hurries else SLOWNESS)


@dataclass(slots=True)
class Counters:
    """What all threads of this process did, while ``counting``."""

    counting: bool = False
    commits: int = 0
    statements: int = 0
    sql_bytes: int = 0
    calls: itertools.count[int] = field(default_factory=itertools.count)
    _counted: dict[CodeType, bool] = field(default_factory=dict)

    def statement(self, sql: str) -> None:
        """Count what SQLite executes, with the values in it; a trigger's own statements are comments."""
        if not self.counting:
            return
        verb = sql.lstrip()[:8].upper()
        if verb.startswith("COMMIT"):
            self.commits += 1
        elif not verb.startswith(("BEGIN", "ROLLBACK", "SAVEPOIN", "RELEASE", "--")):
            self.statements += 1
            self.sql_bytes += len(sql)

    def call(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call" or not self.counting:
            return
        code = frame.f_code
        counted = self._counted.get(code)
        if counted is None:
            counted = self._counted[code] = not any(part in code.co_filename for part in NOT_COUNTED)
        if counted:
            next(self.calls)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """See to it that all threads and connections that are made meanwhile are counted."""
        connect = sqlite3.connect

        def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **kwargs)
            connection.set_trace_callback(self.statement)
            return connection

        sqlite3.connect = traced  # type: ignore[assignment]
        threading.setprofile(self.call)
        sys.setprofile(self.call)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            sqlite3.connect = connect

    async def per_operation(self, operation: Callable[[], Awaitable[None]]) -> dict[str, float]:
        """Return the medians over COUNTED operations, and of commits the second most: two may meet and become one."""
        for _ in range(WARM):
            await operation()
        each: list[dict[str, int]] = []
        self.counting = True
        for _ in range(COUNTED):
            before = self._now()
            await operation()
            each.append({name: value - before[name] for name, value in self._now().items()})
        self.counting = False
        medians = {name: statistics.median(costs[name] for costs in each) for name in each[0]}
        return {**medians, "commits": sorted(costs["commits"] for costs in each)[-2]}

    def _now(self) -> dict[str, int]:
        calls = int(repr(self.calls)[len("count(") : -1])
        return {"commits": self.commits, "statements": self.statements, "sql_bytes": self.sql_bytes, "calls": calls}


class Client:
    """A client of the application without HTTP."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        content = await self.read(method, path, body)
        return json.loads(content) if content else None

    async def read(self, method: str, path: str, body: Any = None) -> bytes:
        """Give the whole answer's body, which may be a stream."""
        path, _, query = path.partition("?")
        sent = iter([{"type": "http.request", "body": b"" if body is None else json.dumps(body).encode()}])
        answer: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return next(sent, None) or await asyncio.get_running_loop().create_future()

        async def send(message: dict[str, Any]) -> None:
            answer.append(message)

        await self._app(_scope(method, path, query), receive, send)
        content = b"".join(message.get("body", b"") for message in answer)
        assert answer[0]["status"] < 300, content
        return content

    async def new_thread(self) -> str:
        return str((await self.call("POST", "/threads", {}))["thread_id"])


def _scope(method: str, path: str, query: str) -> dict[str, Any]:
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


def _said(*texts: str) -> dict[str, Any]:
    return {"messages": [{"type": "human", "content": text} for text in texts]}


async def _wait(client: Client, thread: str, graph: str, given: Mapping[str, Any]) -> None:
    await client.call("POST", f"/threads/{thread}/runs/wait", {"assistant_id": graph, "input": given})


async def _wait_run(client: Client, counters: Counters) -> Costs:
    thread = await client.new_thread()
    return await counters.per_operation(partial(_wait, client, thread, "step", {"count": 0}))


async def _run_of_20_steps(client: Client, counters: Counters) -> Costs:
    thread = await client.new_thread()
    return await counters.per_operation(partial(_wait, client, thread, "step", {"count": 0, "steps": 20}))


async def _stream_of_500_tokens(client: Client, counters: Counters) -> Costs:
    async def stream() -> None:
        thread = await client.new_thread()
        body = {"assistant_id": "say", "input": {"tokens": 500}, "stream_mode": ["messages-tuple"]}
        frames = await client.read("POST", f"/threads/{thread}/runs/stream", body)
        assert frames.count(b"event: messages") >= 500, frames[-500:]

    return await counters.per_operation(stream)


async def _turn_at_100_messages(client: Client, counters: Counters) -> Costs:
    thread = await client.new_thread()
    already = 100 - 2 * WARM - COUNTED  # so that the middle of the counted turns is at 100
    await _wait(client, thread, "reply", _said(*[MESSAGE] * already))
    return await counters.per_operation(partial(_wait, client, thread, "reply", _said(MESSAGE)))


async def _admission_to_a_full_queue(client: Client, counters: Counters) -> Costs:
    """One run executes, and 50 wait behind it for the only slot."""

    async def admit() -> None:
        thread = await client.new_thread()
        await client.call("POST", f"/threads/{thread}/runs", {"assistant_id": "sleep", "input": {"count": 0}})

    for _ in range(50):
        await admit()
    return await counters.per_operation(admit)


async def _cancel(client: Client, counters: Counters) -> Costs:
    """A run that executes is cancelled, with its admission and start."""

    async def start_and_cancel() -> None:
        thread = await client.new_thread()
        runs = f"/threads/{thread}/runs"
        run = await client.call("POST", runs, {"assistant_id": "sleep", "input": {"count": 0}})
        await asyncio.to_thread(SLEEPING.acquire)
        await client.call("POST", f"{runs}/{run['run_id']}/cancel?wait=1&action=interrupt", {})

    return await counters.per_operation(start_and_cancel)


PATHS: Final[dict[str, Callable[[Client, Counters], Awaitable[Costs]]]] = {
    "wait": _wait_run,
    "steps_20": _run_of_20_steps,
    "tokens_500": _stream_of_500_tokens,
    "turn_at_100_messages": _turn_at_100_messages,
    "admission_to_a_full_queue": _admission_to_a_full_queue,
    "cancel": _cancel,
}


@asynccontextmanager
async def _serving(folder: Path, slots: int) -> AsyncIterator[Client]:
    settings = Settings(
        database=f"sqlite:///{folder / 'costs.db'}", synchronous="normal", max_concurrent_runs=slots, drain_grace_s=0
    )
    graphs = {name: _graph(node) for name, node in GRAPHS.items()}
    app = create_app(None, settings, registry=Registry.from_graphs(graphs), loopback=True)
    async with app.router.lifespan_context(app):
        yield Client(app.state.front)


async def _measure(name: str, counters: Counters) -> Costs:
    with tempfile.TemporaryDirectory(prefix="runlane-costs-") as folder:
        async with _serving(Path(folder), slots=1 if "full_queue" in name else 1000) as client:
            costs = await PATHS[name](client, counters)
            SlowLoop.hurries = True
    return costs


def measure(name: str) -> Costs:
    """Count in this process, which should have done nothing else."""
    logging.disable()
    random.seed(0)
    uvloop.new_event_loop = SlowLoop  # type: ignore[assignment]
    counters = Counters()
    gc.disable()  # clean-up at its own times would be counted
    with counters.watching(), asyncio.Runner(loop_factory=SlowLoop) as runner:
        return runner.run(_measure(name, counters))


def measured(name: str) -> Costs:
    """Count in a process of its own."""
    command = [sys.executable, __file__, "--measure", name]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONHASHSEED": "0"}
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    costs: Costs = json.loads(done.stdout)
    return costs


def expected() -> dict[str, Costs]:
    """Return what the file says; calls are known for the versions of Python that it was written with."""
    if not FILE.exists():
        return {}
    paths = tomllib.loads(FILE.read_text())
    return {name: {**costs, "calls": costs["calls"].get(PYTHON)} for name, costs in paths.items()}


def regressions(name: str, costs: Costs, known: Mapping[str, float | None]) -> list[str]:
    """Return in which figures *costs* exceed *known* by more than the tolerance, as texts."""
    found = []
    for figure, tolerance in {**TOLERANCE, **VARYING.get(name, {})}.items():
        before = known.get(figure)
        if before is not None and costs[figure] > (1 + tolerance) * before:
            found.append(
                f"{name}: {figure} is {costs[figure]:g}, and {before:g} in {FILE.name} (+{tolerance:.0%} at most)"
            )
    return found


def text_of(paths: Mapping[str, Costs], known: Mapping[str, Any]) -> str:
    """Return the file's text; the calls of other versions of Python stay as they are."""
    lines = ["# Written by `./dev costs --update`: what one operation costs. Calls are by version of Python.", ""]
    for name, costs in paths.items():
        calls = {**known.get(name, {}).get("calls", {}), PYTHON: costs["calls"]}
        pairs = ", ".join(f'"{version}" = {count:g}' for version, count in sorted(calls.items()))
        lines.append(f"[{name}]")
        lines.extend(f"{figure} = {costs[figure]:g}" for figure in TOLERANCE if figure != "calls")
        lines.extend([f"calls = {{ {pairs} }}", ""])
    return "\n".join(lines[:-1]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev costs", description=__doc__)
    parser.add_argument("--update", action="store_true", help=f"write {FILE.name}")
    parser.add_argument("--measure", choices=PATHS, help="count one hot path in this process, and print JSON")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))  # noqa: T201
        return 0
    costs = {name: measured(name) for name in PATHS}
    known = expected()
    for name, found in costs.items():
        cells = (f"{figure} {found[figure]:g} (was {known.get(name, {}).get(figure)})" for figure in TOLERANCE)
        print(f"{name:26} {', '.join(cells)}")  # noqa: T201
    if arguments.update:
        before = tomllib.loads(FILE.read_text()) if FILE.exists() else {}
        FILE.write_text(text_of(costs, before))
        return 0
    found = [text for name in PATHS for text in regressions(name, costs[name], known.get(name, {}))]
    print("\n".join([*found, HELP] if found else ["as in the file"]))  # noqa: T201
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
