"""Periodic work: rescue, retention, crons."""
