"""A chat agent with a tool. Without OPENAI_API_KEY a small model that needs no network answers."""

from __future__ import annotations

import os
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition


@tool
def add(a: float, b: float) -> str:
    """Add two numbers."""
    return f"{a + b:g}"


class OfflineModel:
    """Answers without a network: calls the tool for "a + b", and repeats everything else."""

    def bind_tools(self, tools: list[Any]) -> OfflineModel:
        return self

    async def ainvoke(self, messages: list[AnyMessage]) -> AIMessage:
        last = messages[-1]
        text = str(last.content)
        if last.type == "tool":
            return AIMessage(f"That is {text}.")
        words = text.split()
        if len(words) == 3 and words[1] == "+":
            arguments = {"a": float(words[0]), "b": float(words[2])}
            return AIMessage("", tool_calls=[{"id": f"call_{len(messages)}", "name": "add", "args": arguments}])
        return AIMessage(f"You said: {text}")


def chat_model() -> Any:
    if not os.environ.get("OPENAI_API_KEY"):
        return OfflineModel()
    from langchain_openai import ChatOpenAI  # pip install langchain-openai

    return ChatOpenAI(model="gpt-4o-mini")


tools = [add]
model = chat_model().bind_tools(tools)


async def answer(state: MessagesState) -> dict[str, list[AnyMessage]]:
    return {"messages": [await model.ainvoke(state["messages"])]}


agent = (
    StateGraph(MessagesState)
    .add_node("answer", answer)
    .add_node("tools", ToolNode(tools))
    .add_edge(START, "answer")
    .add_conditional_edges("answer", tools_condition)
    .add_edge("tools", "answer")
    .compile()
)
