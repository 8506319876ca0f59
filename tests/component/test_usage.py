"""Model calls that are counted although nobody passed a callback to them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManager
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph

from run_kit import ended, graph_run, opened, soon
from runlane import RunContext, RunRecord, Usage
from runlane.agents.host import ThreadHost
from runlane.agents.usage import UsageCallback
from runlane.runtime import Runtime


def model(tokens: int = 5) -> GenericFakeChatModel:
    """Return a model of which each call is said to cost *tokens* tokens of input and one of output."""
    usage: Any = {"input_tokens": tokens, "output_tokens": 1, "total_tokens": tokens + 1}
    return GenericFakeChatModel(messages=iter([AIMessage("noon", usage_metadata=usage) for _ in range(9)]))


def counted(usage: Usage) -> tuple[int, int, int]:
    return usage.llm_calls, usage.input_tokens, usage.total_tokens


async def ask(_: RunContext) -> None:
    await model().ainvoke("When is high tide?")


async def ask_in_a_thread(_: RunContext) -> None:
    await asyncio.to_thread(model().invoke, "When is high tide?")


async def ask_in_a_task(_: RunContext) -> None:
    await asyncio.create_task(model().ainvoke("When is high tide?"))


async def ask_in_a_chain(_: RunContext) -> None:
    await (RunnableLambda(lambda question: question) | model()).ainvoke("When is high tide?")


async def ask_in_a_graph(_: RunContext) -> None:
    async def answer(state: MessagesState) -> Any:
        return {"messages": [await model().ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile()
    await graph.ainvoke({"messages": [("user", "When is high tide?")]})


@pytest.mark.parametrize("agent", [ask, ask_in_a_thread, ask_in_a_task, ask_in_a_chain, ask_in_a_graph])
async def test_a_model_call_of_a_coroutine_counts_once(runtime: Runtime, agent: Any) -> None:
    done = await ended(runtime, await runtime.runs.create("t", agent=agent))
    assert counted(done.usage) == (1, 5, 6)
    assert (done.usage.lead_agent_tokens, done.usage.last_ai_message) == (6, "noon")


async def test_a_call_that_is_passed_the_callback_too_counts_once(runtime: Runtime) -> None:
    async def agent(context: RunContext) -> None:
        await model().ainvoke("When is high tide?", {"callbacks": list(context.call.callbacks)})

    assert counted((await ended(runtime, await runtime.runs.create("t", agent=agent))).usage) == (1, 5, 6)


@pytest.mark.parametrize("in_a_thread", [False, True])
async def test_a_call_in_a_node_counts_once_also_in_a_thread_that_is_given_nothing_but_the_config(
    in_a_thread: bool,
) -> None:
    def answer(state: MessagesState, config: RunnableConfig) -> Any:
        if not in_a_thread:
            return {"messages": [model().invoke(state["messages"])]}
        with ThreadPoolExecutor() as pool:
            return {"messages": [pool.submit(model().invoke, state["messages"], config).result()]}

    graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer")
    async with opened(graphs={"g": graph}) as runtime:
        run = await runtime.runs.create("t", kwargs=graph_run(input={"messages": [("user", "When is high tide?")]}))
        done = await ended(runtime, run)
    assert (done.status, counted(done.usage)) == ("success", (1, 5, 6))
    assert (done.usage.first_human_message, done.usage.last_ai_message) == ("When is high tide?", "noon")


async def test_each_run_counts_its_own_calls(runtime: Runtime) -> None:
    together = asyncio.Barrier(3)

    async def agent(context: RunContext) -> None:
        await together.wait()
        await model(context.input).ainvoke("When is high tide?")

    runs = [await runtime.runs.create(f"t{n}", agent=agent, kwargs={"input": n}) for n in (1, 2, 3)]
    assert [counted((await ended(runtime, run)).usage) for run in runs] == [(1, 1, 2), (1, 2, 3), (1, 3, 4)]


async def test_a_run_that_another_run_starts_counts_for_itself(runtime: Runtime) -> None:
    async def outer(_: RunContext) -> None:
        inner = await runtime.runs.create("inner", agent=ask)
        await runtime.runs.join(inner.run_id)

    done = await ended(runtime, await runtime.runs.create("outer", agent=outer))
    assert counted(done.usage) == (0, 0, 0)
    assert counted(await runtime.runs.usage_by_thread("inner")) == (1, 5, 6)


async def test_calls_of_a_block_are_counted_and_those_after_it_are_not(runtime: Runtime) -> None:
    run = await runtime.runs.create("t")
    async with runtime.runs.attempt(run) as attempt:
        await model().ainvoke("When is high tide?")
        await asyncio.to_thread(model().invoke, "And when is low tide?")
        assert any(isinstance(handler, UsageCallback) for handler in CallbackManager.configure().handlers)
    assert not any(isinstance(handler, UsageCallback) for handler in CallbackManager.configure().handlers)
    assert attempt.ended is not None
    assert counted(attempt.ended.usage) == (2, 10, 12)
    assert counted(await runtime.runs.usage_by_thread("t")) == (2, 10, 12)


async def ask_and_fail(runtime: Runtime, run: RunRecord) -> None:
    async with runtime.runs.attempt(run):
        await model().ainvoke("When is high tide?")
        raise ZeroDivisionError


async def test_calls_of_a_failed_block_are_counted(runtime: Runtime) -> None:
    run = await runtime.runs.create("t")
    with pytest.raises(ZeroDivisionError):
        await ask_and_fail(runtime, run)
    assert counted((await runtime.runs.get(run.run_id)).usage) == (1, 5, 6)


async def test_calls_on_a_loop_of_agents_are_counted() -> None:
    async with opened(new_host=ThreadHost) as runtime:
        done = await soon(ended(runtime, await runtime.runs.create("t", agent=ask_in_a_thread)))
        assert counted(done.usage) == (1, 5, 6)
