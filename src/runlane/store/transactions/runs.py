"""The transactions that move a run. Lock order: thread, then run. Each checks its guard under those locks."""

from __future__ import annotations

from typing import Final

from runlane.documents.document import whole
from runlane.errors import (
    IllegalTransition,
    LeaseLost,
    NotFound,
)
from runlane.lifecycle import (
    FAILED,
    CancelAction,
    CancelSource,
    EndReason,
    RunEvent,
    RunStatus,
    ThreadStatus,
    move,
)
from runlane.outcomes import Outcome
from runlane.records import (
    Cancelled,
    CancelReceipt,
    Finished,
    Lease,
    Owner,
    RunRecord,
)
from runlane.store.conditions import (
    HAS_RUNNING_RUN,
    HEAD_OF_LANE,
    IS_ACTIVE,
    IS_DUE,
    IS_MINE,
    IS_PENDING,
    NEWEST_CHECKPOINT,
    PENDING,
    thread_status,
)
from runlane.store.rows import (
    dumps,
    error_text,
    head_record,
    microseconds,
    owner_params,
    raised,
    receipt_of,
    run_record,
    scrubbed_kwargs,
    usage_of,
    usage_text,
)
from runlane.store.statements import ExtraWrites, Row, Rows, Transaction, statement
from runlane.store.transactions.bindings import unbind
from runlane.store.transactions.events import last_event
from runlane.store.transactions.heads import OF_BUILD, move_head
from runlane.store.transactions.parts import mark_due
from runlane.store.transactions.start_order import placed
from runlane.store.transactions.values import NO_STATE, StoredState, put_state, run_of
from runlane.store.transactions.webhooks import record_delivery

#: What may become of an attempt through :func:`finish`.
FINISHES = frozenset(
    {RunEvent.SUCCEED, RunEvent.PAUSE, RunEvent.FAIL, RunEvent.EXPIRE, RunEvent.STOP, RunEvent.RELEASE}
)


_THREAD = """SELECT thread_id, owner, metadata, config, interrupts, state_refs FROM threads
       WHERE thread_id = :thread_id"""
