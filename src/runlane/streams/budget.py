"""The memory that all readers of a process share: the more there are, the less each holds of its stream."""

from __future__ import annotations

from typing import Final

#: For what all readers hold of streams that their clients do not take.
READER_BYTES: Final = 32 * 1024 * 1024
#: For the newest events of all runs that are read.
TAILS_BYTES: Final = 32 * 1024 * 1024
#: What a run keeps of them for readers that are not far behind; a slower one reads the log.
TAIL_BYTES: Final = 4 * 1024 * 1024
MIN_TAIL_BYTES: Final = 16 * 1024
#: How often a reader holds the same bytes: as events that are on their way, and in its connection's buffer.
COPIES: Final = 2
#: Enough for a fast reader that is alone, and what costs less than the asking.
MAX_PART_BYTES: Final = 1024 * 1024
MIN_PART_BYTES: Final = 8 * 1024
#: What a reader gets at first: nobody knows yet whether its client takes anything.
FIRST_PART_BYTES: Final = 16 * 1024
#: What a connection may hold that its client does not take: nothing more is written to it until it has less.
UNTAKEN_BYTES: Final = 16 * 1024


class ReaderBudget:
    """Gives every reader an equal part. An event that is larger is sent part by part."""

    def __init__(self, total_bytes: int = READER_BYTES) -> None:
        self._total_bytes = total_bytes
        self._readers = 0
        self._tails = 0

    def join(self) -> None:
        """Count one reader more."""
        self._readers += 1

    def leave(self) -> None:
        """Count one reader less."""
        self._readers -= 1

    def keep_tail(self) -> None:
        """Count one run more that keeps its newest events."""
        self._tails += 1

    def drop_tail(self) -> None:
        """Count one run less."""
        self._tails -= 1

    @property
    def tail_bytes(self) -> int:
        """Return how many bytes of its newest events a run may keep."""
        return max(MIN_TAIL_BYTES, min(TAIL_BYTES, TAILS_BYTES // max(1, self._tails)))

    def part_bytes(self, taken_bytes: int) -> int:
        """Return how many bytes of its stream a reader may hold now, whose client has taken *taken_bytes* so far.

        Source: slow start of TCP (RFC 5681): who is alone and does not read must not hold what 400 others then lack.
        """
        equal = self._total_bytes // (COPIES * max(1, self._readers))
        return max(MIN_PART_BYTES, min(MAX_PART_BYTES, equal, max(FIRST_PART_BYTES, taken_bytes)))
