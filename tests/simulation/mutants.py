"""Planted bugs: the product with something wrong at a named seam. Each has to be found, by the check for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from math import inf
from typing import Any, Final

from msgspec import structs

from runlane.checkpoints import transactions as checkpoints
from runlane.dispatch.local import LocalDispatch
from runlane.errors import LeaseLost, NotFound, StoreUnavailable
from runlane.execution import commit, decision
from runlane.execution.decision import StopReason
from runlane.execution.draining import WorkerDrain
from runlane.execution.executor import Executor
from runlane.execution.run import Ran
from runlane.execution.worker import Worker
from runlane.journal.journal import AttemptJournal
from runlane.journal.remainder import Remainder, append
from runlane.lifecycle import RunEvent
from runlane.maintenance.liveness import GRACE_S, LeaseObserver
from runlane.outcomes import Outcome
from runlane.records import Admission, Claim, Lease, StreamEnd
from runlane.runs.submission import RunSubmitter
from runlane.store import conditions
from runlane.store.resources.runs import Runs
from runlane.store.statements import Query, Rows, Transaction, statement
from runlane.store.transactions import admissions, claims, fence, heads, leases, runs, totals
from runlane.streams.watch import Watch
from runlane.testing.ledger import Fate, FaultyDriver
from simulation.seams import (
    Answer,
    Fragment,
    Patch,
    after,
    answered,
    applied,
    bound,
    finding,
    function,
    method,
    reading,
    transaction,
)
from simulation.world import SETTINGS, Scenario

#: Seeds within which a planted bug has to be found.
ENOUGH: Final = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A bug: *patches* of the product, and the check that has to find it."""

    found_by: str
    patches: tuple[Patch | Fragment, ...] = ()
    scenario: Scenario = field(default_factory=Scenario)


@contextmanager
def planted(mutant: Mutant) -> Iterator[Scenario]:
    """Have the bug in this interpreter, for a while."""
    with applied(mutant.patches):
        yield mutant.scenario


FORGET_CANCEL = statement(
    "forget_cancel",
    "UPDATE runs SET cancel_requested_at = NULL, cancel_action = NULL, cancel_reason = NULL WHERE run_id = :run_id",
)
RUN_EXISTS = statement("run_exists", "SELECT 1 FROM runs WHERE run_id = :run_id")


class ForgetfulDriver(FaultyDriver):
    """Answers a cancel of an executing run as if it had been recorded."""

    def apply(self, transaction: Transaction[Any]) -> Any:
        return super().apply(answered(transaction, _forgetful))


def _forgetful(query: Query) -> Transaction[Rows]:
    rows = yield query
    if query.statement is runs.RECORD_CANCEL and rows and rows[0]["status"] == "running":
        yield FORGET_CANCEL(run_id=rows[0]["run_id"])
    return rows


class LateDriver(FaultyDriver):
    """Is often cut off by what ends an attempt, which arrives when another attempt may have the run: a rare moment."""

    _ends = False

    async def _ask(self, transaction: Transaction[Any], *, writes: bool) -> Any:
        self._ends = transaction.__name__ in ("finish", "_roll_back")
        return await super()._ask(transaction, writes=writes)

    def _draw(self, *, writes: bool) -> Fate:
        ends, self._ends = self._ends, False
        now = asyncio.get_running_loop().time()
        if ends and now > self.cut_off_until and self._dice.random() < 0.8:
            late_s = self._hang_s * (1 + self._dice.random()) / 2
            self.cut_off_until = now + late_s
            return Fate(late_s, outlives_sender=True)
        return super()._draw(writes=writes)


class LateJournalDriver(FaultyDriver):
    """Is sometimes cut off by what an attempt writes, which arrives when another attempt may have the run."""

    def _send(self, fate: Fate, transaction: Transaction[Any], settle: Any) -> None:
        now = asyncio.get_running_loop().time()
        if transaction.__name__ == "append" and now > self.cut_off_until and self._dice.random() < 0.1:
            late_s = self._hang_s * (1 + self._dice.random()) / 2
            self.cut_off_until = now + late_s
            fate = Fate(late_s, outlives_sender=True)
        super()._send(fate, transaction, settle)


def _asked(query: Query) -> Transaction[Rows]:
    """Ask as the product does."""
    return (yield query)


