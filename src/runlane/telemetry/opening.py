"""The telemetry of a runtime: log records, the application's observers and, if the settings say so, traces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from runlane.extras import needs_extra
from runlane.settings import Settings
from runlane.telemetry.emitter import Telemetry
from runlane.telemetry.logs import log_transitions
from runlane.telemetry.observers import Observer


@asynccontextmanager
async def open_telemetry(settings: Settings, observers: Iterable[Observer]) -> AsyncIterator[Telemetry]:
    """Give what tells *observers* of events; spans that are left are sent at the end.

    Raises:
        ConfigurationError: Traces are on, and their packages are not installed.
    """
    observers = (*log_transitions(), *observers)
    if not settings.traces:
        yield Telemetry(observers)
        return
    with needs_extra("otel", "Tracing"):
        from runlane.telemetry.tracing import RunTracer, new_provider  # noqa: PLC0415  # an extra
    tracer = RunTracer(new_provider())
    try:
        yield Telemetry(observers, tracer)
    finally:
        await asyncio.get_running_loop().run_in_executor(None, tracer.close)
