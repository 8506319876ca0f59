"""The doctor: finds invariant violations of a ledger, explains them, and repairs what needs no judgement."""

from __future__ import annotations

from runlane.doctor.examination import Examination, examine, other_schema, repair
from runlane.doctor.findings import Finding
from runlane.doctor.live import LiveDoctor
from runlane.doctor.opening import OpenLedger, open_ledger
from runlane.doctor.roles import RowSecurity, row_security
from runlane.doctor.storage import LedgerStorage, measure

__all__ = [
    "Examination",
    "Finding",
    "LedgerStorage",
    "LiveDoctor",
    "OpenLedger",
    "RowSecurity",
    "examine",
    "measure",
    "open_ledger",
    "other_schema",
    "repair",
    "row_security",
]
