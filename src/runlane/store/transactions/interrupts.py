"""Interrupts of all threads: those that wait for an answer, and runs that have answered some.

Neither reads more than a bounded part of an index: a page may be shorter than was asked for, and still name the next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from runlane.lifecycle import RunStatus
from runlane.records import ANY_OWNER, Json, Owner
from runlane.requests import StoredRequest
from runlane.store.conditions import ASKS, IS_MINE
from runlane.store.rows import instant, loads, owner_params
from runlane.store.statements import Row, Statement, Transaction, statement
from runlane.store.transactions.run_search import NEWEST

#: Threads that are compared with a filter at most, for a page.
MAX_COMPARED: Final = 2_000
#: Threads that are read at once. A number in the statement, by which PostgreSQL finds that the index is worth it.
PAGE: Final = 25
#: The newest runs among which answers are looked for.
NEWEST_RUNS: Final = 2_000
#: Ids of interrupts, by which a command may say which it answers. Source: LangGraph, ``is_xxh3_128_hexdigest``.
_INTERRUPT_ID: Final = re.compile(r"[0-9a-f]{32}")

#: Whether a thread with this metadata may be seen.
Permits = Callable[[Json], bool]
_COLUMNS: Final = "thread_id, owner, metadata, interrupts, state_updated_at"


def _asking_sql(of: str, place: str = "state_updated_at, thread_id", after: str = ":at, :after") -> str:
    """Return the SQL of the first threads *of* some that ask, in the order of *place*, behind the values of *after*."""
    return f"""SELECT {_COLUMNS},
      (SELECT run_id FROM runs WHERE runs.thread_id = threads.thread_id AND start_order IS NOT NULL
       ORDER BY start_order DESC LIMIT 1) AS run_id
    FROM threads WHERE {of} AND {ASKS} AND temporary = 0 AND ({place}) > ({after})
    ORDER BY {place} LIMIT {PAGE}"""


ASKING: Final = statement("asking", _asking_sql("1 = 1"))
# PostgreSQL reads the threads of all owners in their order to find those of one, or all of the owner's to sort them,
# unless it is asked for the first ones from a place on.
_ASKING_FROM_OWNER: Final = _asking_sql("1 = 1", "owner, state_updated_at, thread_id", ":owner, :at, :after")
ASKING_OF_OWNER: Final = statement(
    "asking_of_owner",
    _asking_sql("owner = :owner"),
    postgres=f"""SELECT {_COLUMNS}, run_id FROM ({_ASKING_FROM_OWNER}) AS first
        WHERE owner = :owner ORDER BY state_updated_at, thread_id""",
)
ASKING_OF_THREAD: Final = statement("asking_of_thread", _asking_sql(f"thread_id = :thread_id AND {IS_MINE}"))
_ANSWERING: Final = """SELECT run_id, thread_id, owner, graph_id, status, kwargs, created_at,
      (SELECT metadata FROM threads WHERE threads.thread_id = newest.thread_id) AS metadata
    FROM (SELECT seq, run_id, thread_id, owner, graph_id, status, kwargs, created_at FROM runs
      WHERE {of} ORDER BY {order} LIMIT {newest}) AS newest
    WHERE {position}(kwargs, '"resume":') > 0 OR {position}(kwargs, '"answers":[') > 0
    ORDER BY seq DESC LIMIT :limit"""


def _answering(name: str, of: str, order: str, *, postgres: str = "") -> Statement:
    lite = _ANSWERING.format(of=of, order=order, newest=NEWEST_RUNS, position="instr")
    other = _ANSWERING.format(of=postgres or of, order=order, newest=NEWEST_RUNS, position="strpos")
    return statement(name, lite, postgres=other)


ANSWERING: Final = _answering("answering", "1 = 1", "seq DESC")
ANSWERING_OF_OWNER: Final = _answering(
    "answering_of_owner",
    "owner = :owner",
    "owner DESC, seq DESC",
    postgres=f"(owner, seq) < (:owner, {NEWEST}) AND owner >= :owner",
)
ANSWERING_OF_THREAD: Final = _answering("answering_of_thread", f"thread_id = :thread_id AND {IS_MINE}", "seq DESC")


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptedThread:
    """A thread whose graph waits for answers.

    Attributes:
        run_id: The run that asked; ``None`` if none has run there, as after a state was written.
        interrupts: What it asks: lists of ``{"id", "value", "response_schema"}`` by the id of the task.
        since: When its state was written last.
    """

    thread_id: str
    owner: str
    metadata: Json
    run_id: str | None
    interrupts: Mapping[str, list[dict[str, Any]]]
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingPage:
    """Threads that wait, those that have asked the longest first; *following* is the next page's ``after``."""

    threads: tuple[InterruptedThread, ...]
    following: tuple[int, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A run that answers interrupts: *interrupt_ids*, or, without any, whatever its thread asked.

    *answered_by* is its owner, or the operator who answered for them.
    """

    run_id: str
    thread_id: str
    graph_id: str | None
    interrupt_ids: tuple[str, ...]
    answered_by: str
    answered_at: datetime
    status: RunStatus


def asking(
    owner: Owner, permits: Permits | None, thread_id: str | None, after: tuple[int, str], limit: int
) -> Transaction[AskingPage]:
    """Return up to *limit* threads whose graphs wait for answers, of those whose metadata *permits*."""
    scope = ASKING_OF_THREAD if thread_id else ASKING if owner is ANY_OWNER else ASKING_OF_OWNER
    found = list[InterruptedThread]()
    for _ in range(MAX_COMPARED // PAGE):
        rows = yield scope(at=after[0], after=after[1], thread_id=thread_id, **owner_params(owner))
        for row in rows:
            after = row["state_updated_at"], row["thread_id"]
            if permits is None or permits(loads(row["metadata"])):
                found.append(_asking(row))
            if len(found) == limit:
                return AskingPage(threads=tuple(found), following=after)
        if len(rows) < PAGE:
            return AskingPage(threads=tuple(found), following=None)
    return AskingPage(threads=tuple(found), following=after)


def answers(
    owner: Owner, permits: Permits | None, thread_id: str | None, limit: int
) -> Transaction[tuple[Answer, ...]]:
    """Return the newest runs that answer interrupts, among the newest runs of threads whose metadata *permits*."""
    scope = ANSWERING_OF_THREAD if thread_id else ANSWERING if owner is ANY_OWNER else ANSWERING_OF_OWNER
    at_once = limit if permits is None else NEWEST_RUNS
    rows = yield scope(thread_id=thread_id, limit=at_once, **owner_params(owner))
    permitted = (row for row in rows if permits is None or permits(loads(row["metadata"])))
    return tuple(answer for row in permitted if (answer := _answer(row)) is not None)[:limit]


def _asking(row: Row) -> InterruptedThread:
    return InterruptedThread(
        thread_id=row["thread_id"],
        owner=row["owner"],
        metadata=loads(row["metadata"]),
        run_id=row["run_id"],
        interrupts=loads(row["interrupts"]),
        since=instant(row["state_updated_at"]),
    )


def _answer(row: Row) -> Answer | None:
    """Return the answer that a run is; ``None`` if its text only looked like one."""
    stored = StoredRequest(row["kwargs"])
    request = stored.request
    resume = (request.command or {}).get("resume")
    if not request.answers and resume is None:
        return None
    named = tuple(key for key in resume if _INTERRUPT_ID.fullmatch(key)) if isinstance(resume, dict) else ()
    return Answer(
        run_id=row["run_id"],
        thread_id=row["thread_id"],
        graph_id=row["graph_id"],
        interrupt_ids=request.answers or named,
        answered_by=stored.origin.operator or row["owner"],
        answered_at=instant(row["created_at"]),
        status=RunStatus(row["status"]),
    )
