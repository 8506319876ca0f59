"""What one reader may hold, the less the more there are."""

from __future__ import annotations

import pytest

from runlane.records import StreamEvent
from runlane.streams.budget import COPIES, MAX_PART_BYTES, MIN_PART_BYTES, READER_BYTES, ReaderBudget


def events(*sizes: int) -> list[StreamEvent]:
    return [StreamEvent(seq=number, name="custom", data=b"x" * size) for number, size in enumerate(sizes, 1)]


def with_readers(count: int) -> ReaderBudget:
    budget = ReaderBudget()
    for _ in range(count):
        budget.join()
    return budget


@pytest.mark.parametrize("readers", [1, 21, 100, 400, 682])
def test_all_readers_together_hold_no_more_than_the_budget(readers: int) -> None:
    part_bytes = with_readers(readers).part_bytes
    assert MIN_PART_BYTES <= part_bytes <= MAX_PART_BYTES
    assert part_bytes * COPIES * readers <= READER_BYTES


def test_a_reader_that_is_alone_has_a_large_part_and_one_of_many_a_small_one() -> None:
    budget = with_readers(100_000)
    assert budget.part_bytes == MIN_PART_BYTES
    for _ in range(99_999):
        budget.leave()
    assert budget.part_bytes == MAX_PART_BYTES


@pytest.mark.parametrize(
    ("sizes", "fit"), [((1, 1, 1), 3), ((600, 600), 1), ((400, 400, 400), 2), ((5000, 1), 1), ((1, 5000), 1), ((), 0)]
)
def test_a_part_is_what_fits_and_one_event_at_least(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], fit: int
) -> None:
    monkeypatch.setattr(ReaderBudget, "part_bytes", 1000)
    found = events(*sizes)
    assert ReaderBudget().part(found) == found[:fit]
