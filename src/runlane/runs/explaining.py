"""Explain a run: what happened to it, why, and what it waits for now, as sentences and as data. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from runlane.lifecycle import CancelAction, CancelSource, EndReason, HandBack, MultitaskStrategy, RunStatus
from runlane.records import CancelReceipt, RunRecord
from runlane.runs.waiting import shown_time, waiting_sentence
from runlane.settings import Limits
from runlane.store.transactions.histories import PastAttempt, RunHistory

StepKind = Literal[
    "admitted",
    "delayed",
    "starts_at",
    "answers",
    "claimed",
    "handed_back",
    "cancel_requested",
    "cancel_seen",
    "abandoned",
    "ended",
    "kept",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that happened to a run, or was asked of it; its fields are what the sentence names."""

    kind: StepKind
    at: datetime
    sentence: str
    attempt: int | None = None
    worker_id: str | None = None
    build: str | None = None
    checkpoint_id: str | None = None
    run_id: str | None = None
    cron_id: str | None = None
    by: str | None = None
    source: CancelSource | None = None
    action: CancelAction | None = None
    reason: EndReason | None = None
    handed_back: HandBack | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What changes that which the state sentence says: a request, and the command line that makes it."""

    does: str
    method: str
    path: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What happened to a run.

    Attributes:
        as_of: The instant at which it was read, by the ledger's clock.
        sentence: Its state, and of an active run what it waits for.
        error: Class of the exception that it failed with.
        steps: What happened, the oldest first.
        remedies: What can be done about what it waits for.
    """

    run_id: str
    thread_id: str
    owner: str
    status: RunStatus
    end_reason: EndReason | None
    as_of: datetime
    sentence: str
    error: str | None
    steps: tuple[Step, ...]
    remedies: tuple[Remedy, ...]


def explain(history: RunHistory, limits: Limits) -> Explanation:
    """Explain the run of *history*.

    Args:
        limits: Those of the workers that could execute it.
    """
    run = history.run
    return Explanation(
        run_id=run.run_id,
        thread_id=run.thread_id,
        owner=run.owner,
        status=run.status,
        end_reason=run.end_reason,
        as_of=history.now,
        sentence=_state(history, limits),
        error=None if run.error is None else run.error.error,
        steps=tuple(sorted(_steps(history), key=lambda step: step.at)),
        remedies=tuple(_remedies(history)),
    )


# What happened


def _steps(history: RunHistory) -> Iterator[Step]:
    """Yield what happened; steps of one instant in their order."""
    run = history.run
    yield _admitted(run)
    yield from _asked(run)
    yield from _attempts(history)
    if run.cancel is not None:
        yield from _cancelled(run, run.cancel)
    if run.ended_at is not None:
        yield Step(kind="ended", at=run.ended_at, sentence=_ending(run), reason=run.end_reason)
        yield from _kept(history, run.ended_at)


def _admitted(run: RunRecord) -> Step:
    cron_id = run.metadata.get("cron_id")
    owner = f" for owner {run.owner!r}" if run.owner else ""
    strategy = _STRATEGIES[run.multitask_strategy]
    if isinstance(cron_id, str):
        return Step(
            kind="admitted",
            at=run.created_at,
            sentence=f"Cron {cron_id} started it{owner}; {strategy}.",
            cron_id=cron_id,
        )
    request_id, operator = run.stored.origin.request_id, run.stored.origin.operator
    by = "The application" if request_id is None else f"Request {request_id}"
    by = by if operator is None else f"Operator {operator!r}"
    return Step(kind="admitted", at=run.created_at, sentence=f"{by} started it{owner}; {strategy}.", by=request_id)


_STRATEGIES: Final = {
    MultitaskStrategy.REJECT: "its thread had to be idle (strategy reject)",
    MultitaskStrategy.ENQUEUE: "it starts after the runs that its thread has (strategy enqueue)",
    MultitaskStrategy.INTERRUPT: "it stops the runs that its thread has (strategy interrupt)",
    MultitaskStrategy.ROLLBACK: "it rolls back the runs that its thread has (strategy rollback)",
}


