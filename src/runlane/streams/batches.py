"""What readers are given: batches of a run's stream, which all readers at the same place share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast, overload

from runlane.records import StreamEnd, StreamItem

T = TypeVar("T")


class EventBatch(Sequence[StreamItem]):
    """Items that are written together; an empty one is a heartbeat. *size* is that of its events' data."""

    __slots__ = ("_items", "_made", "size")

    def __init__(self, items: Sequence[StreamItem] = (), *, size: int = 0) -> None:
        self.size = size
        self._items = items
        self._made: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[StreamItem]:
        return iter(self._items)

    @overload
    def __getitem__(self, place: int) -> StreamItem: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[StreamItem]: ...

    def __getitem__(self, place: int | slice) -> StreamItem | Sequence[StreamItem]:
        return self._items[place]

    def made(self, kind: Hashable, make: Callable[[EventBatch], T]) -> T:
        """Return what *make* makes of this batch, which is made once for all readers who want the same *kind*."""
        found = self._made.get(kind)
        if found is None:
            found = self._made[kind] = make(self)
        return cast(T, found)


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeEvent:
    """An event that is larger than what a reader may hold, which has its number and no more.

    Its bytes are read when they are sent, a part at a time. All readers share what was read and what was made of it.

    Attributes:
        whole: Reads the event, alone in a batch; raises NotFound if it has been removed meanwhile.
        part_bytes: Returns how much of it a reader may hold now, whose client has taken so much of it.
    """

    seq: int
    whole: Callable[[], Awaitable[EventBatch]]
    part_bytes: Callable[[int], int]

    @property
    def size(self) -> int:
        """Bytes that a reader holds of it: its number alone."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LargePiece:
    """What is sent of a large event: what *make* makes of it, a part at a time.

    Attributes:
        kind: What *make* makes; see :meth:`EventBatch.made`.
    """

    event: LargeEvent
    kind: Hashable
    make: Callable[[EventBatch], bytes]

    async def part(self, begin: int) -> tuple[bytes, bool]:
        """Return as much as a reader may hold, from byte *begin* on, and whether there is more.

        Raises:
            NotFound: The event has been removed meanwhile.
        """
        made = (await self.event.whole()).made(self.kind, self.make)
        end = begin + self.event.part_bytes(begin)
        return made[begin:end], end < len(made)


def ends(part: EventBatch | LargeEvent) -> bool:
    """Return whether *part* has the end of its stream."""
    return isinstance(part, EventBatch) and bool(part) and isinstance(part[-1], StreamEnd)
