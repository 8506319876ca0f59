"""The shapes of what the server answers, for its OpenAPI document: clients that are generated from it are typed.

The shapes are made elsewhere, by ``responses`` and the routes; tests check every answer against these. A class whose
name a record has too begins with ``Wire``; its component in the document does not.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from runlane.lifecycle import CancelAction, CancelSource, EndReason, MultitaskStrategy, RunStatus, ThreadStatus
from runlane.records import PruneStrategy, RunError, Usage
from runlane.server.http.requests import Object, StreamMode
from runlane.store.transactions.crons import Missed, Overlap
from runlane.store.transactions.webhooks import DeliveryStatus

Count = Annotated[int, msgspec.Meta(ge=0)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class WireObject(msgspec.Struct, kw_only=True):
    """A JSON object that is answered."""


class Event(WireObject):
    """A server-sent event of a stream; ``data`` is JSON text. Source: the HTML standard, server-sent events."""

    event: str
    data: str
    id: str | None = None


class LoggedEvent(WireObject):
    """An event of a run's stream. Its ``id`` is the same wherever the event is sent."""

    run_id: str
    id: str
    event: str
    data: Any


class LogRecord(WireObject):
    """What the code of a run logged, without secrets. Its ``id`` is its attempt and its number there."""

    id: str
    attempt: Count
    number: Count
    at: Instant
    level: str
    logger: str
    text: str
    exception: str | None


class WireAssistant(WireObject):
    assistant_id: str
    graph_id: str
    config: Object
    context: Object
    metadata: Object
    name: str
    description: str | None
    version: int
    created_at: Instant
    updated_at: Instant


class GraphNode(WireObject):
    id: str | int
    type: str
    data: Object
    metadata: Object | None = None


class GraphEdge(WireObject):
    source: str | int
    target: str | int
    conditional: bool = False
    data: str | None = None


class GraphDrawing(WireObject):
    nodes: list[GraphNode]
    edges: list[GraphEdge]


class SubgraphSchemas(WireObject):
    """JSON Schemas; ``null`` if there is none."""

    input_schema: Object | None
    output_schema: Object | None
    state_schema: Object | None
    config_schema: Object | None
    context_schema: Object | None


class GraphSchemas(SubgraphSchemas):
    graph_id: str


class Interrupt(WireObject):
    """A question that the graph asks; ``response_schema`` is the JSON Schema of its answer, if the graph gives one."""

    id: str
    value: Any
    response_schema: Object | None = None


class OpenInterrupt(Interrupt, kw_only=True):
    task_id: str


class AskingThread(WireObject):
    """A thread whose graph waits for answers; ``run_id`` is of the run that asked."""

    thread_id: str
    owner: str
    run_id: str | None
    graph_id: str | None
    metadata: Object
    since: Instant
    interrupts: list[OpenInterrupt]


class WireThreadTtl(WireObject):
    strategy: PruneStrategy
    ttl_minutes: float
    expires_at: Instant | None


class WireThread(WireObject):
    thread_id: str
    created_at: Instant
    updated_at: Instant
    state_updated_at: Instant
    metadata: Object
    status: ThreadStatus
    config: Object
    values: Any
    interrupts: dict[str, list[Interrupt]]
    error: RunError | None
    #: With ``include=ttl``.
    ttl: WireThreadTtl | None = None
    #: Of a search with ``extract``.
    extracted: Object = {}
    #: Of a search that selects it.
    owner: str = ""


class Checkpoint(WireObject):
    thread_id: str
    checkpoint_ns: str = ""
    checkpoint_id: str | None = None
    checkpoint_map: Object | None = None


class ThreadTask(WireObject):
    id: str
    name: str
    path: list[Any]
    error: str | None
    interrupts: list[Interrupt]
    checkpoint: Checkpoint | None
    state: WireThreadState | None
    result: Any


class WireThreadState(WireObject):
    values: Any
    next: list[str]
    tasks: list[ThreadTask]
    metadata: Object | None
    created_at: Instant | None
    checkpoint: Checkpoint | None
    parent_checkpoint: Checkpoint | None
    interrupts: list[Interrupt]
    checkpoint_id: str | None
    parent_checkpoint_id: str | None


class StateUpdated(WireObject):
    checkpoint: Checkpoint
    configurable: Checkpoint
    checkpoint_id: str | None


class Pruned(WireObject):
    pruned_count: Count
    busy: list[str]


class WireSize(WireObject):
    count: Count
    bytes: Count


class ChannelSizes(WireSize):
    by_channel: dict[str, WireSize]


class ThreadStorage(WireObject):
    thread_id: str
    total_bytes: Count
    checkpoints: WireSize
    channel_values: ChannelSizes
    pending_writes: WireSize
    runs: WireSize
    events: WireSize
    logs: WireSize
    parts: WireSize


class RunKwargs(WireObject):
    """The request of a run."""

    input: Any
    command: Object | None
    config: Object
    context: Object
    stream_mode: list[StreamMode] | None
    interrupt_before: Literal["*"] | list[str] | None
    interrupt_after: Literal["*"] | list[str] | None
    webhook: str | None
    feedback_keys: list[str] | None
    temporary: bool
    subgraphs: bool
    resumable: bool
    checkpoint_during: bool
    durability: Literal["sync", "async", "exit"]


