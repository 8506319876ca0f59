"""Real LangGraph agents in hostile worlds: no question is lost or asked twice, no answer is repeated."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, create_react_agent, tools_condition
from langgraph.types import Command, Send

from agent_kit import StrictModel, refuse_unpaired, tool_call
from runlane.lifecycle import EndReason, RunStatus
from runlane.testing import Turn, World, simulate

#: Worlds for each graph.
SEEDS = int(os.environ.get("RUNLANE_SIM_GRAPH_SEEDS", "15"))


class Model(StrictModel):
    """Calls *work* twice for what the user says, then answers; refuses what strict providers refuse."""

    world: Any

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _reply(self, messages: Any) -> AIMessage:
        refuse_unpaired(messages)
        asked = next((str(m.content) for m in reversed(messages) if isinstance(m, HumanMessage)), "nothing")
        if isinstance(messages[-1], ToolMessage):
            return AIMessage(f"the answer to {asked}")
        names = [f"{asked}-{part}-{self.world.random.getrandbits(32):x}" for part in "ab"]
        return AIMessage("let me see", tool_calls=[tool_call("work", name) for name in names])


def model(world: World) -> Model:
    async def gate() -> None:
        await asyncio.sleep(0.1)

    return Model(replies=[], world=world, gate=gate)


def work(world: World) -> BaseTool:
    @tool
    async def work(call_id: Annotated[str, InjectedToolCallId]) -> str:
        """Work for a while; one in three does not listen at once when it is told to stop."""
        stubborn = world.random.random() < 0.3
        world.note("begin", call=call_id)
        try:
            await asyncio.sleep(world.random.choice((0.0, 0.2, 1.5)))
        except asyncio.CancelledError:
            if not stubborn:
                raise
            await asyncio.sleep(0.3)
        world.note("done", call=call_id)
        return f"result of {call_id}"

    return work


def prebuilt(world: World) -> Any:
    """LangGraph's own agent."""
    return create_react_agent(model(world), ToolNode([work(world)]))


def fan_out(world: World) -> Any:
    """Each call is a task of its own."""
    chat = model(world)

    async def node(state: MessagesState) -> Command[Any]:
        reply = await chat.ainvoke(state["messages"])
        sends = [Send("tools", [call]) for call in reply.tool_calls]
        return Command(update={"messages": [reply]}, goto=sends or END)

    graph = StateGraph(MessagesState).add_node("agent", node, destinations=("tools", END))
    return graph.add_node("tools", ToolNode([work(world)])).add_edge(START, "agent").add_edge("tools", "agent")


def synchronous(world: World) -> Any:
    """The node that calls the model is a plain function."""
    chat = model(world)

    def node(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [chat.invoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("agent", node).add_node("tools", ToolNode([work(world)]))
    return graph.add_edge(START, "agent").add_conditional_edges("agent", tools_condition).add_edge("tools", "agent")


def delegating(world: World) -> Any:
    """A sub-agent with tools of its own does the work, as a subgraph that shares the conversation."""
    worker = prebuilt(world)

    async def greet(_: MessagesState) -> dict[str, list[BaseMessage]]:
        await asyncio.sleep(0.1)
        return {"messages": []}

    graph = StateGraph(MessagesState).add_node("greet", greet).add_node("worker", worker)
    return graph.add_edge(START, "greet").add_edge("greet", "worker")


def with_sub_agent(world: World) -> Any:
    """The tool asks an agent of its own."""
    helper = prebuilt(world)

    @tool("work")
    async def ask(call_id: Annotated[str, InjectedToolCallId]) -> str:
        """Ask another agent."""
        said = await helper.ainvoke({"messages": [("user", call_id)]})
        return str(said["messages"][-1].content)

    return create_react_agent(model(world), ToolNode([ask]))


def say(text: str, **options: Any) -> Turn:
    return Turn(input={"messages": [["user", text]]}, options={"stream_mode": ["messages-tuple", "values"], **options})


GRAPHS: dict[str, tuple[Callable[[World], Any], list[Turn]]] = {
    "prebuilt": (prebuilt, [say("q1"), say("q2"), say("q3", durability="sync")]),
    "fan_out": (fan_out, [say("q1"), say("q2"), say("q3", durability="sync")]),
    "synchronous": (synchronous, [say("q1"), say("q2"), say("q3")]),
    "delegating": (delegating, [say("q1"), say("q2"), say("q3")]),
    "with_sub_agent": (with_sub_agent, [say("q1"), say("q2")]),
}


def texts(world: World, kind: str) -> Counter[str]:
    return Counter(str(m["content"]) for m in world.values["messages"] if m["type"] == kind and m["content"])


def amiss(world: World) -> Iterator[str]:
    """Yield what the conversation has that it should not have, or lacks."""
    said, answers = texts(world, "human"), texts(world, "ai")
    questions = [run.kwargs["input"]["messages"][0][1] for run in world.runs]
    for question in set(questions):
        runs = [run for run, asked in zip(world.runs, questions, strict=True) if asked == question]
        done = sum(run.status is RunStatus.SUCCESS for run in runs)
        kept = sum(run.end_reason is not EndReason.ROLLED_BACK for run in runs)
        if not done <= said[question] <= kept:
            yield f"{question} stands there {said[question]} times; {done} runs succeeded, {kept} were not undone"
        if not done <= answers[f"the answer to {question}"] <= kept:
            yield f"{question} was answered {answers[f'the answer to {question}']} times; {done} runs succeeded"
    for run in world.runs:
        shown = [message for name, data in world.events[run.run_id] if name == "values" for message in data["messages"]]
        if run.status is RunStatus.SUCCESS and not any(m["content"].startswith("the answer to") for m in shown):
            yield f"the stream of {run.run_id} never showed its answer"


def shown_and_gone(world: World) -> Iterator[str]:
    """Yield what a viewer of a run that was stopped had read, and the conversation does not have under that id.

    A crash may come after the last events and before the checkpoint that they belong to, so it is left out.
    """
    kept = {message["id"]: message["content"] for message in world.values["messages"]}
    for run in world.runs:
        if run.status is not RunStatus.INTERRUPTED or run.rescues or run.end_reason is EndReason.ROLLED_BACK:
            continue
        texts: dict[str, str] = {}
        for name, data in world.events[run.run_id]:
            if name == "metadata":  # another attempt, which says all anew
                texts.clear()
            elif name == "messages" and data[0]["type"] == "AIMessageChunk":
                texts[data[0]["id"]] = texts.get(data[0]["id"], "") + data[0]["content"]
        for message_id, text in texts.items():
            if text and not kept.get(message_id, "").startswith(text):
                yield f"{run.run_id} showed {text!r}; kept is {kept.get(message_id)!r}"


def nothing_amiss(world: World) -> None:
    found = [*amiss(world), *shown_and_gone(world)]
    assert not found, "; ".join(found)


@pytest.mark.parametrize("name", GRAPHS)
def test_no_world_takes_or_repeats_a_part_of_a_conversation(name: str) -> None:
    graph, turns = GRAPHS[name]
    report = simulate(graph, turns, seeds=range(SEEDS), check=nothing_amiss)
    assert not report.failures, report
