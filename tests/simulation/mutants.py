"""Planted bugs: the product with a line changed. Each has to be found, by the check that is there for it."""

from __future__ import annotations

import asyncio
import inspect
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from runlane.admissions import Admissions
from runlane.checkpoints import transactions as checkpoints
from runlane.execution.decision import classify
from runlane.execution.ending import LastWrites, outcome_of
from runlane.execution.executor import Executor
from runlane.execution.worker import Worker
from runlane.maintenance.liveness import LeaseObserver
from runlane.store import claim_transactions as claims
from runlane.store import event_transactions as events
from runlane.store import lease_transactions as leases
from runlane.store import run_transactions as runs
from runlane.store.ledger import RunStore
from runlane.store.statements import Query, Rows, Statement, Transaction, statement
from runlane.streams.bridge import Watch
from runlane.streams.publisher import Publisher
from runlane.testing.ledger import Fate, FaultyDriver
from simulation.world import SETTINGS, Scenario

#: Seeds within which a planted bug has to be found.
ENOUGH: Final = 150

Edit = tuple[Any, str, str]
Changes = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A bug: *edits* of functions and statements (old text, new text), and the check that has to find it."""

    found_by: str
    edits: tuple[Edit, ...] = ()
    scenario: Scenario = field(default_factory=Scenario)


@contextmanager
def planted(mutant: Mutant) -> Iterator[Scenario]:
    """Have the bug in this interpreter, for a while."""
    edits: dict[Any, list[tuple[str, str]]] = defaultdict(list)
    for target, old, new in mutant.edits:
        edits[target].append((old, new))
    with ExitStack() as stack:
        for target, changes in edits.items():
            edited = _statement if isinstance(target, Statement) else _function
            stack.enter_context(edited(target, changes))
        yield mutant.scenario


def _changed(text: str, changes: Changes, what: str) -> str:
    for old, new in changes:
        assert text.count(old) >= 1, f"{what} has no {old!r}"
        text = text.replace(old, new)
    return text


@contextmanager
def _statement(target: Statement, changes: Changes) -> Iterator[None]:
    sql = target.sqlite
    object.__setattr__(target, "sqlite", _changed(sql, changes, target.name))
    try:
        yield
    finally:
        object.__setattr__(target, "sqlite", sql)


@contextmanager
def _function(target: Callable[..., Any], changes: Changes) -> Iterator[None]:
    """Give *target*, wherever it has been imported, the code that it would have if its text were another."""
    source = _changed(textwrap.dedent(inspect.getsource(target)), changes, target.__qualname__)
    made: dict[str, Any] = {}
    text = "from __future__ import annotations\n" + source
    exec(compile(text, f"<{target.__qualname__}, changed>", "exec"), target.__globals__, made)
    code = target.__code__
    target.__code__ = made[target.__name__].__code__
    try:
        yield
    finally:
        target.__code__ = code


FORGET_CANCEL = statement(
    "forget_cancel",
    "UPDATE runs SET cancel_requested_at = NULL, cancel_action = NULL, cancel_reason = NULL WHERE run_id = :run_id",
)


class ForgetfulDriver(FaultyDriver):
    """Answers a cancel of an executing run as if it had been recorded."""

    def apply(self, transaction: Transaction[Any]) -> Any:
        return super().apply(_forgetful(transaction))


def _forgetful(transaction: Transaction[Any]) -> Transaction[Any]:
    def answer(query: Query) -> Transaction[Rows]:
        rows = yield query
        if query.statement.name == "record_cancel" and rows and rows[0]["status"] == "running":
            yield FORGET_CANCEL(run_id=rows[0]["run_id"])
        return rows

    try:
        query = next(transaction)
        while True:
            query = transaction.send((yield from answer(query)))
    except StopIteration as stop:
        return stop.value


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


MUTANTS: Final[dict[str, Mutant]] = {
    "no fence for events": Mutant(
        found_by="fencing", edits=((events.HOLDS_LEASE, "AND attempt = :attempt AND status = :running", ""),)
    ),
    "no fence for checkpoints": Mutant(
        found_by="fencing", edits=((checkpoints._FENCE, "AND attempt = :attempt AND status = :status", ""),)
    ),
    "a rollback is not fenced": Mutant(
        found_by="fencing",
        edits=(
            (
                Executor._finish,
                "writes = LastWrites(lease=lease, events=rest, checkpoints=checkpoints)",
                "if checkpoints is not None and rolled_back:\n"
                "        await self._store._write(checkpoints)\n"
                "    writes = LastWrites(lease=lease, events=rest, checkpoints=checkpoints)",
            ),
            (checkpoints.delete_runs, "if lease is not None:", "if False:"),
        ),
        scenario=Scenario(driver=LateDriver, behaviours=("steps",), hasty=(1.0,)),
    ),
    "a stale attempt may finish": Mutant(
        found_by="fencing",
        edits=((runs._hold, 'or rows[0]["attempt"] != lease.attempt', ""),),
        scenario=Scenario(driver=LateDriver, behaviours=("steps",)),
    ),
    "a lease is not given its time": Mutant(
        found_by="fencing",
        edits=((LeaseObserver.over, "self._asked_at - since >= lease.lease_s + GRACE_S", "True"),),
    ),
    "runs overtake each other": Mutant(
        found_by="order_of_starts",
        edits=((claims.CLAIM_RUN, "other.seq < runs.seq", "0"), (leases.RUNNABLE, "other.seq < runs.seq", "0")),
    ),
    "workers are taken for dead": Mutant(
        found_by="fencing", edits=((LeaseObserver.over, "lease.lease_s + GRACE_S", "GRACE_S"),)
    ),
    "a lost lease is not noticed after a pause": Mutant(
        found_by="one_lane",
        edits=(
            (Worker._renew, "self._fence(lambda key: self._confirmed[key] <= now, over)", "pass"),
            (Worker._renew, "self._fence(lost.__contains__, StopReason.LEASE_LOST)", "pass"),
            (Worker._until_fence, "max(0.0, first)", "1.0"),
        ),
        # What an agent writes is refused, which would tell it.
        scenario=Scenario(behaviours=("silent",), weathers=("fair",), hasty=(0.05,)),
    ),
    "a hint is lost and nobody polls": Mutant(
        found_by="rest", scenario=Scenario(settings=replace(SETTINGS, poll_s=3600))
    ),
    "an ended run is ended again": Mutant(
        found_by="one_ending",
        edits=(
            (runs._hold, 'or RunStatus(rows[0]["status"]) is not RunStatus.RUNNING', ""),
            (
                runs.finish,
                'move(lease.run_id, RunStatus(row["status"]), outcome.event)',
                "move('', RunStatus.RUNNING, outcome.event)",
            ),
        ),
    ),
    "a thread stays busy": Mutant(
        found_by="rest", edits=((runs.request_cancel, "yield RESTATE_THREAD(thread_id=thread_id)", "pass"),)
    ),
    "a retried admission admits twice": Mutant(
        found_by="one_admission",
        edits=(
            (
                runs.INSERT_RUN,
                "VALUES (:run_id,",
                "VALUES (:run_id || CASE WHEN EXISTS (SELECT 1 FROM runs WHERE run_id = :run_id) THEN '+' ELSE '' END,",
            ),
        ),
    ),
    "a cancel is lost": Mutant(found_by="honest_cancel", scenario=Scenario(driver=ForgetfulDriver)),
    "the last cancel wins": Mutant(
        found_by="honest_cancel", edits=((runs.RECORD_CANCEL, "AND cancel_requested_at IS NULL", ""),)
    ),
    "an ending does not see the cancel": Mutant(
        found_by="honest_cancel", edits=((runs.finish, 'row["cancel_requested_at"] is not None', "False"),)
    ),
    "stopped is said of code that runs": Mutant(
        found_by="stopped_means_stopped",
        edits=((outcome_of, "stopped=abandoned is None", "stopped=True"),),
        scenario=Scenario(behaviours=("steps", "stone")),  # of which one may be abandoned
    ),
    "a disconnect stops every run": Mutant(
        found_by="honest_cancel", edits=((Admissions._abandon, "run.on_disconnect is DisconnectMode.CANCEL", "True"),)
    ),
    "event numbers are given out again": Mutant(
        found_by="log_numbers", edits=((claims.claim, 'if row["attempt"] > 1:', "if False:"),)
    ),
    "the end comes twice": Mutant(
        found_by="whole_streams",
        edits=(
            (
                Watch.batches,
                "yield [StreamGap(resumes_at=end.seq), end] if end.seq > cursor + 1 else [end]",
                "yield [end, end]",
            ),
        ),
    ),
    "a gap is not told": Mutant(
        found_by="whole_streams",
        edits=(
            (
                Watch.batches,
                "yield [StreamGap(resumes_at=end.seq), end] if end.seq > cursor + 1 else [end]",
                "yield [end]",
            ),
        ),
    ),
    "events are shown before they are committed": Mutant(
        found_by="whole_streams",
        edits=(
            (Publisher._on_committed, "self._show(batch)", "pass"),
            (Publisher._append, "try:", "self._show(self._in_flight)\n    try:"),
        ),
    ),
    "an outage is told as absence": Mutant(
        found_by="outage_is_not_absence",
        edits=(
            (
                RunStore.get_run,
                "return await self._look(lambda: queries.get_run(run_id, owner))",
                "try:\n        return await self._look(lambda: queries.get_run(run_id, owner))\n"
                "    except StoreUnavailable:\n        raise __import__('runlane').errors.NotFound('run', run_id)",
            ),
        ),
    ),
    "an outage ends runs": Mutant(
        found_by="outage_ends_no_run",
        edits=((Publisher._on_error, "if passes(error):", "if passes(error) and self._tries < 5:"),),
    ),
    "a drain counts as a crash": Mutant(
        found_by="fencing", edits=((runs.finish, "usage=usage, rescues=0)", "usage=usage, rescues=1)"),)
    ),
    "a hand-back drops checkpoints": Mutant(
        found_by="handed_back", edits=((LastWrites.transaction, "if self.checkpoints is not None:", "if False:"),)
    ),
    "a shutdown does not wait for its agents": Mutant(
        found_by="quiet_after_shutdown", edits=((Worker.drain, "while self._tasks:", "while False:"),)
    ),
    "a shutdown leaves its leases behind": Mutant(
        found_by="quiet_after_shutdown",
        edits=((classify, "return Verdict(event=RunEvent.RELEASE, end_reason=None)", "return None"),),
        scenario=Scenario(behaviours=("steps", "calling"), weathers=("fair", "silence")),
    ),
    "an attempt begins after the first checkpoint": Mutant(
        found_by="progress",
        edits=((checkpoints._GET_LATEST, "ORDER BY checkpoint_id DESC, seq DESC", "ORDER BY checkpoint_id, seq"),),
        # Other agents repair the wrong step, which another check finds.
        scenario=Scenario(behaviours=("steps",), weathers=("fair", "slow", "mud")),
    ),
    "a run crashes workers for ever": Mutant(
        found_by="no_crash_loop",
        edits=((Executor._run, "self._settings.max_rescues if agent.continuable else 0", "1_000"),),
    ),
    "code that may be executed once is executed again": Mutant(
        found_by="at_most_once", edits=((Executor._run, "if agent.continuable else 0", ""),)
    ),
    "a stopped run's thread is not repaired": Mutant(
        found_by="valid_threads",
        edits=((Executor._state, "if verdict.needs_repair and ran.agent is not None:", "if False:"),),
    ),
    "a rollback leaves its checkpoints": Mutant(
        found_by="valid_threads",
        edits=((Executor._finish, "rolled_back = verdict.end_reason is EndReason.ROLLED_BACK", "rolled_back = False"),),
    ),
}
