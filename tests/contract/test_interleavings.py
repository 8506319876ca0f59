"""P1, P2, P3 on PostgreSQL: whatever two transactions on one thread do at the same time, it is as if one came first.

Each is paused after each of its statements, while the other goes on. ``RUNLANE_INTERLEAVINGS=all ./dev test
tests/contract/test_interleavings.py`` tries every pair of operations; else those are tried that have been wrong before,
or are the closest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations_with_replacement
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from interleaving import Make, Outcome, Side, alone, interleaved, two_sides
from ledger_kit import A_WORKER, EMPTY, LONG_AGO, WORKER, a_plan, a_run, a_target, ledger_connection, outcome
from runlane.journal.remainder import append
from runlane.leases import SeenLease
from runlane.lifecycle import CancelAction, EndReason, RunEvent
from runlane.outcomes import Snapshot
from runlane.records import ANY_OWNER, NO_OWNER, Claimant, Lease, RunError, StreamEvent
from runlane.store.statements import Transaction
from runlane.store.transactions import admissions, claims, crons, leases, parts, rescues, run_queries, runs, threads
from runlane.store.transactions.crons import Cron, Firing
from runlane.store.transactions.events import purge_events
from runlane.store.transactions.heads import HeadsWanted
from runlane.store.transactions.workers import beat

CLAIMANT = Claimant(worker_id="other", lease_s=60, has_code=True)
ANYONE = Claimant(worker_id="other", lease_s=60, has_code=False)
STATE = Snapshot(values=b'{"a":1}', result=b'{"a":1}')
ERROR = RunError(error="Gone", message="gone")
#: What an operation returns that has found a lock and left the rest for later.
LEFT = {"NoneType", "RowsLocked", "int 0", "tuple"}
EVERYTHING = os.environ.get("RUNLANE_INTERLEAVINGS") == "all"

SHOWN = (
    """SELECT thread_id, status, settled, metadata, interrupts, error, state_values, first_values,
         (SELECT run_id FROM runs WHERE seq = head_seq) AS head FROM threads ORDER BY thread_id""",
    """SELECT run_id, thread_id, status, end_reason, attempt, rescues, worker_id, cancel_action, usage, log_purged,
         start_order IS NULL AS unplaced FROM runs ORDER BY run_id""",
    """SELECT COALESCE(run_id, 'no run') AS run_id, first_seq, last_seq FROM events LEFT JOIN runs ON seq = run_seq
       ORDER BY 1, 2""",
    "SELECT cron_id, revision, enabled, last_run_id FROM crons ORDER BY cron_id",
    "SELECT worker_id, beats FROM workers ORDER BY worker_id",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A thread ``t`` with an old run and a cron that is due; if busy, also a run that executes, and one behind it."""

    lease: Lease
    seen: SeenLease
    cron: Cron


def event(seq: int) -> StreamEvent:
    return StreamEvent(seq=seq, name="custom", data=b"{}")


def old(run_id: str) -> Transaction[None]:
    yield LONG_AGO(run_id=run_id)


def make_world(connection: psycopg.Connection[Any], *, busy: bool) -> World:
    connection.execute(EMPTY)
    connection.commit()

    def do(transaction: Transaction[Any]) -> Any:
        done = alone(connection, lambda: transaction)
        assert done.error is None, done.error
        return done.result

    do(beat(A_WORKER))
    claimant = Claimant(worker_id=WORKER, lease_s=60, has_code=True)
    do(admissions.admit(a_run("t", run_id="r0")))
    lease = do(claims.claim("r0", claimant)).lease
    do(append(lease, [event(1)]))
    do(runs.finish(lease, outcome(RunEvent.SUCCEED, events_end=1)))
    do(old("r0"))
    if busy:
        do(admissions.admit(a_run("t", run_id="r1")))
        lease = do(claims.claim("r1", claimant)).lease
        do(append(lease, [event(1)]))
        do(admissions.admit(a_run("t", run_id="r2")))
    plan = a_plan(schedule="0 0 1 1 *", next_run_at=datetime.now(UTC) - timedelta(seconds=1))
    cron = do(crons.create_cron("c", a_target("t"), plan))
    seen = SeenLease(run_id="r1", attempt=1, worker_id=WORKER, lease_s=60, beats=1)
    return World(lease=lease, seen=seen, cron=cron)


Operation = Callable[[World], Transaction[Any]]

