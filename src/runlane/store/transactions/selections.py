"""Runs that an action on many is for: what decides whether it can act on each, without what else a run has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from runlane.lifecycle import RunStatus
from runlane.records import Owner
from runlane.store.statements import Row, Statement, Transaction, statement
from runlane.store.transactions.run_search import RunFilter, matching_columns, page_of

#: With the run's id, the idempotency key of the run that retries it: it is retried once.
RETRY_KEY: Final = "retry of "
_COLUMNS: Final = f"""run_id, thread_id, owner, seq, status, graph_id, started_at, {{tokens}} AS tokens,
  CASE WHEN cancel_requested_at IS NULL THEN 0 ELSE 1 END AS cancelled,
  CASE WHEN EXISTS (SELECT 1 FROM runs AS other WHERE other.thread_id = runs.thread_id AND other.seq > runs.seq)
    THEN 1 ELSE 0 END AS followed,
  (SELECT other.run_id FROM runs AS other WHERE other.owner = runs.owner AND other.thread_id = runs.thread_id
    AND other.idempotency_key = '{RETRY_KEY}' || runs.run_id) AS retry_run_id"""

NEWEST_WRITER: Final = statement(
    "selections.newest_writer",
    """SELECT run_id FROM checkpoints WHERE thread_id = :thread_id AND checkpoint_ns = ''
       ORDER BY checkpoint_id DESC LIMIT 1""",
)


@cache
def selecting(scope: str) -> Statement:
    """Return the statement that reads this of runs of *scope* that match, of those between two numbers."""
    return matching_columns(scope, f"selections.matching_{scope}", _COLUMNS)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedRun:
    """What decides whether a run can be acted on.

    Attributes:
        begun: Whether it has executed.
        cancelled: Whether a cancel of it is recorded.
        followed: Whether its thread has a newer run.
        retry_run_id: The run that retries it.
        tokens: What it has used so far.
    """

    run_id: str
    thread_id: str
    owner: str
    seq: int
    status: RunStatus
    graph_id: str | None
    begun: bool
    cancelled: bool
    followed: bool
    retry_run_id: str | None
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionPage:
    """The same as :class:`RunPage`, of selected runs."""

    runs: tuple[SelectedRun, ...]
    next_before: int | None


def select_runs(owner: Owner, where: RunFilter, before: int, limit: int) -> Transaction[SelectionPage]:
    """Return the runs that :func:`search_runs` finds."""
    rows, next_before = yield from page_of(owner, where, before, limit, selecting)
    return SelectionPage(runs=tuple(_selected(row) for row in rows), next_before=next_before)


def wrote_newest_checkpoint(run_id: str, thread_id: str) -> Transaction[bool]:
    """Return whether the newest checkpoint of the thread's graph is of the run."""
    rows = yield NEWEST_WRITER(thread_id=thread_id)
    return bool(rows) and rows[0]["run_id"] == run_id


def _selected(row: Row) -> SelectedRun:
    return SelectedRun(
        run_id=row["run_id"],
        thread_id=row["thread_id"],
        owner=row["owner"],
        seq=row["seq"],
        status=RunStatus(row["status"]),
        graph_id=row["graph_id"],
        begun=row["started_at"] is not None,
        cancelled=bool(row["cancelled"]),
        followed=bool(row["followed"]),
        retry_run_id=row["retry_run_id"],
        tokens=row["tokens"],
    )
