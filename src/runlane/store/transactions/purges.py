"""What the transactions share that remove what is past its retention: one process does so at a time, in small parts."""

from __future__ import annotations

from runlane.store.statements import Rows, Transaction, statement
from runlane.store.transactions.parts import mark_due

# Held until the commit. SQLite has one process.
PURGES_ALONE = statement(
    "purges_alone",
    "",
    postgres="SELECT pg_try_advisory_xact_lock(hashtextextended('runlane purge ' || :what, 0)) AS alone",
)


def purges_alone(what: str) -> Transaction[bool]:
    """Return whether no other process removes such rows now; from then on none does until the commit."""
    rows = yield PURGES_ALONE(what=what)
    return not rows or rows[0]["alone"]


def mark_all_due(removed: Rows) -> Transaction[None]:
    """Have the threads of *removed* rows swept. Their marks are locked in the order of their ids."""
    for thread_id in sorted({row["thread_id"] for row in removed}):
        yield from mark_due(thread_id)