def _asked(run: RunRecord) -> Iterator[Step]:
    if run.not_before > run.created_at:
        sentence = f"It may not start before {shown_time(run.not_before)}, as was asked."
        yield Step(kind="delayed", at=run.created_at, sentence=sentence)
    request = run.request
    start = request.start
    checkpoint_id = start if isinstance(start, str) else (start or {}).get("checkpoint_id")
    if isinstance(checkpoint_id, str):
        sentence = f"It starts at checkpoint {checkpoint_id}, as was asked."
        yield Step(kind="starts_at", at=run.created_at, sentence=sentence, checkpoint_id=checkpoint_id)
    if (request.command or {}).get("resume") is not None:
        yield Step(kind="answers", at=run.created_at, sentence="It answers what the thread's graph asked.")


def _attempts(history: RunHistory) -> Iterator[Step]:
    run, before = history.run, None
    for attempt in history.past:
        if attempt.claimed_at is not None:
            claimed_at, worker_id, build = attempt.claimed_at, attempt.worker_id, attempt.build
            yield _claimed(attempt.attempt, claimed_at, worker_id, build, before)
        yield Step(
            kind="handed_back",
            at=attempt.ended_at,
            sentence=f"{_handed_back(attempt)}.",
            attempt=attempt.attempt,
            worker_id=attempt.worker_id,
            checkpoint_id=attempt.checkpoint_id,
            handed_back=attempt.ended_by,
        )
        before = attempt
    last = history.past[-1].attempt if history.past else 0
    if run.attempt > last and history.claimed_at is not None:
        yield _claimed(run.attempt, history.claimed_at, run.worker_id, history.build, before)


def _claimed(attempt: int, at: datetime, worker_id: str | None, build: str | None, before: PastAttempt | None) -> Step:
    checkpoint_id = None if before is None else before.checkpoint_id
    goes_on = f", from checkpoint {checkpoint_id}" if checkpoint_id else ""
    return Step(
        kind="claimed",
        at=at,
        sentence=f"Attempt {attempt} began on {_worker(worker_id, build)}{goes_on}.",
        attempt=attempt,
        worker_id=worker_id,
        build=build,
        checkpoint_id=checkpoint_id,
    )


def _handed_back(attempt: PastAttempt) -> str:
    worker = _worker(attempt.worker_id, attempt.build)
    if attempt.ended_by is HandBack.LOST:
        return f"Attempt {attempt.attempt} lost its worker: {worker} stopped renewing its lease"
    if attempt.ended_by is HandBack.DRAIN:
        return f"Attempt {attempt.attempt} was handed back, as {worker} was drained or shut down"
    if attempt.ended_by is HandBack.OUTAGE:
        return f"Attempt {attempt.attempt} was handed back, as {worker} could not renew its lease"
    if attempt.ended_by is HandBack.APPLICATION:
        return f"Attempt {attempt.attempt} was handed back by the application"
    return f"Attempt {attempt.attempt} was handed back by {worker}"


def _cancelled(run: RunRecord, cancel: CancelReceipt) -> Iterator[Step]:
    yield Step(
        kind="cancel_requested",
        at=cancel.requested_at,
        sentence=f"{_cancelled_by(cancel)}.",
        run_id=cancel.requested_by if cancel.reason is EndReason.SUPERSEDED else None,
        by=cancel.requested_by,
        source=cancel.source,
        action=cancel.action,
        reason=cancel.reason,
    )
    if cancel.observed_at is not None and run.attempt:
        yield Step(kind="cancel_seen", at=cancel.observed_at, sentence="Its worker learnt of that.")
    if cancel.blocked_at is not None and run.ended_at is not None:
        sentence = f"Its code did not stop and was abandoned at {cancel.blocked_at}."
        yield Step(kind="abandoned", at=run.ended_at, sentence=sentence)


def _cancelled_by(cancel: CancelReceipt) -> str:
    by = cancel.requested_by
    if cancel.reason is EndReason.SUPERSEDED:
        return f"Run {by} was started on its thread later and replaces it (strategy {cancel.action.value})"
    if cancel.reason is EndReason.DISCONNECT:
        return "It was cancelled, as the client that waited for it went away"
    if cancel.reason is EndReason.DRAINED_OVER:
        return "It was cancelled, as the process that had its code was drained or shut down"
    rolls_back = " and asked to roll its thread back" if cancel.action is CancelAction.ROLLBACK else ""
    return f"{_name(cancel)} cancelled it{rolls_back}"


