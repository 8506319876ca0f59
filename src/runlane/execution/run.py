"""The first step of an attempt: prepare the agent, run it, and say what came of it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from runlane.agents.base import Agent, AgentCall, Emit
from runlane.agents.documents import JsonDocuments
from runlane.agents.host import AgentHost
from runlane.documents.document import Document, Encoded
from runlane.documents.memory import ThreadMemory
from runlane.error_texts import ErrorTexts
from runlane.errors import WorkerLost
from runlane.execution.attempt import Attempt
from runlane.execution.decision import rescue_limit
from runlane.execution.ports import AgentSource, AttemptCheckpointer, Checkpointer, Meter, NewMeter, NewSpans
from runlane.execution.progress import NewestValue, first_values, usage_progress
from runlane.journal.journal import AttemptJournal
from runlane.outcomes import Abandoned, Drained, Snapshot
from runlane.records import RunRecord, Usage
from runlane.redaction import RunSecrets, redact_text, shortened
from runlane.settings import Settings
from runlane.store.ledger import RunStore
from runlane.store.transactions.events import start_event
from runlane.streams.bridge import Feed
from runlane.telemetry.context import SCOPE
from runlane.telemetry.emitter import SILENT, Telemetry

#: Characters of the one line that says why a run failed; the traceback has the rest.
MAX_CAUSE: Final = 500

log = logging.getLogger("runlane.execution")


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an attempt's code, of which each step makes a copy that knows more.

    Attributes:
        agent: ``None`` if there was none to be had; ``call`` is what it was called with.
        snapshot: What the agent returned; ``None`` if it failed, as ``failure`` says.
        continuable: Whether another attempt may go on: the agent can, or it was not begun.
        once: The agent was begun, and must not be executed again.
        usage: What the run has used in all; ``None`` if nothing was counted.
        redact: Takes the run's secrets out of a text.
    """

    agent: Agent | None = None
    call: AgentCall | None = None
    snapshot: Snapshot | None = None
    failure: BaseException | None = None
    continuable: bool = True
    once: bool = False
    usage: Usage | None = None
    redact: Callable[[str], str]

    @property
    def paused(self) -> bool:
        return self.snapshot is not None and self.snapshot.paused

    @property
    def saver(self) -> AttemptCheckpointer | None:
        return None if self.call is None else self.call.saver


