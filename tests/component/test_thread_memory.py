"""What an attempt has read or written of a thread's large values, the next attempt does not read or encode again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

from run_kit import FaultyDriver, ended, opened
from runlane.agents.graph import GraphAgent
from runlane.agents.registry import Registry
from runlane.checkpoints.serializer import LedgerSerializer
from runlane.lifecycle import RunStatus
from runlane.records import RunRecord
from runlane.runtime import Runtime

TEXT = "What was stored once in a thread is not stored again. " * 10


class Counting(LedgerSerializer):
    """A serialiser that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.dumped = self.loaded = 0

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        self.dumped += 1
        return super().dumps_typed(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        self.loaded += 1
        return super().loads_typed(data)


async def reply(state: MessagesState) -> Any:
    return {"messages": [AIMessage(TEXT, id=f"reply-{len(state['messages'])}")]}


def chat(node: Callable[[MessagesState], Awaitable[Any]] = reply) -> Any:
    registry = Registry.from_graphs({"chat": StateGraph(MessagesState).add_node("n", node).add_edge(START, "n")})
    return lambda graph_id: GraphAgent(registry, graph_id)


async def say(runtime: Runtime, text: str = TEXT, **options: Any) -> RunRecord:
    request = {"graph_id": "chat", "input": {"messages": [{"role": "user", "content": text}]}}
    run = await ended(runtime, await runtime.runs.create_or_reject("thread", kwargs={**request, **options}))
    assert run.status is RunStatus.SUCCESS, run.error
    return run


async def turn_costs(runtime: Runtime, counting: Counting) -> tuple[int, int]:
    dumped, loaded = counting.dumped, counting.loaded
    await say(runtime)
    return counting.dumped - dumped, counting.loaded - loaded


def counted(runtime: Runtime) -> Counting:
    assert runtime.saver is not None
    counting = Counting()
    runtime.saver.serde = counting
    return counting


async def test_a_page_of_a_history_decodes_each_message_once() -> None:
    async with opened(graph_agent=chat()) as runtime:
        assert runtime.saver is not None
        for _ in range(10):
            await say(runtime)
        counting = counted(runtime)
        states = [saved async for saved in runtime.saver.alist({"configurable": {"thread_id": "thread"}})]
        messages = [saved.checkpoint["channel_values"].get("messages", []) for saved in states]
        assert (len(states), len(messages[0]), sum(map(len, messages))) == (30, 20, 300)
        assert [len(one) for one in messages] == sorted(map(len, messages), reverse=True)
        assert counting.loaded < 20 + 6 * len(states)


@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_a_turn_encodes_and_decodes_what_is_new_however_long_the_conversation_is(durability: str) -> None:
    async with opened(graph_agent=chat()) as runtime:
        counting = counted(runtime)
        for _ in range(20):
            await say(runtime, durability=durability)
        early = await turn_costs(runtime, counting)
        for _ in range(60):
            await say(runtime, durability=durability)
        late = await turn_costs(runtime, counting)
        assert late == early
        assert max(late) < 40


async def test_a_process_reads_a_thread_whole_once() -> None:
    driver = FaultyDriver()
    async with opened(driver=driver, graph_agent=chat()) as runtime:
        for _ in range(30):
            await say(runtime)
    async with opened(driver=driver, graph_agent=chat()) as runtime:
        counting = counted(runtime)
        first, second = await turn_costs(runtime, counting), await turn_costs(runtime, counting)
        assert first[1] > 60
        assert second[1] < 40


async def test_any_checkpoint_of_a_long_conversation_is_read_by_a_few_statements() -> None:
    driver = FaultyDriver()
    async with opened(driver=driver, graph_agent=chat()) as runtime:
        for number in range(80):
            message = {"role": "user", "content": TEXT, "id": f"turn-{number}"}  # where a tree is cut depends on it
            await say(runtime, input={"messages": [message]})
        assert runtime.saver is not None
        counts = []
        async for saved in runtime.saver.alist({"configurable": {"thread_id": "thread"}}):
            driver.counts.clear()
            found = await runtime.saver.aget_tuple(saved.config)
            assert found is not None
            counts.append((len(found.checkpoint["channel_values"].get("messages", ())), dict(driver.counts)))
        assert max(number for number, _ in counts) == 160
        for _, count in counts:
            parts = count.pop("parts.get", 0)
            assert parts <= 4  # the height of a tree of 160 references
            assert set(count.values()) == {1}
            assert len(count) <= 4, count  # the checkpoint, its channels, its writes, and the newest one's id
