"""What Langfuse's own handler sends of runs, served and with plain LangGraph: run where Langfuse is installed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from acceptance.kit import RUN_LIMIT_S, Server
from trace_kit import Collector, attributes, collecting

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "trace-with-langfuse.md"
FILE = re.compile(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: What the page does not show of its project.
BUILDER = """
import asyncio
from typing import TypedDict

from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt


class State(TypedDict, total=False):
    wish: str
    said: str


async def think(state):
    return {"said": (await FakeListChatModel(responses=["sesame"]).ainvoke(state["wish"])).content}


async def act(state):
    if state["wish"] == "ask":
        return {"said": interrupt("open?")}
    if state["wish"] == "wait":
        get_stream_writer()("waiting")
        await asyncio.Event().wait()
    return {}


builder = StateGraph(State).add_node(think).add_node(act)
builder.add_edge(START, "think").add_edge("think", "act").add_edge("act", END)
"""
#: The same four runs, without Runlane.
PLAIN = """
import asyncio
from contextlib import suppress

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agent import graph

graph.checkpointer = InMemorySaver()
asked, cancelled = ({"configurable": {"thread_id": name}, "run_name": "agent"} for name in ("a", "c"))


async def waits():
    async for _ in graph.astream({"wish": "wait"}, cancelled, stream_mode="custom"):
        asyncio.current_task().cancel()


async def main():
    await graph.ainvoke({"wish": "end"}, asked)
    await graph.ainvoke({"wish": "ask"}, asked)
    await graph.ainvoke(Command(resume="yes"), asked)
    with suppress(asyncio.CancelledError):
        await asyncio.create_task(waits())


asyncio.run(main())
"""


def _traces(sink: Collector) -> list[list[tuple[str, str | None, str, str | None]]]:
    """Return the traces in their order: name, parent, type and level of each span."""
    spans = sorted(sink.spans, key=lambda span: span.start_time_unix_nano)
    names = {span.span_id: span.name for span in spans}
    found: dict[bytes, list[tuple[str, str | None, str, str | None]]] = {}
    for span in spans:
        said = attributes(span)
        kind, level = said["langfuse.observation.type"], said.get("langfuse.observation.level")
        found.setdefault(span.trace_id, []).append((span.name, names.get(span.parent_span_id), kind, level))
    return list(found.values())


def _run_plainly(project: Path, sink: str) -> None:
    env = {**os.environ, "LANGFUSE_BASE_URL": sink}
    subprocess.run([sys.executable, "plain.py"], cwd=project, env=env, check=True)


async def _run_all(client: LangGraphClient) -> None:
    """Have runs that end, pause, go on and are cancelled."""
    asked_on, cancelled_on = [(await client.threads.create())["thread_id"] for _ in range(2)]
    about = {"langfuse_session_id": asked_on}
    await client.runs.wait(asked_on, "agent", input={"wish": "end"}, metadata=about)
    await client.runs.wait(asked_on, "agent", input={"wish": "ask"}, metadata=about)
    await client.runs.wait(asked_on, "agent", command={"resume": "yes"}, metadata=about)
    run_id = ""
    async for part in client.runs.stream(cancelled_on, "agent", input={"wish": "wait"}, stream_mode="custom"):
        if part.event == "metadata":
            run_id = part.data["run_id"]
        if part.event == "custom":
            await client.runs.cancel(cancelled_on, run_id, wait=True)


async def test_a_served_graph_sends_what_a_plain_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    files = FILE.findall(PAGE.read_text())
    for name, content in [*files, ("builder.py", BUILDER), ("plain.py", PLAIN)]:
        (project / name).write_text(content)
    monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", "pk-lf-1")
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", "sk-lf-1")
    with collecting() as plain, collecting() as served:
        _run_plainly(project, plain.url)
        monkeypatch.setenv("LANGFUSE_BASE_URL", served.url)
        async with Server(tmp_path, project=project) as server:
            await server.start()
            await _run_all(get_client(url=server.url, timeout=RUN_LIMIT_S))
            server.send(signal.SIGTERM)
            assert await server.ended() == 0, server.log
    assert {path for path, _ in served.requests} == {"/api/public/otel/v1/traces"}
    ended, asked, resumed, cancelled = _traces(served)
    assert [ended, asked, resumed, cancelled] == _traces(plain)
    assert ended == [
        ("agent", None, "agent", None),
        ("think", "agent", "chain", None),
        ("FakeListChatModel", "think", "generation", None),
        ("act", "agent", "chain", None),
    ]
    assert (asked[-1][3], [span[0] for span in resumed], cancelled[-1][3]) == ("DEFAULT", ["agent", "act"], "ERROR")
    sessions = {attributes(span).get("session.id") for span in served.spans}
    assert len(sessions - {None}) == 1