class AgentRunner:
    """Runs the agents of attempts, each to its end, whatever that is."""

    def __init__(
        self,
        *,
        store: RunStore,
        host: AgentHost,
        source: AgentSource,
        settings: Settings,
        errors: ErrorTexts,
        saver: Checkpointer | None = None,
        long_term_store: Callable[[str], Any] | None = None,
        new_meter: NewMeter | None = None,
        new_spans: NewSpans | None = None,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._store = store
        self._host = host
        self._source = source
        self._settings = settings
        self._errors = errors
        self._saver = saver
        self._long_term_store = long_term_store
        self._new_meter = new_meter
        self._new_spans = new_spans
        self._telemetry = telemetry

    async def run(self, attempt: Attempt, journal: AttemptJournal, feed: Feed, memory: ThreadMemory) -> Ran:
        """Run the attempt's agent, and close its journal: what the agent wrote is committed, or part of the ending.

        Args:
            memory: What is known of the thread's large values.

        Raises:
            LeaseLost: The journal lost the attempt's lease.
        """
        claim = attempt.claim
        ran = Ran(redact=redact_text)
        progress = usage_progress(self._store, claim)
        values = first_values(self._store, claim) if claim.bare else None
        try:
            configured = claim.run.stored.configurations
            ran = replace(ran, redact=RunSecrets(configured).out_of_text)
            secrets = RunSecrets(configured, self._source.private(claim.run))
            ran = replace(ran, redact=secrets.out_of_text)
            _redact_log(secrets)
            meter = None if self._new_meter is None else self._new_meter(progress.put)
            ran = replace(ran, call=self._call(attempt, journal, feed, secrets, meter, values, memory))
            ran = await self._traced(attempt, journal, ran)
            ran = replace(ran, usage=_total(claim.run.usage, meter))
        except Exception as error:  # noqa: BLE001 - what the run needs cannot be had: that is how it ends
            ran = replace(ran, failure=error)
        finally:
            await progress.aclose()
            if values is not None:
                await values.aclose()
        await journal.close()
        if journal.failure is not None:
            return replace(ran, failure=journal.failure)
        _log_failure(claim.run.run_id, ran)
        return ran

    async def _traced(self, attempt: Attempt, journal: AttemptJournal, ran: Ran) -> Ran:
        """Execute as :meth:`_executed` does, with spans if traces are on."""
        if self._new_spans is None or ran.call is None or not ran.call.callbacks:
            return await self._executed(attempt, journal, ran)
        spans = await self._new_spans(attempt.claim.run, ran.redact)
        call = dataclasses.replace(ran.call, callbacks=(*ran.call.callbacks, spans))
        try:
            return await self._executed(attempt, journal, replace(ran, call=call))
        finally:
            spans.close()

    def _call(
        self,
        attempt: Attempt,
        journal: AttemptJournal,
        feed: Feed,
        secrets: RunSecrets,
        meter: Meter | None,
        values: NewestValue[Encoded] | None,
        memory: ThreadMemory,
    ) -> AgentCall:
        run, documents = attempt.claim.run, JsonDocuments(memory)
        return AgentCall(
            run=run,
            emit=_emit(journal, secrets, documents),
            congested=lambda: journal.congested,
            ready=journal.room,
            earlier=feed.earlier,
            continued=run.attempt > 1,
            saver=None if self._saver is None else self._attempt_saver(self._saver, run, journal, secrets, memory),
            store=None if self._long_term_store is None else self._long_term_store(run.owner),
            callbacks=() if meter is None else (meter,),
            counting=nullcontext if meter is None else meter.counting,
            cancelled=lambda: attempt.cancel,
            errors=self._errors,
            over=attempt.over,
            first_values=None if values is None else lambda data: values.put(documents.without(data, secrets.out_of)),
            documents=documents,
        )

    def _attempt_saver(
        self,
        saver: Checkpointer,
        run: RunRecord,
        journal: AttemptJournal,
        secrets: RunSecrets,
        memory: ThreadMemory,
    ) -> AttemptCheckpointer:
        return saver.of_attempt(
            journal,
            write_behind=run.request.durability != "sync",
            redact=lambda error: secrets.out_of_text(self._errors.representation(error)),
            memory=memory,
        )

    async def _executed(self, attempt: Attempt, journal: AttemptJournal, ran: Ran) -> Ran:
        """Return *ran* with what came of the agent; its call is there."""
        run, call = attempt.claim.run, ran.call
        assert call is not None
        agent = self._source.agent(run)
        ran = replace(ran, agent=agent)
        if attempt.reason is not None:
            return replace(ran, failure=asyncio.CancelledError())
        # Once it was begun, an agent that cannot go on is not executed again; this attempt only makes the thread valid.
        if run.rescues > rescue_limit(self._settings.max_rescues, continuable=agent.continuable):
            return replace(ran, failure=WorkerLost(run.rescues))
        continuable = agent.continuable and call.saver is not None
        ran = replace(ran, continuable=continuable, once=not agent.continuable)
        if attempt.claim.start is None:
            start = start_event(attempt.claim.lease, attempt.claim.events_end)
            journal.append_event(start.name, start.data)
        self._telemetry.run_started(run)
        name = f"run_id={run.run_id} attempt={run.attempt}"
        try:
            handle = self._host.at(run.graph_id).start(lambda: _run_agent(agent, call), name=name, leased=True)
            return replace(ran, snapshot=await attempt.run(handle, call, continuable=continuable))
        except BaseException as error:  # noqa: BLE001 - whatever the agent raised is how its run ends
            return replace(ran, failure=error)


def _redact_log(secrets: RunSecrets) -> None:
    scope = SCOPE.get()
    if secrets and scope is not None and scope.log is not None:
        scope.log.redact_with(secrets.out_of_text)


def _log_failure(run_id: str, ran: Ran) -> None:
    """Log why the attempt failed, in one record; a cancel, a drain or abandoned code is no failure."""
    error = ran.failure
    if error is None or isinstance(error, asyncio.CancelledError | Drained | Abandoned):
        return
    scope = SCOPE.get()
    if scope is not None:
        scope.failed = True
    text = ran.redact("".join(traceback.format_exception_only(error)).strip())
    fields = {"run_id": run_id, "error": type(error).__name__, "cause": shortened(text, MAX_CAUSE)}
    cause = json.dumps(fields["cause"], ensure_ascii=False)
    raised = ran.redact("".join(traceback.format_exception(error))).rstrip()
    log.warning(
        "run.failed run_id=%s error=%s cause=%s\n%s", run_id, fields["error"], cause, raised, extra={"fields": fields}
    )


async def _run_agent(agent: Agent, call: AgentCall) -> Snapshot:
    with call.counting():
        snapshot = await agent.run(call)
    if call.saver is not None:
        call.saver.end()
    return snapshot


def _emit(journal: AttemptJournal, secrets: RunSecrets, documents: JsonDocuments) -> Emit:
    def emit(name: str, encoded: Encoded) -> None:
        if secrets:
            encoded = documents.without(encoded, secrets.out_of)
        journal.append_event(name, encoded)
        if isinstance(encoded, Document):
            documents.accept(encoded)

    return emit


def _total(before: Usage, meter: Meter | None) -> Usage | None:
    if meter is None:
        return None
    used = meter.snapshot()
    return before + used if used.llm_calls or used.message_count else None
