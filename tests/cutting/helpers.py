"""Graphs whose agents are subgraphs: nodes or in tools, with a memory of their own or without, nested, in parallel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Send

from agent_kit import tool_call
from cutting.agent import GRAPHS, Agent, ScriptedModel, chat, fanned_out

HELPER = "helper:"


@dataclass(frozen=True, slots=True)
class Shape:
    """A graph, and what is to be seen of it.

    ``homes`` are the namespaces in which agents keep their conversations, by the beginnings of their calls' ids, and
    ``turn`` are the messages by which an undisturbed turn extends the thread, if that is all that it does. ``mixed``
    says that an agent reads what another one has said.
    """

    build: Callable[[Agent], Any]
    homes: Mapping[str, str] = field(default_factory=dict)
    turn: Sequence[str] | None = ("human", "ai")
    mixed: bool = False


class AskingModel(ScriptedModel):
    """Asks its helper, and works meanwhile; then answers. Of a tool that fails, the others go on, whoever waits."""

    def _reply(self, messages: Any) -> AIMessage:
        reply = super()._reply(messages)
        last = max(at for at, message in enumerate(messages) if isinstance(message, HumanMessage))
        if any(isinstance(message, AIMessage) and message.tool_calls for message in messages[last:]):
            return AIMessage("All of it is done")
        asked = tool_call("ask", f"ask-{sum(isinstance(m, HumanMessage) for m in messages)}")
        alone = any(turn.ending.endswith("_error") for turn in self.agent.turns)
        return AIMessage("I shall ask", tool_calls=[asked, *([] if alone else reply.tool_calls[:1])])


def alone(name: str, graph: Any, **options: Any) -> Any:
    """Return a graph with one subgraph."""
    return StateGraph(MessagesState).add_node(name, graph.compile(**options)).add_edge(START, name)


def asking(agent: Agent, **options: Any) -> Any:
    """Return an agent with a tool that calls another agent."""
    helper = chat(agent, HELPER).compile(**options)
    model = AskingModel(replies=[], gate=agent.word, agent=agent)

    @tool
    async def ask(call_id: Annotated[str, InjectedToolCallId]) -> str:
        """Ask the helper."""
        answered = await helper.ainvoke({"messages": [HumanMessage(f"for {call_id}")]})
        return str(answered["messages"][-1].text)

    async def node(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("agent", node)
    graph.add_node("tools", ToolNode([agent.heard(ask), agent.tool()], handle_tool_errors=False))
    return graph.add_edge(START, "agent").add_conditional_edges("agent", tools_condition).add_edge("tools", "agent")


def side_by_side(agent: Agent) -> Any:
    """Two agents with memories of their own at once."""
    graph = StateGraph(MessagesState)
    for name in ("left", "right"):
        graph.add_node(name, chat(agent, f"{name}:").compile(checkpointer=True)).add_edge(START, name)
    return graph


def sent(agent: Agent) -> Any:
    """The same agent twice at once."""

    def split(state: MessagesState) -> list[Send]:
        return [Send("helper", {"messages": [HumanMessage(text, id=text)]}) for text in ("this", "that")]

    graph = StateGraph(MessagesState).add_node("helper", chat(agent, HELPER).compile())
    return graph.add_conditional_edges(START, split, ["helper"])


def fetched(agent: Agent, **options: Any) -> Any:
    """An agent that a node calls by itself, and whose answer alone it keeps."""
    helper = fanned_out(agent, HELPER).compile(**options)

    async def node(state: MessagesState) -> dict[str, list[BaseMessage]]:
        answered = await helper.ainvoke({"messages": [state["messages"][-1]]})
        return {"messages": [answered["messages"][-1]]}

    return StateGraph(MessagesState).add_node("fetch", node).add_edge(START, "fetch")


PERSISTENT: Mapping[str, Shape] = {
    "node": Shape(lambda agent: alone("helper", chat(agent, HELPER), checkpointer=True), {HELPER: "helper"}, None),
    "fanned_out": Shape(
        lambda agent: alone("helper", fanned_out(agent, HELPER), checkpointer=True), {HELPER: "helper"}, None
    ),
    "in_a_tool": Shape(
        lambda agent: asking(agent, checkpointer=True), {"": "", HELPER: "tools"}, ("human", "ai", "tool", "ai")
    ),
    "called": Shape(lambda agent: fetched(agent, checkpointer=True), {HELPER: "fetch"}),
    "two_deep": Shape(
        lambda agent: alone("outer", alone("inner", chat(agent, HELPER), checkpointer=True), checkpointer=True),
        {HELPER: "outer|inner"},
        None,
    ),
    "below_an_ordinary_one": Shape(
        lambda agent: alone("outer", alone("inner", chat(agent, HELPER), checkpointer=True)),
        {HELPER: "outer|inner"},
        None,
    ),
    "side_by_side": Shape(side_by_side, {"left:": "left", "right:": "right"}, None, mixed=True),
}
ORDINARY: Mapping[str, Shape] = {
    "node": Shape(lambda agent: alone("helper", chat(agent, HELPER))),
    "in_a_tool": Shape(asking, {"": ""}, ("human", "ai", "tool", "ai")),
    "called": Shape(fetched),
    "two_deep": Shape(lambda agent: alone("outer", alone("inner", fanned_out(agent, HELPER)))),
    "sent": Shape(sent, {}, None),
}
SHAPES: Mapping[str, Shape] = {
    **{name: Shape(build, {"": ""}) for name, build in GRAPHS.items()},
    **{f"persistent_{name}": shape for name, shape in PERSISTENT.items()},
    **{f"ordinary_{name}": shape for name, shape in ORDINARY.items()},
}
