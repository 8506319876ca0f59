"""What is admitted, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from runlane.admission import (
    ActiveRun,
    LaneView,
    check_repeated,
    decide,
    needs_a_place,
    not_open,
    parse_strategy,
    reads_whole_lane,
    run_metadata,
    starts_at_once,
    thread_metadata,
)
from runlane.errors import (
    AlreadyExists,
    ConflictError,
    InvalidRequest,
    KeyReused,
    NoSuchInterrupt,
    QueueFull,
    RunlaneError,
    UnsupportedStrategyError,
)
from runlane.lifecycle import CancelAction, MultitaskStrategy
from runlane.records import OF_ONE_RUN, NewRun
from runlane.requests import RunOrigin, RunRequest

BUSY = LaneView(active=(ActiveRun(run_id="oldest"), ActiveRun(run_id="newest")), max_queued_runs=2)
FULL = replace(BUSY, full=True)
WAITS = LaneView(open_interrupts={"asked", "too"})
EVERY = tuple(MultitaskStrategy)


def a_run(strategy: MultitaskStrategy = MultitaskStrategy.ENQUEUE, *answers: str, **more: Any) -> NewRun:
    request = RunRequest(answers=answers)
    return NewRun(run_id="new", thread_id="t", owner="", multitask_strategy=strategy, request=request, **more)


@pytest.mark.parametrize(
    ("strategies", "lane", "refusal", "cancel"),
    [
        (EVERY, LaneView(), None, None),
        ((MultitaskStrategy.REJECT,), BUSY, ConflictError("t", "oldest"), None),
        ((MultitaskStrategy.REJECT,), FULL, ConflictError("t", "oldest"), None),
        ((MultitaskStrategy.ENQUEUE,), BUSY, None, None),
        ((MultitaskStrategy.ENQUEUE,), FULL, QueueFull("t", 2), None),
        ((MultitaskStrategy.INTERRUPT,), BUSY, None, CancelAction.INTERRUPT),
        ((MultitaskStrategy.INTERRUPT,), FULL, None, CancelAction.INTERRUPT),
        ((MultitaskStrategy.ROLLBACK,), BUSY, None, CancelAction.ROLLBACK),
        ((MultitaskStrategy.ROLLBACK,), FULL, None, CancelAction.ROLLBACK),
    ],
)
def test_a_lane_takes_a_run_as_the_strategy_says(
    strategies: Sequence[MultitaskStrategy], lane: LaneView, refusal: RunlaneError | None, cancel: CancelAction | None
) -> None:
    for strategy in strategies:
        decision = decide(a_run(strategy), lane)
        assert (type(decision.refusal), str(decision.refusal)) == (type(refusal), str(refusal))
        assert decision.cancel is cancel


@pytest.mark.parametrize(
    ("answers", "lane", "why"),
    [
        (("asked",), WAITS, None),
        (("asked", "too"), WAITS, None),
        (("asked",), LaneView(), "nothing of this thread waits for it"),
        (("asked", "never"), WAITS, "nothing of this thread waits for it"),
        (("asked",), replace(WAITS, active=(ActiveRun(run_id="r", answers=("asked",)),)), "already, by run 'r'"),
        (("too",), replace(WAITS, active=(ActiveRun(run_id="r", answers=("asked",)),)), None),
        (("asked",), replace(WAITS, active=(ActiveRun(run_id="r"),)), "goes on with run 'r' without an answer"),
        (("never",), replace(WAITS, answered={"never": "r"}), "already, by run 'r'"),
        (("asked",), replace(WAITS, answered={"asked": "r"}), None),  # it came again under its id
    ],
)
def test_an_answer_is_taken_if_its_interrupt_is_open(answers: tuple[str, ...], lane: LaneView, why: str | None) -> None:
    refusal = decide(a_run(MultitaskStrategy.ENQUEUE, *answers), lane).refusal
    assert (refusal is None) == (why is None)
    if why is not None:
        assert isinstance(refusal, NoSuchInterrupt)
        assert why in str(refusal)


@pytest.mark.parametrize(
    ("strategy", "answers", "whole", "place"),
    [
        (MultitaskStrategy.REJECT, (), False, False),
        (MultitaskStrategy.ENQUEUE, (), False, True),
        (MultitaskStrategy.ENQUEUE, ("asked",), True, True),
        (MultitaskStrategy.INTERRUPT, (), True, False),
        (MultitaskStrategy.ROLLBACK, (), True, False),
    ],
)
def test_no_more_of_a_lane_is_read_than_is_needed(
    strategy: MultitaskStrategy, answers: tuple[str, ...], whole: bool, place: bool
) -> None:
    new = a_run(strategy, *answers)
    assert (reads_whole_lane(new), needs_a_place(new)) == (whole, place)


def test_interrupts_that_nobody_asked_or_answers_are_looked_up() -> None:
    lane = replace(WAITS, active=(ActiveRun(run_id="r", answers=("answered",)),))
    assert not_open(a_run(MultitaskStrategy.ENQUEUE, "asked", "answered", "never"), lane) == ["never"]


@pytest.mark.parametrize(
    ("thread_id", "fingerprint", "by_key", "refused"),
    [
        ("t", "same", True, None),
        ("t", "other", True, KeyReused),
        ("t", None, False, None),
        ("elsewhere", None, False, AlreadyExists),
    ],
)
def test_a_repeated_admission_is_the_same_request_on_the_same_thread(
    thread_id: str, fingerprint: str | None, by_key: bool, refused: type[RunlaneError] | None
) -> None:
    new = a_run(idempotency_key="k", origin=RunOrigin(fingerprint="same"))
    with pytest.raises(refused) if refused is not None else nullcontext():
        check_repeated(new, run_id="old", thread_id=thread_id, fingerprint=fingerprint, by_key=by_key)


def test_a_run_inherits_from_its_thread_between_its_defaults_and_its_own_metadata() -> None:
    new = a_run(metadata={"own": 1, "both": 1}, default_metadata={"both": 0, "default": 0, "shared": 0})
    inherited = {"shared": 2, "both": 2, **dict.fromkeys(OF_ONE_RUN, 2)}
    assert run_metadata(new, inherited) == {"own": 1, "both": 1, "default": 0, "shared": 2}
    assert run_metadata(structs.replace(new, default_metadata=None), inherited) == {"own": 1, "both": 1}
    assert thread_metadata(new) == {"own": 1, "both": 1, "default": 0, "shared": 0}


@pytest.mark.parametrize(
    ("delay_s", "head", "alone", "starts"),
    [
        (0.0, None, True, True),
        (5.0, None, True, False),
        (0.0, "new", False, True),
        (0.0, "oldest", False, False),
        (0.0, None, False, False),
    ],
)
def test_a_run_starts_at_once_if_it_is_due_and_the_head_of_its_lane(
    delay_s: float, head: str | None, alone: bool, starts: bool
) -> None:
    assert starts_at_once(a_run(delay_s=delay_s), head=head, alone=alone) is starts


@pytest.mark.parametrize("strategy", MultitaskStrategy)
def test_a_strategy_is_parsed_from_its_name(strategy: MultitaskStrategy) -> None:
    assert parse_strategy(strategy.value) is strategy


@pytest.mark.parametrize("text", ["", "Reject", "queue", "interrupt "])
def test_a_strategy_that_does_not_exist_is_an_invalid_request_that_names_it(text: str) -> None:
    with pytest.raises(UnsupportedStrategyError) as refused:
        parse_strategy(text)
    assert refused.value.strategy == text
    assert isinstance(refused.value, InvalidRequest)
    assert "'enqueue'" in str(refused.value)
