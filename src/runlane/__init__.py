"""Runlane: a run manager for AI agents."""
