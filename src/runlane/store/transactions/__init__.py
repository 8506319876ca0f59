"""The ledger's named statements, and the transactions that use them, written once for all databases."""

from __future__ import annotations
