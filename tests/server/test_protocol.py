"""The event-streaming protocol, through the official client's ``threads.stream``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from protocol_kit import human
from server_kit import NewDatabase, Server, running_server, sdk

PROJECT = Path(__file__).parent / "protocol_project" / "langgraph.json"
Transport = Literal["sse", "websocket"]


@pytest.fixture(scope="module")
def server(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server of the protocol's graphs."""
    with running_server(new_database(), PROJECT) as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[LangGraphClient]:
    async with sdk(server) as made:
        yield made


async def test_values_come_up_to_the_last_one_which_is_the_output(client: LangGraphClient) -> None:
    async with client.threads.stream(assistant_id="chat") as thread:
        await thread.run.start(input=human("hello there"))
        values = [value async for value in thread.values]
        output = await thread.output
    assert [message["type"] for message in values[-1]["messages"]] == ["human", "ai"]
    assert [message["id"] for message in output["messages"]] == [message["id"] for message in values[-1]["messages"]]


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_what_is_opened_before_the_first_run_is_told_of_it(client: LangGraphClient, transport: Transport) -> None:
    async with client.threads.stream(str(uuid4()), assistant_id="chat", transport=transport) as thread:
        messages = asyncio.ensure_future(_all(thread.messages))
        begun = asyncio.ensure_future(anext(aiter(thread.subscribe(["lifecycle"]))))
        await asyncio.wait([messages, begun], timeout=0.3)  # time in which a stream that is refused would end
        await thread.run.start(input=human("hello"))
        assert [await message.text for message in await messages] == ["echo: hello"]
        assert (await begun)["params"]["data"]["event"] == "running"


async def _all(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


async def test_messages_stream_piece_by_piece(client: LangGraphClient) -> None:
    async with client.threads.stream(assistant_id="chat") as thread:
        await thread.run.start(input=human("one two"))
        streams = [stream async for stream in thread.messages]
        assert len(streams) == 1
        assert [piece async for piece in streams[0].text] == ["echo:", " one", " two"]
        assert streams[0].node == "answer"


async def test_messages_that_a_node_returns_without_streaming_them_are_in_the_values_alone(
    client: LangGraphClient,
) -> None:
    async with client.threads.stream(assistant_id="letter") as thread:
        await thread.run.start(input={})
        streams = [stream async for stream in thread.messages]
        assert [await stream.text for stream in streams] == ["dear reader"]
        output = await thread.output
    written, *returned = output["messages"]
    assert written["id"] == streams[0].message_id
    assert [message["content"] for message in returned] == ["yours", "", "thanks"]


async def test_tool_calls_have_their_input_and_output(client: LangGraphClient) -> None:
    async with client.threads.stream(assistant_id="tools") as thread:
        await thread.run.start(input=human("add"))
        calls = [call async for call in thread.tool_calls]
        assert [(call.name, call.tool_call_id, call.input) for call in calls] == [("add", "call-1", {"a": 1, "b": 2})]
        assert (await calls[0].output)["content"] == "3"


async def test_subgraphs_are_found_with_their_messages(client: LangGraphClient) -> None:
    async with client.threads.stream(assistant_id="nested") as thread:
        await thread.run.start(input=human("hi"))
        children = [child async for child in thread.subgraphs]
        assert [child.graph_name for child in children] == ["child"]
        messages = [message async for message in children[0].messages]
        assert ["".join([piece async for piece in message.text]) for message in messages] == ["echo: hi"]


async def test_a_named_channel_has_what_a_node_writes_under_that_name(client: LangGraphClient) -> None:
    async with client.threads.stream(assistant_id="journey") as thread:
        await thread.run.start(input={})
        assert [event async for event in thread.extensions["progress"]] == [{"name": "progress", "stop": "set_out"}]


async def test_a_transformer_of_the_graph_has_its_own_channel(client: LangGraphClient) -> None:
    async with client.threads.stream(assistant_id="audited") as thread:
        await thread.run.start(input={"rested": "no"})
        assert [event["payload"] async for event in thread.extensions["audit"]] == [1, 2]


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_an_interrupted_run_goes_on_with_the_answer(client: LangGraphClient, transport: Transport) -> None:
    async with client.threads.stream(assistant_id="journey", transport=transport) as thread:
        await thread.run.start(input={})
        before = [value async for value in thread.values]
        assert before[-1]["stops"] == ["set_out"]
        assert thread.interrupted
        assert [item["value"] for item in thread.interrupts] == ["go on?"]
        await thread.run.respond("yes")
        after = [value async for value in thread.values]
        assert (after[-1]["stops"], after[-1]["rested"]) == (["set_out", "ask"], "well")
        assert (await thread.output)["stops"] == ["set_out", "ask"]


async def test_a_failed_run_is_told_with_its_error(client: LangGraphClient) -> None:
    async with client.threads.stream(assistant_id="failing") as thread:
        await thread.run.start(input={"kind": "value"})
        with pytest.raises(RuntimeError, match="boom"):
            await thread.output


async def test_channels_interleave_in_the_order_of_the_events(client: LangGraphClient) -> None:
    async with client.threads.stream(assistant_id="chat") as thread:
        await thread.run.start(input=human("hello"))
        channels = ["values", "messages", "updates", "checkpoints", "tasks"]
        names = [name async for name, _ in thread.interleave_projections(channels)]
    assert set(names) == {"values", "messages", "updates", "checkpoints", "tasks"}
    assert names.index("messages") < names.index("updates") < len(names) - 1 - names[::-1].index("values")


class Proxy:
    """Passes connections on to a server, and cuts them."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, back}
        for source, target in ((reader, back), (there, writer)):
            self._tasks.add(asyncio.ensure_future(self._pass(source, target)))

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
        target.close()

    def cut(self) -> None:
        """Break every connection off."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_the_client_goes_on_by_itself_after_broken_connections(server: Server, transport: Transport) -> None:
    proxy = Proxy(server.port)
    async with await asyncio.start_server(proxy.accept, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        client = get_client(url=f"http://127.0.0.1:{port}", api_key=None)
        async with client.threads.stream(assistant_id="steps", transport=transport) as thread:
            await thread.run.start(input={"steps": 12, "delay_s": 0.05})
            seen: list[int] = []
            async for value in thread.values:
                seen.append(len(value.get("done", [])))
                if seen[-1] in (3, 7) and seen.count(seen[-1]) == 1:
                    proxy.cut()
            assert (await thread.output)["done"] == list(range(12))
        await client.aclose()
        proxy.cut()
    assert [count for place, count in enumerate(seen) if count not in seen[:place]] == list(range(13))
    assert seen == sorted(seen)


async def test_two_threads_at_once_do_not_disturb_each_other(client: LangGraphClient) -> None:
    async def one(text: str) -> str:
        async with client.threads.stream(assistant_id="chat") as thread:
            await thread.run.start(input=human(text))
            return str((await thread.output)["messages"][-1]["content"][0]["text"])

    assert await asyncio.gather(*(one(f"number {n}") for n in range(5))) == [f"echo: number {n}" for n in range(5)]
