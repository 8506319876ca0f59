"""The queue of a journal: order, refusals, and what is left, without a database."""

from __future__ import annotations

import pytest

from runlane.errors import LeaseLost, LedgerClosed, StoreUnavailable
from runlane.journal.queue import MAX_EVENT_BYTES, MAX_GROWN_BYTES, MAX_ROW_BYTES, Queue
from runlane.journal.rows import CheckpointRows
from runlane.records import Lease

LEASE = Lease(run_id="r", thread_id="t", seq=1, attempt=1, worker_id="w")
REFUSED = ValueError("unfit")


def rows(name: str, size: int = 1) -> CheckpointRows:
    row = {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": name}
    return CheckpointRows(checkpoints=[row], size=size)


def queue() -> Queue:
    return Queue(LEASE, 7)


def names(made: CheckpointRows) -> list[str]:
    return [row["checkpoint_id"] for row in made.checkpoints]


def flying(made: Queue) -> tuple[list[int], list[str]]:
    """Return the events and the checkpoints that are on their way."""
    assert made.flying is not None
    return [event.seq for event in made.flying.events], names(made.flying.rows)


def test_a_batch_has_everything_before_it_and_the_next_one_waits_for_it() -> None:
    made = queue()
    made.append_event("a", b"1")
    made.append_rows(rows("one"))
    assert made.take()
    made.append_event("b", b"2")
    made.append_rows(rows("two"))
    assert not made.take()
    assert made.due
    assert flying(made) == ([8], ["one"])
    made.commit()
    assert made.settled == 2
    assert made.take()
    assert flying(made) == ([9], ["two"])
    made.commit()
    assert (made.settled, made.event_bytes, made.row_bytes, made.due) == (4, 0, 0, False)
    assert not made.take()


def test_a_batch_takes_along_what_is_appended_until_its_transaction_begins_and_is_the_same_from_then_on() -> None:
    made = queue()
    made.append_event("a", b"1")
    made.take()
    made.append_event("b", b"2")
    made.append_rows(rows("one"))
    made.take()
    assert made.begin() is made.flying
    assert flying(made) == ([8, 9], ["one"])
    assert not made.due
    made.append_event("c", b"3")
    assert made.begin() is made.flying
    assert flying(made) == ([8, 9], ["one"])
    made.commit()
    assert (made.settled, made.event_bytes, made.row_bytes) == (3, 1, 0)
    assert made.take()
    assert flying(made) == ([10], [])


@pytest.mark.parametrize("why", ["large", "closed", "refused"])
def test_a_batch_takes_nothing_along(why: str) -> None:
    made = queue()
    made.append_event("a", b"1")
    made.append_rows(rows("one"))
    made.take()
    if why == "refused":  # events and checkpoints of it are written apart
        made.refuse(REFUSED)
        made.take()
    made.append_event("b", b"2" * (MAX_GROWN_BYTES if why == "large" else 1))
    made.closed = why == "closed"
    assert made.begin() is made.flying
    assert flying(made) == ([8], [] if why == "refused" else ["one"])


def test_a_refused_batch_of_both_kinds_goes_on_apart_and_checkpoints_follow_their_events() -> None:
    made = queue()
    made.append_event("a", b"1")
    made.append_rows(rows("one"))
    made.take()
    made.append_event("b", b"2")
    made.append_rows(rows("two"))
    assert made.refuse(REFUSED) is None
    assert made.due
    assert made.take()
    assert flying(made) == ([8, 9], [])
    made.append_event("c", b"3")
    made.append_rows(rows("three"))
    made.commit()
    assert made.settled == 0
    assert made.take()
    assert flying(made) == ([], ["one", "two"])
    made.commit()
    assert made.settled == 4
    assert made.take()
    assert flying(made) == ([10], [])


def test_events_that_are_refused_leave_checkpoints_alone() -> None:
    made = queue()
    made.append_event("a", b"1")
    made.take()
    made.append_event("b", b"2")
    made.append_rows(rows("one"))
    failure = made.refuse(REFUSED)
    assert isinstance(failure, StoreUnavailable)
    assert made.events_refused is failure
    assert not made.append_event("c", b"3")
    made.append_rows(rows("two"))
    assert made.take()
    assert flying(made) == ([], ["one", "two"])
    made.commit()
    assert (made.settled, made.event_bytes) == (made.appended, 0)


def test_checkpoints_that_are_refused_leave_events_alone() -> None:
    made = queue()
    made.append_rows(rows("one"))
    made.take()
    assert made.refuse(REFUSED) is None
    with pytest.raises(ValueError, match="unfit"):
        made.append_rows(rows("two"))
    assert made.append_event("a", b"1")
    assert made.take()
    assert (flying(made), made.row_bytes) == (([8], []), 0)


@pytest.mark.parametrize("error", [LeaseLost("r", 1), LedgerClosed()])
def test_nothing_is_written_after_what_ends_all_writing(error: Exception) -> None:
    made = queue()
    made.append_event("a", b"1")
    made.append_rows(rows("one"))
    made.take()
    made.append_event("b", b"2")
    assert made.refuse(error) is error
    assert not made.append_event("c", b"3")
    with pytest.raises(type(error)):
        made.append_rows(rows("two"))
    assert not made.take()
    assert (made.settled, made.event_bytes, made.row_bytes) == (made.appended, 0, 0)


def test_what_is_left_when_it_is_closed_is_not_taken() -> None:
    made = queue()
    made.append_event("a", b"1")
    made.take()
    made.append_event("b", b"2")
    made.append_rows(rows("one"))
    made.closed = True
    assert not made.append_event("c", b"3")
    with pytest.raises(LeaseLost):
        made.append_rows(rows("two"))
    made.commit()
    assert not made.take()
    assert ([event.seq for event in made.open.events], names(made.open.rows)) == ([9], ["one"])


def test_a_queue_that_is_closed_while_it_writes_apart_writes_what_it_has_taken() -> None:
    made = queue()
    made.append_event("a", b"1")
    made.append_rows(rows("one"))
    made.take()
    made.refuse(REFUSED)
    made.take()
    made.closed = True
    made.commit()
    assert made.take()
    assert flying(made) == ([], ["one"])


def test_what_is_dropped_is_not_taken() -> None:
    made = queue()
    made.append_event("a", b"1")
    made.append_rows(rows("one"))
    made.drop(LeaseLost("r", 1))
    assert (made.event_bytes, made.row_bytes) == (0, 0)
    assert not made.take()
    with pytest.raises(LeaseLost):
        made.check()


@pytest.mark.parametrize("taken", [False, True])
def test_it_is_congested_by_what_is_not_committed(taken: bool) -> None:
    made = queue()
    made.append_event("a", b"x" * (MAX_EVENT_BYTES + 1))
    assert made.congested
    made.take()
    if taken:
        made.commit()
    assert made.congested is not taken
    made = queue()
    made.append_rows(rows("one", MAX_ROW_BYTES + 1))
    assert made.congested
