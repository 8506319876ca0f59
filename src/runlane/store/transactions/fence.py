"""The fence: nothing is written for an attempt that does not own its run."""

from __future__ import annotations

from runlane.errors import LeaseLost
from runlane.records import Lease
from runlane.store.conditions import HOLDS_RUN
from runlane.store.statements import T, Transaction, statement

# Guard: the attempt owns its run, and keeps it until the write is committed: whoever ends or takes the run locks its
# row FOR UPDATE, which waits for this lock; a renewal does not.
HOLDS_LEASE = statement(
    "holds_lease",
    f"SELECT 1 AS held FROM runs WHERE {HOLDS_RUN} {{for_key_share}}",
)


def fence(lease: Lease) -> Transaction[None]:
    """Refuse to go on unless the attempt owns its run.

    Raises:
        LeaseLost: Another attempt has the run, or it is terminal.
    """
    held = yield HOLDS_LEASE(run_id=lease.run_id, attempt=lease.attempt)
    if not held:
        raise LeaseLost(lease.run_id, lease.attempt)


def fenced(lease: Lease, transaction: Transaction[T]) -> Transaction[T]:
    """Run *transaction* while *lease* holds.

    Raises:
        LeaseLost: The attempt does not own its run.
    """
    yield from fence(lease)
    return (yield from transaction)
