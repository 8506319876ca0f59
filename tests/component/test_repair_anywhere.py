"""A run that is cut at any turn of the loop, in any way, leaves a thread that can be used again."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from agent_kit import StrictModel, tool_call
from cutting.agent import ENDINGS, GRAPHS, Call, Turn
from cutting.helpers import SHAPES
from cutting.judge import history
from run_kit import FaultyDriver, ended, graph_run, on_jumping_time, opened, soon
from runlane.lifecycle import RunStatus

CALLS = st.builds(Call, turns=st.integers(0, 8), swallows=st.integers(0, 2), cleans_up=st.integers(0, 5))


#: Drawn histories of graphs with subgraphs, for each way of ending.
EXAMPLES = int(os.environ.get("RUNLANE_CUTTING_EXAMPLES", "4"))


def turns(ending: str) -> st.SearchStrategy[Turn]:
    return st.builds(
        Turn,
        ending=st.just(ending),
        at=st.integers(0, 160),
        rounds=st.lists(st.lists(CALLS, min_size=1, max_size=3).map(tuple), max_size=2).map(tuple),
        durability=st.sampled_from(["async", "sync", "exit"]),
        modes=st.sampled_from([("messages-tuple", "values"), ("messages",), ("protocol",)]),
        grace_turns=st.sampled_from([2, 20, 2000]),
        word_turns=st.integers(0, 2),
        subgraphs=st.booleans(),
    )


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "runlane")


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_run_that_is_cut_leaves_a_thread_that_works(ending: str, graph: str) -> None:
    @settings(max_examples=20, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.sampled_from(ENDINGS).flatmap(turns), max_size=1), turns(ending))
    def check(earlier: list[Turn], last: Turn) -> None:
        assert history([*earlier, last], graph) == []

    check()


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_run_with_subgraphs_that_is_cut_leaves_all_of_them_able_to_work(ending: str) -> None:
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(
        st.sampled_from(sorted(SHAPES.keys() - GRAPHS.keys())),
        st.lists(st.sampled_from(ENDINGS).flatmap(turns), max_size=1),
        turns(ending),
        st.booleans(),
    )
    def check(shape: str, earlier: list[Turn], last: Turn, go_on: bool) -> None:
        assert history([*earlier, last], shape, go_on=go_on) == []

    check()


@pytest.mark.parametrize("shape", ["persistent_node", "persistent_in_a_tool", "persistent_two_deep", "ordinary_node"])
def test_tools_of_a_subgraph_that_had_finished_are_not_called_again_and_the_others_are_closed(shape: str) -> None:
    for at in (45, 60):
        assert history([Turn(ending="cancel", at=at, rounds=((Call(), Call(turns=40)),))], shape, go_on=True) == []


@pytest.mark.parametrize("shape", ["persistent_node", "persistent_in_a_tool", "persistent_two_deep"])
@pytest.mark.parametrize("ending", ["drain", "crash"])
def test_a_subgraph_that_remembers_does_not_take_a_new_task_for_its_last(ending: str, shape: str) -> None:
    """It had not begun when its process left, and the next process resumes the graph around it."""
    for at in range(0, 12, 3):
        first, second = Turn(ending="cancel", at=400, rounds=()), Turn(ending=ending, at=at, durability="sync")
        assert history([first, second], shape) == []


@pytest.mark.parametrize("modes", [("messages-tuple",), ("messages",), ("protocol",)])
@pytest.mark.parametrize("ending", ["crash_then_cancel", "crash_for_good"])
def test_text_of_a_lost_process_is_kept_if_its_run_ends_then(ending: str, modes: tuple[str, ...]) -> None:
    """Half an answer was read by its viewers, in every one of these moments or in some of them."""
    for at in range(50, 110, 10):
        assert history([Turn(ending=ending, at=at, modes=modes, word_turns=5)], "chat") == []


@pytest.mark.parametrize("modes", [("messages-tuple",), ("messages",), ("protocol",)])
def test_text_of_a_subgraph_in_a_lost_process_is_kept_if_its_run_ends_then(modes: tuple[str, ...]) -> None:
    for at in (60, 90):
        turn = Turn(ending="crash_for_good", at=at, modes=modes, word_turns=5, durability="sync", subgraphs=True)
        assert history([turn], "persistent_node") == []


class Choosing:
    """A chat whose model has spoken, and whose edge to its tools waits to be let go."""

    def __init__(self) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        self.worked = 0

    def graph(self) -> Any:
        @tool
        async def work() -> str:
            """Work."""
            self.worked += 1
            return "worked"

        model = StrictModel(replies=[AIMessage("On it", tool_calls=[tool_call("work", "c1")]), AIMessage("Done")])

        async def agent(state: MessagesState) -> dict[str, list[BaseMessage]]:
            return {"messages": [await model.ainvoke(state["messages"])]}

        async def edge(state: MessagesState) -> Any:
            self.reached.set()
            await self.go.wait()
            return tools_condition(state)

        graph = StateGraph(MessagesState).add_node("agent", agent).add_node("tools", ToolNode([work]))
        graph.add_conditional_edges("agent", edge, ["tools", END])
        return graph.add_edge(START, "agent").add_edge("tools", "agent")


def chat_run(**request: Any) -> dict[str, Any]:
    return graph_run(input={"messages": [("user", "go")]}, stream_mode=["messages-tuple"], **request)


async def test_a_run_that_is_handed_back_between_a_node_and_its_edge_does_not_lose_the_edge() -> None:
    choosing, driver = Choosing(), FaultyDriver()
    async with opened(driver, graphs={"g": choosing.graph()}) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=chat_run())
        await soon(choosing.reached.wait())
    choosing.go.set()
    async with opened(driver, graphs={"g": choosing.graph()}) as runtime:
        done = await ended(runtime, run)
        thread = await runtime.store.threads.get("t", owner=done.owner)
    assert (done.status, done.attempt, choosing.worked) == (RunStatus.SUCCESS, 2, 1)
    assert [m["type"] for m in thread.values["messages"]] == ["human", "ai", "tool", "ai"]


@on_jumping_time
async def test_text_of_a_node_whose_edge_never_chooses_is_kept_in_the_checkpoint_too() -> None:
    choosing = Choosing()
    async with opened(graphs={"g": choosing.graph()}, cancel_grace_s=5, abandon_after_s=5) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=chat_run())
        await soon(choosing.reached.wait())
        async with aclosing(runtime.streams.subscribe(run.run_id)) as items:
            seen = ""
            while seen != "messages":
                seen = (await soon(anext(items))).name
        await runtime.runs.cancel(run.run_id, wait=True)
        thread = await runtime.store.threads.get("t", owner=run.owner)
        saved = await runtime.saver.aget_tuple({"configurable": {"thread_id": "t"}})
        kept = saved.checkpoint["channel_values"]["messages"]
        assert [(m.type, m.text) for m in kept] == [("human", "go"), ("ai", "On it")]
        assert [m["id"] for m in thread.values["messages"]] == [m.id for m in kept]
