"""The fence: nothing is written for an attempt that does not own its run."""

from __future__ import annotations

from typing import Final

from runlane.errors import LeaseLost, RowsLocked
from runlane.records import Lease
from runlane.store.conditions import EXECUTES, HOLDS_RUN
from runlane.store.statements import T, Transaction, statement

_HOLDS: Final = f"SELECT 1 AS held FROM runs WHERE {HOLDS_RUN}"
# Guard: the attempt owns its run, and keeps it until the write is committed: whoever ends or takes the run locks its
# row FOR UPDATE, which waits for this lock; nothing else does.
HOLDS_LEASE = statement("holds_lease", f"{_HOLDS} {{for_key_share}}")
# The same for a row that no other transaction has locked; one that is locked is skipped.
HOLDS_FREE_LEASE = statement(
    "holds_free_lease",
    f"{_HOLDS} {{key_share_skip_locked}}",
    together=f"""SELECT place, held
       FROM unnest(CAST(:run_id AS TEXT[]), CAST(:attempt AS BIGINT[])) WITH ORDINALITY AS each (run_id, attempt, place)
       CROSS JOIN LATERAL (
         SELECT 1 AS held FROM runs WHERE runs.run_id = each.run_id AND runs.attempt = each.attempt
           AND {EXECUTES} LIMIT 1 {{key_share_skip_locked}}) AS run""",
)
# Tells a row that somebody has from one that is not the attempt's any more. SQLite has one writer.
STILL_HOLDS = statement("still_holds", "", postgres=_HOLDS)


def fence(lease: Lease) -> Transaction[None]:
    """Refuse to go on unless the attempt owns its run.

    Raises:
        LeaseLost: Another attempt has the run, or it is terminal.
    """
    held = yield HOLDS_LEASE(run_id=lease.run_id, attempt=lease.attempt)
    if not held:
        raise LeaseLost(lease.run_id, lease.attempt)


def fence_free(lease: Lease) -> Transaction[None]:
    """Do the same for a write among those of other runs, which must not wait for this one's row.

    Raises:
        LeaseLost: Another attempt has the run, or it is terminal.
        RowsLocked: Another transaction is about to end or to take the run: send it again.
    """
    held = yield HOLDS_FREE_LEASE(run_id=lease.run_id, attempt=lease.attempt)
    if held:
        return
    if (yield STILL_HOLDS(run_id=lease.run_id, attempt=lease.attempt)):
        raise RowsLocked(f"another transaction has locked run {lease.run_id}")
    raise LeaseLost(lease.run_id, lease.attempt)


def fenced(lease: Lease, transaction: Transaction[T]) -> Transaction[T]:
    """Run *transaction* while *lease* holds.

    Raises:
        LeaseLost: The attempt does not own its run.
    """
    yield from fence(lease)
    return (yield from transaction)
