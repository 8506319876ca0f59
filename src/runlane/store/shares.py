"""Shares: how many places one owner may take. Pure arithmetic."""

from __future__ import annotations


def allowance(capacity: int, *, mine: int, others: int) -> int:
    """Return how many more of *capacity* places an owner may take who has *mine*, while others have *others*.

    In all that is half of what the others leave, so that a newcomer finds a place however many one owner could use. An
    owner who is alone has half of all; the next one a quarter, and so on.
    """
    left = capacity - others
    return max(0, min(left, max(1, left // 2)) - mine)
