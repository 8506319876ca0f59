"""Simulated worlds: virtual time, processes that are killed or stand still, a ledger that is out of reach."""

from __future__ import annotations

from runlane.testing.simulate import simulate
from runlane.testing.world import Failure, Report, Turn, World

__all__ = ["Failure", "Report", "Turn", "World", "simulate"]
