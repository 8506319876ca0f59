"""Graphs of the tests of logs, metrics and traces: one asks, one waits until a file is there."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from opentelemetry import trace

log = logging.getLogger("observed")


class State(TypedDict, total=False):
    answer: str


async def ask(state: State) -> State:
    with trace.get_tracer("observed").start_as_current_span("their own span"):
        log.info("they ask")
    return {"answer": interrupt("sure?")}


async def wait(state: State) -> State:
    print("they wait")  # noqa: T201 - as code of graphs does
    while not Path(os.environ["EFFECTS"]).read_text():  # noqa: ASYNC110, ASYNC240 - its only signal
        await asyncio.sleep(0.02)
    return {"answer": "found"}


asker = StateGraph(State).add_node("ask", ask).add_edge(START, "ask").add_edge("ask", END).compile()
waiter = StateGraph(State).add_node("wait", wait).add_edge(START, "wait").add_edge("wait", END).compile()
