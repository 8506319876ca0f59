"""Row-level security of PostgreSQL, which an operator may add: it is for other roles than Runlane's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runlane.doctor.findings import Finding
from runlane.store.statements import Transaction
from runlane.store.transactions import doctor as ledger_sql


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSecurity:
    """Tables of the ledger that have row-level security, by whether it holds for *role*, which asked.

    PostgreSQL lets superusers, roles with ``BYPASSRLS`` and, unless it is forced, owners of a table bypass it.
    """

    role: str
    held: Sequence[str]
    bypassed: Sequence[str]


def row_security() -> Transaction[RowSecurity | None]:
    """Return what PostgreSQL has of it; ``None`` if no table has any."""
    rows = yield ledger_sql.ROW_SECURITY()
    if not rows:
        return None
    return RowSecurity(
        role=rows[0]["role"],
        held=[row["name"] for row in rows if row["active"]],
        bypassed=[row["name"] for row in rows if not row["active"]],
    )


def judge(found: RowSecurity | None) -> list[Finding]:
    if found is None or not found.held:
        return []
    return [
        Finding(
            code="schema.row_security",
            subject={"role": found.role, "tables": ",".join(found.held)},
            meaning="Row-level security holds for Runlane itself: rows that a policy hides from it are neither executed"
            " nor rescued nor purged.",
            repair="let this role own the tables, without FORCE ROW LEVEL SECURITY, or give it BYPASSRLS; policies are"
            " for other roles.",
        )
    ]
