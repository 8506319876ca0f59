"""The acceptance list, item 35: what a client cannot do. That of the routes is in the tests of the server.

Item or known defect -> test:

    35 thread id pattern          test_a_thread_id_is_a_plain_word
    35 owner checks, D52          test_acceptance_reads.py: test_another_tenants_runs_do_not_exist
    35 reserved keys              test_a_client_cannot_forge_what_the_server_says_of_a_run
    35 recursion limit, D53       test_a_runaway_graph_is_stopped_by_its_recursion_limit
    35 D54                        test_a_run_with_a_context_still_checkpoints_under_its_thread
    35 texts of errors            test_texts_of_unknown_errors_are_not_shown
    35 secrets, D51               test_secrets.py: test_a_planted_secret_is_nowhere_but_in_the_graph
"""

from __future__ import annotations

from typing import Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from run_kit import at_once, ended, graph_run, items, opened
from runlane import InvalidRequest
from runlane.lifecycle import RunStatus
from runlane.records import StreamEvent
from runlane.runtime import Runtime


class Number(TypedDict):
    n: int


@pytest.mark.parametrize("thread_id", ["", "..", "a/b", "a b", "a\n", "ä", "\x00", "x" * 65, "a;drop"])
async def test_a_thread_id_is_a_plain_word(runtime: Runtime, thread_id: str) -> None:
    """Item 35."""
    with pytest.raises(InvalidRequest):
        await runtime.runs.create_or_reject(thread_id, agent=at_once)


async def test_a_client_cannot_forge_what_the_server_says_of_a_run() -> None:
    """Item 35: reserved keys of config and metadata are the server's."""
    seen: list[RunnableConfig] = []

    def node(state: Number, config: RunnableConfig) -> Number:
        seen.append(config)
        return {"n": 1}

    graph = StateGraph(Number).add_node("node", node).add_edge(START, "node").add_edge("node", END)
    forged = {
        "configurable": {
            "thread_id": "other",
            "run_id": "forged",
            "__internal": 1,
            "langgraph_auth_user": "root",
            "a": 1,
        },
        "metadata": {"run_id": "forged", "thread_id": "other"},
    }
    async with opened(graphs={"g": graph}) as runtime:
        run = await runtime.runs.create_or_reject(
            "t", kwargs=graph_run(input={"n": 0}, config=forged), metadata={"run_id": "forged"}
        )
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS
    configurable, metadata = seen[0]["configurable"], seen[0]["metadata"]
    assert (configurable["thread_id"], configurable["run_id"], configurable["a"]) == ("t", run.run_id, 1)
    assert (metadata["run_id"], metadata["thread_id"]) == (run.run_id, "t")
    assert configurable["langgraph_auth_user"] is None
    assert "__internal" not in configurable


async def test_a_runaway_graph_is_stopped_by_its_recursion_limit() -> None:
    """Item 35."""

    def node(state: Number) -> Number:
        return {"n": state["n"] + 1}

    graph = StateGraph(Number).add_node("node", node).add_edge(START, "node")
    graph.add_conditional_edges("node", lambda state: "node")
    async with opened(graphs={"g": graph}) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run(input={"n": 0}, config={"recursion_limit": 5}))
        failed = await ended(runtime, run)
        assert failed.status is RunStatus.ERROR
        assert failed.error is not None
        assert failed.error.error == "GraphRecursionError"


@pytest.mark.parametrize("config", [None, {"configurable": None}, {"metadata": None}])
async def test_a_run_with_a_context_still_checkpoints_under_its_thread(config: Any) -> None:
    """Item 35: D54, and null where an object may stand."""

    def node(state: Number) -> Number:
        return {"n": 1}

    graph = StateGraph(Number).add_node("node", node).add_edge(START, "node").add_edge("node", END)
    async with opened(graphs={"g": graph}) as runtime:
        run = await runtime.runs.create_or_reject(
            "t", kwargs=graph_run(input={"n": 0}, context={"user": "ann"}, config=config)
        )
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS
        saved = await runtime.saver.aget_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": ""}})
        assert saved.checkpoint["channel_values"]["n"] == 1


async def test_texts_of_unknown_errors_are_not_shown(runtime: Runtime) -> None:
    """Item 35: an exception of somebody's library may carry a password; its text stays in the log."""

    class DriverError(Exception):
        pass

    async def fails(context: Any) -> None:
        raise DriverError("postgresql://ann:hunter2@db")

    run = await runtime.runs.create_or_reject("t", agent=fails)
    failed = await ended(runtime, run)
    assert failed.error is not None
    assert "hunter2" not in failed.error.message
    shown = [item.data for item in await items(runtime, run.run_id) if isinstance(item, StreamEvent)]
    assert not any(b"hunter2" in data for data in shown)