def _name(cancel: CancelReceipt) -> str:
    by = cancel.requested_by
    if cancel.source is CancelSource.OPERATOR:
        return f"Operator {by!r}"
    if cancel.source is CancelSource.APPLICATION:
        return "The application" if by is None else f"The application, for {by!r},"
    return "A client of the API" if by in (None, "api") else f"{by!r}"


def _ending(run: RunRecord) -> str:
    """Return why the run ended."""
    error = "" if run.error is None else f" with {run.error.error}"
    match run.end_reason:
        case EndReason.COMPLETED:
            return "It completed."
        case EndReason.PAUSED:
            return "It ended with a question: the thread waits for an answer."
        case EndReason.FAILED:
            return f"It failed{error}."
        case EndReason.DEADLINE:
            return "It took longer than a run may, and was stopped."
        case EndReason.WORKER_LOST:
            return "Its worker was lost, and it is not tried again."
        case EndReason.NEVER_STARTED:
            return "No code was attached to it in time, so it never started."
        case EndReason.DRAINED_OVER:
            return "Its process was drained or shut down, and its code cannot go on elsewhere."
        case EndReason.ROLLED_BACK:
            return "It was stopped and rolled back."
    if not run.attempt:
        return "It was withdrawn before it started."
    return "Its code stopped." if run.cancel is None or run.cancel.stopped_at else "Its code was given up."


def _kept(history: RunHistory, at: datetime) -> Iterator[Step]:
    checkpoint_id = history.kept_checkpoint
    if checkpoint_id is None:
        return
    if history.run.end_reason is EndReason.ROLLED_BACK:
        sentence = f"The thread is at checkpoint {checkpoint_id} again, as before the run."
    else:
        sentence = f"The thread's newest checkpoint was {checkpoint_id} then."
    yield Step(kind="kept", at=at, sentence=sentence, checkpoint_id=checkpoint_id)


# What it is now


def _state(history: RunHistory, limits: Limits) -> str:
    run = history.run
    if run.status is RunStatus.PENDING:
        waits = waiting_sentence(history, limits)
        if run.cancel is not None:
            return f"{_cancelled_by(run.cancel)}. It ends once a worker has put its thread in order. {waits}"
        return waits
    if run.status is RunStatus.RUNNING:
        return " ".join(_running(history))
    cause = _ending(run)
    return f"{_cancelled_by(run.cancel)}. {cause}" if run.cancel is not None else cause


def _running(history: RunHistory) -> Iterator[str]:
    run = history.run
    worker = _worker(run.worker_id, history.build)
    since = "" if history.claimed_at is None else f" since {shown_time(history.claimed_at)}"
    yield f"Attempt {run.attempt} executes on {worker}{since}."
    if history.past:
        yield f"{_handed_back(history.past[-1])}."
    if history.worker == "draining":
        yield "The worker is being shut down: the run ends soon or is handed back."
    elif history.worker in ("silent", "gone"):
        yield "The worker does not renew its lease: the run will be taken from it."
    if run.cancel is not None:
        yield f"{_cancelled_by(run.cancel)}. Its code has not stopped yet."


def _remedies(history: RunHistory) -> Iterator[Remedy]:
    run = history.run
    if run.status.terminal or run.cancel is not None:
        return
    does = "withdraw it" if run.status is RunStatus.PENDING and not run.attempt else "cancel it"
    yield _cancelling(does, run.thread_id, run.run_id)
    if history.waiting is not None and history.waiting.run_id is not None:
        before = history.waiting.run_id
        yield _cancelling(f"cancel run {before}", run.thread_id, before)


def _cancelling(does: str, thread_id: str, run_id: str) -> Remedy:
    path = f"/threads/{thread_id}/runs/{run_id}/cancel"
    return Remedy(does=does, method="POST", path=path, command=f"runlane runs cancel {run_id}")


def _worker(worker_id: str | None, build: str | None) -> str:
    return f"worker {worker_id or '(unknown)'}{f' (build {build})' if build else ''}"
