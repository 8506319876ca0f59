"""Every operation of the store that writes, as a transaction on one small ledger in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import psycopg

from interleaving import alone
from ledger_kit import A_WORKER, EMPTY, LONG_AGO, NOON, WORKER, a_plan, a_run, a_target, outcome
from runlane.journal.remainder import append
from runlane.leases import SeenLease, SeenWorker, WorkerState
from runlane.lifecycle import CancelAction, EndReason, RunEvent
from runlane.outcomes import Snapshot
from runlane.records import ANY_OWNER, NO_OWNER, Claimant, Lease, RunError, StreamEvent
from runlane.store.drivers.together import together
from runlane.store.statements import Transaction, statement
from runlane.store.transactions import (
    admissions,
    assistants,
    claims,
    crons,
    leases,
    parts,
    rescues,
    run_queries,
    runs,
    threads,
    totals,
    webhooks,
    workers,
)
from runlane.store.transactions.assistants import NewAssistant
from runlane.store.transactions.crons import Cron, Firing
from runlane.store.transactions.events import last_event, purge_events
from runlane.store.transactions.heads import HeadsWanted
from runlane.store.transactions.run_logs import append_log
from runlane.store.transactions.webhooks import Attempted, DeliveryStatus
from runlane.telemetry.run_log import LogSegment, RunLogRecord

CLAIMANT = Claimant(worker_id="other", lease_s=60, has_code=True)
ANYONE = Claimant(worker_id="other", lease_s=60, has_code=False)
STATE = Snapshot(values=b'{"a":1}', result=b'{"a":1}')
ERROR = RunError(error="Gone", message="gone")
HOOK = "https://hooks.example.com/run"
PLAN = a_plan(schedule="0 0 1 1 *")
EXPIRES = statement(
    "expires",
    """UPDATE threads SET ttl_us = 0, ttl_strategy = 'delete', updated_at = updated_at - 100000000
       WHERE thread_id = 't'""",
)

#: All that the operations change, without instants.
SHOWN = (
    """SELECT thread_id, status, settled, metadata, interrupts, error, state_values, first_values, ttl_us,
         (SELECT run_id FROM runs WHERE seq = head_seq) AS head, head_home FROM threads ORDER BY thread_id""",
    """SELECT run_id, thread_id, status, end_reason, attempt, rescues, worker_id, home, cancel_action,
         cancel_observed_at IS NULL AS unseen, usage, model_name, events_end, log_purged,
         start_order IS NULL AS unplaced FROM runs ORDER BY run_id""",
    """SELECT COALESCE(run_id, 'no run') AS run_id, first_seq, last_seq, md5(frames) AS frames
       FROM events LEFT JOIN runs ON seq = run_seq ORDER BY 1, 2""",
    """SELECT COALESCE(run_id, 'no run') AS run_id, run_logs.attempt, first_number, last_number
       FROM run_logs LEFT JOIN runs ON seq = run_seq ORDER BY 1, 2, 3""",
    "SELECT cron_id, schedule, revision, enabled, last_run_id FROM crons ORDER BY cron_id",
    "SELECT worker_id, beats, drain_asked_at IS NULL FROM workers ORDER BY worker_id",
    "SELECT run_id, status, attempts, tries FROM webhook_deliveries ORDER BY run_id",
    "SELECT run_id, number FROM webhook_attempts ORDER BY run_id, number",
    "SELECT assistant_id, version, name FROM assistants ORDER BY assistant_id",
    "SELECT assistant_id, version, name FROM assistant_versions ORDER BY assistant_id, version",
    "SELECT run_id, status FROM deleted_runs ORDER BY run_id",
    "SELECT status, end_reason, runs FROM run_totals ORDER BY status, end_reason",
)
STATE_SHOWN = " UNION ALL ".join(f"(SELECT json_agg(shown) AS found FROM ({sql}) AS shown)" for sql in SHOWN)
#: Keeps every row, and the state of every sequence, in a schema of its own.
SAVE = """DO $$ DECLARE name TEXT; found BOOLEAN; BEGIN
  DROP SCHEMA IF EXISTS saved CASCADE;
  CREATE SCHEMA saved;
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'runlane' AND tablename <> 'runlane_version' LOOP
    EXECUTE format('SELECT EXISTS (TABLE runlane.%I)', name) INTO found;
    IF found THEN EXECUTE format('CREATE TABLE saved.%I AS TABLE runlane.%I', name, name); END IF;
  END LOOP;
  CREATE TABLE saved.sequences AS SELECT sequencename, last_value FROM pg_sequences
    WHERE schemaname = 'runlane' AND last_value IS NOT NULL;
