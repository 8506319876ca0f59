"""The rules of a ledger: for each, what breaks it, and what is said and done about that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from runlane.crons import next_slot
from runlane.doctor.findings import Finding, by
from runlane.errors import InvalidRequest
from runlane.lifecycle import CancelAction, EndReason, RunStatus
from runlane.schedules import Schedule
from runlane.store import doctor_transactions as ledger
from runlane.store.cron_transactions import cron_record
from runlane.store.rescue_transactions import rescue
from runlane.store.rows import instant, loads, microseconds, run_record
from runlane.store.statements import Query, Row, Rows, Statement, Transaction
from runlane.webhooks.deliverer import JITTER, MAX_RETRY_AFTER_S, RETRY_DELAYS_S

#: The longest that a delivery waits for its next try.
LONGEST_WAIT_US: Final = int(max(max(RETRY_DELAYS_S) * (1 + JITTER), MAX_RETRY_AFTER_S) * 1_000_000)
#: The doctor never gives a run up: that is for the server, which counts.
NO_LIMIT: Final = 2**31
RESTORE: Final = "restore the events from a backup if they matter; the run itself is whole."

Judge = Callable[[Row, bool], Finding | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A rule: ``find`` yields what breaks it in a page; ``judge(row, exclusive)`` says what that is."""

    find: Statement
    judge: Judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What is looked through, page by page: ``window`` finds the next page above the key ``first``."""

    name: str
    first: str | int
    window: Statement
    checks: tuple[Check, ...]
    sqlite_only: bool = False

    def query(self, after: str | int, size: int) -> Query:
        return self.window(after=after, limit=size)

    def page(self, after: str | int, upto: str | int) -> Transaction[list[tuple[Check, Rows]]]:
        """Return what breaks each rule in the page."""
        found = []
        for check in self.checks:
            rows = yield check.find(after=after, upto=upto, longest_us=LONGEST_WAIT_US)
            found.append((check, rows))
        return found


def _thread_status(row: Row, _: bool) -> Finding:
    meaning = "It has an active run, but does not say busy, so it may be changed under the run."
    if not row["active"]:
        meaning = "It says busy, but no run of it is active, so clients wait for nothing."
    return Finding(
        code="thread.status",
        subject={"thread": row["thread_id"], "status": row["status"]},
        meaning=meaning,
        repair="its status is computed anew from its runs.",
        fix=by(partial(ledger.restate, row["thread_id"])),
    )


def _no_thread(row: Row, _: bool) -> Finding:
    one_owner = row["owner"] == row["other"]
    return Finding(
        code="run.thread",
        subject={"thread": row["thread_id"], "runs": row["n"]},
        meaning="The thread of these runs does not exist, so none of them can be seen or end.",
        repair="the thread is made again for the owner of its runs, without metadata."
        if one_owner
        else "its runs have different owners; restore the thread from a backup, or delete its runs.",
        fix=by(partial(ledger.make_thread, row["thread_id"])) if one_owner else None,
    )


def _second_running(row: Row, exclusive: bool) -> Finding:
    free = exclusive or bool(row["lapsed"])
    return Finding(
        code="lane.two_running",
        subject={"run": row["run_id"], "thread": row["thread_id"]},
        meaning="It is running although an earlier run of its thread is.",
        repair="it goes back to its lane, and continues after the earlier one."
        if free
        else "its worker still renews its lease: cancel one of the two, or stop that worker.",
        fix=by(partial(_to_lane, row)) if free else None,
    )


def _abandoned(row: Row, _: bool) -> Finding:
    return Finding(
        code="run.abandoned",
        subject={"run": row["run_id"], "thread": row["thread_id"]},
        meaning=f"It is running, but its lease is over for more than {ledger.ABANDONED_AFTER_S} s and nobody rescued"
        " it: no server works on this ledger, or its rescuer does not.",
        repair="it goes back to its lane; a server continues it from its last checkpoint.",
        fix=by(partial(_to_lane, row)),
    )


def _to_lane(row: Row) -> Transaction[bool]:
    yield from rescue(run_record(row), NO_LIMIT)
    return True


def _unended(row: Row, _: bool) -> Finding:
    lacking = {"ended_at": "no_instant", "end_reason": "no_reason", "events_end": "no_last_event"}
    names = [name for name, column in lacking.items() if row[column]]
    reason = end_reason_of(row) if row["no_reason"] else None
    known = reason is not None or not row["no_reason"]
    return Finding(
        code="run.end",
        subject={"run": row["run_id"], "status": row["status"]},
        meaning=f"It has ended, but has no {' and no '.join(names)}.",
        repair="what is missing is filled in from the run's row and its log."
        if known
        else "its row does not say whether it completed or paused; look at its thread, and set end_reason.",
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


def _keeps_secrets(row: Row, _: bool) -> Finding:
    return Finding(
        code="run.secrets",
        subject={"run": row["run_id"], "status": row["status"]},
        meaning="It has ended, but the secrets that it was configured with are still kept.",
        repair="they are replaced by ***.",
        fix=by(partial(ledger.scrub, row["run_id"])),
    )


def _last_event(row: Row, _: bool) -> Finding:
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


def _gap(row: Row, _: bool) -> Finding:
    return Finding(
        code="events.gap",
        subject={"run": row["run_id"], "after": row["reached"], "next": row["first_seq"], "places": row["n"]},
        meaning="Its log is not contiguous; readers are told of a gap.",
        repair=RESTORE,
    )


def _log_without_run(row: Row, _: bool) -> Finding:
    return Finding(
        code="events.run",
        subject={"run_seq": row["run_seq"], "segments": row["n"]},
        meaning="Its run does not exist, so nobody can read these events, and no retention removes them.",
        repair="they are deleted.",
        fix=by(partial(ledger.delete_log, row["run_seq"])),
    )


def _no_version(row: Row, _: bool) -> Finding:
    return Finding(
        code="assistant.version",
        subject={"assistant": row["assistant_id"], "version": row["version"]},
        meaning="Its current version is not among its versions, so it could not be gone back to.",
        repair="the current version is kept among them.",
        fix=by(partial(ledger.keep_version, row["assistant_id"])),
    )


def _no_next_slot(row: Row, _: bool) -> Finding | None:
    cron, subject = cron_record(row), {"cron": row["cron_id"]}
    meaning = "It is enabled and its schedule goes on, but it has no next date, so it never fires."
    try:
        slot = next_slot(Schedule(cron.plan.schedule, cron.plan.timezone), instant(row["now_us"]), cron.plan.end_at)
    except InvalidRequest as error:
        return Finding(code="cron.next", subject=subject, meaning=str(error), repair="give it a valid schedule.")
    if slot is None:  # it has fired for the last time
        return None
    fix = by(partial(ledger.set_next_slot, row["cron_id"], row["revision"], microseconds(slot)))
    repair = f"its next date is computed anew: {slot.isoformat()}."
    return Finding(code="cron.next", subject=subject, meaning=meaning, repair=repair, fix=fix)


def _stuck_delivery(row: Row, _: bool) -> Finding:
    return Finding(
        code="delivery.stuck",
        subject={"run": row["run_id"], "until": instant(row["next_at"]).isoformat()},
        meaning="The webhook of this run was claimed for longer than any try or pause takes, and nobody sends it.",
        repair="it is due now.",
        fix=by(partial(ledger.make_due, row["run_id"], LONGEST_WAIT_US)),
    )


def _stored_without_thread(row: Row, _: bool) -> Finding:
    of_runs = row["run_id"] != ""
    return Finding(
        code="checkpoints.thread",
        subject={"thread": row["thread_id"], "rows": row["n"]},
        meaning="Checkpoints, values or pending writes are kept of a thread that does not exist.",
        repair="they are deleted, as its runs are."
        if of_runs
        else "no run wrote them; delete them through the saver if your application does not use it by itself.",
        fix=by(partial(ledger.delete_stored, row["thread_id"])) if of_runs else None,
    )


def _writes_without_checkpoint(row: Row, _: bool) -> Finding:
    return Finding(
        code="checkpoints.writes",
        subject={"thread": row["thread_id"], "writes": row["n"]},
        meaning="Pending writes are kept for checkpoints that do not exist, so nothing can use them.",
        repair="they are deleted.",
        fix=by(partial(ledger.delete_writes, row["thread_id"])),
    )


SCANS: Final = (
    Scan(
        name="threads",
        first="",
        window=ledger.THREADS,
        checks=(Check(find=ledger.WRONG_STATUS, judge=_thread_status),),
    ),
    Scan(
        name="runs",
        first=0,
        window=ledger.RUNS,
        checks=(
            Check(find=ledger.WITHOUT_THREAD, judge=_no_thread),
            Check(find=ledger.SECOND_RUNNING, judge=_second_running),
            Check(find=ledger.ABANDONED, judge=_abandoned),
            Check(find=ledger.UNENDED, judge=_unended),
            Check(find=ledger.KEEPING_SECRETS, judge=_keeps_secrets),
            Check(find=ledger.WRONG_LAST_EVENT, judge=_last_event),
        ),
    ),
    Scan(
        name="event logs",
        first=-1,
        window=ledger.LOGS,
        checks=(
            Check(find=ledger.GAPS, judge=_gap),
            Check(find=ledger.LOGS_WITHOUT_RUN, judge=_log_without_run),
        ),
    ),
    Scan(
        name="assistants",
        first="",
        window=ledger.ASSISTANTS,
        checks=(Check(find=ledger.WITHOUT_VERSION, judge=_no_version),),
    ),
    Scan(
        name="crons",
        first="",
        window=ledger.CRONS,
        checks=(Check(find=ledger.CRONS_WITHOUT_NEXT, judge=_no_next_slot),),
    ),
    Scan(
        name="webhook deliveries",
        first="",
        window=ledger.DELIVERIES,
        checks=(Check(find=ledger.STUCK_DELIVERIES, judge=_stuck_delivery),),
    ),
    Scan(
        name="checkpointed threads",
        first="",
        window=ledger.CHECKPOINTED,
        checks=(
            Check(find=ledger.STORED_WITHOUT_THREAD, judge=_stored_without_thread),
            Check(find=ledger.WRITES_WITHOUT_CHECKPOINT, judge=_writes_without_checkpoint),
        ),
        sqlite_only=True,
    ),
)
