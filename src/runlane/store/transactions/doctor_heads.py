"""Threads on PostgreSQL whose row does not name the head of their lane, which nobody would start then."""

from __future__ import annotations

from typing import Final

from runlane.store.conditions import PENDING
from runlane.store.statements import Transaction, statement
from runlane.store.transactions.heads import first_of_lane, move_head
from runlane.store.transactions.runs import LOCK_THREAD

# A head that is due stays when a delayed run before it becomes due; the claim moves it then. So it is wrong only if it
# is none at all, not due yet, or behind a run that never was delayed.
_WRONG: Final = f"""CASE WHEN head.seq IS NULL THEN head_seq IS NOT NULL
  WHEN head_seq = head.seq THEN
    (head_owner, head_assistant, head_group, head_home)
      IS DISTINCT FROM (head.owner, COALESCE(head.assistant_id, ''), head.graph, head.home)
    OR head_due NOT IN (0, (SELECT not_before FROM runs WHERE runs.seq = head.seq))
  WHEN head_seq IS NULL THEN true
  ELSE head_due > {{now}}
    OR EXISTS (SELECT 1 FROM runs WHERE runs.seq = head.seq AND not_before <= created_at)
    OR NOT EXISTS (SELECT 1 FROM runs WHERE runs.seq = head_seq AND runs.thread_id = threads.thread_id
                     AND runs.status = {PENDING}) END"""
_OF_THREADS: Final = f"SELECT threads.thread_id FROM threads {first_of_lane('threads.thread_id')} WHERE {_WRONG}"
WRONG_HEADS: Final = statement(
    "doctor.wrong_heads",
    "",
    postgres=f"""{_OF_THREADS} AND threads.thread_id > :after AND threads.thread_id <= :upto
        ORDER BY threads.thread_id""",
)
_STILL_WRONG: Final = statement(
    "doctor.still_wrong_head", "", postgres=f"{_OF_THREADS} AND threads.thread_id = :thread_id"
)
# Called under the thread's lock, whose head is then moved.
_CLEAR_HEAD: Final = statement(
    "doctor.clear_head",
    "",
    postgres="""UPDATE threads SET head_seq = NULL, head_owner = NULL, head_assistant = NULL, head_group = NULL,
          head_due = NULL, head_home = NULL WHERE thread_id = :thread_id""",
)


def set_head_right(thread_id: str) -> Transaction[bool]:
    """Compute the head of a thread's lane again, if it is wrong."""
    yield LOCK_THREAD(thread_id=thread_id)
    if not (yield _STILL_WRONG(thread_id=thread_id)):
        return False
    yield _CLEAR_HEAD(thread_id=thread_id)
    yield from move_head(thread_id)
    return True
