"""Graphs that leave a trace of every step outside of Runlane, or that harm their process."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import operator
import os
import sys
import time
from typing import Annotated, Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph

LIBC = ctypes.CDLL(None)


class StepsState(TypedDict):
    name: str
    steps: int
    seconds: float
    done: int
    padding: int
    log: Annotated[list[dict[str, Any]], operator.add]


def trace(line: str) -> None:
    """Append *line* to the file of effects, which no transaction takes back."""
    os.write(effects(), f"{line}\n".encode())


@functools.cache
def effects() -> int:
    """Return the file's descriptor, which is kept: there may be no other to be had later."""
    return os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_APPEND)


async def step(state: StepsState) -> dict[str, Any]:
    number = state["done"] + 1
    trace(f"{state['name']} {number} {os.getpid()}")
    get_stream_writer()({"step": number})
    await asyncio.sleep(state["seconds"])
    padding = f"{number:02}" * (state.get("padding", 0) // 2)
    return {
        "done": number,
        "log": [{"name": state["name"], "step": number, "pid": os.getpid(), "padding": padding}],
    }


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


def spin(state: StepsState) -> dict[str, Any]:
    """Compute for a while, holding the interpreter's lock like any pure Python."""
    trace(f"{state['name']} 1 {os.getpid()}")
    until = time.monotonic() + state["seconds"]
    while time.monotonic() < until:
        sum(range(1000))
    return {"done": 1}


def wait_in_c(state: StepsState) -> dict[str, Any]:
    """Enter a function of C that never comes back."""
    trace(f"{state['name']} 1 {os.getpid()}")
    read_end, _ = os.pipe()
    LIBC.read(read_end, ctypes.create_string_buffer(1), 1)
    return {"done": 1}


async def flood(state: StepsState) -> dict[str, Any]:
    """Publish *steps* events of 100 kB."""
    write = get_stream_writer()
    for number in range(state["steps"]):
        write({"step": number, "text": "x" * 100_000})
        await asyncio.sleep(0)
    return {"done": state["steps"]}


def grow(state: StepsState) -> dict[str, Any]:
    """Leave *steps* MB in the state."""
    return {"done": 1, "log": [{"name": state["name"], "text": "x" * 1_000_000} for _ in range(state["steps"])]}


steps = (
    StateGraph(StepsState)
    .add_node("step", step)
    .add_edge(START, "step")
    .add_conditional_edges("step", more, ["step", END])
    .compile()
)
killer = StateGraph(StepsState).add_node("kill", kill).add_edge(START, "kill").compile()
leaver = StateGraph(StepsState).add_node("leave", leave).add_edge(START, "leave").compile()
spinner = StateGraph(StepsState).add_node("spin", spin).add_edge(START, "spin").compile()
caller = StateGraph(StepsState).add_node("wait_in_c", wait_in_c).add_edge(START, "wait_in_c").compile()
flooder = StateGraph(StepsState).add_node("flood", flood).add_edge(START, "flood").compile()
grower = StateGraph(StepsState).add_node("grow", grow).add_edge(START, "grow").compile()
blocker = StateGraph(StepsState).add_node("block", block).add_edge(START, "block").compile()
