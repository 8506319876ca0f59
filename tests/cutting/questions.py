"""Graphs that ask a person, threads whose runs are cut while they go on with an answer, and who answered what."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from cutting.agent import THREAD, Agent, AsTold, TickingLoop
from cutting.helpers import Shape
from cutting.thread import Process, Thread, ended
from runlane.lifecycle import CancelAction, EndReason, RunStatus
from runlane.records import ANY_OWNER, RunRecord
from runlane.testing.virtual_loop import run_virtual

#: Every way in which a run that goes on with an answer can be cut; the last three lose the process.
CUTS = ("cancel", "failure", "drain", "crash", "crash_then_cancel")
#: Turns of the loop that a slow node takes.
SLOW_TURNS = 25
#: More runs than any history here takes.
MOST_RUNS = 24


class State(TypedDict, total=False):
    """What all graphs here keep."""

    log: Annotated[list[str], operator.add]


@dataclass
class Asking(Agent):
    """The graphs' code: what it has asked, and what it was answered. Questions and answers begin with a name."""

    given: dict[str, str] = field(default_factory=dict)
    answered: list[tuple[str, Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    broken: bool = False

    def ask(self, question: str) -> Any:
        answer = interrupt(question)
        self.answered.append((question, answer))
        if answer != self.given.get(question):
            self.wrong.append(f"{question!r} was answered by {answer!r}, not by {self.given.get(question)!r}")
        return answer

    async def slow(self) -> None:
        for _ in range(SLOW_TURNS):
            if self.broken:
                raise AsTold
            await asyncio.sleep(0)

    def asks(self, *questions: str, slowly: bool = False) -> Callable[[State], Any]:
        """Return a node that asks *questions* one after the other."""

        async def node(state: State) -> State:
            said = []
            rounds = state.get("log", []).count("round")
            for question in questions:
                said.append(self.ask(f"{question}{'again' * (rounds - 1)}"))
                if slowly:
                    await self.slow()
            return {"log": [str(one) for one in said]}

        return node

    async def works(self, state: State) -> State:
        await self.slow()
        return {"log": ["worked"]}


def asks_twice(agent: Asking, name: str = "", **options: Any) -> Any:
    """Return a compiled graph that asks, works, and asks again."""
    graph = StateGraph(State)
    graph.add_node("first", agent.asks(f"{name}1")).add_node("slow", agent.works)
    graph.add_node("second", agent.asks(f"{name}2"))
    graph.add_edge(START, "first").add_edge("first", "slow").add_edge("slow", "second")
    return graph.compile(**options)


def around(*subgraphs: Any) -> Any:
    """Return a graph that has *subgraphs* for its nodes, at once."""
    graph = StateGraph(State)
    for number, subgraph in enumerate(subgraphs):
        graph.add_node(f"node{number}", subgraph).add_edge(START, f"node{number}")
    return graph


def called(*subgraphs: Any) -> Any:
    """Return a node that calls *subgraphs* one after the other."""

    async def node(state: State) -> State:
        said: list[str] = []
        for subgraph in subgraphs:
            said += (await subgraph.ainvoke({"log": []}))["log"]
        return {"log": said}

    return node


def gathered(agent: Asking) -> Any:
    """Return a node that asks, calls a graph that asks, and asks again."""
    inner = asks_twice(agent, "inner")

    async def node(state: State) -> State:
        said = [str(agent.ask("before")), *(await inner.ainvoke({"log": []}))["log"]]
        await agent.slow()
        return {"log": [*said, str(agent.ask("after"))]}

    return around(node)


def sent(agent: Asking) -> Any:
    """Return a graph that works on three tasks at once, each of which asks in a subgraph of its own."""

    def split(state: State) -> list[Send]:
        return [Send("ask", {"log": [name]}) for name in ("a", "b", "c")]

    async def one(state: State) -> State:
        name = state["log"][0]
        inner = asks_twice(agent, name)
        return {"log": (await inner.ainvoke({"log": []}))["log"]}

    return StateGraph(State).add_node("ask", one).add_conditional_edges(START, split, ["ask"])


def looping(agent: Asking) -> Any:
    """Return a graph whose subgraph is asked three times."""
    inner = asks_twice(agent, checkpointer=True)

    async def node(state: State) -> Command[Any]:
        await inner.ainvoke({"log": ["round"]})
        again = len(state.get("log", [])) < 2
        return Command(update={"log": ["done"]}, goto=["node"] if again else [])

    return StateGraph(State).add_node("node", node, destinations=("node",)).add_edge(START, "node")


#: How the graphs that ask are put together.
GRAPHS: Mapping[str, Callable[[Any], Any]] = {
    "node": lambda agent: around(asks_twice(agent)),
    "root": lambda agent: asks_twice(agent).builder,
    "one_node": lambda agent: around(agent.asks("x1", "x2", "x3", slowly=True)),
    "called": lambda agent: around(called(asks_twice(agent))),
    "called_twice": lambda agent: around(called(asks_twice(agent, "a"), asks_twice(agent, "b"))),
    "remembered": lambda agent: around(asks_twice(agent, checkpointer=True)),
    "remembered_called": lambda agent: around(called(asks_twice(agent, checkpointer=True))),
    "two_deep": lambda agent: around(around(asks_twice(agent)).compile()),
    "below_remembered": lambda agent: around(around(asks_twice(agent)).compile(checkpointer=True)),
    "remembered_below": lambda agent: around(around(asks_twice(agent, checkpointer=True)).compile()),
    "beside_one": lambda agent: around(asks_twice(agent, "a"), agent.asks("b1", "b2")),
    "beside_slow": lambda agent: around(agent.asks("a1", "a2", slowly=True), agent.asks("b1", "b2")),
    "beside_each_other": lambda agent: around(called(asks_twice(agent, "a")), asks_twice(agent, "b")),
    "gathered": gathered,
    "sent": sent,
    "looping": looping,
}
SHAPES: Mapping[str, Shape] = {name: Shape(build, {"": ""}) for name, build in GRAPHS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a thread is answered, and which of its runs is cut.

    ``cuts`` are ways and turns at which the runs are cut, one after the other, beginning with the first that brings an
    answer. ``then`` is how the thread goes on after each: ``null`` without an answer, ``again`` with the answers to
    what the thread shows to be open, which may be what was answered before. ``changes`` are made with each answer:
    ``command`` has it update the state, and with ``outside`` the application has done so before the first one.
    """

    cuts: tuple[tuple[str, int], ...]
    then: str = "null"
    one_at_a_time: bool = False
    durability: str = "async"
    strict: bool = False
    changes: str = ""


@dataclass
class History:
    """One thread from its first run until it has no more to do."""

    agent: Asking
    thread: Thread
    plan: Plan
    answers: int = 0
    lost: list[Process] = field(default_factory=list)

    async def tell(self) -> list[str]:
        """Run the thread to its end; return which questions got the answers to others, or to earlier ones."""
        cuts = list(self.plan.cuts)
        run = await self._run({"input": {"log": []}}, None)
        for _ in range(MOST_RUNS):
            if run.status is RunStatus.SUCCESS and run.end_reason is not EndReason.PAUSED:
                return self.agent.wrong
            request = await self._next(run)
            cut = cuts.pop(0) if cuts and "command" in request else None
            run = await self._run(request, cut)
            if run.status is RunStatus.ERROR and (cut is None or cut[0] != "failure"):
                return [*self.agent.wrong, f"a run failed: {run.error}"]
        return [*self.agent.wrong, f"{MOST_RUNS} runs did not come to an end: {self.agent.answered}"]

    async def _next(self, run: RunRecord) -> dict[str, Any]:
        thread = await self.thread.store.threads.get(THREAD, owner=ANY_OWNER)
        found = {item["id"]: item["value"] for items in thread.interrupts.values() for item in items}
        if not found or (run.end_reason is not EndReason.PAUSED and self.plan.then == "null"):
            return {"input": None}
        self.answers += 1
        answers = {key: f"{question} by answer {self.answers}" for key, question in found.items()}
        if self.plan.one_at_a_time:
            answers = dict([next(iter(answers.items()))])
        self.agent.given |= {found[key]: answer for key, answer in answers.items()}
        if self.plan.changes == "outside" and self.answers == 1:
            graph = self.thread.shape.build(self.agent).compile(checkpointer=self.thread.saver)
            await graph.aupdate_state({"configurable": {"thread_id": THREAD}}, {"log": ["more"]}, as_node=START)
        plain = len(found) == 1 and (self.answers % 2 or self.plan.changes)
        update = {"update": {"log": ["more"]}} if self.plan.changes == "command" else {}
        return {"command": {"resume": next(iter(answers.values())) if plain else answers, **update}}

    async def _run(self, request: Mapping[str, Any], cut: tuple[str, int] | None) -> RunRecord:
        process = Process(self.thread)  # type: ignore[arg-type]
        runtime, _ = await process.up
        kwargs = {"graph_id": "g", "durability": self.plan.durability, "strict_resume": self.plan.strict, **request}
        run: RunRecord = await process.spawn(runtime.runs.create(THREAD, kwargs=kwargs, on_disconnect="continue"))
        if cut is not None:
            process = await self._cut(process, runtime, run, *cut)
        await ended(self.thread.store, run)
        self.agent.broken = False
        await process.down()
        return await self.thread.store.runs.get(run.run_id, owner=ANY_OWNER)

    async def _cut(self, process: Process, runtime: Any, run: RunRecord, how: str, at: int) -> Process:
        for _ in range(at):
            await asyncio.sleep(0)
        if how == "cancel":
            await process.spawn(runtime.runs.cancel(run.run_id, action="interrupt"))
            return process
        if how == "failure":
            self.agent.broken = True
            return process
        if how == "drain":
            await process.down()
        else:
            process.kill()
            self.lost.append(process)
        if how == "crash_then_cancel":
            await self.thread.store.runs.request_cancel(
                run.run_id, owner=ANY_OWNER, action=CancelAction.INTERRUPT, reason=EndReason.USER_CANCEL, by=None
            )
        rescuer = Process(self.thread)
        await rescuer.up
        return rescuer


def stopping(agent: Asking, **options: Any) -> Any:
    """Return a graph whose subgraph works, and stops at a breakpoint that it was compiled with."""

    async def last(state: State) -> State:
        agent.answered.append(("last", None))
        return {"log": ["last"]}

    inner = StateGraph(State).add_node("slow", agent.works).add_node("last", last)
    return around(inner.add_edge(START, "slow").add_edge("slow", "last").compile(**options))


async def stopped(agent: Asking, thread: Thread, cut: tuple[str, int]) -> list[str]:
    """Cut the first run of a graph that has a breakpoint; return what is wrong with that run or the next one."""
    history = History(agent=agent, thread=thread, plan=Plan(cuts=(), durability="sync"))
    wrong = []
    run = await history._run({"input": {"log": []}}, cut)
    if run.end_reason is not EndReason.PAUSED or agent.answered:
        wrong.append(f"the run was to pause, and ended as {run.status} after {agent.answered}")
    run = await history._run({"input": None}, None)
    if run.status is not RunStatus.SUCCESS or len(agent.answered) != 1:
        wrong.append(f"the run was to go on, and ended as {run.status} after {agent.answered}")
    for process in history.lost:
        await process.go_on()
    return wrong


def told(shape: str, plan: Plan) -> list[str]:
    """Return what goes wrong on a thread of *shape* that is answered as *plan* says."""

    async def tell() -> list[str]:
        agent = Asking(turns=())
        history = History(agent=agent, thread=Thread(agent, SHAPES[shape]), plan=plan)
        wrong = list(await history.tell())  # a lost process that goes on is fenced off, and may note what it likes
        for process in history.lost:
            await process.go_on()
        return wrong

    return run_virtual(tell, TickingLoop)
