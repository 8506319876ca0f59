"""P1, P2, P3 on PostgreSQL: whatever two transactions on one thread do at the same time, it is as if one came first.

Each is paused after each of its statements, while the other goes on. ``./dev interleavings`` tries every pair of
operations; else those are tried that have been wrong before, or are the closest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pytest

import operations_kit
from ledger_kit import writing_methods
from operations_kit import OPERATIONS, Lane
from pairs_kit import Pairs, pairs_on
from runlane.store.transactions import claims, fence, runs
from simulation.seams import Fragment, applied

EVERYTHING = os.environ.get("RUNLANE_INTERLEAVINGS") == "all"
#: What has been wrong before, or is the closest.
CLOSEST = {
    ("append", "rescue"),
    ("append", "finish"),
    ("append", "hand back"),
    ("append", "take over"),
    ("append together", "rescue"),
    ("append together", "finish"),
    ("append together", "take over"),
    ("append together", "append"),
    ("finish", "rescue"),
    ("claim", "finish"),
    ("cancel running", "finish"),
    ("renew", "rescue"),
    ("admit and interrupt", "finish"),
    ("claim heads", "hand back"),
    ("admit here and there", "admit there and here"),
    ("fire", "delete thread"),
    ("fire", "start cron"),
    ("start cron", "delete thread"),
    ("start cron", "delete cron"),
    ("admit", "delete thread"),
    ("purge runs", "purge runs"),
    ("count totals", "count totals"),
    ("count totals", "purge runs"),
    ("count totals", "delete thread"),
    ("count totals", "finish"),
    ("purge runs", "delete thread"),
    ("set state", "admit"),
    ("create thread", "delete thread"),
    ("create thread", "expire thread"),
    ("create assistant", "delete assistant"),
    ("delete cron", "delete cron"),
}


def pairs() -> Iterator[Any]:
    for lane, operations in OPERATIONS.items():
        for one, other in combinations_with_replacement(operations, 2):
            close = (one, other) in CLOSEST or (other, one) in CLOSEST
            if (EVERYTHING or close) and (one, other) != ("copy", "copy"):  # an id is used once
                yield pytest.param(lane, one, other, id=f"{one} and {other}, {lane.value}")


@pytest.fixture(scope="module")
def tried(postgres_ledger: str) -> Iterator[Pairs]:
    with pairs_on(postgres_ledger) as made:
        yield made


@pytest.mark.parametrize(("lane", "one", "other"), list(pairs()))
def test_two_operations_at_once_are_as_if_one_came_first(lane: Lane, one: str, other: str, tried: Pairs) -> None:
    tried.check(lane, one, other)


def test_every_operation_that_writes_is_tried() -> None:
    tried = Path(operations_kit.__file__).read_text()
    # Each row of the audit is written by one act, and saved views by nothing that is tried here.
    others = ("audit_", "saved_views_")
    sources = {name: source for name, source in writing_methods().items() if not name.startswith(others)}
    operations = {name: re.findall(r"(?:lambda:|return) [a-z_]+\.(\w+)\(", source) for name, source in sources.items()}
    assert all(operations.values()), operations
    assert not {name for name, found in operations.items() if not any(f"{one}(" in tried for one in found)}


TOGETHER = fence.HOLDS_FREE_LEASE.together
assert TOGETHER is not None

#: Bugs that only two transactions at once show, each with the pair that finds it.
PLANTED = {
    "events are written under a fence that locks nothing": (
        Fragment(statement=fence.HOLDS_FREE_LEASE, text="FOR KEY SHARE SKIP LOCKED", other=""),
        (Lane.BUSY, "append", "take over"),
    ),
    "events of many runs are written under a fence that locks nothing": (
        Fragment(statement=TOGETHER, text="FOR KEY SHARE SKIP LOCKED", other=""),
        (Lane.BUSY, "append together", "take over"),
    ),
    "a claim does not lock the thread first": (
        Fragment(statement=claims.LOCK_LANE, text="FOR UPDATE", other=""),
        (Lane.WAITING, "claim", "cancel waiting"),
    ),
    "a rescue does not lock the thread first": (
        Fragment(statement=runs.LOCK_FREE_THREAD, text="FOR UPDATE SKIP LOCKED", other=""),
        (Lane.BUSY, "rescue", "finish"),
    ),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str, tried: Pairs) -> None:
    patch, pair = PLANTED[bug]
    tried.check(*pair)
    with applied([patch]), pytest.raises(AssertionError, match="meanwhile"):
        tried.check(*pair)
