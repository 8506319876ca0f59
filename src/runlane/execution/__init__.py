"""Executing an attempt: the worker, the attempt, how it ends, and telling whoever waits."""
