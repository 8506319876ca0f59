"""What tests of agents share: a run that was claimed, a call that records, and models that need no network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from runlane.admission import MultitaskStrategy
from runlane.agents.base import Agent, AgentCall, DrainSignal
from runlane.checkpoints.saver import LedgerSaver
from runlane.documents.document import Encoded, whole
from runlane.lifecycle import DisconnectMode, RunStatus
from runlane.outcomes import Snapshot
from runlane.records import RunRecord, Usage
from runlane.requests import RunRequest, StoredRequest
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.migrate import apply_scripts

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE_S = 20.0  # far more than any run here takes; a run that hangs fails its test instead of stopping all


def run_record(*, thread_id: str = "t", run_id: str | None = None, attempt: int = 1, **kwargs: Any) -> RunRecord:
    """Make a claimed run whose request is *kwargs*."""
    metadata = kwargs.pop("run_metadata", {})
    return RunRecord(
        run_id=run_id or str(uuid4()),
        thread_id=thread_id,
        owner="",
        seq=1,
        assistant_id="assistant-1",
        graph_id=kwargs.get("graph_id"),
        status=RunStatus.RUNNING,
        end_reason=None,
        attempt=attempt,
        rescues=0,
        worker_id="w",
        multitask_strategy=MultitaskStrategy.ENQUEUE,
        on_disconnect=DisconnectMode.CONTINUE,
        metadata=metadata,
        stored=StoredRequest.of(RunRequest.of(kwargs)),
        model_name=None,
        error=None,
        cancel=None,
        usage=Usage(),
        temporary=False,
        not_before=NOW,
        created_at=NOW,
        updated_at=NOW,
        started_at=NOW,
        ended_at=None,
    )


def new_saver() -> LedgerSaver:
    """Return the checkpointer of a ledger in memory; call it on a loop."""
    driver = MemoryDriver()
    apply_scripts(driver)
    return LedgerSaver(driver)


@dataclass
class Desk:
    """A thread and its checkpoints; calls agents on it and remembers the events."""

    agent: Agent
    saver: Any = field(default_factory=lambda: new_saver())  # noqa: PLW0108 - a test may give another ledger
    store: Any = None
    thread_id: str = "t"
    events: list[tuple[str, Any]] = field(default_factory=list)
    drain: DrainSignal = field(default_factory=DrainSignal)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def _emit(self, name: str, encoded: Encoded) -> None:
        self.events.append((name, json.loads(whole(encoded))))
        self._arrived.set()

    async def seen(self, name: str) -> None:
        """Wait for an event with this name."""
        while not self.of(name):
            self._arrived.clear()
            await self._arrived.wait()

    def call(self, run: RunRecord, *, callbacks: Sequence[Any] = ()) -> AgentCall:
        return AgentCall(
            run=run,
            emit=self._emit,
            drain=self.drain,
            continued=run.attempt > 1,
            saver=self.saver,
            store=self.store,
            callbacks=callbacks,
        )

    async def run(self, **request: Any) -> Snapshot:
        """Run to the end on the thread; the events of this run alone are kept."""
        self.events.clear()
        async with asyncio.timeout(PATIENCE_S):
            return await self.agent.run(self.call(run_record(thread_id=self.thread_id, **request)))

    async def checkpoints(self) -> int:
        """Return how many checkpoints the thread has."""
        return len([saved async for saved in self.saver.alist({"configurable": {"thread_id": self.thread_id}})])

    def of(self, name: str) -> list[Any]:
        """Return the payloads of the events with this name."""
        return [payload for event, payload in self.events if event == name]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    async def stopped(self, until: Callable[[], Awaitable[Any]], **request: Any) -> Snapshot:
        """Run until *until* returns, cancel, and return the repaired thread."""
        call = self.call(run_record(thread_id=self.thread_id, **request))
        self.events.clear()
        task = asyncio.ensure_future(self.agent.run(call))
        waiting = asyncio.ensure_future(until())
        await asyncio.wait([task, waiting], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        assert waiting.done(), f"the run ended before it could be stopped: {task}"
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        return await self.agent.repair(call)


def decoded(encoded: Encoded | None) -> Any:
    return None if encoded is None else json.loads(whole(encoded))


class RefusedByProvider(ValueError):
    """What a strict chat API answers to a conversation in which a tool call has no result directly after it."""


class StrictModel(BaseChatModel):
    """Replies with its replies in turn, word by word, and refuses what OpenAI and Anthropic refuse.

    ``gate`` is awaited before each word but the first.
    """

    replies: list[AIMessage]
    gate: Any = None
    turn: int = 0

    @property
    def _llm_type(self) -> str:
        return "strict"

    def _reply(self, messages: Any) -> AIMessage:
        refuse_unpaired(messages)
        self.turn += 1
        return self.replies[(self.turn - 1) % len(self.replies)]

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        reply = self._reply(messages)
        return ChatResult(generations=[ChatGeneration(message=reply.model_copy(update={"id": None}))])

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        reply = self._reply(messages)
        for index, word in enumerate(str(reply.content).split(" ") if reply.content else []):
            if index and self.gate is not None:
                await self.gate()
            yield await self._word(AIMessageChunk(f" {word}" if index else word), run_manager)
        if reply.tool_calls:
            calls = [
                {"name": call["name"], "args": json.dumps(call["args"]), "id": call["id"], "index": index}
                for index, call in enumerate(reply.tool_calls)
            ]
            yield await self._word(AIMessageChunk("", tool_call_chunks=calls), run_manager)

    async def _word(self, message: AIMessageChunk, run_manager: Any) -> ChatGenerationChunk:
        chunk = ChatGenerationChunk(message=message)
        if run_manager is not None:
            await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
        return chunk


def refuse_unpaired(messages: Sequence[BaseMessage]) -> None:
    """Raise as a strict provider does unless each tool call has its result directly after its message."""
    open_calls: set[str] = set()
    for message in messages:
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in open_calls:
                raise RefusedByProvider(f"result without a call: {message.tool_call_id}")
            open_calls.discard(message.tool_call_id)
            continue
        if open_calls:
            raise RefusedByProvider(f"calls without a result: {sorted(open_calls)}")
        if isinstance(message, AIMessage):
            open_calls = {str(call["id"]) for call in message.tool_calls}
    if open_calls:
        raise RefusedByProvider(f"calls without a result: {sorted(open_calls)}")


def tool_call(name: str, call_id: str, **args: Any) -> Any:
    return {"name": name, "args": args, "id": call_id, "type": "tool_call"}