_UNFENCED: Final = finding(fence.HOLDS_FREE_LEASE, [{"held": 1}])


def _to(value: Any) -> Callable[[Any], Any]:
    """Have *value* in the place of the original."""
    return lambda original: value


def _twice(query: Query) -> Transaction[Rows]:
    """Insert a run that is there already under another id."""
    if query.statement is admissions.INSERT_RUN:
        assert query.params is not None
        found = yield RUN_EXISTS(run_id=query.params["run_id"])
        if found:
            query = structs.replace(query, params={**query.params, "run_id": query.params["run_id"] + "+"})
    return (yield query)


def _waiting(query: Query) -> Transaction[Rows]:
    """Have a run that is cancelled look as if it had not started."""
    rows = yield query
    if query.statement in (runs.LOCK_RUN_BESIDE, runs.RECORD_CANCEL):
        return [{**row, "status": "pending", "attempt": 0} for row in rows]
    return rows


def _without_the_last(query: Query) -> Transaction[Rows]:
    rows = yield query
    return rows[:-1] if query.statement is totals.TAKE_ENDED else rows


def _held_by(lease: Lease) -> Answer:
    return reading(runs.LOCK_RUN, lambda row: {**row, "attempt": lease.attempt})


def _numbered_anew(original: Callable[..., Transaction[Claim | None]]) -> Callable[..., Transaction[Claim | None]]:
    @wraps(original)
    def claim(*args: Any, **options: Any) -> Transaction[Claim | None]:
        claimed = yield from original(*args, **options)
        return None if claimed is None else structs.replace(claimed, events_end=0)

    return claim


def _ending_with(end: Callable[[Any], list[Any]]) -> Callable[[Any], Any]:
    """Have a stream end with what *end* makes of its end."""

    def make(original: Any) -> Any:
        async def batches(self: Watch, *, after: int | None = 0) -> AsyncIterator[Any]:
            async with aclosing(original(self, after=after)) as found:
                async for batch in found:
                    yield end(batch[-1]) if batch and isinstance(batch[-1], StreamEnd) else batch

        return batches

    return make


def _shown_as_sent(original: Any) -> Any:
    """Show each batch as it is sent."""

    def send(self: AttemptJournal) -> None:
        flying = self._queue.flying
        assert flying is not None
        if flying.events:
            self._readers.show(list(flying.events))
        original(self)

    return send


def _given_up(original: Any) -> Any:
    """Take an outage that lasts for the end of the attempt."""

    def on_answer(self: AttemptJournal, result: Any, error: BaseException | None) -> None:
        original(self, result, error if error is None or self._tries < 5 else OSError(str(error)))

    return on_answer


def _absent(original: Any) -> Any:
    async def get(self: Runs, run_id: str, **options: Any) -> Any:
        try:
            return await original(self, run_id, **options)
        except StoreUnavailable:
            raise NotFound("run", run_id) from None

    return get


def _rolled_back_before(original: Any) -> Any:
    """Roll back in a transaction of its own, and once more with the ending."""

    async def commit_it(self: Executor, attempt: Any, ran: Ran, outcome: Outcome, *rest: Any) -> Any:
        if outcome.rolled_back and ran.saver is not None:
            await self._store.driver.write(commit._roll_back(attempt.claim.lease, ran.saver))
        return await original(self, attempt, ran, outcome, *rest)

    return commit_it


def _keeping_leases(original: Any) -> Any:
    def decide(lease: Lease, *args: Any, **options: Any) -> Outcome:
        outcome: Outcome = original(lease, *args, **options)
        if outcome.event is RunEvent.RELEASE:
            raise LeaseLost(lease.run_id, lease.attempt)
        return outcome

    return decide


def _not_waiting(_: Any) -> Any:
    async def finish(self: WorkerDrain, grace_s: float) -> None:
        await self._grace(grace_s)
        for attempt in tuple(self._attempts()):
            attempt.stop(StopReason.DRAIN)

    return finish


def _said_runnable(original: Callable[..., Transaction[Admission]]) -> Callable[..., Transaction[Admission]]:
    @wraps(original)
    def admit(*args: Any) -> Transaction[Admission]:
        admitted = yield from original(*args)
        return structs.replace(admitted, runnable=True)

    return admit


