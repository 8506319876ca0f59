"""One attempt at one run, from its claim to its end: run, decide, repair, commit, announce."""

from __future__ import annotations

import asyncio
from functools import partial

from msgspec.structs import replace

from runlane.agents.host import AgentHost
from runlane.documents.memory import ThreadMemories, ThreadMemory
from runlane.error_texts import ErrorTexts
from runlane.errors import LeaseLost, RunlaneError
from runlane.execution.attempt import Attempt
from runlane.execution.commit import Recorded, commit
from runlane.execution.decision import StopReason, decide
from runlane.execution.log_keeping import LogKeeper
from runlane.execution.notifier import CompletionNotifier
from runlane.execution.ports import AgentSource
from runlane.execution.repair import repaired
from runlane.execution.run import AgentRunner, Ran
from runlane.journal.delays import Delays
from runlane.journal.journal import AttemptJournal
from runlane.lifecycle import RunEvent
from runlane.outcomes import Outcome
from runlane.records import CancelReceipt, RunError
from runlane.settings import Settings
from runlane.store.ledger import RunStore
from runlane.streams.bridge import Feed, StreamBridge
from runlane.telemetry.context import SCOPE, RunScope, flush_printed
from runlane.telemetry.emitter import SILENT, Telemetry


class Executor:
    """Executes attempts. Features hang on the events or on after-finish hooks, never in here."""

    def __init__(
        self,
        *,
        store: RunStore,
        bridge: StreamBridge,
        runner: AgentRunner,
        host: AgentHost,
        source: AgentSource,
        settings: Settings,
        errors: ErrorTexts,
        notifier: CompletionNotifier,
        memories: ThreadMemories,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._runner = runner
        self._host = host
        self._source = source
        self._errors = errors
        self._notifier = notifier
        self._memories = memories
        self._telemetry = telemetry
        self._delays = Delays()
        self._run_log_bytes = settings.run_log_bytes
        self._repair_limit_s = settings.cancel_grace_s + settings.abandon_after_s

    async def execute(self, attempt: Attempt) -> None:
        """Execute *attempt* to its end, whatever happens, and announce it."""
        claim = attempt.claim
        keeper = LogKeeper(self._store.run_logs, claim.lease, max_bytes=self._run_log_bytes)
        scope = RunScope(claim.run, keeper.log if self._run_log_bytes else None)
        SCOPE.set(scope)  # of this task, and of what the agent's code starts
        feed = self._bridge.open(claim, self._telemetry.first_event_observer(claim.run))
        try:
            await self._carry_out(attempt, self._journal(attempt, feed), feed, keeper)
        except LeaseLost:
            self._telemetry.lease_lost(claim.run)
            self._bridge.release(claim.run.run_id, claim.lease.attempt)
        finally:
            attempt.over.cancel()  # unless it has a result
            attempt.close()
            scope.flush()
            await keeper.aclose()

    async def _carry_out(self, attempt: Attempt, journal: AttemptJournal, feed: Feed, keeper: LogKeeper) -> None:
        """Run, decide, repair, commit, announce.

        Raises:
            LeaseLost: Another attempt may have the run; nothing was recorded, and nothing is announced.
        """
        claim = attempt.claim
        memory = self._memories.take(claim.lease.thread_id, claim.parts_epoch)
        ran = await self._runner.run(attempt, journal, feed, memory)
        outcome = self._decide(attempt, ran)
        outcome = await self._repair(attempt, ran, outcome)
        ended = await self._commit(attempt, ran, outcome, journal, keeper)
        if isinstance(ended, CancelReceipt):  # it was recorded since the decision; a run has one, so this happens once
            attempt.cancel = ended
            outcome = self._decide(attempt, ran)
            outcome = await self._repair(attempt, ran, outcome)
            ended = await self._commit(attempt, ran, outcome, journal, keeper)
            assert isinstance(ended, Recorded), "a run that is stopped after a cancel ends"
        self._announce(attempt, ended, feed)
        self._rest(attempt, memory, whole=ended.whole and journal.failure is None)

    def _journal(self, attempt: Attempt, feed: Feed) -> AttemptJournal:
        journal = AttemptJournal(
            self._store.driver,
            attempt.claim.lease,
            events_end=attempt.claim.events_end,
            control=asyncio.get_running_loop(),
            delays=self._delays,
            readers=feed,
            on_failure=partial(_on_journal_failure, attempt),
            on_flush=self._telemetry.flush_observer(attempt.claim.run),
        )
        attempt.when_lost(journal.lose)
        return journal

    def _decide(self, attempt: Attempt, ran: Ran) -> Outcome:
        """Return how the attempt ends, with what else is recorded of it, and without the run's secrets."""
        outcome = decide(
            attempt.claim.lease,
            ran.failure,
            attempt.reason,
            attempt.cancel,
            paused=ran.paused,
            continuable=ran.continuable,
            once=ran.once,
            errors=self._errors,
        )
        error, abandoned = outcome.error, attempt.abandoned
        return replace(
            outcome,
            error=None if error is None else RunError(error=error.error, message=ran.redact(error.message)),
            usage=ran.usage,
            observed_at=attempt.observed_at,
            stopped=abandoned is None,
            blocked_at=None if abandoned is None else abandoned.place,
        )

    async def _repair(self, attempt: Attempt, ran: Ran, outcome: Outcome) -> Outcome:
        """Return *outcome* with what the run leaves on its thread, which is made valid if the run was cut short."""
        if outcome.rolled_back or outcome.event is RunEvent.RELEASE:
            return outcome
        if not outcome.needs_repair or ran.agent is None or ran.call is None:
            return replace(outcome, state=ran.snapshot)
        state = await repaired(
            ran.agent,
            ran.call,
            host=self._host.at(attempt.claim.run.graph_id),
            limit_s=self._repair_limit_s,
            held=lambda: attempt.reason is not StopReason.LEASE_LOST,
        )
        return replace(outcome, state=state)

    async def _commit(
        self, attempt: Attempt, ran: Ran, outcome: Outcome, journal: AttemptJournal, keeper: LogKeeper
    ) -> Recorded | CancelReceipt:
        """Record the outcome with all that the attempt has yet to write, in one transaction."""
        flush_printed()
        remainder = (await journal.close()).with_log(await keeper.rest())
        return await commit(self._store.attempts, attempt, outcome, remainder, ran.saver)

    def _rest(self, attempt: Attempt, memory: ThreadMemory, *, whole: bool) -> None:
        """Keep what is known of the thread for its next run.

        Args:
            whole: All that is taken for stored has been stored.
        """
        if whole and attempt.abandoned is None and not attempt.claim.run.temporary:
            self._memories.give_back(attempt.claim.lease.thread_id, memory)

    def _announce(self, attempt: Attempt, ended: Recorded, feed: Feed) -> None:
        """Tell everybody who waits for the run: its readers, its lane, its hooks, and the code that it executed."""
        run = ended.finished.run
        feed.show(ended.events)
        if run.status.terminal:
            self._source.forget(run.run_id)
        else:
            self._telemetry.run_released(run)
        self._notifier.announce(ended.finished)
        attempt.over.set_result(run)


def _on_journal_failure(attempt: Attempt, error: RunlaneError) -> None:
    """Stop an attempt whose events cannot be recorded: nothing that it does from now on would be seen."""
    if isinstance(error, LeaseLost):
        attempt.stop(StopReason.LEASE_LOST)
    else:
        attempt.fail(error)
