"""Events as the wire has them, made of runs' logs: numbered by the ledger alone, chosen by what a client asked for.

The number of an event is its run's number and its own in the run's log, so that it is the same on every connection and
after a restart. The lifecycle of a run has events of its own: ``running`` stands for the first event of the log, and
what comes at the end is numbered after the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import msgspec
import orjson

from runlane.agents.events import INTERRUPT
from runlane.agents.protocol_events import checkpoint_wire, namespace_of, wire_params
from runlane.errors import InvalidRequest, NotFound
from runlane.lifecycle import EndReason, RunStatus
from runlane.records import ANY_OWNER, RunRecord, StreamEnd, StreamEvent, StreamGap
from runlane.server.http.requests import Body
from runlane.server.http.responses import event_id
from runlane.store.ledger import RunStore
from runlane.streams.batches import EventBatch, LargeEvent, LargePiece

#: Events that a run may have. The rest of the 53 bits that a number has in JavaScript is for runs: 500 million.
EVENT_BITS: Final = 24
CHANNELS: Final = frozenset(
    {"values", "updates", "messages", "tools", "lifecycle", "input", "checkpoints", "tasks", "custom"}
)
#: Channels that tell how a run goes, and nothing of what it does.
CONTROL: Final = frozenset({"lifecycle", "input"})
QUESTION: Final = "input.requested"
_CUSTOM: Final = "custom:"
#: Stream modes of the run API whose payloads the protocol has too.
_SHARED: Final = frozenset({"values", "updates", "custom", "tasks", "checkpoints"})
_ENDINGS: Final[Mapping[RunStatus, str]] = {
    RunStatus.SUCCESS: "completed",
    RunStatus.ERROR: "failed",
    RunStatus.TIMEOUT: "failed",
    RunStatus.INTERRUPTED: "interrupted",
}


class Subscription(Body):
    """The subscription of a client: channels, below any of some namespaces, down to a depth, after a number."""

    channels: list[str]
    namespaces: list[list[str]] | None = None
    depth: int | None = None
    since: int | None = None

    @property
    def only_control(self) -> bool:
        return CONTROL.issuperset(self.channels)

    def wants(self, channel: str, namespace: Sequence[str]) -> bool:
        listed = channel in self.channels or (channel.startswith(_CUSTOM) and "custom" in self.channels)
        return listed and (not self.namespaces or any(self._within(namespace, prefix) for prefix in self.namespaces))

    def _within(self, namespace: Sequence[str], prefix: Sequence[str]) -> bool:
        """A segment of the prefix without a task's id stands for that node in any task."""
        if len(prefix) > len(namespace) or (self.depth is not None and len(namespace) - len(prefix) > self.depth):
            return False
        return all(
            given == wanted or (":" not in wanted and given.partition(":")[0] == wanted)
            for given, wanted in zip(namespace, prefix, strict=False)
        )


def subscription(value: Any) -> Subscription:
    """Return *value*, which a client sent, as what it wants to see.

    Raises:
        InvalidRequest: It says what is wrong.
    """
    if not isinstance(value, dict) or not value.get("channels"):
        raise InvalidRequest(f"'channels' is required: a list of {', '.join(sorted(CHANNELS))} or custom:<name>.")
    given = {name: item for name, item in value.items() if item is not None}
    try:
        found = msgspec.convert(given, Subscription)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"Invalid subscription: {error}.") from None
    unknown = [name for name in found.channels if name not in CHANNELS and name.removeprefix(_CUSTOM) == name]
    if unknown or _CUSTOM in found.channels:
        raise InvalidRequest(f"'channels' has unsupported entries: {', '.join(unknown) or _CUSTOM}.")
    if (found.depth or 0) < 0 or (found.since or 0) < 0:
        raise InvalidRequest("'depth' and 'since' must not be negative.")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class WireEvent:
    """One event for a client: its number, its method, and its whole JSON text; ``pauses`` if clients stop for it.

    ``large`` has the text of an event that is larger than what a reader may hold; ``text`` is empty then.
    """

    seq: int
    method: str
    text: bytes
    pauses: bool = False
    large: LargePiece | None = None

    async def whole(self) -> bytes:
        """Return the text, however large.

        Raises:
            NotFound: A large event was removed meanwhile.
        """
        if self.large is None:
            return self.text
        return (await self.large.event.whole()).made(self.large.kind, self.large.make)


