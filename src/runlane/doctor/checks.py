"""The invariants of a ledger, each with the query that finds violations, their meaning and their repair."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from runlane.doctor import judgements as judged
from runlane.doctor.findings import Finding, by
from runlane.store.rows import instant
from runlane.store.statements import Query, Row, Rows, Statement, Transaction
from runlane.store.transactions import doctor as ledger
from runlane.store.transactions import doctor_rules as rules
from runlane.store.transactions.doctor_heads import WRONG_HEADS, set_head_right
from runlane.store.transactions.doctor_rules import Rule, mended
from runlane.store.transactions.thread_search import FIND_NOT_IN_INDEX, add_to_index
from runlane.webhooks.deliverer import JITTER, MAX_RETRY_AFTER_S, RETRY_DELAYS_S

#: The longest that a delivery waits for its next try.
LONGEST_WAIT_US: Final = int(max(max(RETRY_DELAYS_S) * (1 + JITTER), MAX_RETRY_AFTER_S) * 1_000_000)
BY_HAND: Final = "see from its thread and its log what it was, and write that into the row."

Judge = Callable[[Row, bool], Finding | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A rule: ``find`` yields what breaks it in a page; ``judge(row, exclusive)`` says what that is."""

    find: Statement
    judge: Judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Rows to examine, page by page: ``window`` finds the next page above the key ``first``."""

    name: str
    first: str | int | None
    window: Statement
    checks: tuple[Check, ...]

    def query(self, after: str | int | None, size: int) -> Query:
        return self.window(after=after, limit=size)

    def page(self, after: str | int | None, upto: str | int) -> Transaction[list[tuple[Check, Rows]]]:
        """Return what breaks each rule in the page."""
        found = []
        for check in self.checks:
            rows = yield check.find(after=after, upto=upto, longest_us=LONGEST_WAIT_US)
            found.append((check, rows))
        return found


Fixed = Callable[[Row], Transaction[bool]]
_RUN: Final = {"run": "run_id", "thread": "thread_id"}
_ENDED: Final = {"run": "run_id", "status": "status"}


def _check(
    code: str, find: Statement | Rule, subject: Mapping[str, str], meaning: str, repair: str, fix: Fixed | None = None
) -> Check:
    """Return a check that says the same of each row. *subject* names columns; a rule brings its *fix*, if any."""
    if isinstance(find, Rule):
        fix = partial(mended, find) if find.mend is not None else None
        find = find.find

    def judge(row: Row, _: bool) -> Finding:
        return Finding(
            code=code,
            subject={name: row[column] for name, column in subject.items()},
            meaning=meaning,
            repair=repair,
            fix=None if fix is None else by(partial(fix, row)),
        )

    return Check(find=find, judge=judge)


_THREADS: Final = (
    Check(find=ledger.WRONG_STATUS, judge=judged.thread_status),
    _check(
        "thread.settled",
        rules.THREAD_SETTLED,
        {"thread": "thread_id", "settled": "settled"},
        "Its status for the time without active runs is unknown, so the row cannot be read.",
        "the status is derived from its error and its interrupts.",
    ),
    _check(
        "thread.ttl",
        rules.THREAD_TTL,
        {"thread": "thread_id"},
        "It has a time to live without a strategy, or the reverse, which delays the expiry of other threads.",
        "it does not expire any more; give it a ttl again.",
    ),
    _check(
        "thread.search",
        FIND_NOT_IN_INDEX,
        {"thread": "thread_id"},
        "A text of its metadata is missing in the search index, so searches for it do not find the thread.",
        "it is added to the index.",
        add_to_index,
    ),
    _check(
        "thread.head",
        WRONG_HEADS,
        {"thread": "thread_id"},
        "The head of its lane is not the run that starts next, so that run waits, or is started by a wrong worker.",
        "the head is computed again from its runs.",
        lambda row: set_head_right(row["thread_id"]),
    ),
)
_RUNS: Final = (
    _check(
        "run.unreadable",
        rules.RUN_WORDS,
        {**_RUN, "status": "status"},
        "Its row has a value that no version of Runlane writes, so it cannot be read.",
        BY_HAND,
    ),
    Check(find=ledger.WITHOUT_THREAD, judge=judged.no_thread),
    Check(find=ledger.SECOND_RUNNING, judge=judged.second_running),
    _check(
        "run.abandoned",
        ledger.ABANDONED,
        _RUN,
        f"It is running, but its worker's lease expired more than {ledger.ABANDONED_AFTER_S} s ago and nobody rescued"
        " it: no server uses this database, or its rescuer does not work.",
        "it goes back to its lane; a server continues it from its last checkpoint.",
        judged.to_lane,
    ),
    _check(
        "run.active",
        rules.RUN_ENDED_ACTIVE,
        {**_RUN, "status": "status"},
        "It has not ended, but has an end time, an end reason or a last event.",
        "those values are removed; the run continues.",
    ),
    _check(
        "run.lease",
        rules.RUN_HELD,
        {**_RUN, "status": "status"},
        "It waits, but has a worker.",
        "that is removed.",
    ),
    _check(
        "run.counts",
        rules.RUN_COUNTS,
        {"run": "run_id", "attempt": "attempt", "rescues": "rescues"},
        "It has fewer attempts than rescues or starts, so it would be counted and fenced incorrectly.",
        "the number of attempts is raised.",
    ),
    Check(find=ledger.UNENDED, judge=judged.unended),
    _check(
        "run.cancel",
        rules.RUN_CANCEL,
        _RUN,
        "Its cancel is incomplete, so it can be neither carried out nor reported.",
        "with a time of request it is completed as a user's cancel that keeps the work; otherwise it is removed.",
    ),
    _check(
        "run.cancelled",
        rules.RUN_NOT_CANCELLED,
        _ENDED,
        "Its cancel was recorded before it ended, but it did not end as interrupted.",
        BY_HAND,
    ),
    _check(
        "run.key",
        rules.RUN_KEY,
        _RUN,
        "An earlier run of its thread has the same idempotency key.",
        "it loses the key; a repeated request finds the earlier one.",
    ),
    _check(
        "run.secrets",
        ledger.KEEPING_SECRETS,
        _ENDED,
        "It has ended, but the secrets that it was configured with are still kept.",
        "they are replaced by ***.",
        lambda row: ledger.scrub(row["run_id"]),
    ),
    Check(find=ledger.WRONG_LAST_EVENT, judge=judged.last_event),
)
_LOGS: Final = (
    _check(
        "events.gap",
        ledger.GAPS,
        {"run": "run_id", "after": "reached", "next": "first_seq", "places": "n"},
        "Its log is not contiguous; readers receive a gap event.",
        judged.RESTORE,
    ),
    _check(
        "events.run",
        rules.LOG_WITHOUT_RUN,
        {"run_seq": "run_seq", "segments": "n"},
        "Its run does not exist, so nobody can read these events, and no retention removes them.",
        "they are deleted.",
    ),
)
_RECORDS: Final = (
    _check(
        "log.run",
        rules.RECORDS_WITHOUT_RUN,
        {"run_seq": "run_seq", "segments": "n"},
        "Its run does not exist, so nobody can read these log records, and no retention removes them.",
        "they are deleted.",
    ),
)
_VERSIONS: Final = (
    _check(
        "assistant.gone",
        rules.VERSION_WITHOUT_ASSISTANT,
        {"assistant": "assistant_id", "versions": "n"},
        "There are versions of an assistant that does not exist: they are invisible, and its id cannot be used again.",
        "they are deleted.",
    ),
)
_DELIVERIES: Final = (
    _check(
        "delivery.unreadable",
        rules.DELIVERY_WORDS,
        _ENDED,
        "Its status is unknown, so it is neither sent nor listed.",
        "write pending into the row if it is to be sent, or else failed.",
    ),
    _check(
        "delivery.end",
        rules.DELIVERY_END,
        _ENDED,
        "It is pending but has an end time, so retention would delete it; or it has ended without an end time.",
        "the end time of a pending delivery is removed; that of another one is set to now.",
    ),
    _check(
        "delivery.counts",
        rules.DELIVERY_COUNTS,
        {"run": "run_id", "attempts": "attempts", "tries": "tries"},
        "It counts fewer attempts than are recorded, so the next attempt could not be recorded.",
        "the number of attempts is raised.",
    ),
    Check(
        find=ledger.STUCK_DELIVERIES,
        judge=lambda row, _: Finding(
            code="delivery.stuck",
            subject={"run": row["run_id"], "until": instant(row["next_at"]).isoformat()},
            meaning="The webhook of this run was claimed for longer than any try or pause takes, and nobody sends it.",
            repair="it is due now.",
            fix=by(partial(ledger.make_due, row["run_id"], LONGEST_WAIT_US)),
        ),
    ),
)
_ATTEMPTS: Final = (
    _check(
        "delivery.gone",
        rules.ATTEMPT_WITHOUT_DELIVERY,
        {"run": "run_id", "attempts": "n"},
        "Attempts are recorded at a webhook that does not exist, and no retention removes them.",
        "they are deleted.",
    ),
)
_ITEMS: Final = (
    _check(
        "item.expiry",
        rules.ITEM_EXPIRY,
        {"namespace": "namespace", "key": "key"},
        "It has a time to live but does not expire, or it expires without one.",
        "its time to live, if it has one, counts from now.",
    ),
    _check(
        "item.vectors",
        rules.ITEM_VECTORS,
        {"namespace": "namespace", "key": "key"},
        "Its vectors are not as long as the index says, so every search that meets it fails.",
        "they are removed; put the item again to find it by semantic search.",
    ),
)
_CHECKPOINTS: Final = (
    Check(find=ledger.STORED_WITHOUT_THREAD, judge=judged.stored_without_thread),
    _check(
        "checkpoints.twice",
        rules.CHECKPOINT_TWICE,
        {"thread": "thread_id", "checkpoints": "n"},
        "A run has stored a checkpoint again, and the older one was not replaced.",
        "the newest is kept, which is the one that is read.",
    ),
    _check(
        "checkpoints.writes",
        rules.WRITES_WITHOUT_CHECKPOINT,
        {"thread": "thread_id", "writes": "n"},
        "Pending writes are kept for checkpoints that do not exist, so nothing can use them.",
        "they are deleted.",
    ),
)
_INDEXES: Final = (
    _check(
        "item.index",
        rules.SECOND_INDEX,
        {"dims": "dims"},
        "A second vector length is stored; the first one is used.",
        "the second one is deleted.",
    ),
)

SCANS: Final = (
    Scan(name="threads", first="", window=ledger.THREADS, checks=_THREADS),
    Scan(name="runs", first=0, window=ledger.RUNS, checks=_RUNS),
    Scan(name="event logs", first=-1, window=ledger.LOGS, checks=_LOGS),
    Scan(name="logs of runs", first=-1, window=ledger.RECORDS, checks=_RECORDS),
    Scan(
        name="assistants",
        first="",
        window=ledger.ASSISTANTS,
        checks=(Check(find=ledger.WITHOUT_VERSION, judge=judged.no_version),),
    ),
    Scan(name="assistants with versions", first="", window=ledger.VERSIONS, checks=_VERSIONS),
    Scan(
        name="crons",
        first="",
        window=ledger.CRONS,
        checks=(Check(find=ledger.CRONS_WITHOUT_NEXT, judge=judged.no_next_slot),),
    ),
    Scan(name="webhook deliveries", first="", window=ledger.DELIVERIES, checks=_DELIVERIES),
    Scan(name="attempted deliveries", first="", window=ledger.ATTEMPTS, checks=_ATTEMPTS),
    Scan(name="checkpointed threads", first="", window=ledger.CHECKPOINTED, checks=_CHECKPOINTS),
    Scan(name="stored items", first=None, window=ledger.ITEMS, checks=_ITEMS),
    Scan(name="vector indexes", first=None, window=ledger.INDEXES, checks=_INDEXES),
)
