"""Token accounting, observed on real LangChain models and real LangGraph graphs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation, LLMResult
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from runlane.agents.usage import UNKNOWN_MODEL, ExternalUsage, UsageCallback, aggregate, merge
from runlane.records import Usage


def tokens(given: int, made: int, total: int | None = None, cached: int = 0) -> dict[str, Any]:
    """Make a ``usage_metadata``."""
    total = given + made if total is None else total
    return {
        "input_tokens": given,
        "output_tokens": made,
        "total_tokens": total,
        "input_token_details": {"cache_read": cached},
    }


class Scripted(BaseChatModel):
    """Answers with its replies in turn."""

    replies: list[AIMessage]
    llm_output: dict[str, Any] | None = None
    model: str = "scripted-1"
    turn: int = 0

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def next_reply(self) -> AIMessage:
        reply = self.replies[self.turn % len(self.replies)]
        self.turn += 1
        return reply.model_copy(deep=True)

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.next_reply())], llm_output=self.llm_output)


class Streaming(Scripted):
    """Streams its reply word by word as Anthropic does: the input tokens come first, the output tokens last.

    ``hold_after`` makes it wait for ever after so many chunks; ``fail_after`` makes it raise.
    """

    hold_after: int | None = None
    fail_after: int | None = None
    held: Any = None

    def chunks(self) -> list[AIMessageChunk]:
        reply = self.next_reply()
        words = [AIMessageChunk(content=word + " ") for word in reply.text.split()]
        usage: Any = reply.usage_metadata
        given: Any = {**usage, "output_tokens": 0, "total_tokens": usage["input_tokens"]}
        made: Any = tokens(0, usage["output_tokens"])
        first = AIMessageChunk(content="", response_metadata=reply.response_metadata, usage_metadata=given)
        return [first, *words, AIMessageChunk(content="", usage_metadata=made)]

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self.chunks():
            yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for index, chunk in enumerate(self.chunks()):
            if index == self.hold_after:
                self.held.set()
                await asyncio.Event().wait()
            if index == self.fail_after:
                raise ConnectionError("the provider hung up")
            yield ChatGenerationChunk(message=chunk)


class Completion(BaseLLM):
    """A text completion model, as they were before chat models."""

    @property
    def _llm_type(self) -> str:
        return "completion"

    def _generate(self, prompts: list[str], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> LLMResult:
        usage = {"prompt_tokens": 4, "completion_tokens": 6}
        return LLMResult(
            generations=[[Generation(text="once upon")] for _ in prompts],
            llm_output={"token_usage": usage, "model_name": "completion-1"},
        )


def said(text: Any, usage: Any = None, **kwargs: Any) -> AIMessage:
    return AIMessage(content=text, usage_metadata=usage, **kwargs)


def model(*replies: AIMessage, **kwargs: Any) -> Scripted:
    return Scripted(replies=list(replies), **kwargs)


def config(usage: UsageCallback, *tags: str, **metadata: Any) -> Any:
    return {"callbacks": [usage], "tags": list(tags), "metadata": metadata}


async def ask(usage: UsageCallback, chat: Scripted, prompt: Sequence[BaseMessage] | str, *tags: str) -> None:
    await chat.ainvoke(prompt if isinstance(prompt, str) else list(prompt), config(usage, *tags))


def chat_graph(chat: Any, tools: Sequence[Any] = ()) -> Any:
    """Make the usual agent: a model, and a tool node while it asks for tools."""

    async def call_model(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await chat.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", call_model)
    graph.add_edge(START, "model")
    if tools:
        graph.add_node("tools", ToolNode(tools, handle_tool_errors=True))
        graph.add_conditional_edges("model", tools_condition)
        graph.add_edge("tools", "model")
    else:
        graph.add_edge("model", END)
    return graph.compile()


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    if city == "Atlantis":
        raise ValueError("no such city")
    return f"sunny in {city}"


def call(tool_call_id: str, city: str) -> dict[str, Any]:
    return {"name": "weather", "args": {"city": city}, "id": tool_call_id, "type": "tool_call"}


# Counting


@pytest.mark.parametrize("kind", [Scripted, Streaming])
@pytest.mark.parametrize("mode", ["ainvoke", "astream", "invoke", "stream"])
async def test_a_call_counts_once_however_it_is_made(kind: type[Scripted], mode: str) -> None:
    usage = UsageCallback()
    chat = kind(replies=[said("fine thanks", tokens(10, 5, cached=3), response_metadata={"model_name": "m-1"})])
    if mode == "ainvoke":
        await chat.ainvoke("how are you?", config(usage))
    elif mode == "astream":
        assert [chunk async for chunk in chat.astream("how are you?", config(usage))]
    elif mode == "invoke":
        chat.invoke("how are you?", config(usage))
    else:
        assert list(chat.stream("how are you?", config(usage)))
    counts = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, "cached_input_tokens": 3, "llm_calls": 1}
    seen = usage.snapshot()
    assert seen == Usage(
        **counts,
        lead_agent_tokens=15,
        message_count=2,
        by_model={"m-1": counts},
        first_human_message="how are you?",
        last_ai_message=seen.last_ai_message,
    )
    assert (seen.last_ai_message or "").strip() == "fine thanks"


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_a_call_through_the_event_protocol_counts_once() -> None:
    ended = asyncio.Event()
    usage = UsageCallback(on_progress=lambda _: ended.set())
    chat = Streaming(replies=[said("fine thanks", tokens(10, 5))])
    stream = await chat.astream_events("how are you?", config(usage), version="v3")
    assert await stream.output
    async with asyncio.timeout(5):
        await ended.wait()
    assert (usage.snapshot().llm_calls, usage.snapshot().total_tokens) == (1, 15)


@pytest.mark.parametrize("stream_mode", ["values", "messages"])
async def test_a_graph_counts_the_same_whether_it_is_streamed_or_not(stream_mode: str) -> None:
    usage = UsageCallback()
    graph = chat_graph(Streaming(replies=[said("fine thanks", tokens(10, 5))]))
    given = {"messages": [HumanMessage("hi")]}
    async for _ in graph.astream(given, config(usage), stream_mode=stream_mode):
        pass
    seen = usage.snapshot()
    assert (seen.llm_calls, seen.input_tokens, seen.output_tokens, seen.message_count) == (1, 10, 5, 2)


async def test_a_run_id_that_ends_twice_counts_once() -> None:
    usage, run_id = UsageCallback(), uuid.uuid4()
    reply = LLMResult(generations=[[ChatGeneration(message=said("yes", tokens(1, 1)))]])
    usage.on_chat_model_start({}, [[HumanMessage("hi")]], run_id=run_id)
    usage.on_llm_end(reply, run_id=run_id)
    usage.on_llm_error(RuntimeError(), run_id=run_id)
    usage.on_chat_model_start({}, [[HumanMessage("hi")]], run_id=run_id)
    usage.on_llm_end(reply, run_id=run_id)
    seen = usage.snapshot()
    assert (seen.llm_calls, seen.total_tokens, seen.message_count) == (1, 2, 2)


async def test_a_call_whose_start_was_not_seen_counts_at_its_end() -> None:
    usage = UsageCallback()
    reply = LLMResult(generations=[[ChatGeneration(message=said("yes", tokens(1, 1)))]])
    usage.on_llm_end(reply, run_id=uuid.uuid4(), tags=["subagent:search"])
    usage.on_llm_error(RuntimeError(), run_id=uuid.uuid4())
    seen = usage.snapshot()
    assert set(seen.by_model) == {UNKNOWN_MODEL}
    assert (seen.llm_calls, seen.subagent_tokens) == (2, 2)


async def test_a_batch_counts_each_of_its_calls() -> None:
    usage = UsageCallback()
    await model(said("yes", tokens(1, 2))).abatch(["a", "b", "c"], config(usage))
    assert (usage.snapshot().llm_calls, usage.snapshot().total_tokens) == (3, 9)


async def test_total_is_the_sum_when_the_provider_reports_none() -> None:
    usage = UsageCallback()
    await ask(usage, model(said("yes", tokens(7, 2, total=0))), "hi")
    assert usage.snapshot().total_tokens == 9


async def test_total_is_the_provider_s_when_it_reports_one() -> None:
    usage = UsageCallback()
    await ask(usage, model(said("yes", tokens(7, 2, total=30))), "hi")
    assert (usage.snapshot().total_tokens, usage.snapshot().lead_agent_tokens) == (30, 30)


@pytest.mark.parametrize(
    ("reply", "llm_output"),
    [
        (said("yes", response_metadata={"token_usage": {"prompt_tokens": 3, "completion_tokens": 4}}), None),
        (said("yes", response_metadata={"usage": {"input_tokens": 3, "output_tokens": 4}}), None),
        (said("yes"), {"token_usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": None}}),
        (said("yes", tokens(0, 0)), {"usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}}),
        (said("yes", tokens(3, 4)), {"token_usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}),
    ],
)
async def test_usage_is_found_wherever_a_provider_puts_it_and_counts_once(
    reply: AIMessage, llm_output: dict[str, Any] | None
) -> None:
    usage = UsageCallback()
    await ask(usage, model(reply, llm_output=llm_output), "hi")
    seen = usage.snapshot()
    assert (seen.input_tokens, seen.output_tokens, seen.total_tokens) == (3, 4, 7)


async def test_a_provider_that_reports_nonsense_counts_as_nothing() -> None:
    usage = UsageCallback()
    wild = {"token_usage": {"prompt_tokens": "many", "completion_tokens": -4, "prompt_tokens_details": 3}, "usage": "?"}
    await ask(usage, model(said("yes", response_metadata=wild)), "hi")
    assert (usage.snapshot().llm_calls, usage.snapshot().total_tokens) == (1, 0)


async def test_a_text_completion_model_counts() -> None:
    usage = UsageCallback()
    await Completion().ainvoke("tell me", config(usage))
    seen = usage.snapshot()
    assert (seen.llm_calls, seen.total_tokens, seen.last_ai_message) == (1, 10, "once upon")
    assert seen.by_model["completion-1"]["total_tokens"] == 10


async def test_calls_from_many_threads_lose_nothing() -> None:
    usage = UsageCallback()
    chat = model(said("yes", tokens(1, 1)))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: chat.invoke("hi", config(usage)), range(200)))
    assert (usage.snapshot().llm_calls, usage.snapshot().total_tokens) == (200, 400)


# Endings


async def cancel_when_held(work: Any, chat: Streaming) -> None:
    task = asyncio.ensure_future(work)
    async with asyncio.timeout(5):
        await chat.held.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_graph_counts_what_its_chunks_reported() -> None:
    usage = UsageCallback()
    chat = Streaming(replies=[said("one two three", tokens(10, 5))], hold_after=2, held=asyncio.Event())
    graph = chat_graph(chat)

    async def run() -> None:
        async for _ in graph.astream({"messages": [HumanMessage("hi")]}, config(usage), stream_mode="messages"):
            pass

    await cancel_when_held(run(), chat)
    seen = usage.snapshot()
    assert (seen.llm_calls, seen.input_tokens, seen.output_tokens, seen.lead_agent_tokens) == (1, 10, 0, 10)
    assert (seen.first_human_message, seen.last_ai_message, seen.message_count) == ("hi", None, 1)
    assert seen.by_model["scripted-1"]["input_tokens"] == 10


async def test_a_running_call_is_in_the_snapshot_and_not_twice_after_its_end() -> None:
    usage = UsageCallback()
    chunks = Streaming(replies=[said("one", tokens(10, 5))]).astream("hi", config(usage))
    seen = [usage.snapshot() async for _ in chunks]
    assert [(s.llm_calls, s.total_tokens) for s in seen] == [(1, 10), (1, 10), (1, 15), (1, 15)]
    assert (usage.snapshot().llm_calls, usage.snapshot().total_tokens) == (1, 15)


async def test_a_call_that_failed_half_way_counts_what_its_chunks_reported() -> None:
    usage = UsageCallback()
    chat = Streaming(replies=[said("one two", tokens(10, 5))], fail_after=2)
    with pytest.raises(ConnectionError):
        async for _ in chat.astream("hi", config(usage)):
            pass
    assert (usage.snapshot().llm_calls, usage.snapshot().total_tokens, usage.snapshot().message_count) == (1, 10, 1)


async def test_a_call_that_failed_at_once_counts_as_a_call_without_tokens() -> None:
    usage = UsageCallback()
    chat = Streaming(replies=[said("one", tokens(10, 5))], fail_after=0)
    with pytest.raises(ConnectionError):
        async for _ in chat.astream("hi", config(usage)):
            pass
    assert (usage.snapshot().llm_calls, usage.snapshot().total_tokens) == (1, 0)


# Models and callers


async def test_tokens_are_split_by_model() -> None:
    usage = UsageCallback()
    await ask(usage, model(said("a", tokens(1, 1, cached=1), response_metadata={"model_name": "big"})), "hi")
    await ask(usage, model(said("b", tokens(2, 2), response_metadata={"model": "small"})), "hi")
    await ask(usage, model(said("c", tokens(4, 4)), llm_output={"model_name": "big"}), "hi")
    await ask(usage, model(said("d", tokens(8, 8)), model="from-params"), "hi")
    by_model = usage.snapshot().by_model
    assert {name: counts["total_tokens"] for name, counts in by_model.items()} == {
        "big": 10,
        "small": 4,
        "from-params": 16,
    }
    assert (by_model["big"]["llm_calls"], by_model["big"]["cached_input_tokens"]) == (2, 1)


@pytest.mark.parametrize(
    ("tags", "bucket"),
    [
        ([], "lead_agent_tokens"),
        (["seq:step:1", "nostream"], "lead_agent_tokens"),
        (["middleware:title"], "middleware_tokens"),
        (["subagent:research"], "subagent_tokens"),
        (["middleware:title", "subagent:research"], "subagent_tokens"),
    ],
)
async def test_tokens_are_split_by_the_caller_s_tag(tags: list[str], bucket: str) -> None:
    usage = UsageCallback()
    await ask(usage, model(said("yes", tokens(1, 2))), "hi", *tags)
    seen = usage.snapshot()
    split = {name: getattr(seen, name) for name in ("lead_agent_tokens", "middleware_tokens", "subagent_tokens")}
    assert split == {**dict.fromkeys(split, 0), bucket: 3}


async def test_a_tag_on_a_sub_graph_covers_the_calls_inside_it() -> None:
    usage = UsageCallback()
    inner = chat_graph(model(said("found", tokens(100, 1)))).with_config(tags=["subagent:search"])
    lead = model(said("done", tokens(1, 1)))

    async def work(state: MessagesState) -> dict[str, Any]:
        await inner.ainvoke({"messages": [HumanMessage("search for it")]})
        return {"messages": [await lead.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("work", work).add_edge(START, "work").compile()
    await graph.ainvoke({"messages": [HumanMessage("find it")]}, config(usage))
    seen = usage.snapshot()
    assert (seen.subagent_tokens, seen.lead_agent_tokens, seen.llm_calls) == (101, 2, 2)
    assert (seen.first_human_message, seen.last_ai_message, seen.message_count) == ("find it", "done", 2)


async def test_a_call_that_langchain_s_middleware_marks_is_not_the_lead_agent_s() -> None:
    usage = UsageCallback()
    await model(said("a summary", tokens(1, 2))).ainvoke("summarise", config(usage, lc_source="summarization"))
    seen = usage.snapshot()
    assert (seen.middleware_tokens, seen.message_count, seen.first_human_message, seen.last_ai_message) == (
        3,
        0,
        None,
        None,
    )


# Messages and texts


async def test_an_agent_with_tools_counts_every_message_that_it_added_once() -> None:
    usage = UsageCallback()
    chat = model(
        said("let me see", tokens(1, 1), tool_calls=[call("1", "Rome"), call("2", "Oslo")]),
        said("", tokens(1, 1), tool_calls=[call("3", "Atlantis")]),
        said("sunny", tokens(1, 1)),
    )
    result = await chat_graph(chat, [weather]).ainvoke({"messages": [HumanMessage("weather?")]}, config(usage))
    seen = usage.snapshot()
    assert len(result["messages"]) == 7
    assert (seen.llm_calls, seen.message_count, seen.last_ai_message) == (3, 7, "sunny")


async def test_the_runs_of_a_thread_add_up_to_its_messages() -> None:
    history: list[BaseMessage] = [SystemMessage("be kind")]
    per_run = []
    for turn in ("one", "two", "three"):
        usage = UsageCallback()
        result = await chat_graph(model(said(f"re {turn}"))).ainvoke(
            {"messages": [*history, HumanMessage(turn)]}, config(usage)
        )
        history = result["messages"]
        per_run.append(usage.snapshot())
    assert [run.first_human_message for run in per_run] == ["one", "two", "three"]
    assert aggregate(per_run).message_count == len(history) - 1


async def test_a_resumed_run_counts_its_tool_result_and_shows_the_question_it_answers() -> None:
    usage = UsageCallback()
    prompt = [
        HumanMessage("older"),
        said("re older"),
        HumanMessage("delete it?"),
        said("", tool_calls=[call("1", "Rome")]),
        ToolMessage("approved", tool_call_id="1"),
    ]
    await ask(usage, model(said("deleted")), prompt)
    await ask(usage, model(said("deleted")), prompt)
    seen = usage.snapshot()
    assert (seen.first_human_message, seen.message_count) == ("delete it?", 3)


HIDDEN = [
    HumanMessage("<memory/>", additional_kwargs={"hide_from_ui": True}),
    HumanMessage("remember the plan", name="middleware:todo"),
    HumanMessage("Here is a summary", additional_kwargs={"lc_source": "summarization"}),
]


@pytest.mark.parametrize("hidden", HIDDEN)
async def test_hidden_human_messages_are_neither_shown_nor_counted(hidden: HumanMessage) -> None:
    usage = UsageCallback()
    await ask(usage, model(said("yes")), [hidden, HumanMessage("really me"), hidden])
    seen = usage.snapshot()
    assert (seen.first_human_message, seen.message_count) == ("really me", 2)


async def test_the_first_human_message_is_the_first_lead_prompt_s() -> None:
    usage = UsageCallback()
    await ask(usage, model(said("A title")), "make a title", "middleware:title")
    await ask(usage, model(said("yes")), "the question")
    await ask(usage, model(said("yes")), "a later prompt")
    assert usage.snapshot().first_human_message == "the question"
    assert usage.snapshot().message_count == 3


async def test_the_last_ai_message_is_the_lead_agent_s_and_has_text() -> None:
    usage = UsageCallback()
    await ask(usage, model(said("the answer")), "hi")
    await ask(usage, model(said("", tool_calls=[call("1", "Rome")])), "hi")
    await ask(usage, model(said(" \n")), "hi")
    await ask(usage, model(said("found it")), "hi", "subagent:search")
    await ask(usage, model(said("A title")), "hi", "middleware:title")
    assert usage.snapshot().last_ai_message == "the answer"


async def test_texts_are_read_from_content_blocks_without_thoughts() -> None:
    usage = UsageCallback()
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    blocks = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "two "},
        {"type": "text", "text": "parts"},
    ]
    await ask(usage, model(said(blocks)), [HumanMessage([image, {"type": "text", "text": "what is it?"}])])
    seen = usage.snapshot()
    assert (seen.first_human_message, seen.last_ai_message) == ("what is it?", "two parts")


async def test_texts_are_cut_at_2000_characters_and_are_plain_strings() -> None:
    usage = UsageCallback()
    await ask(usage, model(said("a" * 5000)), "q" * 5000)
    seen = usage.snapshot()
    assert (seen.first_human_message, seen.last_ai_message) == ("q" * 2000, "a" * 2000)
    assert {type(seen.first_human_message), type(seen.last_ai_message)} == {str}


# Reports


def reporter(now: Callable[[], float], interval_s: float = 5.0) -> tuple[UsageCallback, list[Usage]]:
    reports: list[Usage] = []
    return UsageCallback(on_progress=reports.append, progress_interval_s=interval_s, clock=now), reports


async def test_progress_is_reported_at_most_once_per_interval_with_the_newest_numbers() -> None:
    now = [100.0]
    usage, reports = reporter(lambda: now[0])
    for at in (100.0, 101.0, 104.9, 105.0, 106.0, 130.0):
        now[0] = at
        await ask(usage, model(said("yes", tokens(1, 0))), "hi")
    assert [report.llm_calls for report in reports] == [1, 4, 6]


async def test_what_progress_held_back_is_in_the_snapshot() -> None:
    usage, reports = reporter(lambda: 0.0)
    for _ in range(3):
        await ask(usage, model(said("yes", tokens(1, 0))), "hi")
    assert [report.llm_calls for report in reports] == [1]
    assert usage.snapshot().llm_calls == 3


async def test_failed_calls_and_external_usage_are_progress_too() -> None:
    usage, reports = reporter(iter(range(0, 100, 10)).__next__)
    usage.on_llm_error(RuntimeError(), run_id=uuid.uuid4())
    usage.add_external([ExternalUsage(source_run_id="a", input_tokens=1)])
    assert [report.total_tokens for report in reports] == [0, 1]


async def test_a_report_that_raises_does_not_harm_the_agent() -> None:
    def full(_: Usage) -> None:
        raise OSError("disk full")

    usage = UsageCallback(on_progress=full)
    reply = await model(said("yes", tokens(1, 1))).ainvoke("hi", config(usage))
    assert reply.text == "yes"
    assert usage.snapshot().total_tokens == 2


# External usage


async def test_external_usage_counts_once_per_source_and_raises_no_calls() -> None:
    usage = UsageCallback()
    record = ExternalUsage(
        source_run_id="sub-1",
        input_tokens=5,
        output_tokens=5,
        cached_input_tokens=2,
        model="small",
        tag="subagent:search",
    )
    usage.add_external([record, record])
    usage.add_external([record])
    seen = usage.snapshot()
    assert (seen.llm_calls, seen.total_tokens, seen.subagent_tokens, seen.cached_input_tokens) == (0, 10, 10, 2)
    assert seen.by_model["small"] == {
        "input_tokens": 5,
        "output_tokens": 5,
        "total_tokens": 10,
        "cached_input_tokens": 2,
        "llm_calls": 0,
    }


@pytest.mark.parametrize("external_first", [True, False])
async def test_a_call_that_is_also_reported_from_elsewhere_counts_once(external_first: bool) -> None:
    usage, run_id = UsageCallback(), uuid.uuid4()
    record = ExternalUsage(source_run_id=str(run_id), input_tokens=1, output_tokens=1)
    if external_first:
        usage.add_external([record])
    await model(said("yes", tokens(1, 1))).ainvoke("hi", config(usage, "subagent:search") | {"run_id": run_id})
    usage.add_external([record])
    assert usage.snapshot().total_tokens == 2


# Sums

ONE = Usage(
    input_tokens=1,
    output_tokens=2,
    total_tokens=3,
    llm_calls=1,
    cached_input_tokens=1,
    lead_agent_tokens=3,
    message_count=2,
    by_model={
        "big": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3, "cached_input_tokens": 1, "llm_calls": 1}
    },
    first_human_message="one",
    last_ai_message="re one",
)
TWO = Usage(
    input_tokens=10,
    total_tokens=10,
    llm_calls=1,
    subagent_tokens=7,
    middleware_tokens=3,
    message_count=1,
    by_model={"big": {"input_tokens": 10, "total_tokens": 10, "llm_calls": 1}, "small": {"llm_calls": 1}},
    first_human_message="two",
    last_ai_message="re two",
)


def test_merge_adds_counts_and_keeps_the_first_question_and_the_last_answer() -> None:
    assert merge(ONE, TWO) == Usage(
        input_tokens=11,
        output_tokens=2,
        total_tokens=13,
        llm_calls=2,
        cached_input_tokens=1,
        lead_agent_tokens=3,
        subagent_tokens=7,
        middleware_tokens=3,
        message_count=3,
        by_model={
            "big": {
                "input_tokens": 11,
                "output_tokens": 2,
                "total_tokens": 13,
                "cached_input_tokens": 1,
                "llm_calls": 2,
            },
            "small": {"llm_calls": 1},
        },
        first_human_message="one",
        last_ai_message="re two",
    )


def test_merge_leaves_its_arguments_alone() -> None:
    before = {model: dict(counts) for model, counts in ONE.by_model.items()}
    merge(ONE, TWO)
    assert ONE.by_model == before


def test_a_text_that_only_one_side_has_is_kept() -> None:
    assert merge(Usage(), ONE) == ONE
    assert merge(ONE, Usage()) == ONE


def test_aggregate_of_nothing_is_zero_and_order_of_grouping_does_not_matter() -> None:
    assert aggregate([]) == Usage()
    assert aggregate([ONE, TWO, ONE]) == merge(ONE, merge(TWO, ONE))
