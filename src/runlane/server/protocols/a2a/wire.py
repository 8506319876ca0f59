"""The words of the Agent2Agent protocol in its two versions, and a run in these words. Pure.

Source: Agent2Agent protocol, versions 0.3.0 and 1.0 (``A2A-Version``), JSON-RPC binding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
import orjson

from runlane.lifecycle import EndReason, RunStatus
from runlane.records import RunError, RunRecord
from runlane.server.protocols.json_rpc import INVALID_PARAMS, RpcError

A2aVersion = Literal["0.3", "1.0"]
#: Messages that a task is sent with if its reader does not say how many.
MAX_HISTORY: Final = 100
NO_TASK, NOT_CANCELABLE, NO_PUSH, UNSUPPORTED, NO_SUCH_CONTENT = -32001, -32002, -32003, -32004, -32005
NO_EXTENDED_CARD, NO_SUCH_VERSION = -32007, -32009
#: What each version calls what can be asked.
METHODS: Final[Mapping[str, Mapping[str, str]]] = {
    "0.3": {
        "message/send": "send",
        "message/stream": "stream",
        "tasks/get": "get",
        "tasks/cancel": "cancel",
        "tasks/resubscribe": "subscribe",
        "agent/getAuthenticatedExtendedCard": "card",
        **{f"tasks/pushNotificationConfig/{what}": "push" for what in ("set", "get", "list", "delete")},
    },
    "1.0": {
        "SendMessage": "send",
        "SendStreamingMessage": "stream",
        "GetTask": "get",
        "CancelTask": "cancel",
        "SubscribeToTask": "subscribe",
        "ListTasks": "list",
        "GetExtendedAgentCard": "card",
        **{f"{what}TaskPushNotificationConfig": "push" for what in ("Create", "Get", "Delete")},
        "ListTaskPushNotificationConfigs": "push",
    },
}


#: The statuses of a run that a state of a task stands for, and whether it has paused.
STATES: Final[Mapping[str, tuple[tuple[RunStatus, ...], bool | None]]] = {
    "TASK_STATE_SUBMITTED": ((RunStatus.PENDING,), None),
    "TASK_STATE_WORKING": ((RunStatus.RUNNING,), None),
    "TASK_STATE_COMPLETED": ((RunStatus.SUCCESS,), False),
    "TASK_STATE_INPUT_REQUIRED": ((RunStatus.SUCCESS,), True),
    "TASK_STATE_CANCELED": ((RunStatus.INTERRUPTED,), None),
    "TASK_STATE_FAILED": ((RunStatus.ERROR, RunStatus.TIMEOUT), None),
}


class Part(msgspec.Struct, kw_only=True):
    """A part of a message: a text or data; files are known in order to be refused."""

    text: str | None = None
    data: Any = msgspec.UNSET
    file: Any = msgspec.UNSET
    raw: Any = msgspec.UNSET
    url: Any = msgspec.UNSET


class Message(msgspec.Struct, kw_only=True, rename="camel"):
    """A message between agents."""

    message_id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    parts: Annotated[list[Part], msgspec.Meta(min_length=1)]
    role: Literal["user", "ROLE_USER"]
    context_id: str | None = None
    task_id: str | None = None


class Configuration(msgspec.Struct, kw_only=True, rename="camel"):
    """Options of the sender for the answer."""

    blocking: bool | None = None
    return_immediately: bool = False
    history_length: Annotated[int, msgspec.Meta(ge=0)] | None = None
    push_notification_config: Any = None
    task_push_notification_config: Any = None

    @property
    def waits(self) -> bool:
        return self.blocking is not False and not self.return_immediately


class Sending(msgspec.Struct, kw_only=True):
    """The parameters of sending a message."""

    message: Message
    configuration: Configuration = msgspec.field(default_factory=Configuration)
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class Asking(msgspec.Struct, kw_only=True, rename="camel"):
    """The parameters of asking for a task."""

    id: str
    history_length: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Listing(msgspec.Struct, kw_only=True, rename="camel"):
    """The parameters of listing tasks."""

    context_id: str | None = None
    status: str | None = None
    page_size: Annotated[int, msgspec.Meta(ge=1, le=100)] = 50
    page_token: str | None = None
    history_length: Annotated[int, msgspec.Meta(ge=0)] | None = None
    status_timestamp_after: datetime | None = None
    include_artifacts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """A run as it is now; ``values`` are those that it left."""

    status: RunStatus
    end_reason: EndReason | None
    values: Any
    error: RunError | None
    at: datetime

    @property
    def asks(self) -> bool:
        return self.status is RunStatus.SUCCESS and self.end_reason is EndReason.PAUSED


def version_of(header: str | None) -> A2aVersion:
    """Return the version that a request asks for: 0.3 unless it says 1.0."""
    named = ".".join((header or "0.3").strip().split(".")[:2])
    if named in ("0.3", ""):
        return "0.3"
    if named == "1.0":
        return "1.0"
    raise RpcError(NO_SUCH_VERSION, f"Version {named!r} is not spoken here; 0.3 and 1.0 are.")


def content_of(message: Message) -> str | list[dict[str, Any]]:
    """Return what *message* says, as the content of a chat message; data becomes JSON text."""
    texts = []
    for part in message.parts:
        if part.text is not None:
            texts.append(part.text)
        elif part.data is not msgspec.UNSET:
            texts.append(orjson.dumps(part.data).decode())
        elif any(found is not msgspec.UNSET for found in (part.file, part.raw, part.url)):
            raise RpcError(NO_SUCH_CONTENT, "A part is a file; send text or data.")
        else:
            raise RpcError(INVALID_PARAMS, "A part has neither text nor data.")
    return texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]


def text_of(message: Any) -> str:
    """Return the text of a chat message's content."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "".join(str(block.get("text", "")) for block in blocks if isinstance(block, dict))


