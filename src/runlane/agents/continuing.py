"""Continuing an attempt: the rest of its command, and breakpoints that the last attempt did not reach.

A run's command is applied once, whatever becomes of its attempts, and its answers go to the questions they are for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from langgraph.types import Command, StateSnapshot

from runlane.agents.answers import COMMAND_TASK_ID, Questions
from runlane.agents.base import AgentCall
from runlane.agents.invocation import thread_config
from runlane.agents.registry import Graph
from runlane.agents.subgraphs import Place, namespaces, place_of

#: The channels that a command's ``goto`` writes.
_GOTO_CHANNELS: Final = ("branch:to:", "__pregel_tasks")
_GOTO: Final = "goto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """The arguments for LangGraph.

    ``continues`` says that the attempt goes on from the run's own checkpoint, ``checked`` that each answer in the
    command is for a question that was asked.
    """

    value: Any
    continues: bool = False
    checked: bool = False


async def left_to_apply(call: AgentCall, value: Any) -> Left:
    """Return what is left of *value*, the run's input or command, for this attempt.

    LangGraph recognises a run's own checkpoint by its ``run_id``, but would apply a command to it again. Before the
    run's first checkpoint, a command's writes are kept beside the checkpoint that it was given to.
    """
    if call.saver is None:
        return Left(value=value)
    run = call.run
    if call.continued:
        newest = await call.saver.aget_tuple(thread_config(run.thread_id))
        if newest is not None and newest.metadata.get("run_id") == run.run_id:
            return Left(value=None, continues=True)
    if not isinstance(value, Command):
        return Left(value=value)
    at = thread_config(run.thread_id, run.request.start)
    if call.continued and await _is_written(call.saver, at, value):
        value = Command(resume=value.resume)
    if value.resume is None:
        return Left(value=value if value.update or value.goto else None)
    questions = Questions(call.saver, run.thread_id, run.run_id)
    resume = await questions.resume(at, value.resume, strict=run.request.strict_resume)
    return Left(value=Command(resume=resume.value, update=value.update, goto=value.goto), checked=resume.checked)


async def _is_written(saver: Any, at: Any, command: Command[Any]) -> bool:
    """Return whether what *command* writes is kept beside the checkpoint that it was given to."""
    addressed = await saver.aget_tuple(at)
    pending = (addressed.pending_writes if addressed is not None else None) or ()
    written = {channel for task_id, channel, _ in pending if task_id == COMMAND_TASK_ID}
    return _channels(command) <= {_GOTO if channel.startswith(_GOTO_CHANNELS) else channel for channel in written}


def _channels(command: Command[Any]) -> set[str]:
    """Return the channels that *command* writes, with one name for all that a ``goto`` may write."""
    update = command.update
    named = (
        set(update) if isinstance(update, dict) else {key for key, _ in update} if isinstance(update, list) else set()
    )
    return named | ({_GOTO} if command.goto else set())


async def missed_breakpoint(graph: Graph, call: AgentCall, *, continues: bool) -> StateSnapshot | None:
    """Return the state of a thread whose run should have paused where its last attempt died, or ``None``.

    LangGraph takes a resumption for the answer to a breakpoint, so a run that died between the checkpoint and the
    pause would walk through it, in its own graph or in a subgraph. A checkpoint that the run has written itself can
    only lie in front of a breakpoint that nobody answered.

    Args:
        continues: Whether the newest checkpoint of the graph itself is the run's own.
    """
    if call.saver is None:
        return None
    config = thread_config(call.run.thread_id)
    root = Place(graph=graph, config=config, results={})
    before = call.run.request.interrupt_before or graph.interrupt_before_nodes
    after = call.run.request.interrupt_after or graph.interrupt_after_nodes
    if continues and await _stands_at(root, before, after):
        return await root.state()
    for place in await _at_work(root, call):
        if await _stands_at(place, place.graph.interrupt_before_nodes, place.graph.interrupt_after_nodes):
            return await root.state()
    return None


async def _at_work(root: Place, call: AgentCall) -> list[Place]:
    """Return the subgraphs whose newest checkpoint the run has written, if the graphs around them wait for them."""
    newest: dict[str, str] = {}
    saved = await call.saver.aget_tuple(root.config)
    if saved is not None:
        newest[""] = saved.checkpoint["id"]
    found = []
    for namespace in await namespaces(call.saver, call.run.thread_id):
        at = {"thread_id": call.run.thread_id, "checkpoint_ns": namespace.text}
        saved = await call.saver.aget_tuple({"configurable": at})
        around: Mapping[str, str] = {} if saved is None else saved.metadata.get("parents") or {}
        if saved is None or not around or any(newest.get(name) != around[name] for name in around):
            continue
        newest[namespace.text] = saved.checkpoint["id"]
        if saved.metadata.get("run_id") == call.run.run_id:
            place = await place_of(root, namespace)
            if place is not None and place.known:
                found.append(place)
    return found


async def _stands_at(place: Place, before: Any, after: Any) -> bool:
    """Return whether a graph's newest state lies at one of these breakpoints: ``"*"`` or names of nodes."""
    if not before and not after:
        return False
    state = await place.state()
    if not state.next:
        return False
    if before and _any_of(state.next, before):
        return True
    if not after or state.parent_config is None:
        return False
    at = {**place.config["configurable"], **state.parent_config["configurable"]}
    parent = await place.graph.aget_state({**place.config, "configurable": at})
    return _any_of([task.name for task in parent.tasks], after)


def _any_of(names: Any, wanted: Any) -> bool:
    real = set(names) - {"__start__"}
    return bool(real if wanted == "*" else real & set(wanted))
