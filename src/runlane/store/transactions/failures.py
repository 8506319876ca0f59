"""Failures in groups: of the same graph, with the same error and, but for numbers and ids, the same message."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from runlane.store.rows import dumps, error_of, loads
from runlane.store.statements import Row, Transaction, statement

HOUR_US: Final = 3_600_000_000
#: A group that had no failure for so long is forgotten.
KEPT_US: Final = 90 * 24 * HOUR_US
#: New groups of a day; further failures are one group per graph, of the error ``OTHER_ERRORS``.
MAX_NEW_GROUPS: Final = 1000
OTHER_ERRORS: Final = "(other)"
#: How much of an error's name and message is compared.
MAX_ERROR_CHARS: Final = 200
MAX_MESSAGE_CHARS: Final = 300
#: Threads of a group are counted by the least hashes of their ids: exactly below this number, then within about 13 %.
MAX_HASHES: Final = 64
_HASHES: Final = 2**32
_WORD: Final = re.compile(r"\w+(?:-\w+)*")

FIND_GROUPS = statement(
    "find_groups",
    """SELECT group_id, threads, first_at, first_build, last_at, last_build, run_id, thread_id
       FROM failure_groups WHERE group_id IN {listed :group_ids}""",
)
COUNT_NEW_GROUPS = statement(
    "count_new_groups", "SELECT COUNT(*) AS groups FROM failure_groups WHERE first_at >= :since"
)
_CHANGING = ("threads", "first_at", "first_build", "last_at", "last_build", "run_id", "thread_id")
_COLUMNS = ("group_id", "graph_id", "error", "message", *_CHANGING)
# Guard: no other process counts, so that nobody has changed the group since it was found.
PUT_GROUP = statement(
    "put_group",
    f"""INSERT INTO failure_groups ({", ".join(_COLUMNS)}) VALUES ({", ".join(f":{name}" for name in _COLUMNS)})
        ON CONFLICT (group_id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _CHANGING)}""",
)
# Guard: as above.
ADD_FAILURES = statement(
    "add_failures",
    """INSERT INTO failure_totals (hour, group_id, build, runs) VALUES (:hour, :group_id, :build, :runs)
       ON CONFLICT (hour, group_id, build) DO UPDATE SET runs = failure_totals.runs + excluded.runs""",
)
# Guard: they had no failure for long.
PURGE_FAILURES = (
    statement("purge_failure_groups", f"DELETE FROM failure_groups WHERE last_at < :now_us - {KEPT_US}"),
    statement("purge_failure_totals", f"DELETE FROM failure_totals WHERE hour < (:now_us - {KEPT_US}) / {HOUR_US}"),
)


def same_message(text: str) -> str:
    """Return *text* with every word that has a digit replaced by ``#``, so that those of the same failure are equal."""
    words = _WORD.sub(lambda word: "#" if any(map(str.isdigit, word[0])) else word[0], text[:MAX_MESSAGE_CHARS])
    return " ".join(words.split())


def threads_of(hashes: Sequence[int]) -> int:
    """Return how many threads have these least *hashes*."""
    return len(hashes) if len(hashes) < MAX_HASHES else round((MAX_HASHES - 1) * _HASHES / max(1, hashes[-1]))


def add_failures(rows: Sequence[Row], *, day_began_at: int) -> Transaction[None]:
    """Add failed runs to their groups. Nobody else may do so until the commit."""
    if not rows:
        return
    named = [(row, _group_of(row), _group(row["graph_id"], OTHER_ERRORS, "")) for row in rows]
    ids = sorted({one["group_id"] for _, *groups in named for one in groups})
    groups = {
        row["group_id"]: {**row, "threads": loads(row["threads"])} for row in (yield FIND_GROUPS(group_ids=dumps(ids)))
    }
    [new] = yield COUNT_NEW_GROUPS(since=day_began_at)
    left, failures = MAX_NEW_GROUPS - new["groups"], Counter[tuple[int, str, str]]()
    for row, own, other in named:
        chosen = own if own["group_id"] in groups or left > 0 else other
        left -= chosen["group_id"] not in groups
        groups[chosen["group_id"]] = _with(row, chosen | groups.get(chosen["group_id"], {}))
        failures[row["ended_at"] // HOUR_US, chosen["group_id"], row["build"]] += 1
    changed = sorted({group_id for _, group_id, _ in failures})
    yield PUT_GROUP.many([{**groups[group_id], "threads": dumps(groups[group_id]["threads"])} for group_id in changed])
    yield ADD_FAILURES.many(
        [
            {"hour": hour, "group_id": group_id, "build": build, "runs": runs}
            for (hour, group_id, build), runs in sorted(failures.items())
        ]
    )


def _group_of(row: Row) -> dict[str, Any]:
    error = error_of(row["error"])
    assert error is not None
    return _group(row["graph_id"], error.error[:MAX_ERROR_CHARS], same_message(error.message))


def _group(graph_id: str, error: str, message: str) -> dict[str, Any]:
    group_id = hashlib.sha256(dumps([graph_id, error, message]).encode()).hexdigest()[:16]
    return {"group_id": group_id, "graph_id": graph_id, "error": error, "message": message, "threads": ()}


def _with(row: Row, group: dict[str, Any]) -> dict[str, Any]:
    """Return *group* with a failed run."""
    ended_at, build = row["ended_at"], row["build"]
    hashed = int.from_bytes(hashlib.sha256(row["thread_id"].encode()).digest()[:4])
    group["threads"] = sorted({*group["threads"], hashed})[:MAX_HASHES]
    if ended_at < group.get("first_at", math.inf):
        group |= {"first_at": ended_at, "first_build": build}
    if ended_at >= group.get("last_at", 0):
        group |= {"last_at": ended_at, "last_build": build, "run_id": row["run_id"], "thread_id": row["thread_id"]}
    return group
