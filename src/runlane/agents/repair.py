"""Making a thread valid again after its run was stopped or failed.

Chat models refuse a conversation in which a tool call has no result directly after it. A run that ends while its tools
work leaves exactly that, and LangGraph drops what finished siblings wrote as soon as the next input arrives.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, RemoveMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import BinaryOperatorAggregate, LastValue
from langgraph.constants import END, START
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import StateSnapshot

from runlane.agents.answers import Questions
from runlane.agents.observer import GraphObserver, Partial
from runlane.agents.registry import Graph
from runlane.agents.subgraphs import MESSAGES, Namespace, Place, namespaces, place_of
from runlane.errors import RunlaneError

log = logging.getLogger("runlane.agents.repair")

#: What the edges of a stopped node may take to say where to go on, in seconds; a repair as a whole has ten by default.
EDGES_S: Final = 2.0
CLOSING_TEXT: Final = (
    "Interrupted: the run was stopped before this tool call reported a result. Whether it took effect is unknown."
)


async def repair_thread(
    graph: Graph, config: RunnableConfig, observer: GraphObserver | None, *, touched: bool
) -> StateSnapshot:
    """Close open tool calls, keep what finished siblings wrote and what the viewer read, and return the new state.

    A thread that waits for an answer stays as it is, and so does a graph without messages, which LangGraph continues
    from its checkpoint. Subgraphs are repaired like the root, each in its own checkpoints, if a later run goes on from
    these: those with a memory of their own, and those that the root has yet to finish.

    Args:
        config: Addresses the thread's newest checkpoint; its metadata names the run.
        observer: What was seen of the attempt; ``None`` if nothing is known, and then only calls are closed.
        touched: Whether an attempt that is not observed may have worked on the thread. A run that was stopped before
            it did anything leaves a pause of an earlier run in peace.
    """
    root = Place(graph=graph, config=config, results={})
    state = await _valid_state(root, graph.checkpointer)
    if state.metadata is None or START in state.next:
        return state
    if state.interrupts and await _waits(root):
        return state
    own = state.metadata.get("run_id") == config["metadata"]["run_id"]
    if not (own or touched or (observer is not None and observer.started)):
        return state
    changed = await _repair(root, state, observer, goes_on=True)
    await _repair_subgraphs(root, None if changed else state, observer)
    return await root.state() if changed else state


async def _valid_state(place: Place, saver: Any) -> StateSnapshot:
    """Return the state of a graph, after taking back what the run wrote and the graph cannot read, newest first.

    Input that the graph refused is part of that. Were it kept, no later run could read the state either.
    """
    thread_id, run_id = place.config["configurable"]["thread_id"], place.config["metadata"]["run_id"]
    taken = False
    while True:
        try:
            state = await place.state()
        except RunlaneError:
            raise
        except Exception:  # a graph's channels and schemas are user code, which may raise anything
            if not await saver.take_back(thread_id, place.namespace, run_id):
                raise
            taken = True
            continue
        input_left = (taken and START in state.next) or _is_refused(place.graph, state)
        if not input_left or not await saver.take_back(thread_id, place.namespace, run_id):
            return state
        taken = True


def _is_refused(graph: Graph, state: StateSnapshot) -> bool:
    """Return whether the newest checkpoint is an input that failed before the graph's first step, or in it by half."""
    if state.metadata is None or state.metadata.get("source") != "input" or START not in graph.nodes:
        return False
    if START not in state.next:
        return True
    errors = [str(task.error) for task in state.tasks if task.name == START and task.error is not None]
    return any("CancelledError" not in error for error in errors)


async def _waits(root: Place) -> bool:
    """Return whether a question is open; of a graph that was resumed, LangGraph shows those that were answered too."""
    configurable = root.config["configurable"]
    return await Questions(root.graph.checkpointer, configurable["thread_id"], "").waits(root.config)


async def _repair_subgraphs(root: Place, state: StateSnapshot | None, observer: GraphObserver | None) -> None:
    """Repair the subgraphs of *root*, outer ones first.

    Args:
        state: That of the root, if it goes on with what it was doing; ``None`` if that was ended.
    """
    pending = {} if state is None else {"": state}
    ended: set[tuple[str, ...]] = set() if pending else {()}
    for namespace in await namespaces(root.graph.checkpointer, root.config["configurable"]["thread_id"]):
        goes_on = _goes_on(namespace, pending, ended)
        if not (goes_on or namespace.remembered):
            continue
        try:
            place = await place_of(root, namespace)
            if place is None:
                continue
            found = await _valid_state(place, root.graph.checkpointer)
            if await _repair(place, found, observer, goes_on=goes_on):
                ended.add(namespace.nodes)
            else:
                pending[namespace.text] = found
        except RunlaneError:
            raise
        except Exception:  # a subgraph's channels are user code; the others are repaired all the same
            run_id = root.config["metadata"]["run_id"]
            log.exception("thread.subgraph_not_repaired run_id=%s namespace=%s", run_id, namespace.text)


def _goes_on(namespace: Namespace, pending: Mapping[str, StateSnapshot], ended: Collection[tuple[str, ...]]) -> bool:
    """Return whether the graph that called the one in *namespace* has yet to finish the task that did."""
    if not namespace.remembered:
        caller, task_id = namespace.caller
        state = pending.get(caller)
        return state is not None and any(task.id == task_id and task.result is None for task in state.tasks)
    nodes = namespace.nodes
    return not any(nodes[: len(outer)] == outer for outer in ended) and nodes[0] in pending[""].next


