"""The memory that all readers of a process share: the more there are, the less each holds of its stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from runlane.records import StreamEvent

#: For what all readers hold of streams that their clients do not take.
READER_BYTES: Final = 64 * 1024 * 1024
#: How often a reader holds the same bytes: as events, as the frames that wait for the connection, and, of the part
#: before, in the connection's buffer.
COPIES: Final = 3
#: Enough for a fast reader that is alone, and what costs less than the asking.
MAX_PART_BYTES: Final = 1024 * 1024
MIN_PART_BYTES: Final = 32 * 1024


class ReaderBudget:
    """Gives every reader an equal part. A part has one event at least, however large that is."""

    def __init__(self, total_bytes: int = READER_BYTES) -> None:
        self._total_bytes = total_bytes
        self._readers = 0

    def join(self) -> None:
        """Count one reader more."""
        self._readers += 1

    def leave(self) -> None:
        """Count one reader less."""
        self._readers -= 1

    @property
    def part_bytes(self) -> int:
        """Return how many bytes of its stream a reader may hold now."""
        equal = self._total_bytes // (COPIES * max(1, self._readers))
        return max(MIN_PART_BYTES, min(MAX_PART_BYTES, equal))

    def part(self, events: Sequence[StreamEvent]) -> Sequence[StreamEvent]:
        """Return the first of *events* that fit, and one if none does."""
        size, limit = 0, self.part_bytes
        for place, event in enumerate(events):
            size += len(event.data)
            if size > limit and place:
                return events[:place]
        return events