class Receipt(WireObject):
    """The receipt of a cancel; ``stopped_at`` is set once the run's code has stopped."""

    action: CancelAction
    reason: EndReason
    requested_by: str | None
    source: CancelSource | None
    requested_at: Instant
    observed_at: Instant | None
    stopped_at: Instant | None
    blocked_at: str | None


class WireWaitingOn(WireObject):
    """Why a pending run has not begun."""

    reason: str
    run_id: str | None = None
    until: Instant | None = None


class Run(WireObject):
    run_id: str
    thread_id: str
    assistant_id: str | None
    metadata: Object
    status: RunStatus
    kwargs: RunKwargs
    multitask_strategy: MultitaskStrategy
    created_at: Instant
    updated_at: Instant
    end_reason: EndReason | None
    error: RunError | None
    attempt: Count
    model_name: str | None
    cancel: Receipt | None
    cancel_reason: EndReason | None
    usage: Usage
    started_at: Instant | None
    ended_at: Instant | None
    #: Of runs that are read, not of one that was just created.
    waiting_on: WireWaitingOn | None = None
    #: The same, by the prices that hold now; null, and by model nothing, of models that have none.
    cost: float | None = None
    cost_by_model: dict[str, float] = {}


class WireRunSummary(WireObject):
    """A run of a search: without its request, which can be large and is somebody's."""

    run_id: str
    thread_id: str
    owner: str
    assistant_id: str | None
    graph_id: str | None
    status: RunStatus
    end_reason: EndReason | None
    error: RunError | None
    attempt: Count
    rescues: Count
    worker_id: str | None
    build: str | None
    metadata: Object
    model_name: str | None
    usage: Usage
    #: By the prices that hold now; null if no model of the run has one.
    cost: float | None
    cancel: Receipt | None
    waiting_on: WireWaitingOn | None
    created_at: Instant
    updated_at: Instant
    started_at: Instant | None
    ended_at: Instant | None


class WireCron(WireObject):
    cron_id: str
    assistant_id: str
    thread_id: str | None
    user_id: str
    schedule: str
    timezone: str | None
    end_time: Instant | None
    payload: Object
    metadata: Object
    on_run_completed: Literal["delete", "keep"] | None
    missed: Missed
    overlap: Overlap
    enabled: bool
    next_run_date: Instant | None
    next_slots: list[Instant]
    late_s: float | None
    last_run_date: Instant | None
    last_run_id: str | None
    recent_run_ids: list[str]
    error: RunError | None
    created_at: Instant
    updated_at: Instant


class StoreItem(WireObject):
    namespace: list[str]
    key: str
    value: Object
    created_at: Instant
    updated_at: Instant


class FoundItem(StoreItem):
    score: float | None


class FoundItems(WireObject):
    items: list[FoundItem]


class Namespaces(WireObject):
    namespaces: list[list[str]]


class WireDelivery(WireObject):
    run_id: str
    thread_id: str
    url: str
    status: DeliveryStatus
    attempts: Count
    next_attempt_at: Instant | None
    created_at: Instant
    ended_at: Instant | None


class DeliveryAttempt(WireObject):
    number: Count
    sent_at: Instant
    duration_s: float
    status_code: int | None
    error: str | None


class DeliveryWithHistory(WireDelivery):
    history: list[DeliveryAttempt]


class CommandAnswer(WireObject):
    """The result of a command of the streaming protocol."""

    type: Literal["success", "error"]
    id: int
    result: Any = None
    meta: Object = {}
    error: str = ""
    message: str = ""


class RpcAnswer(WireObject):
    """An answer of JSON-RPC 2.0: a result or an error."""

    jsonrpc: Literal["2.0"]
    id: int | str | None
    result: Any = None
    error: Object = {}


class AgentCard(WireObject, rename="camel"):
    """Interfaces of an agent. Source: Agent2Agent protocol, versions 0.3.0 and 1.0."""

    name: str
    description: str
    version: str
    url: str
    preferred_transport: str
    protocol_version: str
    supported_interfaces: list[Object]
    provider: Object
    capabilities: Object
    default_input_modes: list[str]
    default_output_modes: list[str]
    skills: list[Object]


class Health(WireObject):
    ok: bool
    services: dict[str, Literal["healthy", "unhealthy", "skipped"]]


class QueueNumbers(WireObject):
    n_pending: Count
    n_running: Count
    pending_runs_wait_time_max_secs: float | None
    pending_runs_wait_time_med_secs: float | None
    pending_unblocked_runs_wait_time_max_secs: float | None


class WorkerNumbers(WireObject):
    max: Count
    active: Count
    available: Count


class StorageNumbers(WireObject):
    database_bytes: Count
    free_bytes: Count
    log_bytes: Count
    tables: dict[str, Count]
    tables_measured_at: datetime | None


class Numbers(WireObject):
    """Metrics of the process, with ``format=json``; ``api`` has the requests by status."""

    queue: QueueNumbers
    api: dict[str, dict[str, Count]]
    workers: WorkerNumbers
    storage: StorageNumbers


class Info(WireObject):
    version: str
    langgraph_py_version: str
    flags: dict[str, bool]
    host: dict[str, str | None]
