"""Making a thread valid again after its run was stopped or failed."""

from __future__ import annotations

from langchain_core.runnables import RunnableConfig
from langgraph.types import StateSnapshot

from runlane.agents.observer import Observer
from runlane.agents.registry import Graph


async def repair_thread(
    graph: Graph, config: RunnableConfig, observer: Observer | None, *, touched: bool
) -> StateSnapshot:
    """Return the state."""
    return await graph.aget_state(config)
