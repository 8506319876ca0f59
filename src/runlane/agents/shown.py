"""What the last attempt had shown before it was lost with its process, read from the run's log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from langchain_core.messages import AIMessageChunk

from runlane.agents.observer import Observer
from runlane.records import StreamEvent


def observer_of(events: Sequence[StreamEvent]) -> Observer:
    """Return an observer that knows the assistant texts in *events*, the newest of a run's log.

    Of a log whose beginning is not there, the first superstep is left out: its texts may lack their beginnings.
    """
    reading = _Reading()
    for event in events:
        reading.take(event)
    if events and events[0].seq > 1 and len(reading.steps) < 2:
        return Observer()
    return reading.observer


class _Reading:
    def __init__(self) -> None:
        self.observer = Observer()
        self.steps: set[int] = set()
        self._metadata: dict[str, Mapping[str, Any]] = {}
        self._lengths: dict[str, int] = {}

    def take(self, event: StreamEvent) -> None:
        if event.name == "metadata":
            self.observer = Observer()
        elif event.name == "messages/metadata":
            for message_id, known in orjson.loads(event.data).items():
                self._metadata[message_id] = known["metadata"]
        elif event.name == "messages/partial":
            message = orjson.loads(event.data)[0]
            if message["type"] == "ai":
                self._so_far(message["id"], _text(message["content"]))
        elif event.name == "messages":
            payload = orjson.loads(event.data)
            if isinstance(payload, dict):
                self._part(payload)
            elif payload[0]["type"] == "AIMessageChunk":
                self._text(payload[0]["id"], _text(payload[0]["content"]), payload[1])

    def _part(self, params: Mapping[str, Any]) -> None:
        """Take an event of the streaming protocol."""
        data = params["data"]
        if params["namespace"]:
            return
        if data.get("metadata"):
            node = params.get("node") or ""
            self._metadata[data["id"]] = {**data["metadata"], "langgraph_checkpoint_ns": node}
        delta = data.get("delta") or {}
        if delta.get("type") == "text-delta" and data["id"] in self._metadata:
            self._text(data["id"], delta["text"], self._metadata[data["id"]])

    def _so_far(self, message_id: str, text: str) -> None:
        if message_id in self._metadata:
            self._text(message_id, text[self._lengths.get(message_id, 0) :], self._metadata[message_id])
            self._lengths[message_id] = len(text)

    def _text(self, message_id: str, text: str, metadata: Mapping[str, Any]) -> None:
        if "langgraph_step" in metadata and "langgraph_checkpoint_ns" in metadata:
            self.steps.add(metadata["langgraph_step"])
            self.observer.streamed_text(message_id, text, metadata)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else str(AIMessageChunk(content=content).text)
