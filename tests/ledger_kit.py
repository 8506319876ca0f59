"""Short forms of what the contract tests ask of a ledger, and the hand that moves its clock."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg

from runlane.leases import SeenLease, WorkerState
from runlane.lifecycle import CancelAction, EndReason, MultitaskStrategy, RunEvent
from runlane.outcomes import Outcome
from runlane.records import ANY_OWNER, NO_OWNER, Admission, Cancelled, Claim, Finished, Lease, NewRun, Owner
from runlane.requests import RunRequest
from runlane.store.ledger import RunStore
from runlane.store.migrations import DEFAULT_SCHEMA
from runlane.store.statements import Statement, Transaction, statement
from runlane.store.transactions.crons import CronPlan, CronTarget

WORKER = "worker-1"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
A_WORKER = WorkerState(worker_id=WORKER, lease_s=60)
ENDINGS = {
    RunEvent.SUCCEED: EndReason.COMPLETED,
    RunEvent.PAUSE: EndReason.PAUSED,
    RunEvent.FAIL: EndReason.FAILED,
    RunEvent.EXPIRE: EndReason.DEADLINE,
    RunEvent.STOP: EndReason.USER_CANCEL,
}

# Instants are moved in the rows instead of waiting for them to come.
DUE = statement("due", "UPDATE runs SET not_before = 0 WHERE run_id = :run_id")
_WAITING = statement("waiting", "UPDATE runs SET not_before = {now} - :waited_us WHERE run_id = :run_id")
#: What the clock says of a run that was admitted before it was set back by an hour.
SET_BACK = statement(
    "set_back",
    "UPDATE runs SET created_at = created_at + 3600000000, not_before = not_before + 3600000000 WHERE run_id = :run_id",
)
LONG_AGO = statement("long_ago", "UPDATE runs SET ended_at = ended_at - 100000000 WHERE run_id = :run_id")


# TRUNCATE makes new files for each table, which takes far longer. Foreign keys are triggers, which rest meanwhile.
EMPTY = """DO $$ DECLARE found RECORD; BEGIN
  SET LOCAL session_replication_role = replica;
  FOR found IN SELECT relname, pg_total_relation_size(oid) > 200000 AS large FROM pg_class
      WHERE relnamespace = 'runlane'::regnamespace AND relkind = 'r' AND relname <> 'runlane_version'
        AND pg_relation_size(oid) > 0 LOOP
    IF found.large THEN EXECUTE format('TRUNCATE runlane.%I CASCADE', found.relname);
    ELSE EXECUTE format('DELETE FROM runlane.%I', found.relname); END IF;
  END LOOP;
  PERFORM setval(format('runlane.%I', sequencename)::regclass, start_value, false) FROM pg_sequences
    WHERE schemaname = 'runlane';
