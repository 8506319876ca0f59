"""Graphs whose own work is next to nothing, so that what is measured is the server around them.

The input says how much: ``n`` tokens, supersteps or keys, ``seconds`` of sleep, ``size`` of what is made.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Protocol, TypedDict

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph

TOKEN = "tok "


def merged(table: dict[str, str], added: dict[str, str]) -> dict[str, str]:
    return {**table, **added}


class Work(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    n: int
    seconds: float
    count: int
    size: int


class Table(TypedDict, total=False):
    table: Annotated[dict[str, str], merged]
    n: int
    size: int
    count: int
    steps: int


class Node(Protocol):
    async def __call__(self, state: Work) -> Work: ...


class SyncNode(Protocol):
    def __call__(self, state: Work) -> Work: ...


class EndlessTalker(BaseChatModel):
    """A chat model that says one word ``length`` times, as fast as it is read."""

    length: int

    @property
    def _llm_type(self) -> str:
        return "endless-talker"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=TOKEN * self.length))])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for _ in range(self.length):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=TOKEN))
            if run_manager is not None:
                await run_manager.on_llm_new_token(TOKEN, chunk=chunk)
            yield chunk


async def do_nothing(state: Work) -> Work:
    return {"count": 1}


async def talk(state: Work) -> Work:
    return {"messages": [await EndlessTalker(length=state["n"]).ainvoke(state["messages"])]}


async def sleep(state: Work) -> Work:
    await asyncio.sleep(state["seconds"])
    return {"count": 1}


async def block(state: Work) -> Work:
    """Do what no coroutine should: nobody else's code runs on this loop meanwhile."""
    time.sleep(state["seconds"])  # noqa: ASYNC251 - the fault that is measured
    return {"count": 1}


def sync_sleep(state: Work) -> Work:
    time.sleep(state["seconds"])
    return {"count": 1}


async def spin(state: Work) -> Work:
    until = time.monotonic() + state["seconds"]
    while time.monotonic() < until:
        pass
    return {"count": 1}


async def reply(state: Work) -> Work:
    """Answer with ``size`` characters."""
    return {"messages": [AIMessage(content=noise(state["size"]))]}


async def fill(state: Table) -> Table:
    """Put ``n`` keys of ``size`` characters into the table, or one more if it has some."""
    table, size = state.get("table", {}), state["size"]
    if table:
        return {"table": {f"added {len(table)}": noise(size)}, "count": state["count"] + 1}
    return {"table": {f"key {number}": noise(size) for number in range(state["n"])}, "count": state["count"]}


async def step(state: Work) -> Work:
    return {"count": state["count"] + 1}


def next_step(state: Work) -> str:
    return "step" if state["count"] < state["n"] else END


def noise(size: int) -> str:
    """Give text that compression makes a quarter smaller, and no more."""
    return base64.b64encode(random.randbytes(size))[:size].decode()


def next_fill(state: Table) -> str:
    return "fill" if state["count"] < state.get("steps", 0) else END


def single(node: Node | SyncNode) -> CompiledStateGraph[Any, Any, Any, Any]:
    return StateGraph(Work).add_node("only", node).add_edge(START, "only").add_edge("only", END).compile()


noop = single(do_nothing)
tokens = single(talk)
sleeper = single(sleep)
blocker = single(block)
sync_sleeper = single(sync_sleep)
spinner = single(spin)
chat = single(reply)
filler = (
    StateGraph(Table)
    .add_node("fill", fill)
    .add_edge(START, "fill")
    .add_conditional_edges("fill", next_fill, ["fill", END])
    .compile()
)
steps = (
    StateGraph(Work)
    .add_node("step", step)
    .add_edge(START, "step")
    .add_conditional_edges("step", next_step, ["step", END])
    .compile()
)
