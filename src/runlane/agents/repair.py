"""Making a thread valid again after its run was stopped or failed.

Chat models refuse a conversation in which a tool call has no result directly after it. A run that ends while its tools
work leaves exactly that, and LangGraph drops what finished siblings wrote as soon as the next input arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, RemoveMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import BinaryOperatorAggregate, LastValue
from langgraph.constants import END, START
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import StateSnapshot

from runlane.agents.observer import Observer, Partial
from runlane.agents.registry import Graph

MESSAGES: Final = "messages"
#: What the edges of a stopped node may take to say where to go on, in seconds; a repair as a whole has ten by default.
EDGES_S: Final = 2.0
CLOSING_TEXT: Final = (
    "Interrupted: the run was stopped before this tool call reported a result. Whether it took effect is unknown."
)


async def repair_thread(
    graph: Graph, config: RunnableConfig, observer: Observer | None, *, touched: bool
) -> StateSnapshot:
    """Close open tool calls, keep what finished siblings wrote and what the viewer read, and return the new state.

    A thread that waits for an answer stays as it is, and so does one without messages, which LangGraph continues from
    its checkpoint.

    Args:
        config: Addresses the thread's newest checkpoint; its metadata names the run.
        observer: What was seen of the attempt; ``None`` if nothing is known, and then only calls are closed.
        touched: Whether an attempt that is not observed may have worked on the thread. A run that was stopped before
            it did anything leaves a pause of an earlier run in peace.
    """
    state = await graph.aget_state(config)
    messages = _messages(state)
    if not messages or state.interrupts or START in state.next:
        return state
    own = (state.metadata or {}).get("run_id") == config["metadata"]["run_id"]
    if not (own or touched or (observer is not None and observer.started)):
        return state
    partials = _unfinished_texts(state, observer)
    stored = await graph.aget_state(state.config) if any(task.result is not None for task in state.tasks) else state
    # What finished tasks wrote is in the state, but not in the checkpoint: the next input would drop it.
    if not partials and _messages(stored) == messages == mended(messages, {}):
        return state
    await _mend(graph, config, state, [partial.message for partial in partials], observer)
    return await graph.aget_state(config)


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


def _unfinished_texts(state: StateSnapshot, observer: Observer | None) -> list[Partial]:
    """Return streamed texts of tasks that have not finished; a finished one that left out its text chose to."""
    if observer is None or state.metadata is None:
        return []
    step = state.metadata["step"] + 1
    # A log of the streaming protocol names the node, not the task.
    unfinished = {name for task in state.tasks if task.result is None for name in (task.id, task.name)}
    known = {message.id for message in _messages(state)}
    return [
        partial
        for partial in observer.partials
        if partial.step == step and partial.task_id in unfinished and partial.message_id not in known
    ]


async def _mend(
    graph: Graph,
    config: RunnableConfig,
    state: StateSnapshot,
    texts: Sequence[AnyMessage],
    observer: Observer | None,
) -> None:
    """Write the mended conversation as if the stopped node had returned it, so that the graph can go on after it."""
    node = next((task.name for task in state.tasks if task.result is None), None)
    # Ends the superstep: applies what its finished tasks wrote and drops the others, which must not run again.
    await graph.aupdate_state(config, None, as_node=END)
    messages = _messages(await graph.aget_state(config))
    results = observer.tool_results if observer is not None else {}
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
