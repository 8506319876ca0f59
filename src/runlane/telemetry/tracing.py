"""Spans of runs and of their attempts, for OpenTelemetry. Imported only if traces are on.

The ids of these spans are made of the run's id and the attempt's number, so that every process can name the span of a
run without asking: the process that ends a run writes its span, and one that rescues a run writes the span of the
attempt that its dead worker could not.

Source: OpenTelemetry Semantic Conventions 1.41.0, GenAI agent spans; W3C Trace Context, level 1.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from importlib.metadata import version
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from runlane.lifecycle import FAILED
from runlane.telemetry.context import owner_hash
from runlane.telemetry.events import (
    CancelObserved,
    OfRun,
    RunClaimed,
    RunFinished,
    RunLeaseLost,
    RunReleased,
    RunRescued,
)
from runlane.telemetry.observers import Observer, on

#: The version of the semantic conventions that the names of attributes are from.
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.0"
#: Source: W3C Trace Context, level 1, version 00.
TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
#: The ids of the span that is being made: of its trace, and its own.
_IDS: Final[ContextVar[tuple[int, int] | None]] = ContextVar("runlane_span_ids", default=None)

Attributes = Mapping[str, str | int | bool | Sequence[str]]


class RunIds(RandomIdGenerator):
    """Gives spans of runs the ids that follow from their runs, and random ones to all others."""

    def generate_span_id(self) -> int:
        ids = _IDS.get()
        return super().generate_span_id() if ids is None else ids[1]

    def generate_trace_id(self) -> int:
        ids = _IDS.get()
        return super().generate_trace_id() if ids is None else ids[0]


def new_provider(exporter: SpanExporter | None = None) -> TracerProvider:
    """Return what sends spans to *exporter*; by default by OTLP, as the variables ``OTEL_*`` of the process say."""
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {SERVICE_NAME: "runlane"})
    provider = TracerProvider(resource=resource, id_generator=RunIds(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
    return provider


class RunTracer:
    """Makes the spans of runs from events of telemetry: ``observers``."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self.tracer = provider.get_tracer("runlane", version("runlane"), schema_url=SCHEMA_URL)
        self._attempts: dict[tuple[str, int], Span] = {}
        self.observers: tuple[Observer, ...] = (
            on(RunClaimed, self._claimed),
            on(CancelObserved, self._cancel_observed),
            on(RunReleased, self._released),
            on(RunLeaseLost, self._lost),
            on(RunRescued, self._rescued),
            on(RunFinished, self._finished),
        )

    def attempt(self, run_id: str, attempt: int) -> Context:
        """Return the context in which the attempt's code makes spans; without one if it is not traced."""
        span = self._attempts.get((run_id, attempt))
        return Context() if span is None else trace.set_span_in_context(span, Context())

    def resumes(self, run_id: str, attempt: int, *, earlier: str, traceparent: str | None) -> None:
        """Link the attempt to the run *earlier*, whose questions it answers."""
        span = self._attempts.get((run_id, attempt))
        if span is not None:
            link = self._run_context(earlier, traceparent)
            span.add_link(link, {"runlane.link": "resumes", "runlane.run.id": earlier})

    def serve_process(self) -> None:
        """Send the spans of all code of this process, if nothing else does: those that graphs make by themselves."""
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(self._provider)

    def close(self) -> None:
        """Send what is left. Blocks."""
        self._provider.shutdown()

    def _claimed(self, event: RunClaimed) -> None:
        now, parent = time.time_ns(), self._run_context(event.run_id, event.traceparent)
        if event.queued_s is not None:
            began = now - int(event.queued_s * 1e9)
            self.tracer.start_span("queue", _within(parent), start_time=began).end(now)
        self._attempts[event.run_id, event.attempt] = self._start_attempt(event, parent, now)

    def _start_attempt(self, event: OfRun, parent: SpanContext, began: int) -> Span:
        agent, links = event.graph_id or "agent", []
        if event.attempt > 1:
            earlier = SpanContext(parent.trace_id, _attempt_id(event.run_id, event.attempt - 1), is_remote=True)
            links.append(Link(earlier, {"runlane.link": "continues"}))
        attributes = {
            **_attributes(event),
            "gen_ai.operation.name": "invoke_agent",
            "runlane.attempt": event.attempt,
        }
        ids = parent.trace_id, _attempt_id(event.run_id, event.attempt)
        return self._start(f"invoke_agent {agent}", ids, _within(parent), began, attributes, links)

    def _cancel_observed(self, event: CancelObserved) -> None:
        span = self._attempts.get((event.run_id, event.attempt))
        if span is not None:
            span.add_event("runlane.cancel_observed", {"runlane.cancel.action": event.action.value})

    def _released(self, event: RunReleased) -> None:
        span = self._attempts.pop((event.run_id, event.attempt), None)
        if span is not None:
            span.set_attribute("runlane.attempt.end", "released")
            span.end()

    def _lost(self, event: RunLeaseLost) -> None:
        """Leave the span to the process that took the run."""
        self._attempts.pop((event.run_id, event.attempt), None)

    def _rescued(self, event: RunRescued) -> None:
        now, parent = time.time_ns(), self._run_context(event.run_id, event.traceparent)
        span = self._start_attempt(event, parent, now if event.began_at is None else _ns(event.began_at))
        span.set_attribute("runlane.attempt.end", "worker_lost")
        span.set_attribute("error.type", "WorkerLost")
        span.set_status(Status(StatusCode.ERROR, "worker lost"))
        span.end(now)

    def _finished(self, event: RunFinished) -> None:
        now, reason = time.time_ns(), event.end_reason
        attempt = self._attempts.pop((event.run_id, event.attempt), None)
        parent = _parent(event.traceparent)
        ids = self._ids(event.run_id, event.traceparent)
        attributes = {
            **_attributes(event),
            "runlane.run.attempts": event.attempt,
            "runlane.run.rescues": event.rescues,
            "gen_ai.usage.input_tokens": event.usage.input_tokens,
            "gen_ai.usage.output_tokens": event.usage.output_tokens,
        }
        context = Context() if parent is None else _within(parent)
        name = f"run {event.graph_id}" if event.graph_id else "run"
        run = self._start(name, ids, context, _ns(event.admitted_at), attributes, kind=SpanKind.CONSUMER)
        if attempt is not None:
            attempt.set_attribute("runlane.attempt.end", event.status.value)
        for span in (attempt, run):
            if span is None:
                continue
            span.set_attribute("runlane.run.status", event.status.value)
            if reason is not None:
                span.set_attribute("runlane.run.end_reason", reason.value)
            if event.status in FAILED:
                error = event.error or event.status.value
                span.set_attribute("error.type", error)
                span.set_status(Status(StatusCode.ERROR, error))
            span.end(now)

    def _start(
        self,
        name: str,
        ids: tuple[int, int],
        context: Context,
        began: int,
        attributes: Attributes,
        links: Sequence[Link] = (),
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Span:
        token = _IDS.set(ids)
        try:
            return self.tracer.start_span(
                name, context, kind=kind, start_time=began, attributes=dict(attributes), links=links
            )
        finally:
            _IDS.reset(token)

    def _ids(self, run_id: str, traceparent: str | None) -> tuple[int, int]:
        parent = _parent(traceparent)
        return _number(f"trace/{run_id}", 16) if parent is None else parent.trace_id, _number(f"run/{run_id}", 8)

    def _run_context(self, run_id: str, traceparent: str | None) -> SpanContext:
        """Return the context of the run's span, sampled as that will be: samplers decide by the trace's id."""
        parent, ids = _parent(traceparent), self._ids(run_id, traceparent)
        context = None if parent is None else _within(parent)
        decision = self._provider.sampler.should_sample(context, ids[0], "run").decision
        flags = TraceFlags(TraceFlags.SAMPLED if decision is Decision.RECORD_AND_SAMPLE else TraceFlags.DEFAULT)
        return SpanContext(*ids, is_remote=True, trace_flags=flags)


def _attributes(event: OfRun) -> dict[str, str | int]:
    found: dict[str, str | int | None] = {
        "runlane.run.id": event.run_id,
        "gen_ai.conversation.id": event.thread_id,
        "gen_ai.agent.name": event.graph_id,
        "runlane.owner": owner_hash(event.owner),
    }
    return {name: value for name, value in found.items() if value is not None}


def _parent(traceparent: str | None) -> SpanContext | None:
    match = TRACEPARENT.fullmatch(traceparent or "")
    if match is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in match.groups())
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))


def _within(parent: SpanContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def _attempt_id(run_id: str, attempt: int) -> int:
    return _number(f"attempt/{run_id}/{attempt}", 8)


def _number(text: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:size], "big")


def _ns(instant: datetime) -> int:
    return int(instant.timestamp() * 1_000_000) * 1000
