"""The setting ``isolate_graphs``: on which threads graphs execute."""

from __future__ import annotations

import threading
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph

from server_kit import running_server, sdk


class Where(TypedDict, total=False):
    thread: int


async def node(state: Where) -> Where:
    return {"thread": threading.get_ident()}


def graph() -> Any:
    return StateGraph(Where).add_node("node", node).add_edge(START, "node").add_edge("node", END)


@pytest.mark.parametrize("isolated", [False, True])
async def test_runs_of_each_graph_have_a_loop_thread_of_their_own_if_it_is_asked_for(isolated: bool) -> None:
    with running_server("memory://", graphs={"a": graph(), "b": graph()}, isolate_graphs=isolated) as server:
        async with sdk(server) as client:
            a, again, b = [(await client.runs.wait(None, name, input={}))["thread"] for name in ("a", "a", "b")]
    assert a == again
    assert (a != b) is isolated
