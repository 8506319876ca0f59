"""Agents that ask people: approval of a tool call by LangChain's middleware, and a form."""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict


class Clerk(BaseChatModel):
    """Asks to send an email to each name in the message, then repeats what came of it."""

    @property
    def _llm_type(self) -> str:
        return "clerk"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Clerk:
        return self

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            results = [message.text for message in messages if isinstance(message, ToolMessage)]
            reply = AIMessage("; ".join(results))
        else:
            calls = [
                {"name": "send_email", "args": {"to": name, "text": "Lunch at noon?"}, "id": f"call-{at}"}
                for at, name in enumerate(last.text.split())
            ]
            reply = AIMessage("", tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=reply)])


def send_email(to: str, text: str) -> str:
    """Send an email."""
    return f"Sent to {to}: {text}"


mailer = create_agent(
    Clerk(),
    tools=[send_email],
    middleware=[
        HumanInTheLoopMiddleware(
            interrupt_on={"send_email": {"allowed_decisions": ["approve", "edit", "reject", "respond"]}}
        )
    ],
)


class Booking(TypedDict, total=False):
    guests: int
    answer: dict[str, Any]


async def ask(state: Booking) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {
            "guests": {"type": "integer", "minimum": 1, "maximum": 20, "title": "Guests"},
            "window": {"type": "boolean", "title": "At the window", "default": True},
            "course": {"enum": ["fish", "meat", "neither"], "title": "Course"},
            "notes": {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "Notes"},
        },
        "required": ["guests", "course"],
    }
    answer = interrupt({"question": "Which table do you want?", "response_schema": schema})
    return {"answer": answer, "guests": answer["guests"]}


booking = StateGraph(Booking).add_node(ask).add_edge(START, "ask").add_edge("ask", END).compile()


class Asked(TypedDict, total=False):
    value: Any
    answer: Any


async def put(state: Asked) -> dict[str, Any]:
    """Ask *value*, whatever it is, as agents do."""
    return {"answer": interrupt(state["value"])}


anything = StateGraph(Asked).add_node(put).add_edge(START, "put").add_edge("put", END).compile()
