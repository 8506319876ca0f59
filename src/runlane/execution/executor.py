"""One attempt at one run: prepare, pump events, classify, repair or roll back, finish, tell the readers."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from runlane.agents.base import Agent, AgentCall, Emit
from runlane.agents.encode import encode
from runlane.agents.host import AgentHost
from runlane.error_texts import ErrorTexts
from runlane.errors import CancelRecorded, LeaseLost, RollbackFailed, RunlaneError, StoreUnavailable, WorkerLost
from runlane.execution.attempt import Attempt
from runlane.execution.decision import StopReason, decide, minimal_outcome, rescue_limit, run_error
from runlane.execution.ending import completed, last_writes, minimal_writes
from runlane.execution.notifier import CompletionNotifier
from runlane.execution.progress import FirstValues, Progress
from runlane.execution.repair import repaired
from runlane.journal.journal import AttemptJournal
from runlane.journal.remainder import Remainder
from runlane.lifecycle import EndReason, RunEvent
from runlane.outcomes import Abandoned, Drained, Outcome, Snapshot
from runlane.records import ANY_OWNER, CancelReceipt, Finished, RunError, RunRecord, Usage
from runlane.redaction import RunSecrets
from runlane.settings import Settings
from runlane.store.ledger import RunStore
from runlane.store.statements import Transaction
from runlane.streams.bridge import Feed, StreamBridge

log = logging.getLogger("runlane.execution")

#: Pause between tries to write an ending while the ledger is out.
FINISH_RETRY_S: Final = 1.0


class Meter(Protocol):
    """Counts tokens as a callback of the agent's model calls."""

    def snapshot(self) -> Usage:
        """Return what was counted so far."""
        ...

    def counting(self) -> AbstractContextManager[None]:
        """Count the calls of the context, without being passed to them."""
        ...


class AttemptCheckpointer(Protocol):
    """The checkpointer of one attempt: nothing is written once the lease is lost."""

    @property
    def waiting(self) -> bool:
        """Whether a read or a write is with the database."""
        ...

    def end(self) -> None:
        """Refuse what is written from now on: the agent has returned."""
        ...

    def staged(self) -> AbstractAsyncContextManager[Any]:
        """Give a saver whose writes are committed with the attempt's ending, if the block succeeds, or not at all."""
        ...

    def rollback(self) -> Transaction[None]:
        """Return the transaction that removes everything that the run checkpointed."""
        ...


class Checkpointer(Protocol):
    """Makes the checkpointers of attempts."""

    def of_attempt(
        self, journal: AttemptJournal, *, write_behind: bool, redact: Callable[[Any], str] | None = None
    ) -> AttemptCheckpointer:
        """Return the checkpointer that writes through *journal*; errors are redacted."""
        ...


