"""Graphs whose pace the tests set: a word ``@name`` is said once the run of ``gate`` with that name was made."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

log = logging.getLogger("talk")

#: Runs of one server share the agents' loop, so one can wait for another; a process may serve several.
_GATES: defaultdict[tuple[asyncio.AbstractEventLoop, str], asyncio.Event] = defaultdict(asyncio.Event)


def _gate(name: str) -> asyncio.Event:
    return _GATES[asyncio.get_running_loop(), name]


class Echo(BaseChatModel):
    """Repeats the last message word by word, and waits at a gate."""

    @property
    def _llm_type(self) -> str:
        return "echo"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        raise NotImplementedError("only in async code")

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        parts = [chunk.text async for chunk in self._astream(messages)]
        answer = AIMessage("".join(parts), **_report(messages))
        return ChatResult(generations=[ChatGeneration(message=answer)])

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        words = _reply(messages).split(" ")
        for index, word in enumerate(words):
            if word.startswith("@"):
                log.warning("waits for %s", word)
                await _gate(word[1:]).wait()
            text = f" {word}" if index else word
            report = _report(messages) if index == len(words) - 1 else {}
            chunk = ChatGenerationChunk(message=AIMessageChunk(text, **report))
            if run_manager is not None:
                await run_manager.on_llm_new_token(text, chunk=chunk)
            yield chunk


def _reply(messages: Any) -> str:
    return f"echo: {messages[-1].text}"


def _report(messages: Any) -> dict[str, Any]:
    """Return what the model says of an answer: each word is a token."""
    read = sum(len(message.text.split(" ")) for message in messages)
    written = len(_reply(messages).split(" "))
    used = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    return {"usage_metadata": used, "response_metadata": {"model_name": "echo-1"}}


async def answer(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await Echo().ainvoke(state["messages"])]}


async def review(state: MessagesState) -> dict[str, Any]:
    """Ask before the answer; a rejection is the answer."""
    [decision] = interrupt({"question": "send?", "draft": state["messages"][-1].text})["decisions"]
    if decision["type"] == "approve":
        return await answer(state)
    return {"messages": [AIMessage(f"rejected: {decision.get('message', '')}")]}


class Flood(TypedDict, total=False):
    events: int
    per_s: float


async def pour(state: Flood) -> dict[str, Any]:
    """Stream ``events`` tokens of one message, in the loop's time or ``per_s`` of them a second."""
    message_id, writer, time = str(uuid4()), get_stream_writer(), asyncio.get_running_loop().time
    count, per_s, begun = state.get("events", 0), state.get("per_s"), time()
    for at in range(count):
        writer({"id": message_id, "token": f" word{at}"})
        if per_s is None:
            if at % 100 == 99:
                await asyncio.sleep(0)
        elif at / per_s > time() - begun:
            await asyncio.sleep(0.01)
    return {"events": count}


class Name(TypedDict):
    name: Annotated[str, "the gate to open"]


async def unlock(state: Name) -> dict[str, Any]:
    log.warning("opens %s", state["name"])
    _gate(state["name"]).set()
    return {}


async def bill(state: MessagesState) -> dict[str, Any]:
    return {}


async def bill_anew(state: MessagesState) -> dict[str, Any]:
    """Fail as code does that a deploy broke, until the run of ``gate`` with the name ``mended`` is made."""
    if not _gate("mended").is_set():
        raise KeyError("invoice")
    return {}


def _single(state: Any, node: Any) -> Any:
    return StateGraph(state).add_node(node).add_edge(START, node.__name__).add_edge(node.__name__, END).compile()


chat = _single(MessagesState, answer)
reviewed = _single(MessagesState, review)
gate = _single(Name, unlock)
flood = _single(Flood, pour)
billing = _single(MessagesState, bill)
billing_anew = _single(MessagesState, bill_anew)
