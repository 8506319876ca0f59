"""LangSmith is told of runs as with plain LangGraph: by LangChain, if its variables say so."""

from __future__ import annotations

import os
import subprocess
import sys

from trace_kit import collecting

#: In a process of its own, as LangSmith reads its variables once.
PROGRAM = """
import asyncio
from langchain_core.tracers.langchain import wait_for_all_tracers
from langgraph.graph import END, START, StateGraph
from runlane import open_runtime
from runlane.graphs import GraphAgent, Registry

async def node(state):
    return {"answer": "sesame"}

async def main():
    graph = StateGraph(dict).add_node("node", node).add_edge(START, "node").add_edge("node", END)
    registry = Registry.from_graphs({"g": graph})
    async with open_runtime(graph_agent=lambda name: GraphAgent(registry, name)) as runtime:
        run = await runtime.runs.create("t", kwargs={"graph_id": "g", "input": {"a": 1}})
        await runtime.runs.join(run.run_id)
    print(run.run_id)

asyncio.run(main())
wait_for_all_tracers()
"""


def test_langsmith_is_told_of_runs_and_their_nodes() -> None:
    with collecting() as sink:
        env = {
            **os.environ,
            "LANGSMITH_TRACING": "true",
            "LANGSMITH_ENDPOINT": sink.url,
            "LANGSMITH_API_KEY": "key",
            "LANGSMITH_PROJECT": "ours",
        }
        told = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
        run_id = told.stdout.strip()
        sent = b"".join(sink.bodies)
    assert {path for path, _ in sink.requests} <= {"/runs/multipart", "/runs/batch"}
    assert {headers.get("x-api-key") for _, headers in sink.requests} == {"key"}
    for wanted in (run_id, '"thread_id":"t"', '"run_attempt":1', '"name":"node"', "sesame"):
        assert wanted.encode() in sent
