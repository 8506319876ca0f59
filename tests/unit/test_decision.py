"""The whole policy of how an attempt ends, as a table."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import product

import pytest

from runlane.errors import LeaseLost, StoreUnavailable
from runlane.execution.decision import StopReason, decide, run_error
from runlane.lifecycle import CancelAction, EndReason, RunEvent
from runlane.outcomes import Abandoned, Drained
from runlane.records import CancelReceipt, Lease

CANCELLED, LEFT, DRAINED, OWN = asyncio.CancelledError(), Abandoned("here"), Drained(), ValueError("mine")
FAILURES = (None, CANCELLED, LEFT, DRAINED, OWN, SystemExit(1), StoreUnavailable("out"))
S, E, R = StopReason, RunEvent, EndReason
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = Lease(run_id="r", thread_id="t", seq=1, worker_id="w", attempt=1)


def receipt(action: CancelAction, reason: EndReason = EndReason.USER_CANCEL, by: str | None = None) -> CancelReceipt:
    return CancelReceipt(run_id="r", action=action, reason=reason, requested_by=by, requested_at=NOW)


@pytest.mark.parametrize(
    ("failure", "stop", "continuable", "event", "reason"),
    [
        (None, None, False, E.SUCCEED, R.COMPLETED),
        (None, S.DRAIN, True, E.SUCCEED, R.COMPLETED),  # it ended before it noticed
        (None, S.DEADLINE, True, E.SUCCEED, R.COMPLETED),
        (OWN, None, True, E.FAIL, R.FAILED),
        (OWN, S.DRAIN, True, E.FAIL, R.FAILED),
        (OWN, S.DEADLINE, True, E.FAIL, R.FAILED),
        (CANCELLED, None, True, E.FAIL, R.FAILED),  # the agent cancelled itself
        (CANCELLED, S.DEADLINE, True, E.EXPIRE, R.DEADLINE),
        (LEFT, S.DEADLINE, False, E.EXPIRE, R.DEADLINE),
        (DRAINED, S.DEADLINE, True, E.EXPIRE, R.DEADLINE),
        (CANCELLED, S.DRAIN, True, E.RELEASE, None),
        (LEFT, S.DRAIN, True, E.RELEASE, None),
        (DRAINED, S.DRAIN, True, E.RELEASE, None),
        (DRAINED, None, True, E.RELEASE, None),
        (CANCELLED, S.DRAIN, False, E.STOP, R.DRAINED_OVER),
        (LEFT, S.DRAIN, False, E.STOP, R.DRAINED_OVER),
        (DRAINED, None, False, E.STOP, R.DRAINED_OVER),
        (CANCELLED, S.LAPSED, True, E.RELEASE, None),
        (CANCELLED, S.LAPSED, False, E.RELEASE, None),
        (StoreUnavailable("out"), S.DRAIN, True, E.FAIL, R.FAILED),
    ],
    ids=repr,
)
def test_an_attempt_ends_as_the_table_says(
    failure: BaseException | None, stop: StopReason | None, continuable: bool, event: RunEvent, reason: EndReason | None
) -> None:
    outcome = decide(LEASE, failure, stop, None, paused=False, continuable=continuable)
    assert (outcome.event, outcome.end_reason) == (event, reason)
    assert (outcome.error is None) == (event in (E.SUCCEED, E.RELEASE))


@pytest.mark.parametrize("failure", [CANCELLED, LEFT])
def test_code_that_may_be_executed_once_ends_with_the_lease_that_lapsed(failure: BaseException) -> None:
    outcome = decide(LEASE, failure, S.LAPSED, None, paused=False, continuable=False, once=True)
    assert (outcome.event, outcome.end_reason) == (E.FAIL, R.WORKER_LOST)


def test_a_graph_that_waits_for_a_human_has_paused() -> None:
    outcome = decide(LEASE, None, None, None, paused=True, continuable=True)
    assert (outcome.event, outcome.end_reason, outcome.needs_repair) == (E.PAUSE, R.PAUSED, False)


@pytest.mark.parametrize(
    ("failure", "stop", "paused", "continuable"), [*product(FAILURES, [*S, None], [True, False], [True, False])]
)
def test_a_recorded_cancel_is_never_followed_by_anything_but_a_stop(
    failure: BaseException | None, stop: StopReason | None, paused: bool, continuable: bool
) -> None:
    cancel = receipt(CancelAction.INTERRUPT)
    if stop is S.LEASE_LOST:
        with pytest.raises(LeaseLost):
            decide(LEASE, failure, stop, cancel, paused=paused, continuable=continuable)
    else:
        outcome = decide(LEASE, failure, stop, cancel, paused=paused, continuable=continuable)
        assert (outcome.event, outcome.end_reason) == (E.STOP, R.USER_CANCEL)


@pytest.mark.parametrize(("failure", "cancel"), [*product(FAILURES, [None, receipt(CancelAction.ROLLBACK)])])
def test_a_lost_lease_writes_nothing(failure: BaseException | None, cancel: CancelReceipt | None) -> None:
    with pytest.raises(LeaseLost):
        decide(LEASE, failure, S.LEASE_LOST, cancel, paused=False, continuable=True)
    with pytest.raises(LeaseLost):
        decide(LEASE, LeaseLost("r", 1), None, cancel, paused=False, continuable=True)


@pytest.mark.parametrize("reason", [R.USER_CANCEL, R.SUPERSEDED, R.DISCONNECT])
def test_a_rollback_says_so_and_an_interrupt_says_why(reason: EndReason) -> None:
    back = decide(LEASE, CANCELLED, S.CANCEL, receipt(CancelAction.ROLLBACK, reason), paused=False, continuable=True)
    stop = decide(
        LEASE, CANCELLED, S.CANCEL, receipt(CancelAction.INTERRUPT, reason, "ann"), paused=False, continuable=True
    )
    assert (back.end_reason, stop.end_reason) == (R.ROLLED_BACK, reason)
    assert back.error is not None
    assert stop.error is not None
    assert (back.error.error, stop.error.error) == ("UserRollback", "UserInterrupt")
    assert "ann" in stop.error.message


@pytest.mark.parametrize("event", list(E))
def test_only_a_run_that_was_cut_short_needs_repair(event: RunEvent) -> None:
    outcomes = [decide(LEASE, failure, None, None, paused=False, continuable=True) for failure in FAILURES]
    found = {outcome.needs_repair for outcome in outcomes if outcome.event is event}
    assert found <= {event in (E.STOP, E.FAIL, E.EXPIRE)}


def test_texts_of_unknown_exceptions_are_not_shown() -> None:
    class Secret(Exception):
        pass

    shown, hidden = run_error(ValueError("bad\x00input")), run_error(Secret("password=1"))
    assert (shown.error, shown.message) == ("ValueError", "bad\ufffdinput")
    assert (hidden.error, hidden.message) == ("Secret", "An internal error occurred")
    assert run_error(asyncio.CancelledError()).error == "CancelledError"
