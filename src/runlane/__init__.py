"""Runlane: a run manager for AI agents."""

from __future__ import annotations

from runlane.agents.coroutine import CoroutineAgent, RunContext
from runlane.errors import (
    AdmissionClosed,
    CancelRecorded,
    ConflictError,
    IllegalTransition,
    InvalidRequest,
    LeaseLost,
    NotFound,
    OwnerRequired,
    QueueFull,
    RunlaneError,
    StoreUnavailable,
    UnsupportedStrategyError,
)
from runlane.execution.application import ApplicationAttempt
from runlane.lifecycle import CancelAction, DisconnectMode, EndReason, MultitaskStrategy, RunStatus
from runlane.manager import RunManager
from runlane.outcomes import Drained
from runlane.records import (
    ANY_OWNER,
    CancelReceipt,
    RunError,
    RunRecord,
    StreamEnd,
    StreamEvent,
    StreamGap,
    StreamHeartbeat,
    StreamItem,
    Thread,
    Usage,
)
from runlane.requests import RunRequest
from runlane.runtime import Runtime, open_runtime
from runlane.settings import Settings
from runlane.signals import drain_on_signals
from runlane.store.ledger import RunStore
from runlane.store.retry import PersistenceRetryPolicy
from runlane.streams.bridge import StreamBridge
from runlane.streams.live import Ending

__version__ = "0.1.0"

__all__ = [
    "ANY_OWNER",
    "AdmissionClosed",
    "ApplicationAttempt",
    "CancelAction",
    "CancelReceipt",
    "CancelRecorded",
    "ConflictError",
    "CoroutineAgent",
    "DisconnectMode",
    "Drained",
    "EndReason",
    "Ending",
    "IllegalTransition",
    "InvalidRequest",
    "LeaseLost",
    "MultitaskStrategy",
    "NotFound",
    "OwnerRequired",
    "PersistenceRetryPolicy",
    "QueueFull",
    "RunContext",
    "RunError",
    "RunManager",
    "RunRecord",
    "RunRequest",
    "RunStatus",
    "RunStore",
    "RunlaneError",
    "Runtime",
    "Settings",
    "StoreUnavailable",
    "StreamBridge",
    "StreamEnd",
    "StreamEvent",
    "StreamGap",
    "StreamHeartbeat",
    "StreamItem",
    "Thread",
    "UnsupportedStrategyError",
    "Usage",
    "drain_on_signals",
    "open_runtime",
]