END $$"""


def a_run(thread_id: str = "t", *, kwargs: Mapping[str, Any] | None = None, **changes: Any) -> NewRun:
    """Return a run to be admitted; *kwargs* are those of ``RunManager.create``."""
    if kwargs is not None:
        changes["request"] = RunRequest.of(kwargs)
    values: dict[str, Any] = {"run_id": str(uuid4()), "owner": NO_OWNER, "multitask_strategy": "enqueue", **changes}
    values["multitask_strategy"] = MultitaskStrategy(values["multitask_strategy"])
    return NewRun(thread_id=thread_id, **values)


async def admit(store: RunStore, thread_id: str = "t", **changes: Any) -> str:
    return (await admission(store, thread_id, **changes)).run.run_id


async def admission(store: RunStore, thread_id: str = "t", **changes: Any) -> Admission:
    return await store.runs.admit(a_run(thread_id, **changes))


async def claim(store: RunStore, run_id: str, worker_id: str = WORKER) -> Claim:
    claimed = await store.attempts.claim(run_id, worker_id, lease_s=60)
    assert claimed is not None, f"{run_id} could not be claimed"
    return claimed


async def running(store: RunStore, thread_id: str = "t", **changes: Any) -> Lease:
    return (await claim(store, await admit(store, thread_id, **changes))).lease


def outcome(event: RunEvent, **changes: Any) -> Outcome:
    return Outcome(event=event, **{"end_reason": ENDINGS.get(event), **changes})


async def finish(store: RunStore, lease: Lease, event: RunEvent = RunEvent.SUCCEED, **changes: Any) -> Finished:
    ended = await store.attempts.finish(lease, outcome(event, **changes))
    assert isinstance(ended, Finished), f"the run was cancelled before: {ended}"
    return ended


async def held(store: RunStore, run_id: str) -> SeenLease:
    """Return the lease of a run as another process sees it."""
    run = await store.runs.get(run_id, owner=ANY_OWNER)
    beats = {worker.worker_id: worker.beats for worker in await store.workers.list()}
    return SeenLease(
        run_id=run_id,
        attempt=run.attempt,
        worker_id=run.worker_id or "",
        lease_s=60,
        beats=beats.get(run.worker_id or ""),
    )


def next_id(done: Finished | Cancelled) -> str | None:
    """Return the id of the run that may start now."""
    return None if done.next_run is None else done.next_run.run_id


async def cancel(
    store: RunStore,
    run_id: str,
    action: CancelAction = CancelAction.INTERRUPT,
    *,
    owner: Owner = ANY_OWNER,
    reason: EndReason = EndReason.USER_CANCEL,
    by: str | None = None,
) -> Cancelled:
    return await store.runs.request_cancel(run_id, owner=owner, action=action, reason=reason, by=by)


async def ended(store: RunStore, thread_id: str = "t", event: RunEvent = RunEvent.SUCCEED, **changes: Any) -> str:
    return (await finish(store, await running(store, thread_id, **changes), event)).run.run_id


async def turn(store: RunStore, hand: Statement, run_id: str) -> None:
    """Move an instant of a run."""

    def move() -> Transaction[None]:
        yield hand(run_id=run_id)

    await store.driver.write(move())


def a_plan(**changes: Any) -> CronPlan:
    """Return the plan of a cron that fires each minute from :data:`NOON`, which is past."""
    values: dict[str, Any] = {
        "schedule": "* * * * *",
        "timezone": None,
        "end_at": None,
        "payload": {},
        "metadata": {},
        "on_run_completed": None,
        "missed": "once",
        "overlap": "allow",
        "enabled": True,
        "next_run_at": NOON,
    }
    return CronPlan(**{**values, **changes})


def a_target(thread_id: str | None = None) -> CronTarget:
    """Return the target of a cron of nobody, for the assistant ``a``."""
    return CronTarget(owner=NO_OWNER, assistant_id="a", assistant_owner="*", thread_id=thread_id)


def writing_methods() -> dict[str, str]:
    """Return the sources of the store's methods that write, by ``<part>_<method>``."""
    store = RunStore(None)  # type: ignore[arg-type]  # nothing is called
    found = {
        f"{part}_{name}": inspect.getsource(method)
        for part, resource in vars(store).items()
        for name, method in inspect.getmembers(type(resource), inspect.iscoroutinefunction)
        if not part.startswith("_") and part != "driver"
    }
    return {name: source for name, source in found.items() if "_database.write(" in source}


def empty_ledger(url: str) -> None:
    """Delete every row of a ledger in PostgreSQL."""
    with ledger_connection(url, autocommit=True) as connection:
        connection.execute(EMPTY)


def ledger_connection(url: str, **options: Any) -> psycopg.Connection:
    """Connect to a ledger's database, and see its tables."""
    return psycopg.connect(url, options=f"-c search_path={DEFAULT_SCHEMA}", **options)


async def waiting(store: RunStore, run_id: str, waited_s: float) -> None:
    """Have a run wait for so long already."""

    def move() -> Transaction[None]:
        yield _WAITING(run_id=run_id, waited_us=int(waited_s * 1_000_000))

    await store.driver.write(move())
