"""What a step told its readers is committed no later than the checkpoint that keeps the step from being repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph

from runlane import Settings, open_runtime
from runlane.agents.graph import GraphAgent
from runlane.agents.registry import Registry
from runlane.lifecycle import MultitaskStrategy
from runlane.records import NewRun
from runlane.requests import RunRequest, raw
from runlane.store.drivers.sqlite import SqliteDriver
from runlane.store.migrate import migrate_sqlite
from runlane.store.statements import Query, Transaction


class State(TypedDict):
    count: int


def _step(state: State) -> State:
    get_stream_writer()({"count": state["count"] + 1})
    return {"count": state["count"] + 1}


class Recorder(SqliteDriver):
    """A real driver that notes what was committed in which order."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.committed: list[tuple[str, Any]] = []

    def submit(self, make: Callable[[], Transaction[Any]], loop: Any, callback: Any, *, size: int = 0) -> None:
        super().submit(lambda: self._noting(make()), loop, callback, size=size)

    def _noting(self, transaction: Transaction[Any]) -> Transaction[Any]:
        rows: Any = None
        while True:
            try:
                query: Query = transaction.send(rows)
            except StopIteration as stop:
                return stop.value
            if query.statement.name == "insert_segment" and query.params is not None:
                self.committed.append(("events", query.params["last_seq"]))
            elif query.statement.name == "checkpoints.put":
                self.committed.append(("checkpoints", len(query.many) or 1))
            rows = yield query


def _graph(recorder: Recorder) -> Any:
    """Return a graph that takes steps until checkpoints of some have been committed before its end."""

    def more(state: State) -> str:
        kept = sum(kind == "checkpoints" for kind, _ in recorder.committed)
        return "step" if kept < 3 and state["count"] < 5000 else END

    builder = StateGraph(State).add_node("step", _step).add_edge(START, "step")
    return builder.add_conditional_edges("step", more, ["step", END]).compile()


async def test_events_are_committed_before_the_checkpoints_that_follow_them(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    settings = Settings(database=f"sqlite:///{path}")
    recorder = Recorder(path)
    migrate_sqlite(path)
    registry = Registry.from_graphs({"graph": _graph(recorder)})
    async with open_runtime(
        settings=settings, driver=recorder, graph_agent=lambda graph_id: GraphAgent(registry, graph_id)
    ) as runtime:
        admitted = await runtime.submitter.admit(
            NewRun(
                run_id="run",
                thread_id="thread",
                owner="",
                multitask_strategy=MultitaskStrategy.REJECT,
                request=RunRequest(graph_id="graph", input=raw({"count": 0}), stream_mode=("custom",)),
            )
        )
        admitted.watch.close()
        ending = await asyncio.wait_for(runtime.runs.join("run"), 30)
        assert ending.status.value == "success"
    await recorder.aclose()
    events = checkpoints = 0
    for kind, number in recorder.committed:
        if kind == "events":
            events = number
        else:
            checkpoints += number
        # The first event is the run's metadata, and the first two checkpoints come before the first step.
        assert checkpoints - 2 <= events - 1, recorder.committed
    assert checkpoints > 2, "checkpoints are written before the end of a run"
