"""Ids of checkpoints that follow those of other processes, whatever the clocks of their machines say."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from langgraph.checkpoint.base import id as ids

#: Of a UUID: ids that LangGraph makes are of this version, and begin with their time.
TIMED: Final = 6


def follow(checkpoint_id: str) -> None:
    """Have every id that this process makes from now on be greater than *checkpoint_id*.

    The newest checkpoint of a thread is the one with the greatest id, which begins with the time of the machine that
    made it. A run that continues on a machine whose clock is behind would make checkpoints that are older than the ones
    it continues from. LangGraph keeps the last time for which it made an id, and never goes back behind it.

    Source: S. Kulkarni et al., "Logical Physical Clocks" (2014).
    """
    try:
        made = UUID(checkpoint_id)
    except ValueError:
        return  # an id that somebody else has made up has no time
    if made.version != TIMED:
        return
    # UUID.time is that of version 1, whose parts are in another order.
    time = (made.int >> 80) << 12 | (made.int >> 64) & 0x0FFF
    if ids._last_v6_timestamp is None or ids._last_v6_timestamp < time:
        ids._last_v6_timestamp = time  # type: ignore[assignment]  # its annotation is missing
