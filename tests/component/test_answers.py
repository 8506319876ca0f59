"""P7, P8: a person's answer goes to the question that it was given to, whatever happens to the run that brings it."""

from __future__ import annotations

import functools
import itertools
import logging
import operator
import os
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.serde.types import RESUME
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from agent_kit import Desk
from cutting.agent import TickingLoop
from cutting.helpers import Shape
from cutting.questions import CUTS, SHAPES, Asking, Plan, stopped, stopping, told
from cutting.thread import Thread
from runlane.agents.graph import GraphAgent
from runlane.agents.registry import Registry
from runlane.journal.rows import CheckpointRows, put
from runlane.outcomes import Snapshot
from runlane.testing.virtual_loop import run_virtual

#: Histories of each shape and way of cutting; many more with the variable set.
EXAMPLES = int(os.environ.get("RUNLANE_ANSWERS_EXAMPLES", "1"))
#: Nodes that ask after a subgraph has finished, which LangGraph does not store with durability ``exit``.
FORGETFUL = ("called_twice", "gathered")
COMMAND_TASK_ID = "00000000-0000-0000-0000-000000000000"


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "runlane")


def plans(shape: str, how: str, number: int) -> list[Plan]:
    """Return plans that differ in all they can, beginning at the same place for each *number*."""
    turns = itertools.cycle(range(3, 125, 7))
    ats = list(itertools.islice(turns, number * 5, number * 5 + EXAMPLES))
    thens, durabilities = (
        itertools.cycle(("null", "again")),
        itertools.cycle(("async", "sync", "async" if shape in FORGETFUL else "exit")),
    )
    return [
        Plan(
            cuts=((how, at), (how, 70)),
            then=then,
            durability=durability,
            one_at_a_time=bool(index % 2),
            strict=index % 3 == 0,
        )
        for index, (at, then, durability) in enumerate(zip(ats, thens, durabilities, strict=False), start=number)
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_no_question_is_answered_by_an_answer_to_another_one(shape: str) -> None:
    wrong = {
        (how, plan): found
        for number, how in enumerate(CUTS)
        for plan in plans(shape, how, number + len(shape))
        if (found := told(shape, plan))
    }
    assert wrong == {}


@pytest.mark.parametrize(
    ("shape", "changes"), [("root", "outside"), ("one_node", "outside"), ("one_node", "command"), ("node", "command")]
)
def test_no_question_takes_the_answer_to_one_whose_state_was_changed(shape: str, changes: str) -> None:
    for how, at in (("crash", 40), ("crash", 50)):
        assert told(shape, Plan(cuts=((how, at),), changes=changes, durability="sync")) == []


@pytest.mark.parametrize("how", ["crash", "drain"])
@pytest.mark.parametrize(
    "options",
    [
        {"interrupt_before": ["last"]},
        {"interrupt_after": ["slow"]},
        {"interrupt_before": ["last"], "checkpointer": True},
    ],
)
def test_a_breakpoint_of_a_subgraph_holds_when_its_process_leaves(options: dict[str, Any], how: str) -> None:
    async def check(at: int) -> list[str]:
        agent = Asking(turns=())
        shape = Shape(lambda _: stopping(agent, **options), {"": ""})
        return await stopped(agent, Thread(agent, shape), (how, at))

    for at in (36, 42, 54):
        assert run_virtual(functools.partial(check, at), TickingLoop) == [], at


class Person:
    """What nodes have asked, and what they were answered."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.fails = False

    def asks(self, question: str) -> Any:
        def node(state: Log) -> Log:
            answer = interrupt(question)
            self.told.append((question, answer))
            if self.fails:
                raise LookupError("out of order")
            return {"log": [f"{question}={answer}"]}

        return node

    def two(self, **options: Any) -> Any:
        graph = StateGraph(Log).add_node("first", self.asks("first")).add_node("second", self.asks("second"))
        return graph.add_edge(START, "first").add_edge("first", "second").compile(**options)


def around(inner: Any) -> Any:
    return StateGraph(Log).add_node("sub", inner).add_edge(START, "sub")


@pytest.fixture
async def person() -> Person:
    return Person()


def desk(graph: Any) -> Desk:
    return Desk(GraphAgent(Registry.from_graphs({"g": graph}), "g"))


def asked(snapshot: Snapshot) -> list[str]:
    return [item["value"] for items in snapshot.interrupts.values() for item in items]


async def test_a_later_run_without_an_answer_asks_the_next_question_again(person: Person) -> None:
    at = desk(around(person.two()))
    await at.run(input={"log": []})
    assert asked(await at.run(command={"resume": "yes"})) == ["second"]
    assert asked(await at.run(input=None)) == ["second"]
    assert person.told == [("first", "yes")]


async def test_an_answer_that_an_earlier_version_left_beside_a_checkpoint_answers_nothing(person: Person) -> None:
    at = desk(around(person.two()))
    await at.run(input={"log": []})
    saved = await at.saver.aget_tuple({"configurable": {"thread_id": "t"}})
    kind, data = at.saver.serde.dumps_typed([(RESUME, "stale")])
    key = {**saved.config["configurable"], "run_id": "", "task_id": COMMAND_TASK_ID, "task_path": ""}
    await at.saver._driver.write(put(CheckpointRows(writes=[{**key, "type": kind, "writes": data, "refs": None}])))
    assert asked(await at.run(input=None)) == ["first"]
    assert person.told == []


async def test_a_value_given_to_a_breakpoint_answers_no_question(person: Person) -> None:
    at = desk(around(person.two()))
    assert (await at.run(input={"log": []}, interrupt_before=["sub"])).paused
    assert asked(await at.run(command={"resume": True})) == ["first"]
    assert person.told == []


async def test_the_answer_to_a_task_that_failed_can_be_given_anew_or_kept(person: Person) -> None:
    at = desk(around(person.two()))
    await at.run(input={"log": []})
    for fails, request in ((True, {"resume": "yes"}), (True, {"resume": "no"}), (True, None), (False, None)):
        person.fails = fails
        if not fails:
            assert asked(await at.run(input=None)) == ["second"]
            continue
        with pytest.raises(LookupError):
            await at.run(**({"input": None} if request is None else {"command": request}))
    assert person.told == [("first", "yes"), ("first", "no"), ("first", "no"), ("first", "no")]


async def test_an_answer_reaches_a_subgraph_without_checkpoints(person: Person) -> None:
    at = desk(around(person.two(checkpointer=False)))
    await at.run(input={"log": []})
    assert asked(await at.run(command={"resume": "yes"})) == ["second"]
    assert person.told == [("first", "yes")]


async def test_an_answer_in_protocol_v2_reaches_a_subgraph_without_checkpoints(person: Person) -> None:
    at = desk(around(person.two(checkpointer=False)))
    ((found,),) = (await at.run(input={"log": []})).interrupts.values()
    assert asked(await at.run(command={"resume": {found["id"]: "yes"}})) == ["second"]
    assert person.told == [("first", "yes")]


async def change(at: Desk, graph: Any, *, within: bool = False) -> None:
    """Change the state of the thread's graph, or of its subgraph, as an application does."""
    compiled = graph.compile(checkpointer=at.saver)
    state = await compiled.aget_state({"configurable": {"thread_id": "t"}}, subgraphs=True)
    where = state.tasks[0].state.config if within else state.config
    await compiled.aupdate_state(where, {"log": ["changed"]}, as_node=START)


@pytest.mark.parametrize("within", [False, True])
async def test_a_question_whose_state_was_changed_still_gets_its_answer_and_the_next_one_does_not(
    within: bool, person: Person
) -> None:
    graph = around(person.two()) if within else person.two().builder
    at = desk(graph)
    await at.run(input={"log": []})
    await change(at, graph, within=within)
    assert asked(await at.run(command={"resume": "yes"})) == ["second"]
    assert asked(await at.run(input=None)) == ["second"]
    assert person.told == [("first", "yes")]


async def test_a_subgraph_that_a_change_makes_begin_anew_does_not_take_the_answer_to_its_last_question(
    person: Person,
) -> None:
    graph = around(person.two())
    at = desk(graph)
    await at.run(input={"log": []})
    assert asked(await at.run(command={"resume": "yes"})) == ["second"]
    await change(at, graph)
    assert asked(await at.run(command={"resume": "to the second"})) == ["first"]
    assert person.told == [("first", "yes")]


async def test_a_command_that_also_updates_the_state_answers_one_question(person: Person) -> None:
    at = desk(around(person.two()))
    await at.run(input={"log": []})
    assert asked(await at.run(command={"resume": "yes", "update": {"log": ["more"]}})) == ["second"]
    assert asked(await at.run(input=None)) == ["second"]
    assert person.told == [("first", "yes")]
