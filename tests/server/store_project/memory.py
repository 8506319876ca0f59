"""A graph that keeps what it is told in the long-term store, and looks it up by similarity."""

from __future__ import annotations

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from typing_extensions import TypedDict


class State(TypedDict, total=False):
    learn: str
    ask: str
    found: list[str]


async def learn(state: State, runtime: Runtime) -> State:
    assert runtime.store is not None
    if "learn" in state:
        await runtime.store.aput(("facts",), state["learn"], {"text": state["learn"]})
    return {}


def recall(state: State, runtime: Runtime) -> State:
    """Look up with the synchronous methods, on a thread."""
    assert runtime.store is not None
    found = runtime.store.search(("facts",), query=state.get("ask"), limit=2)
    return {"found": [item.key for item in found]}


builder = StateGraph(State)
builder.add_node("learn", learn)
builder.add_node("recall", recall)
builder.add_edge(START, "learn")
builder.add_edge("learn", "recall")
builder.add_edge("recall", END)
memory = builder.compile()
