"""In which order the runs of a thread started, and its state was written: by a number, since clocks are set back.

Numbers grow with every start in the ledger and are never given out again. One is drawn under its thread's lock, so that
those of a thread become visible in their order.
"""

from __future__ import annotations

from runlane.store.statements import Row, Transaction, statement

# Called under the lock of the thread that gets the number.
NEXT_ORDER = statement(
    "next_order",
    "UPDATE start_orders SET newest = newest + 1 RETURNING newest AS number",
    postgres="SELECT nextval('start_orders') AS number",
)
# Guard: it has none yet, so that a run keeps its place in every attempt.
SET_START_ORDER = statement(
    "set_start_order",
    "UPDATE runs SET start_order = :number WHERE run_id = :run_id AND start_order IS NULL RETURNING {run}",
)


def next_order() -> Transaction[int]:
    """Return the next number; call it under the thread's lock."""
    rows = yield NEXT_ORDER()
    number: int = rows[0]["number"]
    return number


def placed(row: Row) -> Transaction[Row]:
    """Give the run of *row* its place among the starts of its thread, if it has none, and return it."""
    if row["start_order"] is not None:
        return row
    number = yield from next_order()
    rows = yield SET_START_ORDER(run_id=row["run_id"], number=number)
    return rows[0]