def questions_of(values: Any) -> list[str]:
    """Return the ids of the interrupts that a paused run left."""
    asked = values.get("__interrupt__") if isinstance(values, dict) else None
    return [one["id"] for one in asked or () if isinstance(one, dict) and isinstance(one.get("id"), str)]


def task_id(run: RunRecord) -> str:
    return f"{run.thread_id}:{run.run_id}"


class Words:
    """A run in the words of one version."""

    def __init__(self, version: A2aVersion, run: RunRecord) -> None:
        self._old = version == "0.3"
        self._run = run

    def task(self, now: Now, history_length: int | None = None) -> dict[str, Any]:
        """Return the run as a task, with up to *history_length* of the thread's messages; ``None`` is not to say."""
        answer = self._answer(now)
        task: dict[str, Any] = {"id": task_id(self._run), "contextId": self._run.thread_id, "status": self._status(now)}
        if answer is not None:
            task["artifacts"] = [answer]
        length = MAX_HISTORY if history_length is None else history_length
        values = self._run.stored.input if now.values is None else now.values
        if length and (said := [one for one in _messages(values) if text_of(one)]):
            task["history"] = [self._said(one) for one in said[-length:]]
        return self._kind("task", task)

    def status_update(self, now: Now, *, final: bool) -> dict[str, Any]:
        """Return the event of a new state."""
        update = {"taskId": task_id(self._run), "contextId": self._run.thread_id, "status": self._status(now)}
        return self._kind("status-update", {**update, "final": final} if self._old else update)

    def text_update(self, message_id: str, text: str, *, append: bool) -> dict[str, Any]:
        """Return the event of more text of the message *message_id*."""
        artifact = {"artifactId": message_id, "parts": [self._text(text)]}
        return self._artifact_update(artifact, append=append)

    def answer_update(self, now: Now, told: Sequence[str]) -> dict[str, Any] | None:
        """Return the event of the run's whole answer, unless its message is among *told*."""
        answer = self._answer(now)
        if answer is None or answer["artifactId"] in told:
            return None
        return self._artifact_update(answer, append=False)

    def event(self, named: str, value: dict[str, Any]) -> dict[str, Any]:
        """Return *value* as the result of a stream's (or of sending's) answer; 1.0 says *named* what it is."""
        return value if self._old else {named: value}

    def _artifact_update(self, artifact: dict[str, Any], *, append: bool) -> dict[str, Any]:
        update = {"taskId": task_id(self._run), "contextId": self._run.thread_id, "artifact": artifact}
        return self._kind("artifact-update", {**update, "append": append, "lastChunk": not append})

    def _status(self, now: Now) -> dict[str, Any]:
        state = _state(now)
        status: dict[str, Any] = {
            "state": state if self._old else f"TASK_STATE_{state.upper().replace('-', '_')}",
            "timestamp": now.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        why = _why(now)
        if why is not None:
            status["message"] = self._message("agent", f"{self._run.run_id}-status", why)
        return status

    def _answer(self, now: Now) -> dict[str, Any] | None:
        """Return the last message of the agent as an artifact; all values where there is no such message."""
        if now.status is not RunStatus.SUCCESS or now.asks:
            return None
        spoken = [one for one in _messages(now.values) if one.get("type") == "ai" and text_of(one)]
        if spoken:
            return {"artifactId": str(spoken[-1].get("id")), "parts": [self._text(text_of(spoken[-1]))]}
        data = {"kind": "data", "data": now.values} if self._old else {"data": now.values}
        return {"artifactId": self._run.run_id, "parts": [data]}

    def _said(self, message: dict[str, Any]) -> dict[str, Any]:
        role = "user" if {"human", "user"} & {message.get("type"), message.get("role")} else "agent"
        return self._message(role, str(message.get("id")), text_of(message))

    def _message(self, role: str, message_id: str, text: str) -> dict[str, Any]:
        message = {
            "role": role if self._old else f"ROLE_{role.upper()}",
            "messageId": message_id,
            "parts": [self._text(text)],
            "taskId": task_id(self._run),
            "contextId": self._run.thread_id,
        }
        return self._kind("message", message)

    def _text(self, text: str) -> dict[str, Any]:
        return self._kind("text", {"text": text})

    def _kind(self, kind: str, value: dict[str, Any]) -> dict[str, Any]:
        return {"kind": kind, **value} if self._old else value


def _messages(values: Any) -> list[dict[str, Any]]:
    found = values.get("messages") if isinstance(values, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _state(now: Now) -> str:
    if now.status is RunStatus.SUCCESS:
        return "input-required" if now.asks else "completed"
    return {
        RunStatus.PENDING: "submitted",
        RunStatus.RUNNING: "working",
        RunStatus.INTERRUPTED: "canceled",
    }.get(now.status, "failed")


def _why(now: Now) -> str | None:
    """Return what is asked, or what went wrong."""
    if _state(now) == "failed":
        return f"{now.error.error}: {now.error.message}" if now.error else f"The run ended as {now.status}."
    if _state(now) != "input-required" or not isinstance(now.values, dict):
        return None
    asked = [one.get("value") for one in now.values.get("__interrupt__") or () if isinstance(one, dict)]
    return "\n".join(one if isinstance(one, str) else orjson.dumps(one).decode() for one in asked) or None