_RUN = "SELECT {run} FROM runs WHERE run_id = :run_id"
# Locks the thread's row; every transaction that moves a run takes it first.
LOCK_THREAD = statement("lock_thread", f"{_THREAD} {{for_update}}")
# The same without waiting for it, for work on many threads, of which one must not stop the others.
LOCK_FREE_THREAD = statement("lock_free_thread", f"{_THREAD} {{skip_locked}}")
# The same with all that a thread shows but its values.
LOCK_SHOWN_THREAD = statement(
    "lock_shown_thread", "SELECT {thread_without_values} FROM threads WHERE thread_id = :thread_id {for_update}"
)
# Guard: the id is free.
INSERT_THREAD = statement(
    "insert_thread",
    """INSERT INTO threads (thread_id, owner, status, settled, metadata, config, interrupts,
                          created_at, updated_at, state_updated_at, ttl_us, ttl_strategy, temporary)
       VALUES (:thread_id, :owner, :status, :settled, :metadata, :config, '{}', {now}, {now}, {now},
               CAST(:ttl_us AS BIGINT), :ttl_strategy, :temporary)
       ON CONFLICT (thread_id) DO NOTHING RETURNING {thread_without_values}""",
)
# Called under the thread's lock after its runs have changed.
SETTLE_THREAD = statement(
    "settle_thread",
    f"""UPDATE threads SET
          settled = :settled, error = :error, interrupts = :interrupts, updated_at = {{now}},
          state_refs = CASE WHEN CAST(:state_values AS TEXT) IS NOT NULL THEN :state_refs
                       WHEN state_values IS NOT NULL THEN state_refs END,
          state_values = COALESCE(:state_values, state_values), first_values = NULL,
          state_updated_at = CASE WHEN :touched = 1 THEN {{now}} ELSE state_updated_at END,
          status = {thread_status(":settled")}
        WHERE thread_id = :thread_id""",
)
# Called under the thread's lock, after a run has left the thread interrupted. NULL if that goes on in any build.
KEEP_BUILD = statement(
    "keep_build",
    "",
    postgres=f"""UPDATE threads SET paused_in = graph_id || '{OF_BUILD}' || pinned_to FROM runs
        WHERE run_id = :run_id AND threads.thread_id = runs.thread_id
          AND (paused_in IS NOT NULL OR pinned_to IS NOT NULL)""",
)
# Called under the thread's lock, for a run that goes on from where the thread was interrupted.
TAKE_BUILD = statement(
    "take_build",
    "",
    postgres=f"""UPDATE runs SET pinned_to = SPLIT_PART(paused_in, '{OF_BUILD}', 2) FROM threads
        WHERE run_id = :run_id AND threads.thread_id = runs.thread_id AND settled = '{ThreadStatus.INTERRUPTED.value}'
          AND SPLIT_PART(paused_in, '{OF_BUILD}', 1) = graph_id""",
)
# A run that has not begun, on a thread that goes on in one build only.
NEW_ON_PINNED = statement(
    "new_on_pinned",
    "",
    postgres="""SELECT {run} FROM runs WHERE run_id = :run_id AND attempt = 0
        AND EXISTS (SELECT 1 FROM threads WHERE threads.thread_id = runs.thread_id AND paused_in IS NOT NULL)""",
)
# Called under the thread's lock after its runs have changed; its state stays as it was.
RESTATE_THREAD = statement(
    "restate_thread",
    f"""UPDATE threads SET updated_at = {{now}},
          state_refs = CASE WHEN state_values IS NOT NULL OR {HAS_RUNNING_RUN} THEN state_refs END,
          first_values = CASE WHEN {HAS_RUNNING_RUN} THEN first_values END, status = {thread_status("settled")}
        WHERE thread_id = :thread_id""",
)
ACTIVE_RUNS = statement(
    "active_runs",
    f"SELECT {{run}} FROM runs WHERE thread_id = :thread_id AND {IS_ACTIVE} ORDER BY seq LIMIT :limit",
)
GET_RUN = statement("get_run", f"SELECT {{run}} FROM runs WHERE run_id = :run_id AND {IS_MINE}")
# Whoever ends or takes a run locks it so, and waits until what its attempt writes is committed.
LOCK_RUN = statement("lock_run", f"{_RUN} {{for_update}}")
# The same beside what its attempt writes, for changes that leave the run to it.
LOCK_RUN_BESIDE = statement("lock_run_beside", f"{_RUN} {{for_no_key_update}}")
LOCK_FREE_RUN = statement("lock_free_run", f"{_RUN} {{skip_locked}}")
THREAD_OF_RUN = statement("thread_of_run", "SELECT thread_id FROM runs WHERE run_id = :run_id")
# Whether a thread's values are the result of the run before too, as they most often are.
IS_RESULT = statement(
    "is_result",
    """SELECT 1 AS is_result FROM (
         SELECT result_refs FROM runs WHERE thread_id = :thread_id AND seq < :seq ORDER BY seq DESC LIMIT 1) AS before
       WHERE result_refs = :refs""",
)
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
    """UPDATE runs SET cancel_action = :action, cancel_reason = :reason, cancel_by = :by, cancel_source = :source,
         cancel_requested_at = {now}, updated_at = {now}
       WHERE run_id = :run_id AND cancel_requested_at IS NULL RETURNING {run}""",
)
# Both are called under the locks of thread and run, once the move is legal.
END_RUN = statement(
    "end_run",
    f"""UPDATE runs SET status = :status, end_reason = :end_reason, error = :error, result = :result,
         result_refs = :result_refs,
         usage = COALESCE(:usage, usage), kwargs = COALESCE(:kwargs, kwargs),
         events_end = :events_end, ended_at = {{now}}, updated_at = {{now}},
         log_purged = 0, kept_checkpoint = {NEWEST_CHECKPOINT},
         cancel_observed_at = CASE WHEN cancel_requested_at IS NULL THEN NULL
                              ELSE COALESCE(cancel_observed_at, CAST(:observed_at AS BIGINT), {{now}}) END,
         cancel_stopped_at = CASE WHEN cancel_requested_at IS NULL OR :stopped = 0 THEN NULL ELSE {{now}} END,
         cancel_blocked_at = :blocked_at
       WHERE run_id = :run_id RETURNING {{run}}""",
)
#: Attempts before the last that a run remembers: the first, and the newest ones.
PAST_ATTEMPTS: Final = 50
_RELEASE: Final = f"""UPDATE runs SET status = {PENDING}, worker_id = NULL, updated_at = {{now}},
          usage = COALESCE(:usage, usage), rescues = rescues + :rescues, past_attempts = {{past_attempts}}
        WHERE run_id = :run_id RETURNING {{run}}"""
