"""Simulated worlds: virtual time, processes that are killed or stand still, a ledger that is out of reach."""
