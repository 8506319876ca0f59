"""The subgraphs of a thread: where their checkpoints are, and the graphs to read and write them with.

The namespace of a subgraph's checkpoints is its path: the nodes that hold it, each with its task (``node:task``), and a
number if a task called several. A subgraph with a memory of its own (``checkpointer=True``) leaves the tasks out, so
that all runs of the thread share one namespace. Source: LangGraph's ``Pregel`` and ``PregelLoop``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypedDict

from langchain_core.messages import AnyMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.pregel import Pregel
from langgraph.types import StateSnapshot

from runlane.agents.registry import Graph

MESSAGES: Final = "messages"
#: Lends a subgraph its root's checkpointer. It has no public name.
_CHECKPOINTER: Final = "__pregel_checkpointer"
#: Channels by which LangGraph itself moves a graph on.
_OWN_CHANNELS: Final = ("__", "branch:", "join:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """Where a graph of a thread keeps its checkpoints; the text of the root's is empty."""

    text: str = ""

    @property
    def depth(self) -> int:
        return self.text.count("|") + 1 if self.text else 0

    @property
    def remembered(self) -> bool:
        """Return whether later runs continue from its state."""
        return ":" not in self.text

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that hold the graph, outermost first."""
        parts = self.text.split("|") if self.text else []
        return tuple(part.partition(":")[0] for part in parts if not part.isdigit())

    @property
    def caller(self) -> tuple[str, str]:
        """The namespace and the task in which a graph without a memory of its own was called."""
        parts = self.text.split("|")
        at = max(index for index, part in enumerate(parts) if ":" in part)
        return "|".join(parts[:at]), parts[at].partition(":")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A graph with what its state is read and written with.

    ``results`` are tool results that its state does not show; ``known`` is whether the graph is the real one, so that
    its state names the tasks that it has not finished.
    """

    graph: Graph
    config: RunnableConfig
    namespace: str = ""
    results: Mapping[str, ToolMessage]
    known: bool = True

    async def state(self) -> StateSnapshot:
        return await self.graph.aget_state(self.config)


async def namespaces(saver: Any, thread_id: str) -> list[Namespace]:
    """Return where subgraphs of a thread have checkpoints, outer ones first."""
    if hasattr(saver, "namespaces"):
        found = set(await saver.namespaces(thread_id))
    else:
        listing = saver.alist({"configurable": {"thread_id": thread_id}})
        found = {saved.config["configurable"].get("checkpoint_ns", "") async for saved in listing}
    return sorted((Namespace(text=text) for text in found if text), key=lambda one: (one.depth, one.text))


async def place_of(root: Place, namespace: Namespace) -> Place | None:
    """Return the subgraph in *namespace*; ``None`` if it keeps no messages.

    A graph that the root does not know, such as one that a tool calls, is stood in for by one that can do with its
    messages what is needed here.
    """
    saver: Any = root.graph.checkpointer
    configurable = {**root.config["configurable"], "checkpoint_ns": namespace.text, _CHECKPOINTER: saver}
    config: RunnableConfig = {**root.config, "configurable": configurable}
    saved = await saver.aget_tuple(config)
    if saved is None:
        return None
    worked = {name for name in saved.checkpoint["versions_seen"] if not name.startswith("__")}
    path = "|".join(namespace.nodes)
    async for _, found in root.graph.aget_subgraphs(namespace=path, recurse=True):
        if isinstance(found, Pregel) and worked <= found.nodes.keys():
            graph = copy.copy(found)
            graph.store = root.graph.store
            return Place(graph=graph, config=config, namespace=namespace.text, results={})
    if not isinstance(saved.checkpoint["channel_values"].get(MESSAGES), list):
        return None
    return Place(graph=_stand_in(saved), config=config, namespace=namespace.text, results=_written(saved), known=False)


def _stand_in(saved: CheckpointTuple) -> Graph:
    """Return a graph with the channels of *saved* that has nothing to do."""
    channels: dict[str, Any] = {
        name: Any for name in saved.checkpoint["channel_versions"] if not name.startswith(_OWN_CHANNELS)
    }
    channels[MESSAGES] = Annotated[list[AnyMessage], add_messages]
    schema: Any = TypedDict("schema", channels)  # type: ignore[misc]  # its fields are the checkpoint's
    return StateGraph(schema).add_node("stopped", lambda state: {}).add_edge(START, "stopped").compile()


def _written(saved: CheckpointTuple) -> dict[str, ToolMessage]:
    """Return the results of tools whose tasks have finished, while others of their superstep have not."""
    written = [value for _, channel, value in saved.pending_writes or () if channel == MESSAGES]
    flat = [message for value in written for message in (value if isinstance(value, list) else [value])]
    return {message.tool_call_id: message for message in flat if isinstance(message, ToolMessage)}
