"""Three small agents: a chat with tools, a long job, and one that asks a human before it acts."""

from __future__ import annotations

import asyncio
import operator
import os
from importlib import import_module
from typing import Annotated, Any, NotRequired, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, SystemMessage
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt
from scripted_model import ScriptedChatModel

# ---------------------------------------------------------------- chat: a model, some tools, and a loop between them

PROVIDERS = (
    ("OPENAI_API_KEY", "langchain_openai", "ChatOpenAI", "gpt-4o-mini"),
    ("ANTHROPIC_API_KEY", "langchain_anthropic", "ChatAnthropic", "claude-haiku-4-5"),
)
SYSTEM = SystemMessage("You are a brief, friendly assistant. Use the tools for the weather and for sums.")


@tool
async def weather(city: str) -> str:
    """Tell the weather in a city."""
    await asyncio.sleep(0.2)  # as long as a fast web service takes
    kinds = ("sunny", "cloudy", "windy", "rainy")
    seed = sum(city.lower().encode())
    return f"It is {kinds[seed % len(kinds)]} in {city}, {8 + seed % 17} degrees Celsius."


@tool
def add(a: float, b: float) -> str:
    """Add two numbers."""
    return f"{a:g} + {b:g} = {a + b:g}."


TOOLS = (weather, add)


def chat_model() -> BaseChatModel:
    """Return the model of the provider whose key is set, or else the scripted one.

    ``EXAMPLE_MODEL`` names another model of that provider.

    Raises:
        RuntimeError: A key is set, but the provider's package is not installed.
    """
    for key, module, model_class, default in PROVIDERS:
        if not os.environ.get(key):
            continue
        try:
            provider = import_module(module)
        except ModuleNotFoundError as exc:
            package = module.replace("_", "-")
            raise RuntimeError(f"{key} is set, but its package is not installed: pip install {package}") from exc
        model: BaseChatModel = getattr(provider, model_class)(model=os.environ.get("EXAMPLE_MODEL", default))
        return model
    return ScriptedChatModel()


model = chat_model().bind_tools(TOOLS)


async def agent(state: MessagesState) -> dict[str, list[AnyMessage]]:
    return {"messages": [await model.ainvoke([SYSTEM, *state["messages"]])]}


chat = (
    StateGraph(MessagesState)
    .add_node("agent", agent)
    .add_node("tools", ToolNode(TOOLS))
    .add_edge(START, "agent")
    .add_conditional_edges("agent", tools_condition)
    .add_edge("tools", "agent")
    .compile(name="chat")
)

# ---------------------------------------------------------------- research: many steps, each a superstep of its own


class ResearchState(TypedDict):
    topic: NotRequired[str]
    steps: NotRequired[int]
    """How many steps to take; 12 if absent."""
    seconds: NotRequired[float]
    """How long each step takes, in seconds; 0.3 if absent."""
    done: NotRequired[int]
    """Steps taken by this run."""
    log: Annotated[list[dict[str, Any]], operator.add]
    """One entry per step of every run on the thread, with the process that took it."""


def plan(state: ResearchState) -> dict[str, Any]:
    defaults: dict[str, Any] = {"topic": "everything", "steps": 12, "seconds": 0.3}
    return {**defaults, **{key: state[key] for key in defaults if key in state}, "done": 0}  # type: ignore[literal-required]


async def look(state: ResearchState) -> dict[str, Any]:
    await asyncio.sleep(state["seconds"])
    entry = {"topic": state["topic"], "step": state["done"] + 1, "pid": os.getpid()}
    get_stream_writer()({**entry, "of": state["steps"]})
    return {"done": entry["step"], "log": [entry]}


def more(state: ResearchState) -> str:
    return "look" if state["done"] < state["steps"] else END


research = (
    StateGraph(ResearchState)
    .add_node("plan", plan)
    .add_node("look", look)
    .add_edge(START, "plan")
    .add_conditional_edges("plan", more, ["look", END])
    .add_conditional_edges("look", more, ["look", END])
    .compile(name="research")
)

# ---------------------------------------------------------------- approval: nothing leaves without a human's yes


class ApprovalState(TypedDict):
    request: str
    to: NotRequired[str]
    proposal: NotRequired[dict[str, str]]
    answer: NotRequired[dict[str, Any]]
    outcome: NotRequired[str]


def propose(state: ApprovalState) -> dict[str, Any]:
    request = state["request"]
    to = state.get("to", "team@example.com")
    return {"proposal": {"to": to, "subject": request[:60], "body": f"Hello,\n\n{request}\n\nBest regards"}}


def ask(state: ApprovalState) -> dict[str, Any]:
    """Pause for ``{"decision": "approve" | "decline"}``; an approval may change the e-mail with ``"edit": {...}``."""
    answer = interrupt({"question": "Send this e-mail?", "action": "send_email", "args": state["proposal"]})
    return {"answer": answer if isinstance(answer, dict) else {"decision": str(answer)}}


def act(state: ApprovalState) -> dict[str, Any]:
    answer = state["answer"]
    if answer.get("decision") != "approve":
        return {"outcome": f"not sent: {answer.get('reason', 'declined')}"}
    mail = {**state["proposal"], **answer.get("edit", {})}
    return {"proposal": mail, "outcome": f"sent to {mail['to']}"}  # a real agent would hand the mail to its server here


approval = (
    StateGraph(ApprovalState)
    .add_node("propose", propose)
    .add_node("ask", ask)
    .add_node("act", act)
    .add_edge(START, "propose")
    .add_edge("propose", "ask")
    .add_edge("ask", "act")
    .add_edge("act", END)
    .compile(name="approval")
)
