"""Texts of exceptions that are not written for callers are in the log only, whatever way a client looks at a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from protocol_kit import EVERY_CHANNEL, Wire
from run_kit import ended, graph_run, items, opened
from runlane.records import StreamEvent
from server_kit import MODES, PATIENCE_S, Server, running_server

PRIVATE, PUBLIC = "the vault is behind the mirror", "the number is too large"
HIDDEN = "An internal error occurred"


class DriverError(Exception):
    """An exception of somebody's library."""


@tool
def look(kind: str) -> str:
    """Look for something."""
    raise DriverError(PRIVATE) if kind == "private" else ValueError(PUBLIC)


def _graph() -> Any:
    def ask(state: MessagesState) -> Any:
        kind = str(state["messages"][-1].content)
        return {"messages": [AIMessage("", tool_calls=[{"name": "look", "args": {"kind": kind}, "id": "1"}])]}

    inner = StateGraph(MessagesState).add_node("ask", ask).add_node("tools", ToolNode([look], handle_tool_errors=False))
    inner = inner.add_edge(START, "ask").add_edge("ask", "tools").add_edge("tools", END)
    outer = StateGraph(MessagesState).add_node("inner", inner.compile())
    return outer.add_edge(START, "inner").add_edge("inner", END).compile()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server("memory://", graphs={"g": _graph()}) as running:
        yield running


def _input(kind: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": kind, "id": "q"}]}


@pytest.mark.parametrize(("kind", "text", "shown"), [("private", PRIVATE, False), ("public", PUBLIC, True)])
def test_a_private_text_is_in_no_stream_state_or_history(server: Server, kind: str, text: str, shown: bool) -> None:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as http:
        thread = http.post("/threads", json={}).json()["thread_id"]
        body = {"assistant_id": "g", "input": _input(kind), "stream_mode": MODES, "stream_subgraphs": True}
        streamed = http.post(f"/threads/{thread}/runs/stream", json=body).text
        paths = ("/state?subgraphs=true", "/history", "")
        told = {path: http.get(f"/threads/{thread}{path}").text for path in paths}
    frames = [frame for frame in streamed.split("\r\n\r\n") if frame]
    for name in ("tasks", "debug", "events", "error"):
        found = [frame for frame in frames if frame.startswith(f"event: {name}") and (HIDDEN in frame or text in frame)]
        assert found, name
        assert all((text in frame) is shown for frame in found), name
    assert (text in streamed) is shown
    assert {path: text in answer for path, answer in told.items()} == dict.fromkeys(told, shown)


@pytest.mark.parametrize(("kind", "text", "shown"), [("private", PRIVATE, False), ("public", PUBLIC, True)])
async def test_a_private_text_is_in_no_channel(server: Server, kind: str, text: str, shown: bool) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
        wire = Wire(http)
        events = await wire.until(await wire.start("g", input=_input(kind)))
    failed = [event for event in events if HIDDEN in str(event) or text in str(event)]
    assert {event["method"] for event in failed} >= {"tasks", "tools", "lifecycle"}
    assert all((text in str(event)) is shown for event in failed), failed
    assert {event["method"] for event in events} <= {*EVERY_CHANNEL, "input.requested"}


async def test_an_application_that_masks_nothing_sees_all_texts() -> None:
    async def fails(context: Any) -> None:
        raise DriverError(f"{PRIVATE}: postgresql://ann:hunter2@db")

    async with opened(graphs={"g": _graph()}, mask_errors=False) as runtime:
        run = await ended(runtime, await runtime.runs.create_or_reject("t", agent=fails))
        assert run.error is not None
        assert run.error.message == f"{PRIVATE}: postgresql://***@db"
        request = graph_run(input=_input("private"), stream_mode=["tasks"], stream_subgraphs=True)
        run = await ended(runtime, await runtime.runs.create_or_reject("u", kwargs=request))
        shown = [item for item in await items(runtime, run.run_id) if isinstance(item, StreamEvent)]
        assert any(item.name.startswith("tasks") and PRIVATE.encode() in item.data for item in shown)
