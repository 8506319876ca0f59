"""Heads of lanes as PostgreSQL keeps them: a simulated ledger keeps one for each thread, and claims go through it.

What moves a lane has to move its head, or nobody starts the lane's next run. SQLite keeps no heads, so the two
statements that move and take them have texts of their own for it here; ``tests/contract`` tests those of PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from runlane.store.conditions import IS_ACTIVE, IS_DUE, IS_PENDING, RUNNING
from runlane.store.statements import Statement, T, Transaction, statement
from runlane.store.transactions.heads import MOVE_HEAD, TAKE_HEADS
from runlane.testing.history import History
from runlane.testing.ledger import Ledger

_HEADS: Final = (
    "CREATE TABLE sim_heads (thread_id TEXT PRIMARY KEY, seq INTEGER, due INTEGER, taken INTEGER, turn INTEGER)"
)
_MOVE: Final = statement(
    "sim_move_head",
    f"""INSERT INTO sim_heads (thread_id, seq, due)
        SELECT :thread_id, head.seq, head.due FROM (SELECT 1) LEFT JOIN (
          SELECT seq, CASE WHEN {IS_DUE} THEN 0 ELSE not_before END AS due FROM runs
          WHERE thread_id = :thread_id AND {IS_PENDING}
            AND NOT EXISTS (SELECT 1 FROM runs WHERE thread_id = :thread_id AND status = {RUNNING})
          ORDER BY due, seq LIMIT 1) AS head ON true
        WHERE true ON CONFLICT (thread_id) DO UPDATE SET seq = excluded.seq, due = excluded.due""",
)
# Of each lane that is to go on, the head that is kept is taken, whichever run is the first by now.
_TAKE: Final = f"""UPDATE sim_heads SET taken = sim_heads.seq, seq = NULL, turn = found.turn
    FROM ({TAKE_HEADS.sqlite}) AS found
    WHERE sim_heads.thread_id = found.thread_id AND sim_heads.seq IS NOT NULL
    RETURNING sim_heads.thread_id AS thread_id, taken AS seq, sim_heads.turn AS turn"""
_LANES: Final = f"""SELECT threads.thread_id AS thread, kept.seq AS kept, kept.due > {{now}} AS waits, running, first,
      due_first, (SELECT status FROM runs WHERE seq = kept.seq AND thread_id = threads.thread_id) AS status
    FROM threads LEFT JOIN sim_heads AS kept USING (thread_id) LEFT JOIN (
      SELECT thread_id, SUM(status = {RUNNING}) AS running,
        MIN(CASE WHEN not_before <= created_at THEN seq END) AS first,
        MIN(CASE WHEN not_before <= MAX({{now}}, created_at) THEN seq END) AS due_first
      FROM runs WHERE {IS_ACTIVE} GROUP BY thread_id) AS active USING (thread_id)"""


class HeadedLedger(Ledger):
    """A ledger that keeps heads, and looks whether they are right after each commit that moved a lane."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self.execute_script(_HEADS)

    def apply(self, transaction: Transaction[T], by: str = "") -> T:
        before = len(self.history.notes)
        result = super().apply(transaction, by)
        if any(note.kind in ("admit", "move") for note in self.history.notes[before:]):
            for lane in self.query(_LANES.format(now=self.now_us())):
                if wrong := _wrong(**lane):
                    self.history.note("wrong_head", thread=lane["thread"], why=wrong, by=by)
        return result


def _wrong(
    *,
    thread: str,
    kept: int | None,
    waits: int | None,
    running: int | None,
    first: int | None,
    due_first: int | None,
    status: str | None,
) -> str | None:
    """Return what is wrong with the head that is *kept* of a lane, if anything is.

    A head that is due stays when a delayed run before it becomes due; the claim moves it then.

    Args:
        waits: The head is not due.
        running: How many runs execute; ``None``: none is active.
        first: The first waiting run that nobody delayed.
        due_first: The first that is due.
        status: Of the run that is kept, if it is one of this thread.
    """
    if running != 0:
        return None if kept is None else f"{kept} may start, though the lane is {'busy' if running else 'empty'}"
    if kept is None or status != "pending":
        return f"{kept} ({status}) may start, and none of those that wait"
    if (first is not None and first < kept) or (waits and due_first not in (None, kept)):
        return f"{kept} may start, and not {first if due_first is None else due_first}, which is the first"
    return None


@contextmanager
def kept_heads() -> Iterator[None]:
    """Have the product keep heads on SQLite, for a while."""
    texts = [(MOVE_HEAD, MOVE_HEAD.sqlite), (TAKE_HEADS, TAKE_HEADS.sqlite)]
    _set(MOVE_HEAD, _MOVE.sqlite)
    _set(TAKE_HEADS, _TAKE)
    try:
        yield
    finally:
        for changed, text in texts:
            _set(changed, text)


def _set(changed: Statement, text: str) -> None:
    object.__setattr__(changed, "sqlite", text)
