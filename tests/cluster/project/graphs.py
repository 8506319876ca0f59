"""One graph that works in four ways: step by step, with tools, in a subgraph, and with a question to a human.

Each step leaves a trace outside of Runlane, which no transaction takes back, and an entry in the thread's state.
"""

from __future__ import annotations

import asyncio
import functools
import operator
import os
import time
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt

Entry = dict[str, Any]
#: How often a step says that it goes on.
TOLD = 4


class State(TypedDict, total=False):
    run: str
    kind: str
    steps: int
    seconds: float
    done: int
    log: Annotated[list[Entry], operator.add]
    inner: list[Entry]
    messages: Annotated[list[AnyMessage], add_messages]


class Inner(TypedDict, total=False):
    run: str
    steps: int
    seconds: float
    done: int
    inner: Annotated[list[Entry], operator.add]


@functools.cache
def effects() -> int:
    return os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_APPEND)


async def act(run: str, step: int, seconds: float, config: RunnableConfig) -> Entry:
    """Do a step: leave its trace, tell it, take time, and return its entry.

    The trace has the time of the machine's monotonic clock, which a fault cannot set.
    """
    attempt = config["metadata"]["run_attempt"]
    os.write(effects(), f"{run} {step} {attempt} {os.getpid()} {time.monotonic():.4f}\n".encode())
    tell = get_stream_writer()
    for _ in range(TOLD):  # so that there is always something on its way to the database
        tell({"step": step, "attempt": attempt})
        await asyncio.sleep(seconds / TOLD)
    return {"run": run, "step": step, "attempt": attempt}


async def step(state: State, config: RunnableConfig) -> State:
    number = state["done"] + 1
    return {"done": number, "log": [await act(state["run"], number, state["seconds"], config)]}


async def inner_step(state: Inner, config: RunnableConfig) -> Inner:
    number = state["done"] + 1
    return {"done": number, "inner": [await act(state["run"], number, state["seconds"], config)]}


async def collect(state: State) -> State:
    return {"log": state["inner"], "inner": []}


async def think(state: State) -> State:
    """Ask for the next step as a model does: by a call of a tool."""
    number = sum(isinstance(message, ToolMessage) for message in since_asked(state)) + 1
    if number > state["steps"]:
        return {"messages": [AIMessage(f"{state['run']} is done")]}
    args = {"run": state["run"], "step": number, "seconds": state["seconds"]}
    calls = [{"name": "work_on", "args": args, "id": f"{state['run']}-{number}", "type": "tool_call"}]
    return {"messages": [AIMessage("", tool_calls=calls)]}


def since_asked(state: State) -> list[AnyMessage]:
    """Return the messages of this run: those since the last one of a human."""
    messages = state["messages"]
    asked = max(index for index, message in enumerate(messages) if isinstance(message, HumanMessage))
    return messages[asked + 1 :]


@tool
async def work_on(
    run: str, step: int, seconds: float, tool_call_id: Annotated[str, InjectedToolCallId], config: RunnableConfig
) -> Command[Any]:
    """Do one step of the work."""
    entry = await act(run, step, seconds, config)
    return Command(update={"log": [entry], "messages": [ToolMessage(f"step {step}", tool_call_id=tool_call_id)]})


async def prepare(state: State, config: RunnableConfig) -> State:
    return {"log": [await act(state["run"], 1, state["seconds"], config)]}


async def ask(state: State, config: RunnableConfig) -> State:
    """Wait for a human, who says in whose name the rest is done."""
    answer = interrupt({"of": state["run"]})
    return {"log": [await act(answer, 1, state["seconds"], config)]}


def more(state: State) -> str:
    return "step" if state["done"] < state["steps"] else END


def more_inside(state: Inner) -> str:
    return "inner_step" if state["done"] < state["steps"] else END


def way(state: State) -> str:
    return {"steps": "step", "tools": "think", "nested": "nested", "approval": "prepare"}[state["kind"]]


def called(state: State) -> str:
    last = state["messages"][-1]
    return "tools" if isinstance(last, AIMessage) and last.tool_calls else END


nested = (
    StateGraph(Inner)
    .add_node("inner_step", inner_step)
    .add_edge(START, "inner_step")
    .add_conditional_edges("inner_step", more_inside, ["inner_step", END])
    .compile()
)
work = (
    StateGraph(State)
    .add_node("step", step)
    .add_node("think", think)
    .add_node("tools", ToolNode([work_on]))
    .add_node("nested", nested)
    .add_node("collect", collect)
    .add_node("prepare", prepare)
    .add_node("ask", ask)
    .add_conditional_edges(START, way, ["step", "think", "nested", "prepare"])
    .add_conditional_edges("step", more, ["step", END])
    .add_conditional_edges("think", called, ["tools", END])
    .add_edge("tools", "think")
    .add_edge("nested", "collect")
    .add_edge("collect", END)
    .add_edge("prepare", "ask")
    .add_edge("ask", END)
    .compile()
)
