"""Runlane: a run manager for AI agents."""

from __future__ import annotations

from runlane.application import ApplicationAttempt
from runlane.errors import (
    AdmissionClosed,
    ConflictError,
    IllegalTransition,
    InvalidRequest,
    LeaseLost,
    NotFound,
    QueueFull,
    RunlaneError,
    StoreUnavailable,
    UnsupportedStrategyError,
)
from runlane.lifecycle import CancelAction, DisconnectMode, EndReason, MultitaskStrategy, RunStatus
from runlane.manager import RunManager
from runlane.records import (
    ANY_OWNER,
    CancelReceipt,
    RunRecord,
    StreamEnd,
    StreamEvent,
    StreamGap,
    Thread,
    Usage,
)
from runlane.runtime import Runtime, open_runtime
from runlane.settings import Settings
from runlane.store.ledger import RunStore
from runlane.store.retry import PersistenceRetryPolicy
from runlane.streams.bridge import StreamBridge

__version__ = "0.1.0"

__all__ = [
    "ANY_OWNER",
    "AdmissionClosed",
    "ApplicationAttempt",
    "CancelAction",
    "CancelReceipt",
    "ConflictError",
    "DisconnectMode",
    "EndReason",
    "IllegalTransition",
    "InvalidRequest",
    "LeaseLost",
    "MultitaskStrategy",
    "NotFound",
    "PersistenceRetryPolicy",
    "QueueFull",
    "RunManager",
    "RunRecord",
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
    "Thread",
    "UnsupportedStrategyError",
    "Usage",
    "open_runtime",
]
