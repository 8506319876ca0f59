"""What must hold of a thread whose run was cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage

from agent_kit import refuse_unpaired
from cutting.agent import LOSSES, Agent, TickingLoop, Turn
from cutting.helpers import HELPER, SHAPES, Shape
from cutting.thread import Cut, Process, Thread, cut, ended
from runlane.agents.repair import CLOSING_TEXT
from runlane.lifecycle import EndReason, RunStatus
from runlane.records import ANY_OWNER, RunRecord
from runlane.testing.virtual_loop import run_virtual


def streamed_texts(events: Iterable[tuple[str, Any]], namespace: str = "") -> dict[str, str]:
    """Return the assistant texts in *namespace* that a viewer of the run's last attempt saw, by message id."""
    texts: dict[str, str] = {}
    for name, payload in events:
        mode, _, within = name.partition("|")
        if name == "metadata":
            texts = {}
        elif mode == "messages" and isinstance(payload, dict):
            data, delta = payload["data"], payload["data"].get("delta") or {}
            if "|".join(payload["namespace"]) == namespace:
                texts[data["id"]] = texts.get(data["id"], "") + delta.get("text", "")
        elif within != namespace:
            continue
        elif mode == "messages":
            message = payload[0]
            if message["type"] in ("AIMessageChunk", "ai"):
                texts[message["id"]] = texts.get(message["id"], "") + _text(message["content"])
        elif mode == "messages/partial":
            texts[payload[0]["id"]] = _text(payload[0]["content"])
    return {message_id: text for message_id, text in texts.items() if text}


def _text(content: Any) -> str:
    return content if isinstance(content, str) else AIMessage(content).text


def broken(done: Cut) -> list[str]:
    """Return what is wrong with the thread after the cut; nothing, if P8 holds."""
    wrong = [] if done.after_zombie == done.after else ["a process that had lost its run has changed the thread"]
    wrong += [f"{call_id} was made again, although its result was kept" for call_id in done.again]
    wrong += _wrong_status(done)
    for namespace in ("", *done.after.remembered):
        wrong += [f"{namespace}: {what}" if namespace else what for what in _broken_at(done, namespace)]
    messages = done.after.messages
    if done.after.values is not None and messages:
        told = [message["id"] for message in done.after.values["messages"]]
        if told != [message.id for message in messages]:
            wrong.append(f"the thread's row has the messages {told}, its checkpoint {[m.id for m in messages]}")
    return wrong + _not_rolled_back(done) if done.run.end_reason is EndReason.ROLLED_BACK else wrong


def _broken_at(done: Cut, namespace: str) -> list[str]:
    """Return what is wrong with the conversation in *namespace*."""
    before, messages = done.before.at(namespace), done.after.at(namespace)
    wrong = [] if (refusal := _refusal(messages)) is None else [refusal]
    ids = Counter(message.id for message in messages)
    wrong += [f"{count} messages have the id {message_id}" for message_id, count in ids.items() if count > 1]
    wrong += _results_lost(done, namespace)
    if done.run.end_reason is EndReason.ROLLED_BACK:
        return wrong
    if [m.id for m in messages[: len(before)]] != [m.id for m in before]:
        wrong.append("earlier messages have changed")
    kept = {message.id: message.text for message in messages}
    unstored = namespace and done.turn.ending.startswith("crash") and done.turn.durability != "sync"
    if _nothing_stored(done, namespace) or unstored:  # a step may be seen before the checkpoint of the one before it
        return wrong
    for message_id, text in streamed_texts(done.events, namespace).items():
        if not kept.get(message_id, "").startswith(text):
            wrong.append(f"the viewer read {text!r} as {message_id}; kept is {kept.get(message_id)!r}")
    return wrong


def _refusal(messages: Sequence[AnyMessage]) -> str | None:
    try:
        refuse_unpaired(messages)
    except ValueError as refusal:
        return str(refusal)
    return None


def _nothing_stored(done: Cut, namespace: str) -> bool:
    """Return whether nothing of the run is stored, as durability ``exit`` allows.

    A crash takes all of it. So does a cancel between LangGraph's decision to store it and that task's first step.
    """
    if done.turn.durability != "exit":
        return False
    stored = [m for m in done.after.at(namespace)[len(done.before.at(namespace)) :] if m.text != "something else"]
    following = done.turn.ending.startswith("supersede") and len(stored) == 1
    return done.turn.ending.startswith("crash") or not stored or following


def _results_lost(done: Cut, namespace: str) -> list[str]:
    earlier = {message.id for message in done.before.at(namespace)}
    new = [message for message in done.after.at(namespace) if message.id not in earlier]
    results = {m.tool_call_id: m.content for m in new if isinstance(m, ToolMessage)}
    wrong = [
        f"{call_id} has the result {content!r}, which no tool reported"
        for call_id, content in results.items()
        if content not in (CLOSING_TEXT, done.reported.get(call_id), done.durable.get(call_id))
        and _home(done.shape, call_id) == namespace
    ]
    lost = done.turn.ending in LOSSES
    if done.run.end_reason is EndReason.ROLLED_BACK or (not lost and _nothing_stored(done, namespace)):
        return wrong
    kept = {m.tool_call_id for m in done.before.at(namespace) if isinstance(m, ToolMessage)}
    expected = {key: text for key, text in done.durable.items() if key not in kept} if lost else done.reported
    wrong += [
        f"{call_id} had reported {content!r}; kept is {results.get(call_id)!r}"
        for call_id, content in expected.items()
        if results.get(call_id) != content and _home(done.shape, call_id) == namespace
    ]
    return wrong


