"""Multitask strategies, as a table."""

from __future__ import annotations

import pytest

from runlane.admission import Decision, decide, parse_strategy
from runlane.errors import InvalidRequest, UnsupportedStrategyError
from runlane.lifecycle import CancelAction, MultitaskStrategy


@pytest.mark.parametrize("strategy", MultitaskStrategy)
def test_an_idle_thread_takes_a_run_with_any_strategy(strategy: MultitaskStrategy) -> None:
    assert decide(strategy, []) == Decision()


@pytest.mark.parametrize(
    ("strategy", "decision"),
    [
        (MultitaskStrategy.REJECT, Decision(blocked_by="oldest")),
        (MultitaskStrategy.ENQUEUE, Decision()),
        (MultitaskStrategy.INTERRUPT, Decision(cancel=CancelAction.INTERRUPT)),
        (MultitaskStrategy.ROLLBACK, Decision(cancel=CancelAction.ROLLBACK)),
    ],
)
def test_a_busy_thread_takes_a_run_as_the_strategy_says(strategy: MultitaskStrategy, decision: Decision) -> None:
    assert decide(strategy, ["oldest", "newest"]) == decision


@pytest.mark.parametrize("strategy", MultitaskStrategy)
def test_a_full_lane_refuses_only_a_run_that_would_wait_there(strategy: MultitaskStrategy) -> None:
    waits = strategy is MultitaskStrategy.ENQUEUE
    assert decide(strategy, ["oldest"], full=True) == (Decision(full=True) if waits else decide(strategy, ["oldest"]))


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
