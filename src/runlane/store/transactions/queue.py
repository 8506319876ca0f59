"""The length of the queue, and the waiting times in it."""

from __future__ import annotations

from dataclasses import dataclass

from runlane.store.conditions import HEAD_OF_LANE, IS_ACTIVE, IS_DUE, IS_PENDING, PENDING, RUNNING
from runlane.store.statements import Transaction, statement

COUNT_QUEUE = statement(
    "count_queue",
    f"""SELECT COUNT(CASE WHEN status = {PENDING} THEN 1 END) AS pending,
          COUNT(CASE WHEN status = {RUNNING} THEN 1 END) AS running,
          COUNT(CASE WHEN status = {PENDING} AND {IS_DUE} THEN 1 END) AS due,
          MIN(CASE WHEN status = {PENDING} THEN not_before END) AS oldest, {{now}} AS now_us
        FROM runs WHERE {IS_ACTIVE}""",
)
MEDIAN_DUE = statement(
    "median_due",
    f"SELECT not_before FROM runs WHERE {IS_PENDING} AND {IS_DUE} ORDER BY not_before LIMIT 1 OFFSET :half",
)
OLDEST_UNBLOCKED = statement(
    "oldest_unblocked",
    f"SELECT MIN(not_before) AS oldest FROM runs WHERE {HEAD_OF_LANE}",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """The queue of all owners. A run waits from the instant at which it may start.

    ``unblocked_wait_max_s`` is of runs that wait for a worker only, and for no other run of their thread.
    """

    pending: int
    running: int
    wait_max_s: float
    wait_median_s: float
    unblocked_wait_max_s: float


def queue_stats() -> Transaction[QueueStats]:
    """Count active runs and measure their waits."""
    counts = (yield COUNT_QUEUE())[0]
    now_us, half = counts["now_us"], counts["due"] // 2
    median = yield MEDIAN_DUE(half=half)
    unblocked = yield OLDEST_UNBLOCKED()

    def waited_s(since_us: int | None) -> float:
        return 0.0 if since_us is None else max(0, now_us - since_us) / 1_000_000

    return QueueStats(
        pending=counts["pending"],
        running=counts["running"],
        wait_max_s=waited_s(counts["oldest"]),
        wait_median_s=waited_s(median[0]["not_before"] if median else None),
        unblocked_wait_max_s=waited_s(unblocked[0]["oldest"]),
    )
