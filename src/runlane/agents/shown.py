"""Events of the last attempt before its process died, read from the run's log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from langchain_core.messages import AIMessageChunk

from runlane.agents.observer import GraphObserver
from runlane.records import StreamEvent


def observer_of(events: Sequence[StreamEvent]) -> GraphObserver:
    """Return an observer that knows the assistant texts in *events*, the newest of a run's log.

    Of a log whose beginning is not there, each graph's first superstep is left out: its texts may lack a beginning.
    """
    reading = _Reading()
    for event in events:
        reading.take(event)
    if events and events[0].seq > 1:
        for namespace, steps in reading.steps.items():
            if len(steps) < 2:
                reading.observer.forget(namespace)
    return reading.observer


class _Reading:
    def __init__(self) -> None:
        self.observer = GraphObserver()
        self.steps: dict[str, set[int]] = {}
        self._metadata: dict[str, Mapping[str, Any]] = {}
        self._lengths: dict[str, int] = {}

    def take(self, event: StreamEvent) -> None:
        name, _, namespace = event.name.partition("|")
        if name == "metadata":
            self.observer = GraphObserver()
        elif name == "messages/metadata":
            for message_id, known in orjson.loads(event.data).items():
                self._metadata[message_id] = known["metadata"]
        elif name == "messages/partial":
            message = orjson.loads(event.data)[0]
            if message["type"] == "ai":
                self._so_far(message["id"], _text(message["content"]), namespace)
        elif name == "messages":
            payload = orjson.loads(event.data)
            if isinstance(payload, dict):
                self._part(payload)
            elif payload[0]["type"] == "AIMessageChunk":
                self._text(payload[0]["id"], _text(payload[0]["content"]), payload[1], namespace)

    def _part(self, params: Mapping[str, Any]) -> None:
        """Take an event of the streaming protocol."""
        data = params["data"]
        if data.get("metadata"):
            node = params.get("node") or ""
            self._metadata[data["id"]] = {**data["metadata"], "langgraph_checkpoint_ns": node}
        delta = data.get("delta") or {}
        if delta.get("type") == "text-delta" and data["id"] in self._metadata:
            self._text(data["id"], delta["text"], self._metadata[data["id"]], "|".join(params["namespace"]))

    def _so_far(self, message_id: str, text: str, namespace: str) -> None:
        if message_id in self._metadata:
            new = text[self._lengths.get(message_id, 0) :]
            self._text(message_id, new, self._metadata[message_id], namespace)
            self._lengths[message_id] = len(text)

    def _text(self, message_id: str, text: str, metadata: Mapping[str, Any], namespace: str) -> None:
        if "langgraph_step" in metadata and "langgraph_checkpoint_ns" in metadata:
            self.steps.setdefault(namespace, set()).add(metadata["langgraph_step"])
            self.observer.streamed_text(message_id, text, metadata, namespace)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else str(AIMessageChunk(content=content).text)
