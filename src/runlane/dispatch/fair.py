"""The queue of runs that wait for a slot, shared fairly among owners."""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict, deque
from itertools import count
from typing import Final, Literal

from runlane.records import Head
from runlane.settings import Limits

#: What a limit counts by, and which one it is.
Key = tuple[Literal["owner", "assistant", "graph"], str]
#: Runs of one owner, assistant and graph: what is true of one of them is true of all.
Share = tuple[str, str | None, str | None]


class FairQueue:
    """Runs that wait for a slot, and how many each owner has in slots.

    The next run is of the owner that has the fewest runs in slots, and of that owner's the one that waits longest; ties
    go to the owner whose run waits longer. A run that a limit holds back lets all others pass, so that no slot stays
    free while a run may start.

    A run costs O(log n), and one more for each share of owner, assistant and graph that a limit holds back.
    """

    def __init__(self, limits: Limits) -> None:
        self._free: float = limits.slots or math.inf
        self._limits: Final = {
            "owner": limits.per_owner,
            "assistant": limits.per_assistant,
            "graph": limits.per_graph,
        }
        self._arrivals = count()
        self._waiting: dict[Share, deque[tuple[int, Head]]] = {}
        self._running: Counter[Key] = Counter()
        # The shares of an owner that may start, the longest waiting first.
        self._startable: defaultdict[str, list[tuple[int, Share]]] = defaultdict(list)
        # Owners by runs in slots and arrival of their next run. An entry that is not so any more is passed over.
        self._next: list[tuple[int, int, str]] = []
        self._held_back: defaultdict[Key, list[Share]] = defaultdict(list)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, head: Head) -> None:
        """Let *head* wait for a slot."""
        share = (head.owner, head.assistant_id, head.graph_id)
        line = self._waiting.setdefault(share, deque())
        line.append((next(self._arrivals), head))
        if len(line) == 1:
            self._offer(share)

    def get(self) -> Head | None:
        """Return the run that starts next and count it as one in a slot, or ``None`` if none may start."""
        share = self._first()
        if share is None:
            return None
        heapq.heappop(self._next)
        heapq.heappop(self._startable[share[0]])
        return self._taken(share)

    def take(self, head: Head) -> bool:
        """Count *head*, which does not wait, as one in a slot if one is free for it and no run that waits may start."""
        share = (head.owner, head.assistant_id, head.graph_id)
        if not self._free or self._first() is not None or self._limit_reached(share) is not None:
            return False
        self._count(share)
        return True

    def done(self, head: Head) -> None:
        """Count *head*, which :meth:`get` returned or :meth:`take` took, as one that has left its slot."""
        self._free += 1
        share = (head.owner, head.assistant_id, head.graph_id)
        for key in _keys(share):
            self._running[key] -= 1
            if not self._running[key]:
                del self._running[key]
            for held_back in self._held_back.pop(key, ()):
                self._offer(held_back)
        self._note(head.owner)

    def _first(self) -> Share | None:
        """Return the share of the run that starts next, which stays where it is; ``None`` if none may start."""
        while self._free and self._next:
            running, arrival, owner = self._next[0]
            shares = self._startable.get(owner)
            if shares and (running, arrival) == (self._running["owner", owner], shares[0][0]):
                key = self._limit_reached(shares[0][1])
                if key is None:
                    return shares[0][1]
                heapq.heappop(self._next)
                self._held_back[key].append(heapq.heappop(shares)[1])
                self._note(owner)
            else:
                heapq.heappop(self._next)
        return None

    def _taken(self, share: Share) -> Head:
        line = self._waiting[share]
        _, head = line.popleft()
        self._count(share)
        if line:
            self._offer(share)
        else:
            del self._waiting[share]
            self._note(share[0])
        return head

    def _count(self, share: Share) -> None:
        self._free -= 1
        for key in _keys(share):
            self._running[key] += 1

    def _offer(self, share: Share) -> None:
        """Put *share*, which has a run that waits, among those that may start, or those that a limit holds back."""
        key = self._limit_reached(share)
        if key is not None:
            self._held_back[key].append(share)
        else:
            heapq.heappush(self._startable[share[0]], (self._waiting[share][0][0], share))
        self._note(share[0])

    def _note(self, owner: str) -> None:
        """Enter *owner* with what it has in slots now and the run that it would start next."""
        shares = self._startable.get(owner)
        if shares:
            heapq.heappush(self._next, (self._running["owner", owner], shares[0][0], owner))
        else:
            self._startable.pop(owner, None)

    def _limit_reached(self, share: Share) -> Key | None:
        for key in _keys(share):
            limit = self._limits[key[0]]
            if limit and self._running[key] >= limit:
                return key
        return None


def _keys(share: Share) -> list[Key]:
    owner, assistant_id, graph_id = share
    keys: list[Key] = [("owner", owner)]
    if assistant_id is not None:
        keys.append(("assistant", assistant_id))
    if graph_id is not None:
        keys.append(("graph", graph_id))
    return keys