#: On a thread in any state.
ANYWHERE: dict[str, Operation] = {
    "admit": lambda _: admissions.admit(a_run("t", run_id="r3")),
    "admit and interrupt": lambda _: admissions.admit(a_run("t", run_id="r4", multitask_strategy="interrupt")),
    "admit here and there": lambda _: admissions.admit_all([a_run("t", run_id="r5"), a_run("u", run_id="r6")]),
    "admit there and here": lambda _: admissions.admit_all([a_run("u", run_id="r7"), a_run("t", run_id="r8")]),
    "claim heads": lambda _: claims.claim_heads(HeadsWanted(slots=2), ANYONE),
    "fire": lambda world: crons.fire_cron(
        world.cron,
        Firing(slot=datetime.now(UTC), next_run_at=None, new=a_run("t", run_id="r9")),
    ),
    "delete cron": lambda _: crons.delete_cron("c", ANY_OWNER),
    "delete thread": lambda _: threads.delete_thread("t", ANY_OWNER),
    "delete run": lambda _: run_queries.delete_run("r0", ANY_OWNER),
    "patch": lambda _: threads.patch_thread("t", ANY_OWNER, {"k": 1}),
    "set state": lambda _: threads.set_thread_state("t", ANY_OWNER, STATE, {}),
    "copy": lambda _: threads.copy_thread("t", "copy", reads=ANY_OWNER, owner=NO_OWNER, metadata={}),
    "purge events": lambda _: purge_events(60, 10),
    "purge runs": lambda _: run_queries.purge_runs(60, 10),
    "sweep": lambda _: parts.sweep("t"),
}
#: On a thread on which a run executes, and another waits.
BUSY: dict[str, Operation] = {
    "claim": lambda _: claims.claim("r2", CLAIMANT),
    "cancel running": lambda _: _cancel("r1"),
    "cancel waiting": lambda _: _cancel("r2"),
    "finish": lambda world: runs.finish(world.lease, outcome(RunEvent.SUCCEED, state=STATE)),
    "hand back": lambda world: runs.finish(world.lease, outcome(RunEvent.RELEASE)),
    "append": lambda world: append(world.lease, [event(2)]),
    "show": lambda world: threads.show_first_values(world.lease, b"{}"),
    "progress": lambda _: run_queries.set_progress("r1", {"total_tokens": 5}, 1),
    "renew": lambda world: leases.renew([world.lease], replace(A_WORKER, beats=2)),
    "rescue": lambda world: rescues.rescue(world.seen, 3),
    "give up": lambda _: rescues.give_up("r2", EndReason.NEVER_STARTED, ERROR, None),
}
#: What has been wrong before, or is the closest.
CLOSEST = {
    ("append", "rescue"),
    ("append", "finish"),
    ("append", "hand back"),
    ("finish", "rescue"),
    ("claim", "finish"),
    ("cancel running", "finish"),
    ("renew", "rescue"),
    ("admit and interrupt", "finish"),
    ("claim heads", "hand back"),
    ("admit here and there", "admit there and here"),
    ("fire", "delete thread"),
    ("admit", "delete thread"),
    ("purge runs", "purge runs"),
    ("purge runs", "delete thread"),
    ("set state", "admit"),
}


def _cancel(run_id: str) -> Transaction[Any]:
    return runs.request_cancel(run_id, ANY_OWNER, CancelAction.INTERRUPT, EndReason.USER_CANCEL, None)


def pairs() -> Iterator[Any]:
    for busy, operations in ((True, ANYWHERE | BUSY), (False, ANYWHERE)):
        for one, other in combinations_with_replacement(operations, 2):
            close = (one, other) in CLOSEST or (other, one) in CLOSEST
            if (EVERYTHING or close) and (one, other) != ("copy", "copy"):  # an id is used once
                yield pytest.param(busy, one, other, id=f"{one} and {other}, {'busy' if busy else 'idle'}")


@dataclass(frozen=True, slots=True)
class Result:
    """What there is in the end, and what the two operations returned."""

    state: tuple[Any, ...]
    shown: tuple[str, ...]


@pytest.fixture(scope="module")
def connection(postgres_ledger: str) -> Iterator[psycopg.Connection[Any]]:
    with ledger_connection(postgres_ledger, row_factory=dict_row) as made:
        yield made


@pytest.fixture(scope="module")
def sides(postgres_ledger: str) -> Iterator[tuple[Side, Side]]:
    with two_sides(postgres_ledger) as both:
        yield both


def state_of(connection: psycopg.Connection[Any]) -> tuple[Any, ...]:
    found = tuple(tuple(tuple(row.values()) for row in connection.execute(sql.encode())) for sql in SHOWN)
    connection.commit()
    return found


@pytest.mark.parametrize(("busy", "one", "other"), pairs())
def test_two_operations_at_once_are_as_if_one_came_first(
    busy: bool, one: str, other: str, connection: psycopg.Connection[Any], sides: tuple[Side, Side]
) -> None:
    names = (one, other)
    operations = ANYWHERE | BUSY

    def made(world: World, name: str) -> Make:
        return lambda: operations[name](world)

    def serial(*order: int) -> tuple[tuple[Any, ...], dict[int, str]]:
        world = make_world(connection, busy=busy)
        shown = {number: alone(connection, made(world, names[number])).shown for number in order}
        return state_of(connection), shown

    in_order = [serial(0, 1), serial(1, 0)]
    by_itself = {number: serial(number)[0] for number in (0, 1)}
    for first, second in ((0, 1), (1, 0)):
        after = 1
        while True:
            world = make_world(connection, busy=busy)
            outcomes = interleaved(sides, made(world, names[first]), made(world, names[second]), after)
            found = {first: outcomes[0], second: outcomes[1]}
            where = f"{names[first]!r} paused after {after} statements, {names[second]!r} meanwhile"
            check(state_of(connection), found, in_order, by_itself, where)
            if sides[0].statements < after:
                break
            after += 1


def check(
    state: tuple[Any, ...],
    found: dict[int, Outcome],
    in_order: list[tuple[tuple[Any, ...], dict[int, str]]],
    by_itself: dict[int, tuple[Any, ...]],
    where: str,
) -> None:
    for done in found.values():
        assert not isinstance(done.error, psycopg.Error), f"{where}: {done.error}"
    shown = {number: done.shown for number, done in found.items()}
    if any(state == expected and shown == told for expected, told in in_order):
        return
    if any(shown[number] in LEFT and state == by_itself[1 - number] for number in (0, 1)):
        return
    assert (state, shown) in in_order, where
