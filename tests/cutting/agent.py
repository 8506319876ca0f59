"""A chat agent with tools whose runs are cut at any turn of the loop, in every way in which a run can end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, create_react_agent, tools_condition
from langgraph.types import Command, Send

from agent_kit import StrictModel, refuse_unpaired, tool_call
from runlane.testing.virtual_loop import VirtualLoop

THREAD = "t"
#: What a turn of the loop takes, in virtual seconds.
TICK_S = 0.001
#: Nothing here takes as many turns; a run that hangs fails its test.
PATIENCE_S = 60.0

#: Every way in which a run can be cut. The last three lose the process.
STOPS = ("cancel", "rollback", "supersede", "supersede_rollback", "deadline", "tool_error", "model_error")
LOSSES = ("drain", "crash", "crash_then_cancel", "crash_for_good")
ENDINGS = (*STOPS, *LOSSES)


class TickingLoop(VirtualLoop):
    """A virtual loop on which each turn takes a moment, so that a turn can be named by its time."""

    def select(self, timeout: float | None) -> list[Any]:
        self._now += TICK_S
        return super().select(timeout)


class AsTold(Exception):
    """A tool or a model failed because it was told to."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call: how many turns it takes, how often it swallows a cancel, and how long it cleans up."""

    turns: int = 1
    swallows: int = 0
    cleans_up: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """One run of the thread: the model asks for *rounds* of tool calls, then answers; it is cut at turn *at*."""

    ending: str
    at: int
    rounds: tuple[tuple[Call, ...], ...] = ((Call(), Call()),)
    durability: str = "async"
    modes: tuple[str, ...] = ("messages-tuple", "values")
    grace_turns: int = 20
    word_turns: int = 1
    subgraphs: bool = False


@dataclass
class Agent:
    """The agent's code: what it was asked, what it did, and what it is to do."""

    turns: Sequence[Turn]
    began: Counter[str] = field(default_factory=Counter)
    results: dict[str, str] = field(default_factory=dict)
    fails: str | None = None
    answers: bool = False

    def tool(self) -> BaseTool:
        @tool
        async def work(turns: int, swallows: int, cleans_up: int, call_id: Annotated[str, InjectedToolCallId]) -> str:
            """Work for a while."""
            self.began[call_id] += 1
            number = self.began[call_id]
            await self._wait(turns, swallows, cleans_up)
            if self.fails == "tool":
                raise AsTold
            return f"{call_id} done at attempt {number}"

        return self.heard(work)

    def heard(self, tool: BaseTool) -> BaseTool:
        """Have the results of *tool* noted."""
        tool.callbacks = [_Heard(self.results)]
        return tool

    @staticmethod
    async def _wait(turns: int, swallows: int, cleans_up: int) -> None:
        while turns > 0:
            try:
                turns -= 1
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                if not swallows:
                    for _ in range(cleans_up):
                        await asyncio.sleep(0)
                    raise
                swallows -= 1

    def reply(self, messages: Sequence[BaseMessage], prefix: str = "") -> AIMessage:
        """Return what the model says next, which depends on the conversation alone; *prefix* begins its calls' ids."""
        humans = [at for at, message in enumerate(messages) if isinstance(message, HumanMessage)]
        said = sum(isinstance(message, AIMessage) for message in messages[humans[-1] :])
        turn = self.turns[min(len(humans), len(self.turns)) - 1]
        if self.answers or said >= len(turn.rounds):
            return AIMessage("All of it is done")
        calls = [
            tool_call(
                "work",
                f"{prefix}h{len(humans)}-r{said}-c{n}",
                turns=call.turns,
                swallows=call.swallows,
                cleans_up=call.cleans_up,
            )
            for n, call in enumerate(turn.rounds[said])
        ]
        return AIMessage("Let me look at it", tool_calls=calls)

    async def word(self) -> None:
        """Stand between two words of the model."""
        for _ in range(self.turns[0].word_turns):
            await asyncio.sleep(0)
        if self.fails == "model":
            raise AsTold


class _Heard(BaseCallbackHandler):
    """Notes the results that tools have reported."""

    run_inline = True

    def __init__(self, results: dict[str, str]) -> None:
        self._results = results

    def on_tool_end(self, output: Any, **_: Any) -> None:
        self._results[output.tool_call_id] = output.content


class ScriptedModel(StrictModel):
    """A strict model whose replies depend on the conversation."""

    agent: Any
    prefix: str = ""

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _reply(self, messages: Any) -> AIMessage:
        refuse_unpaired(messages)
        reply: AIMessage = self.agent.reply(messages, self.prefix)
        return reply


def model_of(agent: Agent, prefix: str = "") -> ScriptedModel:
    return ScriptedModel(replies=[], gate=agent.word, agent=agent, prefix=prefix)


def chat(agent: Agent, prefix: str = "") -> Any:
    """All calls of a reply are made by one node."""
    model = model_of(agent, prefix)

    async def node(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("agent", node)
    graph.add_node("tools", ToolNode([agent.tool()], handle_tool_errors=False))
    return graph.add_edge(START, "agent").add_conditional_edges("agent", tools_condition).add_edge("tools", "agent")


def fanned_out(agent: Agent, prefix: str = "") -> Any:
    """Each call is a task of its own."""
    model = model_of(agent, prefix)

    async def node(state: MessagesState) -> Command[Any]:
        reply = await model.ainvoke(state["messages"])
        sends = [Send("tools", [call]) for call in reply.tool_calls]
        return Command(update={"messages": [reply]}, goto=sends or END)

    graph = StateGraph(MessagesState).add_node("agent", node, destinations=("tools", END))
    graph.add_node("tools", ToolNode([agent.tool()], handle_tool_errors=False))
    return graph.add_edge(START, "agent").add_edge("tools", "agent")


def prebuilt(agent: Agent) -> Any:
    """LangGraph's own agent."""
    return create_react_agent(model_of(agent), ToolNode([agent.tool()], handle_tool_errors=False))


GRAPHS: dict[str, Callable[[Agent], Any]] = {"chat": chat, "fanned_out": fanned_out, "prebuilt": prebuilt}
