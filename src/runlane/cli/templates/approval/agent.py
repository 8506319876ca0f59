"""Human in the loop: the agent drafts an e-mail, and waits until somebody approves it."""

from __future__ import annotations

from typing import TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt


class State(TypedDict, total=False):
    request: str
    draft: str
    result: str


def draft(state: State) -> State:
    return {"draft": f"Dear colleagues, {state.get('request', 'hello')}"}


def approve(state: State) -> State:
    decision = interrupt({"question": "Send this e-mail?", "draft": state["draft"]})
    return {"result": "sent" if decision == "yes" else "not sent"}


agent = (
    StateGraph(State)
    .add_node("draft", draft)
    .add_node("approve", approve)
    .add_edge(START, "draft")
    .add_edge("draft", "approve")
    .compile()
)