async def _repair(place: Place, state: StateSnapshot, observer: GraphObserver | None, *, goes_on: bool) -> bool:
    """Repair one graph's conversation; return whether there was something to repair."""
    messages = _messages(state)
    if not messages or START in state.next:
        return False
    partials = _unfinished_texts(place, state, observer)
    results = place.results
    stored = state
    if any(task.result is not None for task in state.tasks):
        at = {**place.config["configurable"], "checkpoint_id": state.config["configurable"]["checkpoint_id"]}
        stored = await place.graph.aget_state({**place.config, "configurable": at})
    # What finished tasks wrote is in the state, but not in the checkpoint: the next input would drop it.
    if not partials and _messages(stored) == messages == mended(messages, {}):
        return False
    if observer is not None:
        results = {**results, **observer.tool_results(place.namespace)}
    node = next((task.name for task in state.tasks if task.result is None), None) if goes_on else None
    await _mend(place, node, results, [partial.message for partial in partials])
    return True


def mended(messages: Sequence[AnyMessage], results: Mapping[str, ToolMessage]) -> list[AnyMessage]:
    """Return *messages* with a result directly after every tool call: the one that is there, one of *results*, or a
    closing one. Of a conversation that is in order, an equal list."""
    found = list(messages)
    out: list[AnyMessage] = []
    while found:
        message = found.pop(0)
        out.append(message)
        open_calls = _calls(message)
        while open_calls and found and isinstance(found[0], ToolMessage) and found[0].tool_call_id in open_calls:
            open_calls.pop(found[0].tool_call_id)
            out.append(found.pop(0))
        for call_id, name in open_calls.items():
            out.append(_taken(found, call_id) or results.get(call_id) or _closing(call_id, name))
    return out


def _messages(state: StateSnapshot) -> list[AnyMessage]:
    """Return the messages of a state that has a channel of them, else nothing."""
    values = state.values.get(MESSAGES) if isinstance(state.values, dict) else None
    return values if isinstance(values, list) and all(isinstance(item, BaseMessage) for item in values) else []


def _calls(message: BaseMessage) -> dict[str, str | None]:
    """Return the names of a message's tool calls by id; providers want results for malformed calls too."""
    if not isinstance(message, AIMessage):
        return {}
    return {call["id"]: call["name"] for call in (*message.tool_calls, *message.invalid_tool_calls) if call["id"]}


def _taken(messages: list[AnyMessage], call_id: str) -> ToolMessage | None:
    """Remove a result that stands too late in *messages*, and return it."""
    for index, message in enumerate(messages):
        if isinstance(message, ToolMessage) and message.tool_call_id == call_id:
            del messages[index]
            return message
    return None


def _closing(call_id: str, name: str | None) -> ToolMessage:
    return ToolMessage(CLOSING_TEXT, tool_call_id=call_id, name=name, status="error", id=str(uuid4()))


def _unfinished_texts(place: Place, state: StateSnapshot, observer: GraphObserver | None) -> list[Partial]:
    """Return streamed texts of tasks that have not finished; a finished one that left out its text chose to."""
    if observer is None or state.metadata is None:
        return []
    step = state.metadata["step"] + 1
    # A log of the streaming protocol names the node, not the task.
    unfinished = {name for task in state.tasks if task.result is None for name in (task.id, task.name)}
    known = {message.id for message in _messages(state)}
    return [
        partial
        for partial in observer.partials(place.namespace)
        if partial.step == step
        and (partial.task_id in unfinished or not place.known)
        and partial.message_id not in known
    ]


async def _mend(
    place: Place, node: str | None, results: Mapping[str, ToolMessage], texts: Sequence[AnyMessage]
) -> None:
    """Write the mended conversation as if *node*, which was stopped, had returned it, so that the graph can go on after
    it; without a node the graph has nothing left to do."""
    graph, config = place.graph, place.config
    # Ends the superstep: applies what its finished tasks wrote and drops the others, which must not run again.
    await graph.aupdate_state(config, None, as_node=END)
    messages = _messages(await place.state())
    update = {MESSAGES: _update(graph.channels[MESSAGES], messages, [*mended(messages, results), *texts])}
    if node is not None:
        try:
            async with asyncio.timeout(EDGES_S):
                await graph.aupdate_state(config, update, as_node=node)
            return
        except Exception:  # noqa: BLE001 - a node's edges are user code, which may not expect a half-done state
            pass
    # As if it were input, and then without the steps that input would start.
    await graph.aupdate_state(config, update, as_node=START)
    await graph.aupdate_state(config, None, as_node=END)


def _update(channel: Any, messages: list[AnyMessage], wanted: list[AnyMessage]) -> list[AnyMessage]:
    """Return what to write to *channel* so that *messages* become *wanted*."""
    if isinstance(channel, LastValue):
        return wanted
    if wanted[: len(messages)] == messages:
        return wanted[len(messages) :]
    replacement: list[AnyMessage] = [RemoveMessage(id=REMOVE_ALL_MESSAGES), *wanted]  # type: ignore[list-item]  # add_messages takes it
    if isinstance(channel, BinaryOperatorAggregate) and any(
        isinstance(message, RemoveMessage) for message in channel.operator(messages, replacement)
    ):
        return [message for message in wanted if message not in messages]  # a plain list: it can only grow
    return replacement
