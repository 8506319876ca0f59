"""The table of legal moves, spelled out once more."""

from __future__ import annotations

from itertools import product

import pytest

from runlane.errors import IllegalTransition
from runlane.lifecycle import ACTIVE, MOVES, TERMINAL, RunEvent, RunStatus, move

LEGAL = {
    ("pending", "claim"): "running",
    ("pending", "cancel"): "interrupted",
    ("pending", "give_up"): "error",
    ("running", "cancel"): "running",
    ("running", "succeed"): "success",
    ("running", "pause"): "success",
    ("running", "fail"): "error",
    ("running", "expire"): "timeout",
    ("running", "stop"): "interrupted",
    ("running", "release"): "pending",
    ("running", "rescue"): "pending",
    ("running", "give_up"): "error",
}


@pytest.mark.parametrize(("status", "event"), list(product(RunStatus, RunEvent)))
def test_a_move_is_legal_exactly_if_the_table_has_it(status: RunStatus, event: RunEvent) -> None:
    expected = LEGAL.get((status.value, event.value))
    if expected is not None:
        assert move("r", status, event) == expected
        return
    with pytest.raises(IllegalTransition) as refused:
        move("r", status, event)
    assert (refused.value.run_id, refused.value.status, refused.value.event) == ("r", status.value, event.value)


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_nothing_leads_out_of_a_terminal_status(status: RunStatus) -> None:
    assert status.terminal
    assert not [event for start, event in MOVES if start is status]


def test_every_status_is_either_active_or_terminal() -> None:
    assert set(RunStatus) == ACTIVE | TERMINAL
    assert not ACTIVE & TERMINAL
    assert not any(status.terminal for status in ACTIVE)


def test_the_end_is_reachable_from_every_active_status() -> None:
    for status in ACTIVE:
        assert TERMINAL & {end for (start, _), end in MOVES.items() if start is status}


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        MOVES[RunStatus.SUCCESS, RunEvent.FAIL] = RunStatus.ERROR  # type: ignore[index]  # that is the point
