"""Events of the event-streaming protocol, from LangGraph's own event stream (version 3) to the run's log.

An event is logged under the name of its channel; its text is the ``params`` of the event on the wire, from which a
reader makes the whole event without parsing it. Source: ``langchain-protocol``, ``langgraph.stream``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from langchain_core._api.beta_decorator import suppress_langchain_beta_warning
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.stream import ProtocolEvent, StreamChannel, StreamTransformer
from langgraph.types import Interrupt

from runlane.agents.base import AgentCall, Emit
from runlane.agents.documents import JsonDocuments
from runlane.agents.encode import encode, shape_of
from runlane.agents.first_values import FirstState
from runlane.agents.observer import GraphObserver
from runlane.agents.registry import Graph
from runlane.documents.document import Encoded
from runlane.error_texts import MASKED, ErrorTexts
from runlane.records import RunRecord, StreamEvent

#: The channel through which :class:`Taps` brings task events past the transformers that keep them for themselves.
_TASKS: Final = "runlane.tasks"
_CUSTOM: Final = "custom:"
#: Channels whose payload goes out as it is.
_PLAIN: Final = frozenset({"updates", "tools", "custom"})
#: Channels that the run API has as stream modes, with the same data but for the fields that ``_slim`` leaves out.
_STREAM_MODES: Final = frozenset({"values", "updates", "tasks", "checkpoints", "custom"})
_DATA: Final = b',"data":'
#: What a message always has; of its other fields only those that say something are sent.
_MESSAGE_FIELDS: Final = ("type", "content", "id")
#: Metadata of a chat model's call, and what the protocol calls it.
_MODEL_METADATA: Final = {
    "provider": "ls_provider",
    "model": "ls_model_name",
    "model_type": "ls_model_type",
    "langgraph_node": "langgraph_node",
    "langgraph_step": "langgraph_step",
    "thread_id": "thread_id",
}
Namespace = Sequence[str]


class Taps(StreamTransformer):
    """Asks the graph for every kind of event, and brings task events into the stream of all events."""

    _native = False
    required_stream_modes = ("values", "updates", "custom", "checkpoints", "tasks", "tools")

    def __init__(self, scope: tuple[str, ...] = ()) -> None:
        super().__init__(scope)
        self._tasks: StreamChannel[ProtocolEvent] = StreamChannel(_TASKS)

    def init(self) -> dict[str, Any]:
        return {_TASKS: self._tasks}

    def process(self, event: ProtocolEvent) -> bool:
        if event["method"] == "tasks" and not self.scope:  # the transformers of a subgraph see the same events again
            self._tasks.push(event)
        return True


async def pump_protocol(
    graph: Graph,
    value: Any,
    config: RunnableConfig,
    options: Mapping[str, Any],
    call: AgentCall,
    publisher: ProtocolPublisher,
) -> None:
    """Drive *graph* to its end and publish every event of its stream.

    Raises:
        Unserialisable: An event has no JSON form.
        Exception: The run failed; the exception is the graph's own.
    """
    if call.run.attempt == 1:
        publisher.answered(call.run.request.answers)
    with suppress_langchain_beta_warning():  # nothing is awaited in here
        stream: Any = await graph.astream_events(value, config, version="v3", transformers=[Taps], **options)
    async with stream:
        try:
            async for event in stream:
                publisher.event(event)
                if call.congested():
                    await call.ready()
        finally:
            publisher.flush()


class ProtocolPublisher:
    """Emits the events of one attempt, each payload encoded once, and remembers the state that was seen last."""

    def __init__(
        self,
        emit: Emit,
        observer: GraphObserver,
        errors: ErrorTexts = MASKED,
        first: FirstState | None = None,
        documents: JsonDocuments | None = None,
    ) -> None:
        self._emit_event = emit
        self._documents = documents or JsonDocuments()
        self._slim = self._documents.with_shape("json.slim", slim)
        self._observer = observer
        self._first = first or FirstState(None)
        self._errors = errors
        self._held: dict[tuple[str, ...], Mapping[str, Any]] = {}
        self._message_ids: dict[str, str] = {}
        self._asked_in: dict[str, Namespace] = {}
        self._values: Any = None

    @property
    def values_data(self) -> Encoded | None:
        return None if self._values is None else self._documents.of(self._values)

    def event(self, event: Mapping[str, Any]) -> None:
        """Publish one event of the graph's stream."""
        self._observer.started = True
        method, params = event["method"], event["params"]
        if method == _CUSTOM + _TASKS:
            event = params["data"]
            method, params = event["method"], event["params"]
        if method == "checkpoints":
            self._checkpoint(params)
            return
        self.flush()
        if method == "values":
            self._state(params)
        elif method == "messages":
            self._message(params)
        elif method == "lifecycle":
            self._lifecycle(params)
        elif method == "tasks":
            self._task(params)
        elif method in _PLAIN:
            self._plain(method, params)
        else:
            self._extension(method.removeprefix(_CUSTOM), params)

    def flush(self) -> None:
        """Publish states that were held back for their checkpoints."""
        held, self._held = self._held, {}
        for params in held.values():
            self._emit("values", params["namespace"], params["data"], params["timestamp"])

    def answered(self, interrupt_ids: Sequence[str]) -> None:
        """Emit ``input.answered`` for the interrupts that this run answers."""
        if interrupt_ids:
            self._emit("input.answered", (), {"interrupt_ids": list(interrupt_ids)})

    def requested(self, interrupts: Iterable[Interrupt]) -> None:
        """Publish what the graph waits for; the last events of a run that pauses."""
        for item in interrupts:
            data = {"interrupt_id": item.id, "payload": item.value, "value": item.value}
            if item.response_schema is not None:
                data["response_schema"] = item.response_schema
            self._emit("input.requested", self._asked_in.get(item.id, ()), data)

    def _state(self, params: Mapping[str, Any]) -> None:
        """Hold a state back until the next event, which is its checkpoint if it has one: clients pair the two."""
        namespace = tuple(params["namespace"])
        if not namespace and not params.get("interrupts"):
            self._values = params["data"]
            self._first.seen(self._values)
            self._observer.superstep_over()
        self._held[namespace] = params

    def _checkpoint(self, params: Mapping[str, Any]) -> None:
        namespace = tuple(params["namespace"])
        state = self._held.pop(namespace, None)
        self.flush()
        self._emit("checkpoints", namespace, checkpoint_wire(params["data"]), params["timestamp"])
        if state is not None:
            self._emit("values", namespace, state["data"], state["timestamp"])

    def _task(self, params: Mapping[str, Any]) -> None:
        data, namespace = params["data"], params["namespace"]
        for item in data.get("interrupts") or ():
            self._asked_in.setdefault(item["id"], namespace)  # the innermost graph tells first
        if isinstance(data.get("error"), BaseException):
            self._observer.note_error(data["error"])
        self._emit("tasks", namespace, self._errors.of_tasks("tasks", data), params["timestamp"])

    def _plain(self, method: str, params: Mapping[str, Any]) -> None:
        data = params["data"]
        if method == "tools" and data.get("event") == "tool-error":
            data = {**data, "message": self._errors.of_text(data["message"], self._observer.raised)}
        name = data.get("name") if method == "custom" and isinstance(data, dict) else None
        channel = f"{_CUSTOM}{name}" if isinstance(name, str) and name else method
        self._emit(channel, params["namespace"], data, params["timestamp"])

    def _extension(self, name: str, params: Mapping[str, Any]) -> None:
        data = {"name": name, "payload": params["data"]}
        self._emit(f"{_CUSTOM}{name}", params["namespace"], data, params["timestamp"])

    def _lifecycle(self, params: Mapping[str, Any]) -> None:
        data = params["data"]
        if data.get("error") is not None:
            data = {**data, "error": self._errors.of_text(data["error"], self._observer.raised)}
        if data["event"] != "drained":  # it goes on in the next attempt
            self._emit("lifecycle", data["namespace"], data, params["timestamp"])

    def _message(self, params: Mapping[str, Any]) -> None:
        """Publish what a chat model streams. A whole message is one that a node returns: the state has it."""
        payload, metadata = params["data"]
        if not isinstance(payload, BaseMessage):
            self._message_event(payload, metadata, params)
            self._observe(payload, metadata, params["namespace"])

    def _message_event(self, part: Mapping[str, Any], metadata: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        """Publish one event of a message, with the ids by which messages that stream at once are told apart."""
        model_run, node = str(metadata.get("run_id")), metadata.get("langgraph_node")
        data: dict[str, Any] = {**part, "run_id": model_run}
        if part["event"] == "message-start":
            self._message_ids[model_run] = str(part.get("id") or model_run)
            known = {name: metadata.get(key) for name, key in _MODEL_METADATA.items()}
            data["metadata"] = {name: value for name, value in known.items() if value is not None} | (
                part.get("metadata") or {}
            )
        data["id"] = self._message_ids.get(model_run, model_run)
        if part["event"] == "message-finish":
            self._message_ids.pop(model_run, None)
        self._emit("messages", params["namespace"], data, params["timestamp"], node=node)

    def _observe(self, part: Mapping[str, Any], metadata: Mapping[str, Any], namespace: Namespace) -> None:
        """Tell the observer a piece of text that a chat model streams."""
        delta = part.get("delta")
        if delta is not None and delta.get("type") == "text-delta":
            model_run = str(metadata.get("run_id"))
            message_id = self._message_ids.get(model_run, model_run)
            self._observer.streamed_text(message_id, delta["text"], metadata, "|".join(namespace))

    def _emit(
        self, channel: str, namespace: Namespace, data: Any, timestamp: int | None = None, *, node: str | None = None
    ) -> None:
        at = b"%d" % (int(time.time() * 1000) if timestamp is None else timestamp)
        by = b"" if node is None else b',"node":%s' % encode(node)
        encoded = self._slim.of(data)
        if isinstance(encoded, bytes):
            self._emit_event(channel, wire_params(namespace, at + by, encoded))
        else:
            around = wire_params(namespace, at + by, b"")
            self._emit_event(channel, encoded.framed(around[:-1], around[-1:]))


def wire_params(namespace: Namespace, timestamp: bytes, data: bytes) -> bytes:
    """Return the ``params`` of an event: the namespace first, the data last."""
    return b'{"namespace":%s,"timestamp":%s,"data":%s}' % (encode(list(namespace)), timestamp, data)


def namespace_of(params: bytes) -> Namespace:
    """Return the namespace of an event's ``params``."""
    if params.startswith(b'{"namespace":[]'):
        return ()
    namespace: list[str] = orjson.loads(params[len(b'{"namespace":') : params.index(b',"timestamp":')])
    return namespace


def run_api_event(run: RunRecord, event: StreamEvent) -> StreamEvent | None:
    """Return a logged event as readers of the run API know it: in its stream mode, or not at all.

    Nothing changes for a run that was started with the run API itself.
    """
    return event if run.request.protocol is None else stream_mode_event(event)


def stream_mode_event(event: StreamEvent) -> StreamEvent | None:
    """Return an event of the event-streaming protocol in its stream mode; ``None`` if it has none."""
    if event.name in ("metadata", "error"):
        return event
    mode = event.name.partition(":")[0]
    if mode not in _STREAM_MODES:
        return None
    # The data comes last; inside of the texts before it, quotes are escaped.
    data = event.data[event.data.index(_DATA) + len(_DATA) : -1]
    return StreamEvent(seq=event.seq, name="|".join((mode, *namespace_of(event.data))), data=data)


def checkpoint_wire(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a client needs to fork from *checkpoint*; its values go out on their own channel."""
    metadata = checkpoint.get("metadata") or {}
    parent = ((checkpoint.get("parent_config") or {}).get("configurable") or {}).get("checkpoint_id")
    return {
        "id": ((checkpoint.get("config") or {}).get("configurable") or {}).get("checkpoint_id"),
        **({} if parent is None else {"parent_id": parent}),
        "step": metadata.get("step"),
        "source": metadata.get("source"),
        "next": checkpoint.get("next"),
    }


def slim(value: Any) -> Any:
    """Return the JSON form of *value*; messages are reduced to what they say, as all clients of the protocol read
    them."""
    if isinstance(value, BaseMessage):
        fields = {**value.__dict__, **(value.__pydantic_extra__ or {})}
        return {name: item for name, item in fields.items() if name in _MESSAGE_FIELDS or _says_something(item)}
    return shape_of(value)


def _says_something(item: Any) -> bool:
    return item is not None and (bool(item) or type(item) not in (str, list, dict))
