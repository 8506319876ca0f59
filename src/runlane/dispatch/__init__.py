"""Dispatch: how pending runs reach a worker."""
