"""What one reader may hold: little at first, more as its client takes it, and the less the more readers there are."""

from __future__ import annotations

from itertools import pairwise

import pytest

from runlane.streams.budget import (
    COPIES,
    FIRST_PART_BYTES,
    MAX_PART_BYTES,
    MIN_PART_BYTES,
    MIN_TAIL_BYTES,
    READER_BYTES,
    TAIL_BYTES,
    TAILS_BYTES,
    ReaderBudget,
)


def with_readers(count: int) -> ReaderBudget:
    budget = ReaderBudget()
    for _ in range(count):
        budget.join()
    return budget


@pytest.mark.parametrize("readers", [1, 21, 100, 400, 2000])
def test_all_readers_together_hold_no_more_than_the_budget(readers: int) -> None:
    part_bytes = with_readers(readers).part_bytes(MAX_PART_BYTES)
    assert MIN_PART_BYTES <= part_bytes <= MAX_PART_BYTES
    assert part_bytes * COPIES * readers <= READER_BYTES


def test_a_reader_that_is_alone_has_a_large_part_and_one_of_many_a_small_one() -> None:
    budget = with_readers(100_000)
    assert budget.part_bytes(MAX_PART_BYTES) == MIN_PART_BYTES
    for _ in range(99_999):
        budget.leave()
    assert budget.part_bytes(MAX_PART_BYTES) == MAX_PART_BYTES


def test_a_reader_gets_little_at_first_and_more_as_its_client_takes_it() -> None:
    budget, taken, parts = with_readers(1), 0, []
    while not parts or parts[-1] < MAX_PART_BYTES:
        parts.append(budget.part_bytes(taken))
        taken += parts[-1]
    assert parts[0] == FIRST_PART_BYTES
    assert all(later <= 2 * earlier for earlier, later in pairwise(parts))
    assert sum(with_readers(number).part_bytes(0) for number in range(1, 401)) <= 400 * FIRST_PART_BYTES


@pytest.mark.parametrize("runs", [0, 1, 8, 9, 200, 2000])
def test_all_runs_together_keep_no_more_of_their_newest_events_than_the_budget(runs: int) -> None:
    budget = ReaderBudget()
    for _ in range(runs):
        budget.keep_tail()
    assert MIN_TAIL_BYTES <= budget.tail_bytes <= TAIL_BYTES
    assert budget.tail_bytes * runs <= TAILS_BYTES
    for _ in range(runs):
        budget.drop_tail()
    assert budget.tail_bytes == TAIL_BYTES