def _home(shape: Shape, call_id: str) -> str | None:
    """Return where the conversation is kept in which *call_id* was made; ``None`` if nowhere."""
    begins = max((begins for begins in shape.homes if call_id.startswith(begins)), key=len, default=None)
    return None if begins is None or (begins == "" and call_id.startswith(HELPER)) else shape.homes[begins]


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
    every = [message for space in (done.after.messages, *done.after.remembered.values()) for message in space]
    earlier = [message for space in (done.before.messages, *done.before.remembered.values()) for message in space]
    closed = [m.tool_call_id for m in every if m.text == CLOSING_TEXT]
    before = {m.tool_call_id for m in earlier if isinstance(m, ToolMessage)}
    if run.status is not RunStatus.SUCCESS:
        return []
    wrong = [] if before.issuperset(closed) else [f"it succeeded, and {closed} were closed"]
    for namespace in ("", *done.shape.homes.values()):
        said = done.after.at(namespace)[len(done.before.at(namespace)) :]
        if len(said) < 2 or said[-1].text != "All of it is done":
            wrong.append(f"it succeeded, and in {namespace!r} was said {[m.text for m in said]}")
    return wrong


def _not_rolled_back(done: Cut) -> list[str]:
    if done.turn.ending.startswith("supersede"):
        return _not_begun_anew(done)
    if done.after.checkpoints != done.before.checkpoints:
        return ["it was rolled back, and other checkpoints are there"]
    if done.after.values != done.before.values:
        return [f"it was rolled back, and the thread's row has {done.after.values!r} for {done.before.values!r}"]
    return []


def _not_begun_anew(done: Cut) -> list[str]:
    """Return what is wrong with a thread whose run was rolled back, and which another run has used since."""
    wrong: list[str] = []
    turns: dict[str, Sequence[str]] = {}
    if not done.shape.mixed:
        turns = {home: ("human", "ai") for home in done.shape.homes.values() if home}
    if done.shape.turn is not None:
        turns[""] = done.shape.turn
    for namespace, turn in turns.items():
        # A subgraph that had not begun before is given all that was said on the thread.
        earlier, after = done.before.at(namespace) or done.before.at(""), done.after.at(namespace)
        found = [m.id for m in after[: len(earlier)]], [m.type for m in after[len(earlier) :]]
        if found != ([m.id for m in earlier], list(turn)):
            wrong.append(f"it was rolled back and superseded, and left {[m.text for m in after]} in {namespace!r}")
    return wrong


def history(turns: Sequence[Turn], shape: str, *, go_on: bool = False) -> list[str]:
    """Cut run after run on one thread; return what was wrong after one of them, or with the turn that follows.

    Args:
        go_on: Whether to continue the thread with no input before that turn, if there is something to continue.
    """

    async def main() -> list[str]:
        agent = Agent(turns)
        thread = Thread(agent, SHAPES[shape])
        for number, turn in enumerate(turns):
            done = await cut(thread, turn)
            if wrong := broken(done):
                return [f"after turn {number}: {what}" for what in wrong]
        if go_on and (wrong := await _continued(thread, done)):
            return wrong
        return await _next_turn(thread)

    return run_virtual(main, TickingLoop)


async def _continued(thread: Thread, done: Cut) -> list[str]:
    """Continue the thread with no input; no tool whose result was kept may work again."""
    began = Counter(thread.agent.began)
    if not done.after.messages:
        return []
    run = await _run(thread, None)
    wrong = [] if run.status is RunStatus.SUCCESS else [f"it could not be continued: {run.error}"]
    if done.turn.durability == "exit" or done.run.end_reason is EndReason.ROLLED_BACK:
        return wrong
    kept = done.durable if done.turn.ending in LOSSES else done.reported
    again = [call_id for call_id in kept if thread.agent.began[call_id] > began[call_id]]
    return wrong + [f"when continued, {call_id} was made again" for call_id in again]


async def _run(thread: Thread, text: str | None) -> RunRecord:
    process = Process(thread)
    runtime, _ = await process.up
    run = await process.spawn(thread.admit(runtime, text))
    await ended(thread.store, run)
    await process.down()
    return await thread.store.runs.get(run.run_id, owner=ANY_OWNER)


async def _next_turn(thread: Thread) -> list[str]:
    before, began = await thread.seen(), Counter(thread.agent.began)
    thread.agent.answers = True
    run = await _run(thread, "and now?")
    after = await thread.seen()
    wrong = [] if run.status is RunStatus.SUCCESS else [f"the next turn ended as {run.status.value}: {run.error}"]
    if thread.shape.turn is not None:
        said = [m.type for m in after.messages[len(before.messages) :]]
        if after.messages[: len(before.messages)] != before.messages or said != list(thread.shape.turn):
            wrong.append(f"the next turn made {[(m.type, m.text) for m in after.messages]}")
    for namespace in filter(None, thread.shape.homes.values()):
        earlier, later = before.at(namespace), after.at(namespace)
        if later[: len(earlier)] != earlier or len(later) < len(earlier) + 2 or later[-1].text != "All of it is done":
            wrong.append(f"the next turn left {[(m.type, m.text) for m in later]} in {namespace!r}")
    if after.messages[-1:] and after.messages[-1].text != "All of it is done":
        wrong.append(f"the next turn ended with {after.messages[-1].text!r}")
    if thread.agent.began != began:
        wrong.append("the next turn made tool calls of the run before it")
    return wrong + [what for space in after.remembered.values() if (what := _refusal(space)) is not None]