_ATTEMPT: Final = f"""('attempt', attempt, 'worker_id', worker_id, 'build', build, 'claimed_at', claimed_at,
          'ended_at', {{now}}, 'ended_by', CAST(:ended_by AS TEXT), 'checkpoint_id', {NEWEST_CHECKPOINT})"""
RELEASE_RUN = statement(
    "release_run",
    _RELEASE.replace(
        "{past_attempts}",
        f"""json_insert(CASE WHEN json_array_length(past_attempts) >= {PAST_ATTEMPTS}
          THEN json_remove(past_attempts, '$[1]') ELSE COALESCE(past_attempts, '[]') END,
          '$[#]', json_object{_ATTEMPT})""",
    ),
    postgres=_RELEASE.replace(
        "{past_attempts}",
        f"""CAST(CASE WHEN jsonb_array_length(CAST(past_attempts AS jsonb)) >= {PAST_ATTEMPTS}
          THEN CAST(past_attempts AS jsonb) - 1 ELSE COALESCE(CAST(past_attempts AS jsonb), '[]') END
          || jsonb_build_array(jsonb_build_object{_ATTEMPT}) AS TEXT)""",
    ),
)


def request_cancel(
    run_id: str,
    owner: Owner,
    action: CancelAction,
    reason: EndReason,
    by: str | None,
    source: CancelSource | None = None,
) -> Transaction[Cancelled]:
    """Record a cancel. A pending run that never executed ends here; a terminal run is returned as it is."""
    rows = yield GET_RUN(run_id=run_id, **owner_params(owner))
    if not rows:
        raise NotFound("run", run_id)
    yield LOCK_THREAD(thread_id=rows[0]["thread_id"])
    rows = yield LOCK_RUN_BESIDE(run_id=run_id)
    if not rows:
        raise NotFound("run", run_id)
    if RunStatus(rows[0]["status"]).terminal:
        return Cancelled(run=(yield from run_of(rows[0])))
    done = yield from cancel_active(rows[0], action, reason, by, source)
    if not done.run.status.terminal:
        return done
    thread_id = done.run.thread_id
    yield RESTATE_THREAD(thread_id=thread_id)
    yield from move_head(thread_id)
    following = yield NEXT_OF_LANE(thread_id=thread_id)
    return Cancelled(run=done.run, ended=True, next_run=head_record(following[0]) if following else None)