@dataclass(frozen=True, slots=True)
class _Made:
    """An event of a run's log as the wire has it, for all clients who want its channel and its namespace."""

    channel: str
    namespace: Sequence[str]
    event: WireEvent


def position(run_seq: int, number: int) -> int:
    """Return the number on the wire of a run's event with *number* in its log."""
    return (run_seq << EVENT_BITS) | number


def place(seq: int) -> tuple[int, int]:
    """Return the run's number and the event's number in its log, of a number on the wire."""
    return seq >> EVENT_BITS, seq & ((1 << EVENT_BITS) - 1)


def gap_event(seq: int, resumes_at: int) -> WireEvent:
    """Return the word that retention removed what lies between *seq* and *resumes_at*; every client is told."""
    text = b'{"type":"event","event_id":"gap:%d","seq":%d,"method":"gap",' % (resumes_at, seq)
    data = b'"params":{"namespace":[],"timestamp":0,"data":{"resumes_at":%d}}}' % resumes_at
    return WireEvent(seq=seq, method="gap", text=text + data)


class RunEvents:
    """Turns items of one run's stream into events of its thread."""

    def __init__(self, store: RunStore, run: RunRecord, wanted: Subscription) -> None:
        self._store = store
        self._run = run
        self._wanted = wanted
        self._native = run.request.protocol is not None
        self._begun = _milliseconds(run.created_at)

    async def of(self, part: EventBatch | LargeEvent) -> list[WireEvent]:
        """Return what the client wants of *part*, in order.

        Raises:
            NotFound: A large event was removed meanwhile.
        """
        if isinstance(part, LargeEvent):
            piece = LargePiece(event=part, kind=RunEvents, make=self._text)
            return [replace(event, text=b"", large=piece) for event in self._wanted_of(await part.whole())]
        found: list[WireEvent | None] = []
        found.extend(self._wanted_of(part))
        for item in part:
            if isinstance(item, StreamGap):
                at = position(self._run.seq, item.resumes_at)
                found.append(gap_event(at - 1, at))
            elif isinstance(item, StreamEnd):
                found.extend(await self._ended(item))
        return [event for event in found if event is not None]

    def _wanted_of(self, batch: EventBatch) -> list[WireEvent]:
        """Return what the client wants of the events of *batch*, which are made once for all clients."""
        made = batch.made(_Made, self._made)
        return [one.event for one in made if self._wanted.wants(one.channel, one.namespace)]

    def _made(self, batch: EventBatch) -> list[_Made]:
        made = (self._logged(item) for item in batch if isinstance(item, StreamEvent))
        return [one for one in made if one is not None]

    def _text(self, batch: EventBatch) -> bytes:
        return b"".join([one.event.text for one in batch.made(_Made, self._made)])

    def _logged(self, event: StreamEvent) -> _Made | None:
        if event.name == "metadata":
            running = self._lifecycle_event(1, "running", self._begun)
            return _Made("lifecycle", (), running) if event.seq == 1 else None
        if event.name == "error":  # the lifecycle says it
            return None
        return self._own(event) if self._native else self._shared(event)

    def _own(self, event: StreamEvent) -> _Made:
        """Return an event that was logged in the protocol's own terms."""
        channel, params = event.name, event.data
        namespace = namespace_of(params)
        method = "custom" if channel.startswith(_CUSTOM) else channel
        own_id = self._special_id(method, namespace, params)
        wire = self._wire(event.seq, method, params, own_id, pauses=method == QUESTION)
        return _Made(method.partition(".")[0] if method.startswith("input.") else channel, namespace, wire)

    def _shared(self, event: StreamEvent) -> _Made | None:
        """Return an event of a run that was started for the run API, if the protocol has its like."""
        method, *namespace = event.name.split("|")
        channel, data = method, event.data
        if method not in _SHARED:
            return None
        if method == "custom" and data.startswith(b"{") and isinstance(name := orjson.loads(data).get("name"), str):
            channel = f"{_CUSTOM}{name}"
        if method == "checkpoints":
            data = orjson.dumps(checkpoint_wire(orjson.loads(data)))
        wire = self._wire(event.seq, method, wire_params(namespace, self._begun, data), None)
        return _Made(channel, namespace, wire)

    async def _ended(self, end: StreamEnd) -> list[WireEvent | None]:
        """Return what a run's end has to say: what it asks a human, if its log does not, and last its lifecycle."""
        run, store = self._run, self._store
        try:
            run = await store.runs.get(run.run_id, owner=ANY_OWNER)
        except NotFound:  # rolled back, and gone
            return [self._lifecycle(end.seq, "interrupted", self._begun)]
        at = self._begun if run.ended_at is None else _milliseconds(run.ended_at)
        if end.end_reason is EndReason.PAUSED:
            asked = [] if self._native else await self._asked()
            questions = [self._question(end.seq + index, item, at) for index, item in enumerate(asked)]
            return [*questions, self._lifecycle(end.seq + len(asked), "interrupted", at)]
        extra = {} if run.error is None or end.status is RunStatus.INTERRUPTED else {"error": run.error.message}
        return [self._lifecycle(end.seq, _ENDINGS[end.status], at, extra)]

    async def _asked(self) -> Sequence[Mapping[str, Any]]:
        _, result, _ = await self._store.runs.result(self._run.run_id, owner=ANY_OWNER)
        values = {} if result is None else orjson.loads(result)
        return (values.get(INTERRUPT) or ()) if isinstance(values, dict) else ()

    def _question(self, number: int, item: Mapping[str, Any], at: bytes) -> WireEvent | None:
        if not self._wanted.wants("input", ()):
            return None
        data = {"interrupt_id": item["id"], "payload": item["value"], "value": item["value"]}
        if item.get("response_schema") is not None:
            data["response_schema"] = item["response_schema"]
        params = wire_params((), at, orjson.dumps(data))
        return self._wire(number, QUESTION, params, self._special_id(QUESTION, (), params), pauses=True)

    def _lifecycle(
        self, number: int, event: str, at: bytes, extra: Mapping[str, Any] | None = None
    ) -> WireEvent | None:
        if not self._wanted.wants("lifecycle", ()):
            return None
        return self._lifecycle_event(number, event, at, extra)

    def _lifecycle_event(self, number: int, event: str, at: bytes, extra: Mapping[str, Any] | None = None) -> WireEvent:
        data = {"event": event, "graph_name": self._run.graph_id, **(extra or {})}
        params = wire_params((), at, orjson.dumps(data))
        own_id = self._special_id("lifecycle", (), params)
        return self._wire(number, "lifecycle", params, own_id, pauses=event != "running")

    def _special_id(self, method: str, namespace: Sequence[str], params: bytes) -> str | None:
        """Return the id of an event that clients expect to name its run: ``synth:<run>:<kind>|<namespace>|<what>``."""
        kind = {"lifecycle": "lc", QUESTION: "input", "input.answered": "answered"}.get(method)
        if kind is None:
            return None
        data = orjson.loads(params)["data"]
        what = data.get("event") or data.get("interrupt_id") or ",".join(data.get("interrupt_ids") or ())
        return f"synth:{self._run.run_id}:{kind}|{'|'.join(namespace)}|{what}"

    def _wire(
        self, number: int, method: str, params: bytes, special_id: str | None, *, pauses: bool = False
    ) -> WireEvent:
        seq = position(self._run.seq, number)
        name = orjson.dumps(special_id or event_id(self._run, number))
        head = b'{"type":"event","event_id":%s,"seq":%d,"method":"%s","params":' % (name, seq, method.encode())
        return WireEvent(seq=seq, method=method, text=b"%s%s}" % (head, params), pauses=pauses)


def _milliseconds(instant: datetime) -> bytes:
    return b"%d" % int(instant.timestamp() * 1000)
