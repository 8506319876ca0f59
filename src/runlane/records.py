"""Frozen values that cross module borders. Instants are aware UTC; durations carry their unit in the name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypedDict

import msgspec

from runlane.documents.document import Document
from runlane.documents.json_text import document_of_text
from runlane.lifecycle import (
    CancelAction,
    CancelSource,
    DisconnectMode,
    EndReason,
    MultitaskStrategy,
    RunStatus,
    ThreadStatus,
)
from runlane.requests import NO_ORIGIN, RunOrigin, RunRequest, StoredRequest

Json = Mapping[str, Any]


class AnyOwner:
    """The explicit bypass of tenancy: rows of every owner."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ANY_OWNER"


ANY_OWNER: Final = AnyOwner()

#: Whose rows a call may see: an owner's id, or every owner's. ``""`` is the owner of a single-tenant application.
Owner = str | AnyOwner
NO_OWNER: Final = ""


_COUNTS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "llm_calls",
    "cached_input_tokens",
    "lead_agent_tokens",
    "subagent_tokens",
    "middleware_tokens",
    "message_count",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens and messages of a run, or of a thread. ``by_model`` has the five token and call counts per model name."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    llm_calls: int = 0
    cached_input_tokens: int = 0
    lead_agent_tokens: int = 0
    subagent_tokens: int = 0
    middleware_tokens: int = 0
    message_count: int = 0
    by_model: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    first_human_message: str | None = None
    last_ai_message: str | None = None

    def __add__(self, later: Usage) -> Usage:
        """Return the sum: counts are added, the first human message and the last AI message are kept."""
        sums = {name: getattr(self, name) + getattr(later, name) for name in _COUNTS}
        by_model = {name: dict(counts) for name, counts in self.by_model.items()}
        for model, counts in later.by_model.items():
            mine = by_model.setdefault(model, {})
            for name, count in counts.items():
                mine[name] = mine.get(name, 0) + count
        return Usage(
            **sums,
            by_model=by_model,
            first_human_message=later.first_human_message
            if self.first_human_message is None
            else self.first_human_message,
            last_ai_message=self.last_ai_message if later.last_ai_message is None else later.last_ai_message,
        )


