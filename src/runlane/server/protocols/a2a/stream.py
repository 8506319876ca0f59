"""The stream of a task: what its agent says as it says it, and how it ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from runlane.errors import NotFound
from runlane.lifecycle import RunStatus
from runlane.records import ANY_OWNER, Assistant, RunRecord, StreamEnd, StreamEvent
from runlane.runtime import utc_now
from runlane.server.http.responses import SSE_HEADERS, Last, StreamingBody
from runlane.server.protocols.a2a.tasks import brief, since
from runlane.server.protocols.a2a.wire import A2aVersion, Now, Words, text_of
from runlane.server.protocols.json_rpc import RpcRequest
from runlane.server.service import Service
from runlane.streams.live import Ending
from runlane.streams.watch import Watch

HEARTBEAT: Final = b": heartbeat\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class A2aCall:
    """One request: its version of the protocol, what it asks, and of whom."""

    rpc: RpcRequest
    version: A2aVersion
    operation: str
    assistant: Assistant

    def words(self, run: RunRecord) -> Words:
        """Return *run* in the words of the request's version."""
        return Words(self.version, run)


async def ended_now(service: Service, run: RunRecord, ending: Ending) -> Now:
    """Return the run after its end; it may be gone already."""
    try:
        at = since(await service.store.runs.get(run.run_id, owner=ANY_OWNER))
    except NotFound:
        at = utc_now()
    return Now(
        status=ending.status,
        end_reason=ending.end_reason,
        values=None if ending.result is None else orjson.loads(ending.result),
        error=ending.error,
        at=at,
    )


def streamed(service: Service, call: A2aCall, watch: Watch) -> StreamingBody:
    """Send the task, what its agent says as it says it, and how it ended."""

    def frame(named: str, value: dict[str, Any]) -> bytes:
        return b"event: message\r\ndata: %s\r\n\r\n" % call.rpc.result(words.event(named, value))

    words, run = call.words(watch.run), watch.run

    async def pieces() -> AsyncIterator[bytes]:
        yield frame("task", words.task(brief(run)))
        told: dict[str, None] = {}
        async for batch in watch.batches(after=0):
            found = []
            for item in batch:
                if isinstance(item, StreamEvent) and item.name == "metadata":
                    began = words.status_update(await _began(service, run), final=False)
                    found.append(frame("statusUpdate", began))
                elif (update := _text(item, words, told)) is not None:
                    found.append(frame("artifactUpdate", update))
            if batch and isinstance(batch[-1], StreamEnd):
                now = await ended_now(service, run, await service.streams.ended(run))
                answer = words.answer_update(now, list(told))
                rest = [frame("artifactUpdate", answer)] if answer is not None else []
                last = frame("statusUpdate", words.status_update(now, final=True))
                yield Last(b"".join([*found, *rest, last]))
            elif found or not batch:
                yield b"".join(found) or HEARTBEAT

    return StreamingBody(pieces(), media_type="text/event-stream", headers=SSE_HEADERS, on_close=watch.close)


async def _began(service: Service, run: RunRecord) -> Now:
    """Return the run as it was when it began to work."""
    try:
        at = (await service.store.runs.get(run.run_id, owner=ANY_OWNER)).started_at
    except NotFound:
        at = None
    return Now(status=RunStatus.RUNNING, end_reason=None, values=None, error=None, at=at or utc_now())


def _text(item: Any, words: Words, told: dict[str, None]) -> dict[str, Any] | None:
    """Return what an event of the run says to another agent; *told* has the messages that were begun."""
    if not isinstance(item, StreamEvent) or item.name != "messages":
        return None
    message = orjson.loads(item.data)[0]
    text = text_of(message)
    if message.get("type") not in ("ai", "AIMessageChunk") or not text:
        return None
    message_id = str(message.get("id"))
    update = words.text_update(message_id, text, append=message_id in told)
    told[message_id] = None
    return update
