"""Graphs that leave a trace of every step outside of Runlane, or that harm their process."""

from __future__ import annotations

import asyncio
import operator
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph


class StepsState(TypedDict):
    name: str
    steps: int
    seconds: float
    done: int
    log: Annotated[list[dict[str, Any]], operator.add]


def trace(line: str) -> None:
    """Append *line* to the file of effects, which no transaction takes back."""
    path = Path(os.environ["EFFECTS"])
    with path.open("a") as file:
        file.write(f"{line}\n")


async def step(state: StepsState) -> dict[str, Any]:
    number = state["done"] + 1
    trace(f"{state['name']} {number} {os.getpid()}")
    get_stream_writer()({"step": number})
    await asyncio.sleep(state["seconds"])
    return {"done": number, "log": [{"name": state["name"], "step": number, "pid": os.getpid()}]}


def more(state: StepsState) -> str:
    return "step" if state["done"] < state["steps"] else END


def kill(state: StepsState) -> dict[str, Any]:
    trace(f"{state['name']} 1 {os.getpid()}")
    os._exit(7)


def leave(state: StepsState) -> dict[str, Any]:
    raise SystemExit(3)


def block(state: StepsState) -> dict[str, Any]:
    """Block a thread that nobody can stop."""
    trace(f"{state['name']} 1 {os.getpid()}")
    sys.stdout.write("blocking\n")
    sys.stdout.flush()
    time.sleep(state["seconds"])
    return {"done": 1}


steps = (
    StateGraph(StepsState)
    .add_node("step", step)
    .add_edge(START, "step")
    .add_conditional_edges("step", more, ["step", END])
    .compile()
)
killer = StateGraph(StepsState).add_node("kill", kill).add_edge(START, "kill").compile()
leaver = StateGraph(StepsState).add_node("leave", leave).add_edge(START, "leave").compile()
blocker = StateGraph(StepsState).add_node("block", block).add_edge(START, "block").compile()
