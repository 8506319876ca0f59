"""The length of the queue, and the waiting times in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runlane.store.conditions import HEAD_OF_LANE, IS_ACTIVE, IS_DUE, IS_PENDING, PENDING, RUNNING
from runlane.store.statements import Transaction, quoted, statement
from runlane.store.transactions.webhooks import DeliveryStatus

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
_EXECUTING: Final = "SELECT 1 FROM workers WHERE capacity > 0 AND draining = 0 AND expires_at > {now}"
# Of runs that wait for a worker only, and of those of them that go on in a build that no worker executes, which more
# workers of another one would not help. Where there are no workers at all, nobody knows which build will come.
OLDEST_UNBLOCKED = statement(
    "oldest_unblocked",
    f"SELECT MIN(not_before) AS oldest, NULL AS of_no_build FROM runs WHERE {HEAD_OF_LANE}",
    postgres=f"""SELECT MIN(not_before) FILTER (WHERE has_build) AS oldest,
          MIN(not_before) FILTER (WHERE NOT has_build) AS of_no_build
        FROM (SELECT not_before, pinned_to IS NULL OR EXISTS ({_EXECUTING} AND workers.build = runs.pinned_to)
                OR NOT EXISTS ({_EXECUTING}) AS has_build
              FROM runs WHERE {HEAD_OF_LANE}) AS heads""",
)

OLDEST_LATE = statement(
    "oldest_late",
    f"""SELECT (SELECT MIN(next_at) FROM webhook_deliveries WHERE status = {quoted(DeliveryStatus.PENDING)}) AS webhook,
          (SELECT MIN(next_run_at) FROM crons WHERE enabled = 1 AND next_run_at IS NOT NULL) AS cron,
          {{now}} AS now_us""",
)
PENDING_BY_OWNER = statement(
    "pending_by_owner",
    f"""SELECT owner, COUNT(*) AS runs FROM runs WHERE {IS_PENDING}
        GROUP BY owner ORDER BY runs DESC, owner LIMIT :limit""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """The queue of all owners. A run waits from the instant at which it may start.

    ``unblocked_wait_max_s`` is of runs that wait for a worker only, and for no other run of their thread; without those
    that go on in a build only that no worker has, while there are workers: of these is ``no_build_wait_max_s``.
    """

    pending: int
    running: int
    wait_max_s: float
    wait_median_s: float
    unblocked_wait_max_s: float
    no_build_wait_max_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What is late, and whose runs wait: ``owners`` with the most pending runs, and how many these are."""

    webhooks_late_s: float
    crons_late_s: float
    owners: tuple[tuple[str, int], ...]


def backlog(owners: int) -> Transaction[Backlog]:
    """Measure the backlog; of at most so many *owners*."""
    late = (yield OLDEST_LATE())[0]
    rows = yield PENDING_BY_OWNER(limit=owners)

    def late_s(due_us: int | None) -> float:
        return 0.0 if due_us is None else max(0, late["now_us"] - due_us) / 1_000_000

    return Backlog(
        webhooks_late_s=late_s(late["webhook"]),
        crons_late_s=late_s(late["cron"]),
        owners=tuple((row["owner"], row["runs"]) for row in rows),
    )


def queue_stats() -> Transaction[QueueStats]:
    """Count active runs and measure their waits."""
    counts = (yield COUNT_QUEUE())[0]
    now_us, half = counts["now_us"], counts["due"] // 2
    median = yield MEDIAN_DUE(half=half)
    unblocked = (yield OLDEST_UNBLOCKED())[0]

    def waited_s(since_us: int | None) -> float:
        return 0.0 if since_us is None else max(0, now_us - since_us) / 1_000_000

    return QueueStats(
        pending=counts["pending"],
        running=counts["running"],
        wait_max_s=waited_s(counts["oldest"]),
        wait_median_s=waited_s(median[0]["not_before"] if median else None),
        unblocked_wait_max_s=waited_s(unblocked["oldest"]),
        no_build_wait_max_s=waited_s(unblocked["of_no_build"]),
    )
