"""When a journal commits: a table."""

from __future__ import annotations

import pytest

from runlane.journal.pacing import LARGE_EVENTS_BYTES, LARGE_ROWS_BYTES, READ_S, UNREAD_S, Pace, gather_s

LONG_S = 3600.0


@pytest.mark.parametrize(
    ("event_bytes", "row_bytes", "is_checkpoint", "is_read", "idle_s", "expected_s"),
    [
        (1, 0, False, True, LONG_S, 0.0),  # the first event after a pause
        (1, 0, False, True, 0.0, READ_S),
        (1, 0, False, True, 0.002, READ_S - 0.002),
        (1, 0, False, True, READ_S, 0.0),
        (1, 0, False, False, LONG_S, UNREAD_S),
        (1, 0, False, False, 0.0, UNREAD_S),
        (1, 9, False, True, 0.002, READ_S - 0.002),
        (1, 9, True, True, LONG_S, UNREAD_S),  # nobody reads a checkpoint
        (0, 9, True, False, LONG_S, UNREAD_S),
        (LARGE_EVENTS_BYTES - 1, 0, False, False, 0.0, UNREAD_S),
        (LARGE_EVENTS_BYTES, 0, False, False, 0.0, 0.0),
        (LARGE_EVENTS_BYTES, 9, True, False, 0.0, 0.0),
        (0, LARGE_ROWS_BYTES - 1, True, False, 0.0, UNREAD_S),
        (0, LARGE_ROWS_BYTES, True, False, 0.0, 0.0),
    ],
)
def test_how_long_a_journal_gathers(
    event_bytes: int, row_bytes: int, is_checkpoint: bool, is_read: bool, idle_s: float, expected_s: float
) -> None:
    waited_s = gather_s(
        event_bytes=event_bytes, row_bytes=row_bytes, is_checkpoint=is_checkpoint, is_read=is_read, idle_s=idle_s
    )
    assert waited_s == pytest.approx(expected_s)


@pytest.mark.parametrize(
    ("due_for_a_reader", "event_bytes", "row_bytes", "is_read", "expected"),
    [
        (False, 1, 0, False, True),
        (False, 1, 0, True, False),  # a reader waits less long
        (True, 1, 0, True, True),
        (True, 1, 0, False, True),
        (True, LARGE_EVENTS_BYTES, 0, True, False),
        (True, 0, LARGE_ROWS_BYTES, False, False),
    ],
)
def test_which_appends_the_timer_that_runs_will_do_for(
    due_for_a_reader: bool, event_bytes: int, row_bytes: int, is_read: bool, expected: bool
) -> None:
    pace = Pace()
    assert not pace.covers(event_bytes=1, row_bytes=0, is_read=is_read)
    assert pace.brings_forward(UNREAD_S, is_read=False)
    if due_for_a_reader:
        assert pace.brings_forward(READ_S, is_read=True)
    assert pace.covers(event_bytes=event_bytes, row_bytes=row_bytes, is_read=is_read) is expected
    pace.sent(0.0)
    assert not pace.covers(event_bytes=1, row_bytes=0, is_read=is_read)