def cancel_active(
    row: Row, action: CancelAction, reason: EndReason, by: str | None, source: CancelSource | None
) -> Transaction[Cancelled]:
    """Record a cancel on a locked active run; end it if nothing of it has ever executed.

    A run that was handed back has checkpoints, which its next attempt repairs or removes before it ends.
    """
    run_id = row["run_id"]
    changed = yield RECORD_CANCEL(
        run_id=run_id,
        action=action.value,
        reason=reason.value,
        by=by,
        source=None if source is None else source.value,
    )
    row = changed[0] if changed else row
    if RunStatus(row["status"]) is RunStatus.RUNNING or row["attempt"] > 0:
        return Cancelled(run=(yield from run_of(row)))
    status = move(run_id, RunStatus(row["status"]), RunEvent.CANCEL)
    rolled_back = row["cancel_action"] == CancelAction.ROLLBACK.value
    rows = yield END_RUN(
        run_id=run_id,
        thread_id=row["thread_id"],
        status=status.value,
        end_reason=(EndReason.ROLLED_BACK if rolled_back else EndReason(row["cancel_reason"])).value,
        error=None,
        result=None,
        result_refs=None,
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
    return Cancelled(run=(yield from run_of(ended)), ended=True)


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


def finish(
    lease: Lease, outcome: Outcome, extra_writes: ExtraWrites | None = None
) -> Transaction[Finished | CancelReceipt]:
    """End the attempt of *lease* and make its lane's next run claimable, in one transaction, after the *extra_writes*.

    Returns:
        The receipt of a cancel that came first, and nothing is written, if *outcome* is not a stop.

    Raises:
        LeaseLost: Another attempt has the run, or it is terminal.
        IllegalTransition: The event is not one of ``FINISHES``.
    """
    thread, row = yield from _hold(lease)
    if outcome.event is not RunEvent.STOP and (cancel := receipt_of(row)) is not None:
        return cancel
    if extra_writes is not None:
        yield from extra_writes()
    if outcome.event not in FINISHES:
        raise IllegalTransition(lease.run_id, row["status"], outcome.event.value)
    status = move(lease.run_id, RunStatus(row["status"]), outcome.event)
    usage = None if outcome.usage is None else usage_text(raised(usage_of(row["usage"]), outcome.usage))
    if status is RunStatus.PENDING:
        rows = yield RELEASE_RUN(
            run_id=lease.run_id,
            thread_id=lease.thread_id,
            usage=usage,
            rescues=0,
            ended_by=None if outcome.handed_back is None else outcome.handed_back.value,
        )
        yield from move_head(lease.thread_id)
        return Finished(run=(yield from run_of(rows[0])), next_run=head_record(rows[0]))
    state = outcome.state
    kept = NO_STATE if state is None else (yield from put_state(lease.thread_id, state))
    run = yield from end_run(row, status, outcome, usage, kept)
    if outcome.rolled_back:
        yield from unbind(row, wholly=True)
    yield from _release_values(thread, row, kept)
    yield from settle(thread, status, outcome, kept)
    following = yield NEXT_OF_LANE(thread_id=lease.thread_id)
    if state is not None and state.resumable and not outcome.rolled_back:
        yield from _keep_build(lease.run_id, following)
    yield from move_head(lease.thread_id)
    return Finished(
        run=run,
        next_run=head_record(following[0]) if following else None,
        events_end=outcome.events_end,
        result=None if state is None or state.result is None else whole(state.result),
    )


def _keep_build(run_id: str, following: Rows) -> Transaction[None]:
    """Have the thread go on in the build that has interrupted it, also if who answers waits already."""
    yield KEEP_BUILD(run_id=run_id)
    for head in following:
        new = yield NEW_ON_PINNED(run_id=head["run_id"])
        if new and new[0]["input"] is None and run_record(new[0]).request.goes_on:
            yield TAKE_BUILD(run_id=head["run_id"])


def _release_values(thread: Row, row: Row, kept: StoredState) -> Transaction[None]:
    """Have the thread swept if *kept* replaces values that the run before has not left as its result too."""
    refs = thread["state_refs"]
    if refs is None or kept.values.text is None or refs == kept.values.refs:
        return
    if not (yield IS_RESULT(thread_id=thread["thread_id"], seq=row["seq"], refs=refs)):
        yield from mark_due(thread["thread_id"])


def end_run(
    row: Row, status: RunStatus, outcome: Outcome, usage: str | None, kept: StoredState = NO_STATE
) -> Transaction[RunRecord]:
    """Write a run's end, with its result as it is *kept*; its thread is :func:`settle`-d by the same transaction."""
    events_end = outcome.events_end
    if events_end is None:
        events_end = yield from last_event(row["seq"])
    rows = yield END_RUN(
        run_id=row["run_id"],
        thread_id=row["thread_id"],
        status=status.value,
        end_reason=None if outcome.end_reason is None else outcome.end_reason.value,
        error=error_text(outcome.error),
        result=kept.result.text,
        result_refs=kept.result.refs,
        usage=usage,
        kwargs=scrubbed_kwargs(row),
        events_end=events_end,
        observed_at=None if outcome.observed_at is None else microseconds(outcome.observed_at),
        stopped=int(outcome.stopped),
        blocked_at=outcome.blocked_at,
    )
    ended = yield from placed(rows[0])
    yield from record_delivery(ended, None if outcome.state is None else outcome.state.values)
    return (yield from run_of(ended))


def settle(thread: Row, status: RunStatus, outcome: Outcome, kept: StoredState = NO_STATE) -> Transaction[None]:
    """Bring the thread's row up to date; a rolled back run leaves all but the status as it was."""
    state = outcome.state
    if outcome.rolled_back:
        yield RESTATE_THREAD(thread_id=thread["thread_id"])
        return
    if status in FAILED:
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
        state_values=kept.values.text,
        state_refs=kept.values.refs,
        touched=int(state is not None),
    )
