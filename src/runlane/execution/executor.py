"""One attempt at one run: prepare, pump events, classify, repair or roll back, finish, tell the readers."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

from runlane.agents.base import Agent, AgentCall
from runlane.agents.encode import encode
from runlane.agents.host import AgentHost
from runlane.error_texts import ErrorTexts
from runlane.errors import CancelRecorded, LeaseLost, RollbackFailed, RunlaneError, StoreUnavailable, WorkerLost
from runlane.execution.attempt import Attempt
from runlane.execution.decision import StopReason, decide, minimal_outcome, rescue_limit, run_error
from runlane.execution.ending import Checkpoints, LastWrites, completed, minimal_writes
from runlane.execution.notifier import CompletionNotifier
from runlane.execution.progress import FirstValues, Progress
from runlane.execution.repair import repaired
from runlane.lifecycle import EndReason, RunEvent
from runlane.outcomes import Abandoned, Drained, Outcome, Snapshot
from runlane.records import ANY_OWNER, CancelReceipt, Finished, Lease, RunError, RunRecord, StreamEvent, Usage
from runlane.redaction import RunSecrets
from runlane.settings import Settings
from runlane.store.ledger import RunStore
from runlane.store.statements import Transaction
from runlane.streams.bridge import StreamBridge
from runlane.streams.publisher import Publisher

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


class Saver(Protocol):
    """A checkpointer, and what it can do for one attempt."""

    def bind(
        self,
        lease: Lease,
        *,
        write_behind: bool,
        ahead: Callable[[Callable[[], None]], bool] | None = None,
        redact: Callable[[Any], str] | None = None,
    ) -> Saver:
        """Return the checkpointer of one attempt: nothing is written once the lease is lost; errors are redacted."""
        ...

    def delete_runs(self, thread_id: str, run_ids: Sequence[str]) -> Transaction[None]:
        """Return the transaction that removes everything that these runs checkpointed."""
        ...

    async def flush(self) -> None:
        """Wait until everything written is committed."""
        ...

    def gather(self) -> Saver:
        """Return a saver that keeps what is written, and reads as if it were stored."""
        ...

    def keep(self, gathering: Any) -> None:
        """Have :meth:`remaining` also write what *gathering* has kept."""
        ...

    async def seal(self) -> object:
        """End the attempt's writing; :meth:`remaining` then returns what is not written yet."""
        ...

    def remaining(self) -> Transaction[None]:
        """Return the transaction that writes what is left, to be part of the one that finishes the run."""
        ...

    def reopen(self) -> None:
        """Take writes again, after :meth:`seal`."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether a read or a write is with the database."""
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
        saver: Saver | None = None,
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
        publisher = self._bridge.open(claim, lambda error: _on_publish_failure(attempt, error))
        try:
            attempt.over.set_result(await self._ended(attempt, publisher))
        except LeaseLost:
            log.warning("run.lease_lost run_id=%s attempt=%d", claim.run.run_id, claim.lease.attempt)
            self._bridge.release(claim.run.run_id, claim.lease.attempt)
        finally:
            attempt.over.cancel()  # unless it has a result

    async def _ended(self, attempt: Attempt, publisher: Publisher) -> RunRecord:
        claim, saver = attempt.claim, None
        progress = Progress(self._store, claim)
        first = FirstValues(self._store, claim)
        try:
            meter = None if self._new_meter is None else self._new_meter(progress.report)
            try:
                ran = await self._run(attempt, publisher, meter, first)
            finally:
                await progress.aclose()
                await first.aclose()
            saver = ran.call.saver
            return await self._conclude(attempt, ran, publisher, _total(claim.run.usage, meter))
        except LeaseLost:
            raise
        except Exception as error:  # whatever stands in the way of an ending must not have the run executed again
            log.exception("run.ending_refused run_id=%s attempt=%d", claim.run.run_id, claim.run.attempt)
            return await self._end_minimally(attempt, error, publisher, saver)

    async def _end_minimally(
        self, attempt: Attempt, why: Exception, publisher: Publisher, saver: Saver | None
    ) -> RunRecord:
        """End the run as one that failed, with as much of what it has left to write as the ledger takes."""
        lease, decided = attempt.claim.lease, minimal_outcome(attempt.cancel, why)
        ways = minimal_writes(
            lease,
            await _rest(publisher),
            events_end=publisher.last_seq,
            outcome=decided,
            checkpoints=None if saver is None else saver.remaining,
        )
        while True:
            writes = ways[0]
            outcome = completed(attempt, decided, usage=None, events_end=writes.events_end)
            try:
                finished = await self._store.attempts.finish(lease, outcome, extra_writes=writes.transaction)
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
                publisher.landed(tuple(writes.events))
                self._tell(attempt, finished, outcome)
                return finished.run

    def _at(self, run: RunRecord) -> AgentHost:
        return self._host.at(run.graph_id)

    def _secrets(self, run: RunRecord) -> RunSecrets:
        return RunSecrets(run.stored.configurations, self._source.private(run))

    async def _run(self, attempt: Attempt, publisher: Publisher, meter: Meter | None, first: FirstValues) -> _Ran:
        run = attempt.claim.run
        secrets = self._secrets(run)
        call = AgentCall(
            run=run,
            emit=publisher.emit if not secrets else lambda name, data: publisher.emit(name, secrets.out_of(data)),
            congested=lambda: publisher.congested,
            ready=publisher.ready,
            earlier=publisher.earlier,
            continued=run.attempt > 1,
            saver=None if self._saver is None else self._bind(self._saver, attempt, publisher, secrets),
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
        publisher.emit("metadata", encode({"run_id": run.run_id, "attempt": run.attempt}))
        try:
            name = f"run_id={run.run_id} attempt={run.attempt}"
            handle = self._at(run).start(lambda: _run_agent(agent, call), name=name)
            snapshot = await attempt.run(handle, call, continuable=agent.continuable and call.saver is not None)
        except BaseException as error:  # noqa: BLE001 - whatever the agent raised is how its run ends
            if not isinstance(error, asyncio.CancelledError | Drained | Abandoned):
                _log_raised(run, error, secrets)
            return _Ran(agent=agent, call=call, snapshot=None, failure=error, begun=True)
        return _Ran(agent=agent, call=call, snapshot=snapshot, failure=None, begun=True)

    def _bind(self, saver: Saver, attempt: Attempt, publisher: Publisher, secrets: RunSecrets) -> Any:
        return saver.bind(
            attempt.claim.lease,
            write_behind=attempt.claim.run.request.durability != "sync",
            ahead=publisher.ahead,
            redact=lambda error: secrets.out_of_text(self._errors.representation(error)),
        )

    async def _conclude(self, attempt: Attempt, ran: _Ran, publisher: Publisher, usage: Usage | None) -> RunRecord:
        run = attempt.claim.run
        while True:
            decided = decide(
                attempt.claim.lease,
                publisher.failure or ran.failure,
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
            if decided.event in (RunEvent.FAIL, RunEvent.EXPIRE) and decided.error is not None:
                publisher.emit("error", encode({"error": decided.error.error, "message": decided.error.message}))
            rest: tuple[StreamEvent, ...] = ()
            if publisher.failure is None:
                try:
                    rest = await publisher.close()
                except RunlaneError:
                    continue  # the failure is part of the decision from now on
            outcome = completed(attempt, decided, usage=usage, events_end=publisher.last_seq)
            try:
                finished = await self._finish(attempt, outcome, ran.call.saver, rest)
            except CancelRecorded:
                attempt.cancel = await self._recorded_cancel(attempt)
                if ran.call.saver is not None:
                    ran.call.saver.reopen()
                continue
            publisher.landed(rest)
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

    async def _finish(
        self,
        attempt: Attempt,
        outcome: Outcome,
        saver: Saver | None,
        rest: tuple[StreamEvent, ...],
    ) -> Finished:
        """Write the ending, for as long as it takes and the lease is held.

        The last events and the last checkpoints, or a rollback, are part of the same transaction.
        """
        lease = attempt.claim.lease

        checkpoints: Checkpoints | None = None
        if saver is not None:
            checkpoints = partial(_roll_back, saver, lease) if outcome.rolled_back else saver.remaining
        writes = LastWrites(lease=lease, events=rest, checkpoints=checkpoints)
        while True:
            try:
                return await self._store.attempts.finish(lease, outcome, extra_writes=writes.transaction)
            except StoreUnavailable as error:
                await _pause(attempt, error)
            except RollbackFailed as error:
                log.exception("run.rollback_failed run_id=%s", lease.run_id)
                outcome = _not_rolled_back(outcome, error)
                writes = replace(writes, checkpoints=None)

    async def _state(self, attempt: Attempt, outcome: Outcome, ran: _Ran) -> Snapshot | None:
        """Return what the run leaves on its thread, after making the thread valid if the run was cut short."""
        if outcome.event is RunEvent.RELEASE and ran.agent is not None:
            await self._repaired(attempt, None, ran.call)
        if outcome.rolled_back or outcome.event is RunEvent.RELEASE:
            return None
        if outcome.needs_repair and ran.agent is not None:
            return await self._repaired(attempt, ran.agent, ran.call)
        return ran.snapshot

    async def _repaired(self, attempt: Attempt, agent: Agent | None, call: AgentCall) -> Snapshot | None:
        """Repair the thread; without an agent only write what the attempt has left to write."""
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
        await call.saver.seal()
    return snapshot


async def _rest(publisher: Publisher) -> tuple[StreamEvent, ...]:
    try:
        return await publisher.close()
    except RunlaneError:
        return ()


def _roll_back(saver: Saver, lease: Lease) -> Transaction[None]:
    try:
        yield from saver.delete_runs(lease.thread_id, [lease.run_id])
    except (ValueError, TypeError, LookupError) as error:  # what is stored makes no sense, now and at another try
        raise RollbackFailed(lease.run_id, str(error)) from error


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


def _on_publish_failure(attempt: Attempt, error: RunlaneError) -> None:
    """Stop an attempt whose events cannot be recorded: nothing that it does from now on would be seen."""
    if isinstance(error, LeaseLost):
        attempt.stop(StopReason.LEASE_LOST)
    else:
        attempt.fail(error)
