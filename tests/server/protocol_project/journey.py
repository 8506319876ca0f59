"""Graphs for the streaming protocol: one that uses every channel on its way, and one with a channel of its own."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator
from typing import Annotated, Any

from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.stream import ProtocolEvent, StreamChannel, StreamTransformer
from langgraph.types import interrupt
from typing_extensions import TypedDict


class Journey(TypedDict, total=False):
    messages: Annotated[list[Any], add_messages]
    stops: Annotated[list[str], operator.add]
    rested: str


class Inn(TypedDict, total=False):
    rested: str


def report(stop: str) -> dict[str, Any]:
    """Write to the stream and to the state that *stop* was reached."""
    get_stream_writer()({"name": "progress", "stop": stop})
    return {"stops": [stop]}


async def set_out(state: Journey) -> dict[str, Any]:
    return {**report("set_out"), "messages": [AIMessage("off we go", id="message-1")]}


async def ask(state: Journey) -> dict[str, Any]:
    answer = interrupt("go on?")
    return {**report("ask"), "messages": [AIMessage(f"told {answer}")]}


async def rest(state: Inn) -> dict[str, Any]:
    get_stream_writer()("unnamed")
    return {"rested": "well"}


async def ask_with_schema(state: Journey) -> dict[str, Any]:
    """Ask for an answer of a certain kind."""
    return {"stops": [interrupt("how many?", response_schema={"type": "integer"})]}


async def write(state: Journey) -> dict[str, Any]:
    """Let a chat model write a letter."""
    model = GenericFakeChatModel(messages=iter([AIMessage("dear reader")]))
    return {"messages": [await model.ainvoke("a letter")]}


async def sign(state: Journey) -> dict[str, Any]:
    """Return messages that no model has streamed."""
    call = {"name": "post", "args": {}, "id": "call-1"}
    return {"messages": [AIMessage("yours"), AIMessage("", tool_calls=[call]), HumanMessage("thanks")]}


async def ask_twice(state: Journey) -> dict[str, Any]:
    """Ask two questions in one node, which have one id."""
    return {"stops": [interrupt("first?"), interrupt("second?")]}


class Audit(StreamTransformer):
    """Counts the states of the run on a channel of its own."""

    required_stream_modes = ("values",)

    def __init__(self, scope: tuple[str, ...] = ()) -> None:
        super().__init__(scope)
        self._channel: StreamChannel[int] = StreamChannel("audit")
        self._states = 0

    def init(self) -> dict[str, Any]:
        return {"audit": self._channel}

    def process(self, event: ProtocolEvent) -> bool:
        if event["method"] == "values" and not self.scope:
            self._states += 1
            self._channel.push(self._states)
        return True


class Stuck(BaseChatModel):
    """Says two words and then nothing more."""

    @property
    def _llm_type(self) -> str:
        return "stuck"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for word in ("so", " far"):
            yield ChatGenerationChunk(message=AIMessageChunk(word))
        await asyncio.Event().wait()


async def say(state: Journey) -> dict[str, Any]:
    return {"messages": [await Stuck().ainvoke("go on")]}


async def wait(state: Inn) -> dict[str, Any]:
    await asyncio.Event().wait()
    return {}


async def ask_and_wait(state: Inn) -> dict[str, Any]:
    interrupt("ready?")
    get_stream_writer()("waiting")
    return await wait(state)


_inn = StateGraph(Inn)
_inn.add_node("rest", rest)
_inn.add_edge(START, "rest")
_inn.add_edge("rest", END)

_journey = StateGraph(Journey)
_journey.add_node("set_out", set_out)
_journey.add_node("ask", ask)
_journey.add_node("inn", _inn.compile())
_journey.add_edge(START, "set_out")
_journey.add_edge("set_out", "ask")
_journey.add_edge("ask", "inn")
_journey.add_edge("inn", END)
journey = _journey.compile()

_audited = StateGraph(Inn)
_audited.add_node("rest", rest)
_audited.add_edge(START, "rest")
_audited.add_edge("rest", END)
audited = _audited.compile(transformers=[Audit])

_stuck = StateGraph(Journey)
_stuck.add_node("say", say)
_stuck.add_edge(START, "say")
_stuck.add_edge("say", END)
stuck = _stuck.compile()

_patient = StateGraph(Inn)
_patient.add_node("ask_and_wait", ask_and_wait)
_patient.add_edge(START, "ask_and_wait")
patient = _patient.compile()

_child = StateGraph(Inn)
_child.add_node("wait", wait)
_child.add_edge(START, "wait")
_child.add_edge("wait", END)
_parent = StateGraph(Inn)
_parent.add_node("child", _child.compile())
_parent.add_edge(START, "child")
_parent.add_edge("child", END)
parent = _parent.compile()

_twice = StateGraph(Journey)
_twice.add_node("ask_twice", ask_twice)
_twice.add_edge(START, "ask_twice")
_twice.add_edge("ask_twice", END)
twice = _twice.compile()

_counted = StateGraph(Journey)
_counted.add_node("ask_with_schema", ask_with_schema)
_counted.add_edge(START, "ask_with_schema")
_counted.add_edge("ask_with_schema", END)
counted = _counted.compile()

_letter = StateGraph(Journey)
_letter.add_node("write", write)
_letter.add_node("sign", sign)
_letter.add_edge(START, "write")
_letter.add_edge("write", "sign")
_letter.add_edge("sign", END)
letter = _letter.compile()