class AgentSource(Protocol):
    """Finds what a run executes."""

    def can_execute(self, run_id: str, home: str | None) -> bool:
        """Return whether this process has the run's code, or the graphs for a run without a *home*."""
        ...

    def attached(self, run_id: str) -> bool:
        """Return whether code is attached to the run."""
        ...

    def agent(self, run: RunRecord) -> Agent:
        """Return the run's agent; any exception fails the run."""
        ...

    def private(self, run: RunRecord) -> Mapping[str, Any]:
        """Return what the agent is told beside the run's row."""
        ...

    def forget(self, run_id: str) -> None:
        """The run has ended."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ran:
    """What is known once the agent is over."""

    agent: Agent | None
    call: AgentCall
    snapshot: Snapshot | None
    failure: BaseException | None
    begun: bool = False

    @property
    def continuable(self) -> bool:
        """Whether another attempt may go on: the agent can, or it was not begun."""
        if not self.begun:
            return True
        return self.call.saver is not None and self.agent is not None and self.agent.continuable

    @property
    def once(self) -> bool:
        """Whether the agent was begun and must not be executed again."""
        return self.begun and self.agent is not None and not self.agent.continuable


class Executor:
    """Executes attempts. Features hang on the events or on after-finish hooks, never in here."""

    def __init__(
        self,
        *,
        store: RunStore,
        bridge: StreamBridge,
        host: AgentHost,
        source: AgentSource,
        settings: Settings,
        notifier: CompletionNotifier,
        saver: Checkpointer | None = None,
        long_term_store: Callable[[str], Any] | None = None,
        new_meter: Callable[[Callable[[Usage], None]], Meter] | None = None,
    ) -> None:
        self._store, self._bridge, self._host, self._source = store, bridge, host, source
        self._settings, self._notifier = settings, notifier
        self._errors = ErrorTexts(masked=settings.mask_errors)
        self._saver, self._long_term_store, self._new_meter = saver, long_term_store, new_meter

    async def execute(self, attempt: Attempt) -> None:
        """Execute *attempt* to its end, whatever happens, and announce it."""
        claim = attempt.claim
        feed = self._bridge.open(claim)
        journal = AttemptJournal(
            self._store.driver,
            claim.lease,
            events_end=claim.events_end,
            control=asyncio.get_running_loop(),
            readers=feed,
            on_failure=lambda error: _on_journal_failure(attempt, error),
        )
        attempt.when_lost(journal.lose)
        try:
            attempt.over.set_result(await self._ended(attempt, journal, feed))
        except LeaseLost:
            log.warning("run.lease_lost run_id=%s attempt=%d", claim.run.run_id, claim.lease.attempt)
            self._bridge.release(claim.run.run_id, claim.lease.attempt)
        finally:
            attempt.over.cancel()  # unless it has a result

    async def _ended(self, attempt: Attempt, journal: AttemptJournal, feed: Feed) -> RunRecord:
        claim = attempt.claim
        progress = Progress(self._store, claim)
        first = FirstValues(self._store, claim)
        try:
            meter = None if self._new_meter is None else self._new_meter(progress.report)
            try:
                ran = await self._run(attempt, journal, feed, meter, first)
            finally:
                await progress.aclose()
                await first.aclose()
            return await self._conclude(attempt, ran, journal, feed, _total(claim.run.usage, meter))
        except LeaseLost:
            raise
        except Exception as error:  # whatever stands in the way of an ending must not have the run executed again
            log.exception("run.ending_refused run_id=%s attempt=%d", claim.run.run_id, claim.run.attempt)
            return await self._end_minimally(attempt, error, journal, feed)

    async def _end_minimally(self, attempt: Attempt, why: Exception, journal: AttemptJournal, feed: Feed) -> RunRecord:
        """End the run as one that failed, with as much of what it has left to write as the ledger takes."""
        lease, decided = attempt.claim.lease, minimal_outcome(attempt.cancel, why)
        ways = minimal_writes(await journal.close(), decided)
        while True:
            remainder = ways[0]
            outcome = completed(attempt, decided, usage=None, events_end=remainder.events_end)
            try:
                finished = await self._store.attempts.finish(lease, outcome, extra_writes=remainder.transaction)
            except LeaseLost:
                raise
            except CancelRecorded:
                attempt.cancel = await self._recorded_cancel(attempt)
                decided = minimal_outcome(attempt.cancel, why)
            except StoreUnavailable as error:
                await _pause(attempt, error)
            except Exception as error:  # noqa: BLE001 - as above
                if len(ways) > 1:
                    ways = ways[1:]
                else:
                    await _pause(attempt, error)
            else:
                feed.show(remainder.events)
                self._tell(attempt, finished, outcome)
                return finished.run

    def _at(self, run: RunRecord) -> AgentHost:
        return self._host.at(run.graph_id)

    def _secrets(self, run: RunRecord) -> RunSecrets:
        return RunSecrets(run.stored.configurations, self._source.private(run))

    async def _run(
        self, attempt: Attempt, journal: AttemptJournal, feed: Feed, meter: Meter | None, first: FirstValues
    ) -> _Ran:
        run = attempt.claim.run
        secrets = self._secrets(run)
        call = AgentCall(
            run=run,
            emit=_emit(journal, secrets),
            congested=lambda: journal.congested,
            ready=journal.room,
            earlier=feed.earlier,
            continued=run.attempt > 1,
            saver=None if self._saver is None else self._attempt_saver(self._saver, attempt, journal, secrets),
            store=None if self._long_term_store is None else self._long_term_store(run.owner),
            callbacks=() if meter is None else (meter,),
            counting=nullcontext if meter is None else meter.counting,
            cancelled=lambda: attempt.cancel,
            errors=self._errors,
            over=attempt.over,
            first_values=(lambda values: first.show(secrets.out_of(values))) if attempt.claim.bare else None,
        )
        try:
            agent = self._source.agent(run)
        except Exception as error:  # noqa: BLE001 - the user's agent cannot be had: that is how the run ends
            return _Ran(agent=None, call=call, snapshot=None, failure=error)
        if attempt.reason is not None:
            return _Ran(agent=agent, call=call, snapshot=None, failure=asyncio.CancelledError())
        # Once it was begun, an agent that cannot go on is not executed again; this attempt only makes the thread valid.
        if run.rescues > rescue_limit(self._settings.max_rescues, continuable=agent.continuable):
            return _Ran(agent=agent, call=call, snapshot=None, failure=WorkerLost(run.rescues))
        journal.append_event("metadata", encode({"run_id": run.run_id, "attempt": run.attempt}))
        try:
            name = f"run_id={run.run_id} attempt={run.attempt}"
            handle = self._at(run).start(lambda: _run_agent(agent, call), name=name)
            snapshot = await attempt.run(handle, call, continuable=agent.continuable and call.saver is not None)
        except BaseException as error:  # noqa: BLE001 - whatever the agent raised is how its run ends
            if not isinstance(error, asyncio.CancelledError | Drained | Abandoned):
                _log_raised(run, error, secrets)
            return _Ran(agent=agent, call=call, snapshot=None, failure=error, begun=True)
        return _Ran(agent=agent, call=call, snapshot=snapshot, failure=None, begun=True)

    def _attempt_saver(
        self, saver: Checkpointer, attempt: Attempt, journal: AttemptJournal, secrets: RunSecrets
    ) -> AttemptCheckpointer:
        return saver.of_attempt(
            journal,
            write_behind=attempt.claim.run.request.durability != "sync",
            redact=lambda error: secrets.out_of_text(self._errors.representation(error)),
        )

    async def _conclude(
        self, attempt: Attempt, ran: _Ran, journal: AttemptJournal, feed: Feed, usage: Usage | None
    ) -> RunRecord:
        run = attempt.claim.run
        await journal.close()
        while True:
            decided = decide(
                attempt.claim.lease,
                journal.failure or ran.failure,
                attempt.reason,
                attempt.cancel,
                paused=ran.snapshot is not None and ran.snapshot.paused,
                continuable=ran.continuable,
                once=ran.once,
                errors=self._errors,
            )
            if decided.error is not None:
                decided = _without_secrets(decided, decided.error, self._secrets(run))
            decided = replace(decided, state=await self._state(attempt, decided, ran))
            remainder = last_writes(await journal.close(), decided, ran.call.saver)
            outcome = completed(attempt, decided, usage=usage, events_end=remainder.events_end)
            try:
                finished = await self._finish(attempt, outcome, remainder)
            except CancelRecorded:
                attempt.cancel = await self._recorded_cancel(attempt)
                continue
            feed.show(remainder.events)
            self._tell(attempt, finished, outcome)
            return finished.run

    async def _recorded_cancel(self, attempt: Attempt) -> CancelReceipt | None:
        """Read the cancel that stands in the way of an ending, for as long as it takes and the lease is held."""
        lease = attempt.claim.lease
        while True:
            try:
                return (await self._store.runs.get(lease.run_id, owner=ANY_OWNER)).cancel
            except StoreUnavailable as error:
                await _pause(attempt, error)

    async def _finish(self, attempt: Attempt, outcome: Outcome, remainder: Remainder) -> Finished:
        """Write the ending, for as long as it takes and the lease is held.

        The last events and the last checkpoints, or a rollback, are part of the same transaction.
        """
        lease = attempt.claim.lease
        while True:
            try:
                return await self._store.attempts.finish(lease, outcome, extra_writes=remainder.transaction)
            except StoreUnavailable as error:
                await _pause(attempt, error)
            except RollbackFailed as error:
                log.exception("run.rollback_failed run_id=%s", lease.run_id)
                outcome = _not_rolled_back(outcome, error)
                remainder = remainder.without_checkpoints()

    async def _state(self, attempt: Attempt, outcome: Outcome, ran: _Ran) -> Snapshot | None:
        """Return what the run leaves on its thread, after making the thread valid if the run was cut short."""
        if outcome.rolled_back or outcome.event is RunEvent.RELEASE:
            return None
        if outcome.needs_repair and ran.agent is not None:
            return await self._repaired(attempt, ran.agent, ran.call)
        return ran.snapshot

    async def _repaired(self, attempt: Attempt, agent: Agent, call: AgentCall) -> Snapshot | None:
        limit_s = self._settings.cancel_grace_s + self._settings.abandon_after_s
        return await repaired(
            agent,
            call,
            host=self._at(call.run),
            limit_s=limit_s,
            held=lambda: attempt.reason is not StopReason.LEASE_LOST,
        )

    def _tell(self, attempt: Attempt, finished: Finished, outcome: Outcome) -> None:
        run = finished.run
        if run.status.terminal:
            self._source.forget(run.run_id)
        result = None if outcome.state is None else outcome.state.result
        self._notifier.announce(finished, events_end=outcome.events_end, result=result)


async def _run_agent(agent: Agent, call: AgentCall) -> Snapshot:
    with call.counting():
        snapshot = await agent.run(call)
    if call.saver is not None:
        call.saver.end()
    return snapshot


def _emit(journal: AttemptJournal, secrets: RunSecrets) -> Emit:
    if not secrets:
        return journal.append_event
    return lambda name, data: journal.append_event(name, secrets.out_of(data))


def _not_rolled_back(outcome: Outcome, error: RollbackFailed) -> Outcome:
    return replace(outcome, end_reason=EndReason.USER_CANCEL, error=run_error(error))


async def _pause(attempt: Attempt, error: Exception) -> None:
    """Wait before the next try to end *attempt*.

    Raises:
        LeaseLost: Another worker may have the run by now.
    """
    lease = attempt.claim.lease
    log.error("run.finish_delayed run_id=%s why=%s", lease.run_id, error)
    if attempt.reason is StopReason.LEASE_LOST:
        raise LeaseLost(lease.run_id, lease.attempt) from error
    await asyncio.sleep(FINISH_RETRY_S)


def _total(before: Usage, meter: Meter | None) -> Usage | None:
    if meter is None:
        return None
    used = meter.snapshot()
    return before + used if used.llm_calls or used.message_count else None


def _log_raised(run: RunRecord, error: BaseException, secrets: RunSecrets) -> None:
    raised = secrets.out_of_text("".join(traceback.format_exception(error)))
    log.info("run.agent_raised run_id=%s\n%s", run.run_id, raised.rstrip())


def _without_secrets(outcome: Outcome, error: RunError, secrets: RunSecrets) -> Outcome:
    return replace(outcome, error=replace(error, message=secrets.out_of_text(error.message)))


def _on_journal_failure(attempt: Attempt, error: RunlaneError) -> None:
    """Stop an attempt whose events cannot be recorded: nothing that it does from now on would be seen."""
    if isinstance(error, LeaseLost):
        attempt.stop(StopReason.LEASE_LOST)
    else:
        attempt.fail(error)
