"""The spans of what an attempt's code does. Imported only if traces are on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from opentelemetry.context import attach

from runlane.agents.spans import SpanCallback
from runlane.records import ANY_OWNER, RunRecord
from runlane.store.ledger import RunStore
from runlane.telemetry.tracing import RunTracer

#: Runs of a thread, the newest first, among which the one that asked is looked for; others may wait behind its answer.
LOOK_BACK: Final = 100


class AttemptSpans:
    """Makes what watches the code of attempts."""

    def __init__(self, tracer: RunTracer, store: RunStore, *, payloads: bool) -> None:
        """Args:
        payloads: Spans have prompts, answers, and arguments and results of tools.
        """
        self._tracer = tracer
        self._store = store
        self._payloads = payloads

    async def __call__(self, run: RunRecord, redact: Callable[[str], str]) -> SpanCallback:
        """Make the attempt's span that of the running task, and return what makes spans within it."""
        context = self._tracer.attempt(run.run_id, run.attempt)
        attach(context)  # the task is the attempt's own
        if run.attempt == 1 and (run.request.command or {}).get("resume") is not None:
            await self._link(run)
        return SpanCallback(self._tracer.tracer, context, redact=redact if self._payloads else None)

    async def _link(self, run: RunRecord) -> None:
        """Link the attempt to the run of its thread that started before."""
        found = await self._store.runs.list(run.thread_id, owner=ANY_OWNER, limit=LOOK_BACK)
        before = [each for each in found if 0 < (each.start_order or 0) < (run.start_order or 0)]
        if before:
            last = max(before, key=lambda each: each.start_order or 0)
            traceparent = last.stored.traceparent
            self._tracer.resumes(run.run_id, run.attempt, earlier=last.run_id, traceparent=traceparent)
