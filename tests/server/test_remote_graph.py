"""A graph on the server, used as a graph of one's own: LangGraph's RemoteGraph."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.pregel.remote import RemoteGraph
from langgraph.types import Command
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import LangGraphClient

from server_kit import Server

THREE = {"steps": 3, "delay_s": 0}


@pytest.fixture
def config(thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}}


def remote(client: LangGraphClient, name: str) -> RemoteGraph:
    return RemoteGraph(name, client=client)


async def test_it_is_invoked_and_streamed(client: LangGraphClient, config: RunnableConfig) -> None:
    graph = remote(client, "steps")
    assert (await graph.ainvoke(THREE, config))["done"] == [0, 1, 2]
    updates = [part async for part in graph.astream({"steps": 0}, config, stream_mode="updates")]
    assert updates == [{"step": {"done": [3]}}]
    both = [part async for part in graph.astream({"steps": 0}, config, stream_mode=["updates", "values"])]
    assert {part[0] for part in both} == {"updates", "values"}


async def test_it_streams_tokens_and_subgraphs(client: LangGraphClient, config: RunnableConfig) -> None:
    hello = {"messages": [{"type": "human", "content": "hi you"}]}
    parts: Any = remote(client, "nested").astream(hello, config, stream_mode=["messages"], subgraphs=True)
    texts = [data[0]["content"] async for _, _, data in parts]
    assert "".join(texts).startswith("echo: hi you")


async def test_its_state_is_read_written_and_walked(client: LangGraphClient, config: RunnableConfig) -> None:
    graph = remote(client, "steps")
    await graph.ainvoke(THREE, config)
    state = await graph.aget_state(config)
    assert (state.values["done"], state.next) == ([0, 1, 2], ())
    history = [one async for one in graph.aget_state_history(config, limit=10)]
    assert len(history) == 5
    assert (await graph.aget_state(history[2].config)).values == history[2].values
    written = await graph.aupdate_state(config, {"done": [9]}, as_node="step")
    assert written["configurable"]["checkpoint_id"] != state.config["configurable"]["checkpoint_id"]
    assert (await graph.aget_state(config)).values["done"] == [0, 1, 2, 9]
    older = [one async for one in graph.aget_state_history(config, before=history[1].config, limit=10)]
    assert [one.values for one in older] == [one.values for one in history[2:]]


async def test_its_interrupt_is_seen_and_answered(client: LangGraphClient, config: RunnableConfig) -> None:
    graph = remote(client, "approval")
    paused = await graph.ainvoke({"topic": "x"}, config)
    assert paused["__interrupt__"][0]["value"]["question"] == "approve?"
    state = await graph.aget_state(config)
    assert state.tasks[0].interrupts[0].value["topic"] == "x"
    assert (await graph.ainvoke(Command(resume="yes"), config))["answers"] == ["yes"]


async def test_its_errors_are_raised(client: LangGraphClient, config: RunnableConfig) -> None:
    with pytest.raises(Exception, match="boom"):
        await remote(client, "failing").ainvoke({}, config)


async def test_it_is_drawn(client: LangGraphClient) -> None:
    drawn = await remote(client, "nested").aget_graph(xray=True)
    assert "child:answer" in drawn.nodes
    assert "answer" in drawn.draw_mermaid()


def test_the_synchronous_client_works_too(server: Server) -> None:
    with get_sync_client(url=server.url, api_key=None) as client:
        thread_id = client.threads.create()["thread_id"]
        parts = list(client.runs.stream(thread_id, "steps", input=THREE, stream_mode="values"))
        assert parts[-1].event == "end"
        graph = RemoteGraph("steps", sync_client=client)
        state = graph.get_state({"configurable": {"thread_id": thread_id}})
        assert state.values["done"] == [0, 1, 2]
        assert graph.invoke({"steps": 0}, {"configurable": {"thread_id": thread_id}})["done"] == [0, 1, 2, 3]
