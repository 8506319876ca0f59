"""A graph that calls the server which runs it, by the official client without a URL."""

from __future__ import annotations

from typing import Any

from langgraph.graph import START, StateGraph
from langgraph_sdk import get_client
from typing_extensions import TypedDict

#: Made before there is a server.
early = get_client()


class State(TypedDict, total=False):
    thread_id: str
    told: list[str]
    doubled: int
    seen: int


async def call(state: State) -> dict[str, Any]:
    client = get_client()
    thread = await early.threads.create(metadata={"of": "a graph"})
    result: Any = await client.runs.wait(thread["thread_id"], "inner", input={"doubled": 2})
    told = [part.event async for part in client.runs.stream(thread["thread_id"], "inner", input={"doubled": 2})]
    found = await client.threads.search(metadata={"of": "a graph"})
    return {"thread_id": thread["thread_id"], "doubled": result["doubled"], "told": told, "seen": len(found)}


async def double(state: State) -> dict[str, Any]:
    return {"doubled": 2 * state["doubled"]}


calling = StateGraph(State).add_node("call", call).add_edge(START, "call").compile()
inner = StateGraph(State).add_node("double", double).add_edge(START, "double").compile()
