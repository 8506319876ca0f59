"""Findings and repairs of invariant violations that the row itself decides about."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from runlane.doctor.findings import Finding, by
from runlane.errors import InvalidRequest
from runlane.lifecycle import CancelAction, EndReason, RunStatus, ThreadStatus
from runlane.maintenance.crons import next_slot
from runlane.runs.waiting import no_worker
from runlane.schedules import Schedule
from runlane.store.rows import instant, loads, microseconds, seen_lease
from runlane.store.statements import Row, Transaction
from runlane.store.transactions import doctor as ledger
from runlane.store.transactions.crons import cron_record
from runlane.store.transactions.fleet import Fleet
from runlane.store.transactions.rescues import rescue

#: The doctor never gives a run up: that is for the server, which counts.
NO_LIMIT: Final = 2**31
RESTORE: Final = "restore the events from a backup if they matter; the run itself is whole."


def thread_status(row: Row, _: bool) -> Finding:
    meaning = "It is busy without an active run, so clients wait in vain."
    if row["active"]:
        meaning = "It has an active run but is not busy, so it could be changed while the run executes."
    elif row["status"] != ThreadStatus.BUSY.value:
        meaning = "Its status does not match its last run."
    return Finding(
        code="thread.status",
        subject={"thread": row["thread_id"], "status": row["status"]},
        meaning=meaning,
        repair="its status is recomputed from its runs.",
        fix=by(partial(ledger.restate, row["thread_id"])),
    )


def no_thread(row: Row, _: bool) -> Finding:
    one_owner = row["owner"] == row["other"]
    return Finding(
        code="run.thread",
        subject={"thread": row["thread_id"], "runs": row["n"]},
        meaning="The thread of these runs does not exist, so they are invisible and cannot end.",
        repair="the thread is made again for the owner of its runs, without metadata."
        if one_owner
        else "its runs have different owners; restore the thread from a backup, or delete its runs.",
        fix=by(partial(ledger.make_thread, row["thread_id"])) if one_owner else None,
    )


def second_running(row: Row, exclusive: bool) -> Finding:
    free = exclusive or bool(row["lapsed"])
    return Finding(
        code="lane.two_running",
        subject={"run": row["run_id"], "thread": row["thread_id"]},
        meaning="It is running while an earlier run of its thread is running.",
        repair="it goes back to its lane, and continues after the earlier one."
        if free
        else "its worker still renews its lease: cancel one of the two, or stop that worker.",
        fix=by(partial(to_lane, row)) if free else None,
    )


def to_lane(row: Row) -> Transaction[bool]:
    return (yield from rescue(seen_lease(row), NO_LIMIT)) is not None


def unended(row: Row, _: bool) -> Finding:
    lacking = {"ended_at": "no_instant", "end_reason that fits": "no_reason", "events_end": "no_last_event"}
    names = [name for name, column in lacking.items() if row[column]]
    reason = end_reason_of(row) if row["no_reason"] else None
    known = reason is not None or not row["no_reason"]
    return Finding(
        code="run.end",
        subject={"run": row["run_id"], "status": row["status"]},
        meaning=f"It has ended, but has no {' and no '.join(names)}.",
        repair="what is missing is filled in from the run's row and its log."
        if known
        else "the row does not tell whether it completed or paused: look at its thread, and set end_reason.",
        fix=by(partial(ledger.complete_end, row, reason)) if known else None,
    )


def end_reason_of(row: Row) -> EndReason | None:
    """Return why a run ended, as far as the rest of its row says so."""
    status, cancelled = RunStatus(row["status"]), row["cancel_action"] is not None
    if status is RunStatus.TIMEOUT:
        return EndReason.DEADLINE
    if status is RunStatus.ERROR:
        kind = "" if row["error"] is None else loads(row["error"])["error"]
        known = {"WorkerLost": EndReason.WORKER_LOST, "NeverStarted": EndReason.NEVER_STARTED}
        return known.get(kind, EndReason.FAILED)
    if status is not RunStatus.INTERRUPTED:
        return None
    if not cancelled:
        return EndReason.DRAINED_OVER
    rolled_back = row["cancel_action"] == CancelAction.ROLLBACK.value
    return EndReason.ROLLED_BACK if rolled_back else EndReason(row["cancel_reason"])


def last_event(row: Row, _: bool) -> Finding:
    subject = {"run": row["run_id"], "end": row["events_end"], "last": row["last_seq"]}
    if row["last_seq"] < row["events_end"]:
        meaning = "The last events before its end are not in its log."
        return Finding(code="events.cut_off", subject=subject, meaning=meaning, repair=RESTORE)
    whole = row["first_after"] > row["events_end"]
    return Finding(
        code="events.after_end",
        subject=subject,
        meaning="Its log has events after its end, which no reader may see.",
        repair="the events after its end are deleted."
        if whole
        else "one segment holds events from before and after its end; look at it, and correct events_end.",
        fix=by(partial(ledger.delete_late_events, row)) if whole else None,
    )


def no_version(row: Row, _: bool) -> Finding:
    meaning, repair = "Its current version is not stored", "it is stored."
    if row["differs"]:
        meaning, repair = "It differs from its current version", "its present values are stored as a new version."
    return Finding(
        code="assistant.version",
        subject={"assistant": row["assistant_id"], "version": row["version"]},
        meaning=f"{meaning}, so it could not be restored.",
        repair=repair,
        fix=by(partial(ledger.keep_version, row["assistant_id"])),
    )


def no_next_slot(row: Row, _: bool) -> Finding | None:
    cron, subject = cron_record(row), {"cron": row["cron_id"]}
    meaning = "It is enabled and has not ended, but has no next date, so it never starts a run."
    try:
        slot = next_slot(Schedule(cron.plan.schedule, cron.plan.timezone), instant(row["now_us"]), cron.plan.end_at)
    except InvalidRequest as error:
        return Finding(code="cron.next", subject=subject, meaning=str(error), repair="give it a valid schedule.")
    if slot is None:  # it has fired for the last time
        return None
    fix = by(partial(ledger.set_next_slot, row["cron_id"], row["revision"], microseconds(slot)))
    repair = f"its next date is recomputed: {slot.isoformat()}."
    return Finding(code="cron.next", subject=subject, meaning=meaning, repair=repair, fix=fix)


def stored_without_thread(row: Row, _: bool) -> Finding:
    of_runs = row["run_id"] != ""
    return Finding(
        code="checkpoints.thread",
        subject={"thread": row["thread_id"], "rows": row["n"]},
        meaning="There are checkpoints, values or pending writes of a thread that does not exist.",
        repair="they are deleted, as its runs are."
        if of_runs
        else "no run wrote them; delete them through the saver if your application does not use it by itself.",
        fix=by(partial(ledger.delete_stored, row["thread_id"])) if of_runs else None,
    )


def stranded(fleet: Fleet) -> Iterator[Finding]:
    """Yield what waits for a graph, or a build of it, that no worker has; nothing while no worker is there at all."""
    if not any(worker.executes for worker in fleet.workers):
        return
    for group in fleet.stranded:
        of_build = {"build": group.build} if group.build else {}
        begun = f" of build {group.build}, until they have ended; or delete the threads" if group.build else ""
        yield Finding(
            code="run.no_worker",
            subject={
                "graph": group.graph_id,
                **of_build,
                "threads": group.threads,
                "oldest": group.oldest_at.isoformat(),
            },
            meaning=f"{no_worker(group.graph_id, group.build)}, so the next run of each of these threads waits.",
            repair=f"start a worker{begun or ' of a project with that graph, or cancel the runs'}.",
        )
