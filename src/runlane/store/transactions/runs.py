"""The transactions that move a run. Lock order: thread, then run. Each checks its guard under those locks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runlane.admission import Decision, decide
from runlane.errors import (
    AlreadyExists,
    CancelRecorded,
    ConflictError,
    IllegalTransition,
    KeyReused,
    LeaseLost,
    NotFound,
    QueueFull,
    RunlaneError,
)
from runlane.lifecycle import (
    CancelAction,
    EndReason,
    MultitaskStrategy,
    RunEvent,
    RunStatus,
    ThreadStatus,
    move,
)
from runlane.outcomes import Outcome
from runlane.records import (
    OF_ONE_RUN,
    Admission,
    AnyOwner,
    Cancelled,
    Finished,
    Json,
    Lease,
    NewRun,
    Owner,
    RunRecord,
    ThreadTtl,
)
from runlane.requests import StoredRequest
from runlane.store.conditions import (
    HAS_RUNNING_RUN,
    HEAD_OF_LANE,
    IS_ACTIVE,
    IS_DUE,
    IS_MINE,
    IS_PENDING,
    PENDING,
    thread_status,
)
from runlane.store.filters import matches
from runlane.store.rows import (
    dumps,
    error_text,
    head_record,
    loads,
    maybe_text,
    microseconds,
    owner_params,
    raised,
    run_record,
    scrubbed_kwargs,
    thread_config,
    ttl_params,
    usage_of,
    usage_text,
)
from runlane.store.statements import ExtraWrites, Row, Rows, Transaction, statement
from runlane.store.transactions.bindings import binding_of, unbind
from runlane.store.transactions.events import last_event
from runlane.store.transactions.protocol import check_answers
from runlane.store.transactions.start_order import placed
from runlane.store.transactions.webhooks import record_delivery

WHOLE_LANE = 2**31
#: How many runs may wait behind their lane's head unless something else is said.
MAX_QUEUED_RUNS = 1000
#: What may become of an attempt through :func:`finish`.
FINISHES = frozenset(
    {RunEvent.SUCCEED, RunEvent.PAUSE, RunEvent.FAIL, RunEvent.EXPIRE, RunEvent.STOP, RunEvent.RELEASE}
)


# Locks the thread's row; every transaction that moves a run takes it first.
LOCK_THREAD = statement("lock_thread", "SELECT * FROM threads WHERE thread_id = :thread_id {for_update}")
# Guard: the id is free.
INSERT_THREAD = statement(
    "insert_thread",
    """INSERT INTO threads (thread_id, owner, status, settled, metadata, config, interrupts,
                          created_at, updated_at, state_updated_at, ttl_us, ttl_strategy, temporary)
       VALUES (:thread_id, :owner, :status, :status, :metadata, :config, '{}', {now}, {now}, {now},
               CAST(:ttl_us AS BIGINT), :ttl_strategy, :temporary)
       ON CONFLICT (thread_id) DO NOTHING RETURNING *""",
)
MARK_BUSY = statement(
    "mark_busy",
    """UPDATE threads SET status = :status, metadata = :metadata, config = :config, updated_at = {now}
       WHERE thread_id = :thread_id""",
)
# Called under the thread's lock after its runs have changed.
SETTLE_THREAD = statement(
    "settle_thread",
    f"""UPDATE threads SET
          settled = :settled, error = :error, interrupts = :interrupts, updated_at = {{now}},
          state_values = COALESCE(:state_values, state_values), first_values = NULL,
          state_updated_at = CASE WHEN :touched = 1 THEN {{now}} ELSE state_updated_at END,
          status = {thread_status(":settled")}
        WHERE thread_id = :thread_id""",
)
RESTATE_THREAD = statement(
    "restate_thread",
    f"""UPDATE threads SET updated_at = {{now}},
          first_values = CASE WHEN {HAS_RUNNING_RUN} THEN first_values END, status = {thread_status("settled")}
        WHERE thread_id = :thread_id""",
)
ACTIVE_RUNS = statement(
    "active_runs",
    f"SELECT {{run}} FROM runs WHERE thread_id = :thread_id AND {IS_ACTIVE} ORDER BY seq LIMIT :limit",
)
# The run behind whom there is no more room: as many wait before it as may.
LAST_PLACE = statement(
    "last_place",
    f"""SELECT 1 AS taken FROM runs WHERE thread_id = :thread_id AND {IS_ACTIVE}
        ORDER BY seq LIMIT 1 OFFSET :places""",
)
FIND_KEY = statement(
    "find_key", "SELECT {run} FROM runs WHERE owner = :owner AND thread_id = :thread_id AND idempotency_key = :key"
)
# Guard: the run id is new; a repeated admission after a lost answer finds its own row.
INSERT_RUN = statement(
    "insert_run",
    f"""INSERT INTO runs (run_id, thread_id, owner, assistant_id, graph_id, status, multitask_strategy, on_disconnect,
                         metadata, kwargs, model_name, temporary, idempotency_key, webhook, home, not_before,
                         created_at, updated_at)
        VALUES (:run_id, :thread_id, :owner, :assistant_id, :graph_id, {PENDING}, :strategy, :on_disconnect, :metadata,
                :kwargs, :model_name, :temporary, :key, :webhook, :home, {{now}} + :delay_us, {{now}}, {{now}})
        ON CONFLICT (run_id) DO NOTHING RETURNING {{run}}""",
)
GET_RUN = statement("get_run", f"SELECT {{run}} FROM runs WHERE run_id = :run_id AND {IS_MINE}")
LOCK_RUN = statement("lock_run", "SELECT {run} FROM runs WHERE run_id = :run_id {for_update}")
THREAD_OF_RUN = statement("thread_of_run", "SELECT thread_id FROM runs WHERE run_id = :run_id")
# The thread's head of its lane; the first run that is due is the only one that can be.
NEXT_OF_LANE = statement(
    "next_of_lane",
    f"""SELECT run_id, seq, owner, assistant_id, graph_id, home FROM runs
        WHERE run_id = (SELECT run_id FROM runs WHERE thread_id = :thread_id AND {IS_PENDING} AND {IS_DUE}
                        ORDER BY seq LIMIT 1)
          AND {HEAD_OF_LANE}""",
)
# Guard: only while no cancel is recorded, so that the first action wins.
RECORD_CANCEL = statement(
    "record_cancel",
    """UPDATE runs SET cancel_action = :action, cancel_reason = :reason, cancel_by = :by,
         cancel_requested_at = {now}, updated_at = {now}
       WHERE run_id = :run_id AND cancel_requested_at IS NULL RETURNING {run}""",
)
END_RUN = statement(
    "end_run",
    """UPDATE runs SET status = :status, end_reason = :end_reason, error = :error, result = :result,
         usage = COALESCE(:usage, usage), kwargs = COALESCE(:kwargs, kwargs),
         events_end = :events_end, ended_at = {now}, updated_at = {now},
         lease_expires_at = NULL, log_purged = 0,
         cancel_observed_at = CASE WHEN cancel_requested_at IS NULL THEN NULL
                              ELSE COALESCE(cancel_observed_at, CAST(:observed_at AS BIGINT), {now}) END,
         cancel_stopped_at = CASE WHEN cancel_requested_at IS NULL OR :stopped = 0 THEN NULL ELSE {now} END,
         cancel_blocked_at = :blocked_at
       WHERE run_id = :run_id RETURNING {run}""",
)
RELEASE_RUN = statement(
    "release_run",
    f"""UPDATE runs SET status = {PENDING}, worker_id = NULL, lease_expires_at = NULL, updated_at = {{now}},
          usage = COALESCE(:usage, usage), rescues = rescues + :rescues
        WHERE run_id = :run_id RETURNING {{run}}""",
)


def admit(new: NewRun, ttl: ThreadTtl | None = None, max_queued_runs: int = MAX_QUEUED_RUNS) -> Transaction[Admission]:
    """Admit *new*, or refuse it, under its thread's lock; see :func:`runlane.admission.decide`.

    Args:
        ttl: When the thread expires if it is made here.
        max_queued_runs: How many runs may wait behind the lane's head.
    """
    thread = yield from _lock_or_make_thread(new, ttl)
    if new.idempotency_key is not None:
        same = yield FIND_KEY(owner=new.owner, thread_id=new.thread_id, key=new.idempotency_key)
        if same:
            if StoredRequest(same[0]["kwargs"]).origin.fingerprint != new.origin.fingerprint:
                raise KeyReused(new.idempotency_key, same[0]["run_id"])
            again = yield from _admitted_before(new, same)
            return again
    active, decision = yield from _decide(new, thread, max_queued_runs)
    if decision.blocked_by is not None or decision.full:
        same = yield GET_RUN(run_id=new.run_id, **owner_params(new.owner))
        if not same:
            raise _refusal(new, decision, max_queued_runs)
        again = yield from _admitted_before(new, same)
        return again
    metadata = loads(thread["metadata"])
    rows = yield _insert(new, metadata)
    if not rows:
        same = yield GET_RUN(run_id=new.run_id, **owner_params(new.owner))
        again = yield from _admitted_before(new, same)
        return again
    cancelled = yield from _supersede(active, decision, new.run_id)
    yield MARK_BUSY(
        thread_id=new.thread_id,
        status=ThreadStatus.BUSY.value,
        metadata=dumps({**metadata, **new.thread_metadata}),
        config=dumps(thread_config(loads(thread["config"]), new.request.config)),
    )
    runnable_now = new.delay_s <= 0
    if active:
        head = yield NEXT_OF_LANE(thread_id=new.thread_id)
        runnable_now = bool(head) and head[0]["run_id"] == new.run_id
    return Admission(run=run_record(rows[0]), runnable=runnable_now, cancelled=cancelled)


def _decide(new: NewRun, thread: Row, max_queued_runs: int) -> Transaction[tuple[Rows, Decision]]:
    """Return the active runs of the lane, as many as are needed, and what is decided about *new*."""
    # A lane may be long; only a strategy that cancels needs more of it than its first run.
    cancels = new.multitask_strategy in (MultitaskStrategy.INTERRUPT, MultitaskStrategy.ROLLBACK)
    active = yield ACTIVE_RUNS(thread_id=new.thread_id, limit=WHOLE_LANE if cancels or new.request.answers else 1)
    if new.request.answers:
        yield from check_answers(new, thread, active)
    last: Rows = ()
    if active and new.multitask_strategy is MultitaskStrategy.ENQUEUE:
        last = yield LAST_PLACE(thread_id=new.thread_id, places=max_queued_runs)
    return active, decide(new.multitask_strategy, [row["run_id"] for row in active], full=bool(last))


def _refusal(new: NewRun, decision: Decision, max_queued_runs: int) -> RunlaneError:
    if decision.blocked_by is not None:
        return ConflictError(new.thread_id, decision.blocked_by)
    return QueueFull(new.thread_id, max_queued_runs)


def admit_all(
    news: Sequence[NewRun], ttl: ThreadTtl | None = None, max_queued_runs: int = MAX_QUEUED_RUNS
) -> Transaction[tuple[Admission, ...]]:
    """Admit each of *news*, in order; if one cannot be admitted none is."""
    done = []
    for new in news:
        admission = yield from admit(new, ttl, max_queued_runs)
        done.append(admission)
    return tuple(done)


def _admitted_before(new: NewRun, same: Rows) -> Transaction[Admission]:
    """Answer a repeated admission as the first one, whose answer the caller may never have got."""
    if not same or same[0]["thread_id"] != new.thread_id:
        raise AlreadyExists("run", new.run_id)
    head = yield NEXT_OF_LANE(thread_id=new.thread_id)
    runnable_now = bool(head) and head[0]["run_id"] == same[0]["run_id"]
    return Admission(run=run_record(same[0]), runnable=runnable_now, reused=True)


def _lock_or_make_thread(new: NewRun, ttl: ThreadTtl | None) -> Transaction[Row]:
    found = yield LOCK_THREAD(thread_id=new.thread_id)
    if not found and new.create_thread:
        made = yield INSERT_THREAD(
            thread_id=new.thread_id,
            owner=new.owner,
            status=ThreadStatus.IDLE.value,
            metadata=dumps({**(new.default_metadata or {}), **new.metadata}),
            config="{}",
            **ttl_params(new.thread_ttl or ttl),
            temporary=int(new.temporary),
        )
        found = yield LOCK_THREAD(thread_id=new.thread_id)
        if made:
            return found[0]
    if not found or not _may_run_on(new, found[0]):
        raise NotFound("thread", new.thread_id)
    return found[0]


def _may_run_on(new: NewRun, thread: Row) -> bool:
    owner = new.owner if new.thread_owner is None else new.thread_owner
    if not isinstance(owner, AnyOwner) and thread["owner"] != owner:
        return False
    return not new.thread_where or matches(new.thread_where, loads(thread["metadata"]))


def _insert(new: NewRun, thread_metadata: Json) -> Any:
    metadata = new.metadata
    if new.default_metadata is not None:
        inherited = {name: value for name, value in thread_metadata.items() if name not in OF_ONE_RUN}
        metadata = {**new.default_metadata, **inherited, **metadata}
    return INSERT_RUN(
        run_id=new.run_id,
        thread_id=new.thread_id,
        owner=new.owner,
        assistant_id=new.assistant_id,
        graph_id=new.request.graph_id,
        strategy=new.multitask_strategy.value,
        on_disconnect=new.on_disconnect.value,
        metadata=dumps(metadata),
        kwargs=StoredRequest.of(new.request, new.origin, binding_of(thread_metadata, new.thread_metadata)).text,
        model_name=new.model_name,
        temporary=int(new.temporary),
        key=new.idempotency_key,
        webhook=new.webhook,
        home=new.home,
        delay_us=int(new.delay_s * 1_000_000),
    )


def _supersede(active: Sequence[Row], decision: Decision, by: str) -> Transaction[tuple[Cancelled, ...]]:
    if decision.cancel is None:
        return ()
    cancelled = []
    for row in active:
        done = yield from _cancel(row, decision.cancel, EndReason.SUPERSEDED, by)
        cancelled.append(done)
    return tuple(cancelled)


def request_cancel(
    run_id: str, owner: Owner, action: CancelAction, reason: EndReason, by: str | None
) -> Transaction[Cancelled]:
    """Record a cancel. A pending run that never executed ends here; a terminal run is returned as it is."""
    rows = yield GET_RUN(run_id=run_id, **owner_params(owner))
    if not rows:
        raise NotFound("run", run_id)
    yield LOCK_THREAD(thread_id=rows[0]["thread_id"])
    rows = yield LOCK_RUN(run_id=run_id)
    if not rows:
        raise NotFound("run", run_id)
    if RunStatus(rows[0]["status"]).terminal:
        return Cancelled(run=run_record(rows[0]))
    done = yield from _cancel(rows[0], action, reason, by)
    if not done.run.status.terminal:
        return done
    thread_id = done.run.thread_id
    yield RESTATE_THREAD(thread_id=thread_id)
    following = yield NEXT_OF_LANE(thread_id=thread_id)
    return Cancelled(run=done.run, ended=True, next_run=head_record(following[0]) if following else None)


def _cancel(row: Row, action: CancelAction, reason: EndReason, by: str | None) -> Transaction[Cancelled]:
    """Record a cancel on a locked active run; end it if nothing of it has ever executed.

    A run that was handed back has checkpoints, which its next attempt repairs or removes before it ends.
    """
    run_id = row["run_id"]
    changed = yield RECORD_CANCEL(run_id=run_id, action=action.value, reason=reason.value, by=by)
    row = changed[0] if changed else row
    if RunStatus(row["status"]) is RunStatus.RUNNING or row["attempt"] > 0:
        return Cancelled(run=run_record(row))
    status = move(run_id, RunStatus(row["status"]), RunEvent.CANCEL)
    rolled_back = row["cancel_action"] == CancelAction.ROLLBACK.value
    rows = yield END_RUN(
        run_id=run_id,
        status=status.value,
        end_reason=(EndReason.ROLLED_BACK if rolled_back else EndReason(row["cancel_reason"])).value,
        error=None,
        result=None,
        usage=None,
        kwargs=scrubbed_kwargs(row),
        events_end=0,
        observed_at=None,
        stopped=1,
        blocked_at=None,
    )
    ended = yield from placed(rows[0])
    yield from unbind(row, wholly=rolled_back)
    yield from record_delivery(ended, None)
    return Cancelled(run=run_record(ended), ended=True)


def _hold(lease: Lease) -> Transaction[tuple[Row, Row]]:
    """Lock the thread and the run of *lease* and return their rows; LeaseLost if another attempt has the run."""
    thread = yield LOCK_THREAD(thread_id=lease.thread_id)
    rows = yield LOCK_RUN(run_id=lease.run_id)
    if (
        not thread
        or not rows
        or rows[0]["attempt"] != lease.attempt
        or RunStatus(rows[0]["status"]) is not RunStatus.RUNNING
    ):
        raise LeaseLost(lease.run_id, lease.attempt)
    return thread[0], rows[0]


def finish(lease: Lease, outcome: Outcome, extra_writes: ExtraWrites | None = None) -> Transaction[Finished]:
    """End the attempt of *lease* and make its lane's next run claimable, in one transaction, after the *extra_writes*.

    Raises:
        LeaseLost: Another attempt has the run, or it is terminal.
        CancelRecorded: A cancel came first, and *outcome* is not a stop.
        IllegalTransition: The event is not one of ``FINISHES``.
    """
    thread, row = yield from _hold(lease)
    if row["cancel_requested_at"] is not None and outcome.event is not RunEvent.STOP:
        raise CancelRecorded(lease.run_id)
    if extra_writes is not None:
        yield from extra_writes()
    if outcome.event not in FINISHES:
        raise IllegalTransition(lease.run_id, row["status"], outcome.event.value)
    status = move(lease.run_id, RunStatus(row["status"]), outcome.event)
    usage = None if outcome.usage is None else usage_text(raised(usage_of(row["usage"]), outcome.usage))
    if status is RunStatus.PENDING:
        rows = yield RELEASE_RUN(run_id=lease.run_id, usage=usage, rescues=0)
        return Finished(run=run_record(rows[0]), next_run=head_record(rows[0]))
    run = yield from end_run(row, status, outcome, usage)
    if outcome.rolled_back:
        yield from unbind(row, wholly=True)
    yield from settle(thread, status, outcome)
    following = yield NEXT_OF_LANE(thread_id=lease.thread_id)
    return Finished(run=run, next_run=head_record(following[0]) if following else None)


def end_run(row: Row, status: RunStatus, outcome: Outcome, usage: str | None) -> Transaction[RunRecord]:
    """Write a run's end; its thread is :func:`settle`-d by the same transaction."""
    events_end = outcome.events_end
    if events_end is None:
        events_end = yield from last_event(row["seq"])
    rows = yield END_RUN(
        run_id=row["run_id"],
        status=status.value,
        end_reason=None if outcome.end_reason is None else outcome.end_reason.value,
        error=error_text(outcome.error),
        result=None if outcome.state is None else maybe_text(outcome.state.result),
        usage=usage,
        kwargs=scrubbed_kwargs(row),
        events_end=events_end,
        observed_at=None if outcome.observed_at is None else microseconds(outcome.observed_at),
        stopped=int(outcome.stopped),
        blocked_at=outcome.blocked_at,
    )
    ended = yield from placed(rows[0])
    yield from record_delivery(ended, None if outcome.state is None else outcome.state.values)
    return run_record(ended)


def settle(thread: Row, status: RunStatus, outcome: Outcome) -> Transaction[None]:
    """Bring the thread's row up to date; a rolled back run leaves all but the status as it was."""
    state = outcome.state
    if outcome.rolled_back:
        yield RESTATE_THREAD(thread_id=thread["thread_id"])
        return
    if status in (RunStatus.ERROR, RunStatus.TIMEOUT):
        settled = ThreadStatus.ERROR
    elif state is not None and state.resumable:
        settled = ThreadStatus.INTERRUPTED
    else:
        settled = ThreadStatus.IDLE
    yield SETTLE_THREAD(
        thread_id=thread["thread_id"],
        settled=settled.value,
        error=error_text(outcome.error),
        interrupts=thread["interrupts"] if state is None else dumps(state.interrupts),
        state_values=None if state is None else maybe_text(state.values),
        touched=int(state is not None),
    )
