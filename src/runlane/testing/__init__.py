"""Simulations: virtual time, processes that are killed or stand still, an unreachable ledger."""

from __future__ import annotations

from runlane.testing.simulate import simulate
from runlane.testing.world import Failure, Report, Turn, World

__all__ = ["Failure", "Report", "Turn", "World", "simulate"]
