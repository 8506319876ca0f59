"""A graph on the server, streamed as one of one's own: RemoteGraph's version 3, and the synchronous client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from langgraph.pregel.remote import RemoteGraph
from langgraph.types import Command
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import LangGraphClient, SyncLangGraphClient

from protocol_kit import human
from server_kit import NewDatabase, Server, running_server, sdk

PROJECT = Path(__file__).parent / "protocol_project" / "langgraph.json"


@pytest.fixture(scope="module")
def server(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server of the protocol's graphs."""
    with running_server(new_database(), PROJECT) as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[LangGraphClient]:
    async with sdk(server) as made:
        yield made


@pytest.fixture
def blocking(server: Server) -> Iterator[SyncLangGraphClient]:
    """Give the synchronous client."""
    with get_sync_client(url=server.url, api_key=None) as made:
        yield made


async def test_its_projections_are_those_of_a_local_graph(client: LangGraphClient) -> None:
    graph: Any = RemoteGraph("chat", client=client)
    async with await graph.astream_events(human("hello"), version="v3") as run:
        states = [state async for state in run.values]
        output = await run.output()
    assert [message["id"] for message in states[-1]["messages"]] == [message["id"] for message in output["messages"]]
    async with await graph.astream_events(human("hello"), version="v3") as run:
        assert [list(update) async for update in run.extensions["updates"]] == [["answer"]]
    assert output["messages"][-1]["content"][0]["text"] == "echo: hello"


async def test_its_custom_events_are_what_the_nodes_wrote(client: LangGraphClient) -> None:
    graph: Any = RemoteGraph("audited", client=client)
    async with await graph.astream_events({"rested": "no"}, version="v3") as run:
        assert "unnamed" in [item async for item in run.extensions["custom"]]


async def test_it_resumes_with_a_command(client: LangGraphClient) -> None:
    graph: Any = RemoteGraph("journey", client=client)
    config = {"configurable": {"thread_id": str(uuid4())}}
    async with await graph.astream_events({}, config, version="v3") as run:
        assert [value async for value in run.values][-1]["stops"] == ["set_out"]
        assert await run.interrupted()
        assert [item["value"] for item in await run.interrupts()] == ["go on?"]
    async with await graph.astream_events(Command(resume="yes"), config, version="v3") as run:
        states = [value async for value in run.extensions["updates"]]
    assert {"ask"} < {node for state in states for node in state}
    assert (await graph.aget_state(config)).values["stops"] == ["set_out", "ask"]


def test_the_synchronous_client_streams_values(blocking: SyncLangGraphClient) -> None:
    with blocking.threads.stream(assistant_id="chat") as thread:
        thread.run.start(input=human("hello"))
        assert [message["type"] for message in list(thread.values)[-1]["messages"]] == ["human", "ai"]
        assert thread.output["messages"][-1]["content"][0]["text"] == "echo: hello"


def test_the_synchronous_client_streams_messages(blocking: SyncLangGraphClient) -> None:
    with blocking.threads.stream(assistant_id="chat") as thread:
        thread.run.start(input=human("one two"))
        assert ["".join(stream.text) for stream in thread.messages] == ["echo: one two"]


@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_the_synchronous_client_answers(blocking: SyncLangGraphClient, transport: Any) -> None:
    with blocking.threads.stream(assistant_id="journey", transport=transport) as thread:
        thread.run.start(input={})
        assert list(thread.values)[-1]["stops"] == ["set_out"]
        thread.run.respond("yes")
        assert thread.output["stops"] == ["set_out", "ask"]