END $$"""
RESTORE = """DO $$ DECLARE name TEXT; BEGIN
  SET LOCAL session_replication_role = replica;
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'saved' AND tablename <> 'sequences' LOOP
    EXECUTE format('INSERT INTO runlane.%I OVERRIDING SYSTEM VALUE TABLE saved.%I', name, name);
  END LOOP;
  PERFORM setval(format('runlane.%I', sequencename)::regclass, last_value) FROM saved.sequences;
END $$"""


class Lane(Enum):
    """What there is on the thread ``t``."""

    IDLE = "idle"
    WAITING = "waiting"
    BUSY = "busy"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A thread ``t`` that has expired, with a run that ended, its webhook, and a cron that is due.

    Unless it is idle, two runs wait on it, and a third one on the thread ``v`` for its home, which is gone. If it is
    busy, another run executes before them, and one on the thread ``w``.

    Attributes:
        beside: Of the run on ``w``; the same as ``lease`` while there is none.
    """

    lease: Lease
    beside: Lease
    seen: SeenLease
    cron: Cron


class Worlds:
    """Makes the same world again and again: its rows are kept, which is far faster than to do it all again."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._saved: tuple[Lane, World] | None = None

    def new(self, lane: Lane) -> World:
        connection = self._connection
        if self._saved is not None and self._saved[0] is lane:
            connection.execute(f"{EMPTY}; {RESTORE}")
        else:
            connection.execute(EMPTY)
            self._saved = lane, _make(connection, lane)
            connection.execute(SAVE)
        connection.commit()
        return self._saved[1]

    def state(self) -> list[Any]:
        """Return all that is shown of the present one."""
        found = self._connection.execute(STATE_SHOWN.encode()).fetchall()
        self._connection.commit()
        return [row["found"] for row in found]


def _make(connection: psycopg.Connection[Any], lane: Lane) -> World:
    connection.commit()

    def do(transaction: Transaction[Any]) -> Any:
        done = alone(connection, lambda: transaction)
        assert done.error is None, done.error
        return done.result

    do(workers.beat(A_WORKER))
    do(assistants.create_assistant(_assistant("a"), if_exists_return=False))
    do(assistants.update_assistant("a", ANY_OWNER, {"name": "second"}))
    claimant = Claimant(worker_id=WORKER, lease_s=60, has_code=True)
    do(admissions.admit(a_run("t", run_id="r0", webhook=HOOK)))
    lease = do(claims.claim("r0", claimant)).lease
    do(append(lease, [_event(1)]))
    do(runs.finish(lease, outcome(RunEvent.SUCCEED, events_end=1)))
    do(_one(LONG_AGO(run_id="r0")))
    beside = lease
    if lane is Lane.BUSY:
        for thread_id, run_id in (("w", "beside"), ("t", "r1")):
            do(admissions.admit(a_run(thread_id, run_id=run_id)))
            beside, lease = lease, do(claims.claim(run_id, claimant)).lease
            do(append(lease, [_event(1)]))
    if lane is not Lane.IDLE:
        for run_id in ("r2", "r2b"):
            do(admissions.admit(a_run("t", run_id=run_id)))
        do(admissions.admit(a_run("v", run_id="at home", home="gone")))
    cron = do(crons.create_cron("c", a_target("t"), PLAN))
    do(_one(EXPIRES()))
    return World(
        lease=lease,
        beside=beside,
        seen=SeenLease(run_id="r1", attempt=1, worker_id=WORKER, lease_s=60, beats=1),
        cron=cron,
    )


_LOGGED = LogSegment(records=(RunLogRecord(1, 1, 0, "info", "graph", "said"),), oldest=1)


def _assistant(assistant_id: str) -> NewAssistant:
    return NewAssistant(assistant_id=assistant_id, owner=NO_OWNER, graph_id="g", config={}, context={}, metadata={})


def _event(seq: int, attempt: int = 1) -> StreamEvent:
    return StreamEvent(seq=seq, name="custom", data=str(attempt).encode())


def _one(query: Any) -> Transaction[None]:
    yield query


def _cancel(run_id: str, action: CancelAction = CancelAction.INTERRUPT) -> Transaction[Any]:
    return runs.request_cancel(run_id, ANY_OWNER, action, EndReason.USER_CANCEL, None)


def _take_over(world: World) -> Transaction[None]:
    """Take a run from its worker, begin its next attempt, and log that, as another worker does in three steps."""
    rescued = yield from rescues.rescue(world.seen, 3)
    if rescued is None:
        return
    claimed = yield from claims.claim("r1", CLAIMANT)
    assert claimed is not None
    last = yield from last_event(claimed.run.seq)
    yield from append(claimed.lease, [_event(last + 1, attempt=2)])


def _append_together(world: World) -> Transaction[None]:
    """Append to the logs of both runs that execute as a process does that has many, or to none of them."""
    batches = [append(lease, [_event(2)]) for lease in (world.beside, world.lease)]
    for _, error in (yield from together(batches)):
        if error is not None:
            raise error


def _new_thread(thread_id: str) -> Transaction[Any]:
    new = threads.NewThread(thread_id=thread_id, owner=NO_OWNER, metadata={})
    return threads.create_thread(new, if_exists_return=True)


def _settled(status: DeliveryStatus) -> Transaction[Any]:
    attempted = Attempted(number=1, sent_at=NOON, duration_s=0.25, status_code=200, error=None)
    return webhooks.settle_delivery("r0", attempted, status, 0.0)


Operation = Callable[[World], Transaction[Any]]

#: On a ledger in any state.
ANYWHERE: dict[str, Operation] = {
    "admit": lambda _: admissions.admit(a_run("t", run_id="r3")),
    "admit and interrupt": lambda _: admissions.admit(a_run("t", run_id="r4", multitask_strategy="interrupt")),
    "admit here and there": lambda _: admissions.admit_all([a_run("t", run_id="r5"), a_run("u", run_id="r6")]),
    "admit there and here": lambda _: admissions.admit_all([a_run("u", run_id="r7"), a_run("t", run_id="r8")]),
    "claim heads": lambda _: claims.claim_heads(HeadsWanted(slots=2), ANYONE),
    "create cron": lambda _: crons.create_cron("d", a_target("t"), PLAN),
    "fire": lambda world: crons.fire_cron(
        world.cron,
        Firing(slot=datetime.now(UTC), next_run_at=None, new=a_run("t", run_id="r9")),
    ),
    "start cron": lambda world: crons.start_cron(world.cron, a_run("t", run_id="r10")),
    "change cron": lambda world: crons.change_cron(world.cron, replace(PLAN, schedule="1 * * * *")),
    "delete cron": lambda _: crons.delete_cron("c", ANY_OWNER),
    "create thread": lambda _: _new_thread("t"),
    "delete thread": lambda _: threads.delete_thread("t", ANY_OWNER),
    "expire thread": lambda _: threads.expire_thread("t", "delete"),
    "look whether idle": lambda _: threads.idle_thread("t", ANY_OWNER),
    "change idle": lambda _: threads.change_idle_thread("t", ANY_OWNER, lambda: _one(LONG_AGO(run_id="r0"))),
    "delete run": lambda _: run_queries.delete_run("r0", ANY_OWNER),
    "patch": lambda _: threads.patch_thread("t", ANY_OWNER, {"k": 1}),
    "set state": lambda _: threads.set_thread_state("t", ANY_OWNER, STATE, {}),
    "copy": lambda _: threads.copy_thread("t", "copy", reads=ANY_OWNER, owner=NO_OWNER, metadata={}),
    "complete usage": lambda _: run_queries.complete_usage("r0", {"llm_calls": 1}),
    "set model": lambda _: run_queries.set_model("r0", "model"),
    "purge events": lambda _: purge_events(60, 10),
    "purge runs": lambda _: run_queries.purge_runs(60, 10),
    "count totals": lambda _: totals.count_ended(10),
    "purge totals": lambda _: totals.purge_totals(1),
    "sweep": lambda _: parts.sweep("t"),
    "claim deliveries": lambda _: webhooks.claim_deliveries(2, 2, {}, 60),
    "settle delivery": lambda _: _settled(DeliveryStatus.DELIVERED),
    "try delivery again": lambda _: _settled(DeliveryStatus.PENDING),
    "send again": lambda _: webhooks.send_again("r0"),
    "purge deliveries": lambda _: webhooks.purge_deliveries(-1, 10),
    "create assistant": lambda _: assistants.create_assistant(_assistant("a"), if_exists_return=True),
    "update assistant": lambda _: assistants.update_assistant("a", ANY_OWNER, {"name": "third"}),
    "set latest assistant": lambda _: assistants.set_latest("a", ANY_OWNER, 1),
    "delete assistant": lambda _: assistants.delete_assistant("a", ANY_OWNER),
    "beat": lambda _: workers.beat(WorkerState(worker_id="other", lease_s=60)),
    "forget worker": lambda _: workers.forget_worker(SeenWorker(worker_id=WORKER, beats=1, lease_s=60)),
    "forget others": lambda _: workers.forget_others("other"),
    "leave": lambda _: workers.leave(WORKER),
    "ask to drain": lambda _: workers.ask_to_drain(WORKER, drain=True),
}
#: While runs wait.
WAITING: dict[str, Operation] = {
    "claim": lambda _: claims.claim("r2", CLAIMANT),
    "cancel waiting": lambda _: _cancel("r2", CancelAction.ROLLBACK),
    "give up": lambda _: rescues.give_up("r2", EndReason.NEVER_STARTED, ERROR, None),
    "give up at home": lambda _: rescues.give_up("at home", EndReason.NEVER_STARTED, ERROR, "gone"),
    "free": lambda _: workers.free_run("at home", "gone"),
}
#: While a run executes.
BUSY: dict[str, Operation] = {
    "cancel running": lambda _: _cancel("r1"),
    "observe cancel": lambda world: leases.observe_cancel(world.lease, 1),
    "finish": lambda world: runs.finish(world.lease, outcome(RunEvent.SUCCEED, state=STATE)),
    "hand back": lambda world: runs.finish(world.lease, outcome(RunEvent.RELEASE)),
    "append": lambda world: append(world.lease, [_event(2)]),
    "append together": _append_together,
    "append to the log": lambda world: append_log(world.lease, _LOGGED),
    "show": lambda world: threads.show_first_values(world.lease, b"{}"),
    "progress": lambda _: run_queries.set_progress("r1", {"total_tokens": 5}, 1),
    "renew": lambda world: leases.renew([world.lease], replace(A_WORKER, beats=2)),
    "rescue": lambda world: rescues.rescue(world.seen, 3),
    "take over": _take_over,
}
OPERATIONS = {Lane.IDLE: ANYWHERE, Lane.WAITING: ANYWHERE | WAITING, Lane.BUSY: ANYWHERE | WAITING | BUSY}
#: What an operation returns, or raises, that has found a lock and left the rest for later.
LEAVES = {
    "append": "RowsLocked",
    "append together": "RowsLocked",
    "claim heads": "tuple",
    "claim deliveries": "tuple",
    "count totals": "int 0",
    "expire thread": "NoneType",
    "forget worker": "NoneType",
    "fire": "NoneType",
    "free": "NoneType",
    "give up": "NoneType",
    "give up at home": "NoneType",
    "purge deliveries": "int 0",
    "purge events": "int 0",
    "purge runs": "int 0",
    "rescue": "NoneType",
    "sweep": "int 0",
    "take over": "NoneType",
}
