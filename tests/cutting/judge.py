"""What must hold of a thread whose run was cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage

from agent_kit import refuse_unpaired
from cutting.agent import GRAPHS, LOSSES, Agent, TickingLoop, Turn
from cutting.thread import Cut, Process, Thread, cut, ended
from runlane.agents.repair import CLOSING_TEXT
from runlane.lifecycle import EndReason, RunStatus
from runlane.records import ANY_OWNER
from runlane.testing.virtual_loop import run_virtual


def streamed_texts(events: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Return the assistant texts that a viewer of the run's last attempt saw, by message id."""
    texts: dict[str, str] = {}
    for name, payload in events:
        if name == "metadata":
            texts = {}
        elif name == "messages" and isinstance(payload, dict):
            data, delta = payload["data"], payload["data"].get("delta") or {}
            texts[data["id"]] = texts.get(data["id"], "") + delta.get("text", "")
        elif name == "messages":
            message = payload[0]
            if message["type"] in ("AIMessageChunk", "ai"):
                texts[message["id"]] = texts.get(message["id"], "") + message["content"]
        elif name == "messages/partial":
            texts[payload[0]["id"]] = payload[0]["content"]
    return {message_id: text for message_id, text in texts.items() if text}


def broken(done: Cut) -> list[str]:
    """Return what is wrong with the thread after the cut; nothing, if P8 holds."""
    messages, wrong = done.after.messages, []
    if done.after_zombie != done.after:
        wrong.append("a process that had lost its run has changed the thread")
    try:
        refuse_unpaired(messages)
    except ValueError as refusal:
        wrong.append(str(refusal))
    ids = Counter(message.id for message in messages)
    wrong += [f"{count} messages have the id {message_id}" for message_id, count in ids.items() if count > 1]
    wrong += [f"{call_id} was made again, although its result was kept" for call_id in done.again]
    wrong += _results_lost(done)
    wrong += _wrong_status(done)
    if done.after.values is not None and messages:
        told = [message["id"] for message in done.after.values["messages"]]
        if told != [message.id for message in messages]:
            wrong.append(f"the thread's row has the messages {told}, its checkpoint {list(ids)}")
    if done.run.end_reason is EndReason.ROLLED_BACK:
        return wrong + _not_rolled_back(done)
    if [m.id for m in messages[: len(done.before.messages)]] != [m.id for m in done.before.messages]:
        wrong.append("earlier messages have changed")
    kept = {message.id: message.text for message in messages if isinstance(message, AIMessage)}
    if _nothing_stored(done):
        return wrong
    for message_id, text in streamed_texts(done.events).items():
        if not kept.get(message_id, "").startswith(text):
            wrong.append(f"the viewer read {text!r} as {message_id}; kept is {kept.get(message_id)!r}")
    return wrong


def _nothing_stored(done: Cut) -> bool:
    """Say whether nothing of the run is stored, as durability ``exit`` allows.

    A crash takes all of it. So does a cancel between LangGraph's decision to store it and that task's first step.
    """
    if done.turn.durability != "exit":
        return False
    return done.turn.ending.startswith("crash") or len(done.after.messages) == len(done.before.messages)


def _results_lost(done: Cut) -> list[str]:
    earlier = {message.id for message in done.before.messages}
    new = [message for message in done.after.messages if message.id not in earlier]
    results = {m.tool_call_id: m.content for m in new if isinstance(m, ToolMessage)}
    wrong = [
        f"{call_id} has the result {content!r}, which no tool reported"
        for call_id, content in results.items()
        if content not in (CLOSING_TEXT, done.reported.get(call_id), done.durable.get(call_id))
    ]
    lost = done.turn.ending in LOSSES
    if done.run.end_reason is EndReason.ROLLED_BACK or (not lost and _nothing_stored(done)):
        return wrong
    kept = {m.tool_call_id for m in done.before.messages if isinstance(m, ToolMessage)}
    expected = {key: text for key, text in done.durable.items() if key not in kept} if lost else done.reported
    wrong += [
        f"{call_id} had reported {content!r}; kept is {results.get(call_id)!r}"
        for call_id, content in expected.items()
        if results.get(call_id) != content
    ]
    return wrong


def _wrong_status(done: Cut) -> list[str]:
    run = done.run
    expected = {
        "deadline": RunStatus.TIMEOUT,
        "tool_error": RunStatus.ERROR,
        "model_error": RunStatus.ERROR,
        "crash_for_good": RunStatus.ERROR,
    }.get(done.turn.ending, RunStatus.SUCCESS if run.cancel is None else RunStatus.INTERRUPTED)
    allowed = {expected} if run.cancel is not None else {expected, RunStatus.SUCCESS}
    if run.status not in allowed:
        return [f"it ended as {run.status.value}: {run.error}"]
    closed = [m.tool_call_id for m in done.after.messages if m.text == CLOSING_TEXT]
    before = {m.tool_call_id for m in done.before.messages if isinstance(m, ToolMessage)}
    if run.status is RunStatus.SUCCESS and not before.issuperset(closed):
        return [f"it succeeded, and {closed} were closed"]
    return []


def _not_rolled_back(done: Cut) -> list[str]:
    earlier = [message.id for message in done.before.messages]
    if done.turn.ending.startswith("supersede"):
        found, following = done.after.messages[: len(earlier)], done.after.messages[len(earlier) :]
        if [m.id for m in found] != earlier or [m.type for m in following] != ["human", "ai"]:
            return [f"it was rolled back and superseded, and left {[m.text for m in done.after.messages]}"]
    elif done.after.checkpoints != done.before.checkpoints:
        return ["it was rolled back, and other checkpoints are there"]
    elif done.after.values != done.before.values:
        return [f"it was rolled back, and the thread's row has {done.after.values!r} for {done.before.values!r}"]
    return []


def history(turns: Sequence[Turn], graph: str) -> list[str]:
    """Cut run after run on one thread; return what was wrong after one of them, or with the turn that follows."""

    async def main() -> list[str]:
        agent = Agent(turns)
        thread = Thread(agent, GRAPHS[graph])
        for number, turn in enumerate(turns):
            done = await cut(thread, turn)
            if wrong := broken(done):
                return [f"after turn {number}: {what}" for what in wrong]
        return await _next_turn(thread)

    return run_virtual(main, TickingLoop)


async def _next_turn(thread: Thread) -> list[str]:
    before, began = await thread.seen(), Counter(thread.agent.began)
    thread.agent.answers = True
    process = Process(thread)
    runtime, _ = await process.up
    run = await process.spawn(thread.admit(runtime, "and now?"))
    await ended(thread.store, run)
    await process.down()
    run = await thread.store.get_run(run.run_id, owner=ANY_OWNER)
    after = await thread.seen()
    wrong = [] if run.status is RunStatus.SUCCESS else [f"the next turn ended as {run.status.value}: {run.error}"]
    said = [(m.type, m.text) for m in after.messages]
    expected = [(m.type, m.text) for m in before.messages] + [("human", "and now?"), ("ai", "All of it is done")]
    if said != expected:
        wrong.append(f"the next turn made {said}")
    if thread.agent.began != began:
        wrong.append("the next turn made tool calls of the run before it")
    return wrong
