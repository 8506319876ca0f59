"""Rules in SQL that more than one statement applies, each written once.

They are about a row of ``runs`` or ``threads``; ``other`` is another run of the same thread.
"""

from __future__ import annotations

from typing import Final

from runlane.lifecycle import ACTIVE, TERMINAL, RunStatus, ThreadStatus
from runlane.store.statements import listed, quoted

PENDING: Final = quoted(RunStatus.PENDING)
RUNNING: Final = quoted(RunStatus.RUNNING)
BUSY: Final = quoted(ThreadStatus.BUSY)
#: The thread's graph waits for an answer. The indexes of threads that ask have the same condition.
ASKS: Final = f"status = {quoted(ThreadStatus.INTERRUPTED)} AND interrupts <> '{{}}'"

#: A run that has not ended. The index of active runs has the same condition.
IS_ACTIVE: Final = f"status IN {listed(ACTIVE)}"
IS_TERMINAL: Final = f"status IN {listed(TERMINAL)}"
#: A pending run, found by the index of active runs.
IS_PENDING: Final = f"{IS_ACTIVE} AND status = {PENDING}"
_IS_MINE: Final = "(:any_owner = 1 OR {owner} = :owner)"
#: Parameters: ``owner_params``.
IS_MINE: Final = _IS_MINE.format(owner="owner")
#: The same, of rows that another index finds. It fits no index: PostgreSQL would read that of the owner's rows too, all
#: of them, to read fewer rows of the table.
IS_MINE_TOO: Final = _IS_MINE.format(owner="owner || ''")
#: A run whose delay is over.
IS_DUE: Final = "not_before <= {due}"
#: A run that ended more than ``:age_us`` ago.
ENDED_LONG_AGO: Final = f"ended_at < {{now}} - :age_us AND NOT {IS_ACTIVE}"

#: The same as ``status = RUNNING``, for a run that is found by its id. It fits no index: by statistics from a time when
#: nothing executed, PostgreSQL would rather read the index of all running runs, for each run that it looks for.
EXECUTES: Final = f"status || '' = {RUNNING}"
#: The fence: the attempt owns its run.
HOLDS_RUN: Final = f"run_id = :run_id AND attempt = :attempt AND {EXECUTES}"

#: *other* was admitted before the run.
EARLIER: Final = "other.seq < runs.seq"
#: *other* is due and goes before the run.
GOES_FIRST: Final = f"{EARLIER} AND other.{IS_DUE}"
#: Nothing of the run's thread executes, and no run of it goes first.
UNBLOCKED: Final = f"""NOT EXISTS (SELECT 1 FROM runs AS other WHERE other.thread_id = runs.thread_id
  AND other.{IS_ACTIVE} AND (other.status = {RUNNING} OR ({GOES_FIRST})))"""
#: The run may start: it is pending, due, and unblocked. A lane has at most one such run.
HEAD_OF_LANE: Final = f"{IS_PENDING} AND {IS_DUE} AND {UNBLOCKED}"

#: The thread has a run that has not ended.
HAS_ACTIVE_RUN: Final = f"EXISTS (SELECT 1 FROM runs WHERE runs.thread_id = threads.thread_id AND runs.{IS_ACTIVE})"
HAS_RUNNING_RUN: Final = (
    f"EXISTS (SELECT 1 FROM runs WHERE runs.thread_id = threads.thread_id AND runs.status = {RUNNING})"
)

#: The id of the newest checkpoint of a thread's graph, where its next attempt goes on; NULL if there is none.
NEWEST_CHECKPOINT: Final = """(SELECT checkpoint_id FROM checkpoints WHERE thread_id = :thread_id
  AND checkpoint_ns = '' ORDER BY checkpoint_id DESC LIMIT 1)"""


def thread_status(settled: str) -> str:
    """Return the expression of a thread's status: busy while a run is active, then *settled*."""
    return f"CASE WHEN {HAS_ACTIVE_RUN} THEN {BUSY} ELSE {settled} END"
