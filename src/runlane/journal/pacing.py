"""When an attempt's journal commits what it has gathered. Pure."""

from __future__ import annotations

from typing import Final

#: While somebody reads the stream. Shorter costs a commit per token, longer is seen by the reader.
READ_S: Final = 0.005
#: While nobody waits for it. A crash repeats the steps of this time at most. A commit wakes three threads and costs a
#: short run about a tenth of its processor time; most end sooner than this, and need only the commit that ends them.
UNREAD_S: Final = 0.05
#: A batch this large does not wait for more.
LARGE_EVENTS_BYTES: Final = 256 * 1024
LARGE_ROWS_BYTES: Final = 4 * 1024 * 1024
#: Commits that are due at nearly the same time have one timer.
SAME_TIME_S: Final = 0.001


def gather_s(*, event_bytes: int, row_bytes: int, is_checkpoint: bool, is_read: bool, idle_s: float) -> float:
    """Return how long to wait for more after an append; 0: commit now.

    Args:
        event_bytes: Bytes of the events that wait, with the one just appended.
        row_bytes: Bytes of the checkpoints that wait, with the one just appended.
        is_checkpoint: What was appended is a checkpoint.
        is_read: Somebody reads the stream, which shows no checkpoints.
        idle_s: Time since the last commit began. The first event after a pause is committed at once for its readers.
    """
    if event_bytes >= LARGE_EVENTS_BYTES or row_bytes >= LARGE_ROWS_BYTES:
        return 0.0
    return max(0.0, READ_S - idle_s) if is_read and not is_checkpoint else UNREAD_S


class Pace:
    """At which instant the next commit is due, and which timer stands for it. Instants are of one monotonic clock."""

    __slots__ = ("_due_at", "_for_readers", "_sent_at")

    def __init__(self) -> None:
        self._due_at: float | None = None
        self._for_readers = False
        self._sent_at = float("-inf")

    def idle_s(self, now: float) -> float:
        """Return for how long nothing has been sent."""
        return now - self._sent_at

    def covers(self, *, event_bytes: int, row_bytes: int, is_read: bool) -> bool:
        """Return whether the timer for what waits is soon enough for what was appended now, as it mostly is."""
        if self._due_at is None or (is_read and not self._for_readers):
            return False
        return event_bytes < LARGE_EVENTS_BYTES and row_bytes < LARGE_ROWS_BYTES

    def sent(self, now: float) -> None:
        """Take note that everything that waited is sent: no timer counts any more."""
        self._due_at, self._sent_at = None, now

    def brings_forward(self, at: float, *, is_read: bool) -> bool:
        """Have the next commit due at *at*; return whether that takes a timer, as it is sooner than the last one."""
        self._for_readers = is_read
        if self._due_at is not None and self._due_at <= at + SAME_TIME_S:
            return False
        self._due_at = at
        return True

    def is_due(self, at: float) -> bool:
        """Return whether the timer for *at* still counts; it does once."""
        if at != self._due_at:
            return False
        self._due_at = None
        return True
