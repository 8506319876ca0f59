"""The admission of runs: it reads the lane, lets :mod:`runlane.admission` decide, and writes.

Lock order: thread, then run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from msgspec import structs

from runlane import admission
from runlane.admission import ActiveRun, LaneView
from runlane.documents.document import whole
from runlane.errors import AlreadyExists, NotFound
from runlane.lifecycle import CancelAction, CancelSource, EndReason, ThreadStatus
from runlane.records import Admission, AnyOwner, Cancelled, Claimant, Json, NewRun, RunRecord, ThreadTtl
from runlane.requests import StoredRequest
from runlane.store.conditions import IS_ACTIVE, PENDING
from runlane.store.filters import matches
from runlane.store.rows import dumps, loads, owner_params, thread_config, ttl_params
from runlane.store.statements import Row, Rows, Transaction, statement
from runlane.store.transactions.bindings import binding_of
from runlane.store.transactions.claims import claim_head, claimed_before
from runlane.store.transactions.heads import move_head
from runlane.store.transactions.runs import (
    ACTIVE_RUNS,
    GET_RUN,
    INSERT_THREAD,
    LOCK_THREAD,
    NEXT_OF_LANE,
    TAKE_BUILD,
    cancel_active,
)
from runlane.store.transactions.values import NO_VALUE, put_value, run_of

WHOLE_LANE: Final = 2**31
#: How many runs may wait behind their lane's head unless something else is set.
MAX_QUEUED_RUNS: Final = 1000

# Called under the thread's lock.
MARK_BUSY = statement(
    "mark_busy",
    """UPDATE threads SET status = :status, metadata = :metadata, config = :config, updated_at = {now}
       WHERE thread_id = :thread_id""",
)
# Called before any thread is locked, so that whoever locks several does so in one order. SQLite has one writer.
LOCK_THREADS = statement(
    "lock_threads",
    "",
    postgres="SELECT thread_id FROM threads WHERE thread_id IN {listed :thread_ids} ORDER BY thread_id {for_update}",
)
# The same of threads that are to be made. Held until the commit.
LOCK_NEW_THREADS = statement(
    "lock_new_threads",
    "",
    postgres="""SELECT pg_advisory_xact_lock(hashtextextended('runlane thread ' || thread_id, 0))
        FROM (SELECT json_array_elements_text(CAST(:thread_ids AS json)) AS thread_id) AS wanted""",
)
# Called under the thread's lock. The run behind which there is no more room: as many wait before it as may.
LAST_PLACE = statement(
    "last_place",
    f"""SELECT 1 AS taken FROM runs WHERE thread_id = :thread_id AND {IS_ACTIVE}
        ORDER BY seq LIMIT 1 OFFSET :places""",
)
# Called under the thread's lock.
FIND_KEY = statement(
    "find_key", "SELECT {run} FROM runs WHERE owner = :owner AND thread_id = :thread_id AND idempotency_key = :key"
)
# Called under the thread's lock. The newest run that answers, or answered, an interrupt is among its newest ones.
NEWEST_RUNS = statement(
    "newest_runs", "SELECT run_id, kwargs FROM runs WHERE thread_id = :thread_id ORDER BY seq DESC LIMIT 20"
)
# Guard: the run id is new; a repeated admission after a lost answer finds its own row.
INSERT_RUN = statement(
    "insert_run",
    f"""INSERT INTO runs (run_id, thread_id, owner, assistant_id, graph_id, status, multitask_strategy, on_disconnect,
                         metadata, kwargs, input, input_refs, model_name, temporary, idempotency_key, webhook, home,
                         not_before, created_at, updated_at)
        VALUES (:run_id, :thread_id, :owner, :assistant_id, :graph_id, {PENDING}, :strategy, :on_disconnect, :metadata,
                :kwargs, :input, :input_refs, :model_name, :temporary, :key, :webhook, :home,
                {{now}} + :delay_us, {{now}}, {{now}})
        ON CONFLICT (run_id) DO NOTHING RETURNING {{run}}""",
)


def admit(
    new: NewRun,
    ttl: ThreadTtl | None = None,
    max_queued_runs: int = MAX_QUEUED_RUNS,
    claimant: Claimant | None = None,
) -> Transaction[Admission]:
    """Admit *new*, or refuse it, under its thread's lock; see :func:`runlane.admission.decide`.

    Args:
        ttl: When the thread expires if it is made here.
        max_queued_runs: How many runs may wait behind the lane's head.
        claimant: Claims the run if it may start at once.
    """
    admitted = yield from _admit(new, ttl, max_queued_runs)
    if claimant is None or admitted.run.run_id != new.run_id:
        yield from move_head(new.thread_id)
        return admitted
    claim = None
    if admitted.runnable:
        claim = yield from claim_head(new.run_id, claimant, streamed=new.streamed, stored=admitted.run.stored)
    elif admitted.reused:  # this admission is repeated, as its answer was lost
        claim = yield from claimed_before(new.run_id, claimant, streamed=new.streamed)
    yield from move_head(new.thread_id)
    return structs.replace(admitted, claim=claim)


def _admit(new: NewRun, ttl: ThreadTtl | None, max_queued_runs: int) -> Transaction[Admission]:
    thread = yield from _lock_thread(new)
    if thread is None:
        made = yield from _make_thread(new, ttl)
        if made:
            return (yield from _admit_first(new))
        thread = yield from _lock_thread(new)  # another admission made it meanwhile
    if thread is None or not _may_run_on(new, thread):
        raise NotFound("thread", new.thread_id)
    return (yield from _admit_to_lane(new, thread, max_queued_runs))


def admit_all(
    news: Sequence[NewRun], ttl: ThreadTtl | None = None, max_queued_runs: int = MAX_QUEUED_RUNS
) -> Transaction[tuple[Admission, ...]]:
    """Admit each of *news*, in order; if one cannot be admitted none is.

    Lock order: the threads, by their ids, then as :func:`admit`.
    """
    wanted = sorted({new.thread_id for new in news})
    if len(wanted) > 1:
        found = yield LOCK_THREADS(thread_ids=dumps(wanted))
        private = {new.thread_id for new in news if new.temporary}  # nobody else knows their ids
        made = [one for one in wanted if one not in private and one not in {row["thread_id"] for row in found}]
        if made:
            yield LOCK_NEW_THREADS(thread_ids=dumps(made))
    done = []
    for new in news:
        admitted = yield from admit(new, ttl, max_queued_runs)
        done.append(admitted)
    return tuple(done)


def _lock_thread(new: NewRun) -> Transaction[Row | None]:
    rows = yield LOCK_THREAD(thread_id=new.thread_id)
    return rows[0] if rows else None


def _may_run_on(new: NewRun, thread: Row) -> bool:
    owner = new.owner if new.thread_owner is None else new.thread_owner
    if not isinstance(owner, AnyOwner) and thread["owner"] != owner:
        return False
    return not new.thread_where or matches(new.thread_where, loads(thread["metadata"]))


def _make_thread(new: NewRun, ttl: ThreadTtl | None) -> Transaction[bool]:
    """Make the thread as its first run leaves it; ``False`` if it is not to be made, or is there."""
    if not new.create_thread:
        return False
    made = yield INSERT_THREAD(
        thread_id=new.thread_id,
        owner=new.owner,
        status=ThreadStatus.BUSY.value,
        settled=ThreadStatus.IDLE.value,
        metadata=dumps({**admission.thread_metadata(new), **new.thread_metadata}),
        config=dumps(thread_config({}, new.request.config)),
        **ttl_params(new.thread_ttl or ttl),
        temporary=int(new.temporary),
    )
    return bool(made)


def _admit_first(new: NewRun) -> Transaction[Admission]:
    """Admit the first run of a thread that this transaction has made: its lane is empty."""
    decision = admission.decide(new, LaneView())
    if decision.refusal is not None:
        raise decision.refusal
    run = yield from _insert(new, admission.thread_metadata(new))
    if run is None:
        raise AlreadyExists("run", new.run_id)
    head = admission.starts_at_once(new, head=None, alone=True)
    return Admission(run=run, runnable=head)


def _admit_to_lane(new: NewRun, thread: Row, max_queued_runs: int) -> Transaction[Admission]:
    if new.idempotency_key is not None:
        same = yield FIND_KEY(owner=new.owner, thread_id=new.thread_id, key=new.idempotency_key)
        if same:
            return (yield from _admitted_before(new, same, by_key=True))
    active = yield ACTIVE_RUNS(thread_id=new.thread_id, limit=WHOLE_LANE if admission.reads_whole_lane(new) else 1)
    lane = yield from _lane(new, thread, active, max_queued_runs)
    decision = admission.decide(new, lane)
    metadata = loads(thread["metadata"])
    run = None
    if decision.refusal is None:
        run = yield from _insert(new, metadata)
    if run is None:
        same = yield GET_RUN(run_id=new.run_id, **owner_params(new.owner))
        if decision.refusal is not None and not same:
            raise decision.refusal
        return (yield from _admitted_before(new, same, by_key=False))
    if new.request.goes_on and new.large_input is None:
        yield TAKE_BUILD(run_id=new.run_id)
    cancelled = yield from _cancel_all(active, decision.cancel, new.run_id)
    yield MARK_BUSY(
        thread_id=new.thread_id,
        status=ThreadStatus.BUSY.value,
        metadata=dumps({**metadata, **new.thread_metadata}),
        config=dumps(thread_config(loads(thread["config"]), new.request.config)),
    )
    head = None
    if active:
        head = yield from _head(new.thread_id)
    runnable = admission.starts_at_once(new, head=head, alone=not active)
    return Admission(run=run, runnable=runnable, cancelled=cancelled)


def _lane(new: NewRun, thread: Row, active: Rows, max_queued_runs: int) -> Transaction[LaneView]:
    """Read what the decision needs to know of the lane."""
    full: Rows = ()
    if active and admission.needs_a_place(new):
        full = yield LAST_PLACE(thread_id=new.thread_id, places=max_queued_runs)
    if not new.request.answers:
        runs = tuple(ActiveRun(run_id=row["run_id"]) for row in active)
        return LaneView(active=runs, max_queued_runs=max_queued_runs, full=bool(full))
    lane = LaneView(
        active=tuple(
            ActiveRun(run_id=row["run_id"], answers=StoredRequest(row["kwargs"]).request.answers) for row in active
        ),
        max_queued_runs=max_queued_runs,
        full=bool(full),
        open_interrupts=frozenset(item["id"] for items in loads(thread["interrupts"]).values() for item in items),
    )
    if not admission.not_open(new, lane):
        return lane
    newest = yield NEWEST_RUNS(thread_id=new.thread_id)
    answered = {
        interrupt_id: row["run_id"]
        for row in reversed(newest)
        for interrupt_id in StoredRequest(row["kwargs"]).request.answers
    }
    return replace(lane, answered=answered)


def _head(thread_id: str) -> Transaction[str | None]:
    rows = yield NEXT_OF_LANE(thread_id=thread_id)
    return rows[0]["run_id"] if rows else None


def _admitted_before(new: NewRun, same: Rows, *, by_key: bool) -> Transaction[Admission]:
    """Answer a repeated admission as the first one, whose answer the caller may never have got."""
    if not same:
        raise AlreadyExists("run", new.run_id)
    row = same[0]
    admission.check_repeated(
        new,
        run_id=row["run_id"],
        thread_id=row["thread_id"],
        fingerprint=StoredRequest(row["kwargs"]).origin.fingerprint if by_key else None,
        by_key=by_key,
    )
    head = yield from _head(new.thread_id)
    run = yield from run_of(row)
    return Admission(run=run, runnable=head == row["run_id"], reused=True)


def _insert(new: NewRun, thread_metadata: Json) -> Transaction[RunRecord | None]:
    """Insert the run and return it, or ``None`` if its id is there."""
    stored = StoredRequest.of(new.request, new.origin, binding_of(thread_metadata, new.thread_metadata))
    apart = NO_VALUE
    if new.large_input is not None:
        stored = StoredRequest(stored.without_input().text, whole(new.large_input))  # as it will be read
        apart = yield from put_value(new.thread_id, new.large_input)
    rows = yield INSERT_RUN(
        run_id=new.run_id,
        thread_id=new.thread_id,
        owner=new.owner,
        assistant_id=new.assistant_id,
        graph_id=new.request.graph_id,
        strategy=new.multitask_strategy.value,
        on_disconnect=new.on_disconnect.value,
        metadata=dumps(admission.run_metadata(new, thread_metadata)),
        kwargs=stored.text,
        input=apart.text,
        input_refs=apart.refs,
        model_name=new.model_name,
        temporary=int(new.temporary),
        key=new.idempotency_key,
        webhook=new.webhook,
        home=new.home,
        delay_us=int(new.delay_s * 1_000_000),
    )
    return (yield from run_of(rows[0], stored)) if rows else None


def _cancel_all(active: Rows, action: CancelAction | None, by: str) -> Transaction[tuple[Cancelled, ...]]:
    if action is None:
        return ()
    cancelled = []
    for row in active:
        done = yield from cancel_active(row, action, EndReason.SUPERSEDED, by, CancelSource.RUN)
        cancelled.append(done)
    return tuple(cancelled)
