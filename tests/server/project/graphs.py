"""The graphs that the tests of the server run; small, real, and without a network."""

from __future__ import annotations

import asyncio
import json
import operator
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.runtime import Runtime
from langgraph.types import interrupt
from langgraph_sdk.runtime import ServerRuntime
from typing_extensions import TypedDict


class Echo(BaseChatModel):
    """Repeats the last message word by word; asked to ``add``, it first calls the tool."""

    @property
    def _llm_type(self) -> str:
        return "echo"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(_reply(messages)))])

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        if isinstance(messages[-1], HumanMessage) and messages[-1].text == "add":
            call = {"name": "add", "args": json.dumps({"a": 1, "b": 2}), "id": "call-1", "index": 0}
            yield await self._chunk(AIMessageChunk("", tool_call_chunks=[call]), run_manager)
            return
        for index, word in enumerate(_reply(messages).split(" ")):
            yield await self._chunk(AIMessageChunk(f" {word}" if index else word), run_manager)

    async def _chunk(self, message: AIMessageChunk, run_manager: Any) -> ChatGenerationChunk:
        chunk = ChatGenerationChunk(message=message)
        if run_manager is not None:
            await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
        return chunk


def _reply(messages: Any) -> str:
    return f"echo: {messages[-1].text}"


async def answer(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await Echo().ainvoke(state["messages"])]}


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def _next(state: MessagesState) -> str:
    return "tools" if getattr(state["messages"][-1], "tool_calls", None) else END


class Steps(TypedDict, total=False):
    steps: int
    delay_s: float
    block_s: float
    done: Annotated[list[int], operator.add]


async def step(state: Steps) -> dict[str, Any]:
    """Take one step; with ``delay_s`` after a pause, with ``block_s`` after one that blocks its thread."""
    time.sleep(state.get("block_s", 0))  # noqa: ASYNC251 - what users' nodes do
    await asyncio.sleep(state.get("delay_s", 0))
    return {"done": [len(state.get("done", []))]}


class Approval(TypedDict, total=False):
    topic: str
    answers: Annotated[list[Any], operator.add]
    decided: str


async def ask(state: Approval) -> dict[str, Any]:
    return {"answers": [interrupt({"question": "approve?", "topic": state.get("topic")})]}


async def ask_too(state: Approval) -> dict[str, Any]:
    return {"answers": [interrupt({"question": "really?"})]}


async def decide(state: Approval) -> dict[str, Any]:
    return {"decided": f"decided on {len(state['answers'])}"}


class Odd(TypedDict, total=False):
    kind: str
    value: Any


class ProviderError(Exception):
    """An exception of a class that no server knows; its text may hold a secret."""


async def fail(state: Odd) -> dict[str, Any]:
    if state.get("kind") == "custom":
        raise ProviderError("key sk-123 was refused")
    if state.get("kind") == "long":
        raise ValueError("a line\n" * 50 + "boom " * 600)
    raise ValueError("boom")


async def put_an_object(state: Odd) -> dict[str, Any]:
    return {"value": object() if state.get("kind") == "object" else len}


async def write(state: Odd) -> dict[str, Any]:
    writer = get_stream_writer()
    writer({"progress": 1})
    writer("half")
    return {"value": "written"}


class Context(TypedDict, total=False):
    mood: str


class Seen(TypedDict, total=False):
    mood: str
    options: dict[str, Any]
    metadata: dict[str, Any]
    user: dict[str, Any]


async def look(state: Seen, config: RunnableConfig, runtime: Runtime[Context]) -> dict[str, Any]:
    shown = {key: value for key, value in config["configurable"].items() if not key.startswith("__")}
    return {
        "mood": (runtime.context or {}).get("mood", "none"),
        "options": {key: value for key, value in shown.items() if isinstance(value, str)},
        "metadata": {key: value for key, value in config["metadata"].items() if isinstance(value, (str, int))},
        **_user(config, runtime),
    }


def _user(config: RunnableConfig, runtime: Runtime[Any]) -> dict[str, Any]:
    """Return who the graph believes to run for, however it asks."""
    user = config["configurable"].get("langgraph_auth_user")
    if user is None:
        return {}
    assert runtime.server_info is not None
    assert runtime.server_info.user is user
    assert config["configurable"]["langgraph_auth_permissions"] == user.permissions
    return {
        "user": {
            "identity": user["identity"],
            "permissions": user.permissions,
            "secret": "secret_token" in user,
            "name": user.display_name,
        }
    }


def _line(state: Any, **nodes: Any) -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(state)
    before = START
    for name, node in nodes.items():
        builder.add_node(name, node)
        builder.add_edge(before, name)
        before = name
    builder.add_edge(before, END)
    return builder


async def ask_in_words(state: MessagesState) -> dict[str, Any]:
    """Ask whether that is meant; ``fail`` fails."""
    if state["messages"][-1].text == "fail":
        raise ValueError("no")
    return {"messages": [AIMessage(f"you said {interrupt('sure?')}")]}


chat = _line(MessagesState, answer=answer)
asking = _line(MessagesState, ask=ask_in_words)

_tools = StateGraph(MessagesState)
_tools.add_node("model", answer)
_tools.add_node("tools", ToolNode([add]))
_tools.add_edge(START, "model")
_tools.add_conditional_edges("model", _next)
_tools.add_edge("tools", "model")
tools = _tools.compile()

_steps = StateGraph(Steps)
_steps.add_node("step", step)
_steps.add_edge(START, "step")
_steps.add_conditional_edges(
    "step", lambda state: END if len(state.get("done", [])) >= state.get("steps", 1) else "step", ["step", END]
)
steps = _steps.compile()

approval = _line(Approval, ask=ask, decide=decide).compile()

_approvals = StateGraph(Approval)
_approvals.add_node("ask", ask)
_approvals.add_node("ask_too", ask_too)
_approvals.add_node("decide", decide)
_approvals.add_edge(START, "ask")
_approvals.add_edge(START, "ask_too")
_approvals.add_edge(["ask", "ask_too"], "decide")
_approvals.add_edge("decide", END)
approvals = _approvals.compile()

failing = _line(Odd, fail=fail).compile()
odd = _line(Odd, put=put_an_object).compile()
writer = _line(Odd, write=write).compile()
nested = _line(MessagesState, child=_line(MessagesState, answer=answer).compile()).compile()

nested_approval = _line(Approval, child=_line(Approval, ask=ask).compile()).compile()

_configured = StateGraph(Seen, context_schema=Context)
_configured.add_node("look", look)
_configured.add_edge(START, "look")
_configured.add_edge("look", END)
configured = _configured.compile()


def owned(runtime: ServerRuntime[Any]) -> Any:
    """Make a graph with a node that is named after the user, in whose name every use of it is."""
    user = runtime.ensure_user()
    known = "known" if "secret_token" in user else "unknown"
    return _line(Seen, **{f"{user.identity}_{known}": look}).compile()