def _without_checkpoints(original: Any) -> Any:
    return lambda self: original(self.without_checkpoints())


def _said_stopped(original: Any) -> Any:
    return lambda *args, **options: structs.replace(original(*args, **options), stopped=True)


#: What was seen before an outage counts.
IMPATIENT: Final = method(
    LeaseObserver, "_over_at", _to(lambda self, lease: self._since.get(lease, inf) + lease.lease_s + GRACE_S)
)

MUTANTS: Final[dict[str, Mutant]] = {
    "no fence for events": Mutant(
        found_by="fencing",
        patches=(transaction(append, lambda lease, events, rows, *_: _UNFENCED if events else _asked),),
        scenario=Scenario(driver=LateJournalDriver, behaviours=("steps",)),
    ),
    "no fence for checkpoints": Mutant(
        found_by="fencing",
        patches=(transaction(append, lambda lease, events, rows, *_: _UNFENCED if rows else _asked),),
        scenario=Scenario(driver=LateJournalDriver, behaviours=("steps",)),
    ),
    "a rollback is not fenced": Mutant(
        found_by="fencing",
        patches=(method(Executor, "_commit", _rolled_back_before),),
        scenario=Scenario(driver=LateDriver, behaviours=("steps",), hasty=(1.0,)),
    ),
    "a stale attempt may finish": Mutant(
        found_by="fencing",
        patches=(transaction(runs.finish, lambda lease, *_, **__: _held_by(lease)),),
        scenario=Scenario(driver=LateDriver, behaviours=("steps",)),
    ),
    "a lease is not given its time": Mutant(
        found_by="fencing", patches=(method(LeaseObserver, "over", _to(lambda self, lease: lease in self._since)),)
    ),
    "runs overtake each other": Mutant(
        found_by="order_of_starts",
        patches=(
            Fragment(statement=claims.CLAIM_RUN, text=conditions.EARLIER, other="0"),
            Fragment(statement=leases.RUNNABLE, text=conditions.EARLIER, other="0"),
        ),
    ),
    "a run that is being admitted takes a slot that is not counted": Mutant(
        found_by="slots", patches=(method(LocalDispatch, "take", _to(lambda self, head: True)),)
    ),
    "an admission claims a run that is not its lane's head": Mutant(
        found_by="order_of_starts",
        patches=(
            function(admissions._admit, _said_runnable),
            Fragment(statement=claims.CLAIM_RUN, text=conditions.EARLIER, other="0"),
        ),
    ),
    "workers are taken for dead": Mutant(
        found_by="fencing",
        patches=(method(LeaseObserver, "_over_at", _to(lambda self, lease: self._since.get(lease, inf) + GRACE_S)),),
    ),
    "a rescuer does not wait after an outage": Mutant(found_by="patient_rescues", patches=(IMPATIENT,)),
    "a lost lease is not noticed after a pause": Mutant(
        found_by="one_lane",
        patches=(
            method(Worker, "_fence", _to(lambda self, over, reason: None)),
            method(Worker, "_until_fence", _to(lambda self, period_s: min(period_s, 1.0))),
        ),
        # What an agent writes is refused, which would tell it.
        scenario=Scenario(behaviours=("silent",), profiles=("mild",), hasty=(0.05,)),
    ),
    "a hint is lost and nobody polls": Mutant(
        found_by="rest", scenario=Scenario(settings=replace(SETTINGS, poll_s=3600))
    ),
    "an ended run is ended again": Mutant(
        found_by="one_ending",
        patches=(
            transaction(runs.finish, lambda *_, **__: reading(runs.LOCK_RUN, lambda row: {**row, "status": "running"})),
        ),
    ),
    "a cancel lets the next run of the lane start": Mutant(
        found_by="one_lane", patches=(transaction(runs.request_cancel, lambda *_: _waiting),)
    ),
    "a thread stays busy": Mutant(
        found_by="rest", patches=(transaction(runs.request_cancel, lambda *_: finding(runs.RESTATE_THREAD, [])),)
    ),
    "a retried admission admits twice": Mutant(
        found_by="one_admission", patches=(transaction(admissions.admit, lambda *_: _twice),)
    ),
    "a cancel is lost": Mutant(found_by="honest_cancel", scenario=Scenario(driver=ForgetfulDriver)),
    "the last cancel wins": Mutant(
        found_by="honest_cancel",
        patches=(
            transaction(
                runs.request_cancel,
                lambda run_id, *_: after(runs.RECORD_CANCEL, lambda query: FORGET_CANCEL(run_id=run_id)),
            ),
        ),
    ),
    "an ending does not see the cancel": Mutant(
        found_by="honest_cancel",
        patches=(
            transaction(
                runs.finish, lambda *_, **__: reading(runs.LOCK_RUN, lambda row: {**row, "cancel_requested_at": None})
            ),
        ),
    ),
    "stopped is said of code that runs": Mutant(
        found_by="stopped_means_stopped",
        patches=(method(Executor, "_decide", _said_stopped),),
        scenario=Scenario(behaviours=("steps", "stone")),  # of which one may be abandoned
    ),
    "a disconnect stops every run": Mutant(
        found_by="honest_cancel", patches=(method(RunSubmitter, "_unwanted", _to(lambda self, run: True)),)
    ),
    "event numbers are given out again": Mutant(
        found_by="log_numbers", patches=(function(claims.claim, _numbered_anew),)
    ),
    "the end comes twice": Mutant(
        found_by="whole_streams", patches=(method(Watch, "batches", _ending_with(lambda end: [end, end])),)
    ),
    "a gap is not told": Mutant(
        found_by="whole_streams", patches=(method(Watch, "batches", _ending_with(lambda end: [end])),)
    ),
    "events are shown before they are committed": Mutant(
        found_by="whole_streams",
        patches=(method(AttemptJournal, "_send", _shown_as_sent),),
    ),
    "an outage is told as absence": Mutant(found_by="outage_is_not_absence", patches=(method(Runs, "get", _absent),)),
    "a cancel leaves the head of its lane as it was": Mutant(
        found_by="heads", patches=(transaction(runs.request_cancel, lambda *_: finding(heads.MOVE_HEAD, [])),)
    ),
    "a run is marked as counted and not added to the totals": Mutant(
        found_by="totals", patches=(transaction(totals.count_ended, lambda *_: _without_the_last),)
    ),
    "an outage ends runs": Mutant(
        found_by="outage_ends_no_run", patches=(method(AttemptJournal, "_on_answer", _given_up),)
    ),
    "a drain counts as a crash": Mutant(
        found_by="fencing",
        patches=(
            transaction(runs.finish, lambda *_, **__: bound(runs.RELEASE_RUN, lambda given: {**given, "rescues": 1})),
        ),
    ),
    "a hand-back drops checkpoints": Mutant(
        found_by="handed_back", patches=(method(Remainder, "transaction", _without_checkpoints),)
    ),
    "a shutdown does not wait for its agents": Mutant(
        found_by="quiet_after_shutdown", patches=(method(WorkerDrain, "finish", _not_waiting),)
    ),
    "a shutdown leaves its leases behind": Mutant(
        found_by="quiet_after_shutdown",
        patches=(function(decision.decide, _keeping_leases),),
        scenario=Scenario(behaviours=("steps", "calling"), profiles=("mild", "lost notifications")),
    ),
    "an attempt begins after the first checkpoint": Mutant(
        found_by="progress",
        patches=(
            Fragment(
                statement=checkpoints.GET_LATEST, text=checkpoints.NEWEST_FIRST, other="ORDER BY checkpoint_id, seq"
            ),
        ),
        # Other agents repair the wrong step, which another check finds.
        scenario=Scenario(behaviours=("steps",), profiles=("mild", "slow", "hanging")),
    ),
    "a run crashes workers for ever": Mutant(
        found_by="no_crash_loop",
        patches=(function(decision.rescue_limit, _to(lambda max_rescues, *, continuable: 1_000 * continuable)),),
    ),
    "code that may be executed once is executed again": Mutant(
        found_by="at_most_once",
        patches=(function(decision.rescue_limit, _to(lambda max_rescues, *, continuable: max_rescues)),),
    ),
    "a stopped run's thread is not repaired": Mutant(
        found_by="valid_threads", patches=(method(Outcome, "needs_repair", _to(property(lambda self: False))),)
    ),
    "a rollback leaves its checkpoints": Mutant(
        found_by="valid_threads", patches=(function(commit._roll_back, _to(lambda lease, saver: (yield from ()))),)
    ),
}
