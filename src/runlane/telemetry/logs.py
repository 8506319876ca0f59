"""The observer that writes log lines: one per transition of a run or of its webhook, an event key and fields."""

from __future__ import annotations

import logging

from runlane.lifecycle import FAILED
from runlane.telemetry.context import SCOPE, owner_hash
from runlane.telemetry.events import (
    OfRun,
    RunFinished,
    RunLeaseLost,
    RunReleased,
    RunRescued,
    RunStarted,
    StoreOutageBegan,
    StoreOutageEnded,
    TelemetryEvent,
    WebhookAttempted,
)
from runlane.telemetry.observers import Observer, on

log = logging.getLogger("runlane.runs")


def log_transitions() -> tuple[Observer, ...]:
    """Return what logs the life of runs: transitions as INFO, what was unexpected but handled as WARNING."""
    return (
        on(RunStarted, lambda event: _write(logging.INFO, event)),
        on(RunFinished, _finished),
        on(RunReleased, lambda event: _write(logging.INFO, event)),
        on(RunRescued, lambda event: _write(logging.WARNING, event, status=event.status.value, rescues=event.rescues)),
        on(RunLeaseLost, lambda event: _write(logging.WARNING, event)),
        on(WebhookAttempted, _attempted),
        on(StoreOutageBegan, lambda event: _write_fields(logging.WARNING, event, why=event.error)),
        on(StoreOutageEnded, lambda event: _write_fields(logging.INFO, event, duration_s=round(event.duration_s, 3))),
    )


def _finished(event: RunFinished) -> None:
    scope = SCOPE.get()
    warned = scope is not None and scope.failed
    level = logging.WARNING if event.status in FAILED and not warned else logging.INFO
    if log.isEnabledFor(level):
        _write(
            level,
            event,
            status=event.status.value,
            reason=None if event.end_reason is None else event.end_reason.value,
            queued_s=round(event.queued_s, 3),
            executing_s=round(event.executing_s, 3),
            error=event.error,
        )


def _attempted(event: WebhookAttempted) -> None:
    """Log an attempt to send a webhook; one that was given up is for an operator."""
    _write_fields(
        logging.ERROR if event.outcome == "failed" else logging.INFO,
        event,
        run_id=event.run_id,
        number=event.number,
        outcome=event.outcome,
        status_code=event.status_code,
        why=event.error,
    )


def _write(level: int, event: OfRun, **fields: object) -> None:
    if log.isEnabledFor(level):
        ids = {
            "run_id": event.run_id,
            "thread_id": event.thread_id,
            "attempt": event.attempt,
            "graph": event.graph_id,
            "owner": owner_hash(event.owner),
        }
        _write_fields(level, event, **ids, **fields)


def _write_fields(level: int, event: TelemetryEvent, **fields: object) -> None:
    if log.isEnabledFor(level):
        given = {name: value for name, value in fields.items() if value is not None}
        text = " ".join(f"{name}={value}" for name, value in given.items())
        log.log(level, "%s %s", event.key, text, extra={"fields": given})