class Counters(TypedDict, total=False):
    """Arguments that record what a run used: fields of :class:`Usage`; ``None`` leaves a field as it is.

    The last three are other spellings, of ``input_tokens``, ``output_tokens`` and ``llm_calls``.
    """

    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    llm_calls: int | None
    cached_input_tokens: int | None
    lead_agent_tokens: int | None
    subagent_tokens: int | None
    middleware_tokens: int | None
    message_count: int | None
    by_model: Mapping[str, Mapping[str, int]] | None
    first_human_message: str | None
    last_ai_message: str | None
    total_input_tokens: int | None
    total_output_tokens: int | None
    llm_call_count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelReceipt:
    """The receipt of a cancel. ``stopped_at`` is set only once the run's code has really stopped.

    ``blocked_at`` names the place (``file:line function``) of code that ignored the cancel and was abandoned; its
    later writes are fenced. ``source`` is ``None`` if an earlier version recorded the cancel.
    """

    run_id: str
    action: CancelAction
    reason: EndReason
    requested_by: str | None
    requested_at: datetime
    observed_at: datetime | None = None
    stopped_at: datetime | None = None
    blocked_at: str | None = None
    source: CancelSource | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunError:
    """The error of a run: the exception's class name and a text that is safe to show."""

    error: str
    message: str


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One run, as the ledger has it.

    ``seq`` orders all runs by admission, ``start_order`` those of a thread by their starts; ``attempt`` counts
    claims and is the fencing token; ``rescues`` counts lost workers. ``metadata`` is the caller's. ``home`` is the
    worker in whose process the run's code lives; ``None``: every worker that has its graph can execute it.
    """

    run_id: str
    thread_id: str
    owner: str
    seq: int
    assistant_id: str | None
    graph_id: str | None
    status: RunStatus
    end_reason: EndReason | None
    attempt: int
    rescues: int
    worker_id: str | None
    multitask_strategy: MultitaskStrategy
    on_disconnect: DisconnectMode
    metadata: Json
    stored: StoredRequest
    model_name: str | None
    error: RunError | None
    cancel: CancelReceipt | None
    usage: Usage
    temporary: bool
    not_before: datetime
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    webhook: str | None = None
    start_order: int | None = None
    home: str | None = None

    @property
    def request(self) -> RunRequest:
        """The request of the run."""
        return self.stored.request

    @property
    def kwargs(self) -> Json:
        """The same by name, as it was given."""
        return self.stored.given


#: ``delete`` removes a thread with all that it has, ``keep_latest`` only the checkpoints that its newest do without.
PruneStrategy = Literal["delete", "keep_latest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadTtl:
    """The expiry of a thread, *ttl_s* after its last change, and its strategy."""

    ttl_s: float
    strategy: PruneStrategy = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """One thread. ``values``, ``interrupts`` and ``error`` are those of its last finished run, already JSON values.

    ``values`` is ``None`` too if they were not asked for.

    ``state_order`` is the place, among the starts of its runs, of the last state that was written outside of a run.
    """

    thread_id: str
    owner: str
    status: ThreadStatus
    metadata: Json
    config: Json
    values: Any | None
    interrupts: Mapping[str, Any]
    error: RunError | None
    created_at: datetime
    updated_at: datetime
    state_updated_at: datetime
    ttl: ThreadTtl | None = None
    state_order: int = 0

    @property
    def expires_at(self) -> datetime | None:
        """When it expires if nothing happens on it until then; ``None``: never."""
        return None if self.ttl is None else self.updated_at + timedelta(seconds=self.ttl.ttl_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assistant:
    """A configured graph; every change makes a new version."""

    assistant_id: str
    owner: str
    graph_id: str
    name: str
    description: str | None
    config: Json
    context: Json
    metadata: Json
    version: int
    created_at: datetime
    updated_at: datetime


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The right of one attempt to write a run. Every write of an attempt repeats ``(run_id, attempt)`` as its guard."""

    run_id: str
    thread_id: str
    seq: int
    worker_id: str
    attempt: int


class StreamEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event of a run's stream; a struct, which is made in a tenth of the time, as there is one per token.

    ``seq`` is the event's number in its run's log, from 1, strictly increasing. ``data`` is JSON text, serialised once.
    """

    seq: int
    name: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskWrites:
    """One batch of pending writes of a graph's task, and the owner; ``run_id`` may be empty."""

    run_id: str
    task_id: str
    task_path: str
    writes: Sequence[tuple[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamGap:
    """Events after the reader's cursor were removed by retention; reading goes on at ``resumes_at``."""

    resumes_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnd:
    """The one last item of a stream. ``seq`` follows the last event's."""

    seq: int
    status: RunStatus
    end_reason: EndReason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHeartbeat:
    """Nothing happened on a stream for ``heartbeat_s``: something to send, so that a broken connection is noticed."""


#: Metadata that says which run something is of, so that it is not passed on.
OF_ONE_RUN: Final = frozenset({"run_id", "cron_id", "retry_of"})


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run to be admitted; ``webhook`` is the URL that is told of its end, ``home`` as in :class:`RunRecord`.

    ``create_thread`` makes a missing thread; ``delay_s`` postpones the start; ``idempotency_key`` makes a repeated
    admission answer the first one's run. An existing thread has to be one of ``thread_owner`` (``None``: of *owner*),
    and its metadata to match the filter ``thread_where``; interrupts that the request answers have to be open there.
    With ``default_metadata``, which comes first, the run inherits the thread's metadata. ``thread_metadata`` is written
    to the thread; ``thread_ttl`` is that of a thread that is made. Somebody waits for the stream of a ``streamed`` run.
    ``large_input`` is set by :meth:`split`.
    """

    run_id: str
    thread_id: str
    owner: str
    assistant_id: str | None = None
    multitask_strategy: MultitaskStrategy
    on_disconnect: DisconnectMode = DisconnectMode.CANCEL
    metadata: Json = msgspec.field(default_factory=dict)
    default_metadata: Json | None = None
    request: RunRequest = msgspec.field(default_factory=RunRequest)
    origin: RunOrigin = NO_ORIGIN
    model_name: str | None = None
    create_thread: bool = True
    thread_metadata: Json = msgspec.field(default_factory=dict)
    thread_ttl: ThreadTtl | None = None
    temporary: bool = False
    delay_s: float = 0.0
    streamed: bool = False
    thread_owner: Owner | None = None
    thread_where: Json | None = None
    webhook: str | None = None
    idempotency_key: str | None = None
    home: str | None = None
    large_input: Document | None = None

    def split(self) -> NewRun:
        """Return the same with its input as a document if it is large, so that the thread's other values share it."""
        document = document_of_text(bytes(self.request.input))
        return self if document is None else msgspec.structs.replace(self, large_input=document)


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The run at the head of its thread's lane, and what it is counted by when slots are shared."""

    run_id: str
    seq: int
    owner: str
    assistant_id: str | None
    graph_id: str | None
    home: str | None = None

    @classmethod
    def of(cls, run: RunRecord) -> Head:
        """Return *run* as the head of its lane."""
        return cls(
            run_id=run.run_id,
            seq=run.seq,
            owner=run.owner,
            assistant_id=run.assistant_id,
            graph_id=run.graph_id,
            home=run.home,
        )

    @classmethod
    def of_new(cls, new: NewRun) -> Head:
        """Return *new*, which is being admitted, as the head that it may be; its place is not known yet."""
        return cls(
            run_id=new.run_id,
            seq=0,
            owner=new.owner,
            assistant_id=new.assistant_id,
            graph_id=new.request.graph_id,
            home=new.home,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingOn:
    """Why a run is pending: until an instant, behind a run of its thread, or for a free slot of a worker."""

    reason: Literal["delay", "run", "slots"]
    until: datetime | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """The result of :meth:`RunStore.runs.request_cancel`: the run now, and the lane's next run if it may start.

    ``ended`` says that the run, which had not started, ended by this cancel.
    """

    run: RunRecord
    ended: bool = False
    next_run: Head | None = None


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A claimed run: the record, the right to write it, and the number of its last event so far.

    ``start`` is that event, if it tells of the attempt's start and was committed with the claim. ``bare`` says that
    clients may look at its thread, and see no values there yet. ``parts_epoch`` changes whenever parts of the thread
    were removed.
    """

    run: RunRecord
    lease: Lease
    events_end: int
    start: StreamEvent | None = None
    bare: bool = False
    parts_epoch: str | None = None


class Claimant(msgspec.Struct, frozen=True, kw_only=True):
    """The worker that claims a run, for how long, and whether it has the run's own code.

    Without that code it can only claim a run that has no home. Runs of graphs in ``pinned`` go on in its ``build``
    only.
    """

    worker_id: str
    lease_s: float
    has_code: bool
    build: str = ""
    pinned: tuple[str, ...] = ()


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """An admitted run as it was admitted, whether it may be claimed now, and what was asked of the runs before it.

    ``claim`` is set if the worker for which it was admitted has claimed it at once.
    """

    run: RunRecord
    runnable: bool
    reused: bool = False
    cancelled: tuple[Cancelled, ...] = ()
    claim: Claim | None = None


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger's answer to the end of an attempt: the run, and the run of its lane that may be claimed now.

    Attributes:
        events_end: The number of the run's last event; ``None`` if that is not known.
        result: What waiters of the run are answered, as JSON text.
    """

    run: RunRecord
    next_run: Head | None
    events_end: int | None = None
    result: bytes | None = None


StreamItem = StreamEvent | StreamGap | StreamEnd

Order = Literal["asc", "desc"]
