"""From the parts that a LangGraph stream yields to the events of the LangGraph Server API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.messages.ai import add_ai_message_chunks

from runlane.agents.base import Emit
from runlane.agents.documents import JsonDocuments
from runlane.agents.encode import encode, encode_lenient
from runlane.agents.first_values import FirstState
from runlane.agents.observer import GraphObserver
from runlane.agents.users import without_user
from runlane.documents.document import Encoded
from runlane.error_texts import MASKED, ErrorTexts

INTERRUPT: Final = "__interrupt__"
_HIDDEN: Final = "langsmith:hidden"
#: LangGraph's own mode for each mode of the API; ``events`` has none, it is another way to call the graph.
LANGGRAPH_MODES: Final[Mapping[str, str]] = {
    "values": "values",
    "updates": "updates",
    "messages": "messages",
    "messages-tuple": "messages",
    "custom": "custom",
    "tasks": "tasks",
    "checkpoints": "checkpoints",
    "debug": "debug",
}
Namespace = tuple[str, ...]


class Publisher:
    """Emits what was asked for, each payload encoded once, and remembers the state that was seen last.

    ``values`` is the newest state of the root graph (``None`` before the first), ``values_data`` its JSON text.
    """

    def __init__(
        self,
        emit: Emit,
        modes: Sequence[str],
        observer: GraphObserver,
        errors: ErrorTexts = MASKED,
        first: FirstState | None = None,
        documents: JsonDocuments | None = None,
    ) -> None:
        self._emit = emit
        self._documents = documents or JsonDocuments()
        self._first = first or FirstState(None)
        self._errors = errors
        self._asked = frozenset(modes)
        self._tuples = "messages-tuple" in self._asked
        self._observer = observer
        self._partial: dict[str, AIMessageChunk] = {}
        self._announced: set[str] = set()
        self.values: Any = None
        self._values_data: Encoded | None = None

    @property
    def langgraph_modes(self) -> list[str]:
        """LangGraph's stream modes to ask for; ``values`` is always one of them, since the result needs it."""
        return sorted({"values", *(LANGGRAPH_MODES[mode] for mode in self._asked if mode in LANGGRAPH_MODES)})

    @property
    def wants_events(self) -> bool:
        return "events" in self._asked

    @property
    def values_data(self) -> Encoded | None:
        if self._values_data is None and self.values is not None:
            self._values_data = self._documents.of(self.values)
        return self._values_data

    def part(self, namespace: Namespace, mode: str, payload: Any) -> None:
        """Publish one part of the graph's stream.

        Raises:
            Unserialisable: The part was asked for and has no JSON form.
        """
        self._observer.started = True
        if mode == "messages":
            self._message(namespace, *payload)
        elif mode == "values":
            self._state(namespace, payload)
        else:
            payload = self._errors.of_tasks(mode, payload)
            if mode == "debug":
                payload = _debug(payload)
            elif mode == "checkpoints":
                payload = without_user(payload)
            self._emit(_name(mode, namespace), self._documents.of(payload))

    def trace(self, event: Mapping[str, Any]) -> None:
        """Publish one event of LangChain's own event stream; what has no JSON form is shown by its ``repr``.

        Events that are tagged as hidden from traces are left out.
        """
        self._observer.started = True
        if _HIDDEN in event["tags"]:
            return
        error = event["data"].get("error")
        if error is not None:
            event = {**event, "data": {**event["data"], "error": self._errors.representation(error)}}
        self._emit("events", encode_lenient(event))

    def _state(self, namespace: Namespace, payload: Any) -> None:
        data = self._documents.of(payload) if "values" in self._asked else None
        if not namespace and not (isinstance(payload, dict) and INTERRUPT in payload):
            self.values, self._values_data = payload, data
            self._first.seen(payload)
            self._observer.superstep_over()
        if data is not None:
            self._emit(_name("values", namespace), data)

    def _message(self, namespace: Namespace, message: BaseMessage, metadata: Mapping[str, Any]) -> None:
        self._observer.streamed(message, metadata, "|".join(namespace) if namespace else "")
        if self._tuples:
            self._emit("messages" if not namespace else _name("messages", namespace), encode((message, metadata)))
            return
        message_id = message.id or ""
        if message_id not in self._announced:
            self._announced.add(message_id)
            self._emit(_name("messages/metadata", namespace), encode({message_id: {"metadata": metadata}}))
        if not isinstance(message, AIMessageChunk):
            self._emit(_name("messages/complete", namespace), encode([message]))
            return
        before = self._partial.get(message_id)
        so_far = message if before is None else add_ai_message_chunks(before, message)
        self._partial[message_id] = so_far
        if message.chunk_position == "last":
            del self._partial[message_id]
        self._emit(_name("messages/partial", namespace), encode([message_chunk_to_message(so_far)]))


def _name(mode: str, namespace: Namespace) -> str:
    return "|".join((mode, *namespace)) if namespace else mode


def _debug(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add to a checkpoint in the debug stream the short form of itself and its parent, which clients fork from."""
    if event.get("type") != "checkpoint":
        return event
    payload = event["payload"]
    return {
        **event,
        "payload": {
            **without_user(payload),
            "tasks": [_task(task) for task in payload["tasks"]],
            "checkpoint": checkpoint_keys(payload["config"]),
            "parent_checkpoint": checkpoint_keys(payload["parent_config"]),
        },
    }


def _task(task: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a task of a checkpoint with the address of its subgraph's state in place of a config."""
    state = task.get("state")
    if not isinstance(state, dict) or "configurable" not in state:
        return task
    kept = {name: value for name, value in task.items() if name != "state"}
    return {**kept, "checkpoint": checkpoint_address(state)}


def checkpoint_address(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return where *config* points: to a checkpoint, or, without its id, to where a subgraph keeps its own."""
    keys = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")
    return {key: config["configurable"][key] for key in keys if key in config["configurable"]}


def checkpoint_keys(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the address of a checkpoint as clients send it back, or ``None`` if *config* names none."""
    if config is None or not (config.get("configurable") or {}).get("checkpoint_id"):
        return None
    return checkpoint_address(config)
