"""A chat model that needs no key: it answers from a small script and streams like a real one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import Field

DELAY_ENV = "EXAMPLE_TOKEN_DELAY_S"
DEFAULT_DELAY_S = 0.03  # about 33 tokens a second: what a hosted model does

_SUM = re.compile(r"(-?\d+(?:\.\d+)?)\s*(?:\+|plus|and)\s*(-?\d+(?:\.\d+)?)", re.IGNORECASE)
_CITIES = re.compile(r"\bweather\b.*?\b(?:in|for)\s+(.+?)(?:[?.!;]|$)", re.IGNORECASE)
_NOT_A_CITY = re.compile(r"^(?:the|a|what|how|add|please|tell|\d)", re.IGNORECASE)


def _default_delay_s() -> float:
    return float(os.environ.get(DELAY_ENV, DEFAULT_DELAY_S))


def _tokens(text: str) -> list[str]:
    """Cut *text* into words that keep their leading space, so that joining them gives *text* back."""
    return re.findall(r"\s*\S+", text)


def _wanted_calls(question: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the tool calls that *question* asks for, as (tool name, arguments)."""
    calls: list[tuple[str, dict[str, Any]]] = []
    if found := _CITIES.search(question):
        parts = re.split(r",\s*(?:and\s+)?|\s+and\s+", found.group(1))
        cities = [part.strip() for part in parts if part.strip() and not _NOT_A_CITY.match(part.strip())]
        calls += [("weather", {"city": city}) for city in cities]
    calls += [("add", {"a": float(a), "b": float(b)}) for a, b in _SUM.findall(question)]
    return calls


def _answer(messages: Sequence[BaseMessage]) -> str:
    """Return the closing words: the tools' results if there are any, else a greeting."""
    results: list[str] = []
    for message in reversed(messages):
        if not isinstance(message, ToolMessage):
            break
        results.insert(0, message.text)
    if results:
        return "Here is what I found. " + " ".join(results) + " Anything else?"
    return (
        f'You said "{messages[-1].text}". '
        "I am a scripted model, so I know little by heart, but I have tools:"
        " ask me for the weather in a city, or for a sum such as 19 + 23."
    )


def _call_chunks(name: str, args: dict[str, Any], index: int) -> Iterator[ToolCallChunk]:
    """Yield one tool call as providers stream it: its name first, then its arguments in pieces."""
    yield tool_call_chunk(name=name, args="", id=f"call_{uuid.uuid4().hex[:12]}", index=index)
    for piece in re.findall(r".{1,8}", json.dumps(args)):
        yield tool_call_chunk(name=None, args=piece, id=None, index=index)


class ScriptedChatModel(BaseChatModel):
    """Call the bound tools that a question asks for, then report what they returned.

    Each token takes ``token_delay_s`` seconds, as over a network. Token counts are words, and are reported as usage.
    """

    token_delay_s: float = Field(default_factory=_default_delay_s, ge=0)
    tool_names: frozenset[str] = frozenset()

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return a copy that may call *tools*."""
        return self.model_copy(update={"tool_names": frozenset(t.name for t in tools if isinstance(t, BaseTool))})

    def _script(self, messages: Sequence[BaseMessage]) -> Iterator[AIMessageChunk]:
        """Yield the chunks of the answer to *messages*; the last one carries the usage."""
        calls = [] if isinstance(messages[-1], ToolMessage) else _wanted_calls(messages[-1].text)
        calls = [call for call in calls if call[0] in self.tool_names]
        n_out = 0
        for token in _tokens("Let me look that up." if calls else _answer(messages)):
            n_out += 1
            yield AIMessageChunk(content=token)
        for index, (name, args) in enumerate(calls):
            for part in _call_chunks(name, args, index):
                n_out += 1
                yield AIMessageChunk(content="", tool_call_chunks=[part])
        n_in = sum(len(_tokens(message.text)) for message in messages)
        yield AIMessageChunk(
            content="",
            response_metadata={"model_name": "scripted", "finish_reason": "tool_calls" if calls else "stop"},
            usage_metadata=UsageMetadata(input_tokens=n_in, output_tokens=n_out, total_tokens=n_in + n_out),
            chunk_position="last",
        )

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for message in self._script(messages):
            time.sleep(self.token_delay_s)
            chunk = ChatGenerationChunk(message=message)
            if run_manager:
                run_manager.on_llm_new_token(message.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for message in self._script(messages):
            await asyncio.sleep(self.token_delay_s)
            chunk = ChatGenerationChunk(message=message)
            if run_manager:
                await run_manager.on_llm_new_token(message.text, chunk=chunk)
            yield chunk

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, run_manager, **kwargs))
