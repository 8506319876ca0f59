"""Resuming a subgraph with a memory: does it continue, or has it a new task?

When a graph is resumed, LangGraph resumes each subgraph of the tasks that were left, if it has a checkpoint. One with a
memory of its own (``checkpointer=True``) has one since its first task, so a new task that had not begun when its run
was handed back, lost or paused would be taken for done, and its input would be dropped. Each checkpoint of a subgraph
names those of the graphs around it, by which the two can be told apart.
"""

from __future__ import annotations

from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

#: How LangGraph tells a subgraph to resume, and where the graphs around it are. The first has no public name.
_RESUMING: Final = "__pregel_resuming"
_AROUND: Final = "checkpoint_map"
#: Channels that hold what is to be done next: nodes, each by a channel of its own that has a value, and lists of tasks.
_NODES: Final = "branch:to:"
_TASKS: Final = "__pregel_tasks"


async def begin_new_task(saver: BaseCheckpointSaver[Any], config: RunnableConfig, saved: CheckpointTuple) -> None:
    """Have the subgraph that loads *saved* by *config* take its input, if what is saved is of an earlier task.

    LangGraph itself takes its flag out of the config in this way where a subgraph replays.
    """
    configurable = config["configurable"]
    namespace, around = configurable.get("checkpoint_ns", ""), configurable.get(_AROUND)
    if not configurable.get(_RESUMING) or not around or ":" in namespace or configurable.get("checkpoint_id"):
        return
    if saved.metadata.get("parents") == around:
        return
    caller, checkpoint_id = list(around.items())[-1]
    if not _at_rest(saved):
        at = {"thread_id": configurable["thread_id"], "checkpoint_ns": caller, "checkpoint_id": checkpoint_id}
        calling = await saver.aget_tuple({"configurable": at})
        if calling is not None and calling.metadata.get("source") in ("update", "fork"):
            return  # the application has changed the state around a task that was left: it goes on with that task
    del configurable[_RESUMING]


def _at_rest(saved: CheckpointTuple) -> bool:
    values = saved.checkpoint["channel_values"]
    return not values.get(_TASKS) and not any(name.startswith(_NODES) for name in values)
